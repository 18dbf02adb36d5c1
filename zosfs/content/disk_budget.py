"""How much of the local disk staged files may take, and who waits for it.

Owns: the bytes counted, and whether the disk takes writes at once. Must not know: what is in the files.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from zosfs.counters import Counters

SMALL_TOGETHER = 16 << 20
"""Bytes of all files that are staged in memory together."""
PATIENCE = 30.0
"""Seconds that a writer waits for disk space, with nothing on its way that will free some, before it gets ENOSPC."""


class WritePace:
    """Whether the page cache takes writes at once. The kernel makes writers wait while it has too many dirty pages: one write that had to
    is a sign that the next ones will, and those are no business of the trio thread. Pure.
    """

    SLOW = 0.005
    PAUSE = 1.0

    def __init__(self) -> None:
        self._again = 0.0

    def prompt(self, now: float) -> bool:
        """Whether a write may be expected to be taken at once; *now* in seconds of a monotonic clock."""
        return now >= self._again

    def took(self, began: float, ended: float, *, waited: bool) -> None:
        """A write took from *began* to *ended*. *waited*: it did, rather than that others had the processor."""
        if waited and ended - began > self.SLOW:
            self._again = ended + self.PAUSE


class DiskBudget:
    """How many bytes staged files may take, and how much of the disk stays free."""

    def __init__(self, path: Path, limit: int, free_space: int, counters: Counters) -> None:
        self._path = path
        self._limit = limit
        self._free_space = free_space
        self._counters = counters
        self._freed = trio.Event()
        self._unchecked = 0
        self.used = 0
        self.in_memory = 0
        self.waiting = 0
        """How many wait for room."""
        self.pace = WritePace()
        self._setback = False  # what was sent last did not arrive
        self.evict: Callable[[int], Awaitable[int]] | None = None
        """Asked for bytes when space is short: frees what the store has, and returns how many bytes that were."""
        self.hope: Callable[[], bool] = lambda: False
        """Whether bytes are on their way that will free space once they have arrived."""

    def _room(self, n: int) -> bool:
        if self.used + n > self._limit:
            return False
        self._unchecked += n
        if self._unchecked < 16 << 20:
            return True
        stat = os.statvfs(self._path)
        if stat.f_bavail * stat.f_frsize - n < self._free_space:
            return False
        self._unchecked = 0
        return True

    async def reserve(self, n: int) -> None:
        """Count *n* bytes more; waits while the budget is used up, and raises OSError(ENOSPC) when waiting does not help."""
        if self.take_now(n):
            return
        self._counters.add("disk_waits")
        self.waiting += 1
        try:
            await self._wait_to_reserve(n)
        finally:
            self.waiting -= 1

    async def _wait_to_reserve(self, n: int) -> None:
        hoped = trio.current_time()
        while True:
            await self.make_room(n)
            if self._room(n):
                self.used += n
                return
            now = trio.current_time()
            if self._hopeful():
                hoped = now
            elif now - hoped > PATIENCE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            await self._a_moment()

    def take_now(self, n: int) -> bool:
        """As `reserve`, without waiting; False, and nothing is counted, when there is no room."""
        if not self._room(n):
            return False
        self.used += n
        return True

    def fits(self, n: int) -> bool:
        """Whether *n* bytes more are within the budget now."""
        return self.used + n <= self._limit

    @property
    def half_full(self) -> bool:
        """Whether what is staged takes half of what it may, of the disk or of the memory."""
        return self.used > self._limit // 2 or self.in_memory > SMALL_TOGETHER // 2

    async def wait_for_room(self, n: int) -> bool:
        """The disk itself is full: have *n* bytes freed, waiting while that may help. False: it does not."""
        self.waiting += 1
        try:
            while not await self.make_room(n):
                if not self._hopeful():
                    return False
                await self._a_moment()
            return True
        finally:
            self.waiting -= 1

    def _hopeful(self) -> bool:
        """Whether to wait on: a request may take as long as it takes, but after one that failed another has to succeed first."""
        return not self._setback and self.hope()

    async def _a_moment(self) -> None:
        with trio.move_on_after(1.0):
            await self._freed.wait()

    def arrived(self) -> None:
        """Bytes are in the store: something may be freed now, whoever waits asks again."""
        self._setback = False
        self._nudge()

    def failed(self) -> None:
        """Bytes did not get into the store: that more of them are on their way is no hope any more."""
        self._setback = True
        self._nudge()

    def _nudge(self) -> None:
        self._freed.set()
        self._freed = trio.Event()

    async def make_room(self, n: int) -> int:
        """Have *n* bytes freed that nobody needs; returns how many were."""
        return await self.evict(n) if self.evict is not None else 0

    def take(self, n: int) -> None:
        """Count *n* bytes that are there already."""
        self.used += n

    def release(self, n: int) -> None:
        """Give *n* bytes back."""
        if n:
            self.used -= n
            self._nudge()
