"""One file's undelivered state: what was written, and how it gets into the store.

Owns: the staged file and its dirty ranges, and the base that they are changes of. Concurrency: deliveries of one writer never overlap
(one lock); writes go on meanwhile and wait only for ranges that are being sent. Must not know: names, handles, the kernel.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from zosfs.content.delivery import check_unchanged, correct_headers, deliver, delivered_info, put_tags
from zosfs.content.journal import Record
from zosfs.content.plan import Base, only_grown, plan
from zosfs.content.ranges import Ranges
from zosfs.content.reader import Reader
from zosfs.content.staging import StagedFile
from zosfs.content.streaming import StreamingUpload
from zosfs.errors import StoreError
from zosfs.store.api import Body, Buffer, FileSlice, ObjectHeaders, ObjectInfo

if TYPE_CHECKING:
    from zosfs.content.content import Content

log = logging.getLogger(__name__)

FETCH = 8 << 20


class Writer:
    """What an inode has that the store has not."""

    headers: Callable[[], ObjectHeaders]
    on_delivered: Callable[[ObjectInfo], None]

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
        staged.size = self.size
        self._kept = self.size  # the base's bytes below this are still the file's, where nothing newer lies
        self._changed = base is None or truncate
        self._generation = 0
        self._promised = -1
        self._doubtful = False  # an earlier delivery may have been applied without an answer
        self._delivering = trio.Lock()
        self._reader: Reader | None = None
        self._stream: StreamingUpload | None = None
        self._frontier = 0
        self.record = ""  # the journal's id of this writer's entry
        self.delivered: ObjectInfo | None = None  # the version that the staged bytes are equal to, if any

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
    def complete(self) -> bool:
        """Whether every byte is here, so that the object in the store is not needed for reading."""
        return self.staged.present.covers(0, self._kept)

    # -- bytes ------------------------------------------------------------------------------------------------------

    async def write(self, offset: int, data: Buffer, *, append: bool = False) -> int:
        """Take *data* at *offset*, or at the end for an appending handle; returns its length. ENOSPC when the cache is full."""
        if append:
            offset = self.size
        end = offset + len(data)
        self.delivered = None
        await self.staged.write(offset, data)
        self.delivered = None  # again: a delivery may have ended meanwhile
        self.size = max(self.size, end)
        self._changed = True
        self._generation += 1
        if self._stream is not None:
            self._stream.rewritten(offset, end)
        if offset <= self._frontier:
            self._frontier = max(self._frontier, end)
            await self._stream_on()
        return len(data)

    async def _stream_on(self) -> None:
        """A new file that is written from its beginning goes up while it grows."""
        limits = self._content.limits
        if self._kept or self.appending or self._frontier < limits.multipart_threshold + limits.part_size:
            return
        if self._stream is None:
            stream = StreamingUpload(
                self._store, self.key, self.staged, limits, self._content.nursery, self._content.options.upload_concurrency
            )
            self._stream = stream
            try:
                await stream.begin(self.headers())
            except StoreError as exc:
                stream.failure = exc
        if self._stream.upload_id:
            self._stream.advance(self._frontier)

    async def read(self, offset: int, size: int) -> Buffer:
        """Bytes ``[offset, offset + size)``: what was written over what the base has; short only at the end."""
        end = min(offset + size, self.size)
        if end <= offset:
            return b""
        missing = self.staged.present.missing(offset, min(end, self._kept)) if offset < self._kept else []
        data = self.staged.read(offset, end - offset)
        if len(data) == end - offset and not missing:
            return data
        whole = bytearray(data)
        whole.extend(bytes(end - offset - len(data)))
        for start, stop in missing:
            whole[start - offset : stop - offset] = await self._base_bytes(start, stop)
        return whole

    async def _base_bytes(self, start: int, end: int) -> Buffer:
        if self._reader is None:
            assert self.base is not None
            self._reader = self._content.reader(self.base)
        return await self._reader.read(start, end - start)

    async def truncate(self, size: int) -> None:
        """Set the file's size."""
        self.delivered = None
        if self._stream is not None and size < self.size:
            await self._abandon_stream()
        await self.staged.truncate(size)
        self._kept = min(self._kept, size)
        self._frontier = min(self._frontier, size)
        self.size = size
        self._changed = True
        self._generation += 1

    async def fetch(self, start: int, end: int) -> None:
        """Make the base's bytes ``[start, end)`` present in the staged file."""
        for low, high in self.staged.present.missing(start, min(end, self._kept)):
            for piece in range(low, high, FETCH):
                await self.staged.keep(piece, await self._base_bytes(piece, min(piece + FETCH, high)))

    async def fetch_all(self) -> None:
        """Make every byte present: the object may go."""
        await self.fetch(0, self._kept)

    # -- delivery ---------------------------------------------------------------------------------------------------

    def lend(self, start: int, end: int) -> Body:
        """Staged bytes for an upload (Source)."""
        slice_: FileSlice = self.staged.lend(start, end)
        return (slice_,)

    def give_back(self, start: int, end: int) -> None:
        """The upload of ``[start, end)`` ended (Source)."""
        self.staged.give_back(start, end)

    async def deliver(self) -> ObjectInfo | None:
        """Bring what is dirty into the store; None when nothing was. Raises StoreError/OSError and keeps the bytes."""
        async with self._delivering:
            if not self._changed:
                return None
            async with self._content.only_one(self.key):
                return await self._deliver()

    async def _deliver(self) -> ObjectInfo | None:
        dirty, size, generation, kept = self.staged.dirty, self.size, self._generation, self._kept
        self.staged.dirty = Ranges()
        self._changed = False
        headers = self.headers()
        try:
            await self.staged.extend(size)
            if self._stream is not None and self._stream.failure is None and self._stream.upload_id:
                info: ObjectInfo | None = await self._finish_stream(size, headers)
            else:
                await self._abandon_stream()
                base = Base.of(self.base) if self.base is not None else None
                limits = self._content.limits
                steps = plan(base, dirty, size, limits, self._content.abilities, appending=self.appending,
                             present=self.staged.present, kept=kept)  # fmt: skip
                info = await deliver(
                    self._store, self.key, steps, size, self, headers, base, self._content.options.upload_concurrency,
                    limits=limits, tail=only_grown(base, dirty, size, kept) if self.appending else None, doubtful=self._doubtful,
                )  # fmt: skip
            self._doubtful = False
        except BaseException as exc:
            # a request that got no good answer may still have been applied
            self._doubtful = self._doubtful or not isinstance(exc, StoreError) or exc.ambiguous
            self._changed = True
            dirty.truncate(self.size)
            self.staged.dirty = dirty.union(self.staged.dirty)
            raise
        if info is not None:
            await self._rebase(info, size)
            self.delivered = info if generation == self._generation and info.size == size else None
        if generation == self._generation and self.record:
            await self._content.forget_record(self)
        if info is not None:
            self.on_delivered(info)
        return info

    async def _rebase(self, info: ObjectInfo, size: int) -> None:
        self.base = info
        if info.size == size:
            self._kept = min(size, self.size)
        else:
            await self._move_behind_others(info.size, size)
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    async def _move_behind_others(self, now: int, size: int) -> None:
        """Others' bytes came before ours: the staged ones lie wrong; what was appended meanwhile goes behind the object of now."""
        newer = [(max(start, size), end) for start, end in self.staged.dirty if end > size]
        saved = [(start + now - size, self.staged.read(start, end - start)) for start, end in newer]
        grown = max(0, self.size - size)
        self._kept = now
        self.size = now + grown
        await self.staged.truncate(0)
        for start, data in saved:
            await self.staged.write(start, data)

    async def _finish_stream(self, size: int, headers: ObjectHeaders) -> ObjectInfo:
        stream = self._stream
        assert stream is not None
        try:
            _, parts = await stream.finish(size)
            await check_unchanged(self._store, self.key, Base.of(self.base) if self.base is not None else None)
            written = await stream.complete(parts)
        except BaseException:
            await self._abandon_stream()
            raise
        self._stream = None
        began = stream.headers
        assert began is not None
        info = delivered_info(self.key, size, written, began)
        if began != headers:
            info = await correct_headers(self._store, info, headers)
        else:
            await put_tags(self._store, self.key, headers)
        return info

    async def _abandon_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.abandon()

    async def promise(self) -> None:
        """The journal has what is dirty, safe from a crash and a power cut, when this returns."""
        if not self._changed or self.promised:
            return
        generation = self._generation
        await self._content.record(self)
        self._promised = generation

    def snapshot(self, record_id: str) -> Record:
        """The journal's record of this writer as it is now."""
        return Record(
            record_id, self.key, self.size, self._kept, self.staged.dirty.to_list(), self.base, self.headers(), self.appending
        )

    def restore(self, record: Record) -> None:
        """Become the writer that *record* was made of; its bytes are in the staged file already."""
        self.size, self._kept = record.size, record.kept
        self.staged.dirty = Ranges.from_list(record.dirty)
        self.staged.present = self.staged.dirty.copy()
        self.staged.size = record.size
        self._changed = True
        self._doubtful = True
        self.record = record.id
        headers = record.headers
        self.headers = lambda: headers
        self.on_delivered = lambda info: None

    # -- names and the end ------------------------------------------------------------------------------------------

    async def renamed(self, key: str) -> None:
        """The file is called *key* from now on; an upload to the old key is abandoned, its bytes are staged."""
        self.key = key
        self.delivered = None
        if self.base is not None:
            self.base = dataclasses.replace(self.base, key=key)
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        await self._abandon_stream()

    def replaces(self, info: ObjectInfo) -> None:
        """A new file took the name of the object *info*: it replaces that one and no other."""
        self.base = info
        self._kept = 0
        self.delivered = None

    async def discard(self) -> None:
        """Nothing of this will be sent any more."""
        self._changed = False
        self.delivered = None
        self.staged.dirty.clear()
        await self._abandon_stream()
        if self.record:
            await self._content.forget_record(self)

    async def aclose(self) -> None:
        """Give the staged file back; what is dirty stays on disk when the journal has it."""
        await self._abandon_stream()
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        await self._content.retire(self)
