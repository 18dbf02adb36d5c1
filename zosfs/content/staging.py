"""Staged files: the local, sparse copy of a file that is being written.

Owns: the files below ``staged/`` in the cache directory, and which of their bytes count against the disk budget. A byte of a staged file is
dirty (only here), clean (equal to the base object's), or absent. A file that stays below `SMALL` bytes is kept in memory and
touches the disk only when it grows. Must not know: the store's requests, names.

Bytes that are being sent, or are held because they will be, are never changed: a write to them waits.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import resource
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import trio

from zosfs.content.disk_budget import SMALL_TOGETHER, DiskBudget
from zosfs.content.ranges import Ranges
from zosfs.store.api import Body, Buffer, FileSlice
from zosfs.threads import ThreadPool

log = logging.getLogger(__name__)

INLINE = 1 << 20
"""Writes up to this many bytes, the most that the kernel sends at once, go to the page cache on the trio thread while it takes them at once
(`WritePace`): the hop to a thread and back costs half as much CPU as the copy."""
SMALL = 64 * 1024
"""Files up to this many bytes are staged in memory, while all of them together take no more than `SMALL_TOGETHER`."""
COPY_PIECE = 64 << 20

_PUNCH = 3  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)


def private_directory(path: Path) -> Path:
    """Make *path* (and its parents) if needed, for its owner only (0700); returns it."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.chmod(0o700)
    return path


