"""Reading one version of one object: range GETs, read-ahead, blocks shared by every handle of that version.

Owns: the blocks in memory. A reader is pinned to an ETag by If-Match: it never mixes versions. Must not know: names, the kernel.
"""

from __future__ import annotations

import logging
from collections import OrderedDict

import trio

from zosfs.config import Options
from zosfs.content import readahead
from zosfs.content.memory import MemoryBudget
from zosfs.counters import Counters
from zosfs.errors import StoreError
from zosfs.store.api import Buffer, ObjectInfo, Store

log = logging.getLogger(__name__)

MIB = 1 << 20
LARGEST = 8 * MIB
SMALLEST = 128 << 10


class _Block:
    """Bytes ``[start, end)`` of the object, being fetched or here."""

    __slots__ = ("ahead", "done", "end", "failure", "scope", "start", "used", "view", "whole")

    def __init__(self, start: int, end: int, ahead: bool) -> None:
        self.start = start
        self.end = end
        self.ahead = ahead
        self.done = trio.Event()
        self.failure: StoreError | None = None
        self.view: memoryview = memoryview(b"")
        self.scope = trio.CancelScope()
        self.used = False
        self.whole = False


class Reader:
    """One handle's view of the version *info*."""

    def __init__(
        self, store: Store, info: ObjectInfo, budget: MemoryBudget, counters: Counters, nursery: trio.Nursery, options: Options
    ) -> None:
        self._store = store
        self._info = info
        self._budget = budget
        self._counters = counters
        self._nursery = nursery
        self._most = options.read_ahead
        self._history = readahead.History()
        self._blocks: OrderedDict[int, _Block] = OrderedDict()  # by start, disjoint
        self._closed = False

    def _block_at(self, offset: int) -> _Block | None:
        for block in reversed(self._blocks.values()):
            if block.start <= offset < block.end:
                return block
        return None

    async def read(self, offset: int, size: int) -> Buffer:
        """Bytes ``[offset, offset + size)``, short only at the end. ESTALE when the object is another one now.

        The buffer is good until the caller's next await.
        """
        end = min(offset + size, self._info.size)
        if end <= offset:
            return b""
        stream = readahead.observe(self._history, offset, end - offset)
        block = self._block_at(offset)
        waited = block is None or not block.done.is_set()
        window = readahead.grow(stream, waited, self._most)
        if block is None:
            block = await self._demand(offset, end, stream)
        self._fetch_ahead(stream, window)
        if not block.done.is_set():
            self._counters.add("read_waits")
            await block.done.wait()
        if block.failure is not None:
            self._blocks.pop(block.start, None)
            raise block.failure
        block.used = True
        self._drop_passed(stream)
        if block.end >= end:
            return block.view[offset - block.start : end - block.start]
        out = bytearray(end - offset)
        have = block.end - offset
        out[:have] = block.view[offset - block.start :]
        while have < len(out):
            more = await self._piece(offset + have, end)
            out[have : have + len(more)] = more
            have += len(more)
        return out

    async def _piece(self, offset: int, end: int) -> memoryview:
        block = self._block_at(offset)
        if block is None:
            block = await self._demand(offset, end, None)
        await block.done.wait()
        if block.failure is not None:
            self._blocks.pop(block.start, None)
            raise block.failure
        block.used = True
        return block.view[offset - block.start : min(end, block.end) - block.start]

    async def _demand(self, offset: int, end: int, stream: readahead.Stream | None) -> _Block:
        """Fetch what is asked for now; a stream's block is rounded up, a random read's is not."""
        if stream is not None and stream.window:
            end = min(max(end, offset + SMALLEST), self._info.size)
        end = self._free_end(offset, min(end, offset + LARGEST))
        block = _Block(offset, end, ahead=False)
        self._blocks[offset] = block
        await self._budget.reserve(end - offset)
        self._nursery.start_soon(self._fetch, block)
        return block

    def _free_end(self, start: int, end: int) -> int:
        """The end of what may be fetched from *start* without overlapping a block that is there."""
        for block in self._blocks.values():
            if start < block.start < end:
                end = block.start
        return end

    def _fetch_ahead(self, stream: readahead.Stream, window: int) -> None:
        goal = min(stream.place + window, self._info.size)
        at = stream.place
        while at < goal:
            block = self._block_at(at)
            if block is not None:
                at = block.end
                continue
            end = self._free_end(at, min(at + min(LARGEST, max(window // 4, readahead.FIRST)), self._info.size))
            if end - at < LARGEST and end < goal and window >= 4 * LARGEST and end - at < min(LARGEST, self._info.size - at):
                pass
            if not self._budget.try_reserve(end - at):
                return
            block = _Block(at, end, ahead=True)
            self._blocks[at] = block
            self._counters.add("readahead_bytes", end - at)
            self._nursery.start_soon(self._fetch, block)
            at = end

    async def _fetch(self, block: _Block) -> None:
        length = block.end - block.start
        try:
            with block.scope:
                buffer = bytearray(length)
                await self._store.get_range(
                    self._info.key, block.start, memoryview(buffer), if_match=self._info.etag, version_id=self._info.version_id
                )
                block.view = memoryview(buffer)
                block.whole = True
        except StoreError as exc:
            block.failure = exc
        finally:
            if not block.whole:
                if block.failure is None:
                    block.failure = StoreError("Cancelled", operation="get", key=self._info.key)
                self._budget.release(length)
                if self._blocks.get(block.start) is block:
                    del self._blocks[block.start]
            elif self._closed:
                self._budget.release(length)
            block.done.set()

    def _drop_passed(self, stream: readahead.Stream) -> None:
        """Blocks well behind every stream are not needed again: the kernel keeps what it got."""
        low = min(s.place for s in self._history.streams) - 2 * readahead.REORDER
        newest = [s.place for s in self._history.streams]
        for start, block in list(self._blocks.items()):
            if not block.done.is_set():
                continue
            near = any(block.end > place - readahead.REORDER and block.start <= place + self._most for place in newest)
            if block.end <= low or not near:
                self._release(start, block)

    def _release(self, start: int, block: _Block) -> None:
        del self._blocks[start]
        if block.ahead and not block.used:
            self._counters.add("readahead_wasted_bytes", block.end - block.start)
        self._budget.release(block.end - block.start)

    def close(self) -> None:
        """Give everything back; what only this reader wanted is not fetched any more."""
        self._closed = True
        for start, block in list(self._blocks.items()):
            if block.done.is_set():
                self._release(start, block)
            else:
                block.scope.cancel()
