"""Uploading a new file while the program still writes it: parts go up as soon as they are full.

Owns: one multipart upload. A part that is written again after it went up is sent again; a rename or a failure abandons the
upload, the bytes are all still staged; unless the disk was short and parts that are up were dropped from it (*gone*). Then the
upload is all there is of them, and is kept for another try.
"""

from __future__ import annotations

import dataclasses
import logging

import trio

from zosfs.content.plan import EQUAL, Limits, part_bounds, part_size_for
from zosfs.content.ranges import Ranges
from zosfs.content.staging import StagedFile
from zosfs.errors import StoreError
from zosfs.store.api import ObjectHeaders, PartInfo, Store, Written

log = logging.getLogger(__name__)


class StreamingUpload:
    """The growing multipart object of one new file."""

    def __init__(
        self, store: Store, key: str, staged: StagedFile, limits: Limits, nursery: trio.Nursery, concurrency: int
    ) -> None:
        self.store = store
        self._key = key
        self._staged = staged
        self._limits = limits
        self._nursery = nursery
        self._slots = trio.CapacityLimiter(concurrency)
        self._scopes: set[trio.CancelScope] = set()
        self._next = 1
        self._end = 0  # the bytes below are in parts that are up or on their way
        self._running = 0
        self._finishing = False
        self._idle = trio.Event()
        self._stale: set[int] = set()
        self._parts: dict[int, PartInfo] = {}
        self._frontier = 0
        self.gone = Ranges()
        """Bytes that are in parts that are up, and not on the disk any more."""
        self.upload_id = ""
        self.headers: ObjectHeaders | None = None
        self.failure: StoreError | None = None

    @property
    def end(self) -> int:
        """The bytes below are in parts that are up or on their way."""
        return self._end

    async def begin(self, headers: ObjectHeaders) -> None:
        """Create the upload. Tags wait: servers drop those that come with it."""
        self.upload_id = await self.store.create_upload(self._key, dataclasses.replace(headers, tags=None))
        self.headers = headers

    def advance(self, frontier: int) -> None:
        """Everything below *frontier* has been written: start the parts that are full."""
        self._frontier = frontier
        while self.failure is None:
            start, end = part_bounds(self._next, self._limits)
            if end > frontier or self._running >= 2 * int(self._slots.total_tokens):
                return
            self._start(self._next, start, end)
            self._next += 1
            self._end = end

    def none_beyond(self, size: int) -> None:
        """What was written beyond *size* is about to be cut off: parts that end beyond are not begun by themselves."""
        self._frontier = min(self._frontier, size)

    def _start(self, number: int, start: int, end: int) -> None:
        self._running += 1
        if self._idle.is_set():
            self._idle = trio.Event()
        self._nursery.start_soon(self._send, number, start, end)

    async def _send(self, number: int, start: int, end: int) -> None:
        scope = trio.CancelScope()
        self._scopes.add(scope)
        try:
            with scope:
                async with self._slots:
                    body = self._staged.lend(start, end)
                    try:
                        self._parts[number] = await self.store.upload_part(self._key, self.upload_id, number, body)
                    finally:
                        self._staged.give_back(start, end)
        except StoreError as exc:
            self.failure = self.failure or exc
            self._staged.failed()
        finally:
            self._scopes.discard(scope)
            self._running -= 1
            if not self._running:
                self._idle.set()
        if number in self._parts:
            self._staged.arrived()
        if not self._finishing and not scope.cancel_called:
            self.advance(self._frontier)  # a writer that waits for space does not call

    @property
    def busy(self) -> bool:
        """Whether parts are on their way."""
        return self._running > 0

    @property
    def length(self) -> int:
        """The size of its parts, if they all have the same; else 0, and 0 while it is not begun."""
        length = part_size_for(1, self._limits)
        return length if self.upload_id and self._end <= part_bounds(EQUAL, self._limits)[1] else 0

    def parts_gone(self) -> dict[int, PartInfo]:
        """The parts that are not on the disk any more."""
        bounds = {number: part_bounds(number, self._limits) for number in self._parts}
        return {number: part for number, part in self._parts.items() if self.gone.overlaps(*bounds[number])}

    def shed(self, n: int, but: Ranges) -> int:
        """Drop parts that are up from the disk until *n* bytes are freed, none that has bytes in *but*; returns how many were."""
        freed = 0
        for number in sorted(self._parts):
            if freed >= n:
                break
            start, end = part_bounds(number, self._limits)
            if number in self._stale or end > self._end or but.overlaps(start, end):
                continue
            if dropped := self._staged.punch(start, end):
                self.gone.add(start, end)
                freed += dropped
        return freed

    def rewritten(self, start: int, end: int) -> None:
        """Bytes ``[start, end)`` changed: parts that hold them go up again."""
        if start >= self._end:
            return
        for number in range(1, self._next):
            low, high = part_bounds(number, self._limits)
            if low < end and start < high:
                self._stale.add(number)

    async def finish(self, size: int) -> tuple[str, list[PartInfo]]:
        """Send what is missing of a file of *size* bytes; returns the upload's id and parts, ready to be completed."""
        self._finishing = True
        try:
            return await self._finish(size)
        finally:
            self._finishing = False

    async def _finish(self, size: int) -> tuple[str, list[PartInfo]]:
        await self._settled()
        if self.gone:
            self.failure = None  # nothing but this upload can bring these bytes: what failed is tried again
        again = self._stale | {number for number in range(1, self._next) if number not in self._parts}
        self._stale = set()
        for number in sorted(again):
            start, end = part_bounds(number, self._limits)
            self._parts.pop(number, None)
            if self.failure is None:
                self._start(number, start, min(end, size))
        while self.failure is None:
            start, end = part_bounds(self._next, self._limits)
            if start >= size:
                break
            self._start(self._next, start, min(end, size))
            self._next += 1
            self._end = end
        await self._settled()
        if self.failure is not None:
            raise self.failure
        return self.upload_id, [self._parts[number] for number in sorted(self._parts)]

    async def complete(self, parts: list[PartInfo]) -> Written:
        """Make the object."""
        return await self.store.complete_upload(self._key, self.upload_id, parts)

    async def _settled(self) -> None:
        while self._running:
            await self._idle.wait()

    async def abandon(self) -> None:
        """End the upload and forget its parts."""
        for scope in list(self._scopes):
            scope.cancel()
        with trio.CancelScope(shield=True), trio.move_on_after(10):
            await self._settled()
            if self.upload_id:
                try:
                    await self.store.abort_upload(self._key, self.upload_id)
                except StoreError as exc:
                    log.warning("the upload %s of %s could not be aborted: %s", self.upload_id, self._key, exc)
