"""Listing directories: pages from the store become names in the tree, and stream to whoever reads the directory (reading.py).

Owns: the loads under way (one a directory, however many ask) and which directories' names are kept in memory. A directory of a
million keys gives its first names after the first page. May use: the store through the inodes. Must not know: the kernel.
"""

from __future__ import annotations

import logging
import stat
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import cachetools
import trio

from zosfs.errors import StoreError
from zosfs.store.api import ListPage, ObjectInfo
from zosfs.store.objects import is_folder
from zosfs.tree.attributes import Attributes
from zosfs.tree.by_name import just_before, reach, reach_of_next
from zosfs.tree.inodes import Inode, Volume
from zosfs.tree.names import ESCAPED, file_beside_directory, part_to_name
from zosfs.tree.pages import Pages
from zosfs.tree.reading import Load
from zosfs.tree.spread import bytewise
from zosfs.tree.walk import Walks

if TYPE_CHECKING:
    from zosfs.tree.tree import Tree

log = logging.getLogger(__name__)

PAGE = 1000
KEPT_ENTRIES = 1_000_000
"""Names kept in memory over all directories; the least recently listed directories that nobody uses are dropped beyond."""

STALE = 10.0
"""Seconds between two looks for listings that are not worth their memory any more, at least."""

SYMLINK_MAX = 4096
"""A target of a symbolic link is shorter than this (PATH_MAX counts its NUL), a FIFO is an empty object: smaller ones need a HEAD."""


class _Kept(cachetools.LRUCache[int, Inode]):
    """Listed directories by inode number, measured by their names."""

    def __init__(self) -> None:
        # one directory may be larger than all that is kept: it is kept alone then
        most = KEPT_ENTRIES
        super().__init__(most, getsizeof=lambda inode: min(most, 1 + len(inode.directory.children) if inode.directory else 1))
        self.dropped: list[Inode] = []  # had to go

    def popitem(self) -> tuple[int, Inode]:
        number, inode = super().popitem()
        self.dropped.append(inode)
        return number, inode


