"""Attributes brought up to date: one HEAD an inode however many ask, and sweeps over those that will be asked for next.

Owns: the HEADs under way. May use: the store through the inodes, what is known (zosfs.tree.facts).
"""

from __future__ import annotations

import errno
import itertools
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import NamedTuple

import trio

from zosfs.errors import StoreError
from zosfs.store.api import HEADS_TOGETHER, ObjectInfo
from zosfs.store.objects import is_folder
from zosfs.tree.asked_ahead import FIRST, AskedAhead
from zosfs.tree.directory import Directory
from zosfs.tree.facts import Facts, fault, is_replaced, to_the_millisecond
from zosfs.tree.inodes import Inode

log = logging.getLogger(__name__)

SWEEP_WIDTH = 32
"""Batches of HEADs of one sweep under way: more than the store sends at once, so that the next is there when one comes back."""

Ask = Callable[[], Awaitable[ObjectInfo]]
"""Asks for what a HEAD would tell."""


class _Flight:
    """A HEAD under way that others may wait for."""

    __slots__ = ("arrived", "began", "done")

    def __init__(self) -> None:
        self.began = trio.current_time()
        self.done = trio.Event()
        self.arrived = False  # with an answer


class _Question(NamedTuple):
    """A HEAD of *inode* as it stood when that was sent: what it hung below and was called, when its object was made as far as that was
    known, and how many changes there had been."""

    inode: Inode
    parent: Inode
    name: bytes
    key: str
    modified_ns: int
    sequence: int
    moves: int


def _is_unknown(inode: Inode) -> bool:
    return not (inode.known or inode.unlinked or inode.dirty)


