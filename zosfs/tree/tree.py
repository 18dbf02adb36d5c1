"""The tree of names: lookups, attributes, own changes. Listings are in zosfs.tree.listing.

Owns: the inodes and which of them hangs where. Lookups of one name, and loads of one directory, are flown once however many ask.
Concurrency: between two awaits a task owns all state; own changes have no await at all.
"""

from __future__ import annotations

import dataclasses
import errno
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
from zosfs.tree.attribute_cache import AttributeCache
from zosfs.tree.attributes import Attributes, Defaults, from_object
from zosfs.tree.directory import Directory
from zosfs.tree.inodes import Inode, InodeTable, Volume
from zosfs.tree.listing import Listing, Loader
from zosfs.tree.names import KEY_MAX, NAME_MAX, name_to_part

__all__ = ["Listing", "Tree"]

log = logging.getLogger(__name__)

SWEEP_WIDTH = 64

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
        self.walking = 0  # undelimited listings in flight
        self._account = account
        self._table = InodeTable()
        self._flights: dict[tuple[int, bytes], trio.Event] = {}
        self._loader = Loader(self)
        now = time.time_ns()
        self.root = self._table.allocate(
            None, b"", "", True, volume, Attributes(stat.S_IFDIR | defaults.dir_mode, defaults.uid, defaults.gid, 0, now, now, now)
        )
        self.root.lookups = 1
        self.root.known = True
        self.root.marker = True
        self.root.directory = Directory()

    # -- inodes -----------------------------------------------------------------------------------------------------

    def get(self, number: int) -> Inode:
        """KeyError when the kernel means an inode that is gone."""
        return self._table.get(number)

    def __len__(self) -> int:
        return len(self._table)

    def remember(self, inode: Inode, n: int = 1) -> None:
        """The kernel was told of *inode* *n* times more."""
        inode.lookups += n
        self._table.keep(inode)

    def forget(self, number: int, n: int) -> None:
        """The kernel dropped *n* of its references; an inode that nobody needs is let go. Never raises."""
        try:
            inode = self._table.get(number)
        except KeyError:
            return
        inode.lookups -= n
        self._let_go(inode)

    def _let_go(self, inode: Inode) -> None:
        """Drop unlinked inodes without references; linked ones are the listing's, which is bounded by the loader."""
        if inode.lookups <= 0 and not inode.pins and inode.unlinked and inode.parent is not None:
            self._table.discard(inode)

    def new_inode(self, parent: Inode, name: bytes, part: str, is_dir: bool, attributes: Attributes | None = None) -> Inode:
        """An inode below *parent*, not hung into it yet."""
        if attributes is None:
            now = time.time_ns()
            mode = stat.S_IFDIR | self.defaults.dir_mode if is_dir else stat.S_IFREG | self.defaults.file_mode
            attributes = Attributes(mode, self.defaults.uid, self.defaults.gid, 0, now, now, now)
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
        if parent.volume is not None and len(self.key_of(parent, name).encode("utf-8", "surrogatepass")) >= KEY_MAX:
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
        try:
            if parent.volume is None:
                await self._loader.load_buckets(parent)
                return directory.children.get(name)
            if not directory.huge:
                await self._loader.first_page(parent, name)
                found = self.peek(parent, name)
                if not isinstance(found, bool):
                    return found
            return await self._ask(parent, directory, name)
        finally:
            del self._flights[parent.number, name]
            flight.set()

    async def _ask(self, parent: Inode, directory: Directory, name: bytes) -> Inode | None:
        """HEAD of the file and LIST below the directory of that name at once: for directories too large to list."""
        part = name_to_part(name)
        sequence = self.sequence
        key = parent.key + part
        if len(key.encode("utf-8", "surrogatepass")) >= KEY_MAX:
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

        directory.asking += 1
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(head)
                nursery.start_soon(list_below)
        finally:
            directory.asking -= 1
        if failure is not None:
            raise failure
        if directory.newer_than(name, sequence):
            return directory.children.get(name)
        if below:
            return self.settle(parent, name, part, True, None)
        if info is not None:
            return self.settle(parent, name, part, False, info)
        self.vanished(parent, name)
        directory.note_missing(name, self.options.negative_ttl)
        return None

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
        inode.fresh_until = trio.current_time() + self.options.metadata_ttl
        return inode

    def learn(self, inode: Inode, info: ObjectInfo) -> None:
        """Take over what the store says of *inode*'s object, unless it says nothing new."""
        old = inode.info
        inode.checked_at = trio.current_time()
        if old is not None and same_version(old, info):
            if info.metadata is None or old.metadata is not None:
                if info.modified_ns % 10**9 and not old.modified_ns % 10**9:
                    inode.info = dataclasses.replace(old, modified_ns=info.modified_ns)
                if info.metadata is None:
                    return
        elif old is not None and info.metadata is None and self._own(old, info):
            inode.info = dataclasses.replace(old, modified_ns=info.modified_ns)
            return
        changed = old is not None and old.etag != info.etag
        previous = inode.attributes
        inode.info = info
        inode.attributes = from_object(info, inode.is_dir, self.defaults)
        if changed and previous.mtime_ns == inode.attributes.mtime_ns and previous.size == inode.attributes.size:
            # same size and second, other bytes: the kernel compares only these, and must drop its pages
            inode.attributes.mtime_ns += 1
        inode.known = info.metadata is not None or not self.options.posix
        inode.stamp += 1

    def _own(self, old: ObjectInfo, listed: ObjectInfo) -> bool:
        """Whether a listing shows the version that this mount wrote: its time was taken from the answer's Date."""
        return old.etag == listed.etag and old.size == listed.size and abs(old.modified_ns - listed.modified_ns) <= 2 * 10**9

    def vanished(self, parent: Inode, name: bytes) -> None:
        """The store has no such name any more."""
        directory = self.directory(parent)
        inode = directory.children.get(name)
        if inode is None or inode.dirty:
            return
        del directory.children[name]
        self._unlink(inode)

    def _unlink(self, inode: Inode) -> None:
        inode.unlinked = True
        inode.stamp += 1
        self._let_go(inode)

    # -- attributes -------------------------------------------------------------------------------------------------

    def is_fresh(self, inode: Inode) -> bool:
        """Whether `refresh` would ask nothing."""
        return inode.dirty or inode.top or inode.unlinked or (inode.known and trio.current_time() < inode.fresh_until)

    async def refresh(self, inode: Inode, *, force: bool = False) -> None:
        """Bring attributes and info up to date: nothing is asked within metadata_ttl unless *force*.

        ENOENT when the object vanished (the name is taken away then). The first inode whose attributes are only guessed starts a
        sweep over its directory, SWEEP_WIDTH HEADs at once.
        """
        if inode.dirty or inode.top or inode.unlinked:
            return
        if not force and self.is_fresh(inode):
            self.counters.add("attribute_hits")
            return
        if not inode.known and not force and trio.current_time() < inode.fresh_until and inode.parent is not None:
            await self.sweep(inode.parent, inode)
            if inode.known or inode.unlinked:
                return
        await self._head(inode)

    async def _head(self, inode: Inode) -> None:
        """One HEAD, or for directories of which the marker may be missing a look below."""
        parent = inode.parent
        assert parent is not None
        flight = self._flights.get((inode.number, b""))
        if flight is not None:
            await flight.wait()
            return
        flight = self._flights[inode.number, b""] = trio.Event()
        name, sequence = inode.name, self.sequence
        directory = self.directory(parent)
        directory.asking += 1
        try:
            await self._head_now(inode, parent, name, sequence)
        finally:
            directory.asking -= 1
            del self._flights[inode.number, b""]
            flight.set()

    async def _head_now(self, inode: Inode, parent: Inode, name: bytes, sequence: int) -> None:
        try:
            if not inode.is_dir or self.options.posix:
                info = await inode.store.head(inode.key)
            elif (await inode.store.list_page(inode.key, max_keys=1)).objects:
                inode.fresh_until = trio.current_time() + self.options.metadata_ttl
                return
            else:
                raise StoreError("NoSuchKey", status=404, operation="list", key=inode.key)
        except StoreError as exc:
            if exc.errno != errno.ENOENT or inode.dirty or inode.parent is not parent or inode.name != name:
                raise
            if inode.is_dir and self.options.posix and await self._lives(inode):
                return
            directory = self.directory(parent)
            if not directory.newer_than(name, sequence):
                self.vanished(parent, name)
                directory.note_missing(name, self.options.negative_ttl)
            raise _fail(errno.ENOENT) from None
        if inode.dirty or inode.parent is not parent or inode.name != name:
            return
        if inode.is_dir:
            inode.marker = True
        self.learn(inode, info)
        inode.fresh_until = trio.current_time() + self.options.metadata_ttl
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
        inode.fresh_until = trio.current_time() + self.options.metadata_ttl
        return True

    async def sweep(self, parent: Inode, wanted: Inode) -> None:
        """HEAD every child of *parent* whose attributes are guessed, *wanted* first."""
        directory = self.directory(parent)
        unknown = [child for child in directory.children.values() if not child.known and not child.dirty and child is not wanted]
        await self.head_all([wanted, *unknown])

    async def head_all(self, inodes: Collection[Inode]) -> None:
        """HEAD of all *inodes* in parallel; what vanishes is taken away, other failures are raised (the first one)."""
        waiting = iter(list(inodes))
        failures: list[OSError] = []
        width = min(SWEEP_WIDTH, self.options.connections, len(inodes))

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
        page = await directory.store.list_page(directory.key, max_keys=2)
        others = [info for info in page.objects if info.key != directory.key]
        if len(others) < len(page.objects):
            directory.marker = True
        gone = {self.key_of(directory, name) for name, _ in known.changes.items() if name not in known.children}
        return not any(info.key not in gone for info in others) and not page.prefixes

    def known_children(self, directory: Inode) -> Collection[Inode]:
        """The children that are known now, all of them or not."""
        return self.directory(directory).children.values()

    async def objects_below(self, directory: Inode) -> AsyncIterator[ObjectInfo]:
        """Every object whose key begins with the directory's, its marker included."""
        marker = ""
        while True:
            page = await directory.store.list_page(directory.key, marker=marker)
            for info in page.objects:
                yield info
            marker = page.next_marker
            if not marker:
                return

    # -- own changes ------------------------------------------------------------------------------------------------

    def _change(self, parent: Inode, name: bytes) -> Directory:
        self.sequence += 1
        directory = self.directory(parent)
        directory.changed(name, self.sequence, walking=self.walking > 0)
        return directory

    def add(
        self, parent: Inode, name: bytes, attributes: Attributes, *, info: ObjectInfo | None = None, pending: bool = False,
        is_dir: bool = False,
    ) -> Inode:  # fmt: skip
        """*name* was made here. *pending*: it is not in the store yet."""
        directory = self._change(parent, name)
        inode = self.new_inode(parent, name, name_to_part(name), is_dir, attributes)
        inode.info, inode.pending, inode.known = info, pending, True
        inode.fresh_until = trio.current_time() + self.options.metadata_ttl
        if inode.directory is not None:
            inode.directory.complete_until = inode.fresh_until
        directory.children[name] = inode
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
        inode.parent, inode.name, inode.part = parent, name, name_to_part(name)
        self.moves += inode.is_dir
        new.children[name] = inode
        inode.fresh_until = trio.current_time() + self.options.metadata_ttl
        inode.stamp += 1
        if replaced is not None:
            self._unlink(replaced)
        now = time.time_ns()
        self._touch(old_parent, now)
        self._touch(parent, now)
        return replaced

    def _touch(self, directory: Inode, now: int) -> None:
        """A directory's times move with its names, as programs expect; they are not stored."""
        directory.attributes.mtime_ns = directory.attributes.ctime_ns = now
        directory.stamp += 1

    def delivered(self, inode: Inode, info: ObjectInfo) -> None:
        """The store has *inode*'s bytes and attributes now, as *info* says."""
        inode.info = info
        inode.pending = False
        inode.known = True
        inode.checked_at = trio.current_time()
        inode.fresh_until = inode.checked_at + self.options.metadata_ttl
        if inode.parent is not None and not inode.unlinked:
            self.sequence += 1
            self.directory(inode.parent).changed(inode.name, self.sequence, walking=self.walking > 0)
        inode.stamp += 1
        if self.cache is not None and info.metadata is not None:
            self.cache.put(inode.store.bucket, info)

    def changed(self, inode: Inode) -> None:
        """*inode*'s attributes were changed here."""
        inode.stamp += 1

    def invalidate(self, inode: Inode) -> None:
        """What is known of *inode* (a directory: of its names too) may be wrong: ask again next time."""
        inode.fresh_until = float("-inf")
        inode.stamp += 1
        pending = [inode]
        while pending:
            directory = pending.pop().directory
            if directory is not None:
                directory.complete_until = float("-inf")
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
        self.sequence += 1
        inode = self.new_inode(self.root, name, text, True, attributes)
        inode.volume = Volume(self.account.bucket(text), "", text)
        inode.known = inode.marker = True
        inode.fresh_until = trio.current_time() + self.options.metadata_ttl
        self.directory(self.root).children[name] = inode
        return inode

    async def delete_bucket(self, inode: Inode) -> None:
        """rmdir in the root of all buckets: ENOTEMPTY unless empty."""
        store: Store = inode.store
        if (await store.list_page("", max_keys=1)).objects:
            raise _fail(errno.ENOTEMPTY)  # SeaweedFS would delete the bucket with all that is in it
        await self.account.delete_bucket(store.bucket)
        self.remove(inode)