class Loader:
    """Loads directories for a Tree."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._kept = _Kept()
        self._walks = Walks(tree, self)

    # -- who asks ---------------------------------------------------------------------------------------------------

    def read(self, inode: Inode, *, kinds: bool) -> tuple[Load | None, Sequence[tuple[bytes, Inode]]]:
        """The entries of a directory: a snapshot when they are fresh, else a load that goes on filling them in. *kinds*: it will be asked
        for what they are, too."""
        directory = self._tree.directory(inode)
        if directory.complete():
            self.keep(inode)
            self._walks.passes(inode)
            return None, list(directory.children.items())
        load = self._start(inode)
        load.kinds = load.kinds or kinds
        return load, ()

    def _start(self, inode: Inode) -> Load:
        directory = self._tree.directory(inode)
        load = directory.loading
        if isinstance(load, Load) and directory.doubted_at >= load.began:
            load.outdated = True
        if not isinstance(load, Load) or load.outdated:
            load = Load()
            directory.loading = load
            self._tree.nursery.start_soon(self._run, inode, load)
        return load

    def resume(self, inode: Inode, load: Load) -> None:
        """Go on with a load that paused."""
        load.done = False
        self._tree.nursery.start_soon(self._run, inode, load)

    def keep(self, inode: Inode) -> None:
        """The names of directory *inode* are in use: those of others go first."""
        self._kept.pop(inode.number, None)
        self._kept[inode.number] = inode
        while self._kept.dropped:  # not before *inode* is kept: it may be the directory of one of them, which stays in it then
            self._tree.forget_names(self._kept.dropped.pop())

    def keeps(self, inode: Inode) -> bool:
        """Whether the names of directory *inode* are kept although nobody may refer to them."""
        return inode.number in self._kept

    def discard(self, inode: Inode) -> None:
        """The directory is gone."""
        self._kept.pop(inode.number, None)

    async def give_back(self) -> None:
        """Let go of names that nobody refers to when their listing has been stale for a while; never returns."""
        ttl = self._tree.options.metadata_ttl
        while True:
            await trio.sleep(max(ttl, STALE))
            for number in list(self._kept):
                inode = self._kept.get(number)
                if inode is None or inode.directory is None or inode.directory.loading is not None:
                    continue
                if inode.directory.complete_until + ttl < trio.current_time():
                    self.discard(inode)
                    self._tree.forget_names(inode)
                    await trio.lowlevel.checkpoint()

    def current(self, directory: Inode, name: bytes, inode: Inode) -> Inode | None:
        """What *name* is by now, listed as *inode* a while ago: None when it was removed or renamed."""
        known = self._tree.directory(directory)
        current = known.children.get(name)
        if current is not None or inode.unlinked or inode.parent is not directory or inode.name != name:
            return current
        if known.complete() or self._tree.outlived(inode):
            return None
        return self._tree.hang(inode)  # forgotten to save memory, and needed after all

    async def first_page(self, inode: Inode, name: bytes) -> None:
        """Make the directory listed if one page does it; a larger one is marked huge. Raises StoreError, unless *name* has been seen."""
        load = self._start(inode)
        await load.first.wait()
        if name in self._tree.directory(inode).children:
            return
        if load.failure is not None:
            raise load.failure

    async def page_from(self, inode: Inode, key: str, sequence: int) -> bool:
        """Learn the names of *inode* from *key* on, a page of them, asked for at *sequence*: whether all that may be called like the
        last part of *key* is known now. Raises StoreError."""
        directory, prefix, behind, asked = self._tree.directory(inode), inode.key, just_before(key), trio.current_time()
        moves = self._tree.moves
        page = await self._tree.removed.list_page(inode.store, prefix, delimiter="/", marker=behind)
        known = await self.remembered(inode, page.objects)
        if inode.unlinked or self._tree.moved(inode, moves) or directory.doubted_at >= asked:
            return False
        whole = reach(page, behind)
        # of a file near the end of the page it is not known whether there is a directory of its name, too
        sure = ListPage([info for info in page.objects if whole.tells(info.key)], page.prefixes, page.next_marker)
        self._hang(inode, prefix, sure, known, sequence, set())
        directory.note_told(whole.below(prefix), asked + self._tree.options.metadata_ttl)
        self.keep(inode)
        return whole.tells(key)

    async def load_buckets(self, root: Inode) -> None:
        """List the account's buckets into the root."""
        load = self._start(root)
        while not load.done:
            await load.progress.wait()
        if load.failure is not None:
            raise load.failure

    # -- loading ----------------------------------------------------------------------------------------------------

    async def _run(self, inode: Inode, load: Load) -> None:
        tree = self._tree
        directory = tree.directory(inode)
        started, sequence, resumed = trio.current_time(), tree.sequence, bool(load.marker)
        whole = False
        try:
            with tree.flying.request(sequence):
                if inode.volume is None:
                    await self._buckets(inode, load, sequence)
                    whole = True
                elif resumed:
                    await self._pages(inode, load)
                elif self._walks.recognises(inode) and await self._walks.load(inode, load):
                    pass
                else:
                    whole = await self._pages(inode, load)
                if whole and not inode.unlinked:
                    if not load.outdated:
                        self.finish(inode, load.seen, started, sequence)
                    # what was made here meanwhile is on no page, or was taken away and made again after its page
                    shown = {name for name, _ in load.entries}
                    if not shown.issuperset(directory.children):
                        load.entries.extend(entry for entry in directory.children.items() if entry[0] not in shown)
        except OSError as exc:
            load.failure = exc
        except Exception:
            log.exception("listing %s failed unexpectedly", inode)
            load.failure = StoreError("BadAnswer", operation="list", key=inode.path().decode("utf-8", "replace"))
        finally:
            if directory.loading is load:
                directory.loading = None
            if directory.children and not self.keeps(inode) and not inode.unlinked:
                self.keep(inode)  # part of a large directory, or passed over while it was being loaded
            load.done = True
            load.first.set()
            load.advance()

    def finish(self, inode: Inode, seen: set[bytes], started: float, sequence: int) -> bool:
        """Everything of *inode* was listed since *started* (and the tree's *sequence* of then): what was not *seen* is gone.

        False when some of what was seen has been forgotten already to save memory, or somebody told of changes meanwhile: the names are
        not all there.
        """
        tree = self._tree
        directory = tree.directory(inode)
        children = directory.children
        for name in children.keys() - seen:
            if not directory.newer_than(name, sequence):
                tree.vanished(inode, name)
        whole = all(directory.newer_than(name, sequence) for name in seen.difference(children))
        for name in [name for name in children if name.startswith(ESCAPED)]:
            child = children[name]
            plain = part_to_name(child.part)
            if not child.is_dir and name != plain and plain not in children and not child.dirty:
                del children[name]
                child.call(plain, child.part)
                children[plain] = child
        whole = whole and directory.doubted_at < started
        directory.complete_until = started + tree.options.metadata_ttl if whole else float("-inf")
        directory.listed_at = trio.current_time()
        directory.huge = directory.huge and len(children) >= PAGE
        self.keep(inode)
        return whole

    async def _buckets(self, root: Inode, load: Load, sequence: int) -> None:
        tree = self._tree
        directory = tree.directory(root)
        for name, created in await tree.account.list_buckets():
            shown = name.encode()
            child = directory.children.get(shown)
            if child is None and directory.newer_than(shown, sequence):
                continue  # deleted here meanwhile
            if child is None:
                defaults = tree.defaults
                child = tree.new_inode(
                    root, shown, name, True,
                    Attributes(stat.S_IFDIR | defaults.dir_mode, defaults.uid, defaults.gid, 0, created, created, created),
                )  # fmt: skip
                child.volume = Volume(tree.account.bucket(name), "", name, defaults)
                child.known = child.marker = True
                directory.children[shown] = child
            child.fresh_until = trio.current_time() + tree.options.metadata_ttl
            load.seen.add(shown)
            load.entries.append((shown, child))

    async def _pages(self, inode: Inode, load: Load) -> bool:
        """Apply page after page; False when nobody wants what lies behind `load.marker`, or the directory is gone."""
        tree = self._tree
        directory, moves = tree.directory(inode), load.moves
        marker, load.marker = load.marker, ""
        pages, load.pages = load.pages, None
        if not marker:
            load.local = {name for name, child in directory.children.items() if child.dirty}
            load.entries.extend((name, directory.children[name]) for name in load.local)
        if pages is not None:
            marker = pages.keep(directory, marker)
        while True:
            if pages is None or tree.moved(inode, moves):
                # the first page; or renamed meanwhile, and what was said of the old place may be half of the truth
                pages, moves, marker = Pages(tree, inode.store, inode.key), tree.moves, ""
                load.local.update(name for name, _ in load.entries)
                load.seen.clear()
            page, sequence = await pages.after(marker)
            if page.next_marker and load.readers:
                pages.ask(page)
            known = await self.remembered(inode, page.objects)
            if inode.unlinked:
                return False
            if tree.moved(inode, moves):
                continue
            behind, marker = marker, page.next_marker
            self._apply(inode, pages.prefix, page, known, load, sequence)
            load.advance()
            if not marker:
                return True
            if directory.doubted_at < load.began:
                directory.note_told(reach_of_next(page, behind).below(pages.prefix), load.began + tree.options.metadata_ttl)
            directory.huge = True
            load.first.set()
            await pages.coming(marker)
            if not load.readers:
                # nobody reads on for now: a reader between two batches comes back within a moment
                with trio.move_on_after(1.0):
                    load.onward = trio.Event()
                    await load.onward.wait()
                if not load.readers and not load.onward.is_set():
                    load.marker, load.pages, load.moves = marker, pages, moves
                    return False

    def _apply(self, inode: Inode, prefix: str, page: ListPage, known: Mapping[str, ObjectInfo], load: Load, sequence: int) -> None:
        fresh = self._hang(inode, prefix, page, known, sequence, load.seen, outdated=load.outdated)
        if inode.marker is None and not page.next_marker and not any(o.key == prefix for o in page.objects):
            inode.marker = False
        # a file that had to make room for its directory on this very page is in *fresh* twice, under one name by now
        shown = dict.fromkeys([child.name for _, child in fresh])
        children = self._tree.directory(inode).children
        load.entries.extend([(name, children[name]) for name in shown if name not in load.local and name in children])

    def _hang(
        self, inode: Inode, prefix: str, page: ListPage, known: Mapping[str, ObjectInfo], sequence: int, seen: set[bytes],
        *, outdated: bool = False,
    ) -> list[tuple[bytes, Inode]]:  # fmt: skip
        """Hang the names of *page* into *inode*, and add them to *seen*; returns them. *known* is what the attribute cache has of them, by
        key. What the tree knows already is newer than an *outdated* page."""
        tree = self._tree
        skip = len(prefix)
        fresh: list[tuple[bytes, Inode]] = []
        objects, at = page.objects, 0
        for below in (*page.prefixes, None):
            end = len(objects) if below is None else bisect_left(objects, bytewise(below), at, key=lambda info: bytewise(info.key))
            while at < end:
                if not outdated:
                    at = tree.settle_plain(inode, objects, at, end, prefix, known, seen, fresh)
                    if at == end:
                        break
                info = objects[at]
                at += 1
                if info.key == prefix:
                    self.marker(inode, info)
                # a marker with a body is shown as a file, too, whose part is empty: nothing is dropped silently
                wanted = info.key != prefix or info.size > 0
                if wanted and not (outdated and self._shown(inode, info.key[skip:], seen, fresh)):
                    self.place(inode, info.key[skip:], False, known.get(info.key, info), seen, sequence, fresh)
            if below is not None and not (outdated and self._shown(inode, below[skip:-1], seen, fresh)):
                self.place(inode, below[skip:-1], True, None, seen, sequence, fresh)
        return fresh

    def _shown(self, inode: Inode, part: str, seen: set[bytes], fresh: list[tuple[bytes, Inode]]) -> bool:
        """Show *part* as it is known, if it is."""
        name = part_to_name(part)
        child = self._tree.directory(inode).children.get(name)
        if child is not None:
            seen.add(name)
            fresh.append((name, child))
        return child is not None

    def is_unsure(self, child: Inode) -> bool:
        """Whether nothing told yet what *child* is: its name is in a listing, which says the same of a file and of a symbolic link."""
        return not child.known and not child.is_dir and not self._tree.lists_kinds and child.size < SYMLINK_MAX

    def any_unsure(self, children: Iterable[Inode]) -> bool:
        """Whether any of *children* is unsure (see is_unsure)."""
        return not self._tree.lists_kinds and any(map(self.is_unsure, children))

    async def sweep_unsure(self, children: Iterable[Inode]) -> None:
        """HEAD those whose very type a listing cannot tell; who refuses stays guessed."""
        unsure = [child for child in children if self.is_unsure(child)]
        if unsure:
            await self._tree.try_all(unsure)

    def begin_sweep(self, children: Sequence[Inode]) -> trio.Event:
        """As `sweep_unsure`, in the background; what is returned is set when it has ended."""
        ended = trio.Event()

        async def sweep() -> None:
            try:
                await self.sweep_unsure(children)
            finally:
                ended.set()

        self._tree.nursery.start_soon(sweep)
        return ended

    async def remembered_keys(self, top: Inode, objects: Sequence[ObjectInfo]) -> dict[str, ObjectInfo]:
        """What the attribute cache has of *objects* anywhere below *top*, by key."""
        cache = self._tree.cache
        return await cache.get_many(top.store.bucket, objects) if cache is not None and objects else {}

    async def remembered(self, inode: Inode, objects: Sequence[ObjectInfo]) -> dict[str, ObjectInfo]:
        """What the attribute cache has of those objects of one directory that are not known yet, by key."""
        cache = self._tree.cache
        if cache is None or not objects:
            return {}
        children = self._tree.directory(inode).children
        skip = len(inode.key)
        unknown = []
        for info in objects:
            child = children.get(part_to_name(info.key[skip:]))
            if child is None or not child.known:
                unknown.append(info)
        return await cache.get_many(inode.store.bucket, unknown) if unknown else {}

    def marker(self, inode: Inode, info: ObjectInfo) -> None:
        """The listing of a directory shows its own object: whether its attributes are still what we know."""
        inode.marker = not is_folder(info)
        if inode.top or inode.dirty:
            return
        tree = self._tree
        before = inode.info
        tree.learn(inode, info)
        if before is not inode.info and inode.info is info and tree.options.posix:
            inode.known = False

    def place(
        self, inode: Inode, part: str, is_dir: bool, info: ObjectInfo | None, seen: set[bytes] | None, sequence: int,
        fresh: list[tuple[bytes, Inode]],
    ) -> Inode | None:  # fmt: skip
        """Hang what a listing says of one part into *inode*; adds it to *seen* and *fresh*, and returns its inode.

        The listing was asked for at the tree's *sequence*: names changed here since are left as they are, and None is returned.
        """
        tree = self._tree
        directory = tree.directory(inode)
        name = part_to_name(part)
        if directory.newer_than(name, sequence):
            # the listing cannot tell either what of a file and a directory of this name there is now
            for known in (name, file_beside_directory(part)):
                child = directory.children.get(known)
                if child is not None:
                    if seen is not None:
                        seen.add(known)
                    fresh.append((known, child))
            return None
        other = directory.children.get(name)
        if other is not None and other.is_dir != is_dir and not other.dirty:
            if not is_dir:
                name = file_beside_directory(part)
            elif seen is not None and name in seen:
                # the file came first: the directory takes the plain name
                beside = file_beside_directory(part)
                del directory.children[name]
                other.call(beside, other.part)
                directory.children[beside] = other
                seen.add(beside)
                fresh.append((beside, other))
        if seen is not None:
            seen.add(name)
        if directory.newer_than(name, sequence):
            child = directory.children.get(name)
            if child is not None:
                fresh.append((name, child))
            return None
        child = tree.settle(inode, name, part, is_dir, info)
        fresh.append((name, child))
        return child