class StagedFile:
    """One sparse local file, or its bytes in memory while it is small."""

    def __init__(self, directory: Path, name: str, budget: DiskBudget, threads: ThreadPool) -> None:
        """A new, empty file that will be *name* in *directory* once it needs the disk."""
        self._directory = directory
        self.name = name
        self._fd = -1
        self._memory: bytearray | None = bytearray()
        self._budget = budget
        self._threads = threads
        self._counted = 0
        self._sending = Ranges()
        self._held = 0  # bytes below this are as a delivery found them
        self._busy = Ranges()  # being written by a thread
        self._claimed: list[tuple[int, int]] = []  # where bytes are about to be put: what is there counts as theirs
        self._starved = 0
        self._moved = trio.Event()
        self._named = False  # the directory entry is on the disk
        self.dirty = Ranges()
        self.present = Ranges()  # dirty and clean

    @property
    def path(self) -> Path:
        """Where it lies once it is on the disk."""
        return self._directory / self.name

    @property
    def counted(self) -> int:
        """Bytes that this file has of the disk budget."""
        return self._counted

    def fits(self, n: int) -> bool:
        """Whether the disk may take *n* bytes more now."""
        return self._budget.fits(n)

    @property
    def image(self) -> bytes | None:
        """All bytes of a file that lies in memory only; None for one on the disk."""
        return None if self._memory is None else bytes(self._memory)

    def load(self, image: bytes | None, present: Ranges) -> None:
        """Become what an earlier run staged: *image*, or the file on the disk; it has the bytes *present*."""
        if image is not None and len(image) <= SMALL:
            self._memory = bytearray(image)
            self._budget.in_memory += len(image)
        else:
            self._memory = None
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if image is not None:
                os.pwrite(self._fd, image, 0)
        self.present = present
        self._counted = present.total
        self._budget.take(self._counted)

    # -- bytes ------------------------------------------------------------------------------------------------------

    async def write(self, offset: int, data: Buffer) -> None:
        """Put *data* at *offset* as dirty bytes."""
        await self._put(offset, data, clean=False)

    def write_now(self, offset: int, data: Buffer) -> bool:
        """As `write`. False where that has to wait, or the file has to leave memory; nothing happened then."""
        end = offset + len(data)
        if self._memory is None:
            return self._write_through(offset, data)
        if end > SMALL or offset < self._held or self._sending or self._busy:
            return False
        grown, new = max(0, end - len(self._memory)), len(data)
        if self._budget.in_memory + grown > SMALL_TOGETHER:
            return False
        if self.present:
            new -= sum(b - a for a, b in self.present.within(offset, end))
        if not self._budget.take_now(new):
            return False
        self._counted += new
        self._fill(offset, data, grown)
        self.dirty.add(offset, end)
        return True

    def _write_through(self, offset: int, data: Buffer) -> bool:
        end = offset + len(data)
        if offset < self._held or self._sending.overlaps(offset, end) or self._busy.overlaps(offset, end):
            return False
        if len(data) > INLINE or not self._budget.pace.prompt(time.monotonic()):
            return False
        new = len(data) - sum(b - a for a, b in self.present.within(offset, end))
        if not self._budget.take_now(new):
            return False
        try:
            self._pwrite_now(offset, data)
        except OSError:
            self._budget.release(new)
            return False  # who may wait tries again, and tells
        self._counted += new
        self.present.add(offset, end)
        self.dirty.add(offset, end)
        return True

    def _pwrite_now(self, offset: int, data: Buffer) -> None:
        began, before = time.monotonic(), _waits()
        try:
            _pwrite(self._fd, data, offset)
        finally:
            self._budget.pace.took(began, time.monotonic(), waited=_waits() > before)

    def _fill(self, offset: int, data: Buffer, grown: int) -> None:
        assert self._memory is not None
        if grown > 0:
            self._memory.extend(bytes(grown))
            self._budget.in_memory += grown
        self._memory[offset : offset + len(data)] = data
        self.present.add(offset, offset + len(data))

    async def keep(self, offset: int, data: Buffer) -> None:
        """Put fetched base bytes at *offset*, where nothing newer lies."""
        await self._put(offset, data, clean=True)

    async def _put(self, offset: int, data: Buffer, *, clean: bool) -> None:
        end = offset + len(data)
        claim, reserved = (offset, end), 0
        try:
            while True:
                # what is there may leave the disk during each wait
                missing = len(data) - sum(b - a for a, b in self.present.within(offset, end))
                if missing > reserved:
                    await self._reserve(missing - reserved, clean)
                    reserved = missing
                elif self._busy.overlaps(offset, end) or (not clean and (offset < self._held or self._sending.overlaps(offset, end))):
                    await self._moved.wait()
                else:
                    break
            # no await between this look at what is there and the claim of it
            self._claimed.append(claim)
            if clean:
                view = memoryview(data)
                for start, stop in self.present.missing(offset, end):
                    await self._lay(start, view[start - offset : stop - offset], clean)
            else:
                await self._lay(offset, data, clean)
                self.dirty.add(offset, end)
        except BaseException:
            self._budget.release(reserved)
            reserved = 0
            raise
        finally:
            if claim in self._claimed:
                self._claimed.remove(claim)
            self._recount(reserved)

    async def _reserve(self, n: int, clean: bool) -> None:
        with self._starving(clean):
            await self._budget.reserve(n)

    @contextlib.contextmanager
    def _starving(self, clean: bool) -> Iterator[None]:
        self._starved += clean
        try:
            yield
        finally:
            self._starved -= clean

    @property
    def starved(self) -> bool:
        """Whether fetched bytes wait for disk space: a delivery that needs them will free none."""
        return self._starved > 0

    async def _lay(self, offset: int, data: Buffer, clean: bool) -> None:
        end = offset + len(data)
        if self._memory is not None:
            grown = end - len(self._memory)
            if end <= SMALL and (grown <= 0 or self._budget.in_memory + grown <= SMALL_TOGETHER):
                self._fill(offset, data, grown)
                return
            self._spill()
        while True:
            try:
                await self._write_out(offset, data)
                break
            except OSError as exc:
                if exc.errno != errno.ENOSPC:
                    raise
                with self._starving(clean):
                    if not await self._budget.wait_for_room(len(data)):
                        raise
        self.present.add(offset, end)

    async def _write_out(self, offset: int, data: Buffer) -> None:
        if len(data) <= INLINE and self._budget.pace.prompt(time.monotonic()):
            self._pwrite_now(offset, data)
            return
        end = offset + len(data)
        self._busy.add(offset, end)
        try:
            await self._threads.run(_pwrite, self._fd, data, offset)
        finally:
            self._busy.remove(offset, end)
            self._wake()

    def _spill(self) -> None:
        memory = self._memory
        assert memory is not None
        if self._fd < 0:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        _pwrite(self._fd, memory, 0)
        self._budget.in_memory -= len(memory)
        self._memory = None

    def read(self, offset: int, size: int) -> bytes:
        """Bytes ``[offset, offset + size)`` of the file as far as they are here; holes read as zeros."""
        if self._memory is not None:
            return bytes(self._memory[offset : offset + size])
        return os.pread(self._fd, size, offset)

    async def truncate(self, size: int) -> None:
        """Cut to, or grow to, *size* bytes; what grows is a hole."""
        while self._held > size or self._sending.end > size or self._busy.end > size:
            await self._moved.wait()
        self.dirty.truncate(size)
        self.present.truncate(size)
        if self._memory is not None:
            cut = len(self._memory) - size
            if cut > 0:
                del self._memory[size:]
                self._budget.in_memory -= cut
        elif os.fstat(self._fd).st_size > size:
            os.ftruncate(self._fd, size)
        self._recount(0)

    def shift(self, start: int, end: int, by: int) -> None:
        """Move the bytes ``[start, end)``, the last ones of the file, *by* bytes up and forget all clean bytes.

        For a tail that turned out to lie behind bytes of others. Nothing may be being written or sent.
        """
        tail = self.read(start, end - start)
        moved = Ranges()
        for low, high in self.dirty:
            shifted = by if low >= start else 0
            moved.add(low + shifted, high + shifted)
        if self._memory is not None:
            self._spill()
        _pwrite(self._fd, tail, start + by)
        self.dirty = moved
        self.present = moved.copy()
        self._recount(0)

    def shed(self, keep: Ranges, *, held: bool = False) -> int:
        """Drop clean bytes that are not in *keep* from the disk; returns how many. *held*: also of what a delivery holds, which asks."""
        if self._memory is not None or self._busy or self._sending or (self._held and not held):
            return 0
        keep = self.dirty.union(keep).union(Ranges(self._claimed))
        clean = [span for start, end in self.present for span in keep.missing(start, end)]
        return sum(self._punch(low, high) for low, high in clean)

    def punch(self, start: int, end: int) -> int:
        """Give the disk blocks of ``[start, end)`` back, dirty or not; returns how many bytes are not here any more.

        Nothing of them may be being written or sent.
        """
        if self._memory is not None or self._busy.overlaps(start, end) or self._sending.overlaps(start, end) or start < self._held:
            return 0
        if Ranges(self._claimed).overlaps(start, end):
            return 0
        return self._punch(start, end)

    def _punch(self, start: int, end: int) -> int:
        there = sum(high - low for low, high in self.present.within(start, end))
        if not there or _libc.fallocate(self._fd, _PUNCH, start, end - start):
            return 0
        self.present.remove(start, end)
        self._recount(0)
        return there

    def arrived(self) -> None:
        """Bytes of this file are in the store: see DiskBudget.arrived."""
        self._budget.arrived()

    def failed(self) -> None:
        """Bytes of this file did not get there: see DiskBudget.failed."""
        self._budget.failed()

    def _recount(self, reserved: int) -> None:
        """Make the budget count what is here, *reserved* being counted already."""
        now = self.present.total
        before, self._counted = self._counted + reserved, now
        if before > now:
            self._budget.release(before - now)
        elif now > before:
            self._budget.take(now - before)

    def _wake(self) -> None:
        self._moved.set()
        self._moved = trio.Event()

    # -- copies -----------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def room_for_copy(self) -> AsyncIterator[None]:
        """Within, the disk has room for a copy of this as it is now. Waits for that; OSError(ENOSPC) when waiting does not help."""
        room = 0 if self._memory is not None else self.present.total
        await self._budget.reserve(room)
        try:
            yield
        finally:
            self._budget.release(room)

    async def copy_to(self, path: Path) -> StagedFile:
        """An independent file at *path* with the same bytes; none of them may be lent. Shares blocks where the disk can. Waits for no room:
        see `room_for_copy`."""
        twin = StagedFile(path.parent, path.name, self._budget, self._threads)
        twin.dirty = self.dirty.copy()
        if self._memory is not None:
            image = bytes(self._memory)
            twin.load(image, self.present.copy())
            return twin
        present = self.present.copy()
        self._budget.take(present.total)
        twin._memory = None
        twin._counted = present.total
        self._busy.add(0, 1 << 62)
        try:
            twin._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            await self._threads.run(_copy, self._fd, twin._fd, list(present))
        except BaseException:
            twin.close(remove=True)
            raise
        finally:
            self._busy.clear()
            self._wake()
        twin.present = present
        return twin

    # -- sending ----------------------------------------------------------------------------------------------------

    async def quiet(self) -> None:
        """Wait until no thread is writing."""
        while self._busy:
            await self._moved.wait()

    def hold(self, size: int) -> None:
        """Writes into the first *size* bytes wait until `release`."""
        self._held = size

    def release(self) -> None:
        """Writes go on."""
        self._held = 0
        self._wake()

    def lend(self, start: int, end: int) -> Body:
        """Bytes ``[start, end)`` for an upload; they stay as they are until `give_back`. What was never written is zeros."""
        if end <= start:
            return ()
        body = self._slice(start, end)
        self._sending.add(start, end)
        return body

    def _slice(self, start: int, end: int) -> Body:
        if self._memory is not None:
            data = bytes(self._memory[start:end])
            return (data, bytes(end - start - len(data))) if len(data) < end - start else (data,)
        if os.fstat(self._fd).st_size < end:
            os.ftruncate(self._fd, end)
        return (FileSlice(self._fd, start, end - start),)

    def give_back(self, start: int, end: int) -> None:
        """The upload of ``[start, end)`` ended."""
        self._sending.remove(start, end)
        self._wake()

    async def sync(self) -> None:
        """The bytes and the name are on the disk when this returns; nothing to do for a file in memory."""
        if self._memory is None:
            await self._threads.run(_sync, self._fd, None if self._named else self._directory)
            self._named = True

    def close(self, *, remove: bool) -> None:
        """Give the descriptor back; with *remove* the file and the disk space too. Whoever asks for its bytes from now on gets EBADF."""
        if self._memory is not None:
            self._budget.in_memory -= len(self._memory)
            self._memory = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            if remove:
                self.path.unlink(missing_ok=True)
        if remove:
            self._budget.release(self._counted)
            self._counted = 0


def _waits() -> int:
    """How often this thread has waited for something so far."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def _pwrite(fd: int, data: Buffer, offset: int) -> None:
    done = os.pwrite(fd, data, offset)
    while done < len(data):
        done += os.pwrite(fd, memoryview(data)[done:], offset + done)


def _copy(source: int, target: int, ranges: list[tuple[int, int]]) -> None:
    for start, end in ranges:
        at = start
        while at < end:
            try:
                done = os.copy_file_range(source, target, min(end - at, COPY_PIECE), at, at)
            except OSError as exc:
                if exc.errno not in (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                    raise
                done = os.pwrite(target, os.pread(source, min(end - at, 1 << 20), at), at)
            if not done:
                break  # a hole at the end
            at += done


def _sync(fd: int, directory: Path | None) -> None:
    os.fdatasync(fd)
    if directory is not None:
        sync_directory(directory)


def sync_directory(directory: Path) -> None:
    """The names in *directory* are on the disk when this returns. Blocks."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
