"""The upload that a delivery began and did not end, to be continued with the parts that are up.

Owns: which upload that is, and which bytes it was begun with. The journal has it until it ended: should the process die, the next run
continues it, if it belongs to a record, and aborts it otherwise. Must not know: plans, promises, what goes up before a delivery.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zosfs.content.journal_rows import Record
from zosfs.content.multipart import OnPart, UploadRecord, abort

if TYPE_CHECKING:
    from zosfs.content.content import Content


class UnfinishedUpload:
    """The unfinished upload of one file, if it has one."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._generation = -1
        self.upload: UploadRecord | None = None
        """What the last delivery began; good only for the bytes it was begun with."""

    def restore(self, upload: UploadRecord | None, generation: int) -> None:
        """An earlier run began *upload* with the bytes of *generation*."""
        self.upload, self._generation = upload, generation

    def notes(self, key: str, generation: int, record: Record | None) -> OnPart:
        """What a delivery of *generation* tells of its upload; with a *record* every part is journalled, so that none is sent twice."""

        async def on_part(upload: UploadRecord) -> None:
            begun = self.upload is not upload
            self.upload, self._generation = upload, generation
            if begun or record is not None:
                await self._content.note_upload(key, upload, record)

        return on_part

    async def only_of(self, key: str, generation: int) -> None:
        """An unfinished upload of other bytes than those of *generation* is aborted."""
        if self._generation != generation:
            await self.drop(key)

    async def drop(self, key: str) -> None:
        """Abort the unfinished upload, if there is one."""
        upload, self.upload = self.upload, None
        if upload is not None:
            await abort(self._content.store, key, upload.upload_id)
            await self._content.upload_ended(upload.upload_id)

    async def aborted(self) -> None:
        """Whoever delivered has aborted the upload."""
        upload, self.upload = self.upload, None
        if upload is not None:
            await self._content.upload_ended(upload.upload_id)
