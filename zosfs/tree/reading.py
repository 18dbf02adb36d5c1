"""Reading the names of a directory: what one opendir sees of them, and the load that goes on filling them in.

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


class Load:
    """One listing of one directory under way.

    When nobody reads on it pauses behind *marker*, for as long as some reader may come back.
    """

    __slots__ = (
        "began", "done", "entries", "failure", "first", "local", "marker", "moves", "onward", "outdated", "pages", "placed", "progress",
        "readers", "seen",
    )  # fmt: skip

    def __init__(self) -> None:
        self.began = trio.current_time()
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
        self.placed = trio.Event()  # the names of the first page are known, if not what they are
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

    async def batch(self, after: int, limit: int) -> list[tuple[int, bytes, Inode]]:
        """Up to *limit* entries behind cookie *after* (0: from the start, seen anew), [] at the end. Raises StoreError."""
        if after == 0 or not self._begun:
            self._begun = True
            self._load, self._entries = self._loader.read(self._directory)
        load = self._load
        if load is not None:
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
        if not batch and after < len(self._entries):
            return await self.batch(len(self._entries), limit)  # all of these were removed meanwhile
        return batch

    def batch_now(self, after: int, limit: int) -> list[tuple[int, bytes, Inode]] | None:
        """As `batch`, of a directory whose names are all known; None, and nothing happened, of another."""
        if after == 0 or not self._begun:
            known = self._directory.directory
            if known is None or not known.complete():
                return None
            self._begun = True
            self._load, self._entries = self._loader.read(self._directory)
        return self._there(after, limit) if self._load is None else None

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
