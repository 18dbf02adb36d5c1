"""Uploading parts of an edited file before its time, because the disk cannot hold all that was changed.

Owns: one multipart upload on a grid of equal parts. A part that is up leaves the disk (*gone*); what the program never touched is
copied from the base object by the server in the end. Nothing is visible before that. The old bytes of a part that goes up pass
through memory, never through the disk that is short. Must not know: names, promises, when to begin.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

from zosfs.content.draft import Changes
from zosfs.content.memory import MemoryBudget
from zosfs.content.old_bytes import laid_over, part_of_base
from zosfs.content.parallel import in_parallel
from zosfs.content.plan import Base, Limits
from zosfs.content.ranges import Ranges
from zosfs.content.staging import StagedFile
from zosfs.store.api import ObjectHeaders, PartInfo, Store, Written

LARGEST = 64 << 20
"""Bytes of the largest part that may pass through memory: files for which parts would have to be larger do not go up early."""
GROWTH = 2
"""How many times as large a file may become before the grid has too few parts."""


def grid_of(size: int, limits: Limits) -> int:
    """The part size for a file of *size* bytes, 0 when its parts would be too large for this (pure)."""
    length = max(limits.part_size, limits.min_part, -(-size * GROWTH // (limits.max_parts - 1)))
    return length if length <= max(LARGEST, limits.part_size) else 0


def fullest(dirty: Ranges, present: Ranges, length: int, size: int, but: Ranges) -> int:
    """The number of the part with the most dirty bytes on the disk; 0 when there is none.

    Parts that end beyond *size*, which may still grow, and those that touch *but* do not count (pure).
    """
    there: dict[int, int] = {}
    for start, end in dirty:
        for low, high in present.within(start, end):
            while low < high:
                number = low // length + 1
                edge = min(high, number * length)
                there[number] = there.get(number, 0) + edge - low
                low = edge
    ranked = sorted(there.items(), key=lambda item: (-item[1], item[0]))
    for number, _ in ranked:
        if number * length <= size and not but.overlaps((number - 1) * length, number * length):
            return number
    return 0


class EditUpload:
    """The multipart object that replaces *base* (None: a new file), some of whose parts are up."""

    def __init__(
        self, store: Store, key: str, staged: StagedFile, base: Base | None, limits: Limits, memory: MemoryBudget, length: int
    ) -> None:
        """*length* is the size of a part, from `grid_of`."""
        self.store = store
        self.length = length
        self.base = base
        self.key = key
        self._staged = staged
        self._limits = limits
        self._memory = memory
        self._parts: dict[int, PartInfo] = {}  # up for good
        self._sent: dict[int, PartInfo] = {}  # up, as the bytes of _generation were
        self._generation = -1
        self._tried = 0  # the highest number of a part that the server may have
        self.upload_id = ""
        self.headers: ObjectHeaders | None = None
        self.gone = Ranges()
        """Bytes that are in parts that are up, and not on the disk any more."""

    async def begin(self, headers: ObjectHeaders) -> None:
        """Create the upload. Tags wait: servers drop those that come with it."""
        self.upload_id = await self.store.create_upload(self.key, dataclasses.replace(headers, tags=None))
        self.headers = headers

    def take_over(self, upload_id: str, headers: ObjectHeaders | None, gone: dict[int, PartInfo], end: int) -> None:
        """Go on with an upload on the same grid, which holds bytes up to *end*; the parts *gone* are not on the disk any more."""
        self.upload_id, self.headers = upload_id, headers
        self._parts = dict(gone)
        self._tried = self._parts_of(end)
        for number in gone:
            self.gone.add((number - 1) * self.length, number * self.length)

    def _parts_of(self, size: int) -> int:
        return -(-size // self.length)

    @property
    def most(self) -> int:
        """The largest size that the file may have."""
        return self.length * (self._limits.max_parts - 1)

    async def send(self, number: int, kept: int, landing: Callable[[], Ranges]) -> bool:
        """Bring part *number* up as it is now, and give its blocks back. False where the disk does not take them.

        Writes into it wait; if there is one by then, which *landing* tells, the part stays on the disk and counts as not sent.
        """
        start, end = (number - 1) * self.length, number * self.length
        self._tried = max(self._tried, number)
        part = await self._upload(number, start, end, kept)
        # no await from here: a write that waited may be next
        if landing().overlaps(start, end):
            return True
        if not self._staged.punch(start, end):
            return False
        self._parts[number] = part
        self.gone.add(start, end)
        return True

    async def _upload(self, number: int, start: int, end: int, kept: int) -> PartInfo:
        staged = self._staged
        body = staged.lend(start, end)
        try:
            old = staged.present.missing(start, min(end, kept))
            if not old:
                return await self.store.upload_part(self.key, self.upload_id, number, body)
            assert self.base is not None
            async with self._memory.reserved(sum(high - low for low, high in old)):
                pieces = await laid_over(self.store, self.base, body, start, old)
                return await self.store.upload_part(self.key, self.upload_id, number, pieces)
        finally:
            staged.give_back(start, end)

    def cut(self, size: int) -> bool:
        """The file is about to be cut to *size* bytes. False, and nothing happened, when the upload has to be completed before.

        That is when the cut goes through a part that is nowhere else; or some such part stays, and others that are up do not: no part
        can be taken out of an upload, and Ceph completes none of whose parts some are not named.
        """
        if any((number - 1) * self.length < size < number * self.length for number in self._parts):
            return False
        if self.gone.overlaps(0, size) and self._tried > self._parts_of(size):
            return False
        for number in [number for number in self._parts if number * self.length > size]:
            del self._parts[number]
        self.gone.truncate(size)
        return True

    async def finish(self, changes: Changes, concurrency: int) -> list[PartInfo]:
        """Send what is missing of the file that a delivery found; returns all parts, in order.

        Called again for the same generation of bytes, it sends only what it had not sent.
        """
        if self._generation != changes.generation:
            self._sent, self._generation = {}, changes.generation
        dirty, size, kept = changes.dirty, changes.size, changes.kept
        numbers = range(1, self._parts_of(size) + 1)
        self._tried = max(self._tried, len(numbers))

        async def one(number: int) -> None:
            start, end = (number - 1) * self.length, min(number * self.length, size)
            if self.base is not None and end <= kept and not dirty.overlaps(start, end):
                part = await part_of_base(self.store, self.key, self.upload_id, number, self.base, start, end)
            else:
                part = await self._upload(number, start, end, kept)
            self._sent[number] = part

        missing = [number for number in numbers if number not in self._parts and number not in self._sent]
        await in_parallel([partial(one, number) for number in missing], concurrency)
        return [self._parts.get(number) or self._sent[number] for number in numbers]

    async def complete(self, parts: list[PartInfo]) -> Written:
        """Make the object."""
        return await self.store.complete_upload(self.key, self.upload_id, parts)
