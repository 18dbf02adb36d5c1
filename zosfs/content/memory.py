"""The one budget of bytes in flight and read ahead, over all open files, and the buffers that such bytes live in.

Owns: the count of bytes handed out, the queue of who waits for some, the free list of buffers. Whoever must have bytes waits in
turn; whoever only would like to have them (read-ahead) gets a no instead. Must not know: what the bytes are for.
"""

from __future__ import annotations

import contextlib
import mmap
from collections import deque
from collections.abc import AsyncIterator, Callable

import trio

from zosfs.counters import Counters

SMALLEST = 64 << 10
"""Buffers below this are plain memory: they cost no page faults worth saving."""

HUGE = 2 << 20
"""Buffers from here on ask for huge pages: one page fault instead of 512."""

KEPT = 96 << 20
"""Bytes of unused buffers that are kept for the next ones; fresh memory costs a page fault per 4 KiB."""


class Slab:
    """A buffer of *size* bytes from `MemoryBudget.slab`; *view* are the bytes asked for."""

    __slots__ = ("_map", "size", "view")

    def __init__(self, size: int) -> None:
        self.size = size
        self._map: mmap.mmap | None = _fresh(size) if size >= SMALLEST else None
        self.view = memoryview(b"")
        self.lend(size)

    def lend(self, length: int) -> None:
        """Make *view* the first *length* bytes."""
        self.view = memoryview(self._map)[:length] if self._map is not None else memoryview(bytearray(length))

    def unseen(self) -> bool:
        """Drop *view*; True when nobody else holds a view of the bytes, so that they may be overwritten."""
        self.view = memoryview(b"")
        if self._map is None:
            return False  # not worth keeping
        try:
            self._map.resize(self.size)  # to what it is: does nothing but check for views
        except (BufferError, SystemError):
            return False
        return True


def _fresh(size: int) -> mmap.mmap:
    fresh = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= HUGE:
        with contextlib.suppress(OSError):  # a kernel without them
            fresh.madvise(mmap.MADV_HUGEPAGE)
    return fresh


def slab_size(n: int) -> int:
    """The bytes that a buffer for *n* bytes really takes: powers of two from 64 KiB up, *n* itself below."""
    return n if n < SMALLEST else 1 << (n - 1).bit_length()


class MemoryBudget:
    """At most *limit* bytes; fair: reservations are granted in the order they were asked for."""

    def __init__(self, limit: int, counters: Counters) -> None:
        self.limit = limit
        self.used = 0
        self.shrink: list[Callable[[int], object]] = []
        """Asked to release about so many bytes that nobody waits for, when somebody has to wait."""
        self._counters = counters
        self._waiting: deque[tuple[int, trio.Event]] = deque()
        self._free: dict[int, list[Slab]] = {}
        self._seen: list[Slab] = []  # given back while somebody still had a view of them: the cache on disk, a reply on its way
        self._returned: dict[Slab, None] = {}  # all of these, the one that was given back last at the end
        self._kept = 0

    @property
    def wanted(self) -> int:
        """Bytes that reservations are waiting for."""
        return sum(n for n, _ in self._waiting)

    def try_reserve(self, n: int, spare: int = 0) -> bool:
        """Take *n* bytes if nobody waits and *spare* bytes remain after it."""
        if self._waiting or self.used + n + spare > self.limit:
            return False
        self.used += n
        return True

    async def reserve(self, n: int) -> None:
        """Take *n* bytes, waiting in turn; more than the whole budget is granted when nothing else is out.

        Cancelled: nothing is taken.
        """
        if self.try_reserve(n):
            return
        self._counters.add("memory_waits")
        turn = trio.Event()
        self._waiting.append((n, turn))
        self.press()
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                self.release(n)
            else:
                self._waiting.remove((n, turn))
                self._grant()
            raise

    def release(self, n: int) -> None:
        """Give *n* bytes back."""
        self.used -= n
        self._grant()

    @contextlib.asynccontextmanager
    async def reserved(self, n: int) -> AsyncIterator[None]:
        """*n* bytes within; waits in turn as `reserve` does."""
        await self.reserve(n)
        try:
            yield
        finally:
            self.release(n)

    def press(self) -> None:
        """Ask who holds bytes to let go of some, as long as somebody waits; called also by them when bytes become idle."""
        self._grant()
        for shrink in self.shrink:
            if not self._waiting:
                return
            shrink(self.used + self.wanted - self.limit)

    def _grant(self) -> None:
        while self._waiting:
            n, turn = self._waiting[0]
            if self.used + n > self.limit and self.used:
                return
            self._waiting.popleft()
            self.used += n
            turn.set()

    def slab(self, n: int) -> Slab:
        """A buffer whose view has *n* bytes of any content. Its `slab_size` must have been reserved."""
        size = slab_size(n)
        if self._seen:
            self._look_again()
        for larger in (size, 2 * size, 4 * size, 8 * size):
            free = self._free.get(larger)
            if free:
                slab = free.pop()
                del self._returned[slab]
                self._kept -= larger
                slab.lend(n)
                return slab
        slab = Slab(size)
        if n != size:
            slab.lend(n)
        return slab

    def give_back(self, slab: Slab) -> None:
        """The caller does not use *slab* any more. It is used again only if nobody holds a view of it."""
        if slab.size >= SMALLEST:
            self._kept += slab.size
            self._returned[slab] = None
            if slab.unseen():
                self._free.setdefault(slab.size, []).append(slab)
            else:
                self._seen.append(slab)
        slab.view = memoryview(b"")
        while self._kept > min(KEPT, self.limit):
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        """Let go of what was of no use for longest: the sizes that are wanted change with a reader's window."""
        slab = next(iter(self._returned))
        del self._returned[slab]
        self._kept -= slab.size
        (self._seen if slab in self._seen else self._free[slab.size]).remove(slab)

    def _look_again(self) -> None:
        still = []
        for slab in self._seen:
            if slab.unseen():
                self._free.setdefault(slab.size, []).append(slab)
            else:
                still.append(slab)
        self._seen = still
