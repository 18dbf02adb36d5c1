"""The chunk cache: clean bytes of object versions on the local disk, over remounts.

Owns: the files below its directory, what of each is there, and the bytes counted against the cache's limit. One sparse file per
(key, ETag, size); an index (`chunk_index`) of what has been written. Everything here may be lost at any time without harm;
what is here is right: a span is told of only after its bytes were written, and after a crash of the machine only what had been
synced counts. Used by one process at a time (the journal's lock beside it sees to that). Must not know: the store's requests,
who reads.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from pathlib import Path

import diskcache
import trio

from zosfs.content.chunk_files import OPEN_FILES, ChunkFile, ChunkFiles, punch, read_all, write_all
from zosfs.content.chunk_index import ChunkIndex, name_of
from zosfs.content.memory import Slab
from zosfs.content.ranges import Ranges
from zosfs.counters import Counters
from zosfs.store.api import Buffer, ObjectInfo
from zosfs.threads import ThreadPool

log = logging.getLogger(__name__)

SEGMENT = 64 << 20
"""What is evicted at once."""
QUEUED = 64 << 20
"""Fetched bytes that may wait to be written; what comes in beyond is not kept."""
BATCH = 16 << 20
LITTLE = 1 << 20
SOME = 64
"""Fewer bytes than LITTLE, in fewer pieces than SOME, wait for more to come, up to GATHERED seconds: what is written for each small
read would cost more than the read, and open too many files at once."""
GATHERED = 0.2
FRAGMENTS = 4096
"""Separate spans of one file at most: beyond, the index costs more than the bytes are worth."""
COMMIT_EVERY = 10.0
LAST = 5.0
"""Seconds at the end in which what was fetched last may still be written: a disk that needs longer holds up no unmounting."""
INLINE = 1 << 20
"""Reads up to this are tried from the page cache on the trio thread."""
RING = 8

class _Entry(ChunkFile):
    """One version: its file and what of it is there."""

    __slots__ = ("changed", "etag", "key", "present", "punching", "saved", "size")

    def __init__(self, name: str, key: str, etag: str, size: int) -> None:
        super().__init__(name)
        self.key = key
        self.etag = etag
        self.size = size
        self.present = Ranges()
        self.punching = 0  # spans being given back to the disk: nothing may be written meanwhile
        self.changed = False
        self.saved = False  # the index has a record


class ChunkCache:
    """The cached versions of one bucket's objects."""

    def __init__(
        self,
        directory: Path,
        limit: int,
        free_space: int,
        counters: Counters,
        *,
        elsewhere: Callable[[], int] = lambda: 0,
    ) -> None:
        """Keeps at most *limit* bytes, less what *elsewhere* tells are used of them, below *directory*; leaves *free_space* bytes
        of the disk free. Nothing is touched before `start`."""
        self.used = 0
        self.enabled = False
        self._directory = directory
        self._limit = limit
        self._free_space = free_space
        self._counters = counters
        self._elsewhere = elsewhere
        self._entries: dict[str, _Entry] = {}
        self._by_key: dict[str, set[str]] = {}
        self._names: dict[tuple[str, str, int], str] = {}
        self._segments: OrderedDict[tuple[str, int], int] = OrderedDict()  # bytes there, the one used last at the end
        self._files = ChunkFiles(directory)
        self._queue: deque[tuple[ObjectInfo, int, memoryview]] = deque()
        self._queued = 0
        self._wake = trio.Event()
        self._enough = trio.Event()
        self._settling = 0
        self._idle = trio.Event()
        self._scope = trio.CancelScope()
        self._stopped = trio.Event()
        self._ring: deque[Slab] = deque()
        self._index = ChunkIndex(directory, self._files)
        self._gone: list[str] = []
        self._threads = ThreadPool("chunks", 4)
        self._committed = 0.0
        self._unchecked = 1 << 62

    # -- life -------------------------------------------------------------------------------------------------------

    async def start(self, nursery: trio.Nursery) -> None:
        """Load what an earlier run left (nothing, when the index is damaged) and begin to take bytes.

        A directory that cannot be used or is open to others is not used: the cache then stays empty and says so in the log.
        """
        try:
            records = await self._index.load()
        except OSError as exc:
            log.warning("no chunk cache: %s", exc)
            self._stopped.set()
            return
        for name, record in records:
            entry = _Entry(name, record["key"], record["etag"], record["size"])
            entry.present = Ranges.from_list(record["present"])
            entry.saved = True
            self._add(entry)
            self._count(entry, 0, entry.size)
        self.enabled = True
        nursery.start_soon(self._run)

    async def aclose(self) -> None:
        """Write what was taken, as far as LAST seconds suffice, write down what is there, and close."""
        with trio.move_on_after(LAST, shield=True):
            await self.settle()
        self.enabled = False
        self._queue.clear()
        self._scope.cancel()
        with trio.CancelScope(shield=True):
            if self._index.opened:
                await self._stopped.wait()
        if self._index.opened:
            with trio.CancelScope(shield=True), contextlib.suppress(sqlite3.Error, diskcache.Timeout, OSError):
                await self._commit(sync=False)
                await self._index.close()
        self._files.close_all()
        self._threads.close()
        self._index.end()

    # -- asking -----------------------------------------------------------------------------------------------------

    def has(self, info: ObjectInfo, start: int, end: int) -> bool:
        """Whether all of ``[start, end)`` of the version *info* is here."""
        entry = self._find(info)
        return entry is not None and entry.present.covers(start, end)

    def has_any(self, info: ObjectInfo) -> bool:
        """Whether any byte of the version *info* is here."""
        entry = self._find(info)
        return entry is not None and bool(entry.present.total)

    def missing(self, info: ObjectInfo, start: int, end: int) -> list[tuple[int, int]]:
        """The parts of ``[start, end)`` of the version *info* that are not here, in order."""
        entry = self._find(info)
        return [(start, end)] if entry is None else entry.present.missing(start, end)

    async def read(self, info: ObjectInfo, start: int, end: int) -> Buffer | None:
        """Bytes ``[start, end)`` of the version *info*, None when they are not (all) here.

        The buffer stays good as long as the caller holds it. What lies in the page cache comes without leaving the trio thread.
        """
        entry = self._find(info)
        if entry is None or not entry.present.covers(start, end):
            return None
        view = self._scratch(end - start)
        try:
            got = self._files.read_cached(self._files.descriptor(entry), view, start) if len(view) <= INLINE else 0
            if got < len(view):
                fd = self._files.pin(entry)
                try:
                    got = await self._threads.run(read_all, fd, view, start)
                finally:
                    self._files.unpin(entry)
        except OSError as exc:
            log.warning("chunk cache: %s: %s", entry.key, exc)
            got = -1
        if got != len(view):
            self._drop(entry)
            return None
        self._counters.add("cache_hit_bytes", len(view))
        if not entry.dead:
            self._touch(entry, start, end)
        return view

    def _scratch(self, n: int) -> memoryview:
        if n <= (64 << 10) or n > INLINE:
            return memoryview(bytearray(n))
        slab = self._ring.popleft() if self._ring else None
        if slab is None or not slab.unseen():
            slab = Slab(INLINE)
        slab.lend(n)
        if len(self._ring) < RING:
            self._ring.append(slab)
        return slab.view

    # -- taking -----------------------------------------------------------------------------------------------------

    def write(self, info: ObjectInfo, start: int, view: memoryview) -> bool:
        """Take the fetched bytes of the version *info* from *start* on, some time soon; they must not change.

        False when they are not wanted: the queue is full, the disk is short, the version has no ETag.
        """
        self._counters.add("cache_miss_bytes", len(view))
        if not self.enabled or not info.etag or self._queued + len(view) > QUEUED or len(view) > self._limit // 2:
            return False
        entry = self._find(info)
        if entry is not None and len(entry.present) >= FRAGMENTS:
            return False
        self._queue.append((info, start, view))
        self._queued += len(view)
        self._wake.set()
        if not self._is_little():
            self._enough.set()
        return True

    def _is_little(self) -> bool:
        return self._queued < LITTLE and len(self._queue) < SOME and not self._settling

    async def settle(self) -> None:
        """Wait until everything taken so far is on the disk or was given up."""
        self._settling += 1
        self._enough.set()
        try:
            while self._queued and self.enabled:
                await self._idle.wait()
        finally:
            self._settling -= 1

    async def adopt(self, path: Path, info: ObjectInfo, present: Ranges) -> bool:
        """Make the local file *path* the cached version *info*, of which it has the bytes *present*.

        The file is moved (same file system; nobody may write to it any more). False, and the file is left alone, when it
        cannot be taken. Older versions of the key are dropped.
        """
        if not self.enabled or not info.etag or not present.total or present.end > info.size:
            return False
        name = name_of(info.key, info.etag, info.size)
        self.drop(info.key)
        entry = _Entry(name, info.key, info.etag, info.size)
        try:
            await self._threads.run(self._files.adopt, path, name, info.size)
        except OSError as exc:
            log.debug("not adopted: %s", exc)
            return False
        if name in self._entries:
            self._drop(self._entries[name], unlink=False)
        entry.present = present.copy()
        entry.changed = True
        if name in self._gone:
            self._gone.remove(name)
        self._add(entry)
        self._count(entry, 0, info.size)
        await self._make_room()
        self._wake.set()
        return True

    def drop(self, key: str) -> None:
        """Forget every version of *key*."""
        for name in list(self._by_key.get(key, ())):
            self._drop(self._entries[name])

    def drop_below(self, prefix: str) -> int:
        """Forget every version of every key that begins with *prefix*; returns the bytes freed."""
        before = self.used
        for key in [key for key in self._by_key if key.startswith(prefix)]:
            self.drop(key)
        return before - self.used

    def held(self, info: ObjectInfo) -> int:
        """How many bytes of the version *info* are here."""
        entry = self._find(info)
        return entry.present.total if entry is not None else 0

    def status(self) -> dict[str, int]:
        """For `zosfs cache stat`: files, their bytes here, and how many may be."""
        return {"files": len(self._entries), "bytes": self.used, "limit": self._limit}

    async def evict(self, n: int) -> int:
        """Drop what was used longest ago until *n* bytes are freed, or nothing is left; returns how many were."""
        freed = 0
        punch: list[tuple[_Entry, int, int]] = []
        for name, segment in list(self._segments):
            if freed >= n:
                break
            entry = self._entries.get(name)
            if entry is None or entry.pins or (name, segment) not in self._segments:
                continue
            low, high = segment * SEGMENT, min((segment + 1) * SEGMENT, entry.size)
            there = self._segments.pop((name, segment))
            self.used -= there
            freed += there
            entry.present.remove(low, high)
            entry.changed = True
            if entry.present.total:
                entry.punching += 1
                punch.append((entry, low, high))
            else:
                self._drop(entry)
        self._counters.add("cache_evicted_bytes", freed)
        for entry, low, high in punch:
            try:
                if not entry.dead:
                    await self._punch(entry, low, high)
            finally:
                entry.punching -= 1
        return freed

    async def _punch(self, entry: _Entry, low: int, high: int) -> None:
        try:
            fd = self._files.pin(entry)
            try:
                done = await self._threads.run(punch, fd, low, high)
            finally:
                self._files.unpin(entry)
        except OSError:
            done = False
        if not done:
            self._drop(entry)  # a disk that cannot punch holes

    # -- the writing task -------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            with self._scope:
                while True:
                    await self._turn()
        except Exception:
            log.exception("the chunk cache is not used any more")
        finally:
            self.enabled = False
            self._queued = 0
            self._idle.set()
            self._stopped.set()

    async def _turn(self) -> None:
        if not self._queue:
            self._wake = trio.Event()
            if not self._queued:
                self._idle.set()
                self._idle = trio.Event()
            waiting = bool(self._gone) or any(entry.changed for entry in self._entries.values())
            with trio.move_on_after(COMMIT_EVERY if waiting else float("inf")):
                await self._wake.wait()
        if self._queue and self._is_little():
            self._enough = trio.Event()
            with trio.move_on_after(GATHERED):
                await self._enough.wait()
        if self._queue:
            await self._write_batch()
        if trio.current_time() - self._committed > COMMIT_EVERY:
            await self._commit(sync=True)

    async def _write_batch(self) -> None:
        batch: list[tuple[ObjectInfo, int, memoryview]] = []
        size = 0
        while self._queue and size < BATCH and len(batch) < SOME:
            batch.append(self._queue.popleft())
            size += len(batch[-1][2])
        try:
            if not await self._make_room(size):
                return
            jobs: list[tuple[_Entry, int, int, memoryview]] = []
            try:
                for info, start, view in batch:
                    entry = self._find(info) or self._create(info)
                    if not entry.punching:
                        jobs.append((entry, self._files.pin(entry), start, view))
                await self._threads.run(write_all, [(fd, start, view) for _, fd, start, view in jobs])
            finally:
                for entry, _, _, _ in jobs:
                    self._files.unpin(entry)
            for entry, _, start, view in jobs:
                if not entry.dead:
                    entry.present.add(start, start + len(view))
                    entry.changed = True
                    self._count(entry, start, start + len(view))
        except OSError as exc:
            log.warning("chunk cache: %s", exc)
        finally:
            self._queued -= size

    async def _make_room(self, n: int = 0) -> bool:
        """Whether *n* more bytes may be written, after evicting what is too much."""
        over = self.used + n - max(0, self._limit - self._elsewhere())
        if over > 0:
            await self.evict(over)
        self._unchecked += n
        if self._unchecked < BATCH:
            return True
        disk = os.statvfs(self._directory)
        short = self._free_space + n - disk.f_bavail * disk.f_frsize
        if short > 0 and await self.evict(short) < short:
            return False
        self._unchecked = 0
        return self.used + n <= self._limit

    async def _commit(self, *, sync: bool) -> None:
        self._committed = trio.current_time()
        changed = [entry for entry in self._entries.values() if entry.changed]
        for at in range(0, len(changed) or bool(self._gone), OPEN_FILES // 2):
            await self._commit_some([entry for entry in changed[at : at + OPEN_FILES // 2] if not entry.dead], sync)

    async def _commit_some(self, changed: list[_Entry], sync: bool) -> None:
        gone, self._gone = self._gone, []
        records = []
        descriptors = []
        for entry in changed:
            entry.changed = False
            entry.saved = True
            entry.pins += 1
            if sync:
                descriptors.append(self._files.descriptor(entry))
            records.append((entry.name, {
                "key": entry.key, "etag": entry.etag, "size": entry.size, "present": entry.present.to_list(),
                "used": time.time(), "boot": "" if sync else self._index.boot,
            }))  # fmt: skip
        try:
            await self._index.save(records, gone, descriptors)
        finally:
            for entry in changed:
                self._files.unpin(entry)

    # -- entries ----------------------------------------------------------------------------------------------------

    def _find(self, info: ObjectInfo) -> _Entry | None:
        name = self._names.get((info.key, info.etag, info.size))
        return None if name is None else self._entries.get(name)

    def _create(self, info: ObjectInfo) -> _Entry:
        self.drop(info.key)  # other versions: nobody opens them any more
        entry = _Entry(name_of(info.key, info.etag, info.size), info.key, info.etag, info.size)
        if entry.name in self._gone:
            self._gone.remove(entry.name)
        self._add(entry)
        return entry

    def _add(self, entry: _Entry) -> None:
        self._entries[entry.name] = entry
        self._names[entry.key, entry.etag, entry.size] = entry.name
        self._by_key.setdefault(entry.key, set()).add(entry.name)

    def _drop(self, entry: _Entry, *, unlink: bool = True) -> None:
        if entry.dead:
            return
        entry.dead = True
        del self._entries[entry.name]
        del self._names[entry.key, entry.etag, entry.size]
        names = self._by_key[entry.key]
        names.discard(entry.name)
        if not names:
            del self._by_key[entry.key]
        for segment in self._parts(0, entry.size):
            self.used -= self._segments.pop((entry.name, segment), 0)
        if entry.saved:
            self._gone.append(entry.name)
        if unlink:
            with contextlib.suppress(OSError):
                os.unlink(self._files.path(entry.name))
        if not entry.pins:
            self._files.close(entry)

    def _count(self, entry: _Entry, start: int, end: int) -> None:
        """Bring the bytes counted for the segments of ``[start, end)`` up to date; they were used now."""
        for segment in self._parts(start, end):
            low = segment * SEGMENT
            there = sum(b - a for a, b in entry.present.within(low, low + SEGMENT))
            before = self._segments.pop((entry.name, segment), 0)
            self.used += there - before
            if there:
                self._segments[entry.name, segment] = there

    def _touch(self, entry: _Entry, start: int, end: int) -> None:
        for segment in self._parts(start, end):
            if (entry.name, segment) in self._segments:
                self._segments.move_to_end((entry.name, segment))

    def _parts(self, start: int, end: int) -> Iterator[int]:
        return iter(range(start // SEGMENT, (max(end, start + 1) - 1) // SEGMENT + 1))
