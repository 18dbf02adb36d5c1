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
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from zosfs.content.append import left_by, look
from zosfs.content.delivery import correct_headers, deliver, put_tags
from zosfs.content.etags import body_md5, chain_etag, multipart_etag
from zosfs.content.journal import CONFLICT, PROMISED, Record
from zosfs.content.plan import Append, Base, Multipart, Nothing, Plan, Put, only_grown, plan
from zosfs.content.ranges import Ranges
from zosfs.content.reader import Reader
from zosfs.content.replay import leans_on_base
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
        # deliveries
        self._uploads = Uploads(content)
        self._suspects: set[str] = set()  # ETags that a try without an answer may have left
        self._doubtful = False
        self._tried: tuple[int, int] | None = None  # bytes that such a try may have appended
        self._untold: tuple[int, int] | None = None  # the same of an earlier run, as long as nobody asked for their sum
        self._retracted = False  # they changed since: this is an edit of what that try may have left, no append
        self._landing: list[tuple[int, int]] = []  # writes under way: what they touch stays on the disk
        self._pressed = False  # going up before its time, because the disk is short
        self.exact_times = False
        """Whether somebody set the file's times since it was last written: the object must have exactly them."""
        self._timed = False
        self._precious = False
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
        return self._pressed or self._uploads.arriving

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
        """As `write`, of a small file with which nothing else is done. False, and nothing happened, where that has to wait."""
        if self.record is not None or self._untold is not None or self._exchanged is not None or self._uploads.streaming:
            return False
        if not self.staged.write_now(offset, data):
            return False
        self._retract(offset)
        self.size = max(self.size, offset + len(data))
        self._changed = True
        self.exact_times = False
        self._generation += 1
        self.delivered = None
        return True

    async def _write(self, offset: int, data: Buffer) -> None:
        end = offset + len(data)
        self.delivered = None
        await self._tell_suspects(offset)
        self._landing.append((offset, end))
        try:
            await self._bring_back(offset, end)
            async with self._changing():
                await self.staged.write(offset, data)
            self._retract(offset)
            self.size = max(self.size, end)
            self._changed = True
            self.exact_times = False
            self._generation += 1
            self.delivered = None  # again: a delivery may have ended meanwhile
            self._uploads.rewritten(offset, end)
        finally:
            self._landing.remove((offset, end))
        if not self._kept and not self.appending:
            await self._stream_on()

    async def _stream_on(self) -> None:
        """A new file that is written from its beginning goes up while it grows."""
        frontier = self.staged.dirty.run_end(0)
        limits = self._content.limits
        if not self._uploads.streaming:
            least = limits.part_size if self._pressed else limits.multipart_threshold + limits.part_size
            if frontier < least or self._delivering.locked():
                return
            await self._uploads.begin_stream(self.key, self.staged, self.headers())
            frontier = self.staged.dirty.run_end(0)
        self._uploads.advance(frontier)

    async def _stream_early(self) -> None:
        try:
            await self._stream_on()
        finally:
            self._pressed = False

    async def _bring_back(self, start: int, end: int) -> None:
        """Where bytes ``[start, end)`` are in the unfinished upload only, make the object of what is written so far, as fsync does."""
        if self._uploads.gone.overlaps(start, end):
            await self.deliver()
            if self._uploads.gone.overlaps(start, end):
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
            except StoreError:
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
        await self._tell_suspects(size)
        if self.record is not None and size < self.size:
            await self._keep_promise(size, nothing_left=size == 0)
            await self._promise_less(size)
        while size < self._uploads.stream_end:
            if self._uploads.gone.overlaps(0, size):
                await self._bring_back(0, size)
            else:
                await self._uploads.abandon_stream()
        async with self._appending, self._changing():
            await self.staged.truncate(size)
            self._cut(size)

    def _cut(self, size: int) -> None:
        self._retract(size)
        self._kept = min(self._kept, size)
        self._kept_after = min(self._kept_after, size)
        self.size = size
        self._changed = True
        self._generation += 1
        self.delivered = None

    def _retract(self, start: int) -> None:
        """Bytes from *start* on changed: if a try may have appended them, it is no append any more."""
        if self._tried is not None and start < self._tried[1]:
            self._tried = None
            self._retracted = True

    async def _tell_suspects(self, start: int) -> None:
        """Bytes from *start* on are about to change: note what the object is if an earlier run has appended them."""
        if self._untold is not None and start < self._untold[1]:
            (low, high), self._untold = self._untold, None
            await self._suspect_append(low, high)

    async def _suspect_append(self, start: int, end: int) -> None:
        """The staged bytes ``[start, end)`` may have been appended."""
        body = self.staged.lend(start, end)
        try:
            md5 = await self._content.threads.run(body_md5, body)
        finally:
            self.staged.give_back(start, end)
        self._suspects |= left_by(self.base.etag if self.base is not None else "", md5)
        self._tried = (start, end)

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
        new = not self._kept and not self.appending and self.record is None
        if self._uploads.streaming:
            return self._uploads.shed(n, Ranges(self._landing)) if new else 0
        if new and not self._pressed and self.staged.dirty.run_end(0) >= self._content.limits.part_size:
            self._pressed = True
            self._content.nursery.start_soon(self._stream_early)
            return 0
        if self.base is None:
            return 0
        return self.staged.shed(Ranges([(self._kept, _FOREVER)]))

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
            await self._uploads.abandon_stream()
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
        if self._uploads.gone:
            await self.deliver()
        async with self._delivering:
            if self._changed and not self.promised:
                generation = self._generation
                await self._journal(PROMISED, "")
                self._promised = generation

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
        before = self.record
        name = self.staged.name
        fresh = before is None or before.state == CONFLICT or before.file != name
        record = self.snapshot(os.urandom(16).hex() if fresh or before is None else before.id)
        record.state, record.cause = state, cause
        self.record = record
        try:
            await self._content.promises.put(record, self.staged, instead=before)
        except BaseException:
            self.record = before
            raise

    def snapshot(self, record_id: str) -> Record:
        """The journal's record of this writer as it is now."""
        return Record(
            record_id, self.key, self.size, self._kept, self.staged.dirty.to_list(), self.base, self.headers(),
            self.appending and not self._retracted,
            self.staged.name, self.staged.image, sorted(self._suspects), upload=self._uploads.unfinished,
        )  # fmt: skip

    def restore(self, record: Record) -> None:
        """Become the writer that *record* was made of."""
        self.size, self._kept = record.size, record.kept
        self.staged.load(record.image, Ranges.from_list(record.dirty))
        self.staged.dirty = Ranges.from_list(record.dirty)
        self._changed = True
        self._suspects = set(record.suspects)
        self._doubtful = True
        if self.appending:
            base = Base.of(self.base) if self.base is not None else None
            self._untold = only_grown(base, self.staged.dirty, self.size, self._kept)
        self._uploads.restore(record.upload, self._generation)
        self.record = record
        self._promised = self._generation
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
        staged.dirty = Ranges()
        self._changed = False
        self._kept_after = size
        staged.hold(size)
        try:
            try:
                info = await self._send_or_rebase(dirty, size, kept, generation)
            finally:
                staged.release()
        except BaseException as exc:
            # a request that got no good answer may still have been applied
            self._doubtful = self._doubtful or not isinstance(exc, StoreError) or exc.ambiguous
            self._changed = True
            dirty.truncate(self._kept_after)
            staged.dirty = dirty.union(staged.dirty)
            raise
        if info is not None:
            await self._rebase(info, size)
            self.delivered = info if generation == self._generation and info.size == size else None
            self._suspects.clear()
            self._doubtful = self._retracted = False
            self._tried = self._untold = None
        record, self.record = self.record, None
        upload, self._uploads.unfinished = self._uploads.unfinished, None
        try:
            await self._content.promises.forget(record, upload_id=upload.upload_id if upload is not None else "")
        except OSError as exc:
            log.warning("the journal still lists %s, which is delivered: %s", self.key, exc)
        if info is not None:
            self.on_delivered(info)
        return info

    async def found_delivered(self, found: ObjectInfo) -> ObjectInfo | None:
        """The object *found* is what an earlier run made of these bytes: see to its headers and tags, and to nothing else."""
        async with self._delivering:
            async with self._content.only_one(self.key):
                headers = self.headers()
                info = found
                if dict(found.metadata or {}) != dict(headers.metadata):
                    info = await correct_headers(self._store, found, headers)
                else:
                    await put_tags(self._store, self.key, headers)
            self._changed = False
            self.staged.dirty.clear()
            await self.drop_upload()
            self._kept_after = self.size
            await self._rebase(info, self.size)
            record, self.record = self.record, None
            await self._content.promises.forget(record)
            self.on_delivered(info)
            return info

    async def _send_or_rebase(self, dirty: Ranges, size: int, kept: int, generation: int) -> ObjectInfo | None:
        if self._retracted:
            found = await look(self._store, self.key)
            if found is not None and found.etag in self._suspects:
                self.base = found
                self._kept = kept = min(kept, found.size, self._kept)
                self._close_reader()
        try:
            return await self._send(dirty, size, kept, generation)
        except StoreError as exc:
            if exc.errno != errno.ESTALE or not self._suspects:
                raise
            found = await look(self._store, self.key)
            if found is None or found.etag not in self._suspects:
                raise
        # an earlier try of ours arrived although it got no answer: that is the base now
        self.base = found
        self._kept = kept = min(kept, found.size, self._kept)
        self._close_reader()
        return await self._send(dirty, size, kept, generation)

    async def _send(self, dirty: Ranges, size: int, kept: int, generation: int) -> ObjectInfo | None:
        headers = self.headers()
        base = Base.of(self.base) if self.base is not None else None
        if self._uploads.stream_is_good:
            return await self._send_stream(size, base, headers)
        await self._uploads.abandon_stream()
        content = self._content
        appending = self.appending and not self._retracted
        tail = only_grown(base, dirty, size, kept) if appending else None
        steps = plan(
            base, dirty, size, content.limits, content.abilities, appending=appending, present=self.staged.present, kept=kept
        )
        if isinstance(steps, Nothing):
            return await self._send_headers(headers)
        parts = isinstance(steps, Multipart)
        await self._uploads.only_of(self.key, generation if parts else -1)
        if self.record is not None:
            await self._expect(self.record, steps, size)
        try:
            return await deliver(
                self._store, self.key, steps, size, self, headers, base, content.options.upload_concurrency,
                limits=content.limits, tail=tail, doubtful=self._doubtful, resume=self._uploads.unfinished,
                on_part=self._uploads.notes(self.key, generation, self.record) if parts else None,
            )  # fmt: skip
        except StoreError as exc:
            await self._after_failure(exc, steps, size)
            if tail is not None and exc.ambiguous:
                self._untold = None
                await self._suspect_append(*tail)
            raise

    async def _send_stream(self, size: int, base: Base | None, headers: ObjectHeaders) -> ObjectInfo:
        expected = ""

        async def expect(etag: str) -> None:
            nonlocal expected
            expected = etag
            if self.record is not None:
                self.record.expected = etag
                await self._content.promises.put(self.record, self.staged)

        try:
            return await self._uploads.finish_stream(self.key, size, base, headers, expect, exact_times=self.exact_times)
        except StoreError as exc:
            if exc.ambiguous and expected:
                self._suspects.add(expected)
            raise

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
        body = self.staged.lend(start, end)
        try:
            md5 = await self._content.threads.run(body_md5, body)
        finally:
            self.staged.give_back(start, end)
        record.expected = chain_etag(before, md5)
        await self._content.promises.put(record, self.staged)

    async def _after_failure(self, exc: StoreError, steps: Plan, size: int) -> None:
        if exc.errno == errno.ESTALE:
            await self._uploads.aborted()
        elif exc.ambiguous:
            if isinstance(steps, Put):
                body = self.staged.lend(0, size)
                try:
                    self._suspects.add(await self._content.threads.run(body_md5, body))
                finally:
                    self.staged.give_back(0, size)
            elif isinstance(steps, Multipart):
                upload = self._uploads.unfinished
                if upload is not None and len(upload.parts) == len(steps.parts):
                    self._suspects.add(multipart_etag(list(upload.parts.values())))
        elif not exc.retry:
            await self.drop_upload()

    async def _send_headers(self, headers: ObjectHeaders) -> ObjectInfo | None:
        """The bytes in the store are right; the headers may not be."""
        base = self.base
        if base is None or base.metadata is None or dict(base.metadata) == dict(headers.metadata):
            return None
        return await correct_headers(self._store, base, headers)

    async def _rebase(self, info: ObjectInfo, size: int) -> None:
        """The store has the first *size* bytes as *info*: they are the base now."""
        if info.size != size:
            await self._make_way(info.size - size, size)
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

    async def rename_undelivered(self, key: str) -> bool:
        """Rename a file that the store has nothing of, in the journal and here; no request is sent.

        False, and nothing happened, when the store has it (by now): then the object has to be renamed. What was promised for
        *key* is replaced.
        """
        async with self._delivering:
            if self.base is not None or not self._changed or self._uploads.gone:
                return False
            await self._content.rename(self.key, key)
            await self._move(key)
            return True

    async def renamed(self, key: str) -> None:
        """The file is called *key* from now on; an upload to the old key is abandoned, its bytes are staged."""
        async with self._delivering:
            await self._move(key)

    async def _move(self, key: str) -> None:
        await self._uploads.abandon_stream()
        await self.drop_upload()
        self.key = key
        self.delivered = None
        if self.base is not None:
            self.base = dataclasses.replace(self.base, key=key)
        self._close_reader()

    def replaces(self, info: ObjectInfo) -> None:
        """A new file took the name of the object *info*: it replaces that one and no other."""
        self.base = info
        self._kept = 0
        self.delivered = None
        self._generation += 1
        if self.record is not None:
            self._content.nursery.start_soon(self._promise_again)

    async def _promise_again(self) -> None:
        try:
            await self.promise()
        except OSError as exc:
            log.error("the journal does not have the newest state of %s: %s", self.key, exc)

    async def discard(self) -> None:
        """Nothing of this will be sent any more: uploads are aborted, the journal forgets it (but not a conflict's bytes)."""
        async with self._delivering:
            self._changed = False
            self.delivered = None
            self.staged.dirty.clear()
            await self._uploads.abandon_stream()
            await self.drop_upload()
            record, self.record = self.record, None
            if record is not None and record.state != CONFLICT:
                await self._content.promises.forget(record)

    async def aclose(self) -> None:
        """Give the staged file back; what is dirty stays on disk when the journal has it."""
        await self._uploads.abandon_stream()
        if self.record is None:
            await self.drop_upload()
        self._close_reader()
        await self._content.retire(self)
