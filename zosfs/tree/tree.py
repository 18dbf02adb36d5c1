"""The tree of names as the kernel asks for it: lookups, attributes, emptiness. Listings are in zosfs.tree.listing.

Lookups of one name, and loads of one directory, are flown once however many ask.
Concurrency: between two awaits a task owns all state; own changes have no await at all.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Collection

import trio

from zosfs.config import Options
from zosfs.counters import Counters
from zosfs.errors import StoreError
from zosfs.store.api import Account, ObjectInfo, Store
from zosfs.store.objects import is_folder, objects_below
from zosfs.tree.attribute_cache import AttributeCache
from zosfs.tree.attributes import Attributes, Defaults
from zosfs.tree.by_name import EACH
from zosfs.tree.directory import Directory
from zosfs.tree.facts import fault
from zosfs.tree.inodes import Inode, Volume
from zosfs.tree.listing import Loader
from zosfs.tree.names import ESCAPED, FILE, KEY_MAX, LONG, NAME_MAX, name_to_part, part_to_name
from zosfs.tree.own_changes import OwnChanges
from zosfs.tree.reading import Listing
from zosfs.tree.refreshing import Ask, Refresher

__all__ = ["Listing", "Tree"]


class Tree(OwnChanges):
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
        super().__init__(options, counters, nursery, defaults, cache, volume)
        self._account = account
        self._flights: dict[tuple[int, bytes], trio.Event] = {}
        self._refresher = Refresher(self)
        self._loader = Loader(self)
        nursery.start_soon(self._loader.give_back)

    # -- looking up -------------------------------------------------------------------------------------------------

    def peek(self, parent: Inode, name: bytes) -> Inode | bool | None:
        """What can be said of a name without a request: its inode, None (missing), or False (not known)."""
        directory = parent.directory
        if directory is None:
            return False
        inode = directory.children.get(name)
        if inode is not None:
            if inode.dirty or trio.current_time() < inode.fresh_until or directory.complete():
                directory.by_name += directory.huge
                return inode
            return False
        if directory.complete() or directory.is_missing(name):
            return None
        return False

    async def lookup(self, parent: Inode, name: bytes) -> Inode | None:
        """The inode of *name* in *parent*, None when there is none. It may be unsure what it is (see is_unsure), unless it is a directory.

        Raises ENOTDIR, ENAMETOOLONG, StoreError.
        """
        if len(name) > NAME_MAX:
            raise fault(errno.ENAMETOOLONG)
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
                first, directory.asked = directory.untouched(), True
                if self.options.posix and first and b"." in name[1:]:
                    # who opens one file waits neither for a page of a thousand names, nor a round trip more for the attributes that no
                    # page tells; without a dot most names are directories
                    return await self._ask(parent, directory, name)
                await self._loader.first_page(parent, name)
                found = self.peek(parent, name)
                if not isinstance(found, bool):
                    return found
            if directory.huge and self.options.metadata_ttl > 0:
                directory.by_name += 1
                if directory.by_name > EACH and not name.startswith(ESCAPED):
                    found = await self._ask_for_more(parent, directory, name)
                    if not isinstance(found, bool):
                        return found
            return await self._ask(parent, directory, name)
        finally:
            parent.pins -= 1
            del self._flights[parent.number, name]
            flight.set()

    async def _ask_for_more(self, parent: Inode, directory: Directory, name: bytes) -> Inode | bool | None:
        """As `peek`, after a LIST from *name* on, which tells of many names behind it, too."""
        directory.by_name = 0
        key, sequence = self.key_of(parent, name), self.sequence
        if len(key.encode("utf-8", "surrogateescape")) > KEY_MAX:
            return None
        with self.flying.request(sequence):
            if not await self._loader.page_from(parent, key, sequence):
                return False
            if name not in directory.children and not directory.newer_than(name, sequence):
                directory.note_missing(name, self.options.negative_ttl)
        return self.peek(parent, name)

    async def _ask(self, parent: Inode, directory: Directory, name: bytes) -> Inode | None:
        """HEAD of the file and LIST below the directory of that name at once: where its directory is not to be listed for it."""
        with self.flying.request(self.sequence):
            return await self._ask_now(parent, directory, name)

    async def _ask_now(self, parent: Inode, directory: Directory, name: bytes) -> Inode | None:
        sequence, moves = self.sequence, self.moves
        part = name_to_part(name)
        if name.startswith(LONG.encode()):
            part = await self._long_part(parent, name)
        key = parent.key + part
        if len(key.encode("utf-8", "surrogateescape")) > KEY_MAX:
            return None
        store = parent.store
        hidden = self.removed.hiding(store, key)
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
                page = await self.removed.list_page(store, key + "/", max_keys=1)
                below = bool(page.objects or page.prefixes)
            except StoreError as exc:
                failure = exc

        async with trio.open_nursery() as nursery:
            nursery.start_soon(head)
            nursery.start_soon(list_below)
        if parent.unlinked:
            return None
        if self.moved(parent, moves):
            return await self._ask_now(parent, directory, name)  # renamed meanwhile: the answers are of another place
        if failure is not None:
            raise failure
        if directory.newer_than(name, sequence):
            return directory.children.get(name)
        if info is not None and hidden(info):
            info = None
        beside = name.startswith(FILE.encode()) and part_to_name(part) != name
        if beside and not below:
            info = None  # without the directory the file has its plain name
        if below and not beside:
            return self.settle(parent, name, part, True, None)
        if info is not None:
            if self.cache is not None:
                self.cache.put(store.bucket, info)
            return self.settle(parent, name, part, False, info)
        own = self.vanished(parent, name)
        if own is None:
            directory.note_missing(name, self.options.negative_ttl)
        return own

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

    # -- attributes -------------------------------------------------------------------------------------------------

    def is_fresh(self, inode: Inode) -> bool:
        """Whether `refresh` would ask nothing."""
        return self._refresher.is_fresh(inode)

    def told_by_listing(self, inode: Inode) -> bool:
        """Whether a listing that is believed still tells that *inode* is a regular file: all but its stored attributes."""
        if inode.is_dir or inode.info is None or trio.current_time() >= inode.fresh_until:
            return False
        return not self._loader.is_unsure(inode)

    def is_unsure(self, inode: Inode) -> bool:
        """See Loader.is_unsure."""
        return self._loader.is_unsure(inode)

    async def sweep_unsure(self, inodes: Collection[Inode]) -> None:
        """See Loader.sweep_unsure."""
        await self._loader.sweep_unsure(inodes)

    async def refresh(self, inode: Inode, *, force: bool = False, ask: Ask | None = None, begins: bool = False) -> None:
        """See Refresher.refresh."""
        await self._refresher.refresh(inode, force=force, ask=ask, begins=begins)

    async def head_all(self, inodes: Collection[Inode]) -> None:
        """See Refresher.head_all."""
        await self._refresher.head_all(inodes)

    async def try_all(self, inodes: Collection[Inode]) -> None:
        """See Refresher.try_all."""
        await self._refresher.try_all(inodes)

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
        top, store, sequence, moves = directory.key, directory.store, self.sequence, self.moves
        marker, most = "", 2
        with self.flying.request(sequence):
            while True:
                page = await self.removed.list_page(store, top, marker=marker, max_keys=most)
                for info in page.objects:
                    part = info.key[len(top) :].partition("/")[0]
                    if info.key == top and not info.size:
                        directory.marker = not is_folder(info)
                    elif not known.newer_than(part_to_name(part), sequence):
                        return False
                if self.moved(directory, moves):
                    return await self.is_empty(directory)  # renamed meanwhile: the answer may be of what was left there
                marker, most = page.next_marker, 1000
                if not marker:
                    return not known.children or not self._holds_own(directory)

    async def objects_below(self, directory: Inode) -> AsyncIterator[ObjectInfo]:
        """Every object whose key begins with the directory's, its marker included: how a rename begins."""
        self.directory(directory).counted_at = trio.current_time()
        async for info in objects_below(directory.store, directory.key):
            yield info

    # -- buckets ----------------------------------------------------------------------------------------------------

    @property
    def account(self) -> Account:
        """The account whose buckets are the root's directories."""
        if self._account is None:
            raise fault(errno.EPERM)
        return self._account

    async def create_bucket(self, name: bytes, attributes: Attributes) -> Inode:
        """mkdir in the root of all buckets."""
        text = name.decode("utf-8", "replace")
        await self.account.create_bucket(text)
        directory = self._change(self.root, name)
        inode = self.new_inode(self.root, name, text, True, attributes)
        inode.volume = Volume(self.account.bucket(text), "", text, self.defaults)
        inode.known = inode.marker = True
        inode.fresh_until = self.fresh_until()
        directory.children[name] = inode
        return inode

    async def delete_bucket(self, inode: Inode) -> None:
        """rmdir in the root of all buckets: ENOTEMPTY unless empty."""
        store: Store = inode.store
        if not await self.is_empty(inode):
            raise fault(errno.ENOTEMPTY)  # what is promised or being written is in no listing of the server
        if (await store.list_page("", max_keys=1)).objects:
            raise fault(errno.ENOTEMPTY)  # SeaweedFS would delete the bucket with all that is in it
        await self.account.delete_bucket(store.bucket)
        self.remove(inode)
