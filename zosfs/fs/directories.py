"""Directories: listing them to the kernel, making and removing them, and the marker objects that keep empty ones alive.

Owns: the directory handles, and which directories are owed a marker. A directory that exists only because keys lie below it would
vanish with the last of them; it gets its `dir/` object shortly after it was emptied, unless it is removed itself by then (rm -r).
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
from collections.abc import Iterable, Sequence

import pyfuse3
import trio

from zosfs.config import Options
from zosfs.fs.about_to_open import AboutToOpen
from zosfs.fs.change import described_info
from zosfs.fs.entries import entries, entry
from zosfs.fs.headers import fresh, headers
from zosfs.fs.moving import Moving
from zosfs.fs.removals import Removals
from zosfs.tree.attributes import Attributes
from zosfs.tree.inodes import Inode
from zosfs.tree.tree import Listing, Tree

log = logging.getLogger(__name__)

BATCH = 256
MARKER_DELAY = 0.5
"""Seconds between the removal of a directory's last name and its marker: an `rm -r` is through with it by then."""


class Directories:
    """Directory handles and markers of a mount."""

    def __init__(
        self, tree: Tree, moving: Moving, options: Options, nursery: trio.Nursery, removals: Removals, about_to_open: AboutToOpen
    ) -> None:  # fmt: skip
        self._tree = tree
        self._moving = moving
        self._about_to_open = about_to_open
        self._removals = removals
        self._options = options
        self._nursery = nursery
        self._open: dict[int, tuple[Inode, Listing]] = {}
        self._numbers = itertools.count(1)
        self._owed: dict[int, Inode] = {}

    def open(self, directory: Inode) -> int:
        """A handle for reading *directory*."""
        number = next(self._numbers)
        directory.pins += 1
        self._open[number] = (directory, self._tree.listing(directory))
        return number

    def inode(self, number: int) -> Inode:
        """The directory of a handle."""
        return self._open[number][0]

    def release(self, number: int) -> None:
        """The handle is gone."""
        directory, _ = self._open.pop(number)
        directory.pins -= 1

    async def read(self, number: int, after: int, token: pyfuse3.ReaddirToken) -> None:
        """Answer readdir from cookie *after* on. Cookies 1 and 2 are `.` and `..`; the listing's follow.

        One batch an answer: the kernel asks again, and names reach the reader early.
        """
        directory, listing = self._open[number]
        self._answer(directory, await listing.batch(max(0, after - 2), BATCH), after, token)

    def read_now(self, number: int, after: int, token: pyfuse3.ReaddirToken) -> bool:
        """As `read`, where nothing has to be waited for; False, and nothing happened, where something has."""
        directory, listing = self._open[number]
        batch = listing.batch_now(max(0, after - 2), BATCH)
        if batch is None:
            return False
        self._answer(directory, batch, after, token)
        return True

    def _answer(self, directory: Inode, batch: Sequence[tuple[int, bytes, Inode]], after: int, token: pyfuse3.ReaddirToken) -> None:
        ttl = self._options.metadata_ttl
        parent = directory.parent or directory
        for cookie, name, inode in ((1, b".", directory), (2, b"..", parent)):
            if after < cookie and not pyfuse3.readdir_reply(token, name, entry(inode, ttl), cookie):
                return
        told: list[Inode] = []
        for (cookie, name, inode), shown in zip(batch, entries((inode for _, _, inode in batch), ttl), strict=True):
            if not pyfuse3.readdir_reply(token, name, shown, cookie + 2):
                break
            told.append(inode)
        self._about_to_open.shown_all(told)
        self._tree.remember_all(told)

    async def make(self, parent: Inode, name: bytes, attributes: Attributes) -> Inode:
        """mkdir: one PUT of the marker."""
        self._tree.check_name(parent, name)
        if await self._tree.lookup(parent, name) is not None:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        inode = self._tree.add(parent, name, attributes, is_dir=True, pending=True)
        described = fresh(name, True, self._options)
        wanted = headers(described, attributes, self._options)
        try:
            written = await inode.store.put(inode.key, (), wanted)
        except BaseException:
            self._tree.remove(inode)
            raise
        inode.marker = True
        self._tree.delivered(inode, described_info(inode, wanted, written.etag, written.modified_ns))
        self.unowe(parent)
        return inode

    async def remove(self, inode: Inode) -> None:
        """rmdir: ENOTEMPTY unless empty; one DELETE of the marker where there is one, or may be a folder of the server's."""
        if not await self._tree.is_empty(inode):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))
        self.unowe(inode)
        if inode.marker is not False or inode.store.abilities.keeps_folders:
            await self._removals.delete(inode)
        self._tree.remove(inode)

    # -- markers ----------------------------------------------------------------------------------------------------

    def emptied(self, directory: Inode) -> None:
        """A name left *directory*: if that was the last one, and no marker keeps it, it is owed one."""
        if directory.marker or directory.top or directory.number in self._owed:
            return
        if self._tree.known_children(directory):
            return
        self._owed[directory.number] = directory
        directory.pins += 1
        directory.pending = True  # the store knows no such directory for now
        self._nursery.start_soon(self._settle_later, directory)

    def unowe(self, directory: Inode) -> None:
        """The directory needs no marker any more: it is gone or has a name again."""
        if self._owed.pop(directory.number, None) is not None:
            directory.pins -= 1
            directory.pending = False

    async def _settle_later(self, directory: Inode) -> None:
        await trio.sleep(MARKER_DELAY)
        try:
            await self._settle(directory)
        except OSError as exc:
            log.warning("%s was emptied and cannot be given its marker: %s", directory.key, exc)

    async def _settle(self, directory: Inode) -> None:
        if directory.number not in self._owed:
            return
        try:
            async with self._moving.still(directory):
                if directory.unlinked or directory.marker or not await self._tree.is_empty(directory):
                    return
                wanted = headers(fresh(directory.name, True, self._options), directory.attributes, self._options)
                written = await directory.store.put(directory.key, (), wanted)
                directory.marker = True
                self._tree.delivered(directory, described_info(directory, wanted, written.etag, written.modified_ns))
        finally:
            self.unowe(directory)

    async def settle_markers(self, below: Iterable[Inode] | None = None) -> None:
        """Put the markers that are owed now (fsync of a directory, umount). Raises the first StoreError; what is left is still owed."""
        for directory in list(self._owed.values() if below is None else below):
            await self._settle(directory)
