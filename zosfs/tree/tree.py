"""The tree of names: lookups, attributes, own changes. Listings are in zosfs.tree.listing.

Owns: the inodes and which of them hangs where. Lookups of one name, and loads of one directory, are flown once however many ask.
Concurrency: between two awaits a task owns all state; own changes have no await at all.
"""

from __future__ import annotations

import dataclasses
import errno
import itertools
import logging
import os
import stat
import time
from collections.abc import AsyncIterator, Collection

import trio

from zosfs.config import Options
from zosfs.counters import Counters
from zosfs.errors import StoreError
from zosfs.store.api import Account, ObjectInfo, Store
from zosfs.store.objects import objects_below
from zosfs.tree.attribute_cache import AttributeCache
from zosfs.tree.attributes import Attributes, Defaults, from_object
from zosfs.tree.directory import Directory, Flying
from zosfs.tree.inodes import Inode, InodeTable, Volume
from zosfs.tree.listing import Listing, Loader
from zosfs.tree.names import FILE, KEY_MAX, LONG, NAME_MAX, name_to_part, part_to_name

__all__ = ["Listing", "Tree"]

log = logging.getLogger(__name__)

SWEEP_WIDTH = 256
"""HEADs of one sweep under way: more than connections, because the store sends those that wait in batches."""
FIRST_SWEEP = 32
TICK = 0.02
"""Seconds."""

