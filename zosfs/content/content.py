"""What is inside the files of one bucket: readers, writers, the journal, the disk they use.

Owns: the staged files, the journal and the chunk cache of one bucket, and which keys are being delivered. May use: store/ and the other
modules here. Must not know: names, inodes, the kernel.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import trio

from zosfs.config import Options
from zosfs.content.aside import Aside
from zosfs.content.chunks import ChunkCache
from zosfs.content.disk_budget import DiskBudget
from zosfs.content.earlier_run import REPLAY_PATIENCE, EarlierRun
from zosfs.content.journal_rows import CONFLICT, FAILED, PARKED, Deletion, Record
from zosfs.content.left_headers import LeftHeaders
from zosfs.content.memory import MemoryBudget
from zosfs.content.moves import Moves
from zosfs.content.multipart import UploadRecord
from zosfs.content.patience import Patience
from zosfs.content.plan import Limits
from zosfs.content.promise_log import HEADERS, REMOVALS, PromiseLog
from zosfs.content.promised_headers import PromisedHeaders
from zosfs.content.promises import Promises
from zosfs.content.reader import Reader, Readers
from zosfs.content.remaining import Remaining
from zosfs.content.staging import StagedFile, private_directory
from zosfs.content.warmup import warm
from zosfs.content.writer import Writer
from zosfs.counters import Counters
from zosfs.errors import StoreError
from zosfs.locks import Lock
from zosfs.store.api import Abilities, ObjectHeaders, ObjectInfo, Store, StoreFailure
from zosfs.threads import ThreadPool

log = logging.getLogger(__name__)

PARALLEL = 8


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
        """*nursery* is where uploads and retries run; *cache_dir* is this bucket's own directory."""
        self.store = store
        self.options = options
        self.counters = counters
        self.nursery = nursery
        self.memory = budget
        self.limits = Limits(part_size=options.part_size, multipart_threshold=options.multipart_threshold)
        self.threads = ThreadPool("disk", 8)
        self._directory = private_directory(cache_dir)
        self._staged = private_directory(cache_dir / "staged")
        self._disk = DiskBudget(self._directory, options.cache_size, options.free_space, counters)
        self._disk.evict = self._make_room
        self._disk.hope = self._hope
        self.chunks = ChunkCache(
            cache_dir / "chunks", options.cache_size, options.free_space, counters, elsewhere=lambda: self._disk.used
        )
        self._readers = Readers(store, budget, counters, nursery, options, self.chunks)
        self.promises = Promises(cache_dir / "journal", self._staged, self._disk)
        self.moves = Moves(store, self.promises, options)
        self._removal_log = PromiseLog(cache_dir / "journal" / REMOVALS, Deletion)
        self._header_log = PromiseLog(cache_dir / "journal" / HEADERS, PromisedHeaders.read)
        self._busy: dict[str, Lock] = {}
        self._writers: dict[Writer, None] = {}
        self._early: set[Writer] = set()
        self.earlier = EarlierRun(self)
        self.left_headers = LeftHeaders(self, self.earlier.replayed)

    @property
    def abilities(self) -> Abilities:
        """What the server can do, as far as this mount may use it."""
        if self.options.append == "off":
            return dataclasses.replace(self.store.abilities, append=False)
        return self.store.abilities

    async def start(self, patience: float = REPLAY_PATIENCE) -> None:
        """Open the journal (EBUSY when another mount uses it) and deliver what an earlier run left, for which it waits *patience* seconds
        at most; see `EarlierRun.see_to`."""
        uploads, deletions = await self.promises.open()
        removed = await self.threads.run(self._removal_log.open)
        if removed:
            await self.promises.owe(removed)
            await self.threads.run(self._removal_log.clear)
            deletions += removed
        self.store.tell_before_making(self.deletion_done)  # or the next run would take it for what it has to delete
        headers = await self.threads.run(self._header_log.open)
        await self.chunks.start(self.nursery)
        await self.earlier.see_to(uploads, deletions, headers, patience)

    # -- readers and writers ----------------------------------------------------------------------------------------

    def reader(self, info: ObjectInfo) -> Reader:
        """A reader pinned to the version *info*."""
        return self._readers.reader(info)

    async def warm(self, info: ObjectInfo, start: int, end: int) -> int:
        """Bring bytes ``[start, end)`` of the version *info* to the local disk; see zosfs.content.warmup."""
        return await warm(self.store, self.chunks, self.memory, info, start, end)

    def cached(self, info: ObjectInfo) -> bool:
        """Whether bytes of this version could come from the local disk."""
        return self.chunks.has_any(info)

    def staged_file(self, name: str = "") -> StagedFile:
        """A staged file, empty until it is written or loaded; *name* is that of an earlier run's."""
        return StagedFile(self._staged, name or os.urandom(16).hex(), self._disk, self.threads)

    def writer(self, key: str, base: ObjectInfo | None, *, truncate: bool = False, appending: bool = False) -> Writer:
        """A writer of the file at *key*: changes of *base*, or a new file. Sends nothing."""
        writer = Writer(self, key, base, self.staged_file(), truncate=truncate, appending=appending)
        self._writers[writer] = None
        return writer

    def revive(self, record: Record) -> Writer:
        """The writer of a file that an earlier run left, as *record* says."""
        staged = self.staged_file(record.file)
        self.promises.taken(record.file)
        writer = Writer(self, record.key, record.base, staged, truncate=record.kept == 0, appending=record.appending)
        writer.restore(record)
        self._writers[writer] = None
        return writer

    async def retire(self, writer: Writer) -> None:
        """A writer is done with its staged file: the journal may still need it, or it becomes the cached version.

        What was staged in memory is not cached: that would cost more than fetching it again.
        """
        self._writers.pop(writer, None)
        draft, staged = writer.draft, writer.draft.staged
        if draft.delivered is not None and writer.entry.record is None and not draft.changed and staged.image is None:
            await self.chunks.adopt(staged.path, draft.delivered, staged.present)
        self.promises.leave(draft.staged)

    @contextlib.asynccontextmanager
    async def only_one(self, key: str) -> AsyncIterator[str]:
        """Requests that change one key never overlap: each waits here for the one before. Yields *key*."""
        lock = self._busy.get(key)
        if lock is None:
            lock = self._busy[key] = Lock()
        try:
            async with lock:
                yield key
        finally:
            if not lock.locked() and self._busy.get(key) is lock:
                del self._busy[key]

    @property
    def lacks_room(self) -> bool:
        """Whether somebody waits for room on the disk."""
        return self._disk.waiting > 0

    async def settle(self, key: str) -> None:
        """Wait until nothing of *key* is being delivered."""
        async with self.only_one(key):
            pass

    async def _make_room(self, n: int) -> int:
        """Free cached bytes, then staged ones that the store has; and have promised files delivered before their time."""
        freed = await self.chunks.evict(n)
        for writer in list(self._writers):
            if freed >= n:
                return freed
            freed += writer.early.shed(n - freed)
        for writer in self._writers:
            if writer.deliverable and writer not in self._early:
                self._early.add(writer)
                self.nursery.start_soon(self._deliver_early, writer)
        if freed < n and not self._hope():
            for writer in sorted(self._writers, key=lambda writer: -writer.draft.dirty_bytes):
                if writer.early.press():
                    break
        return freed

    def _hope(self) -> bool:
        return bool(self._early) or any(writer.arriving for writer in self._writers)

    async def _deliver_early(self, writer: Writer) -> None:
        try:
            if not writer.deliverable:
                return  # or this may wait for somebody who waits for the room
            await (writer.deliver_promised() if writer.deliver_promised is not None else writer.deliver(only_promised=True))
        except OSError as exc:
            log.warning("the disk is short, and %s cannot be delivered: %s", writer.draft.key, exc)
        finally:
            self._early.discard(writer)

    # -- the journal ------------------------------------------------------------------------------------------------

    async def failed(self, writer: Writer, failure: OSError) -> str:
        """A delivery failed: keep the bytes where `zosfs journal` finds them. Returns the state of the journal's entry."""
        state = FAILED
        if failure.errno == errno.ESTALE:
            state = CONFLICT
        elif isinstance(failure, StoreError) and failure.refused:
            state = PARKED
        if writer.partly_gone:
            log.error("%s: %s; it is larger than the cache, and its unfinished upload is all there is of it", writer.draft.key, failure)
            return state
        log.error("%s: %s; its bytes are kept: zosfs journal list", writer.draft.key, failure)
        try:
            await writer.failed(state, str(failure))
        except OSError as exc:
            log.error("%s could not be journalled either: %s", writer.draft.key, exc)
        return state

    async def note_upload(self, key: str, upload: UploadRecord, record: Record | None = None) -> None:
        """An upload is under way: the next run continues it for *record*, or aborts it."""
        try:
            await self.promises.note_upload(key, upload, record)
        except OSError as exc:
            log.warning("the journal does not list the upload of %s: %s", key, exc)  # a full disk: delivering is what makes room

    async def upload_ended(self, upload_id: str) -> None:
        """An upload was completed or aborted."""
        try:
            await self.promises.upload_ended(upload_id)
        except OSError as exc:
            log.warning("the journal still lists the upload %s, which is over: %s", upload_id, exc)

    async def rename(self, old_key: str, new_key: str, over: Callable[[], ObjectInfo | None]) -> ObjectInfo | None:
        """What is promised for *old_key* is for *new_key* from now on, in the place of what was promised for that.

        *over* is asked, once nothing is on its way to *new_key* any more, for the object that lies there; returns it.
        """
        await self.settle(new_key)
        for writer in self._writers:
            if writer.draft.key == new_key:
                writer.draft.unlinked = True
        replaced = over()
        await self.promises.rename(old_key, new_key, replaced)
        return replaced

    async def discard(self, key: str) -> None:
        """The file at *key* is removed: what the journal has of it is not wanted any more (conflicts stay).

        An object that it is newer than is owed a deletion then.
        """
        aside = await self.set_aside(key)
        try:
            await self.promises.forget(*aside.records)
        except BaseException:
            with trio.CancelScope(shield=True):
                await self.put_back(aside)
            raise
        await self._close_revived(aside)

    async def set_aside(self, key: str) -> Aside:
        """The file at *key* is being removed: nothing of it is delivered any more (conflicts stay).

        If the journal has something newer than an object at *key*, it has from now on that the object is to go as well: should this
        run end early, the next one finds out whether it went. Delete it, and then say `throw_away`, or `put_back` where it
        cannot be deleted.
        """
        records = self.promises.of(key)
        deleting = [Deletion(key, record.base.etag, record.base.modified_ns) for record in records if record.base is not None]
        writers = [writer for writer in self._writers if writer.draft.key == key and not writer.draft.unlinked]
        aside = Aside(key, writers, {}, records)
        for writer in writers:
            writer.draft.unlinked = True
        try:
            if deleting:
                await self.promises.owe(deleting[-1:])
        except BaseException:
            with trio.CancelScope(shield=True):
                await self.put_back(aside)
            raise
        aside.revived.update(self.earlier.set_aside(key))
        return aside

    async def put_back(self, aside: Aside) -> None:
        """The file stays: what was set aside is to be delivered as before."""
        for writer in aside.writers:
            writer.draft.unlinked = False
        self.earlier.put_back(aside.revived)
        try:
            await self.promises.deletion_done(aside.key)
        except OSError as exc:  # every delivery asks for it again
            log.warning("the journal still lists the removal of %s, which stays: %s", aside.key, exc)

    async def throw_away(self, aside: Aside) -> None:
        """The file is gone. OSError when the journal cannot forget it, where the next run would make it anew."""
        try:
            await self.promises.forget(*aside.records, deleted=aside.key)
        except OSError as exc:
            if any(record.base is None for record in aside.records):
                raise
            log.warning("the journal still lists %s, which is removed: %s", aside.key, exc)
        await self._close_revived(aside)

    @staticmethod
    async def _close_revived(aside: Aside) -> None:
        with trio.CancelScope(shield=True):
            for writer in aside.revived.values():
                await writer.discard()
                await writer.aclose()

    @contextlib.asynccontextmanager
    async def replacing(self, key: str, etag: str, by: Writer | None = None) -> AsyncIterator[set[str]]:
        """Within, another object, which has this ETag, takes the place of the one at *key*: what was written for that is not delivered any
        more, and the journal forgets it in the end. If that fails, all is to be delivered as before; deliveries wait meanwhile. Yields an
        empty set: with the ETags of what may have taken the place and is not wanted there if this fails, whose place is taken back then.
        What was promised *by* a writer of the other object is for *key* in the end, and stays."""
        etags: set[str] = set()
        aside = Aside(key, [], {}, ())
        try:
            async with self.only_one(key):
                writers = [writer for writer in self._writers if writer.draft.key == key and not writer.draft.unlinked]
                aside = Aside(key, writers, self.earlier.set_aside(key), ())
                for writer in writers:
                    writer.draft.unlinked = True
                try:
                    for writer in (*writers, *aside.revived.values()):
                        with contextlib.suppress(OSError):  # the base is another one already, say: then it is a conflict anyway
                            await writer.fetch_if_owed()
                    await self.promises.replaced_by(key, etag)
                    yield etags
                except BaseException:
                    for writer in writers:
                        writer.draft.unlinked = False
                    for writer in (*writers, *aside.revived.values()):
                        writer.outlives(etags)
                    self.earlier.put_back(aside.revived)
                    raise
        except BaseException:
            # only now: a writer that is being delivered waits for the key, and this would wait for the writer
            with trio.CancelScope(shield=True), contextlib.suppress(OSError):
                for writer in (*aside.writers, *aside.revived.values()):
                    await writer.outlive()
                await self.promises.not_replaced(key, etags)
            raise
        try:
            stays = by.entry.record if by is not None else None
            await self.promises.forget(*(record for record in self.promises.of(key) if record is not stays))
        except OSError as exc:
            log.warning("the journal still lists %s, which another object has replaced: %s", key, exc)
        await self._close_revived(aside)

    async def owe_deletion(self, info: ObjectInfo) -> None:
        """The object *info* was unlinked but is still read: should this run end early, the next one deletes it."""
        await self.promises.forget(*self.promises.of(info.key), deleting=Deletion(info.key, info.etag, info.modified_ns))

    def delete_soon(self, info: ObjectInfo, refused: Callable[[StoreFailure], object]) -> None:
        """Promise to delete the object *info* together with others, now and by the next run if need be; *refused* is told if it cannot be.

        OSError when the promise cannot be kept on this disk: nothing is promised then.
        """
        self._removal_log.add(info.key, (info.etag, info.modified_ns))

        def done(failure: StoreFailure | None) -> None:
            self._removal_log.done(info.key)
            if failure is not None:
                refused(failure)

        self.store.delete_soon(info, done)

    def promise_headers(self, info: ObjectInfo, headers: ObjectHeaders, tried: Sequence[Mapping[str, str]] = ()) -> None:
        """Promise that the object *info* gets *headers*, here or by the next run, unless another one takes its place: the caller delivers
        them, and says `headers_done` then. Instead of what was promised for its key before; metadata of *tried* may have got there.

        OSError when the promise cannot be kept on this disk: what was promised before holds then.
        """
        promise = PromisedHeaders(info.key, info.etag, [info.metadata or {}, *tried], headers)
        self._header_log.add(promise.key, promise.facts())
        self.left_headers.forget(promise.key)

    async def headers_kept(self) -> None:
        """Wait until what is promised of headers is on the disk. OSError where that fails."""
        await self.threads.run(self._header_log.syncing())

    def headers_done(self, key: str) -> None:
        """The object has the headers that were promised, or nobody wants them any more."""
        self._header_log.done(key)

    async def deletion_done(self, key: str) -> None:
        """The object that was to go is deleted, or another one is about to take its place; nothing to do where none was to go."""
        await self._removal_log.settle(key, self.threads.run)
        await self.promises.deletion_done(key)

    # -- the end ----------------------------------------------------------------------------------------------------

    async def drain(self, progress: Callable[[int, int], None], patience: Patience | None = None) -> None:
        """Deliver everything that was promised or failed before; *progress* gets the files and bytes that are left.

        Stops trying when *patience* is exhausted. Raises OSError with the first cause when something stays; it is in the journal then.
        """
        patience = patience or Patience()
        left = {writer: writer.draft.dirty_bytes for writer in self._writers if writer.owes}
        remaining = Remaining(progress, left.values())
        failures: list[OSError] = []
        slots = trio.CapacityLimiter(PARALLEL)

        async def one(writer: Writer) -> None:
            async with slots:
                if patience.exhausted:
                    return
                try:
                    await writer.deliver()
                    patience.delivered()
                except OSError as exc:
                    failures.append(exc)
                    patience.failed(exc)
                    await self.failed(writer, exc)
                remaining.done(left.pop(writer))

        async def keep(key: str) -> None:
            async with slots:
                if patience.exhausted:
                    return
                try:
                    await self.left_headers.keep(key)
                    patience.delivered()
                except OSError as exc:
                    failures.append(exc)
                    patience.failed(exc)

        async with trio.open_nursery() as nursery:
            for writer in list(left):
                nursery.start_soon(one, writer)
            for key in self.left_headers.lacking():
                nursery.start_soon(keep, key)
        if left:
            failures += [patience.failures[-1]] * len(left)
            await self.keep(patience.failures[-1])
        while self._busy and not patience.exhausted:
            await self.settle(next(iter(self._busy)))
        if failures:
            first = failures[0]
            raise OSError(first.errno, f"{len(failures)} files are not delivered and stay in the journal: {first}")

    async def keep(self, failure: OSError) -> None:
        """Journal whatever is not delivered because of *failure* and not journalled yet."""
        for writer in list(self._writers):
            if writer.owes and not writer.entry.promised:
                await self.failed(writer, failure)

    async def aclose(self) -> None:
        """Close the journal; what is undelivered stays in it."""
        self._readers.close()
        await self.chunks.aclose()
        self._removal_log.close()
        self._header_log.close()
        await self.promises.aclose()
        self.threads.close()

    def records(self) -> list[Record]:
        """What the journal holds."""
        return list(self.promises.records.values())

    @property
    def half_full(self) -> bool:
        """Whether what is staged takes half of what it may, of the disk or of the memory."""
        return self._disk.half_full

    def status(self) -> dict[str, Any]:
        """For `zosfs status`: bytes staged, bytes dirty, and the journal's entries with their causes."""
        return {
            "staged_bytes": self._disk.used,
            "cache": self.chunks.status(),
            "dirty_bytes": sum(writer.draft.dirty_bytes for writer in self._writers),
            "journal": [
                {"id": record.id, "key": record.key, "size": record.size, "state": record.state, "cause": record.cause,
                 "changed": record.changed}
                for record in self.promises.records.values()
            ],
        }  # fmt: skip
