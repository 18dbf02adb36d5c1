"""What one writer sends before its delivery: the parts of a new file while it is written, or the fullest parts of a changed one.

Owns: at most one upload of either kind, which the journal has until it ended, so that the next run aborts it should the process die.
Must not know: plans, promises, the uploads of deliveries (unfinished_upload.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from zosfs.content.append import look
from zosfs.content.conflicts import check_unchanged
from zosfs.content.delivered import delivered_info
from zosfs.content.delivery import Expect
from zosfs.content.draft import FOREVER, Changes, Draft
from zosfs.content.editing import EditUpload, fullest, grid_of
from zosfs.content.finishing import alike, correct_headers, put_tags, with_times_of
from zosfs.content.multipart import UploadRecord, abort, completed_upload
from zosfs.content.plan import Base
from zosfs.content.ranges import Ranges
from zosfs.content.streaming import StreamingUpload
from zosfs.errors import StoreError
from zosfs.store.api import ObjectHeaders, ObjectInfo, PartInfo, Written
from zosfs.store.digests import multipart_etag

if TYPE_CHECKING:
    from zosfs.content.content import Content

_NOTHING = Ranges()


class EarlyUploads:
    """What one file has in parts before its delivery."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._stream: StreamingUpload | None = None
        self._edit: EditUpload | None = None
        self._most = FOREVER  # no part that ends beyond is begun
        self._tried: set[str] = set()  # ETags of what may have been made of what went up early
        self.made: ObjectInfo | None = None
        """What the last `finish_stream` or `finish_edit` made, if it came so far, without tags, locks and headers of now."""

    # -- a new file that goes up while it is written ----------------------------------------------------------------

    @property
    def streaming(self) -> bool:
        """Whether parts go up while the file is written."""
        return self._stream is not None

    @property
    def under_way(self) -> bool:
        """Whether some of the file goes up before its time."""
        return self._stream is not None or self._edit is not None

    @property
    def stream_is_good(self) -> bool:
        """Whether `finish_stream` may make the object."""
        stream = self._stream
        return stream is not None and bool(stream.upload_id) and (stream.failure is None or bool(stream.gone))

    @property
    def stream_end(self) -> int:
        """The bytes below are in parts that are up or on their way."""
        return self._stream.end if self._stream is not None else 0

    @property
    def gone(self) -> Ranges:
        """Bytes that are in parts of an upload only, not on the disk any more."""
        early = self._stream or self._edit
        return early.gone if early is not None else _NOTHING

    @property
    def arriving(self) -> bool:
        """Whether parts of the stream are on their way."""
        return self._stream is not None and self._stream.busy

    def shed(self, n: int, but: Ranges) -> int:
        """Drop from the disk what is up, about *n* bytes, nothing of *but*; returns how many bytes that were."""
        return self._stream.shed(n, but) if self._stream is not None and self.stream_is_good else 0

    def rewritten(self, start: int, end: int) -> None:
        """Bytes ``[start, end)`` changed."""
        if self._stream is not None:
            self._stream.rewritten(start, end)

    async def begin_stream(self, draft: Draft) -> None:
        """Begin to send a file that is being written; a failure shows in `stream_is_good`."""
        content, key = self._content, draft.key
        stream = self._stream = StreamingUpload(
            content.store, key, draft.staged, content.limits, content.nursery, content.options.upload_concurrency
        )
        try:
            await stream.begin(draft.headers())
            await content.note_upload(key, UploadRecord(stream.upload_id, "stream"))
        except StoreError as exc:
            stream.failure = exc
        if stream is not self._stream:
            await stream.abandon()  # a delivery came in between and went without it
            if stream.upload_id:
                await content.upload_ended(stream.upload_id)

    def advance(self, frontier: int) -> None:
        """Everything below *frontier* has been written."""
        if self._stream is not None and self.stream_is_good:
            self._stream.advance(min(frontier, self._most))

    @contextlib.contextmanager
    def none_beyond(self, size: int) -> Iterator[None]:
        """The file is being cut to *size* bytes: within, no part is begun that ends beyond. Not to be nested."""
        self._most = size
        if self._stream is not None:
            self._stream.none_beyond(size)
        try:
            yield
        finally:
            self._most = FOREVER

    async def finish_stream(
        self, key: str, size: int, base: Base | None, headers: ObjectHeaders, expect: Expect, *, exact_times: bool
    ) -> ObjectInfo:
        """Make the object of *size* bytes of what went up and what is missing, with *headers*.

        Without *exact_times* the object keeps the times that its upload was begun with, rather than being copied for them: the
        facts returned tell. *expect* is told the ETag before the object is made. Raises StoreError, ``Conflict`` when others changed
        the object; the upload is aborted then, unless bytes are nowhere else. *made* tells whether the object was made nevertheless.
        """
        stream = self._stream
        assert stream is not None
        self.made = None
        try:
            _, parts = await stream.finish(size)
            etag = multipart_etag(parts)
            self._tried.add(etag)
            await expect(etag)
            written = await self._complete(stream, key, base, parts, etag)
        except StoreError:
            if not stream.gone:
                await self.abandon_stream()
            raise
        return await self._made(stream, key, size, written, headers, exact_times=exact_times)

    async def _made(
        self, upload: StreamingUpload | EditUpload, key: str, size: int, written: Written, headers: ObjectHeaders, *, exact_times: bool
    ) -> ObjectInfo:
        """See to the headers of what *upload*, which was begun with those of then, has made."""
        store = self._content.store
        began = upload.headers
        assert began is not None
        self.made = info = delivered_info(key, size, written, began)
        await self.forget()
        if not exact_times:
            headers = with_times_of(headers, began)
        if not alike(began, headers):
            return await correct_headers(store, info, headers)
        await put_tags(store, key, headers)
        return info

    @staticmethod
    async def _complete(upload: StreamingUpload | EditUpload, key: str, base: Base | None, parts: list[PartInfo], etag: str) -> Written:
        async def complete() -> Written:
            await check_unchanged(upload.store, key, base)
            return await upload.complete(parts)

        return await completed_upload(upload.store, key, etag, complete)

    # -- an edited file, parts of which go up before its time --------------------------------------------------------

    @property
    def editing(self) -> bool:
        """Whether parts of an edited file are up."""
        return self._edit is not None

    @property
    def most(self) -> int:
        """The largest size that the file may have with the upload that is under way."""
        return self._edit.most if self._edit is not None else FOREVER

    def cut(self, size: int) -> bool:
        """The file is about to be cut to *size* bytes. False when the upload has to be completed before; see `EditUpload.cut`."""
        return self._edit is None or self._edit.cut(size)

    async def edit_more(self, draft: Draft) -> bool:
        """Bring up the part of *draft* with the most new bytes; False where there is none that would free disk space.

        Raises StoreError; what is up stays so.
        """
        content = self._content
        key, staged, base, size, kept = draft.key, draft.staged, draft.plan_base, draft.size, draft.kept
        edit, stream = self._edit, self._stream
        early = edit or stream
        reach = max([size, *(end for _, end in draft.landing() if end < FOREVER)])
        length = early.length if early is not None else grid_of(reach, content.limits)
        if reach > length * (content.limits.max_parts - 1):
            return False
        number = fullest(staged.dirty, staged.present, length, size, draft.landing()) if length else 0
        if not number:
            return False
        if stream is not None:
            # it is not written from its beginning any more
            self._edit = edit = EditUpload(content.store, key, staged, base, content.limits, content.memory, length)
            edit.take_over(stream.upload_id, stream.headers, stream.parts_gone(), stream.end)
            self._stream = None
        elif edit is None:
            edit = EditUpload(content.store, key, staged, base, content.limits, content.memory, length)
            await edit.begin(draft.headers())
            self._edit = edit
            await content.note_upload(key, UploadRecord(edit.upload_id, "edit"))
        return await edit.send(number, kept, draft.landing)

    async def finish_edit(
        self, key: str, changes: Changes, base: Base | None, headers: ObjectHeaders, expect: Expect, *, exact_times: bool
    ) -> ObjectInfo:
        """Make the object of what went up and what is missing of *changes*; see `finish_stream`."""
        edit = self._edit
        assert edit is not None
        self.made = None
        parts = await edit.finish(changes, self._content.options.upload_concurrency)
        etag = multipart_etag(parts)
        self._tried.add(etag)
        await expect(etag)
        written = await self._complete(edit, key, base, parts, etag)
        return await self._made(edit, key, changes.size, written, headers, exact_times=exact_times)

    async def completed(self, key: str) -> ObjectInfo | None:
        """The object at *key*, if a try that got no answer made it of what went up early. What is *gone* is in it then."""
        found = await look(self._content.store, key)
        return found if found is not None and found.etag in self._tried else None

    async def forget(self) -> None:
        """What went up before its time is an object."""
        early = self._edit or self._stream
        self._edit = self._stream = None
        self._tried = set()
        if early is not None:
            await self._content.upload_ended(early.upload_id)

    async def abandon(self) -> None:
        """End what goes up before its time, if something does; all its bytes are staged, or nobody wants them."""
        await self.abandon_stream()
        edit, self._edit = self._edit, None
        if edit is not None:
            await abort(self._content.store, edit.key, edit.upload_id)
            await self._content.upload_ended(edit.upload_id)

    async def abandon_stream(self) -> None:
        """End the upload that streams, if there is one; all its bytes are staged."""
        stream, self._stream = self._stream, None
        self._tried = set()
        if stream is not None:
            await stream.abandon()
            if stream.upload_id:
                await self._content.upload_ended(stream.upload_id)
