"""The bytes of one version of one object that are in memory or on their way, shared by every handle that reads it.

Owns: the blocks of a version and the requests that fill them. A byte is fetched once however many want it; a fetch that nobody
wants any more is cancelled. Every request is pinned to the version by its ETag (and version id, once known), so that blocks never mix
two versions; of an object that grows by appends, which may have grown meanwhile, the answer is looked at instead.
Must not know: what will be read next (readahead.py), files on disk (chunks.py).
"""

from __future__ import annotations

import logging
from bisect import bisect_right, insort
from collections.abc import Callable
from functools import partial
from typing import Protocol

import trio

from zosfs.content.memory import MemoryBudget, Slab, slab_size
from zosfs.content.readahead import LARGEST, Found
from zosfs.counters import Counters
from zosfs.errors import StoreError
from zosfs.store.api import ObjectInfo, Store
from zosfs.store.arrival import Arrival

log = logging.getLogger(__name__)


class Wanter(Protocol):
    """Who wants blocks."""

    def lost(self, block: Block) -> None:
        """*block* is gone: dropped for want of memory, or never came."""
        ...


class Block:
    """Bytes ``[start, end)``, of which *good* are here, from *start* on, in *view*; all of them, or a failure, when *done*. While it is
    *asleep* nobody fetches it. Disjoint from every other block."""

    __slots__ = (
        "_slab", "ahead", "arrival", "asleep", "cost", "done", "end", "failure", "good", "scope", "start", "touched", "view", "waiters",
        "wanted",
    )  # fmt: skip

    def __init__(self, start: int, end: int, ahead: bool) -> None:
        self.start = start
        self.end = end
        self.cost = slab_size(end - start)
        self.ahead = ahead
        self.asleep = True
        self.touched = False
        self.done = False
        self.good = 0
        self.failure: StoreError | None = None
        self.arrival: Arrival | None = None
        self.waiters: list[tuple[int, trio.Event]] = []  # how many bytes from the beginning on are waited for
        self.wanted: set[Wanter] = set()
        self.scope = trio.CancelScope()
        self.view = memoryview(b"")
        self._slab: Slab | None = None

    def take(self, slab: Slab) -> None:
        """All bytes are here, and live in *slab*."""
        self._slab = slab
        self.good = self.end - self.start

    def drop(self) -> Slab | None:
        """Forget the bytes; the buffer that they were in, if any."""
        slab, self._slab, self.view = self._slab, None, memoryview(b"")
        return slab


