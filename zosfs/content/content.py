"""What is inside the files of one bucket: readers, writers, the journal, the disk they use.

Owns: the staged files, the journal and the chunk cache of one bucket, and which keys are being delivered. May use: store/ and the
other modules here. Must not know: names, inodes, the kernel.
"""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import trio

from zosfs.config import Options
from zosfs.content.chunks import ChunkCache
from zosfs.content.journal import CONFLICT, FAILED, PROMISED, Journal, Record
from zosfs.content.memory import MemoryBudget
from zosfs.content.plan import Limits
from zosfs.content.reader import Reader, Readers
from zosfs.content.staging import DiskBudget, StagedFile, private_directory
from zosfs.content.writer import Writer
from zosfs.counters import Counters
from zosfs.errors import StoreError
from zosfs.store.api import Abilities, ObjectInfo, Store
from zosfs.threads import ThreadPool

log = logging.getLogger(__name__)


class Content:
    """The content room of one bucket."""

    def __init__(
        self,
        store: Store,
        options: Options,
        counters: Counters,
        nursery: trio.Nursery,
        *,
        budget: MemoryBudget,
        cache_dir: Path,
    ) -> None:
        self.store = store
        self.options = options
        self.counters = counters
        self.nursery = nursery
        self.memory = budget
        self.limits = Limits(part_size=options.part_size, multipart_threshold=options.multipart_threshold)
        self._directory = private_directory(cache_dir)
        self._staged = private_directory(cache_dir / "staged")
        self._journal = Journal(cache_dir / "journal")
        self._threads = ThreadPool("disk", 8)
        self._journal_thread = ThreadPool("journal", 1)
        self._disk = DiskBudget(self._directory, options.cache_size, options.free_space, counters)
        self.chunks = ChunkCache(
            cache_dir / "chunks", options.cache_size, options.free_space, counters, elsewhere=lambda: self._disk.used
        )
        self._readers = Readers(store, budget, counters, nursery, options, self.chunks)
        self._busy: dict[str, trio.Lock] = {}
        self._records: dict[str, Record] = {}

    @property
    def abilities(self) -> Abilities:
        """What the server can do, as far as this mount may use it."""
        abilities = self.store.abilities
        if self.options.append == "off" and abilities.append:
            return Abilities(put_if_none_match=abilities.put_if_none_match, put_if_match=abilities.put_if_match)
        return abilities

    async def start(self) -> None:
        """Open the journal (EBUSY when another mount uses it) and deliver what an earlier run left."""
        await self._journal_thread.run(self._journal.open)
        records = await self._journal_thread.run(self._journal.all)
        self._records = {record.id: record for record in records}
        await self.chunks.start(self.nursery)
        self._disk.evict = self.chunks.evict
        for stray in self._staged.iterdir():
            if stray.name not in self._records:
                stray.unlink()  # never promised: the program that wrote it got no answer
        for record in records:
            if record.state != CONFLICT:
                await self._replay(record)

    async def _replay(self, record: Record) -> None:
        writer = self._revive(record)
        try:
            await writer.deliver()
            self.counters.add("journal_replayed")
            log.info("%s, left by an earlier run, is delivered", record.key)
        except StoreError as exc:
            await self._note_failure(writer, exc)
        except OSError as exc:
            log.error("%s, left by an earlier run, cannot be delivered: %s", record.key, exc)
        finally:
            await writer.aclose()

    def _revive(self, record: Record) -> Writer:
        staged = StagedFile(self._staged / record.id, self._disk, self._threads)
        writer = Writer(self, record.key, record.base, staged, truncate=record.kept == 0, appending=record.appending)
        writer.restore(record)
        return writer

    # -- readers and writers ----------------------------------------------------------------------------------------

    def reader(self, info: ObjectInfo) -> Reader:
        """A reader pinned to the version *info*."""
        return self._readers.reader(info)

    def cached(self, info: ObjectInfo) -> bool:
        """Whether bytes of this version could come from the local disk."""
        return self.chunks.has_any(info)

    async def writer(
        self, key: str, base: ObjectInfo | None, *, truncate: bool = False, appending: bool = False
    ) -> Writer:
        """A writer of the file at *key*: changes of *base*, or a new file. Sends nothing."""
        staged = StagedFile(self._staged / uuid.uuid4().hex, self._disk, self._threads)
        return Writer(self, key, base, staged, truncate=truncate, appending=appending)

    @contextlib.asynccontextmanager
    async def only_one(self, key: str) -> AsyncIterator[None]:
        """Requests that change one key never overlap: each waits here for the one before."""
        lock = self._busy.setdefault(key, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.statistics().tasks_waiting and not lock.locked():
                self._busy.pop(key, None)

    async def settle(self, key: str) -> None:
        """Wait until nothing of *key* is being delivered."""
        async with self.only_one(key):
            pass

    # -- the journal ------------------------------------------------------------------------------------------------

    async def record(self, writer: Writer, state: str = PROMISED, cause: str = "") -> None:
        """Journal what *writer* has: its bytes, then the record, each on the disk before the next."""
        record = writer.snapshot(writer.record or writer.staged.path.name)
        record.state, record.cause, record.changed = state, cause, time.time()
        await writer.staged.sync()
        await self._journal_thread.run(self._journal.put, record)
        writer.record = record.id
        self._records[record.id] = record

    async def forget_record(self, writer: Writer) -> None:
        """The store has what the record speaks of, or nobody wants it."""
        record_id, writer.record = writer.record, ""
        await self._forget(record_id)

    async def _forget(self, record_id: str) -> None:
        if self._records.pop(record_id, None) is not None:
            await self._journal_thread.run(self._journal.remove, record_id)

    async def _note_failure(self, writer: Writer, failure: StoreError) -> None:
        state = CONFLICT if failure.row.code in ("Conflict", "PreconditionFailed") else FAILED
        log.error("%s: %s; its bytes are kept: zosfs journal list", writer.key, failure)
        try:
            await self.record(writer, state, str(failure))
        except OSError as exc:
            log.error("%s could not be journalled either: %s", writer.key, exc)

    async def failed(self, writer: Writer, failure: OSError) -> None:
        """A delivery failed for good: keep the bytes where `zosfs journal` finds them."""
        if isinstance(failure, StoreError):
            await self._note_failure(writer, failure)

    async def rename(self, old_key: str, new_key: str) -> None:
        """Promised records of *old_key* are of *new_key* from now on."""
        for record in [r for r in self._records.values() if r.key == old_key and r.state != CONFLICT]:
            record.key = new_key
            await self._journal_thread.run(self._journal.put, record)

    async def discard(self, key: str) -> None:
        """The file at *key* was removed: what the journal has of it is not wanted any more (conflicts stay)."""
        for record in [r for r in self._records.values() if r.key == key and r.state != CONFLICT]:
            await self._forget(record.id)

    async def retire(self, writer: Writer) -> None:
        """A writer is done with its staged file: the journal may still need it, or it becomes the cached version."""
        needed = writer.record in self._records
        if writer.delivered is not None and not needed and not writer.dirty:
            await self.chunks.adopt(writer.staged.path, writer.delivered, writer.staged.present)
        writer.staged.close(remove=not needed)

    # -- the end ----------------------------------------------------------------------------------------------------

    async def drain(self, progress: Callable[[int, int], None]) -> None:
        """Wait until no delivery is under way; *progress* gets how many are."""
        while self._busy:
            progress(len(self._busy), 0)
            await self.settle(next(iter(self._busy)))

    async def aclose(self) -> None:
        """Close the journal; what is undelivered stays in it."""
        self._readers.close()
        await self.chunks.aclose()
        await self._journal_thread.run(self._journal.close)
        self._threads.close()
        self._journal_thread.close()

    def records(self) -> Iterable[Record]:
        """What the journal holds."""
        return list(self._records.values())

    def status(self) -> dict[str, Any]:
        """For `zosfs status`."""
        return {
            "staged_bytes": self._disk.used,
            "journal": [
                {"key": record.key, "size": record.size, "state": record.state, "cause": record.cause}
                for record in self._records.values()
            ],
        }
