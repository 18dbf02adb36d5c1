"""What this mount changes itself: names made, removed and moved, objects delivered.

Owns: the number of each change, by which older answers are told from newer ones. No await at all: a change is there at once for everybody.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping

from zosfs.store.api import ObjectInfo
from zosfs.tree.attributes import Attributes
from zosfs.tree.directory import Directory
from zosfs.tree.facts import Facts
from zosfs.tree.inodes import Inode
from zosfs.tree.names import name_to_part, part_to_name

_UNKNOWN: Mapping[str, int] = {}

RECOUNTED = 64
"""After so many new names a directory's share of the names that are kept is measured anew: that costs more than the name."""


class OwnChanges(Facts):
    """Facts that change by our own hand."""

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
        inode.fresh_until = self.fresh_until()
        if inode.directory is not None:
            inode.directory.complete_until = inode.fresh_until
        directory.children[name] = inode
        if directory.complete() and (len(directory.children) % RECOUNTED == 0 or not self._loader.keeps(parent)):
            self._loader.keep(parent)
        self._touch(parent, attributes.mtime_ns)
        return inode

    def remove(self, inode: Inode) -> None:
        """*inode*'s name was removed here."""
        parent = inode.parent
        assert parent is not None
        directory = self._change(parent, inode.name)
        self._gone_from(directory, inode)
        if not inode.part and not inode.is_dir:
            parent.marker = False
        self._unlink(inode)
        self._touch(parent, time.time_ns())

    def _gone_from(self, directory: Directory, inode: Inode) -> None:
        other = directory.children.get(inode.name)
        if other is inode:
            del directory.children[inode.name]
            directory.note_missing(inode.name, self.options.negative_ttl)
        elif other is not None and not other.dirty:
            # an answer from before may have brought the name back when one from after had taken it away: the store knows
            other.fresh_until = float("-inf")
            directory.doubt()

    def move(self, inode: Inode, parent: Inode, name: bytes, made: Mapping[str, int] = _UNKNOWN) -> Inode | None:
        """*inode* is *name* in *parent* now; returns what it replaced.

        *made*, for a directory: when the objects at its new keys were made (ns since the epoch), as far as is known. They are copies, and
        who removes one says which object was meant by its time.
        """
        old_parent = inode.parent
        assert old_parent is not None
        old = self._change(old_parent, inode.name)
        self._gone_from(old, inode)
        new = self._change(parent, name)
        replaced = new.children.get(name)
        if not inode.is_dir:
            inode.info = inode.info  # of the key that it had
        inode.parent = parent
        inode.call(name, name_to_part(name))
        new.children[name] = inode
        inode.unlinked = False  # whoever asked for it on its way may have found it missing
        self._taken.discard(inode.number)
        self._table.keep(inode)
        if inode.directory is not None:
            self.moves += 1
            inode.directory.moved = self.moves
            self._doubt_listings(inode, inode.directory.counted_at)
            self._rekey(inode, made)
        inode.fresh_until = self.fresh_until()
        inode.stamp += 1
        if replaced is not None:
            self._unlink(replaced)
        now = time.time_ns()
        self._touch(old_parent, now)
        self._touch(parent, now)
        return replaced

    def left(self, parent: Inode, name: bytes) -> None:
        """The last object of the directory that was called *name* is gone: what a listing showed of it since it was renamed is not."""
        self._change(parent, name)
        self.vanished(parent, name)

    def _doubt_listings(self, top: Inode, since: float) -> None:
        """A listing made while the objects of *top* were under way to their new keys may have seen only some of them."""
        waiting = [top]
        while waiting:
            directory = waiting.pop().directory
            if directory is not None:
                directory.negative.clear()
                directory.told = ()
                if directory.listed_at >= since:
                    directory.unlist()
                waiting.extend(child for child in directory.children.values() if child.is_dir)

    def _rekey(self, top: Inode, made: Mapping[str, int]) -> None:
        """What is known of the objects below directory *top*, its own included, is known of them at their new keys."""
        if top.info is not None:
            top.info = dataclasses.replace(top.info, key=top.key)
        waiting = [(top, top.key)]
        while waiting:
            directory, prefix = waiting.pop()
            for child in self.known_children(directory):
                key = f"{prefix}{child.part}/" if child.is_dir else prefix + child.part
                info = child.info
                if info is not None:
                    made_ns = made.get(key, info.modified_ns)
                    if child.listed is not None:
                        if made_ns != info.modified_ns:
                            child.listed_as(dataclasses.replace(info, modified_ns=made_ns))
                    elif info.key != key or made_ns != info.modified_ns:
                        child.info = dataclasses.replace(info, key=key, modified_ns=made_ns)
                if child.is_dir:
                    waiting.append((child, key))

    def _touch(self, directory: Inode, now: int) -> None:
        """A directory's times move with its names, as programs expect; they are not stored."""
        directory.attributes.mtime_ns = directory.attributes.ctime_ns = now
        directory.stamp += 1

    def delivered(self, inode: Inode, info: ObjectInfo) -> None:
        """The store has *inode*'s bytes and attributes now, as *info* says."""
        inode.pending = False
        if info.metadata is None or inode.dirty or info.key != inode.key:
            inode.info = info
        else:
            inode.told_as(info, inode.attributes)
        # a copy has the attributes of its source, and tells none
        inode.known = inode.known or info.metadata is not None or not self.options.posix
        inode.checked_at = self.about_now()
        inode.fresh_until = self.fresh_until()
        if inode.parent is not None and not inode.unlinked:
            self._change(inode.parent, inode.name)
        inode.stamp += 1
        if self.cache is not None and info.metadata is not None:
            self.cache.put(inode.store.bucket, info)

    def rewritten(self, bucket: str, info: ObjectInfo) -> Inode | None:
        """*bucket* has *info* now, by this mount's hand, but past its inode. Returns that, where one is known and does not know better."""
        inode: Inode | None = self.root
        prefix = self.root.volume.prefix if self.root.volume is not None else ""
        if self.root.volume is None and self.root.directory is not None:
            inode = self.root.directory.children.get(bucket.encode())
        if not info.key.startswith(prefix):
            return None
        for part in info.key.removeprefix(prefix).split("/"):
            directory = inode.directory if inode is not None else None
            inode = directory.children.get(part_to_name(part)) if directory is not None else None
        if inode is None or inode.is_dir or inode.dirty:
            return None
        self.learn(inode, info)
        inode.fresh_until = self.fresh_until()
        self.changed(inode)
        return inode

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