class Version:
    """All blocks of the version *info* of an object."""

    def __init__(
        self,
        store: Store,
        info: ObjectInfo,
        budget: MemoryBudget,
        counters: Counters,
        nursery: trio.Nursery,
        fetched: Callable[[ObjectInfo, int, memoryview], object],
    ) -> None:
        """*fetched* is told of every span of bytes that came over the network: version, offset, bytes."""
        self.info = info
        self.answer: ObjectInfo | None = None  # what the server said last with bytes of it
        self.readers = 0
        self.running_ahead = 0
        self._store = store
        self._budget = budget
        self._counters = counters
        self._nursery = nursery
        self._fetched = fetched
        self._etag = info.etag
        self._version_id = info.version_id
        self._starts: list[int] = []
        self._blocks: dict[int, Block] = {}

    # -- what is here -----------------------------------------------------------------------------------------------

    def at(self, offset: int) -> Block | None:
        """The block that has the byte at *offset*."""
        index = bisect_right(self._starts, offset)
        if not index:
            return None
        block = self._blocks[self._starts[index - 1]]
        return block if offset < block.end else None

    def within(self, start: int, end: int) -> list[Block]:
        """The blocks that have bytes of ``[start, end)``, in order."""
        index = bisect_right(self._starts, start)
        if index and self._blocks[self._starts[index - 1]].end > start:
            index -= 1
        found = []
        while index < len(self._starts) and self._starts[index] < end:
            found.append(self._blocks[self._starts[index]])
            index += 1
        return found

    def missing(self, start: int, end: int) -> list[tuple[int, int]]:
        """The parts of ``[start, end)`` that are neither here nor coming."""
        gaps = []
        for block in self.within(start, end):
            if block.start > start:
                gaps.append((start, block.start))
            start = max(start, block.end)
        if start < end:
            gaps.append((start, end))
        return gaps

    def find(self, start: int, end: int) -> Found:
        """How far the bytes ``[start, end)`` are."""
        at = start
        coming = False
        for block in self.within(start, end):
            if block.start > at:
                return Found.ABSENT
            coming = coming or block.good < min(end, block.end) - block.start
            at = block.end
        if at < end:
            return Found.ABSENT
        return Found.COMING if coming else Found.READY

    # -- fetching ---------------------------------------------------------------------------------------------------

    def begin(self, start: int, end: int, reader: Wanter, *, ahead: bool) -> Block:
        """Begin to fetch ``[start, end)``, of which nothing is here or coming; its memory has been reserved."""
        block = self.promise(start, end, reader, ahead=ahead)
        block.asleep = False
        self._nursery.start_soon(self._fetch, block)
        return block

    def promise(self, start: int, end: int, reader: Wanter, *, ahead: bool) -> Block:
        """As `begin`, but the first who waits for the block fetches it, in its own task: the loop has no other to turn to."""
        block = Block(start, end, ahead)
        block.wanted.add(reader)
        insort(self._starts, start)
        self._blocks[start] = block
        if ahead:
            self.running_ahead += 1
            self._counters.add("readahead_bytes", end - start)
        return block

    async def wait(self, block: Block, upto: int) -> memoryview:
        """The bytes of *block* as soon as the first *upto* are here, whatever becomes of the rest. Raises why they will not come."""
        if block.good < upto and not block.done:
            waiter = (upto, trio.Event())
            block.waiters.append(waiter)
            try:
                if block.asleep:
                    block.asleep = False
                    await self._fetch(block)
                else:
                    if block.arrival is not None:
                        block.arrival.want(min(upto for upto, _ in block.waiters))
                    await waiter[1].wait()
            finally:
                block.waiters.remove(waiter)
        if block.good < upto and block.failure is not None:
            failure = block.failure
            raise StoreError(
                failure.code, status=failure.status, message=failure.message, operation=failure.operation, key=failure.key,
                headers=failure.headers,
            )  # fmt: skip
        block.touched = True
        return block.view

    def _arrived(self, block: Block, answer: ObjectInfo, n: int) -> None:
        """The first *n* bytes of *block* are here, of what *answer* says."""
        self._check(answer)
        block.good = max(block.good, n)
        for upto, event in block.waiters:
            if upto <= block.good:
                event.set()
        waiting = [upto for upto, _ in block.waiters if upto > block.good]
        if waiting and block.arrival is not None:
            block.arrival.want(min(waiting))

    async def _fetch(self, block: Block) -> None:
        slab = self._budget.slab(block.end - block.start)
        block.view = slab.view
        block.arrival = Arrival(partial(self._arrived, block))
        if block.waiters:
            block.arrival.want(min(upto for upto, _ in block.waiters))
        good = False
        try:
            with block.scope:
                try:
                    answer = await self._store.get_range(
                        self.info.key, block.start, slab.view, if_match="" if self.info.appendable else self._etag,
                        version_id=self._version_id, arrival=block.arrival,
                    )  # fmt: skip
                    self._check(answer)
                    good = True
                except StoreError as exc:
                    block.failure = self._meaning(exc)
        except Exception:
            log.exception("reading %s", self.info.key)
            block.failure = StoreError("InternalError", message="see the log", operation="get", key=self.info.key)
        finally:
            if block.ahead:
                self.running_ahead -= 1
            block.done = True
            block.arrival = None  # which knows the block
            if good:
                self._fetched(self.info, block.start, slab.view)
            if good and self._blocks.get(block.start) is block:
                block.take(slab)
            else:
                if block.failure is None:
                    block.failure = StoreError("Cancelled", operation="get", key=self.info.key)
                self._remove(block)
                if not block.waiters:  # some of them may wait for bytes that came
                    block.view = memoryview(b"")
                self._budget.give_back(slab)
                self._budget.release(block.cost)
            for _, event in block.waiters:
                event.set()
            if not block.wanted and not block.waiters:
                self.drop(block)
            elif self._budget.wanted:
                self._budget.press()

    def _check(self, answer: ObjectInfo) -> None:
        """Keep what the answer tells, pin the first one's, and refuse another version where the server did not."""
        if not self._etag:
            self._etag = answer.etag
        elif answer.etag and answer.etag != self._etag and not answer.grew_from(self.info):
            raise StoreError("PreconditionFailed", status=412, operation="get", key=self.info.key)
        self.answer = answer
        if not self._version_id and answer.version_id != "null":
            self._version_id = answer.version_id

    def _meaning(self, failure: StoreError) -> StoreError:
        """An object that has become too short for what it had is another object."""
        if failure.code == "InvalidRange" or failure.status == 416:
            return StoreError(
                "PreconditionFailed", status=412, message="the object is shorter now", operation="get", key=self.info.key
            )
        return failure

    # -- letting go -------------------------------------------------------------------------------------------------

    def unwant(self, block: Block, reader: Wanter) -> None:
        """*reader* does not need *block* any more: the last one's no drops it, or cancels its request."""
        block.wanted.discard(reader)
        if block.wanted or block.waiters:
            return
        if block.done:
            self.drop(block)
        elif block.asleep:
            self._remove(block)
            self._budget.release(block.cost)
            self.running_ahead -= block.ahead
        else:
            self._remove(block)  # at once: who wants these bytes from now on asks for them anew
            block.scope.cancel()

    def drop(self, block: Block) -> None:
        """Forget a block that is here; views of it that somebody holds stay good."""
        if self._blocks.get(block.start) is not block:
            return
        self._remove(block)
        if block.ahead and not block.touched:
            self._counters.add("readahead_wasted_bytes", block.end - block.start)
        slab = block.drop()
        if slab is not None:
            self._budget.give_back(slab)
            self._budget.release(block.cost)

    def idle(self) -> list[Block]:
        """Blocks that are here and nobody waits for at this moment, those already read first."""
        return sorted((b for b in self._blocks.values() if b.done and not b.waiters), key=lambda b: not b.touched)

    def _remove(self, block: Block) -> None:
        if self._blocks.get(block.start) is block:
            del self._blocks[block.start]
            del self._starts[bisect_right(self._starts, block.start) - 1]
            for reader in block.wanted:
                reader.lost(block)
            block.wanted.clear()


def pieces(start: int, end: int) -> list[tuple[int, int]]:
    """``[start, end)`` cut into spans that one request may have."""
    return [(at, min(at + LARGEST, end)) for at in range(start, end, LARGEST)]
