"""The journal as tasks see it: what is promised, by id, and changes that are on the disk when the call returns.

Owns: the journal and the staged files of records whose writer is gone. Must not know: the store, names.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import trio

from zosfs.content.commits import Commits
from zosfs.content.disk_budget import DiskBudget
from zosfs.content.journal import Journal
from zosfs.content.journal_rows import (
    CONFLICT,
    Deletion,
    Move,
    Record,
    Statement,
    Upload,
    put_deletion,
    put_move,
    put_record,
    put_upload,
    remove_deletion,
    remove_move,
    remove_record,
    remove_upload,
)
from zosfs.content.multipart import UploadRecord
from zosfs.content.staging import StagedFile
from zosfs.store.api import ObjectInfo

KEY_BYTES = 16384
"""More than another key, and what is beside a record in the log, can add to it."""


class Promises:
    """The undelivered files of one bucket."""

    def __init__(self, directory: Path, staged: Path, budget: DiskBudget) -> None:
        self._journal = Journal(directory)
        self._staged = staged
        self._budget = budget
        self._commits = Commits(self._journal.apply, self._journal.begin, self._journal.finish)
        self._left: dict[str, int] = {}  # staged files that only records need -> their bytes in the budget
        self._users: dict[str, set[str]] = {}  # staged file -> ids of the records that need it
        self._by_key: dict[str, set[str]] = {}
        self.records: dict[str, Record] = {}
        self.owed: dict[str, Deletion] = {}  # by key: objects that are to be deleted

    async def open(self) -> tuple[list[Upload], list[Deletion]]:
        """Open the journal and load the records; returns the uploads without a record and the deletions of an earlier run.

        OSError(EBUSY) when another mount uses it. Staged files that were never promised are removed: whoever wrote
        them got no answer.
        """
        await self._commits.alone(self._journal.open)
        for record in await self._commits.alone(self._journal.records):
            self._add(record)
        for stray in self._staged.iterdir():
            if stray.name not in self._users:
                stray.unlink()
            else:
                self._left[stray.name] = stray.stat().st_blocks * 512
                self._budget.take(self._left[stray.name])
        uploads = [upload for upload in await self._commits.alone(self._journal.uploads) if upload.record not in self.records]
        deletions = await self._commits.alone(self._journal.deletions)
        self.owed = {deletion.key: deletion for deletion in deletions}
        return uploads, deletions

    def _add(self, record: Record) -> None:
        self._remove(self.records.get(record.id))
        self.records[record.id] = record
        self._by_key.setdefault(record.key, set()).add(record.id)
        if record.image is None:
            self._users.setdefault(record.file, set()).add(record.id)

    def _remove(self, record: Record | None) -> None:
        if record is None or self.records.pop(record.id, None) is None:
            return
        for index, name in ((self._by_key, record.key), (self._users, record.file)):
            ids = index.get(name)
            if ids is not None:
                ids.discard(record.id)
                if not ids:
                    del index[name]

    # -- records ----------------------------------------------------------------------------------------------------

    async def put(self, record: Record, staged: StagedFile | None = None, *, instead: Record | None = None) -> None:
        """Journal *record*, in the place of *instead*: its bytes, then the record, each on the disk before the next."""
        if staged is not None and record.image is None:
            await staged.sync()
        if instead is not None and instead.id == record.id:
            instead = None
        await self._commits.commit(put_record(record), *([remove_record(instead.id)] if instead is not None else []))
        self._add(record)
        if instead is not None:
            self._remove(instead)
            self._unlink(instead)

    async def forget(self, *records: Record | None, upload_id: str = "", deleting: Deletion | None = None, deleted: str = "") -> None:
        """The store has what these speak of, or nobody wants it.

        In the same instant the upload *upload_id*, which brought it there, ends, and the object is owed a deletion; or one that was owed
        at the key *deleted* is made.
        """
        known = [record for record in records if record is not None and record.id in self.records]
        made = self.owed.get(deleted)
        if not known and not upload_id and deleting is None and made is None:
            return
        for record in known:
            self._remove(record)
        statements = [remove_record(record.id) for record in known]
        if upload_id:
            statements.append(remove_upload(upload_id))
        if deleting is not None:
            self.owed[deleting.key] = deleting
            statements.append(put_deletion(deleting))
        if made is not None:
            statements.append(remove_deletion(deleted))
        try:
            await self._commits.commit(*statements)
        except BaseException:
            for record in known:
                self._add(record)
            raise
        self._no_longer_owed(made)
        for record in known:
            self._unlink(record)

    def of(self, key: str) -> list[Record]:
        """What is to be delivered to *key*; conflicts are no longer of any name."""
        found = [self.records[record_id] for record_id in self._by_key.get(key, ())]
        return [record for record in found if record.state != CONFLICT]

    async def rename(self, old_key: str, new_key: str, over: ObjectInfo | None = None) -> None:
        """What was to go to *old_key* goes to *new_key*, in the place of what was to go there and of the object *over*."""
        moved, replaced = self.of(old_key), self.of(new_key)
        if not moved:
            return
        for record in replaced:
            self._remove(record)
        for record in moved:
            self._remove(record)
            record.key = new_key
            if over is not None:
                record.base = over
            self._add(record)
        await self._commits.commit(*(remove_record(record.id) for record in replaced), *(put_record(record) for record in moved))
        for record in replaced:
            self._unlink(record)

    async def has_room_to_move(self, record: Record) -> None:
        """OSError(ENOSPC) where `moved`, and back again, would find no room on the disk."""
        await self._commits.alone(self._journal.reserve, 3 * (len(put_record(record)) + KEY_BYTES))

    async def moved(self, record: Record, key: str, made_ns: int) -> None:
        """The object that *record* is a change of lies at *key*, too, made there at *made_ns* (ns since the epoch, 0: as before): what is
        promised goes there from now on. OSError when the journal cannot have it, and it goes where it was to go."""
        before = dataclasses.replace(record)
        statements = self._carried(record, key, made_ns)
        try:
            await self._commits.commit(*statements)
        except BaseException:
            self._remove(record)
            record.key, record.base, record.upload = before.key, before.base, before.upload
            self._add(record)
            raise

    async def replaced_by(self, key: str, etag: str) -> None:
        """An object with this ETag is about to take the place of what was to go to *key*: should this run end early, the next one knows."""
        records = self.of(key)
        for record in records:
            record.replaced_by = etag
        if records:
            await self._commits.commit(*(put_record(record) for record in records))

    async def not_replaced(self, key: str, etags: Collection[str]) -> None:
        """What was to go to *key* is to go there still, in the place of what has one of these ETags.

        Where it leans on what was there before, it is a conflict with what is there.
        """
        records = [record for record in self.of(key) if record.replaced_by]
        for record in records:
            record.replaced_by = ""
            if not record.kept:
                record.suspects = sorted({*record.suspects, *etags})
        if records:
            await self._commits.commit(*(put_record(record) for record in records))

    # -- staged files -----------------------------------------------------------------------------------------------

    def leave(self, staged: StagedFile) -> None:
        """A writer is done with a staged file: it stays as long as a record needs it."""
        name = staged.name
        needed = name in self._users
        if needed:
            self._left[name] = staged.counted
        staged.close(remove=not needed)

    def taken(self, name: str) -> None:
        """A writer took a staged file over that was left: it counts its bytes itself."""
        self._budget.release(self._left.pop(name, 0))

    def _unlink(self, record: Record) -> None:
        if record.file in self._left and record.file not in self._users:
            self._budget.release(self._left.pop(record.file))
            (self._staged / record.file).unlink(missing_ok=True)

    # -- uploads and deletions --------------------------------------------------------------------------------------

    async def note_upload(self, key: str, upload: UploadRecord, record: Record | None = None) -> None:
        """An upload is under way: the next run continues it for *record*, or aborts it."""
        await self._commits.commit(put_upload(Upload(key, record.id if record is not None else "", upload)))

    async def upload_ended(self, upload_id: str) -> None:
        """The upload was completed or aborted."""
        await self._commits.commit(remove_upload(upload_id))

    async def open_uploads(self) -> list[Upload]:
        """The uploads that are noted as under way."""
        return await self._commits.alone(self._journal.uploads)

    async def settled(self) -> None:
        """Wait until the changes made so far are on the disk."""
        await self._commits.commit()

    async def owe(self, deletions: Sequence[Deletion]) -> None:
        """These objects are to be deleted: by now, or by the next run."""
        self.owed.update((deletion.key, deletion) for deletion in deletions)
        await self._commits.commit(*(put_deletion(deletion) for deletion in deletions))

    async def deletion_done(self, key: str) -> None:
        """The object that was to go from *key* is gone, or another one is about to be there."""
        deletion = self.owed.get(key)
        if deletion is not None:
            await self._commits.commit(remove_deletion(key))
            self._no_longer_owed(deletion)

    def _no_longer_owed(self, deletion: Deletion | None) -> None:
        if deletion is not None and self.owed.get(deletion.key) is deletion:  # no other one was promised meanwhile
            del self.owed[deletion.key]

    # -- moves ------------------------------------------------------------------------------------------------------

    async def note_move(self, move: Move) -> None:
        """A directory's objects begin to move, or turn back: the next run brings them to where they go now."""
        await self._commits.commit(put_move(move))

    async def move_done(self, move: Move, made: Mapping[str, int]) -> None:
        """They are there, and in that instant what was to go below the old prefix goes below the new one; not where they turned back.

        *made*: when the objects at the new keys were made, in ns since the epoch, as far as is known.
        """
        await self._commits.commit(remove_move(move.old), *([] if move.back else self._redirected(move, made)))

    async def redirect(self, move: Move) -> None:
        """As `move_done`, of a directory that has nothing in the store."""
        if statements := self._redirected(move, {}):
            await self._commits.commit(*statements)

    def _redirected(self, move: Move, made: Mapping[str, int]) -> list[Statement]:
        moved = [record for key in self._by_key if key.startswith(move.old) for record in self.of(key)]
        return [
            statement for record in moved
            for key in [move.new + record.key[len(move.old) :]] for statement in self._carried(record, key, made.get(key, 0))
        ]  # fmt: skip

    def _carried(self, record: Record, key: str, made_ns: int) -> list[Statement]:
        """*record*, and the object that it is a change of, are at *key* from now on."""
        self._remove(record)
        statements = []
        if record.upload is not None:  # it makes an object at the old key: nobody goes on with it
            statements.append(put_upload(Upload(record.key, "", record.upload)))
            record.upload = None
        record.key = key
        if record.base is not None:
            record.base = dataclasses.replace(record.base, key=key, modified_ns=made_ns or record.base.modified_ns)
        self._add(record)
        return [*statements, put_record(record)]

    async def open_moves(self) -> list[Move]:
        """The moves that an earlier run began and did not end."""
        return await self._commits.alone(self._journal.moves)

    async def aclose(self) -> None:
        """Close the journal; what is undelivered stays in it."""
        with trio.CancelScope(shield=True):
            await self._commits.alone(self._journal.close)
        self._commits.close()
