"""Recognising a walk over a tree (find, du, rsync, git status), and answering it from undelimited listings.

Owns: what was listed of late, the listings under way, and where they stopped. One page of an undelimited listing fills many
directories at once, so that a walk over n objects costs about n/1000 requests instead of one a directory; several portions of the
siblings of the wanted directory are listed at once where that helps. Any number of walks may go on side by side.

Nothing here builds on the order in which a server lists, but on this: the keys below one directory come one behind the other. Ceph
sorts by bytes (`a-b/` before `a/`), SeaweedFS by the names on the way (`a/` before `a-b/`).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from zosfs.store.api import ListPage
from zosfs.tree.inodes import Inode
from zosfs.tree.siblings import MOST_PAGES, ListingPace, first_unknown, onward, pages_of, portions

if TYPE_CHECKING:
    from zosfs.tree.listing import Loader
    from zosfs.tree.reading import Load
    from zosfs.tree.tree import Tree

log = logging.getLogger(__name__)

LATE = 5.0
"""Seconds: a directory listed so long after one beside it is no step of a walk."""

PAGE = 1000

MOST_STOPPED = 16
"""Listings that may be gone on with, over all walks."""

MOST_SIBLINGS = 20_000
"""With more the order of them all is not worth its price: the listing just goes on behind the wanted one."""


@dataclass(slots=True, eq=False)
class _Run:
    """An undelimited listing of some of the directories in *scope*, and what it has seen of those that it is not through with."""

    scope: Inode
    prefix: str  # it lists nothing but what begins so,
    begin: str  # and comes behind this key
    marker: str
    sequence: int  # the tree's when the listing began
    moves: int  # so many directories had been renamed by then: the keys above are of that time
    at: float = field(default_factory=trio.current_time)
    wanted: tuple[Inode, ...] = ()  # it is meant to fill these
    kinds: bool = False  # and who wants them wants to know what the names are, too
    pages: int = 1  # so many may be listed before anybody wants one
    names: int = 0  # of the sibling that it stopped in
    partial: dict[Inode, set[bytes]] = field(default_factory=dict)
    stopped: int = 0  # the tree's sequence when it stopped
    slowest: float = 0.0  # seconds that the server took for a page
    ended: trio.Event = field(default_factory=trio.Event)

    def begins_before(self, directory: Inode) -> bool:
        """Whether the page behind the marker, and those that follow, show all of *directory*: what was known by its name while the pages
        before came may be another inode, that was forgotten since."""
        return self.marker == directory.key or not self.marker.startswith(directory.key)


class Walks:
    """The walks over one tree."""

    def __init__(self, tree: Tree, loader: Loader) -> None:
        self._tree = tree
        self._loader = loader
        self._recent: deque[tuple[float, Inode, Inode]] = deque(maxlen=16)  # when, parent, directory
        self._stopped: list[_Run] = []  # the latest last
        self._running: dict[Inode, _Run] = {}  # by what they will fill
        self._each: dict[Inode, float] = {}  # names below one directory, by its parent
        self._onward: dict[Inode, tuple[Inode, int]] = {}  # who reads it will soon want that sibling, and those behind it
        self._pace = ListingPace()

    def recognises(self, inode: Inode) -> bool:
        """Note that *inode* is about to be listed; whether that is a step of a walk."""
        parent = inode.parent
        if inode.top or parent is None or self._tree.options.metadata_ttl <= 0:
            return False  # what is listed with others would not be believed when its turn comes
        if not inode.hangs:
            return False  # what lies below its key would be placed in whatever has its name now
        now = trio.current_time()
        beside = any(above is parent and other is not inode and now - at < LATE for at, above, other in self._recent)
        self._recent.append((now, parent, inode))
        return beside or inode in self._running or self._going_on(inode) is not None

    def _going_on(self, inode: Inode) -> _Run | None:
        """The listing that stopped inside *inode* a short while ago, when nothing was changed here since.

        A change between two listings is remembered by nobody: what the first one saw would be believed against it.
        """
        now = trio.current_time()
        self._stopped = [run for run in self._stopped if run.stopped == self._tree.sequence and now - run.at < LATE]
        return next((run for run in reversed(self._stopped) if inode in run.partial), None)

    def _stop(self, run: _Run) -> None:
        run.stopped = self._tree.sequence
        self._stopped.append(run)
        del self._stopped[:-MOST_STOPPED]

    async def load(self, inode: Inode, load: Load) -> bool:
        """Fill *inode* and some of what lies beside it; False when its subtree is too large for that."""
        directory = self._tree.directory(inode)
        while not directory.complete():
            run = self._running.get(inode)
            if run is None:
                if not (inode.hangs and await self._fill(inode, load.kinds)):
                    return False
                break
            await run.ended.wait()
        load.entries.extend(directory.children.items())
        return True

    def passes(self, inode: Inode) -> None:
        """Somebody reads *inode*, whose names are known: what the walk will want soon is listed before it is there."""
        edge, step = self._onward.pop(inode, (None, 0))
        if edge is None or edge.parent is None or edge.parent is not inode.parent or not (inode.hangs and edge.hangs):
            return
        if self._tree.directory(edge.parent).complete():
            self._begin(self._plan(edge, step))

    async def _fill(self, inode: Inode, kinds: bool) -> bool:
        run = self._going_on(inode)
        if run is None:
            run, *ahead = self._plan(inode)
        else:
            self._stopped.remove(run)
            run.ended = trio.Event()
            ahead = self._plan(inode)[1:] if run.scope is inode.parent else []
            if any(one.prefix != run.prefix for one in ahead) and run.marker.startswith(inode.key):
                run.prefix = inode.key  # each of the next ones is listed by itself
        run.wanted = tuple(other for other in {*run.wanted, inode} if not self._tree.directory(other).complete())
        together = (run, *ahead)
        for one in together:
            one.kinds = kinds
        self._running.update((other, run) for other in run.wanted if other not in self._running)
        self._begin(ahead, together)
        return await self._made(run, inode, together)

    def _begin(self, ahead: Sequence[_Run], together: Sequence[_Run] = ()) -> None:
        """Begin to list what nobody wants yet."""
        for one in ahead:
            self._running.update((other, one) for other in one.wanted if other not in self._running)
            self._tree.nursery.start_soon(self._unasked, one, together or ahead)

    async def _unasked(self, run: _Run, together: Sequence[_Run]) -> None:
        """A page of what the walk will come to."""
        run.at, run.sequence = trio.current_time(), self._tree.sequence
        try:
            await self._made(run, None, together)
        except OSError as exc:
            log.debug("what lies behind %s stays unlisted: %s", run.begin, exc)

    async def _made(self, run: _Run, wanted: Inode | None, together: Sequence[_Run]) -> bool:
        """Make *run*, one of those that are made *together*; whether *wanted* is complete then."""
        try:
            with self._tree.flying.request(run.sequence):
                return await self._pages(run, wanted, MOST_PAGES if wanted is not None else run.pages)
        finally:
            for one in run.wanted:
                if self._running.get(one) is run:
                    del self._running[one]
            run.ended.set()
            if all(one.ended.is_set() for one in together):
                self._pace.answered(len(together), max(one.slowest for one in together))

    def _plan(self, wanted: Inode, step: int = 0) -> list[_Run]:
        """Listings to be made at once; the first one fills *wanted*, or, with a *step*, the first one from there on that needs it."""
        tree = self._tree
        scope = wanted.parent
        assert scope is not None

        def of(some: Sequence[Inode], alone: int = 0) -> _Run:
            begin = some[0].key  # its own marker is left out; SeaweedFS knows no order but that of its directories
            prefix, pages = (begin, min(alone + 1, MOST_PAGES)) if alone else (scope.key, 1)
            return _Run(scope, prefix, begin, begin, tree.sequence, tree.moves, wanted=tuple(some), pages=pages, partial={some[0]: set()})

        known = tree.directory(scope)
        if not known.complete() or len(known.children) > MOST_SIBLINGS:
            return [of([wanted])]
        inside = (child for child in known.children.values() if child.is_dir)
        siblings = sorted(inside, key=lambda child: f"{child.part}/".encode("utf-8", "surrogateescape"))
        there = [child in self._running or tree.directory(child).complete() for child in siblings]
        at = siblings.index(wanted)
        if step:
            first = first_unknown(there, at, step)
            if first is None:
                return []
            at = first
        near = [len(tree.directory(siblings[n]).children) for n in (at - 1, at + 1) if 0 <= n < len(siblings) and there[n]]
        each = self._each.get(scope) or max(near, default=0)
        width = self._pace.width if tree.lists_kinds else min(self._pace.width, 2)  # HEADs may follow, many a page
        found = portions(there, at, each, PAGE, width)
        then = onward(found, at, len(siblings))
        if then is not None and tree.lists_kinds:
            while len(self._onward) >= MOST_STOPPED:
                del self._onward[next(iter(self._onward))]
            half, edge = then
            self._onward[siblings[half]] = siblings[edge], 1 if edge > at else -1
        alone = pages_of(each, PAGE) if len(found) > 1 and all(len(some) == 1 for some in found) else 0
        return [of([siblings[n] for n in some], alone) for some in found]

    async def _pages(self, run: _Run, wanted: Inode | None, most: int) -> bool:
        """List up to *most* pages; whether *wanted* is complete then."""
        tree, scope = self._tree, run.scope
        for _ in range(most):
            if tree.moves != run.moves:
                return False
            sequence, asked = tree.sequence, trio.current_time()
            page = await tree.removed.list_page(scope.store, run.prefix, marker=run.marker)
            run.slowest = max(run.slowest, trio.current_time() - asked)
            complete = await self._take(run, page, sequence)
            if complete is None or (wanted is not None and wanted not in complete and wanted not in run.partial):
                return False
            run.marker = page.next_marker
            if not run.marker or wanted in complete:
                break
        else:
            if wanted is not None:
                return False
        if run.marker and run.partial:
            self._stop(run)
        return True

    async def _take(self, run: _Run, page: ListPage, sequence: int) -> set[Inode] | None:
        """Place a page's objects; returns the directories that are complete with it.

        None when directories on the way were changed here since the page was asked for (at the tree's *sequence*): it cannot be told
        any more where its keys belong.
        """
        tree, scope, loader = self._tree, run.scope, self._loader
        skip = len(scope.key)
        known = await loader.remembered_keys(scope, page.objects)
        if tree.moves != run.moves or scope.unlinked:
            return None
        fresh: list[tuple[bytes, Inode]] = []
        trail: list[tuple[str, Inode]] = []
        passed = ""  # what lies below this is known
        placed = whole = 0  # names, and how many of them lie below directories that the page goes on behind
        objects, following = page.objects, 0
        while following < len(objects):
            info, at = objects[following], following
            following += 1
            parts = info.key[skip:].split("/")
            if parts[0] == passed and len(parts) > 1:
                continue
            depth = 0
            while depth < len(trail) and depth < len(parts) - 1 and trail[depth][0] == parts[depth]:
                depth += 1
            if not depth:
                whole = placed
            del trail[depth:]
            directory = trail[-1][1] if trail else scope
            for part in parts[depth:-1]:
                below = loader.place(directory, part, True, None, run.partial.get(directory), sequence, fresh)
                if below is None or not below.is_dir:
                    return None
                if directory is scope and below not in run.partial and tree.directory(below).complete():
                    passed = part
                    break
                directory = below
                trail.append((part, directory))
                if directory not in run.partial and run.begins_before(directory):
                    run.partial[directory] = set()
            if parts[0] == passed and len(parts) > 1:
                continue
            seen = run.partial.get(directory)
            prefix = info.key[: len(info.key) - len(parts[-1])]
            done = tree.settle_plain(directory, objects, at, len(objects), prefix, known, seen, fresh)
            if done > at:
                placed += done - at
                if directory is scope:
                    whole = placed - 1
                following = done
                continue
            placed += 1
            if not parts[-1]:
                if directory is not scope:
                    loader.marker(directory, info)
                if not info.size:
                    continue
            loader.place(directory, parts[-1], False, known.get(info.key, info), seen, sequence, fresh)
        if run.kinds:
            await loader.sweep_unsure([child for _, child in fresh])
            if tree.moves != run.moves:
                return None
        stopped_at, complete = page.next_marker, set()
        for directory in [one for one in run.partial if not (stopped_at and stopped_at.startswith(one.key))]:
            seen = run.partial.pop(directory)
            if directory.hangs and loader.finish(directory, seen, run.at, run.sequence):
                complete.add(directory)
                if directory.marker is None and directory.key != run.begin:
                    directory.marker = False  # its own object would have come first
        self._count(run, placed, whole if stopped_at else placed, sum(one.parent is scope for one in complete))
        return complete

    def _count(self, run: _Run, placed: int, whole: int, directories: int) -> None:
        """Learn how many names one directory in the scope has below it: of *placed* names *whole* lie below *directories* that are
        complete, beside those that were seen of the first one before.
        """
        while len(self._each) >= MOST_STOPPED:
            del self._each[next(iter(self._each))]
        before = self._each.pop(run.scope, 0.0)
        if directories:
            guess = (run.names + whole) / directories
            self._each[run.scope] = (before + guess) / 2 if before else guess
            run.names = placed - whole
        else:
            run.names += placed
            self._each[run.scope] = max(before, run.names)
