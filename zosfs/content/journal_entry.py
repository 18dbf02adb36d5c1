"""What the journal has of one file, and that it stays true.

Owns: the file's record, and of which generation of the file it is. Must not know: requests, when to promise or deliver.

Once the journal has promised the bytes of a file, they stay as promised until they are delivered: a write into them goes to a copy of the
staged file (up to `COPY_MOST` bytes; above, the file is changed in place, and after a crash has some of the later
writes, as on any local filesystem). Cutting to nothing never touches promised bytes.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import uuid
from collections.abc import Callable

from zosfs.content.doubts import Doubts
from zosfs.content.draft import Draft
from zosfs.content.early_uploads import EarlyUploads
from zosfs.content.journal_rows import CONFLICT, PROMISED, Record
from zosfs.content.promises import Promises
from zosfs.content.ranges import Ranges
from zosfs.content.staging import StagedFile
from zosfs.content.unfinished_upload import UnfinishedUpload
from zosfs.locks import Lock

log = logging.getLogger(__name__)

COPY_MOST = 64 << 20


class JournalEntry:
    """The record of one draft, if there is one."""

    def __init__(
        self, promises: Promises, draft: Draft, doubts: Doubts, early: EarlyUploads, unfinished: UnfinishedUpload, delivering: Lock,
        new_staged: Callable[[str], StagedFile],
    ) -> None:  # fmt: skip
        """Whoever has *delivering* may change the record and exchange the staged file; *new_staged* makes an empty one of a name."""
        self._promises = promises
        self._new_staged = new_staged
        self._draft = draft
        self._doubts = doubts
        self._early = early
        self._unfinished = unfinished
        self._delivering = delivering
        self.record: Record | None = None
        self._promised = -1  # the generation that was promised
        self._recorded = -1  # the one that the record is of
        self._closed = -1  # the one that a close had whole and could not bring anywhere

    @property
    def promised(self) -> bool:
        """Whether the journal has everything that is dirty now."""
        return self._promised == self._draft.generation

    @property
    def whole(self) -> bool:
        """Whether what is dirty now is what was promised, or what a close that failed had: nobody has written on since."""
        return self._draft.generation in (self._promised, self._closed)

    def closed(self, generation: int) -> None:
        """A close had the file of *generation* whole, and could not bring it to where it would be promised."""
        self._closed = generation

    @property
    def recorded(self) -> bool:
        """Whether the journal has a record of what is dirty now, promised or not."""
        return self.record is not None and self._recorded == self._draft.generation

    @property
    def conflict(self) -> bool:
        """Whether somebody else changed the object, and the bytes here wait for a person."""
        return self.record is not None and self.record.state == CONFLICT

    # -- what is written to the journal: the caller has the lock ------------------------------------------------------

    async def promise(self) -> None:
        """The journal has what is dirty, safe from a crash and a power cut, when this returns. OSError when it cannot."""
        generation = self._draft.generation
        await self.put(PROMISED, "")
        self._promised = generation

    async def put(self, state: str, cause: str) -> None:
        """Journal the file as it is now."""
        await self._draft.staged.quiet()
        record = self._snapshot()
        record.state, record.cause = state, cause
        await self._put(record, self._draft.generation)

    async def _put(self, record: Record, generation: int) -> None:
        """Journal *record*, which is of *generation*, in the place of the one before."""
        before, self.record = self.record, record
        try:
            await self._promises.put(record, self._draft.staged, instead=before)
        except BaseException:
            self.record = before
            raise
        self._recorded = generation

    def _snapshot(self) -> Record:
        """The journal's record of this file as it is now."""
        draft, before = self._draft, self.record
        name = draft.staged.name
        fresh = before is None or before.state == CONFLICT or before.file != name
        return Record(
            os.urandom(16).hex() if fresh or before is None else before.id,
            draft.key, draft.size, draft.kept, draft.staged.dirty.to_list(), draft.base, draft.headers(),
            draft.appending and not self._doubts.retracted,
            name, draft.staged.image, sorted(self._doubts.etags), sent=self._doubts.sent.to_list(), upload=self._unfinished.upload,
        )  # fmt: skip

    def newer(self) -> Record | None:
        """What the record has to become before this state is sent, or the next run would not know it for its own."""
        if self.record is None or self.conflict or self._recorded == self._draft.generation:
            return None
        return self._snapshot()

    async def renew(self, record: Record, generation: int) -> None:
        """Journal *record*, a `newer` one."""
        try:
            await self._put(record, generation)
        except OSError as exc:  # a full disk, say: delivering is what makes room
            log.warning("the journal has an older state of %s than is being delivered: %s", self._draft.key, exc)

    async def expect(self, etag: str) -> None:
        """The delivery under way is about to make an object with this ETag."""
        if self.record is not None:
            self.record.expected = etag
            await self._amend(self.record)

    async def appends(self) -> None:
        """The delivery under way is about to append where `Doubts.sent` says, which is not where the next run would look."""
        if self.record is not None:
            self.record.sent = self._doubts.sent.to_list()
            await self._amend(self.record)

    async def has_room_to_move(self) -> None:
        """OSError(ENOSPC) where `moved` would not find the room for it."""
        if self.record is not None and not self.conflict:
            await self._promises.has_room_to_move(self.record)

    async def moved(self, key: str, made_ns: int = 0) -> None:
        """The object that this is a change of lies at *key*, too: see `Promises.moved`."""
        if self.record is not None and not self.conflict:
            await self._promises.moved(self.record, key, made_ns)

    async def _amend(self, record: Record) -> None:
        try:
            await self._promises.put(record, self._draft.staged)
        except OSError as exc:  # a full disk, say: delivering is what makes room
            log.warning("the journal does not know what %s is about to be: %s", self._draft.key, exc)

    async def delivered(self) -> None:
        """The store has the file: the record goes, and with it what is noted of the upload that brought it there."""
        record, self.record = self.record, None
        upload, self._unfinished.upload = self._unfinished.upload, None
        try:
            await self._promises.forget(record, upload_id=upload.upload_id if upload is not None else "")
        except OSError as exc:
            log.warning("the journal still lists %s, which is delivered: %s", self._draft.key, exc)

    async def discard(self) -> None:
        """Nobody wants the file: the record goes, but not a conflict's bytes."""
        record, self.record = self.record, None
        if record is not None and record.state != CONFLICT:
            await self._promises.forget(record)

    def restore(self, record: Record) -> None:
        """An earlier run left *record*, and the file is as it says."""
        self.record = record
        self._promised = self._recorded = self._draft.generation

    # -- what the journal counts on -----------------------------------------------------------------------------------

    def _counts_on(self, start: int) -> bool:
        """Whether the journal counts on bytes from *start* on of the very file that is written to."""
        record = self.record
        return (
            record is not None
            and record.image is None
            and record.file == self._draft.staged.name
            and start < record.size
        )

    def has_room_to_spare(self, start: int) -> bool:
        """Whether the disk has room now for the copy that `spare` would make, if any."""
        return not self._counts_on(start) or self._draft.staged.fits(self._draft.staged.present.total)

    async def spare(self, start: int, *, nothing_left: bool = False) -> None:
        """Bytes from *start* on are about to change: those that the journal promised stay, in another file."""
        if not self._counts_on(start):
            return
        if nothing_left:
            await self._leave_promised(start)
        elif self._draft.staged.present.total <= COPY_MOST:
            # nothing that room may depend on waits meanwhile
            async with self._draft.staged.room_for_copy():
                await self._leave_promised(start, copy=True)

    async def _leave_promised(self, start: int, *, copy: bool = False) -> None:
        """Go on in another file, with a *copy* of the bytes or with none, if the journal still counts on bytes from *start* on."""
        draft = self._draft
        async with self._delivering:
            if not self._counts_on(start):
                return
            await self._early.abandon()
            async with draft.exchanging():
                old = draft.staged
                path = old.path.with_name(uuid.uuid4().hex)
                if copy:
                    draft.staged = await old.copy_to(path)
                else:
                    draft.staged = self._new_staged(path.name)
                    self._doubts.changed(0)
                    draft.cut(0)  # at once: nobody may take the old size for that of the new file
                self._promises.leave(old)

    async def cut(self, size: int) -> None:
        """A promised file too large to be copied is about to be cut: the record must not speak of bytes that are gone."""
        async with self._delivering:
            record = self.record
            if record is not None and self._counts_on(size):
                dirty = Ranges.from_list(record.dirty)
                dirty.truncate(size)
                less = dataclasses.replace(record, size=size, kept=min(record.kept, size), dirty=dirty.to_list(), upload=None)
                await self._promises.put(less, self._draft.staged)
                self.record = less
