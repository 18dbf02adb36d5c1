"""Staged files: the local, sparse copy of a file that is being written, and the disk space they may take.

Owns: the files below ``staged/`` in the cache directory and the bytes counted against the disk budget. A byte of a staged file is
dirty (only here), fetched (equal to the base object's), or absent. Must not know: the store's requests, names.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from zosfs.content.ranges import Ranges
from zosfs.counters import Counters
from zosfs.store.api import Buffer, FileSlice
from zosfs.threads import ThreadPool

log = logging.getLogger(__name__)

INLINE = 128 * 1024
"""Writes up to this many bytes go to the page cache on the trio thread: 20-50 us, less than the hop to a thread and back."""

PATIENCE = 30.0
"""Seconds that a writer waits for disk space before it gets ENOSPC."""


def private_directory(path: Path) -> Path:
    """Make *path* (and its parents) if needed, for its owner only (0700); returns it."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.chmod(0o700)
    return path


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
        self.evict: Callable[[int], Awaitable[int]] | None = None
        """Asked for bytes when space is short: drops clean cached chunks and returns how many bytes that freed."""

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
        if self._room(n):
            self.used += n
            return
        self._counters.add("disk_waits")
        if self.evict is not None:
            await self.evict(n)
        with trio.move_on_after(PATIENCE):
            while not self._room(n):
                with trio.move_on_after(1.0):
                    await self._freed.wait()
                if self.evict is not None:
                    await self.evict(n)
            self.used += n
            return
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def release(self, n: int) -> None:
        """Give *n* bytes back."""
        self.used -= n
        self._freed.set()
        self._freed = trio.Event()


class StagedFile:
    """One sparse local file. Bytes that are being sent are never changed: a write to them waits until they were sent."""

    def __init__(self, path: Path, budget: DiskBudget, threads: ThreadPool) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._budget = budget
        self._threads = threads
        self._counted = 0
        self._sending = Ranges()
        self._sent = trio.Event()
        self.dirty = Ranges()
        self.present = Ranges()  # dirty and fetched
        self.size = 0

    # -- bytes ------------------------------------------------------------------------------------------------------

    async def write(self, offset: int, data: Buffer) -> None:
        """Put *data* at *offset* as dirty bytes."""
        end = offset + len(data)
        while self._sending.overlaps(offset, end):
            await self._sent.wait()
        await self._store(offset, data)
        self.dirty.add(offset, end)

    async def _store(self, offset: int, data: Buffer) -> None:
        end = offset + len(data)
        added = len(data) - sum(b - a for a, b in self.present.within(offset, end))
        if added:
            await self._budget.reserve(added)
            self._counted += added
        self.present.add(offset, end)
        self.size = max(self.size, end)
        try:
            if len(data) <= INLINE:
                done = os.pwrite(self.fd, data, offset)
            else:
                done = await self._threads.run(os.pwrite, self.fd, data, offset)
            while done < len(data):
                done += os.pwrite(self.fd, memoryview(data)[done:], offset + done)
        except OSError:
            self.present.remove(offset, end)
            self._budget.release(added)
            self._counted -= added
            raise

    async def keep(self, offset: int, data: Buffer) -> None:
        """Put fetched base bytes at *offset*, where nothing newer lies."""
        view = memoryview(data)
        for start, end in self.present.missing(offset, offset + len(data)):
            await self._store(start, view[start - offset : end - offset])

    def read(self, offset: int, size: int) -> bytes:
        """Bytes ``[offset, offset + size)`` of the file as far as they are here; holes read as zeros."""
        return os.pread(self.fd, size, offset)

    async def truncate(self, size: int) -> None:
        """Cut to, or grow to, *size* bytes. What was cut and grown again is dirty: it is no longer the base's."""
        while self._sending.overlaps(size, 1 << 62):
            await self._sent.wait()
        if size < self.size:
            self.dirty.truncate(size)
            self.present.truncate(size)
            os.ftruncate(self.fd, size)
            self._recount()
        else:
            os.ftruncate(self.fd, size)
        self.size = size

    def _recount(self) -> None:
        now = self.present.total
        self._budget.release(self._counted - now)
        self._counted = now

    async def extend(self, size: int) -> None:
        """The local file is *size* bytes long (the part that was never written reads as zeros)."""
        if os.fstat(self.fd).st_size < size:
            os.ftruncate(self.fd, size)

    # -- sending ----------------------------------------------------------------------------------------------------

    def lend(self, start: int, end: int) -> FileSlice:
        """Bytes ``[start, end)`` for an upload; they stay as they are until `give_back`."""
        self._sending.add(start, end)
        return FileSlice(self.fd, start, end - start)

    def give_back(self, start: int, end: int) -> None:
        """The upload of ``[start, end)`` ended."""
        self._sending.remove(start, end)
        self._sent.set()
        self._sent = trio.Event()

    async def sync(self) -> None:
        """The bytes are on the disk when this returns."""
        await self._threads.run(os.fdatasync, self.fd)

    def close(self, *, remove: bool) -> None:
        """Give the descriptor back, and the disk space when *remove*."""
        os.close(self.fd)
        if remove:
            try:
                os.unlink(self.path)
            except FileNotFoundError:
                pass
            self._budget.release(self._counted)
            self._counted = 0
