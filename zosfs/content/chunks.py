"""The chunk cache: clean bytes of object versions on the local disk, over remounts.

Owns: the files below its directory, what of each version (key, ETag, size) is there, and the bytes counted against the cache's limit. A
version has a sparse file, small ones share packs (`chunk_packs`); an index (`chunk_index`) has what was written. Everything here may be
lost at any time without harm; what is here is right: a span is told of only after its bytes were written, and after a crash of the
machine only what had been synced counts. Used by one process at a time (the journal's lock beside it sees to that). Must not know: the
store's requests, who reads.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import diskcache
import trio

from zosfs.content.chunk_files import OPEN_FILES, ChunkFile, ChunkFiles, punch, read_all, write_all
from zosfs.content.chunk_index import ChunkIndex, name_of
from zosfs.content.chunk_packs import PACKED, Pack, Packs, room
from zosfs.content.chunk_table import ChunkTable, Entry, restored
from zosfs.content.memory import Slab
from zosfs.content.ranges import Ranges
from zosfs.counters import Counters
from zosfs.store.api import Buffer, ObjectInfo
from zosfs.threads import ThreadPool

log = logging.getLogger(__name__)

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
        self.enabled = False
        self._directory = directory
        self._limit = limit
        self._free_space = free_space
        self._counters = counters
        self._elsewhere = elsewhere
        self._table = ChunkTable()
        self._changed: set[Entry] = set()
        self._files = ChunkFiles(directory)
        self._packs = Packs(self._files)
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
        for entry in restored(records):
            self._table.add(entry)
        self._committed = trio.current_time()
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

    @property
    def used(self) -> int:
        """How many bytes are here."""
        return self._table.used

    def has(self, info: ObjectInfo, start: int, end: int) -> bool:
        """Whether all of ``[start, end)`` of the version *info* is here."""
        entry = self._table.find(info)
        return entry is not None and entry.present.covers(start, end)

    def has_any(self, info: ObjectInfo) -> bool:
        """Whether any byte of the version *info* is here."""
        entry = self._table.find(info)
        return entry is not None and bool(entry.present.total)

    def missing(self, info: ObjectInfo, start: int, end: int) -> list[tuple[int, int]]:
        """The parts of ``[start, end)`` of the version *info* that are not here, in order."""
        entry = self._table.find(info)
        return [(start, end)] if entry is None else entry.present.missing(start, end)

    async def read(self, info: ObjectInfo, start: int, end: int) -> Buffer | None:
        """Bytes ``[start, end)`` of the version *info*, None when they are not (all) here.

        The buffer stays good as long as the caller holds it. What lies in the page cache comes without leaving the trio thread.
        """
        entry = self._table.find(info)
        if entry is None or not entry.present.covers(start, end):
            return None
        view = self._scratch(end - start)
        try:
            at = entry.base + start
            fd = self._pin(entry)
            try:
                got = self._files.read_cached(fd, view, at) if len(view) <= INLINE else 0
                if got < len(view):
                    got = await self._threads.run(read_all, fd, view, at, entry.size - end)
            finally:
                self._unpin(entry)
        except OSError as exc:
            log.warning("chunk cache: %s: %s", entry.key, exc)
            got = -1
        if got != len(view):
            self._drop(entry)
            return None
        self._counters.add("cache_hit_bytes", len(view))
        if not entry.dead:
            self._table.touch(entry, start, end)
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

        False when they are not wanted: the queue is full, the disk is short, the version has no ETag, or not so many bytes.
        """
        self._counters.add("cache_miss_bytes", len(view))
        if not self.enabled or not info.etag or self._queued + len(view) > QUEUED or len(view) > self._limit // 2:
            return False
        if start + len(view) > info.size:
            return False
        entry = self._table.find(info)
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

        The file is moved (same file system; nobody may write to it any more), and stays one however small: it is there, and a copy
        would cost more. False, and the file is left alone, when it cannot be taken. Older versions of the key are dropped.
        """
        if not self.enabled or not info.etag or not present.total or present.end > info.size:
            return False
        self.drop(info.key)
        file = ChunkFile(made=True)
        try:
            await self._threads.run(self._files.adopt, path, file.name, info.size)
        except OSError as exc:
            log.debug("not adopted: %s", exc)
            return False
        self.drop(info.key)  # what came meanwhile
        entry = Entry(name_of(info.key, info.etag, info.size), info.key, info.etag, info.size, file)
        entry.present = present.copy()
        self._changed.add(entry)
        self._table.add(entry)
        await self._make_room()
        self._wake.set()
        return True

    def drop(self, key: str) -> None:
        """Forget every version of *key*."""
        for entry in self._table.of_key(key):
            self._drop(entry)

    def drop_below(self, prefix: str) -> int:
        """Forget every version of every key that begins with *prefix*; returns the bytes freed."""
        before = self.used
        for key in self._table.keys_below(prefix):
            self.drop(key)
        return before - self.used

    def held(self, info: ObjectInfo) -> int:
        """How many bytes of the version *info* are here."""
        entry = self._table.find(info)
        return entry.present.total if entry is not None else 0

    def status(self) -> dict[str, int]:
        """For `zosfs cache stat`: files, their bytes here, and how many may be."""
        return {"files": len(self._table), "bytes": self.used, "limit": self._limit}

    async def evict(self, n: int) -> int:
        """Drop what was used longest ago until *n* bytes are freed, or nothing is left; returns how many were."""
        if not self._index.opened:
            return 0
        freed = 0
        punch: list[tuple[Entry, int, int]] = []
        for entry, low, high, there in self._table.oldest(n):
            freed += there
            entry.present.remove(low, high)
            self._table.count(entry, low, high)
            if entry.present.total:
                self._changed.add(entry)
                entry.punching += 1
                punch.append((entry, low, min(high, room(entry.size))))
            else:
                self._drop(entry)
        self._counters.add("cache_evicted_bytes", freed)
        for entry, low, high in punch:
            try:
                if not entry.dead:
                    await self._punch(entry, low, high)
            finally:
                entry.punching -= 1
        await self.give_back()
        return freed

    async def _punch(self, entry: Entry, low: int, high: int) -> None:
        try:
            fd = self._pin(entry)
            try:
                done = await self._threads.run(punch, fd, [(low, high)])
            finally:
                self._unpin(entry)
        except OSError:
            done = False
        if not done:
            self._drop(entry)  # a disk that cannot punch holes

    async def give_back(self) -> None:
        """Have the disk take back what the packs have of dropped versions. Before, the index forgets them: this run may end in between."""
        while self._packs.owing:
            holes = self._packs.owed()
            try:
                await self._forget()
                unable = await self._packs.give_back(holes, self._threads)
            finally:
                self._packs.owe(holes)
            for pack in unable:
                self._lose(pack)

    async def _forget(self) -> None:
        try:
            await self._save((), sync=False)
        except (sqlite3.Error, diskcache.Timeout, OSError) as exc:
            log.warning("chunk cache: %s", exc)

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
            waiting = bool(self._gone) or bool(self._changed) or self._packs.owing
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
        while self._queue and size < min(BATCH, self._limit // 4) and len(batch) < SOME:
            batch.append(self._queue.popleft())
            size += len(batch[-1][2])
        try:
            if not await self._make_room(size):
                return
            jobs: list[tuple[Entry, int, int, memoryview]] = []
            try:
                for info, start, view in batch:
                    entry = self._table.find(info) or self._create(info)
                    if not entry.punching:
                        jobs.append((entry, self._pin(entry), start, view))
                await self._threads.run(write_all, [job for entry, fd, start, view in jobs for job in entry.writes(fd, start, view)])
            finally:
                for entry, _, _, _ in jobs:
                    self._unpin(entry)
            for entry, _, start, view in jobs:
                if not entry.dead:
                    self._table.put(entry, start, start + len(view))
                    self._changed.add(entry)
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
            return self.used + n <= self._limit
        disk = os.statvfs(self._directory)
        short = self._free_space + n - disk.f_bavail * disk.f_frsize
        if short > 0 and await self.evict(short) < short:
            return False
        self._unchecked = 0
        return self.used + n <= self._limit

    async def _commit(self, *, sync: bool) -> None:
        self._committed = trio.current_time()
        files: dict[ChunkFile, list[Entry]] = {}
        for entry in self._changed:
            files.setdefault(entry.file, []).append(entry)
        groups = list(files.values())
        for at in range(0, len(groups) or bool(self._gone), OPEN_FILES // 2):
            await self._save([entry for group in groups[at : at + OPEN_FILES // 2] for entry in group if not entry.dead], sync=sync)
        await self.give_back()

    async def _save(self, changed: Sequence[Entry], *, sync: bool) -> None:
        """Have the index forget what is gone, and know what is *changed*, if need be (*sync*) once that is on the disk."""
        gone, self._gone = self._gone, []
        self._changed.difference_update(changed)
        records = []
        pinned: dict[ChunkFile, int] = {}
        try:
            for entry in changed:
                if sync and entry.file not in pinned:
                    try:
                        pinned[entry.file] = self._files.pin(entry.file)
                    except FileNotFoundError:
                        self._vanished(entry)
                        continue
                entry.saved = True
                records.append((entry.name, entry.record("" if sync else self._index.boot)))
            await self._index.save(records, gone, list(pinned.values()))
        except BaseException:
            self._gone = gone + self._gone
            self._changed.update(entry for entry in changed if not entry.dead)
            raise
        finally:
            for file in pinned:
                self._files.unpin(file)

    # -- entries ----------------------------------------------------------------------------------------------------

    def _create(self, info: ObjectInfo) -> Entry:
        self.drop(info.key)  # other versions: nobody opens them any more
        name = name_of(info.key, info.etag, info.size)
        file, base = self._packs.place(name, info.size) if info.size <= PACKED and self._packs.useful else (ChunkFile(), 0)
        entry = Entry(name, info.key, info.etag, info.size, file, base)
        self._table.add(entry)
        return entry

    def _drop(self, entry: Entry) -> None:
        if entry.dead:
            return
        self._table.remove(entry)
        self._changed.discard(entry)
        if entry.saved:
            self._gone.append(entry.name)
        if not isinstance(entry.file, Pack):
            entry.file.dead = True
            with contextlib.suppress(OSError):
                os.unlink(self._files.path(entry.file.name))
        if not entry.pins:
            self._release(entry)

    def _vanished(self, entry: Entry) -> None:
        """Somebody removed its file."""
        if isinstance(entry.file, Pack):
            self._lose(entry.file)
        self._drop(entry)

    def _lose(self, pack: Pack) -> None:
        """All versions in *pack* are dropped."""
        for name in self._packs.abandon(pack):
            entry = self._table.named(name)
            if entry is not None and entry.file is pack:
                self._drop(entry)

    def _pin(self, entry: Entry) -> int:
        """The descriptor for the bytes of *entry*, which stay as they are until `_unpin`."""
        try:
            fd = self._files.pin(entry.file)
        except FileNotFoundError:
            self._vanished(entry)
            raise
        entry.pins += 1
        return fd

    def _unpin(self, entry: Entry) -> None:
        self._files.unpin(entry.file)
        entry.pins -= 1
        if entry.dead and not entry.pins:
            self._release(entry)

    def _release(self, entry: Entry) -> None:
        """Nobody has the bytes of *entry*, which was dropped."""
        if isinstance(entry.file, Pack):
            self._packs.free(entry.file, entry.base, entry.size)
            self._wake.set()
        elif not entry.file.pins:
            self._files.close(entry.file)
