"""One file's undelivered state: what was written, and how it gets into the store.

Owns: a draft, and what goes with it: its uploads, its entry in the journal, its deliveries. Must not know: names, handles, the kernel.

Concurrency: deliveries and promises of one writer never overlap (one lock). Appends follow one another.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING

import trio

from zosfs.content import inheritance
from zosfs.content.append import look
from zosfs.content.doubts import Doubts
from zosfs.content.draft import FOREVER, Draft
from zosfs.content.early import GoingUpEarly
from zosfs.content.early_uploads import EarlyUploads
from zosfs.content.journal_entry import JournalEntry
from zosfs.content.journal_rows import Record
from zosfs.content.plan import only_grown
from zosfs.content.ranges import Ranges
from zosfs.content.sending import Sending
from zosfs.content.staging import StagedFile
from zosfs.content.unfinished_upload import UnfinishedUpload
from zosfs.errors import StoreError
from zosfs.locks import Lock
from zosfs.store.api import Buffer, ObjectInfo

if TYPE_CHECKING:
    from zosfs.content.content import Content

log = logging.getLogger(__name__)

FETCHED = 64 << 20
"""Bytes that are fetched at most lest a rename over a file that is owed fails half-way: it hardly ever does, and what is owed is a conflict
then."""


class Writer:
    """What an inode has that the store has not.

    Whoever makes one sets the *headers* of its draft and *on_delivered* (told of every delivery) before it writes.
    *due*, if set, is called in the background when an appending file has gathered for `append_interval`: it should deliver.
    *deliver_promised*, if set, delivers what was promised, in turn with what else the owner does with the file; while the owner does
    something, or something is done that this must not come in between of, it is not *free* for that.
    """

    on_delivered: Callable[[ObjectInfo], None]
    due: Callable[[], Awaitable[None]] | None = None
    deliver_promised: Callable[[], Awaitable[object]] | None = None
    free: Callable[[], bool] = staticmethod(lambda: True)

    def __init__(
        self, content: Content, key: str, base: ObjectInfo | None, staged: StagedFile, *, truncate: bool, appending: bool
    ) -> None:
        self._content = content
        self._delivering = Lock()
        self._timed = False  # *due* will be called
        self._outlived: set[str] = set()  # ETags of objects, one of which may be where the base was: the file is to take its place
        draft = self.draft = Draft(key, base, staged, content.reader, content.threads, truncate=truncate, appending=appending)
        self._doubts = Doubts(draft.md5)
        self._uploads = EarlyUploads(content)
        self._unfinished = UnfinishedUpload(content)
        self.entry = JournalEntry(
            content.promises, draft, self._doubts, self._uploads, self._unfinished, self._delivering, content.staged_file
        )
        self.early = GoingUpEarly(content, draft, self._uploads, self.entry, self._delivering, self.deliver)
        self._sending = Sending(content, draft, self._doubts, self._uploads, self._unfinished, self.entry)

    # -- state ------------------------------------------------------------------------------------------------------

    @property
    def dirty(self) -> bool:
        """Whether the store lacks something of this file that is not on its way."""
        return self.draft.changed

    @property
    def on_its_way(self) -> bool:
        """Whether something of it is being delivered, which may fail still."""
        return self._sending.under_way

    @property
    def owes(self) -> bool:
        """Whether it is to bring something into the store: nothing of a conflict, or of a file that is unlinked."""
        return self.draft.changed and not self.entry.conflict and not self.draft.unlinked

    @property
    def deliverable(self) -> bool:
        """Whether what was promised of it can be delivered at once, so that who waits for that waits for nobody else."""
        return (
            self.draft.changed and self.entry.promised and not self.draft.unlinked and not self._delivering.locked() and self.free()
        )

    @property
    def partly_gone(self) -> bool:
        """Whether bytes of it are in an unfinished upload and nowhere else: it cannot be journalled, only delivered."""
        return bool(self._uploads.gone)

    @property
    def arriving(self) -> bool:
        """Whether bytes are on their way that need no disk any more once they have arrived."""
        draft = self.draft
        if self.early.pressed or self._uploads.arriving or (self._sending.under_way and not draft.staged.starved):
            return True
        return draft.changed and draft.moving()

    # -- bytes ------------------------------------------------------------------------------------------------------

    async def write(self, offset: int, data: Buffer, *, append: bool = False) -> int:
        """Take *data* at *offset*, or with *append* at the end; returns its length.

        Waits while too many bytes are staged; OSError(ENOSPC) when waiting does not help, EFBIG behind what an object can have.
        """
        draft, entry = self.draft, self.entry
        if not append:
            if entry.record is not None:
                await self._spare(offset)
            await self._write(offset, data)
            return len(data)
        if entry.record is not None:
            await self._spare(draft.size)  # not within the lock, which a delivery may want while it holds its own
        async with draft.end:
            await self._write(draft.size, data)
        if draft.appending and self.due is not None and not self._timed:
            self._timed = True
            self._content.nursery.start_soon(self._deliver_when_due)
        return len(data)

    def write_now(self, offset: int, data: Buffer) -> bool:
        """As `write`, of a file with which nothing else is done but that it goes up. False, and nothing happened, where that waits."""
        draft, uploads, end = self.draft, self._uploads, offset + len(data)
        if self.entry.record is not None or self._doubts.open or draft.exchange is not None:
            return False
        goes_up = uploads.under_way
        if goes_up and (uploads.editing or uploads.gone):
            return False
        if end > self._content.limits.max_object:
            return False
        grows_up = not draft.kept and not draft.appending  # see GoingUpEarly.stream_on
        if grows_up and not goes_up and max(end, draft.size) >= self.early.stream_from:
            return False
        if not draft.staged.write_now(offset, data):
            return False
        self._doubts.changed(offset)
        draft.wrote(end)
        if goes_up:
            uploads.rewritten(offset, end)
            if grows_up:
                uploads.advance(draft.staged.dirty.run_end(0))
        return True

    async def _write(self, offset: int, data: Buffer) -> None:
        draft, end = self.draft, offset + len(data)
        self._may_have(end)
        draft.delivered = None
        await self._doubts.before_change(offset, draft.base_etag)
        with draft.lands(offset, end):
            await self._bring_back(offset, end)
            async with draft.changing():
                await draft.staged.write(offset, data)
            self._doubts.changed(offset)
            draft.wrote(end)
            self._uploads.rewritten(offset, end)
        if not draft.kept and not draft.appending:
            await self.early.stream_on()

    def _may_have(self, size: int) -> None:
        # no delivery would come to an end with that, and a program is to know at once
        if size > self._content.limits.max_object:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    async def _spare(self, start: int) -> None:
        """Bytes from *start* on are about to be written: those that the journal promised stay, or are delivered where the disk is short."""
        if self.deliverable and self.deliver_promised is not None and not self.entry.has_room_to_spare(start):
            with contextlib.suppress(OSError):
                await self.deliver_promised()
        await self.entry.spare(start)

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
        if self.draft.changed and self.due is not None:
            try:
                await self.due()
            except OSError as exc:
                log.warning("%s is not delivered yet: %s", self.draft.key, exc)

    async def read(self, offset: int, size: int) -> Buffer:
        """Bytes ``[offset, offset + size)``: what was written over what the base has; short only at the end.

        ESTALE when others changed the base.
        """
        draft = self.draft
        while True:
            end = min(offset + size, draft.size)
            if end <= offset:
                return b""
            await self._bring_back(offset, end)
            version = draft.version
            missing = draft.staged.present.missing(offset, min(end, draft.kept)) if offset < draft.kept else []
            data = draft.staged.read(offset, end - offset)
            if len(data) == end - offset and not missing:
                return data
            whole = bytearray(data)
            whole.extend(bytes(end - offset - len(data)))
            try:
                for start, stop in missing:
                    whole[start - offset : stop - offset] = await draft.read_base(start, stop)
            except StoreError as exc:
                if version == draft.version and exc.errno in (errno.ESTALE, errno.ENOENT):
                    await self.settled()  # it may be ours that took the base's place, and tells in a moment
                    if version == draft.version:
                        await self._read_what_a_try_left()
                if version == draft.version:
                    raise
            if version == draft.version:
                return whole
            # a delivery gave the file another base meanwhile: it has the bytes now

    async def _read_what_a_try_left(self) -> None:
        """Where a try of ours that got no answer took the base's place, its bytes are read from what that left."""
        draft = self.draft
        found = await self.standing_on()
        if found is not None and found is not draft.base and self._doubts.ours(found):
            draft.read_from(found)

    async def fetch_all(self) -> None:
        """Make every byte present: the object may go."""
        await self._bring_back(0, self.draft.size)
        self.early.precious = True
        await self.draft.fetch(0, self.draft.kept)

    async def truncate(self, size: int) -> None:
        """Set the file's size; what grows is zeros. OSError(EFBIG) for more than an object can have."""
        draft, entry = self.draft, self.entry
        self._may_have(size)
        await self._doubts.before_change(size, draft.base_etag)
        if entry.record is not None and size < draft.size:
            await entry.spare(size, nothing_left=size == 0)
            await entry.cut(size)
        async with draft.end:
            if draft.appending:  # nothing of it goes up early, and a delivery may want the lock that is held
                await self._cut(size)
                return
            with self._uploads.none_beyond(size), draft.lands(size, FOREVER):
                while not await self._cut_uploads_too(size):
                    await self._make_object()

    async def _cut_uploads_too(self, size: int) -> bool:
        """Cut what goes up early along with the staged bytes; False, and nothing happened, where the object has to be made before."""
        uploads = self._uploads
        async with self._delivering:  # which sends what it found, and names its parts by that
            if uploads.gone.overlaps(0, size) and size < uploads.stream_end:
                return False
            if size > uploads.most or not uploads.cut(size):
                return False
            if size < uploads.stream_end:
                await uploads.abandon_stream()
            await self._cut(size)
            return True

    async def _cut(self, size: int) -> None:
        draft = self.draft
        async with draft.changing():
            await draft.staged.truncate(size)
            self._doubts.changed(size)
            draft.cut(size)

    # -- the journal ------------------------------------------------------------------------------------------------

    async def promise(self, *, only: int | None = None) -> None:
        """The journal has what is dirty, safe from a crash and a power cut, when this returns. OSError when it cannot.

        Nothing happens where the draft is of another generation than *only* by then.
        """
        draft, uploads = self.draft, self._uploads
        while True:
            if uploads.gone:
                await self.deliver()
            async with self._delivering:
                if uploads.gone and not draft.unlinked:
                    continue  # written on meanwhile, and gone
                if draft.changed and not self.entry.promised and not uploads.gone:
                    await draft.staged.quiet()
                    if only is None or only == draft.generation:
                        await self.entry.promise()
                return

    async def failed(self, state: str, cause: str) -> None:
        """Journal what could not be delivered, with its *cause*."""
        async with self._delivering:
            if self.draft.changed and not self._uploads.gone:
                await self.entry.put(state, cause)

    async def headers_changed(self) -> None:
        """The headers of a dirty file changed: what the journal promised has the new ones when this returns.

        Not where bytes were written since, of which the next promise says when they are whole: it tells of the headers, too.
        """
        draft, promised = self.draft, self.entry.promised
        draft.generation += 1
        if promised:
            await self.promise(only=draft.generation)

    def restore(self, record: Record) -> None:
        """Become the writer that *record* was made of."""
        draft = self.draft
        draft.size, draft.kept = record.size, record.kept
        draft.staged.load(record.image, Ranges.from_list(record.dirty))
        draft.staged.dirty = Ranges.from_list(record.dirty)
        draft.changed = True
        tail = only_grown(draft.plan_base, draft.staged.dirty, draft.size, draft.kept) if draft.appending else None
        self._doubts.inherit(record, tail)
        self._unfinished.restore(record.upload, draft.generation)
        self.entry.restore(record)
        headers = record.headers
        draft.headers = lambda: headers
        self.on_delivered = lambda info: None

    # -- delivery ---------------------------------------------------------------------------------------------------

    async def deliver(self, *, only_promised: bool = False) -> ObjectInfo | None:
        """Bring what is dirty into the store; None when nothing was.

        *only_promised*: not while there are changes that nobody was promised yet nor closed the file with, so that a program that is just
        rewriting the file does not show half of it; its next close or fsync promises the whole.
        Raises StoreError or OSError and keeps the bytes for another try: ESTALE when somebody else changed the object.
        """
        draft, content = self.draft, self._content
        async with self._delivering:
            while draft.changed:
                async with content.only_one(draft.key) as key:
                    if key != draft.key:
                        continue
                    if draft.unlinked:
                        return None
                    await content.deletion_done(key)  # or the next run would take this for what it has to delete
                    await self._stand_alone()
                    await draft.staged.quiet()
                    if draft.unlinked or (only_promised and not self.entry.whole):
                        return None
                    return self._told(await self._sending.deliver())
            return None

    async def settled(self) -> None:
        """Wait until nothing is on its way: what was may be dirty again."""
        async with self._delivering:
            pass

    async def inherited(self) -> ObjectInfo | None:
        """Compare what an earlier run promised with the object that is there now.

        Returns the object when the store has these bytes already (its headers and tags are seen to); else they are to be delivered.
        StoreError ``Conflict`` when somebody else changed it.
        """
        async with self._delivering, self._content.only_one(self.draft.key):
            await self._stand_alone()
            return self._told(await inheritance.compare(self._content.store, self.draft, self._unfinished, self.entry))

    def _told(self, info: ObjectInfo | None) -> ObjectInfo | None:
        if info is not None:
            self.on_delivered(info)
        return info

    # -- names and the end ------------------------------------------------------------------------------------------

    async def rename_undelivered(self, key: str, over: Callable[[], ObjectInfo | None] = lambda: None) -> bool:
        """Rename a file that the store has nothing of, in the journal and here; no request is sent.

        False, and nothing happened, when the store has it (by now): then the object has to be renamed. What was promised for
        *key* is replaced. *over* tells the object that lies at *key*, if one does: the file will replace that one, in one step, and
        no other.
        """
        draft = self.draft
        async with self._delivering:
            if draft.base is not None or not draft.changed or self._uploads.gone or await self._has_left_something():
                return False
            draft.base = await self._content.rename(draft.key, key, over)
            await self._move(key)
            return True

    async def _has_left_something(self) -> bool:
        """Whether a try of ours that got no answer made the object of a new file: that is the base now."""
        draft, doubts = self.draft, self._doubts
        found = await look(self._content.store, draft.key) if doubts.doubtful else None
        if found is None:
            return False
        await doubts.before_change(0, "")
        if not doubts.ours(found):
            return False
        doubts.sent.forget()
        draft.stand_on(found, draft.kept)
        return True

    async def standing_on(self) -> ObjectInfo | None:
        """The base as it lies in the store by now: with what a try of ours left that got no answer, and with what others have put behind it
        where this appends. As it was, where it is another one."""
        draft, doubts = self.draft, self._doubts
        async with self._delivering:
            appends = draft.appending and not doubts.retracted
            if draft.base is None or not (appends or doubts.doubtful):
                return draft.base
            found = await look(self._content.store, draft.key)
            if found is None:
                return draft.base
            await doubts.before_change(0, draft.base_etag)
            grown = appends and only_grown(draft.plan_base, draft.staged.dirty, draft.size, draft.kept) is not None
            return found if grown or doubts.ours(found) else draft.base

    async def promise_at(self, key: str, made_ns: int = 0) -> None:
        """The base lies at *key*, too, where its object was made at *made_ns* (ns since the epoch, 0: not said): what was promised is for
        that from now on, so that the base may go from where it was. OSError where the journal cannot have that, and nothing happened."""
        async with self._delivering:
            await self._end_uploads()
            await self.entry.moved(key, made_ns)

    async def renamed(self, key: str, made_ns: int = 0) -> None:
        """The file is called *key* from now on; an upload to the old key is abandoned, its bytes are staged.

        *made_ns*: when its object was made there, in ns since the epoch, if it was.
        """
        async with self._delivering:
            await self._move(key, made_ns)

    async def _end_uploads(self) -> None:
        """Nothing of what is up in parts is of use any more."""
        await self._uploads.abandon()
        await self._unfinished.drop(self.draft.key)

    async def _move(self, key: str, made_ns: int = 0) -> None:
        await self._end_uploads()
        self.draft.renamed(key, made_ns)

    async def fetch_if_owed(self) -> None:
        """The base may go, and what is owed of the file stay: make every byte present, but not where they are many or the disk is short."""
        draft = self.draft
        missing = sum(end - start for start, end in draft.staged.present.missing(0, draft.kept))
        if draft.changed and not self.partly_gone and missing <= FETCHED and draft.staged.fits(missing):
            self.early.precious = True
            await draft.fetch(0, draft.kept)

    def outlives(self, etags: Collection[str]) -> None:
        """An object with one of these ETags may have taken the base's place, and the file is to be there still: see `outlive`."""
        self._outlived |= set(etags)

    async def outlive(self) -> None:
        """What is to be delivered still, and has every byte here, is no change of the base any more, here and in the journal: it takes the
        place of what may have taken the base's."""
        async with self._delivering:
            await self._stand_alone()

    async def _stand_alone(self) -> None:
        etags, self._outlived = self._outlived, set()
        draft, entry = self.draft, self.entry
        if not etags or not self.owes or not draft.complete or self.partly_gone:
            return
        await self._end_uploads()
        await draft.staged.quiet()
        promised, record = entry.promised, entry.record if entry.recorded else None
        draft.stand_alone()
        self._doubts.etags |= etags
        with contextlib.suppress(OSError):  # a full disk, say: delivering is what makes room
            if promised:
                await entry.promise()
            elif record is not None:
                await entry.put(record.state, record.cause)

    async def discard(self) -> None:
        """Nothing of this will be sent any more: uploads are aborted, the journal forgets it (but not a conflict's bytes)."""
        draft = self.draft
        async with self._delivering:
            draft.changed = False
            draft.delivered = None
            draft.staged.dirty.clear()
            await self._end_uploads()
            await self.entry.discard()

    async def aclose(self) -> None:
        """Give the staged file back, once nothing of it is on its way; what is dirty stays on disk when the journal has it."""
        async with self._delivering:
            await self._uploads.abandon()
            if self.entry.record is None:
                await self._unfinished.drop(self.draft.key)
            self.draft.close_reader()
            await self._content.retire(self)
