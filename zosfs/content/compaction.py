"""Making an object that very many appends made whole again, so that reading it costs what reading any other does.

Owns: the decision, and the exchange of the object for one of the same bytes. May use: store/ and the other modules here. Must not know:
names, handles, when to look.

The server copies the bytes into an upload in its own time, which nobody sees. Then comes the exchange: the object is looked at, and
replaced if it is still the one that was copied. A small object is replaced by one PUT, which is conditional where the server honours
that. Completing an upload is not on Ceph 16: what another host appends between the look and the completion is lost. That is
why nothing of this happens unless it is asked for.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING

from zosfs.content.append import look
from zosfs.content.conflicts import check_unchanged
from zosfs.content.delivered import delivered_info
from zosfs.content.multipart import UploadRecord, abort
from zosfs.content.parallel import in_parallel
from zosfs.content.plan import Base, Limits
from zosfs.store.api import ObjectHeaders, ObjectInfo, PartInfo, appends_of

if TYPE_CHECKING:
    from zosfs.content.content import Content


def worth(info: ObjectInfo | None, now_ns: int, least: int, quiet: float) -> float | None:
    """In how many seconds the object *info* of a HEAD is to be made whole: 0 for now, None for never (pure).

    That is where at least *least* appends made it (0: never), and nobody has changed it for *quiet* seconds. A time of change that is
    yet to come, of a server whose clock is ahead, is one of just now.
    """
    if least <= 0 or info is None or not info.appendable or not info.size or appends_of(info.etag) < least:
        return None
    age = max(0, now_ns - info.modified_ns) / 1e9
    return max(0.0, quiet - age)


def part_ranges(size: int, limits: Limits) -> list[tuple[int, int]]:
    """The half-open ranges in which the server copies *size* bytes: none but the last smaller than a part may be (pure)."""
    length = max(limits.min_part, limits.copy_part, -(-size // limits.max_parts))
    return [(start, min(start + length, size)) for start in range(0, size, length)]


class Compaction:
    """One object on its way to being whole: `gather`, then `exchange`, and `drop` in any case."""

    def __init__(self, content: Content, info: ObjectInfo, headers: ObjectHeaders) -> None:
        """*info* is what a HEAD told of it; *headers* are all that it is to have, its tags and grants included."""
        self._content = content
        self._store = content.store
        self._info = info
        self._headers = headers
        self._upload: UploadRecord | None = None
        self._bytes = bytearray()

    async def gather(self) -> None:
        """Have the bytes ready: copied into an upload by the server, or here those of a small object. Nobody sees anything of it.

        Raises StoreError, ESTALE when the object is another one by now.
        """
        info, limits = self._info, self._content.limits
        if info.size < limits.min_part:
            await self._content.memory.reserve(info.size)
            self._bytes = bytearray(info.size)
            await self._store.get_range(info.key, 0, memoryview(self._bytes), if_match=info.etag)
            return
        bare = dataclasses.replace(self._headers, tags=None)
        upload = self._upload = UploadRecord(await self._store.create_upload(info.key, bare), "")
        await self._content.promises.note_upload(info.key, upload)
        jobs = [partial(self._copy, upload, number, start, end) for number, (start, end) in enumerate(part_ranges(info.size, limits), 1)]
        await in_parallel(jobs, self._content.options.upload_concurrency)

    async def _copy(self, upload: UploadRecord, number: int, start: int, end: int) -> PartInfo:
        info = self._info
        part = await self._store.upload_part_copy(info.key, upload.upload_id, number, info.key, start, end, if_match=info.etag)
        upload.parts[number] = part
        return part

    async def exchange(self) -> ObjectInfo:
        """Replace the object, and return the facts of the new one. The caller holds the key's lock.

        Raises StoreError: ``Conflict``/``PreconditionFailed`` (ESTALE), and nothing was changed, when the object is another one by now.
        """
        info, store, upload = self._info, self._store, self._upload
        await check_unchanged(store, info.key, Base.of(info))
        if upload is None:
            condition = info.etag if store.abilities.put_if_match else ""
            written = await store.put(info.key, [self._bytes], self._headers, if_match=condition)
        else:
            written = await store.complete_upload(info.key, upload.upload_id, [upload.parts[n] for n in sorted(upload.parts)])
            self._upload = None
            await self._content.upload_ended(upload.upload_id)
        self._content.counters.add("compactions")
        if not written.etag:
            return await look(store, info.key) or info
        return delivered_info(info.key, info.size, written, self._headers)

    async def drop(self) -> None:
        """Leave nothing behind of what was gathered."""
        if self._bytes:
            self._content.memory.release(len(self._bytes))
            self._bytes = bytearray()
        upload, self._upload = self._upload, None
        if upload is not None:
            await abort(self._store, self._info.key, upload.upload_id)
            await self._content.upload_ended(upload.upload_id)
