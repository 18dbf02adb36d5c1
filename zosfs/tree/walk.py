"""Recognising a walk over a tree (find, du, rsync, git status), and answering it from undelimited listings.

Owns: what was listed of late, and where the last undelimited listing was cut. One page of it fills many directories at once, so
that a walk over n objects costs about n/1000 requests instead of one a directory. Keys below one directory are contiguous in
the store's order, even though a name may sort before the directory of the same beginning (`a-b` before `a/`).
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from zosfs.store.api import ListPage
from zosfs.tree.inodes import Inode

if TYPE_CHECKING:
    from zosfs.tree.listing import Load, Loader
    from zosfs.tree.tree import Tree

log = logging.getLogger(__name__)

SIBLINGS = 1
"""So many other subdirectories of the same directory listed of late make the next one a step of a walk."""

LATE = 5.0
"""Seconds."""

MOST_PAGES = 4
"""A directory whose whole subtree is larger than these pages is listed by itself after all."""


@dataclass(slots=True)
class _Cut:
    """Where an undelimited listing stopped, and what it has seen of the directories that it stopped in."""

    begin: bytes  # only directories whose keys lie behind this are seen from their first name on
    marker: str
    at: float
    sequence: int  # the tree's when the listing began
    stopped: int = 0  # the tree's when it stopped
    partial: dict[Inode, set[bytes]] = field(default_factory=dict)


class Walks:
    """The walks over one tree."""

    def __init__(self, tree: Tree, loader: Loader) -> None:
        self._tree = tree
        self._loader = loader
        self._recent: deque[tuple[float, int, int]] = deque(maxlen=16)  # when, parent, directory
        self._cut: _Cut | None = None
        self._turn = trio.Lock()

    def recognises(self, inode: Inode) -> bool:
        """Note that *inode* is about to be listed; whether that is a step of a walk."""
        if inode.top or inode.parent is None:
            return False
        now = trio.current_time()
        siblings = {number for at, parent, number in self._recent if parent == inode.parent.number and now - at < LATE}
        siblings.discard(inode.number)
        self._recent.append((now, inode.parent.number, inode.number))
        if self._goes_on(self._cut, inode):
            return True
        return len(siblings) >= SIBLINGS

    def _goes_on(self, cut: _Cut | None, inode: Inode) -> bool:
        """Whether *cut* stopped inside *inode*, a short while ago, and nothing was changed here since.

        A change between two listings is remembered by nobody: what the first one saw would be believed against it.
        """
        if cut is None or inode not in cut.partial:
            return False
        return cut.stopped == self._tree.sequence and trio.current_time() - cut.at < LATE

    async def load(self, inode: Inode, load: Load) -> bool:
        """Fill *inode* and what lies behind it in key order; False when its subtree is too large for that.

        Takes turns: the next directory of the same walk is, as a rule, filled by the listing of the one before.
        """
        tree = self._tree
        async with self._turn:
            if tree.directory(inode).complete():
                load.entries.extend(tree.directory(inode).children.items())
                load.seen.update(tree.directory(inode).children)
                return True
            with tree.flying.request(tree.sequence):
                return await self._fill(inode, load)

    async def _fill(self, inode: Inode, load: Load) -> bool:
        tree = self._tree
        store, volume = inode.store, inode.volume
        assert volume is not None
        cut, self._cut = self._cut, None
        if cut is None or not self._goes_on(cut, inode):
            begin = inode.key  # its own marker is left out; SeaweedFS knows no order but that of its directories
            cut = _Cut(begin.encode(), begin, trio.current_time(), tree.sequence, partial={inode: set()})
        prefix = volume.prefix
        for _ in range(MOST_PAGES):
            moves, sequence = tree.moves, tree.sequence
            page = await store.list_page(prefix, marker=cut.marker)
            complete = await self._take(inode, page, cut, moves, sequence)
            if complete is None or (inode not in complete and inode not in cut.partial):
                return False
            ended = _ends(page, inode.parent.key if inode.parent is not None else prefix)
            cut.marker = page.next_marker
            if inode in complete:
                if not ended:
                    cut.stopped = tree.sequence
                    self._cut = cut
                load.entries.extend(tree.directory(inode).children.items())
                return True
        return False

    async def _take(self, wanted: Inode, page: ListPage, cut: _Cut, moves: int, sequence: int) -> set[Inode] | None:
        """Place a page's objects; returns the directories that are complete with it.

        None when directories on the way were changed here since the page was asked for (*moves*, *sequence*): it cannot be told
        any more where its keys belong.
        """
        volume = wanted.volume
        assert volume is not None
        top = wanted
        while not top.top:
            assert top.parent is not None
            top = top.parent
        # what lies outside the walked directory may never be looked at, and its attributes would be asked for in vain
        scope = wanted.parent.key if wanted.parent is not None else volume.prefix
        within = [info for info in page.objects if info.key.startswith(scope)]
        known = await self._loader.remembered_keys(top, within)
        if self._tree.moves != moves:
            return None
        fresh: list[tuple[bytes, Inode]] = []
        trail: list[tuple[str, Inode]] = []
        for info in within:
            parts = info.key[len(volume.prefix) :].split("/")
            depth = 0
            while depth < len(trail) and depth < len(parts) - 1 and trail[depth][0] == parts[depth]:
                depth += 1
            del trail[depth:]
            directory = trail[-1][1] if trail else top
            for part in parts[depth:-1]:
                seen = cut.partial.get(directory)
                below = self._loader.place(directory, part, True, None, seen, sequence, fresh)
                if below is None or not below.is_dir:
                    return None
                directory = below
                trail.append((part, directory))
                if directory not in cut.partial and directory.key.encode() > cut.begin:
                    cut.partial[directory] = set()
            if not parts[-1]:
                self._loader.marker(directory, info)
                if not info.size:
                    continue
            self._loader.place(directory, parts[-1], False, known.get(info.key, info), cut.partial.get(directory), sequence, fresh)
        await self._loader.sweep_unsure([child for _, child in fresh])
        if self._tree.moves != moves:
            return None
        open_now = set() if _ends(page, scope) else {directory for _, directory in trail} | {top}
        complete = set()
        for directory in [directory for directory in cut.partial if directory not in open_now]:
            seen = cut.partial.pop(directory)
            if not directory.unlinked and self._loader.finish(directory, seen, cut.at, cut.sequence):
                complete.add(directory)
                if directory.marker is None and directory.key.encode() > cut.begin:
                    directory.marker = False  # its own object would have come first
        return complete


def _ends(page: ListPage, scope: str) -> bool:
    """Whether nothing below *scope* follows *page*: the listing is over, or has gone on to what sorts behind."""
    if not page.next_marker:
        return True
    last = page.objects[-1].key if page.objects else ""
    return not last.startswith(scope) and last.encode() > scope.encode()
