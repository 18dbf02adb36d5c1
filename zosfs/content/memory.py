"""The one budget of bytes in flight and read ahead, over all open files.

Owns: the count, and the free list of page-aligned buffers. Whoever must have bytes waits in turn; whoever only would like to have
them (read-ahead) gets a no instead.
"""

from __future__ import annotations

import mmap
from collections import deque

import trio

from zosfs.counters import Counters

KEPT_BUFFERS = 16


class Buffer:
    """A reusable buffer of *size* bytes; *view* is what is used of it."""

    __slots__ = ("map", "size", "view")

    def __init__(self, size: int) -> None:
        self.size = size
        self.map = mmap.mmap(-1, size)
        self.view = memoryview(self.map)


class MemoryBudget:
    """At most *limit* bytes; fair: reservations are granted in the order they were asked for."""

    def __init__(self, limit: int, counters: Counters) -> None:
        self.limit = limit
        self.used = 0
        self._counters = counters
        self._waiting: deque[tuple[int, trio.Event]] = deque()
        self._free: dict[int, list[Buffer]] = {}

    def try_reserve(self, n: int) -> bool:
        """Take *n* bytes if nobody waits and they are there."""
        if self._waiting or self.used + n > self.limit:
            return False
        self.used += n
        return True

    async def reserve(self, n: int) -> None:
        """Take *n* bytes, waiting in turn. More than the whole budget is granted when nothing else is out."""
        if self.try_reserve(n) or (n > self.limit and not self.used and not self._waiting):
            if n > self.limit:
                self.used += n
            return
        self._counters.add("memory_waits")
        turn = trio.Event()
        self._waiting.append((n, turn))
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

    def _grant(self) -> None:
        while self._waiting:
            n, turn = self._waiting[0]
            if self.used + n > self.limit and self.used:
                return
            self._waiting.popleft()
            self.used += n
            turn.set()

    def buffer(self, size: int) -> Buffer:
        """A buffer of at least *size* bytes (a power of two from 64 KiB); fresh memory is slow to touch, so buffers are reused."""
        rounded = 1 << max(16, (size - 1).bit_length())
        free = self._free.get(rounded)
        return free.pop() if free else Buffer(rounded)

    def give_back(self, buffer: Buffer) -> None:
        """The buffer is not used any more."""
        free = self._free.setdefault(buffer.size, [])
        if len(free) < KEPT_BUFFERS:
            free.append(buffer)