class Refresher:
    """Asks for the attributes of a tree's inodes."""

    def __init__(self, tree: Facts) -> None:
        self._tree = tree
        self._heads: dict[Inode, _Flight] = {}  # an inode that was forgotten has its number in common with its successor

    def is_fresh(self, inode: Inode) -> bool:
        """Whether `refresh` would ask nothing."""
        return inode.dirty or inode.top or inode.unlinked or (inode.known and trio.current_time() < inode.fresh_until)

    async def refresh(self, inode: Inode, *, force: bool = False, ask: Ask | None = None, begins: bool = False) -> None:
        """Bring attributes and info up to date: nothing is asked within metadata_ttl unless *force*.

        ENOENT when the object vanished (the name is taken away then), ESTALE when somebody is reading it here and others have replaced it
        (the name is another inode's then). What *force* tells was true after it was asked. Who asks for
        one name after the other, of which the attributes are only guessed, finds the next ones asked for already, with the first one where
        he *begins* to. *ask* is used in place of a HEAD, unless one is under way; where it fails, and nothing else is said of the object, a
        HEAD follows.
        """
        if inode.dirty or inode.top or inode.unlinked:
            return
        if not force and self.is_fresh(inode):
            self._tree.counters.add("attribute_hits")
            return
        if ask is None and not inode.known and not force and trio.current_time() < inode.fresh_until:
            self._ask_ahead(inode, begins)
        await self._head(inode, force=force, ask=ask)

    async def _head(self, inode: Inode, *, force: bool = False, ask: Ask | None = None) -> None:
        """One HEAD, or for directories of which the marker may be missing a look below. *force*: sent after now."""
        now = trio.current_time()
        while (flight := self._heads.get(inode)) is not None:
            await flight.done.wait()
            if inode.unlinked:
                raise fault(errno.ESTALE if self._tree.taken(inode) else errno.ENOENT)
            if flight.arrived and (not force or flight.began >= now):
                return
        flight = self._take_off(inode)
        arrived = False
        try:
            with self._tree.flying.request(self._tree.sequence):
                await self._head_now(inode, force, ask)
            arrived = True
        finally:
            self._land(inode, flight, arrived=arrived)

    async def _head_now(self, inode: Inode, force: bool, ask: Ask | None = None) -> None:
        question = self._question(inode)
        key = question.key
        try:
            if ask is not None:
                info = await self._ask_or_head(inode, key, ask)
            elif not inode.is_dir or self._tree.options.posix:
                info = await inode.store.head(key)
            elif (await self._tree.removed.list_page(inode.store, key, max_keys=1)).objects:
                if inode.key == key:
                    inode.fresh_until = self._tree.fresh_until()
                return
            else:
                raise StoreError("NoSuchKey", status=404, operation="list", key=key)
        except StoreError as exc:
            await self._refused(question, exc, force=force)
            return
        if not self._told(question, info):
            await self._head_now(inode, force)
        elif self._tree.taken(inode):
            raise fault(errno.ESTALE)

    def _question(self, inode: Inode) -> _Question:
        assert inode.parent is not None
        return _Question(inode, inode.parent, inode.name, inode.key, inode.modified_ns, self._tree.sequence, self._tree.moves)

    def _told(self, question: _Question, info: ObjectInfo) -> bool:
        """The store said *info*: believed unless something was done here meanwhile. False: renamed, it has to be asked for again."""
        inode = question.inode
        if inode.dirty or inode.unlinked:
            return True
        if self._has_another_key(question):
            return False
        if self._tree.directory(question.parent).newer_than(question.name, question.sequence):
            return inode.known
        if inode.is_dir:
            inode.marker = not is_folder(info)
        info = to_the_millisecond(info, question.modified_ns)
        if is_replaced(inode, info):
            self._tree.settle(question.parent, question.name, inode.part, False, info)
        else:
            self._tree.learn(inode, info)
            inode.fresh_until = self._tree.fresh_until()
        if self._tree.cache is not None:
            self._tree.cache.put(inode.store.bucket, info)
        return True

    def _has_another_key(self, question: _Question) -> bool:
        inode = question.inode
        if inode.parent is question.parent and inode.name == question.name and self._tree.moves == question.moves:
            return False  # nor has any directory above it: a key made of all their names costs as much as the rest of an answer
        return inode.key != question.key

    def _renamed(self, question: _Question) -> bool:
        return self._has_another_key(question) or self._tree.moved(question.inode, question.moves)

    async def _refused(self, question: _Question, failure: StoreError, *, force: bool = False) -> None:
        """The store refused: a missing object has vanished, moved, or its directory lives without it. Raises what is to be told."""
        inode, parent, name, _, _, sequence, moves = question
        if failure.errno != errno.ENOENT or inode.dirty:
            raise failure
        if inode.unlinked:
            raise fault(errno.ENOENT) from None
        if self._renamed(question):
            await self._head_now(inode, force)  # it is looked for at its new place
            return
        if inode.is_dir and self._tree.options.posix:
            if not force and trio.current_time() < inode.fresh_until:
                # a listing has just shown something below it
                inode.marker, inode.known = False, True
                return
            if await self._lives(inode) or self._tree.moved(inode, moves):
                return
        directory = self._tree.directory(parent)
        if not directory.newer_than(name, sequence):
            if self._tree.vanished(parent, name) is inode:
                return
            directory.note_missing(name, self._tree.options.negative_ttl)
        raise fault(errno.ENOENT) from None

    async def _ask_or_head(self, inode: Inode, key: str, ask: Ask) -> ObjectInfo:
        try:
            return await ask()
        except StoreError as exc:
            if exc.errno == errno.ENOENT:
                raise
        return await inode.store.head(key)

    async def _lives(self, inode: Inode) -> bool:
        """Whether a directory without a marker has anything below it."""
        directory = self._tree.directory(inode)
        inode.marker = False
        if not (directory.complete() and directory.children):
            page = await self._tree.removed.list_page(inode.store, inode.key, max_keys=1)
            if not page.objects and not page.prefixes:
                return False
        inode.known = True
        inode.fresh_until = self._tree.fresh_until()
        return True

    def _ask_ahead(self, wanted: Inode, begins: bool) -> None:
        """HEAD in the background what stands behind *wanted* in its directory."""
        assert wanted.parent is not None
        directory = self._tree.directory(wanted.parent)
        if directory.sweeping:
            return
        if directory.asked_ahead is None:
            directory.asked_ahead = AskedAhead()
        ahead = directory.asked_ahead.missed(wanted, trio.current_time(), begins=begins)
        behind = itertools.dropwhile(lambda child: child is not wanted, directory.children.values())
        unknown = (child for child in behind if _is_unknown(child) and child is not wanted)
        some = list(itertools.islice(unknown, ahead))
        directory.asked_ahead.next = frozenset(itertools.islice(unknown, FIRST))
        if some:
            directory.sweeping = True
            self._tree.nursery.start_soon(self._sweep, directory, some)

    async def _sweep(self, directory: Directory, inodes: Collection[Inode]) -> None:
        try:
            await self.try_all(inodes)
        finally:
            directory.sweeping = False

    async def try_all(self, inodes: Collection[Inode]) -> None:
        """As `head_all`, but failures are nobody's: those that the server tells nothing of stay guessed, and the log says why."""
        try:
            await self.head_all(inodes)
        except OSError as exc:
            log.info("attributes of some names stay guessed: %s", exc)

    async def head_all(self, inodes: Collection[Inode]) -> None:
        """HEAD of all *inodes* in parallel; what vanishes is taken away, other failures are raised (the first one).

        Who is refused keeps nobody else from being asked for, unless a whole batch of them is.
        """
        waiting = (inode for inode in list(inodes) if _is_unknown(inode))
        failures: list[OSError] = []

        async def one(inode: Inode, refused: list[OSError]) -> None:
            if _is_unknown(inode):  # nobody was told of it while its batch was under way
                try:
                    await self._head(inode)
                except OSError as exc:
                    if exc.errno != errno.ENOENT:
                        refused.append(exc)

        async def worker() -> None:
            while batch := list(itertools.islice(waiting, HEADS_TOGETHER)):
                refused: list[OSError] = []
                try:
                    alone = await self._head_together(batch)
                except OSError as exc:
                    failures.append(exc)
                    return
                if len(alone) == 1:
                    await one(alone[0], refused)
                elif alone:
                    async with trio.open_nursery() as nursery:
                        for inode in alone:
                            nursery.start_soon(one, inode, refused)
                failures.extend(refused)
                if len(refused) == len(batch):
                    return

        async with trio.open_nursery() as nursery:
            for _ in range(min(SWEEP_WIDTH, -(-len(inodes) // HEADS_TOGETHER))):
                nursery.start_soon(worker)
        if failures:
            raise failures[0]

    async def _head_together(self, inodes: Sequence[Inode]) -> Sequence[Inode]:
        """HEAD of at most HEADS_TOGETHER *inodes* in one batch, as `_head` does; returns those that have to be asked for alone."""
        store = inodes[0].store
        batch = list(dict.fromkeys(
            inode for inode in inodes
            if inode.store is store and inode not in self._heads and (self._tree.options.posix or not inode.is_dir)
        ))  # fmt: skip
        if len(batch) < 2:
            return inodes
        flights = {inode: self._take_off(inode) for inode in batch}
        alone = [inode for inode in inodes if inode not in flights]
        try:
            with self._tree.flying.request(self._tree.sequence):
                questions = [self._question(inode) for inode in batch]
                answers = await store.head_many([question.key for question in questions])
                refused: list[tuple[_Question, StoreError]] = []
                for question, answer in zip(questions, answers, strict=True):
                    if not isinstance(answer, StoreError):
                        arrived = answer is not None and self._told(question, answer)
                    elif self._renamed(question):
                        arrived = False
                    else:
                        refused.append((question, answer))
                        continue
                    if not arrived:
                        alone.append(question.inode)
                    self._land(question.inode, flights.pop(question.inode), arrived=arrived)
                for question, failure in refused:
                    try:
                        await self._refused(question, failure)
                    except OSError as exc:
                        if exc.errno != errno.ENOENT:
                            raise
                    else:
                        self._land(question.inode, flights.pop(question.inode), arrived=True)
        finally:
            for inode, flight in flights.items():
                self._land(inode, flight, arrived=False)
        return alone

    def _take_off(self, inode: Inode) -> _Flight:
        flight = self._heads[inode] = _Flight()
        inode.pins += 1
        return flight

    def _land(self, inode: Inode, flight: _Flight, *, arrived: bool) -> None:
        flight.arrived = arrived
        inode.pins -= 1
        del self._heads[inode]
        flight.done.set()
        if inode.unlinked:
            self._tree.forget(inode.number, 0)  # nobody else may refer to it any more
