"""One file's undelivered state: what was written, and how it gets into the store.

Owns: the staged file and its dirty ranges, the base that they are changes of, the uploads it began. Must not know: names, handles,
the kernel.

Concurrency: deliveries and promises of one writer never overlap (one lock). What is delivered is the file as it was when the delivery
began: writes behind its end go on meanwhile, writes into it wait. Appends follow one another. Once the
journal has promised the bytes of a file, they stay as promised until they are delivered: a write into them goes to a copy of the
staged file (up to `COPY_MOST` bytes; above, the file is changed in place, and after a crash has some of the later
writes, as on any local filesystem). Cutting to nothing never touches promised bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import trio

from zosfs.content.append import look
from zosfs.content.delivery import Assumed, Means, Outgoing, deliver
from zosfs.content.doubts import Doubts
from zosfs.content.etags import body_md5, chain_etag, multipart_etag
from zosfs.content.finishing import correct_headers, put_tags
from zosfs.content.journal import CONFLICT, PROMISED, Record
from zosfs.content.plan import Append, Base, Multipart, Nothing, Plan, Put, only_grown, plan
from zosfs.content.ranges import Ranges
from zosfs.content.reader import Reader
from zosfs.content.replay import Step, decide, leans_on_base, needs_sum
from zosfs.content.staging import StagedFile
from zosfs.content.uploads import Uploads
from zosfs.errors import StoreError
from zosfs.locks import Lock
from zosfs.store.api import Body, Buffer, ObjectHeaders, ObjectInfo

if TYPE_CHECKING:
    from zosfs.content.content import Content

log = logging.getLogger(__name__)

FETCH = 8 << 20
COPY_MOST = 64 << 20
_FOREVER = 1 << 62


class Writer:
    """What an inode has that the store has not.

    Whoever makes one sets *headers* (the object's headers as of now) and *on_delivered* (told of every delivery) before it writes.
    *due*, if set, is called in the background when an appending file has gathered for `append_interval`: it should deliver.
    """

    headers: Callable[[], ObjectHeaders]
    on_delivered: Callable[[ObjectInfo], None]
    due: Callable[[], Awaitable[None]] | None = None

    def __init__(
        self, content: Content, key: str, base: ObjectInfo | None, staged: StagedFile, *, truncate: bool, appending: bool
    ) -> None:
        self._content = content
        self._store = content.store
        self.key = key
        self.base = base
        self.staged = staged
        self.appending = appending
        self.size = 0 if base is None or truncate else base.size
        self._kept = self.size  # the base's bytes below this are still the file's, where nothing newer lies
        self._kept_after = 0  # and what it will be once the delivery under way is done
        self._changed = base is None or truncate
        self._generation = 0
        self._version = 0  # of the base
        self._delivering = Lock()
        self._appending = Lock()
        self._reader: Reader | None = None
        # writes in flight, and the exchange of the staged file that they must not miss
        self._active = 0
        self._inactive = trio.Event()
        self._exchanged: trio.Event | None = None
        # the journal
        self.record: Record | None = None
        self._promised = -1
        self._recorded = -1  # the generation that the record is of
        self.moving: Callable[[], bool] = lambda: False
        """Whether the file is about to get another key: bytes in an upload to the old one could not go along. To be set by the owner."""
        # deliveries
        self._uploads = Uploads(content)
        self._expected = ""  # the ETag of what is about to be made of bytes that are not all here
        self._doubts = Doubts(self._sum)
        self._landing: list[tuple[int, int]] = []  # writes under way: what they touch stays on the disk
        self._sending = False  # being delivered
        self._stuck = -1  # the generation of which no part could go up early
        self._pressed = False  # going up before its time, because the disk is short
        self.exact_times = False
        """Whether somebody set the file's times since it was last written: the object must have exactly them."""
        self._timed = False
        self._precious = False
        self._bare = False  # the base lacks tags or locks that it is to have
        self.delivered: ObjectInfo | None = None
        """The version that the staged bytes are equal to, if any."""
        self.unlinked = False
        """Whether the name is gone: nothing is delivered any more, and the local bytes may be the only ones."""

    # -- state ------------------------------------------------------------------------------------------------------

    @property
    def dirty(self) -> bool:
        """Whether the store lacks something of this file."""
        return self._changed

    @property
    def promised(self) -> bool:
        """Whether the journal has everything that is dirty now."""
        return self._promised == self._generation

    @property
    def conflict(self) -> bool:
        """Whether somebody else changed the object, and the bytes here wait for a person."""
        return self.record is not None and self.record.state == CONFLICT

    @property
    def recorded(self) -> bool:
        """Whether the journal has a record of what is dirty now, promised or not."""
        return self.record is not None and self._recorded == self._generation

    @property
    def complete(self) -> bool:
        """Whether every byte is here, so that the object in the store is not needed for reading."""
        return self.staged.present.covers(0, self._kept)

    @property
    def partly_gone(self) -> bool:
        """Whether bytes of it are in an unfinished upload and nowhere else: it cannot be journalled, only delivered."""
        return bool(self._uploads.gone)

    @property
    def arriving(self) -> bool:
        """Whether bytes are on their way that need no disk any more once they have arrived."""
        return self._pressed or self._uploads.arriving or (self._sending and not self.staged.starved) or (self._changed and self.moving())

    @property
    def dirty_bytes(self) -> int:
        """How many bytes the store lacks."""
        return self.staged.dirty.total if self._changed else 0

    # -- bytes ------------------------------------------------------------------------------------------------------

    async def write(self, offset: int, data: Buffer, *, append: bool = False) -> int:
        """Take *data* at *offset*, or with *append* at the end; returns its length.

        Waits while too many bytes are staged; OSError(ENOSPC) when waiting does not help.
        """
        if not append:
            if self.record is not None:
                await self._keep_promise(offset)
            await self._write(offset, data)
            return len(data)
        if self.record is not None:
            await self._keep_promise(self.size)  # not within the lock, which a delivery may want while it holds its own
        async with self._appending:
            await self._write(self.size, data)
        if self.appending and self.due is not None and not self._timed:
            self._timed = True
            self._content.nursery.start_soon(self._deliver_when_due)
        return len(data)

    def write_now(self, offset: int, data: Buffer) -> bool:
        """As `write`, of a file with which nothing else is done but that it goes up. False, and nothing happened, where that waits."""
        uploads, end = self._uploads, offset + len(data)
        if self.record is not None or self._doubts.open or self._exchanged is not None or uploads.editing or uploads.gone:
            return False
        grows_up = not self._kept and not self.appending  # see _stream_on
        if grows_up and not uploads.streaming and max(end, self.size) >= self._stream_from:
            return False
        if not self.staged.write_now(offset, data):
            return False
        self._doubts.changed(offset)
        self.size = max(self.size, end)
        self._changed = True
        self.exact_times = False
        self._generation += 1
        self.delivered = None
        uploads.rewritten(offset, end)
        if grows_up and uploads.streaming:
            uploads.advance(self.staged.dirty.run_end(0))
        return True

    async def _write(self, offset: int, data: Buffer) -> None:
        end = offset + len(data)
        self.delivered = None
        await self._doubts.before_change(offset, self._base_etag)
        with self._lands(offset, end):
            await self._bring_back(offset, end)
            async with self._changing():
                await self.staged.write(offset, data)
            self._doubts.changed(offset)
            self.size = max(self.size, end)
            self._changed = True
            self.exact_times = False
            self._generation += 1
            self.delivered = None  # again: a delivery may have ended meanwhile
            self._uploads.rewritten(offset, end)
        if not self._kept and not self.appending:
            await self._stream_on()

    @contextlib.contextmanager
    def _lands(self, start: int, end: int) -> Iterator[None]:
        """Within, bytes ``[start, end)`` change: they stay on the disk."""
        self._landing.append((start, end))
        try:
            yield
        finally:
            self._landing.remove((start, end))

    async def _stream_on(self) -> None:
        """A new file that is written from its beginning goes up while it grows."""
        if self._uploads.editing:
            return
        frontier = self.staged.dirty.run_end(0)
        if not self._uploads.streaming:
            if frontier < self._stream_from or self._delivering.locked():
                return
            await self._uploads.begin_stream(self.key, self.staged, self.headers())
            frontier = self.staged.dirty.run_end(0)
        self._uploads.advance(frontier)

    @property
    def _stream_from(self) -> int:
        """How much of a new file has to be there before it goes up while it grows."""
        limits = self._content.limits
        return limits.part_size if self._pressed else limits.multipart_threshold + limits.part_size

    async def _stream_early(self) -> None:
        try:
            await self._stream_on()
        finally:
            self._pressed = False

    async def _bring_back(self, start: int, end: int) -> None:
        """Where bytes ``[start, end)`` are in the unfinished upload only, make the object of what is written so far, as fsync does."""
        if self._uploads.gone.overlaps(start, end) or end > self._uploads.most:
            await self._make_object()

    async def _make_object(self) -> None:
        await self.deliver()
        if self._uploads.gone:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    async def _deliver_when_due(self) -> None:
        await trio.sleep(self._content.options.append_interval)
        self._timed = False
        if self._changed and self.due is not None:
            try:
                await self.due()
            except OSError as exc:
                log.warning("%s is not delivered yet: %s", self.key, exc)

    async def read(self, offset: int, size: int) -> Buffer:
        """Bytes ``[offset, offset + size)``: what was written over what the base has; short only at the end.

        ESTALE when others changed the base.
        """
        while True:
            end = min(offset + size, self.size)
            if end <= offset:
                return b""
            await self._bring_back(offset, end)
            version = self._version
            missing = self.staged.present.missing(offset, min(end, self._kept)) if offset < self._kept else []
            data = self.staged.read(offset, end - offset)
            if len(data) == end - offset and not missing:
                return data
            whole = bytearray(data)
            whole.extend(bytes(end - offset - len(data)))
            try:
                for start, stop in missing:
                    whole[start - offset : stop - offset] = await self._base_bytes(start, stop)
            except StoreError as exc:
                if version == self._version and exc.errno in (errno.ESTALE, errno.ENOENT):
                    async with self._delivering:
                        pass  # it may be ours that took the base's place, and tells in a moment
                if version == self._version:
                    raise
            if version == self._version:
                return whole
            # a delivery gave the file another base meanwhile: it has the bytes now

    async def _base_bytes(self, start: int, end: int) -> Buffer:
        if self._reader is None:
            assert self.base is not None
            self._reader = self._content.reader(self.base)
        return await self._reader.read(start, end - start)

    async def truncate(self, size: int) -> None:
        """Set the file's size; what grows is zeros."""
        await self._doubts.before_change(size, self._base_etag)
        if self.record is not None and size < self.size:
            await self._keep_promise(size, nothing_left=size == 0)
            await self._promise_less(size)
        async with self._appending:
            if self.appending:  # nothing of it goes up early, and a delivery may want the lock that is held
                await self._cut_staged(size)
                return
            with self._uploads.none_beyond(size), self._lands(size, _FOREVER):
                while not await self._cut_uploads_too(size):
                    await self._make_object()

    async def _cut_uploads_too(self, size: int) -> bool:
        """Cut what goes up early along with the staged bytes; False, and nothing happened, where the object has to be made before."""
        async with self._delivering:  # which sends what it found, and names its parts by that
            if self._uploads.gone.overlaps(0, size) and size < self._uploads.stream_end:
                return False
            if size > self._uploads.most or not self._uploads.cut(size):
                return False
            if size < self._uploads.stream_end:
                await self._uploads.abandon_stream()
            await self._cut_staged(size)
            return True

    async def _cut_staged(self, size: int) -> None:
        async with self._changing():
            await self.staged.truncate(size)
            self._cut(size)

    def _cut(self, size: int) -> None:
        self._doubts.changed(size)
        self._kept = min(self._kept, size)
        self._kept_after = min(self._kept_after, size)
        self.size = size
        self._changed = True
        self._generation += 1
        self.delivered = None

    @property
    def _base_etag(self) -> str:
        return self.base.etag if self.base is not None else ""

    async def _sum(self, start: int, end: int) -> str:
        """The MD5 of the staged bytes ``[start, end)``."""
        staged = self.staged
        body = staged.lend(start, end)
        try:
            return await self._content.threads.run(body_md5, body)
        finally:
            staged.give_back(start, end)

    async def fetch(self, start: int, end: int) -> None:
        """Make the base's bytes ``[start, end)`` present in the staged file (Source)."""
        for low, high in self.staged.present.missing(start, min(end, self._kept)):
            for piece in range(low, high, FETCH):
                data = bytes(await self._base_bytes(piece, min(piece + FETCH, high)))
                async with self._changing():
                    await self.staged.keep(piece, data)

    async def fetch_all(self) -> None:
        """Make every byte present: the object may go."""
        await self._bring_back(0, self.size)
        self._precious = True
        await self.fetch(0, self._kept)

    def shed(self, n: int) -> int:
        """Drop from the disk what the store has, of a file that goes up while it is written about *n* bytes; returns how many.

        A new file that could go up begins to.
        """
        if self._delivering.locked() or self._precious or self.unlinked:
            return 0
        new = not self._kept and not self.appending and self.record is None and not self._uploads.editing
        if self._uploads.streaming:
            return self._uploads.shed(n, Ranges(self._landing)) if new and not self.moving() else 0
        if new and not self._pressed and self.staged.dirty.run_end(0) >= self._content.limits.part_size:
            self._pressed = True
            self._content.nursery.start_soon(self._stream_early)
            return 0
        if self.base is None:
            return 0
        return self.staged.shed(Ranges([(self._kept, _FOREVER)]))

    def press(self) -> bool:
        """The disk is short, and nothing else helps: have some of what changed go up before its time. False where that cannot be."""
        able = self._changed and not (
            self.appending or self.unlinked or self._precious or self._pressed or self._uploads.arriving
            or self.record is not None or self._delivering.locked() or self._stuck == self._generation or self.moving()
        )  # fmt: skip
        if able:
            self._pressed = True
            self._content.nursery.start_soon(self._edit_early)
        return able

    async def _edit_early(self) -> None:
        try:
            try:
                await self._edit_more()
            except StoreError as exc:
                if exc.code != "NoSuchUpload":
                    raise
                await self.deliver()  # an object may have been made of it without an answer: then there is nothing to add to
        except OSError as exc:
            log.warning("the disk is short, and changes of %s cannot go up: %s", self.key, exc)
            self.staged.failed()
        finally:
            self._pressed = False

    async def _edit_more(self) -> None:
        async with self._delivering:
            if self.record is None and self._changed and not self._uploads.arriving and not self.moving():
                base = Base.of(self.base) if self.base is not None else None
                if await self._uploads.edit_more(
                    self.key, self.staged, base, self.size, self._kept, self.headers(), lambda: Ranges(self._landing)
                ):
                    self.staged.arrived()
                else:
                    self._stuck = self._generation
                    self.staged.failed()

    # -- the staged file and the promise of its bytes ---------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _changing(self) -> AsyncIterator[None]:
        """The staged file is not exchanged within."""
        while self._exchanged is not None:
            await self._exchanged.wait()
        self._active += 1
        try:
            yield
        finally:
            self._active -= 1
            if not self._active:
                self._inactive.set()
                self._inactive = trio.Event()

    def _shared(self, start: int) -> bool:
        """Whether the journal counts on bytes from *start* on of the very file that is written to."""
        record = self.record
        return (
            record is not None
            and record.image is None
            and record.file == self.staged.name
            and start < record.size
        )

    async def _keep_promise(self, start: int, *, nothing_left: bool = False) -> None:
        """Bytes from *start* on are about to change: those that the journal promised stay, in another file."""
        if not self._shared(start):
            return
        async with self._delivering:
            if not self._shared(start) or (not nothing_left and self.staged.present.total > COPY_MOST):
                return
            await self._uploads.abandon_early()
            self._exchanged = trio.Event()
            try:
                while self._active:
                    await self._inactive.wait()
                old = self.staged
                path = old.path.with_name(uuid.uuid4().hex)
                if nothing_left:
                    self.staged = self._content.staged_file(path.name)
                    self._cut(0)  # at once: nobody may take the old size for that of the new file
                else:
                    self.staged = await old.copy_to(path)
                self._content.promises.leave(old)
            finally:
                self._exchanged.set()
                self._exchanged = None

    async def _promise_less(self, size: int) -> None:
        """A promised file too large to be copied is about to be cut: the record must not speak of bytes that are gone."""
        async with self._delivering:
            record = self.record
            if record is not None and self._shared(size):
                dirty = Ranges.from_list(record.dirty)
                dirty.truncate(size)
                less = dataclasses.replace(record, size=size, kept=min(record.kept, size), dirty=dirty.to_list(), upload=None)
                await self._content.promises.put(less, self.staged)
                self.record = less

    async def promise(self) -> None:
        """The journal has what is dirty, safe from a crash and a power cut, when this returns. OSError when it cannot."""
        while True:
            if self._uploads.gone:
                await self.deliver()
            async with self._delivering:
                if self._uploads.gone and not self.unlinked:
                    continue  # written on meanwhile, and gone
                if self._changed and not self.promised and not self._uploads.gone:
                    generation = self._generation
                    await self._journal(PROMISED, "")
                    self._promised = generation
                return

    async def failed(self, state: str, cause: str) -> None:
        """Journal what could not be delivered, with its *cause*."""
        async with self._delivering:
            if self._changed and not self._uploads.gone:
                await self._journal(state, cause)

    async def headers_changed(self) -> None:
        """The headers of a dirty file changed: what the journal promised has the new ones when this returns."""
        self._generation += 1
        if self.record is not None:
            await self.promise()

    async def _journal(self, state: str, cause: str) -> None:
        await self.staged.quiet()
        record = self._snapshot()
        record.state, record.cause = state, cause
        await self._put_record(record, self._generation)

    async def _put_record(self, record: Record, generation: int) -> None:
        """Journal *record*, which is of *generation*, in the place of the one before."""
        before, self.record = self.record, record
        try:
            await self._content.promises.put(record, self.staged, instead=before)
        except BaseException:
            self.record = before
            raise
        self._recorded = generation

    def _snapshot(self) -> Record:
        """The journal's record of this writer as it is now."""
        before, name = self.record, self.staged.name
        fresh = before is None or before.state == CONFLICT or before.file != name
        return Record(
            os.urandom(16).hex() if fresh or before is None else before.id,
            self.key, self.size, self._kept, self.staged.dirty.to_list(), self.base, self.headers(),
            self.appending and not self._doubts.retracted,
            name, self.staged.image, sorted(self._doubts.etags), upload=self._uploads.unfinished,
        )  # fmt: skip

    def restore(self, record: Record) -> None:
        """Become the writer that *record* was made of."""
        self.size, self._kept = record.size, record.kept
        self.staged.load(record.image, Ranges.from_list(record.dirty))
        self.staged.dirty = Ranges.from_list(record.dirty)
        self._changed = True
        base = Base.of(self.base) if self.base is not None else None
        self._doubts.inherit(record, only_grown(base, self.staged.dirty, self.size, self._kept) if self.appending else None)
        self._uploads.restore(record.upload, self._generation)
        self.record = record
        self._promised = self._recorded = self._generation
        headers = record.headers
        self.headers = lambda: headers
        self.on_delivered = lambda info: None

    # -- delivery ---------------------------------------------------------------------------------------------------

    def lend(self, start: int, end: int) -> Body:
        """Staged bytes for an upload (Source)."""
        return self.staged.lend(start, end)

    def give_back(self, start: int, end: int) -> None:
        """The upload of ``[start, end)`` ended (Source)."""
        self.staged.give_back(start, end)

    async def deliver(self, *, only_promised: bool = False) -> ObjectInfo | None:
        """Bring what is dirty into the store; None when nothing was.

        *only_promised*: not while there are changes that nobody was promised yet, so that a program that is just rewriting the
        file does not show half of it; its next close or fsync promises the whole.
        Raises StoreError or OSError and keeps the bytes for another try: ESTALE when somebody else changed the object.
        """
        async with self._delivering:
            while self._changed:
                async with self._content.only_one(self.key) as key:
                    if key != self.key:
                        continue
                    if self.unlinked:
                        return None
                    await self._content.deletion_done(key)  # or the next run would take this for what it has to delete
                    await self.staged.quiet()
                    if self.unlinked or (only_promised and not self.promised):
                        return None
                    return await self._deliver()
            return None

    async def _deliver(self) -> ObjectInfo | None:
        staged = self.staged
        # nothing is awaited from here to the hold: the object is the file as it is now
        dirty, size, generation, kept = staged.dirty, self.size, self._generation, self._kept
        newer = self._newer_record()
        staged.dirty = Ranges()
        self._changed = False
        self._kept_after = size
        staged.hold(size)
        self._sending = True
        try:
            try:
                if newer is not None:
                    await self._renew(newer, generation)
                info = await self._send_or_rebase(dirty, size, kept, generation)
            except BaseException as exc:
                # a request that got no good answer may still have been applied
                self._doubts.doubtful = self._doubts.doubtful or not isinstance(exc, StoreError) or exc.ambiguous
                staged.failed()
                self._changed = True
                dirty.truncate(self._kept_after)
                staged.dirty = dirty.union(staged.dirty)
                raise
            if info is not None and info.size != size:
                staged.release()  # what was appended since has to move, and the record is one that recognises itself
                await self._make_way(info.size - size, size)
            if info is not None:
                self._bare = False
                self._rebase(info, size)
                self.delivered = info if generation == self._generation and info.size == size else None
                self._doubts.settle()
            # until the journal has noted it the next run may have to compare these bytes with the object's
            await self._forget_record()
        finally:
            self._sending = False
            staged.release()
        staged.arrived()
        if info is not None:
            self.on_delivered(info)
        return info

    async def _forget_record(self) -> None:
        record, self.record = self.record, None
        upload, self._uploads.unfinished = self._uploads.unfinished, None
        try:
            await self._content.promises.forget(record, upload_id=upload.upload_id if upload is not None else "")
        except OSError as exc:
            log.warning("the journal still lists %s, which is delivered: %s", self.key, exc)

    def _newer_record(self) -> Record | None:
        """What the journal's record has to become before this state is sent, or the next run would not know it for its own."""
        if self.record is None or self.conflict or self._recorded == self._generation:
            return None
        return self._snapshot()

    async def _renew(self, record: Record, generation: int) -> None:
        try:
            await self._put_record(record, generation)
        except OSError as exc:  # a full disk, say: delivering is what makes room
            log.warning("the journal has an older state of %s than is being delivered: %s", self.key, exc)

    async def inherited(self) -> ObjectInfo | None:
        """Compare what an earlier run promised with the object that is there now.

        Returns the object when the store has these bytes already (its headers and tags are seen to); else they are to be delivered.
        StoreError ``Conflict`` when somebody else changed it.
        """
        async with self._delivering, self._content.only_one(self.key):
            record = self.record
            if record is None or self._recorded != self._generation:
                return None  # changed since: the next delivery finds out what it stands on
            found = await look(self._store, self.key)
            step = decide(record, found, await self._sum(0, record.size) if needs_sum(record, found) else "")
            log.info("%s, left by an earlier run: %s", record.key, step.value)
            if step is Step.CONFLICT:
                await self.drop_upload()
                raise StoreError("Conflict", status=412, operation="write", key=self.key, message="changed since it was written here")
            if found is None or step not in (Step.DELIVERED, Step.REBASE):
                return None
            self._stand_on(found, self._kept)
            return await self._see_to(found) if step is Step.DELIVERED else None

    async def _see_to(self, found: ObjectInfo) -> ObjectInfo | None:
        """The object *found* has what was inherited: give it its headers and tags, and be clean; None when there are changes by then."""
        headers = self.headers()
        info = found
        if dict(found.metadata or {}) != dict(headers.metadata):
            info = await correct_headers(self._store, found, headers)
        else:
            await put_tags(self._store, self.key, headers)
        self.base = info
        await self.drop_upload()
        if self._recorded != self._generation:
            return None
        self._changed = False
        self.staged.dirty.clear()
        self._kept_after = self.size
        self._rebase(info, self.size)
        await self._forget_record()
        self.on_delivered(info)
        return info

    async def _send_or_rebase(self, dirty: Ranges, size: int, kept: int, generation: int) -> ObjectInfo | None:
        if self._doubts.retracted:
            found = await look(self._store, self.key)
            if found is not None and self._doubts.ours(found):
                kept = self._stand_on(found, kept)
        try:
            return await self._send(dirty, size, kept, generation)
        except StoreError as exc:
            if self._uploads.gone and (exc.errno == errno.ESTALE or exc.code == "NoSuchUpload"):
                made = await self._uploads.completed(self.key)
                if made is None:
                    raise
                kept = await self._stand_on_completed(made, dirty, kept)
                return await self._send(dirty, size, kept, generation)
            if exc.errno != errno.ESTALE:
                raise
            await self._doubts.before_change(0, self._base_etag)
            if not self._doubts.etags:
                raise
            found = await look(self._store, self.key)
            if found is None or not self._doubts.ours(found):
                raise
        # an earlier try of ours arrived although it got no answer: that is the base now
        return await self._send(dirty, size, self._stand_on(found, kept), generation)

    def _stand_on(self, found: ObjectInfo, kept: int) -> int:
        """What an earlier try of ours left is the base now; returns how much of it the file keeps, where *kept* was of the one before."""
        self.base = found
        self._kept = kept = min(kept, found.size, self._kept)
        self._close_reader()
        return kept

    async def _stand_on_completed(self, made: ObjectInfo, dirty: Ranges, kept: int) -> int:
        """An earlier try made an object of what went up early, and got no answer: bytes that were nowhere else are the base's now."""
        gone = self._uploads.gone.copy()
        for start, end in gone:
            dirty.remove(start, end)
        kept = max(self._stand_on(made, kept), gone.end)
        self._kept = max(self._kept, gone.end)
        await self._uploads.forget_early()
        return kept

    async def _send(self, dirty: Ranges, size: int, kept: int, generation: int) -> ObjectInfo | None:
        headers = self.headers()
        base = Base.of(self.base) if self.base is not None else None
        early = self._uploads.stream_is_good or (self._uploads.editing and self._uploads.gone)
        if early:
            await self._uploads.only_of(self.key, -1)
        if self._uploads.stream_is_good:
            finish = self._uploads.finish_stream(self.key, size, base, headers, self._expects, exact_times=self.exact_times)
            return await self._send_early(finish, dirty)
        if self._uploads.editing and self._uploads.gone:
            return await self._send_early(
                self._uploads.finish_edit(
                    self.key, dirty, size, kept, generation, base, headers, self._expects, exact_times=self.exact_times
                ),
                dirty,
            )
        await self._uploads.abandon_early()
        content = self._content
        appending = self.appending and not self._doubts.retracted
        tail = only_grown(base, dirty, size, kept) if appending else None
        think = partial(
            plan, base, dirty, size, content.limits, content.abilities, appending=appending, present=self.staged.present, kept=kept
        )
        steps = think()
        if not self._has_room(steps):
            # bytes of the base that lie on the disk and are not needed would keep those out that are
            self.staged.shed(dirty.union(Ranges([(kept, _FOREVER)])), held=True)
            steps = think()
        if isinstance(steps, Nothing):
            await self._uploads.only_of(self.key, -1)
            return await self._send_headers(headers)
        roomy = self._has_room(steps)
        try:
            return await self._carry_out(steps, size, generation, base, headers, tail, through_memory=not roomy)
        except OSError as exc:
            if isinstance(exc, StoreError) or exc.errno != errno.ENOSPC or not roomy:
                raise
        # others have filled the disk meanwhile
        return await self._carry_out(steps, size, generation, base, headers, tail, through_memory=True)

    def _has_room(self, steps: Plan) -> bool:
        """Whether the disk takes the base's bytes that the plan needs."""
        return not isinstance(steps, Put | Multipart) or self.staged.fits(sum(end - start for start, end in steps.downloads))

    async def _carry_out(
        self, steps: Plan, size: int, generation: int, base: Base | None, headers: ObjectHeaders, tail: tuple[int, int] | None,
        *, through_memory: bool,
    ) -> ObjectInfo | None:  # fmt: skip
        content = self._content
        parts = isinstance(steps, Multipart)
        await self._uploads.only_of(self.key, generation if parts else -1)
        self._expected = ""
        if self.record is not None and not (through_memory and isinstance(steps, Put)):
            await self._expect(self.record, steps, size)
        try:
            return await deliver(
                Means(self._store, content.limits, content.options.upload_concurrency, content.memory), steps,
                Outgoing(self.key, size, self, headers), Assumed(base, tail, self._doubts.doubtful),
                resume=self._uploads.unfinished, on_part=self._uploads.notes(self.key, generation, self.record) if parts else None,
                through_memory=self._expects if through_memory else None,
            )  # fmt: skip
        except StoreError as exc:
            await self._after_failure(exc, steps, size)
            if tail is not None and exc.ambiguous:
                await self._doubts.may_have_appended(*tail, self._base_etag)
            raise
        except BaseException:
            self._cut_off(steps, size, tail)
            raise

    def _cut_off(self, steps: Plan, size: int, tail: tuple[int, int] | None) -> None:
        """A delivery was given up in the middle of a request, which the server may carry out."""
        if self._expected:
            self._doubts.etags.add(self._expected)
        elif isinstance(steps, Put):
            self._doubts.cut_off(size, tail)
        elif isinstance(steps, Append):
            self._doubts.cut_off(0, (steps.start, steps.end))
        else:
            self._may_have_completed(steps)

    def _may_have_completed(self, steps: Plan) -> None:
        upload = self._uploads.unfinished
        if isinstance(steps, Multipart) and upload is not None and len(upload.parts) == len(steps.parts):
            self._doubts.etags.add(multipart_etag(list(upload.parts.values())))

    async def _send_early(self, finish: Awaitable[ObjectInfo], dirty: Ranges) -> ObjectInfo:
        """Make the object of what went up before its time."""
        self._expected = ""
        try:
            return await finish
        except BaseException as exc:
            made = self._uploads.made
            if made is not None:
                # the store has the bytes, and some of them are nowhere else: what it lacks are headers, tags or locks
                dirty.clear()
                self._stand_on(made, 0)
                self._kept = min(self._kept_after, made.size)
                self._bare = True
            elif self._expected and (not isinstance(exc, StoreError) or exc.ambiguous):
                self._doubts.etags.add(self._expected)
            raise

    async def _expects(self, etag: str) -> None:
        """The object is about to be made, and will have this ETag."""
        self._expected = etag
        if self.record is not None:
            self.record.expected = etag
            await self._note_expected(self.record)

    async def _expect(self, record: Record, steps: Plan, size: int) -> None:
        """Journal the ETag that is about to be made, where the next run could not find it out: the base goes, and its bytes with it."""
        if isinstance(steps, Put) and leans_on_base(record):
            for start, end in steps.downloads:
                await self.fetch(start, end)
            start, end, before = 0, size, ""
        elif isinstance(steps, Append) and self.base is not None:
            start, end, before = steps.start, steps.end, self.base.etag
        else:
            return
        record.expected = chain_etag(before, await self._sum(start, end))
        await self._note_expected(record)

    async def _note_expected(self, record: Record) -> None:
        try:
            await self._content.promises.put(record, self.staged)
        except OSError as exc:  # a full disk, say: delivering is what makes room
            log.warning("the journal does not know what %s is about to be: %s", self.key, exc)

    async def _after_failure(self, exc: StoreError, steps: Plan, size: int) -> None:
        if exc.errno == errno.ESTALE:
            await self._uploads.aborted()
        elif exc.ambiguous:
            if self._expected:
                self._doubts.etags.add(self._expected)
            elif isinstance(steps, Put):
                await self._doubts.may_have_put(size)
            else:
                self._may_have_completed(steps)
        else:
            self._may_have_completed(steps)
            upload = self._uploads.unfinished
            if not exc.retry and not (upload is not None and upload.made):  # with it the next try knows what is left to do
                await self.drop_upload()

    async def _send_headers(self, headers: ObjectHeaders) -> ObjectInfo | None:
        """The bytes in the store are right; the headers may not be."""
        base, bare = self.base, self._bare
        if base is None or base.metadata is None:
            return None
        if dict(base.metadata) != dict(headers.metadata):
            info = await correct_headers(self._store, base, headers)
        elif bare:
            await put_tags(self._store, self.key, headers)
            info = base
        else:
            return None
        return info

    def _rebase(self, info: ObjectInfo, size: int) -> None:
        """The store has the first *size* bytes as *info*: they are the base now."""
        self.base = info
        self._kept = min(self._kept_after, info.size) if info.size == size else info.size
        self._close_reader()

    async def _make_way(self, by: int, size: int) -> None:
        """Others' bytes went in front of what was appended: what was appended since lies *by* bytes further up now."""
        async with self._appending:
            while self._active:
                await self._inactive.wait()
            await self.staged.quiet()
            end = max(self.size, size)
            self.staged.shift(size, end, by)
            self.size = end + by

    def _close_reader(self) -> None:
        self._version += 1
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    async def drop_upload(self) -> None:
        """Abort the upload that failed and might have been continued, if there is one."""
        await self._uploads.drop(self.key)

    # -- names and the end ------------------------------------------------------------------------------------------

    async def rename_undelivered(self, key: str, over: Callable[[], ObjectInfo | None] = lambda: None) -> bool:
        """Rename a file that the store has nothing of, in the journal and here; no request is sent.

        False, and nothing happened, when the store has it (by now): then the object has to be renamed. What was promised for
        *key* is replaced. *over* tells the object that lies at *key*, if one does: the file will replace that one, in one step, and
        no other.
        """
        async with self._delivering:
            if self.base is not None or not self._changed or self._uploads.gone:
                return False
            self.base = await self._content.rename(self.key, key, over)
            await self._move(key)
            return True

    async def renamed(self, key: str) -> None:
        """The file is called *key* from now on; an upload to the old key is abandoned, its bytes are staged."""
        async with self._delivering:
            await self._move(key)

    async def _move(self, key: str) -> None:
        await self._uploads.abandon_early()
        await self.drop_upload()
        self.key = key
        self.delivered = None
        if self.base is not None:
            self.base = dataclasses.replace(self.base, key=key)
        self._close_reader()

    async def discard(self) -> None:
        """Nothing of this will be sent any more: uploads are aborted, the journal forgets it (but not a conflict's bytes)."""
        async with self._delivering:
            self._changed = False
            self.delivered = None
            self.staged.dirty.clear()
            await self._uploads.abandon_early()
            await self.drop_upload()
            record, self.record = self.record, None
            if record is not None and record.state != CONFLICT:
                await self._content.promises.forget(record)

    async def aclose(self) -> None:
        """Give the staged file back; what is dirty stays on disk when the journal has it."""
        await self._uploads.abandon_early()
        if self.record is None:
            await self.drop_upload()
        self._close_reader()
        await self._content.retire(self)
