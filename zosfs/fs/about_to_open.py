"""Small files whose attributes and bytes come in one request, when who asks for the attributes is about to open the file.

Owns: who asked for the attributes of a small file last, and what was fetched with them. Must not know: the kernel.

open(2) asks for attributes that the kernel does not have (GETATTR, to check permissions), and then opens. As long as attributes are
told without leave to keep them, each open(2) asks by itself, directly before its OPEN: so the question before an OPEN of the same thread
belongs to that open(2), and bytes asked for at that question were asked for after the open had begun, as close-to-open wants it.
A stat(2) before would be followed by a question of the open's own. When anybody was told the attributes with leave to keep them
meanwhile, that holds no more, and what was fetched is dropped.
"""

from __future__ import annotations

import math
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import cachetools
import trio

from zosfs.admin.thawing import ARCHIVES
from zosfs.content.readahead import WHOLE
from zosfs.content.reader import Reader
from zosfs.fs.contents import Contents
from zosfs.tree.inodes import Inode
from zosfs.tree.tree import Tree

HABITS = 256
"""Threads, and directories, whose habits are remembered."""

MOST_NEEDED = 32
KEPT = 1.0
"""Seconds for which what was fetched with attributes waits for its OPEN, which follows at once if at all."""


@dataclass(slots=True)
class Habit:
    """Whether those who ask for the attributes of small files open them next (pure).

    One proof is enough at first. Each time that bytes were fetched in vain twice as many are needed, up to MOST_NEEDED.
    """

    run: int = 0
    needed: int = 1

    @property
    def opens_next(self) -> bool:
        """Whether the next one is taken for a file that is about to be opened."""
        return self.run >= self.needed

    def opened(self) -> None:
        """The file that was asked for was opened next."""
        self.run += 1

    def left(self, *, fetched: bool) -> None:
        """It was not; *fetched*: its bytes came in vain."""
        self.run = 0
        if fetched:
            self.needed = min(MOST_NEEDED, 2 * self.needed)


@dataclass(slots=True)
class _Asked:
    """*inode* was asked for by *thread* and *answered* (trio time); *reader* has its bytes, or waits for them."""

    inode: Inode
    habit: Habit
    thread: int
    reader: Reader | None = None
    answered: float = math.inf


def small(inode: Inode) -> bool:
    """Whether *inode* is a file that one request brings, and that is in the store as it is known."""
    info = inode.info
    return (
        info is not None and 0 < info.size <= WHOLE and not inode.dirty and not inode.unlinked and stat.S_ISREG(inode.shown().mode)
        and info.storage_class not in ARCHIVES
    )  # fmt: skip


class AboutToOpen:
    """What is asked for with attributes in one mount."""

    def __init__(
        self, tree: Tree, contents: Contents, nursery: trio.Nursery, cached: Callable[[Inode], bool],
        coming: Callable[[Inode], Reader | None],
    ) -> None:  # fmt: skip
        """*cached*: whether an inode's bytes could come from a local cache; *coming*: who waits for bytes that were asked for ahead."""
        self._tree = tree
        self._coming = coming
        self._cached = cached
        self._contents = contents
        self._nursery = nursery
        self._threads: cachetools.LRUCache[int, Habit] = cachetools.LRUCache(HABITS)
        self._directories: cachetools.LRUCache[int, Habit] = cachetools.LRUCache(HABITS)
        self._asked: dict[int, _Asked] = {}  # by thread
        self._fetched: dict[int, _Asked] = {}  # those with a reader, by inode number
        self._watching = False

    async def refresh(self, inode: Inode, thread: int) -> bool:
        """Bring the attributes of *inode* up to date for *thread*, and its bytes, too, where it is about to be opened.

        True: the kernel is not to keep them, so that whoever opens the file asks again. Raises what Tree.refresh raises.
        """
        if not thread or inode.known or inode.parent is None or not small(inode):
            self.shown(inode, thread)
            await self._tree.refresh(inode)
            return False
        ahead = self._coming(inode)
        if ahead is not None:
            await self._tree.refresh(inode, ask=ahead.facts)
            return False
        before = self._asked.get(thread)
        if before is not None:
            self._leave(before)
        asked = self._asked[thread] = _Asked(inode, self._habit(thread, inode.parent.number), thread)
        self._watch()
        if asked.habit.opens_next and inode.number not in self._fetched:
            await self._fetch(asked)
        try:
            await self._tree.refresh(inode, ask=asked.reader.facts if asked.reader is not None else None)
        except BaseException:
            self._end(asked)
            raise
        asked.answered = trio.current_time()
        return self._asked.get(thread) is asked

    def shown(self, inode: Inode, thread: int) -> None:
        """The kernel is told attributes of *inode* that it may keep: the question before an OPEN may be another's from now on."""
        if self._asked and inode.known:
            asked = self._asked.get(thread)
            if asked is not None:
                self._leave(asked)
            self._end(self._fetched.get(inode.number))

    def shown_all(self, inodes: Iterable[Inode]) -> None:
        """As `shown` of each of *inodes*, to nobody in particular."""
        if self._asked:
            for inode in inodes:
                self.shown(inode, 0)

    def take(self, inode: Inode, thread: int) -> Reader | None:
        """*thread* opens *inode* for reading: a reader of what was asked for since that open(2) began, the caller's from now on."""
        asked = self._asked.get(thread)
        mine: Reader | None = None
        if asked is not None:
            if asked.inode is inode:
                asked.habit.opened()
                mine, asked.reader = asked.reader, None
                if mine is not None:
                    del self._fetched[inode.number]
                    if inode.info is None or mine.info.etag != inode.info.etag:
                        mine.close()
                        mine = None
                self._end(asked)
            else:
                self._leave(asked)
        self._end(self._fetched.get(inode.number))
        return mine

    def _habit(self, thread: int, directory: int) -> Habit:
        habit = self._threads.get(thread) or self._directories.get(directory) or Habit()
        self._threads[thread] = self._directories[directory] = habit
        return habit

    async def _fetch(self, asked: _Asked) -> None:
        content = await self._contents.of(asked.inode.volume)
        inode = asked.inode
        info = inode.info
        if info is None or self._asked.get(asked.thread) is not asked or inode.number in self._fetched:
            return
        if inode.file is not None or self._cached(inode):
            return
        reader = content.reader(info)
        if reader.ask_whole():
            asked.reader = reader
            self._fetched[inode.number] = asked
        else:
            reader.close()

    def _leave(self, asked: _Asked) -> None:
        asked.habit.left(fetched=asked.reader is not None)
        self._end(asked)

    def _end(self, asked: _Asked | None) -> None:
        if asked is None:
            return
        if self._asked.get(asked.thread) is asked:
            del self._asked[asked.thread]
        if asked.reader is not None:
            del self._fetched[asked.inode.number]
            reader, asked.reader = asked.reader, None
            reader.close()

    def _watch(self) -> None:
        if not self._watching:
            self._watching = True
            self._nursery.start_soon(self._give_up)

    async def _give_up(self) -> None:
        """Let go of what nobody opened."""
        while self._asked:
            await trio.sleep(KEPT)
            late = trio.current_time() - KEPT
            for asked in [asked for asked in self._asked.values() if asked.answered <= late]:
                self._leave(asked)
        self._watching = False