def _fail(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def same_version(a: ObjectInfo, b: ObjectInfo) -> bool:
    """Whether two answers speak of the same version. HEAD tells whole seconds, listings milliseconds."""
    if a.etag != b.etag or a.size != b.size:
        return False
    second = 10**9
    if a.modified_ns % second and b.modified_ns % second:
        return a.modified_ns == b.modified_ns
    return a.modified_ns // second == b.modified_ns // second


class _Flight:
    """A HEAD under way that others may wait for."""

    __slots__ = ("arrived", "began", "done")

    def __init__(self) -> None:
        self.began = trio.current_time()
        self.done = trio.Event()
        self.arrived = False  # with an answer


class Tree:
    """The names of one bucket, or of an account's buckets."""

    def __init__(
        self,
        options: Options,
        counters: Counters,
        nursery: trio.Nursery,
        defaults: Defaults,
        cache: AttributeCache | None,
        *,
        volume: Volume | None,
        account: Account | None = None,
    ) -> None:
        self.options = options
        self.counters = counters
        self.nursery = nursery
        self.defaults = defaults
        self.cache = cache
        self.sequence = 0
        self.moves = 0  # directories renamed so far: their keys changed
        self.flying = Flying()
        self._moment = self._later = float("-inf")
        self._account = account
        self._table = InodeTable()
        self._flights: dict[tuple[int, bytes], trio.Event] = {}
        self._heads: dict[int, _Flight] = {}
        self._loader = Loader(self)
        now = time.time_ns()
        self.root = self._table.allocate(
            None, b"", "", True, volume, Attributes(stat.S_IFDIR | defaults.dir_mode, defaults.uid, defaults.gid, 0, now, now, now)
        )
        self.root.lookups = 1
        self.root.known = True
        self.root.marker = True
        self.root.directory = Directory()
        nursery.start_soon(self._loader.give_back)

    def _now(self) -> float:
        """About now, by TICK: one float for all that was learnt together, instead of one for each of a million names."""
        now = trio.current_time()
        if now - self._moment > TICK:
            self._moment, self._later = now, now + self.options.metadata_ttl
        return self._moment

    def _fresh_until(self) -> float:
        """Until when to believe what was just learnt."""
        self._now()
        return self._later

    # -- inodes -----------------------------------------------------------------------------------------------------

    def get(self, number: int) -> Inode:
        """KeyError when the kernel means an inode that is gone."""
        return self._table.get(number)

    def find(self, number: int) -> Inode | None:
        """As `get`; None when the inode is gone."""
        return self._table.find(number)

    def __len__(self) -> int:
        return len(self._table)

    def remember(self, inode: Inode, n: int = 1) -> None:
        """The kernel was told of *inode* *n* times more."""
        self.hang(inode).lookups += n

    def forget(self, number: int, n: int) -> None:
        """The kernel dropped *n* of its references; an inode that nobody needs is let go. Never raises."""
        try:
            inode = self._table.get(number)
        except KeyError:
            return
        inode.lookups -= n
        self._let_go(inode)

    def hang(self, inode: Inode) -> Inode:
        """*inode* is needed: put it back where it may have been forgotten meanwhile. Returns which inode has its number now."""
        living = self._table.keep(inode)
        if living is not inode:
            return living
        parent = inode.parent
        if parent is not None and not inode.unlinked and parent.directory is not None:
            parent.directory.children.setdefault(inode.name, inode)
        return inode

    def forget_names(self, parent: Inode) -> None:
        """The names of directory *parent* are not worth their memory any more: drop those that nobody refers to."""
        directory = parent.directory
        if directory is None or directory.loading is not None:
            return
        directory.complete_until = float("-inf")
        for child in list(directory.children.values()):
            self._let_go(child)

    def _let_go(self, inode: Inode) -> None:
        """Drop *inode* unless somebody refers to it or its directory's names are kept; then its parents, likewise."""
        while inode.parent is not None and inode.lookups <= 0 and not inode.pins and not inode.dirty:
            known, parent = inode.directory, inode.parent
            if known is not None and (known.children or known.loading is not None):
                return
            if not inode.unlinked:
                if self._loader.keeps(parent):
                    return
                above = self.directory(parent)
                if above.loading is not None:
                    return
                above.complete_until = float("-inf")
                if above.children.get(inode.name) is inode:
                    del above.children[inode.name]
            if known is not None:
                self._loader.discard(inode)
            self._table.discard(inode)
            inode = parent

    def new_inode(self, parent: Inode, name: bytes, part: str, is_dir: bool, attributes: Attributes | None = None) -> Inode:
        """An inode below *parent*, not hung into it yet."""
        inode = self._table.allocate(parent, name, part, is_dir, parent.volume, attributes)
        if is_dir:
            inode.directory = Directory()
        return inode

    def directory(self, inode: Inode) -> Directory:
        """What is known of a directory's names; ENOTDIR for a file, ENOENT for a removed directory."""
        if inode.directory is None:
            raise _fail(errno.ENOTDIR)
        return inode.directory

    def check_name(self, parent: Inode, name: bytes) -> None:
        """ENAMETOOLONG for a name over 255 bytes or a key over 1024; ENOENT below a removed directory."""
        if len(name) > NAME_MAX:
            raise _fail(errno.ENAMETOOLONG)
        if parent.unlinked:
            raise _fail(errno.ENOENT)
        if parent.volume is not None and len(self.key_of(parent, name).encode("utf-8", "surrogatepass")) > KEY_MAX:
            raise _fail(errno.ENAMETOOLONG)

    def key_of(self, parent: Inode, name: bytes) -> str:
        """The key of a file *name* in *parent*."""
        return parent.key + name_to_part(name)

    # -- looking up -------------------------------------------------------------------------------------------------

    def peek(self, parent: Inode, name: bytes) -> Inode | bool | None:
        """What can be said of a name without a request: its inode, None (missing), or False (not known)."""
        directory = parent.directory
        if directory is None:
            return False
        inode = directory.children.get(name)
        if inode is not None:
            if inode.dirty or trio.current_time() < inode.fresh_until or directory.complete():
                return inode
            return False
        if directory.complete() or directory.is_missing(name):
            return None
        return False

    async def lookup(self, parent: Inode, name: bytes) -> Inode | None:
        """The inode of *name* in *parent*, None when there is none. Raises ENOTDIR, ENAMETOOLONG, StoreError."""
        if len(name) > NAME_MAX:
            raise _fail(errno.ENAMETOOLONG)
        directory = self.directory(parent)
        while True:
            found = self.peek(parent, name)
            if not isinstance(found, bool):
                self.counters.add("negative_hits" if found is None else "listing_hits")
                return found
            flight = self._flights.get((parent.number, name))
            if flight is None:
                break
            await flight.wait()
        self.counters.add("listing_misses")
        flight = self._flights[parent.number, name] = trio.Event()
        parent.pins += 1  # not to be forgotten while its names are being listed
        try:
            if parent.volume is None:
                await self._loader.load_buckets(parent)
                return directory.children.get(name)
            if not directory.huge and self.options.metadata_ttl > 0:
                await self._loader.first_page(parent)
                found = self.peek(parent, name)
                if not isinstance(found, bool):
                    return found
            return await self._ask(parent, directory, name)
        finally:
            parent.pins -= 1
            del self._flights[parent.number, name]
            flight.set()

    async def _ask(self, parent: Inode, directory: Directory, name: bytes) -> Inode | None:
        """HEAD of the file and LIST below the directory of that name at once: for directories too large to list."""
        with self.flying.request(self.sequence):
            return await self._ask_now(parent, directory, name)

    async def _ask_now(self, parent: Inode, directory: Directory, name: bytes) -> Inode | None:
        sequence, moves = self.sequence, self.moves
        part = name_to_part(name)
        if name.startswith(LONG.encode()):
            part = await self._long_part(parent, name)
        key = parent.key + part
        if len(key.encode("utf-8", "surrogatepass")) > KEY_MAX:
            return None
        store = parent.store
        info: ObjectInfo | None = None
        below = False
        failure: OSError | None = None

        async def head() -> None:
            nonlocal info, failure
            try:
                found = await store.head(key)
                info = found if part or found.size > 0 else None
            except StoreError as exc:
                if exc.errno != errno.ENOENT:
                    failure = exc

        async def list_below() -> None:
            nonlocal below, failure
            try:
                page = await store.list_page(key + "/", max_keys=1)
                below = bool(page.objects or page.prefixes)
            except StoreError as exc:
                failure = exc

        async with trio.open_nursery() as nursery:
            nursery.start_soon(head)
            nursery.start_soon(list_below)
        if parent.unlinked:
            return None
        if self.moves != moves and parent.key + part != key:
            return await self._ask_now(parent, directory, name)  # renamed meanwhile: the answers are of another place
        if failure is not None:
            raise failure
        if directory.newer_than(name, sequence):
            return directory.children.get(name)
        if info is not None and directory.hides(part, info.etag):
            info = None
        beside = name.startswith(FILE.encode()) and part_to_name(part) != name
        if beside and not below:
            info = None  # without the directory the file has its plain name
        if below and not beside:
            return self.settle(parent, name, part, True, None)
        if info is not None:
            return self.settle(parent, name, part, False, info)
        self.vanished(parent, name)
        directory.note_missing(name, self.options.negative_ttl)
        return None

    async def _long_part(self, parent: Inode, name: bytes) -> str:
        """The part of over 255 bytes that is shown as *name*: found by listing what begins like it. *name* itself without one."""
        text = name.decode("utf-8", "replace")
        begin = parent.key + text[len(LONG) + 17 :]
        marker = ""
        while True:
            page = await parent.store.list_page(begin, delimiter="/", marker=marker)
            for key in (*(info.key for info in page.objects), *(below[:-1] for below in page.prefixes)):
                part = key[len(parent.key) :]
                if part_to_name(part) == name:
                    return part
            marker = page.next_marker
            if not marker:
                return text

    # -- facts from the store ---------------------------------------------------------------------------------------

    def settle(self, parent: Inode, name: bytes, part: str, is_dir: bool, info: ObjectInfo | None) -> Inode:
        """The store says that *name* is this; *info* is of a HEAD, or of a listing (no metadata), or None (directories)."""
        directory = self.directory(parent)
        inode = directory.children.get(name)
        if inode is not None and inode.is_dir != is_dir:
            if inode.dirty:
                return inode
            self.vanished(parent, name)
            inode = None
        if inode is None:
            inode = self.new_inode(parent, name, part, is_dir)
            directory.children[name] = inode
            directory.negative.pop(name, None)
            inode.known = not self.options.posix
        if inode.dirty:
            return inode
        if info is not None:
            self.learn(inode, info)
        elif is_dir and inode.info is None and self.options.posix is False:
            inode.known = True
        inode.fresh_until = self._fresh_until()
        return inode

    def learn(self, inode: Inode, info: ObjectInfo) -> None:
        """Take over what the store says of *inode*'s object, unless it says nothing new."""
        old = inode.info
        inode.checked_at = self._now()
        if old is not None and same_version(old, info):
            if info.metadata is None or old.metadata is not None:
                if info.modified_ns % 10**9 and not old.modified_ns % 10**9:
                    inode.info = dataclasses.replace(old, modified_ns=info.modified_ns)
                if info.metadata is None:
                    return
                if info.metadata == old.metadata:
                    # attributes that were changed here may be on their way to the store: they stay as they are
                    inode.info = info
                    inode.known = True
                    return
        elif old is not None and info.metadata is None and self._own(old, info):
            inode.info = dataclasses.replace(old, modified_ns=info.modified_ns)
            return
        changed = old is not None and old.etag != info.etag
        previous = inode.shown() if changed else None
        if not inode.listed_as(info):
            inode.info = info
            inode.attributes = from_object(info, inode.is_dir, self.defaults)
        shown = inode.shown()
        if previous is not None and previous.mtime_ns == shown.mtime_ns and previous.size == shown.size:
            # same size and second, other bytes: the kernel compares only these, and must drop its pages
            inode.attributes.mtime_ns += 1
        inode.known = info.metadata is not None or not self.options.posix
        inode.stamp += 1

    def _own(self, old: ObjectInfo, listed: ObjectInfo) -> bool:
        """Whether a listing shows the version that this mount wrote: its time was taken from the answer's Date."""
        return old.etag == listed.etag and old.size == listed.size and abs(old.modified_ns - listed.modified_ns) <= 2 * 10**9

    def vanished(self, parent: Inode, name: bytes) -> None:
        """The store has no such name any more; what holds something that is not in the store yet stays."""
        directory = self.directory(parent)
        inode = directory.children.get(name)
        if inode is None or inode.dirty or (inode.is_dir and self._holds_own(inode)):
            return
        del directory.children[name]
        directory.listed_at = trio.current_time()
        self._unlink(inode)

    def _holds_own(self, top: Inode) -> bool:
        """Whether anything below directory *top* is not in the store yet."""
        waiting = [top]
        while waiting:
            for child in self.known_children(waiting.pop()):
                if child.dirty:
                    return True
                if child.is_dir:
                    waiting.append(child)
        return False

    def _unlink(self, inode: Inode) -> None:
        """*inode* hangs nowhere any more, nor does what is below it."""
        inode.unlinked = True
        inode.stamp += 1
        if inode.directory is not None:
            children, inode.directory.children = inode.directory.children, {}
            inode.directory.complete_until = float("inf")
            inode.directory.listed_at = trio.current_time()
            for child in children.values():
                self._unlink(child)
        self._let_go(inode)

    # -- attributes -------------------------------------------------------------------------------------------------

    def is_fresh(self, inode: Inode) -> bool:
        """Whether `refresh` would ask nothing."""
        return inode.dirty or inode.top or inode.unlinked or (inode.known and trio.current_time() < inode.fresh_until)

    async def refresh(self, inode: Inode, *, force: bool = False) -> None:
        """Bring attributes and info up to date: nothing is asked within metadata_ttl unless *force*.

        ENOENT when the object vanished (the name is taken away then). What *force* tells was true after it was asked. Who asks for
        one name after the other, of which the attributes are only guessed, finds the next ones asked for already.
        """
        if inode.dirty or inode.top or inode.unlinked:
            return
        if not force and self.is_fresh(inode):
            self.counters.add("attribute_hits")
            return
        if not inode.known and not force and trio.current_time() < inode.fresh_until:
            self._ask_ahead(inode)
        await self._head(inode, force=force)

    async def _head(self, inode: Inode, *, force: bool = False) -> None:
        """One HEAD, or for directories of which the marker may be missing a look below. *force*: sent after now."""
        now = trio.current_time()
        while (flight := self._heads.get(inode.number)) is not None:
            await flight.done.wait()
            if inode.unlinked:
                raise _fail(errno.ENOENT)
            if flight.arrived and (not force or flight.began >= now):
                return
        parent = inode.parent
        assert parent is not None
        flight = self._heads[inode.number] = _Flight()
        inode.pins += 1
        try:
            with self.flying.request(self.sequence):
                await self._head_now(inode, parent, inode.name, self.sequence, force)
            flight.arrived = True
        finally:
            inode.pins -= 1
            del self._heads[inode.number]
            flight.done.set()

    async def _head_now(self, inode: Inode, parent: Inode, name: bytes, sequence: int, force: bool) -> None:
        key = inode.key
        try:
            if not inode.is_dir or self.options.posix:
                info = await inode.store.head(key)
            elif (await inode.store.list_page(key, max_keys=1)).objects:
                if inode.key == key:
                    inode.fresh_until = self._fresh_until()
                return
            else:
                raise StoreError("NoSuchKey", status=404, operation="list", key=key)
        except StoreError as exc:
            if exc.errno != errno.ENOENT or inode.dirty:
                raise
            if inode.unlinked:
                raise _fail(errno.ENOENT) from None
            if inode.key != key:
                # renamed meanwhile: it is looked for at its new place
                assert inode.parent is not None
                await self._head_now(inode, inode.parent, inode.name, self.sequence, force)
                return
            if inode.is_dir and self.options.posix:
                if not force and trio.current_time() < inode.fresh_until:
                    # a listing has just shown something below it
                    inode.marker, inode.known = False, True
                    return
                if await self._lives(inode) or inode.key != key:
                    return
            directory = self.directory(parent)
            if not directory.newer_than(name, sequence):
                self.vanished(parent, name)
                directory.note_missing(name, self.options.negative_ttl)
            raise _fail(errno.ENOENT) from None
        if inode.dirty or inode.unlinked or inode.key != key or self.directory(parent).newer_than(name, sequence):
            return
        if inode.is_dir:
            inode.marker = True
        self.learn(inode, info)
        inode.fresh_until = self._fresh_until()
        if self.cache is not None:
            self.cache.put(inode.store.bucket, info)

    async def _lives(self, inode: Inode) -> bool:
        """Whether a directory without a marker has anything below it."""
        directory = self.directory(inode)
        inode.marker = False
        if not (directory.complete() and directory.children):
            page = await inode.store.list_page(inode.key, max_keys=1)
            if not page.objects and not page.prefixes:
                return False
        inode.known = True
        inode.fresh_until = self._fresh_until()
        return True

    def _ask_ahead(self, wanted: Inode) -> None:
        """HEAD in the background what stands behind *wanted* in its directory: nothing for the first name, ever more then."""
        assert wanted.parent is not None
        directory = self.directory(wanted.parent)
        if directory.sweeping:
            return
        if not directory.ahead:
            directory.ahead = FIRST_SWEEP
            return
        directory.ahead *= 2
        behind = itertools.dropwhile(lambda child: child is not wanted, directory.children.values())
        unknown = (child for child in behind if not child.known and not child.dirty and child is not wanted)
        directory.sweeping = True
        self.nursery.start_soon(self._sweep, directory, list(itertools.islice(unknown, directory.ahead)))

    async def _sweep(self, directory: Directory, inodes: Collection[Inode]) -> None:
        try:
            await self.head_all(inodes)
        except OSError as exc:
            log.info("attributes of some names stay guessed: %s", exc)
        finally:
            directory.sweeping = False

    async def head_all(self, inodes: Collection[Inode]) -> None:
        """HEAD of all *inodes* in parallel; what vanishes is taken away, other failures are raised (the first one)."""
        waiting = iter(list(inodes))
        failures: list[OSError] = []
        width = min(SWEEP_WIDTH, len(inodes))

        async def worker() -> None:
            for inode in waiting:
                if inode.known or inode.unlinked or inode.dirty:
                    continue
                try:
                    await self._head(inode)
                except OSError as exc:
                    if exc.errno != errno.ENOENT:
                        failures.append(exc)
                        return

        async with trio.open_nursery() as nursery:
            for _ in range(width):
                nursery.start_soon(worker)
        if failures:
            raise failures[0]

    # -- listings ---------------------------------------------------------------------------------------------------

    def listing(self, directory: Inode) -> Listing:
        """A reading of *directory*'s names for one opendir."""
        self.directory(directory)
        return Listing(self._loader, directory)

    async def is_empty(self, directory: Inode) -> bool:
        """Whether nothing is in *directory*, as far as a fresh listing or the server knows."""
        known = self.directory(directory)
        if known.children and (known.complete() or any(child.dirty for child in known.children.values())):
            return False
        if known.complete():
            return True
        top, store, sequence = directory.key, directory.store, self.sequence
        marker, most = "", 2
        with self.flying.request(sequence):
            while True:
                page = await store.list_page(top, marker=marker, max_keys=most)
                for info in page.objects:
                    part, below, _ = info.key[len(top) :].partition("/")
                    if info.key == top and not info.size:
                        directory.marker = True
                    elif not known.newer_than(part_to_name(part), sequence) and (below or not known.hides(part, info.etag)):
                        return False
                marker, most = page.next_marker, 1000
                if not marker:
                    return not known.children or not self._holds_own(directory)

    def known_children(self, directory: Inode) -> Collection[Inode]:
        """The children that are known now, all of them or not."""
        return self.directory(directory).children.values()

    async def objects_below(self, directory: Inode) -> AsyncIterator[ObjectInfo]:
        """Every object whose key begins with the directory's, its marker included: how a rename begins."""
        self.directory(directory).counted_at = trio.current_time()
        async for info in objects_below(directory.store, directory.key):
            yield info

    # -- own changes ------------------------------------------------------------------------------------------------

    def _change(self, parent: Inode, name: bytes) -> Directory:
        self.sequence += 1
        directory = self.directory(parent)
        directory.changed(name, self.sequence, self.flying.oldest())
        return directory

    def add(
        self, parent: Inode, name: bytes, attributes: Attributes, *, info: ObjectInfo | None = None, pending: bool = False,
        is_dir: bool = False,
    ) -> Inode:  # fmt: skip
        """*name* was made here. *pending*: it is not in the store yet."""
        directory = self._change(parent, name)
        inode = self.new_inode(parent, name, name_to_part(name), is_dir, attributes)
        inode.info, inode.pending, inode.known = info, pending, True
        inode.fresh_until = self._fresh_until()
        if inode.directory is not None:
            inode.directory.complete_until = inode.fresh_until
        directory.children[name] = inode
        if directory.complete():
            self._loader.keep(parent)
        self._touch(parent, attributes.mtime_ns)
        return inode

    def remove(self, inode: Inode) -> None:
        """*inode*'s name was removed here."""
        parent = inode.parent
        assert parent is not None
        directory = self._change(parent, inode.name)
        if directory.children.get(inode.name) is inode:
            del directory.children[inode.name]
            directory.note_missing(inode.name, self.options.negative_ttl)
        if not inode.part and not inode.is_dir:
            parent.marker = False
        if inode.pins and not inode.pending and not inode.is_dir:
            directory.hidden = directory.hidden or {}
            directory.hidden[inode.part] = inode
        self._unlink(inode)
        self._touch(parent, time.time_ns())

    def move(self, inode: Inode, parent: Inode, name: bytes) -> Inode | None:
        """*inode* is *name* in *parent* now; returns what it replaced."""
        old_parent = inode.parent
        assert old_parent is not None
        old = self._change(old_parent, inode.name)
        if old.children.get(inode.name) is inode:
            del old.children[inode.name]
            old.note_missing(inode.name, self.options.negative_ttl)
        new = self._change(parent, name)
        replaced = new.children.get(name)
        if not inode.is_dir:
            inode.info = inode.info  # of the key that it had
        inode.parent = parent
        inode.call(name, name_to_part(name))
        new.children[name] = inode
        inode.unlinked = False  # whoever asked for it on its way may have found it missing
        self._table.keep(inode)
        if inode.directory is not None:
            self.moves += 1
            self._doubt_listings(inode, inode.directory.counted_at)
            self._rekey(inode)
        inode.fresh_until = self._fresh_until()
        inode.stamp += 1
        if replaced is not None:
            self._unlink(replaced)
        now = time.time_ns()
        self._touch(old_parent, now)
        self._touch(parent, now)
        return replaced

    def _doubt_listings(self, top: Inode, since: float) -> None:
        """A listing made while the objects of *top* were under way to their new keys may have seen only some of them."""
        waiting = [top]
        while waiting:
            directory = waiting.pop().directory
            if directory is not None:
                directory.negative.clear()
                if directory.listed_at >= since:
                    directory.complete_until = float("-inf")
                waiting.extend(child for child in directory.children.values() if child.is_dir)

    def _rekey(self, top: Inode) -> None:
        """What is known of the objects below directory *top*, its own included, is known of them at their new keys."""
        if top.info is not None:
            top.info = dataclasses.replace(top.info, key=top.key)
        waiting = [(top, top.key)]
        while waiting:
            directory, prefix = waiting.pop()
            for child in self.known_children(directory):
                key = f"{prefix}{child.part}/" if child.is_dir else prefix + child.part
                if child.info is not None and child.info.key != key:
                    child.info = dataclasses.replace(child.info, key=key)
                if child.is_dir:
                    waiting.append((child, key))

    def _touch(self, directory: Inode, now: int) -> None:
        """A directory's times move with its names, as programs expect; they are not stored."""
        directory.attributes.mtime_ns = directory.attributes.ctime_ns = now
        directory.stamp += 1

    def delivered(self, inode: Inode, info: ObjectInfo) -> None:
        """The store has *inode*'s bytes and attributes now, as *info* says."""
        inode.info = info
        inode.pending = False
        inode.known = True
        inode.checked_at = self._now()
        inode.fresh_until = self._fresh_until()
        if inode.parent is not None and not inode.unlinked:
            self._change(inode.parent, inode.name)
        inode.stamp += 1
        if self.cache is not None and info.metadata is not None:
            self.cache.put(inode.store.bucket, info)

    def changed(self, inode: Inode) -> None:
        """*inode*'s attributes were changed here."""
        if inode.parent is not None and not inode.unlinked:
            self._change(inode.parent, inode.name)
        inode.stamp += 1

    def invalidate(self, inode: Inode) -> None:
        """What is known of *inode* (a directory: of its names too) may be wrong: ask again next time."""
        inode.fresh_until = float("-inf")
        inode.stamp += 1
        pending = [inode]
        while pending:
            directory = pending.pop().directory
            if directory is not None:
                directory.doubt()
                directory.negative.clear()
                for child in directory.children.values():
                    child.fresh_until = float("-inf")
                    pending.append(child)

    # -- buckets ----------------------------------------------------------------------------------------------------

    @property
    def account(self) -> Account:
        """The account whose buckets are the root's directories."""
        if self._account is None:
            raise _fail(errno.EPERM)
        return self._account

    async def create_bucket(self, name: bytes, attributes: Attributes) -> Inode:
        """mkdir in the root of all buckets."""
        text = name.decode("utf-8", "replace")
        await self.account.create_bucket(text)
        directory = self._change(self.root, name)
        inode = self.new_inode(self.root, name, text, True, attributes)
        inode.volume = Volume(self.account.bucket(text), "", text, self.defaults)
        inode.known = inode.marker = True
        inode.fresh_until = self._fresh_until()
        directory.children[name] = inode
        return inode

    async def delete_bucket(self, inode: Inode) -> None:
        """rmdir in the root of all buckets: ENOTEMPTY unless empty."""
        store: Store = inode.store
        if (await store.list_page("", max_keys=1)).objects:
            raise _fail(errno.ENOTEMPTY)  # SeaweedFS would delete the bucket with all that is in it
        await self.account.delete_bucket(store.bucket)
        self.remove(inode)
