"""Reading the names of a directory: what one opendir sees of them, and the load that goes on filling them in.

A listing tells the names of small objects, but not what they are: who wants to know that as well waits for a HEAD of each, and these
are asked for ahead of the reader.

Owns: the order and the cookies of one opendir. Must not know: requests, how pages become names (listing.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from zosfs.tree.inodes import Inode
from zosfs.tree.pages import Pages

if TYPE_CHECKING:
    from zosfs.tree.listing import Loader

SOUGHT_TOGETHER = 256
"""Names of which the kinds are sought in one sweep."""
SOUGHT_AHEAD = 1024
"""Names ahead of the reader of which the kinds are sought."""


class Load:
    """One listing of one directory under way.

    When nobody reads on it pauses behind *marker*, for as long as some reader may come back.
    """

    __slots__ = (
        "began", "done", "entries", "failure", "first", "kinds", "local", "marker", "moves", "onward", "outdated", "pages", "progress",
        "readers", "seen",
    )  # fmt: skip

    def __init__(self) -> None:
        self.began = trio.current_time()
        self.kinds = False  # somebody wants to know what the names are, too
        self.outdated = False  # somebody told of changes since, and another load looks for them: what is known by now is newer
        self.entries: list[tuple[bytes, Inode]] = []
        self.seen: set[bytes] = set()
        self.local: set[bytes] = set()  # names that are in `entries` because this host knows them better than the store
        self.marker = ""
        self.moves = 0  # the tree's of when `pages` began
        self.pages: Pages | None = None  # what was asked for ahead while it was under way
        self.done = False
        self.failure: OSError | None = None
        self.progress = trio.Event()
        self.first = trio.Event()  # the first page is applied
        self.readers = 0  # who wants all pages
        self.onward = trio.Event()

    def advance(self) -> None:
        """There is something new to see."""
        self.progress.set()
        self.progress = trio.Event()


class Listing:
    """The names of a directory for one opendir, in a stable order with cookies from 1."""

    def __init__(self, loader: Loader, directory: Inode) -> None:
        self._loader = loader
        self._directory = directory
        self._entries: Sequence[tuple[bytes, Inode]] = ()
        self._load: Load | None = None
        self._begun = False
        self._sought = 0  # so many entries had their kinds sought, or have
        self._sweeps: list[tuple[int, trio.Event]] = []  # up to which entry each goes, and when it has ended

    async def batch(self, after: int, limit: int, *, kinds: bool = True) -> list[tuple[int, bytes, Inode]]:
        """Up to *limit* entries behind cookie *after* (0: from the start, seen anew), [] at the end. Raises StoreError.

        *kinds*: with what each one is, unless the server refuses to say it.
        """
        if after == 0 or not self._begun:
            self._begin(kinds)
        load = self._load
        if load is not None:
            load.kinds = load.kinds or kinds
            load.readers += 1
            load.onward.set()
            try:
                while len(load.entries) <= after and not (load.done and not load.marker):
                    if load.done:
                        self._loader.resume(self._directory, load)
                    await load.progress.wait()
            finally:
                load.readers -= 1
            if load.failure is not None and len(load.entries) <= after:
                raise load.failure
            self._entries = load.entries
        batch = self._there(after, limit)
        if kinds and self._loader.any_unsure(inode for _, _, inode in batch):
            await self._seek(after, limit)
            batch = self._there(after, limit)
        if not batch and after < len(self._entries):
            return await self.batch(len(self._entries), limit, kinds=kinds)  # all of these were removed meanwhile
        return batch

    def batch_now(self, after: int, limit: int, *, kinds: bool = True) -> list[tuple[int, bytes, Inode]] | None:
        """As `batch`, of a directory of which all is known; None, and nothing happened, of another."""
        if after == 0 or not self._begun:
            known = self._directory.directory
            if known is None or not known.complete():
                return None
            self._begin(kinds)
        if self._load is not None:
            return None
        batch = self._there(after, limit)
        return None if kinds and self._loader.any_unsure(inode for _, _, inode in batch) else batch

    def _begin(self, kinds: bool) -> None:
        self._begun = True
        self._load, self._entries = self._loader.read(self._directory, kinds=kinds)
        self._sought, self._sweeps = 0, []

    async def _seek(self, after: int, limit: int) -> None:
        """Wait until it is known what the *limit* entries behind *after* are; those behind them are asked for, too."""
        first = max(self._sought, after)
        for start in range(first, min(len(self._entries), after + limit + SOUGHT_AHEAD), SOUGHT_TOGETHER):
            some = [inode for _, inode in self._entries[start : start + SOUGHT_TOGETHER]]
            self._sought = start + len(some)
            self._sweeps.append((self._sought, self._loader.begin_sweep(some)))
        self._sweeps = [(upto, ended) for upto, ended in self._sweeps if upto > after]
        for upto, ended in self._sweeps:
            await ended.wait()
            if upto >= after + limit:
                break

    def _there(self, after: int, limit: int) -> list[tuple[int, bytes, Inode]]:
        batch: list[tuple[int, bytes, Inode]] = []
        known = self._directory.directory
        for index in range(after, len(self._entries)):
            if len(batch) >= limit:
                break
            name, inode = self._entries[index]
            current = known.children.get(name) if known is not None else None
            if current is None:
                current = self._loader.current(self._directory, name, inode)
            if current is not None:
                batch.append((index + 1, name, current))
        return batch
