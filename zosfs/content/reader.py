"""Reading: a handle's view of one version of one object.

Owns: which versions are being read, and what each handle still wants of them. A reader never mixes versions: what it returns is
of the version it was opened for, or it raises ESTALE. May use: blocks.py (memory), chunks.py (disk), readahead.py (decisions).
Must not know: names, inodes, the kernel.
"""

from __future__ import annotations

from collections import OrderedDict

import trio

from zosfs.config import Options
from zosfs.content.blocks import Block, Version, pieces
from zosfs.content.chunks import ChunkCache
from zosfs.content.memory import MemoryBudget, slab_size
from zosfs.content.readahead import Advice, Found, History, Span
from zosfs.counters import Counters
from zosfs.errors import StoreError
from zosfs.store.api import Buffer, ObjectInfo, Store

BROUGHT = 64 << 10
"""Bytes up to which a read fetches by itself what it waits for: they come in passing (`zosfs.store.short`)."""
KEPT = 16 << 20
"""Bytes that a handle has read and still keeps in memory: the kernel keeps what it got, but direct I/O may come back."""


class Readers:
    """The reading side of one bucket: makes readers, and lets those of the same version share their bytes."""

    def __init__(
        self,
        store: Store,
        budget: MemoryBudget,
        counters: Counters,
        nursery: trio.Nursery,
        options: Options,
        chunks: ChunkCache | None = None,
    ) -> None:
        self.chunks = chunks
        self.counters = counters
        self.budget = budget
        self.most = options.read_ahead
        self.around = options.random_ahead
        self._ahead_slots = max(2, options.connections // 2)
        self._store = store
        self._nursery = nursery
        self._versions: dict[tuple[str, str, str, int], Version] = {}
        budget.shrink.append(self._shrink)

    def reader(self, info: ObjectInfo) -> Reader:
        """A reader of the version *info* (its key, etag, version_id and size); the caller closes it. Sends nothing."""
        identity = (info.key, info.etag, info.version_id, info.size)
        version = self._versions.get(identity)
        if version is None or not info.etag:
            version = Version(self._store, info, self.budget, self.counters, self._nursery, self._keep)
            self._versions[identity] = version
        version.readers += 1
        return Reader(self, version)

    def closed(self, version: Version) -> None:
        """A reader of *version* is gone."""
        version.readers -= 1
        info = version.info
        identity = (info.key, info.etag, info.version_id, info.size)
        if not version.readers and self._versions.get(identity) is version:
            del self._versions[identity]

    def close(self) -> None:
        """No reader will be made any more."""
        if self._shrink in self.budget.shrink:
            self.budget.shrink.remove(self._shrink)

    def may_run_ahead(self) -> bool:
        """Whether connections are left for what nobody waits for yet."""
        return sum(version.running_ahead for version in self._versions.values()) < self._ahead_slots

    def read_ahead_now(self) -> int:
        """Of how many files something is on its way that nobody waits for yet; 1 at least. Looks at each file that is being read."""
        return max(1, sum(version.running_ahead > 0 for version in self._versions.values()))

    def _keep(self, info: ObjectInfo, start: int, view: memoryview) -> None:
        if self.chunks is not None:
            self.chunks.write(info, start, view)

    def _shrink(self, n: int) -> None:
        """Drop about *n* bytes that nobody waits for: those already read first."""
        idle = [(version, block) for version in self._versions.values() for block in version.idle()]
        idle.sort(key=lambda found: not found[1].touched)
        for version, block in idle:
            if n <= 0:
                return
            n -= block.cost
            version.drop(block)


class Reader:
    """One handle's view of the version *info*. Many reads may run at once."""

    def __init__(self, readers: Readers, version: Version) -> None:
        self._readers = readers
        self._version = version
        self._history = History(version.info.size, readers.most, readers.around)
        self._mine: dict[Block, None] = {}  # what this reader asked for
        self._read: OrderedDict[Block, None] = OrderedDict()  # of these, what it has read, oldest first
        self._read_bytes = 0
        self._closed = False

    @property
    def info(self) -> ObjectInfo:
        """The version that is read."""
        return self._version.info

    @property
    def outgrown(self) -> bool:
        """Whether the object had more than this version when some of it was fetched: that is no failure for who is in the middle of it."""
        answer = self._version.answer
        return answer is not None and answer.grew_from(self.info)

    async def read(self, offset: int, size: int) -> Buffer:
        """Bytes ``[offset, offset + size)`` of the version, short only at its end, b"" beyond it.

        The buffer stays good as long as the caller holds it. StoreError: ESTALE when the object is another one now (or was
        changed in place), ENOENT when it is gone, EIO when the store failed for good.
        """
        end = min(offset + size, self._version.info.size)
        if end <= offset or offset < 0:
            return b""
        found = self._version.find(offset, end)
        chunks = self._readers.chunks
        on_disk = found is not Found.READY and chunks is not None and chunks.has(self.info, offset, end)
        now, files = trio.current_time(), self._readers.read_ahead_now
        advice = self._history.observe(offset, end - offset, Found.READY if on_disk else found, now, files)
        if on_disk and chunks is not None:
            self._follow(advice)
            data = await chunks.read(self.info, offset, end)
            if data is not None:
                return data
            found = self._version.find(offset, end)
        try:
            if found is not Found.READY:
                self._readers.counters.add("read_waits")
                if found is Found.ABSENT:
                    await self._demand(offset, end, advice.demand)
            self._follow(advice)
            return await self._collect(offset, end)
        finally:
            self._trim()
            if self._readers.budget.wanted:
                self._readers.budget.press()  # what we waited for is idle from now on

    @property
    def whole(self) -> bool:
        """Whether every byte is in memory."""
        return self._version.find(0, self.info.size) is Found.READY

    def ask_ahead(self) -> bool:
        """Begin to fetch all of the version that is not here, before anybody reads it; False where memory or connections do not allow it.

        For small files: all of it is asked for at once.
        """
        budget = self._readers.budget
        for start, end in self._gaps(0, self.info.size):
            if not self._readers.may_run_ahead() or not budget.try_reserve(slab_size(end - start), spare=budget.limit // 4):
                return False
            self._mine[self._version.begin(start, end, self, ahead=True)] = None
        for block in self._version.within(0, self.info.size):
            self._want(block)
        return True

    def ask_whole(self) -> bool:
        """Fetch all of the version with one request that is sent from now on, by `facts` or a read at the latest; False where some of it
        is here or coming already, or where memory or connections do not allow it. For small files."""
        size = self.info.size
        if self._version.within(0, size) or self._gaps(0, size) != [(0, size)]:
            return False
        if size > BROUGHT:
            return self.ask_ahead()
        budget = self._readers.budget
        if not self._readers.may_run_ahead() or not budget.try_reserve(slab_size(size), spare=budget.limit // 4):
            return False
        self._mine[self._version.promise(0, size, self, ahead=True)] = None
        return True

    async def facts(self) -> ObjectInfo:
        """What the answer to what was asked ahead says of the object, as soon as the first byte is here. Raises StoreError."""
        block = self._version.at(0)
        if block is not None:
            await self._version.wait(block, 1)
        if self._version.answer is None:
            raise StoreError("Cancelled", operation="get", key=self.info.key)
        return self._version.answer

    # -- asking -----------------------------------------------------------------------------------------------------

    async def _demand(self, offset: int, end: int, wanted: Span) -> None:
        """Ask for what is missing of the read, whatever it takes; what *wanted* has beside it rides on the same requests."""
        low, high = wanted
        budget = self._readers.budget
        cost = slab_size(high - low)
        if cost > budget.limit // 8 or budget.used + cost + budget.limit // 4 > budget.limit:
            low, high = offset, end
        spans = [span for start, stop in self._gaps(low, high) if start < end and stop > offset for span in pieces(start, stop)]
        needed = [(a, b) for a, b in spans if a < end and b > offset]
        brought = needed[-1] if needed and needed[-1][1] - needed[-1][0] <= BROUGHT else None
        for span in spans:
            if span != brought:
                await self._begin(*span, needed=span in needed)
        if brought is not None:
            await self._begin(*brought, needed=True, here=True)

    async def _begin(self, start: int, end: int, *, needed: bool, here: bool = False) -> None:
        """Ask for ``[start, end)``, of which nothing is here or coming, and bring it *here* at once."""
        budget = self._readers.budget
        cost = slab_size(end - start)
        if not budget.try_reserve(cost):
            if not needed:
                return
            await budget.reserve(cost)
        still = self._version.missing(start, end)
        if still != [(start, end)]:  # somebody else asked for some of it while we waited
            budget.release(cost)
            for a, b in still:
                await self._begin(a, b, needed=needed)
            return
        if here:
            block = self._version.promise(start, end, self, ahead=False)
            self._mine[block] = None
            await self._version.wait(block, end - start)
        else:
            self._mine[self._version.begin(start, end, self, ahead=False)] = None

    def _gaps(self, start: int, end: int) -> list[Span]:
        """What of ``[start, end)`` only the network has."""
        gaps = self._version.missing(start, end)
        chunks = self._readers.chunks
        if chunks is None:
            return gaps
        return [span for a, b in gaps for span in chunks.missing(self.info, a, b)]

    def _follow(self, advice: Advice) -> None:
        """Fetch ahead as advised, as far as memory and connections allow, and let go of what is not wanted any more."""
        for start, end in advice.forget:
            for block in self._version.within(start, end):
                if block in self._mine and not block.waiters:
                    self._let_go(block)
        if self._closed or advice.stream is None:
            return
        budget = self._readers.budget
        for at, span in enumerate(advice.ahead):
            for start, end in self._gaps(*span):
                if not self._readers.may_run_ahead() or not budget.try_reserve(slab_size(end - start), spare=budget.limit // 4):
                    for refused in reversed(advice.ahead[at:]):
                        advice.stream.refuse(refused)
                    return
                self._mine[self._version.begin(start, end, self, ahead=True)] = None
            for block in self._version.within(*span):
                self._want(block)  # another reader's, perhaps: now it is ours too

    # -- answering --------------------------------------------------------------------------------------------------

    async def _collect(self, offset: int, end: int) -> Buffer:
        block = self._version.at(offset)
        if block is not None and block.end >= end:
            whole = await self._bytes(block, end - block.start)
            if whole is not None:
                return whole[offset - block.start : end - block.start]
        out = bytearray(end - offset)
        at = offset
        while at < end:
            block = self._version.at(at)
            if block is None:
                at = await self._one_gap(out, at, offset, end)
                continue
            stop = min(end, block.end)
            view = await self._bytes(block, stop - block.start)
            if view is None:
                continue
            out[at - offset : stop - offset] = view[at - block.start : stop - block.start]
            at = stop
        return out

    async def _one_gap(self, out: bytearray, at: int, offset: int, end: int) -> int:
        """Bytes that no block has (any more): from the disk, or asked for; returns how far that went."""
        start, stop = self._version.missing(at, end)[0]
        chunks = self._readers.chunks
        if chunks is not None:
            far = next((a for a, _ in chunks.missing(self.info, start, stop)), stop)
            if far > start:
                data = await chunks.read(self.info, start, far)
                if data is not None:
                    out[start - offset : far - offset] = data
                    return far
            stop = next((b for _, b in chunks.missing(self.info, start, stop)), stop)
        await self._demand(start, stop, (start, stop))
        return start

    async def _bytes(self, block: Block, upto: int) -> memoryview | None:
        """The bytes of *block*; None where whoever fetched them was cancelled, which is no reason for those who wait beside."""
        self._want(block)
        try:
            view = block.view if block.good >= upto else await self._version.wait(block, upto)
        except StoreError as exc:
            if exc.code == "Cancelled" and not self._closed:
                return None
            raise
        block.touched = True
        if block in self._read:
            self._read.move_to_end(block)
        elif block in self._mine:
            self._read[block] = None
            self._read_bytes += block.cost
        return view

    def _want(self, block: Block) -> None:
        if block not in self._mine:
            block.wanted.add(self)
            self._mine[block] = None

    # -- letting go -------------------------------------------------------------------------------------------------

    def _trim(self) -> None:
        """Let go of what was read, the oldest first, down to a few MiB; but not of what a stream is in the middle of."""
        if self._closed:
            self._let_all_go()
            return
        over, going = self._read_bytes - KEPT, []
        for block in self._read:
            if over <= 0:
                break
            if block.done and not self._history.inside(block.start, block.end):
                going.append(block)
                over -= block.cost
        for block in going:
            self._let_go(block)

    def lost(self, block: Block) -> None:
        """*block* is gone (Wanter)."""
        self._mine.pop(block, None)
        if block in self._read:
            del self._read[block]
            self._read_bytes -= block.cost

    def _let_go(self, block: Block) -> None:
        self.lost(block)
        self._version.unwant(block, self)

    def _let_all_go(self) -> None:
        for block in list(self._mine):
            self._let_go(block)

    def close(self) -> None:
        """Give everything back; what only this reader wanted is not fetched any more. Reads still running fail or finish."""
        if self._closed:
            return
        self._closed = True
        self._let_all_go()
        self._readers.closed(self._version)
