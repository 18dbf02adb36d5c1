"""What is known of the names of a bucket: the inodes, where each hangs, and what the store said of it.

Owns: the inodes and which of them hangs where. Nothing here asks for anything, and nothing waits: between two awaits of its
callers all is consistent. Own changes come on top of it in zosfs.tree.own_changes, lookups in zosfs.tree.tree.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import stat
import time
from collections.abc import Callable, Collection, Container, Iterable, Sequence
from typing import TYPE_CHECKING

import trio

from zosfs.config import Options
from zosfs.counters import Counters
from zosfs.store.api import ObjectInfo
from zosfs.store.objects import NEAR
from zosfs.tree.attribute_cache import AttributeCache
from zosfs.tree.attributes import Attributes, Defaults, from_object
from zosfs.tree.directory import Directory, Flying
from zosfs.tree.inodes import Inode, InodeTable, Volume
from zosfs.tree.listed import pack
from zosfs.tree.names import KEY_MAX, NAME_MAX, name_to_part, plain_name
from zosfs.tree.removed import Removed

if TYPE_CHECKING:
    from zosfs.tree.listing import Loader

TICK = 0.02
"""Seconds."""


def fault(number: int) -> OSError:
    """The error of an errno."""
    return OSError(number, os.strerror(number))


def same_version(a: ObjectInfo, b: ObjectInfo) -> bool:
    """Whether two answers speak of the same version. HEAD tells whole seconds, listings milliseconds."""
    if a.etag != b.etag or a.size != b.size:
        return False
    second = 10**9
    if a.modified_ns % second and b.modified_ns % second:
        return a.modified_ns == b.modified_ns
    return a.modified_ns // second == b.modified_ns // second


def to_the_millisecond(info: ObjectInfo, listed_ns: int) -> ObjectInfo:
    """*info* of a HEAD, which tells whole seconds, with the time that a listing told before that was sent.

    If the object was made anew within the same second, before the HEAD, the next listing tells another time than this, and it is asked for
    again; with the second alone what is changed after the HEAD would never be seen.
    """
    second = 10**9
    if listed_ns % second and not info.modified_ns % second and listed_ns // second == info.modified_ns // second:
        return dataclasses.replace(info, modified_ns=listed_ns)
    return info


def is_replaced(inode: Inode, info: ObjectInfo) -> bool:
    """Whether *info* is of an object that others have put in the place of the one that somebody is in the middle of reading here.

    To the kernel that is another file, as it is when a local one is replaced: pages and size are kept by inode, and who has the old version
    open must be shown none of the new one's. An object that only grew stays the same file. Where what was written here lost against it, and
    programs go on with that, every object is another file.
    """
    if inode.file is None:
        return False
    old = inode.info
    if inode.file.left_behind:
        return old is None or old.etag != info.etag
    if not inode.file.pinned:
        return False
    return old is not None and old.etag != info.etag and not info.grew_from(old)


class Facts:
    """All inodes of a mount, and what the store said of them."""

    _loader: Loader

    def __init__(
        self, options: Options, counters: Counters, nursery: trio.Nursery, defaults: Defaults, cache: AttributeCache | None,
        volume: Volume | None,
    ) -> None:  # fmt: skip
        self.options = options
        self.counters = counters
        self.nursery = nursery
        self.defaults = defaults
        self.cache = cache
        self.sequence = 0  # own changes so far
        self.moves = 0  # directories renamed so far: their keys changed
        self.lists_kinds = not (options.posix and options.special)  # whether a listing tells what its names are
        self.flying = Flying()
        self.removed = Removed()
        self._moment = self._later = float("-inf")
        self._table = InodeTable()
        self._taken: set[int] = set()  # inodes whose names others took away, which the kernel may still find by them
        now = time.time_ns()
        self.root = self._table.allocate(
            None, b"", "", True, volume, Attributes(stat.S_IFDIR | defaults.dir_mode, defaults.uid, defaults.gid, 0, now, now, now)
        )
        self.root.lookups = 1
        self.root.known = True
        self.root.marker = True
        self.root.directory = Directory()

    def about_now(self) -> float:
        """About now, by TICK: one float for all that was learnt together, instead of one for each of a million names."""
        now = trio.current_time()
        if now - self._moment > TICK:
            self._moment, self._later = now, now + self.options.metadata_ttl
        return self._moment

    def fresh_until(self) -> float:
        """Until when to believe what was just learnt."""
        self.about_now()
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

    def remember_all(self, inodes: Iterable[Inode]) -> None:
        """The kernel was told once more of each of *inodes*, which were found by their names just now."""
        find = self._table.find
        for inode in inodes:
            if find(inode.number) is inode:
                inode.lookups += 1
            else:
                self.remember(inode)

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

    def outlived(self, inode: Inode) -> bool:
        """Whether *inode* was forgotten, and its name is gone since."""
        return self._table.outlived(inode)

    def taken(self, inode: Inode) -> bool:
        """Whether others removed or replaced *inode*: who comes to it by a name has that from the kernel's caches. ESTALE has the kernel
        look the name up again."""
        return inode.unlinked and inode.number in self._taken

    def forget_names(self, parent: Inode) -> None:
        """The names of directory *parent* are not worth their memory any more: drop those that nobody refers to."""
        directory = parent.directory
        if directory is None or directory.loading is not None:
            return
        directory.unlist()
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
                above.unlist()
                if above.children.get(inode.name) is inode:
                    del above.children[inode.name]
            if known is not None:
                self._loader.discard(inode)
            self._table.discard(inode)
            self._taken.discard(inode.number)
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
            raise fault(errno.ENOTDIR)
        return inode.directory

    def check_name(self, parent: Inode, name: bytes) -> None:
        """ENAMETOOLONG for a name over 255 bytes or a key over 1024; ENOENT below a removed directory."""
        if len(name) > NAME_MAX:
            raise fault(errno.ENAMETOOLONG)
        if parent.unlinked:
            raise fault(errno.ENOENT)
        if parent.volume is not None and len(self.key_of(parent, name).encode("utf-8", "surrogateescape")) > KEY_MAX:
            raise fault(errno.ENAMETOOLONG)

    def moved(self, inode: Inode, moves: int) -> bool:
        """Whether *inode* or a directory above it was renamed since the tree's *moves*, be it away and back again: what was asked about
        its key then may be told of another time."""
        if self.moves == moves:
            return False
        above: Inode | None = inode
        while above is not None and not (above.directory is not None and above.directory.moved > moves):
            above = above.parent
        return above is not None

    def key_of(self, parent: Inode, name: bytes) -> str:
        """The key of a file *name* in *parent*."""
        return parent.key + name_to_part(name)

    # -- facts from the store ----------------------------------------------------------------------------------------

    def settle(self, parent: Inode, name: bytes, part: str, is_dir: bool, info: ObjectInfo | None) -> Inode:
        """The store says that *name* is this; *info* is of a HEAD, or of a listing (no metadata), or None (directories)."""
        directory = self.directory(parent)
        inode = directory.children.get(name)
        if inode is not None and (inode.is_dir != is_dir or (info is not None and is_replaced(inode, info))):
            inode = self.vanished(parent, name)
            if inode is not None:
                return inode
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
        inode.fresh_until = self.fresh_until()
        return inode

    def settle_plain(
        self, parent: Inode, objects: Sequence[ObjectInfo], start: int, end: int, prefix: str, told: Container[str],
        seen: set[bytes] | None, fresh: list[tuple[bytes, Inode]],
    ) -> int:  # fmt: skip
        """As Loader.place one after the other of the files *objects* ``[start, end)`` of a listing, as long as that is simple: files
        directly below *prefix*, which is the key of *parent*, that are called there what their key says, were not changed here meanwhile,
        and of which either nothing was known or just this. Nothing else is *told* of them (keys).

        Adds them to *seen* and *fresh*, and returns the number of the first object that it left.
        """
        directory, before = self.directory(parent), len(fresh)
        if directory.changes:
            return start
        children, negative, known, skip = directory.children, directory.negative, not self.options.posix, len(prefix)
        moment, later = self.about_now(), self._later
        new: Callable[[bytes, bytes], Inode] | None = None
        for at in range(start, end):
            info = objects[at]
            key = info.key
            if not key.startswith(prefix) or key in told:
                break
            part = key[skip:]
            name, row = plain_name(part), pack(info)
            if name is None or row is None or "/" in part:
                break
            inode = children.get(name)
            if inode is None:
                if new is None:
                    new = self._table.files_below(parent)
                inode = children[name] = new(name, row)
                if negative:
                    negative.pop(name, None)
                inode.known = known
                inode.stamp = 1
            elif not inode.listed_before_as(row) or inode.dirty:
                break
            inode.checked_at = moment
            inode.fresh_until = later
            fresh.append((name, inode))
        else:
            at = end
        if seen is not None:
            seen.update([name for name, _ in fresh[before:]])
        return at

    def learn(self, inode: Inode, info: ObjectInfo) -> None:
        """Take over what the store says of *inode*'s object, unless it says nothing new."""
        old = inode.info_as(info.key)
        inode.checked_at = self.about_now()
        if old is not None and same_version(old, info):
            if info.metadata is None or old.metadata is not None:
                if info.modified_ns % 10**9 and not old.modified_ns % 10**9:
                    inode.told_again_as(dataclasses.replace(old, modified_ns=info.modified_ns))
                if info.metadata is None:
                    return
                if info.metadata == old.metadata:
                    # attributes that were changed here may be on their way to the store: they stay as they are
                    inode.told_again_as(info)
                    inode.known = True
                    return
        elif old is not None and info.metadata is None and self._own(old, info):
            inode.told_again_as(dataclasses.replace(old, modified_ns=info.modified_ns))
            return
        changed = old is not None and old.etag != info.etag
        previous = inode.shown() if changed else None
        if not inode.listed_as(info):
            inode.told_as(info, from_object(info, inode.is_dir, self.defaults))
        shown = inode.shown()
        if previous is not None and previous.mtime_ns == shown.mtime_ns and previous.size == shown.size:
            # same size and second, other bytes: the kernel compares only these, and must drop its pages
            inode.attributes.mtime_ns += 1
        inode.known = info.metadata is not None or not self.options.posix
        inode.stamp += 1

    def _own(self, old: ObjectInfo, listed: ObjectInfo) -> bool:
        """Whether a listing shows the version that this mount wrote: its time was taken from the answer's Date, in whole seconds, which
        came after it was made. What was made after that second is another one."""
        near = not old.modified_ns % 10**9 and -NEAR <= listed.modified_ns - old.modified_ns < 10**9
        return near and old.etag == listed.etag and old.size == listed.size

    def vanished(self, parent: Inode, name: bytes) -> Inode | None:
        """The store has no such name any more; what holds something that is not in the store yet stays, and is returned."""
        directory = self.directory(parent)
        inode = directory.children.get(name)
        if inode is None or inode.dirty:
            return inode
        if inode.is_dir and self._holds_own(inode):
            inode.marker, inode.known = False, True
            inode.fresh_until = self.fresh_until()
            return inode
        del directory.children[name]
        directory.listed_at = trio.current_time()
        self._unlink(inode, by_others=True)
        return None

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

    def _unlink(self, inode: Inode, *, by_others: bool = False) -> None:
        """*inode* hangs nowhere any more, nor does what is below it."""
        inode.unlinked = True
        if by_others:
            self._taken.add(inode.number)
        inode.stamp += 1
        if inode.directory is not None:
            children, inode.directory.children = inode.directory.children, {}
            inode.directory.complete_until = float("inf")
            inode.directory.listed_at = trio.current_time()
            for child in children.values():
                self._unlink(child, by_others=by_others)
        self._let_go(inode)

    def known_children(self, directory: Inode) -> Collection[Inode]:
        """The children that are known now, all of them or not."""
        return self.directory(directory).children.values()
