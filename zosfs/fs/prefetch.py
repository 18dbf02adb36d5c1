"""Small files fetched before they are opened: option ``prefetch``.

Owns: the ways through directories whose files are opened one after the other, and what was asked for ahead of an open. What a row is
and how far ahead it goes is decided in rows.py. Must not know: the kernel. Without the option nothing is asked for before its open
has begun: only then an open sees all that was written before.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import trio

from zosfs.config import Options
from zosfs.content.content import Content
from zosfs.content.reader import Reader
from zosfs.fs.about_to_open import small
from zosfs.fs.rows import Rows
from zosfs.store.api import ObjectInfo
from zosfs.tree.inodes import Inode
from zosfs.tree.tree import Tree

log = logging.getLogger(__name__)

DIRECTORIES = 16
"""Directories whose rows are remembered."""

SEARCHED = 256
"""Names of a directory looked through for each file that is opened out of order: finding its place costs all of them."""


@dataclass(slots=True)
class _Way:
    """One directory that is gone through: its files as they were listed, and the opens since its last search."""

    files: list[Inode]
    rows: Rows
    patience: int = 0

    def place(self, inode: Inode) -> int | None:
        """Where *inode* is among the files; None when it is not there, or not worth looking for again so soon."""
        for number in self.rows.next_places():
            if self.files[number] is inode:
                return number
        self.patience -= 1
        if self.patience >= 0:
            return None
        self.patience = len(self.files) // SEARCHED
        try:
            return self.files.index(inode)
        except ValueError:
            return None


@dataclass(slots=True)
class _Early:
    """A file that was asked for before its open, at *asked* (trio time), as the version *info*; *reader* has its bytes, unless
    they are in a local cache and only their version was asked for. *waited*: the program was there before them."""

    inode: Inode
    info: ObjectInfo
    asked: float
    reader: Reader | None = None
    waited: bool = False


class Prefetch:
    """What is asked for ahead of opens in one mount."""

    def __init__(self, tree: Tree, options: Options, nursery: trio.Nursery, cached: Callable[[Inode], bool]) -> None:
        """*cached*: whether an inode's bytes could come from a local cache."""
        self._tree = tree
        self._seconds = options.prefetch
        self._nursery = nursery
        self._cached = cached
        self._ways: OrderedDict[int, _Way] = OrderedDict()
        self._early: OrderedDict[int, _Early] = OrderedDict()  # by inode number, the oldest first
        self._watching = False

    def opening(self, inode: Inode, content: Content) -> bool:
        """*inode* is about to be opened for reading: asks for what the program will open next.

        True when the version that is known of *inode* was asked for short enough ago, so that the server need not be asked again.
        """
        if not self._seconds or inode.parent is None or not small(inode):
            return False
        early = self._current(inode)
        waits = early is None or early.waited or (early.reader is not None and not early.reader.whole)
        self._step(inode, content, waits=waits)
        return early is not None

    def coming(self, inode: Inode) -> Reader | None:
        """The reader of what was asked for ahead of *inode*, whose answer tells its attributes, for which a program waits now."""
        early = self._early.get(inode.number)
        if early is None or early.reader is None or inode.info is None or early.info.etag != inode.info.etag:
            return None
        early.waited = early.waited or not early.reader.whole
        return early.reader

    def take(self, inode: Inode) -> Reader | None:
        """A reader that already has, or waits for, what was asked for of *inode*; the caller's from now on."""
        early = self._early.pop(inode.number, None)
        if early is None:
            return None
        if early.info is not inode.info and (inode.info is None or early.info.etag != inode.info.etag):
            self._drop(early)
            return None
        return early.reader

    def _current(self, inode: Inode) -> _Early | None:
        early = self._early.get(inode.number)
        if early is None:
            return None
        if trio.current_time() - early.asked <= self._seconds and inode.info is not None and early.info.etag == inode.info.etag:
            return early
        del self._early[inode.number]
        self._drop(early)
        return None

    def _step(self, inode: Inode, content: Content, *, waits: bool) -> None:
        parent = inode.parent
        assert parent is not None
        way = self._ways.get(parent.number)
        if way is None:
            if parent.directory is None or not parent.directory.complete():
                return
            files = [child for child in self._tree.known_children(parent) if not child.is_dir]
            way = self._ways[parent.number] = _Way(files, Rows(len(files)))
            if len(self._ways) > DIRECTORIES:
                self._end(self._ways.popitem(last=False)[0])
        else:
            self._ways.move_to_end(parent.number)
        number = way.place(inode)
        if number is None:
            return
        step = way.rows.opened(number, waits=waits)
        for gone in step.left:
            self._give_up(way.files[gone.start : gone.stop])
        for at in step.ahead:
            if not self._ask(way.files[at], content):
                step.row.refuse(at)
                break
        if number == len(way.files) - 1:
            del self._ways[parent.number]  # the next time the directory may have other names

    def _ask(self, inode: Inode, content: Content) -> bool:
        """Ask for *inode* ahead; False when there is no room for it now."""
        info = inode.info
        if info is None or inode.number in self._early or not small(inode) or inode.file is not None:
            return True
        early = _Early(inode, info, trio.current_time())
        if self._cached(inode):
            self._nursery.start_soon(self._look, early)
        else:
            reader = content.reader(info)
            if not reader.ask_ahead():
                reader.close()
                return False
            early.reader = reader
            self._note(early)
        return True

    async def _look(self, early: _Early) -> None:
        try:
            await self._tree.refresh(early.inode, force=True)
        except OSError as exc:
            log.debug("asking ahead: %s", exc)
            return
        if early.inode.info is not None and early.inode.number not in self._early:
            early.info = early.inode.info
            self._note(early)

    def _note(self, early: _Early) -> None:
        self._early[early.inode.number] = early
        if not self._watching:
            self._watching = True
            self._nursery.start_soon(self._watch)

    async def _watch(self) -> None:
        """Give up what was not opened in time."""
        while self._early:
            oldest = next(iter(self._early.values()))
            left = oldest.asked + self._seconds - trio.current_time()
            if left > 0:
                await trio.sleep(left)
                continue
            self._drop(self._early.pop(oldest.inode.number))
        self._watching = False

    def _end(self, parent: int) -> None:
        inodes = [early.inode for early in self._early.values()]
        self._give_up([inode for inode in inodes if inode.parent is not None and inode.parent.number == parent])

    def _give_up(self, files: list[Inode]) -> None:
        for inode in files:
            early = self._early.pop(inode.number, None)
            if early is not None:
                self._drop(early)

    @staticmethod
    def _drop(early: _Early) -> None:
        if early.reader is not None:
            early.reader.close()
