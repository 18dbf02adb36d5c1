"""A file as it is here: what was written, over the bytes of the object that it is a change of.

Owns: the staged file and the right to exchange it, the base, and the file's size and generation. Must not know: requests other than for
the base's bytes, uploads, the journal, names other than the key, the kernel.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

import trio

from zosfs.content.plan import Base
from zosfs.content.ranges import Ranges
from zosfs.content.reader import Reader
from zosfs.content.staging import StagedFile
from zosfs.locks import Lock
from zosfs.store.api import Body, Buffer, ObjectHeaders, ObjectInfo
from zosfs.store.digests import md5_hex
from zosfs.threads import ThreadPool

FETCH = 8 << 20
FOREVER = 1 << 62


@dataclass(slots=True)
class Changes:
    """The file as a delivery found it: *size* bytes of one *generation*, with the *dirty* ranges.

    Where nothing is dirty, the bytes below *kept* are the base's. A delivery that finds another base makes it less.
    """

    dirty: Ranges
    size: int
    kept: int
    generation: int


class Draft:
    """One file that is being written.

    Whoever has it made sets *headers* (the object's headers as of now) before it is written.
    """

    headers: Callable[[], ObjectHeaders]

    def __init__(
        self, key: str, base: ObjectInfo | None, staged: StagedFile, open_base: Callable[[ObjectInfo], Reader], threads: ThreadPool,
        *, truncate: bool, appending: bool,
    ) -> None:  # fmt: skip
        """*open_base* makes a reader of the base; *threads* are those for the local disk."""
        self._open_base = open_base
        self._threads = threads
        self.key = key
        self.base = base
        self.staged = staged
        self.appending = appending
        """Whether the file was opened with O_APPEND."""
        self.size = 0 if base is None or truncate else base.size
        self.kept = self.size
        """The base's bytes below this are still the file's, where nothing newer lies."""
        self.kept_after = 0
        """What *kept* will be once the delivery under way is done."""
        self.changed = base is None or truncate
        """Whether the store lacks something of this file."""
        self.generation = 0
        """Another one after every change."""
        self.version = 0
        """Another one with every base."""
        self.delivered: ObjectInfo | None = None
        """The version that the staged bytes are equal to, if any."""
        self.exact_times = False
        """Whether somebody set the file's times since it was last written: the object must have exactly them."""
        self.unlinked = False
        """Whether the name is gone: nothing is delivered any more, and the local bytes may be the only ones."""
        self.moving: Callable[[], bool] = lambda: False
        """Whether the file is about to get another key: bytes in an upload to the old one could not go along. To be set by the owner."""
        self._landing: list[tuple[int, int]] = []  # writes under way
        self.end = Lock()
        """Held by who moves the file's end: appends follow one another."""
        # writes in flight, and the exchange of the staged file that they must not miss
        self._active = 0
        self._inactive = trio.Event()
        self.exchange: trio.Event | None = None
        """Set once the exchange of the staged file that is under way is done."""
        self._reader: Reader | None = None

    # -- what it is -------------------------------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """Whether every byte is here, so that the object in the store is not needed for reading."""
        return self.staged.present.covers(0, self.kept)

    @property
    def dirty_bytes(self) -> int:
        """How many bytes the store lacks."""
        return self.staged.dirty.total if self.changed else 0

    @property
    def base_etag(self) -> str:
        """The ETag of the base, "" where there is none."""
        return self.base.etag if self.base is not None else ""

    @property
    def plan_base(self) -> Base | None:
        """The base as plans know it."""
        return Base.of(self.base) if self.base is not None else None

    # -- changes ----------------------------------------------------------------------------------------------------

    def wrote(self, end: int) -> None:
        """Bytes up to *end* were written."""
        if end > self.size:
            self.size = end
        self.changed = True
        self.exact_times = False
        self.generation += 1
        self.delivered = None  # a delivery may have ended while the bytes were on their way to the disk

    def cut(self, size: int) -> None:
        """The file has *size* bytes now; what grew is zeros."""
        self.kept = min(self.kept, size)
        self.kept_after = min(self.kept_after, size)
        self.size = size
        self.changed = True
        self.generation += 1
        self.delivered = None

    @contextlib.contextmanager
    def lands(self, start: int, end: int) -> Iterator[None]:
        """Within, bytes ``[start, end)`` change: they stay on the disk."""
        self._landing.append((start, end))
        try:
            yield
        finally:
            self._landing.remove((start, end))

    def landing(self) -> Ranges:
        """What is being changed."""
        return Ranges(self._landing)

    @contextlib.asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """The staged file is not exchanged within."""
        while self.exchange is not None:
            await self.exchange.wait()
        self._active += 1
        try:
            yield
        finally:
            self._active -= 1
            if not self._active:
                self._inactive.set()
                self._inactive = trio.Event()

    @contextlib.asynccontextmanager
    async def exchanging(self) -> AsyncIterator[None]:
        """Nobody changes the staged file within: another one may take its place."""
        done = self.exchange = trio.Event()
        try:
            await self._still()
            yield
        finally:
            self.exchange = None
            done.set()

    async def _still(self) -> None:
        while self._active:
            await self._inactive.wait()

    async def make_way(self, by: int, size: int) -> None:
        """Others' bytes went in front of what was appended: what was appended since lies *by* bytes further up now."""
        async with self.end:
            await self._still()
            await self.staged.quiet()
            end = max(self.size, size)
            self.staged.shift(size, end, by)
            self.size = end + by

    # -- bytes ------------------------------------------------------------------------------------------------------

    async def read_base(self, start: int, end: int) -> Buffer:
        """The base's bytes ``[start, end)``; StoreError, ESTALE when others changed it."""
        if self._reader is None:
            assert self.base is not None
            self._reader = self._open_base(self.base)
        return await self._reader.read(start, end - start)

    def read_from(self, found: ObjectInfo) -> None:
        """The base's bytes are in *found*, from where they are read from now on. Nothing happens where they are already."""
        if self._reader is None or self._reader.info.etag != found.etag:
            self.close_reader()
            self._reader = self._open_base(found)

    async def fetch(self, start: int, end: int) -> None:
        """Make the base's bytes ``[start, end)`` present in the staged file (Source)."""
        for low, high in self.staged.present.missing(start, min(end, self.kept)):
            for piece in range(low, high, FETCH):
                data = bytes(await self.read_base(piece, min(piece + FETCH, high)))
                async with self.changing():
                    await self.staged.keep(piece, data)

    def lend(self, start: int, end: int) -> Body:
        """Staged bytes for an upload (Source)."""
        return self.staged.lend(start, end)

    def give_back(self, start: int, end: int) -> None:
        """The upload of ``[start, end)`` ended (Source)."""
        self.staged.give_back(start, end)

    async def md5(self, start: int, end: int) -> str:
        """The MD5 of the staged bytes ``[start, end)``, which do not change meanwhile."""
        staged = self.staged
        body = staged.lend(start, end)
        try:
            return await self._threads.run(md5_hex, body)
        finally:
            staged.give_back(start, end)

    # -- deliveries -------------------------------------------------------------------------------------------------

    def take(self) -> Changes:
        """What is to be delivered: the file as it is now. Until `release` of the staged file, writes into it wait."""
        changes = Changes(self.staged.dirty, self.size, self.kept, self.generation)
        self.staged.dirty = Ranges()
        self.changed = False
        self.kept_after = self.size
        self.staged.hold(self.size)
        return changes

    def put_back(self, changes: Changes) -> None:
        """They were not delivered, and are to be still."""
        self.changed = True
        changes.dirty.truncate(self.kept_after)
        self.staged.dirty = changes.dirty.union(self.staged.dirty)

    def stand_on(self, found: ObjectInfo, kept: int) -> int:
        """What an earlier try of ours left is the base now; returns how much of it the file keeps, where *kept* was of the one before."""
        self.base = found
        self.kept = kept = min(kept, found.size, self.kept)
        self.close_reader()
        return kept

    def rebase(self, info: ObjectInfo, size: int) -> None:
        """The store has the first *size* bytes as *info*: they are the base now."""
        self.base = info
        self.kept = min(self.kept_after, info.size) if info.size == size else info.size
        self.close_reader()

    def stand_alone(self) -> None:
        """The file, all bytes of which are here, is no change of its base any more, but the whole of what is to be there."""
        self.kept = self.kept_after = 0
        self.staged.dirty = self.staged.present.copy()
        self.staged.dirty.truncate(self.size)
        self.appending = False
        self.generation += 1
        self.close_reader()

    def renamed(self, key: str, made_ns: int = 0) -> None:
        """The file, and the object that it is a change of, are called *key* from now on; the object was made then (0: as before)."""
        self.key = key
        self.delivered = None
        if self.base is not None:
            self.base = dataclasses.replace(self.base, key=key, modified_ns=made_ns or self.base.modified_ns)
        self.close_reader()

    def close_reader(self) -> None:
        """What was read of the base so far is of no use any more."""
        self.version += 1
        if self._reader is not None:
            self._reader.close()
            self._reader = None
