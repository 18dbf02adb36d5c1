"""Directories: listing them to the kernel, making and removing them, and the marker objects that keep empty ones alive.

Owns: the directory handles, and which directories are owed a marker. A directory that exists only because keys lie below it would
vanish with the last of them; it gets its `dir/` object shortly after it was emptied, unless it is removed itself by then (rm -r).
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
from collections.abc import AsyncIterator, Iterable, Sequence

import pyfuse3
import trio

from zosfs.config import Options
from zosfs.fs.about_to_open import AboutToOpen
from zosfs.fs.change import described_info
from zosfs.fs.entries import MAY_BE_UNKNOWN, entries, entry
from zosfs.fs.headers import fresh, headers
from zosfs.fs.kinds_wanted import KindsWanted
from zosfs.fs.moving import Moving
from zosfs.fs.negative_names import NegativeNames
from zosfs.fs.removals import Removals
from zosfs.tree.attributes import Attributes
from zosfs.tree.inodes import Inode
from zosfs.tree.tree import Listing, Tree

log = logging.getLogger(__name__)

BATCH = 256
FIRST_UNKNOWN = 16
"""Names in the first answer to who may want to know what they are: he asks for each of these by itself."""
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
        self._kinds = KindsWanted()
        self._negative = NegativeNames(options.negative_ttl)
        self._open: dict[int, tuple[Inode, Listing, int]] = {}
        self._numbers = itertools.count(1)
        self._owed: dict[int, Inode] = {}
        self._marking: dict[int, trio.Event] = {}  # by the number of a directory whose marker is on its way: set when it is there

    def open(self, directory: Inode, thread: int) -> int:
        """A handle for *thread* to read *directory*."""
        number = next(self._numbers)
        directory.pins += 1
        self._open[number] = (directory, self._tree.listing(directory), thread)
        return number

    def inode(self, number: int) -> Inode:
        """The directory of a handle."""
        return self._open[number][0]

    def release(self, number: int) -> None:
        """The handle is gone."""
        directory, _, _ = self._open.pop(number)
        directory.pins -= 1

    async def read(self, number: int, after: int, token: pyfuse3.ReaddirToken) -> None:
        """Answer readdir from cookie *after* on. Cookies 1 and 2 are `.` and `..`; the listing's follow.

        One batch an answer: the kernel asks again, and names reach the reader early.
        """
        directory, listing, thread = self._open[number]
        kinds = self._wants_kinds(thread)
        start, limit = max(0, after - 2), self._limit(after, kinds)
        batch = await listing.batch(start, limit, kinds=kinds)
        held = () if kinds else self._held(directory, batch)
        if held:
            await self._tree.sweep_unsure(held)
            batch = await listing.batch(start, limit, kinds=kinds)
        self._answer(number, batch, after, token)

    def read_now(self, number: int, after: int, token: pyfuse3.ReaddirToken) -> bool:
        """As `read`, where nothing has to be waited for; False, and nothing happened, where something has."""
        directory, listing, thread = self._open[number]
        kinds = self._wants_kinds(thread)
        batch = listing.batch_now(max(0, after - 2), self._limit(after, kinds), kinds=kinds)
        if batch is None or (not kinds and self._held(directory, batch)):
            return False
        self._answer(number, batch, after, token)
        return True

    def asked_for(self, directory: Inode, inode: Inode, thread: int) -> bool:
        """*thread* asks for a name of *directory* of which nothing tells yet what it is, *inode*: whether it has just read the names, and
        begins to ask for them."""
        first = next(iter(self._tree.known_children(directory)), None) is inode
        return self._kinds.asked(directory.number, thread, trio.current_time(), first=first)

    def told_missing(self, directory: Inode, name: bytes) -> None:
        """The kernel is told that *directory* has no *name*."""
        if MAY_BE_UNKNOWN and not self._tree.lists_kinds:
            self._negative.told(directory.number, name, trio.current_time())

    def _limit(self, after: int, kinds: bool) -> int:
        return BATCH if kinds or after > 2 or self._tree.lists_kinds else FIRST_UNKNOWN

    def _held(self, directory: Inode, batch: Sequence[tuple[int, bytes, Inode]]) -> Sequence[Inode]:
        """Those that cannot be told without their kinds: the kernel would go on believing what it knows, an older version's attributes, or
        that there is no such name."""
        if self._tree.lists_kinds:
            return ()
        now, negative = trio.current_time(), self._negative
        return [
            inode for _, name, inode in batch
            if self._tree.is_unsure(inode) and (inode.lookups or negative.hold(directory.number, name, now))
        ]  # fmt: skip

    def _wants_kinds(self, thread: int) -> bool:
        return not MAY_BE_UNKNOWN or self._kinds.wants(thread, trio.current_time())

    def _answer(self, number: int, batch: Sequence[tuple[int, bytes, Inode]], after: int, token: pyfuse3.ReaddirToken) -> None:
        directory, _, thread = self._open[number]
        # where the server refused to say it, too: what was told wrongly could not be taken back
        ttl, unsure = self._options.metadata_ttl, self._tree.is_unsure if MAY_BE_UNKNOWN and not self._tree.lists_kinds else None
        parent = directory.parent or directory
        for cookie, name, inode in ((1, b".", directory), (2, b"..", parent)):
            if after < cookie and not pyfuse3.readdir_reply(token, name, entry(inode, ttl), cookie):
                return
        told: list[Inode] = []
        untold = 0
        for (cookie, name, inode), shown in zip(batch, entries((inode for _, _, inode in batch), ttl, unsure), strict=True):
            if not pyfuse3.readdir_reply(token, name, shown, cookie + 2):
                break
            if shown.st_ino:
                told.append(inode)
            else:
                untold += 1
        if untold:
            self._kinds.told(directory.number, thread, untold, trio.current_time())
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
        await self._marked(inode)
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
            async with self._moving.still(directory), self._turn(directory):
                if directory.number not in self._owed or directory.unlinked or directory.marker or not await self._tree.is_empty(directory):
                    return
                wanted = headers(fresh(directory.name, True, self._options), directory.attributes, self._options)
                written = await directory.store.put(directory.key, (), wanted)
                directory.marker = True
                self._tree.delivered(directory, described_info(directory, wanted, written.etag, written.modified_ns))
        finally:
            self.unowe(directory)

    @contextlib.asynccontextmanager
    async def _turn(self, directory: Inode) -> AsyncIterator[None]:
        """Within, *directory* is given its marker: who removes it waits, or would leave that behind."""
        await self._marked(directory)
        there = self._marking[directory.number] = trio.Event()
        try:
            yield
        finally:
            del self._marking[directory.number]
            there.set()

    async def _marked(self, directory: Inode) -> None:
        while (there := self._marking.get(directory.number)) is not None:
            await there.wait()

    async def settle_markers(self, below: Iterable[Inode] | None = None) -> None:
        """Put the markers that are owed now (fsync of a directory, umount). Raises the first StoreError; what is left is still owed."""
        for directory in list(self._owed.values() if below is None else below):
            await self._settle(directory)
