"""Changed attributes that were answered and are on their way to the store: which files have some, and when they go.

Owns: which files were written here a moment before, which of them have promised attributes (`OpenFile.promised`), and why some could not be
delivered. Programs that copy (rsync, unzip, install) write a file, close it, and set its times, its mode and its owner one after the
other, and perhaps its name: each would be a copy of the object onto itself. So the first of them is promised in the journal, and
all go together, with the renaming or after a moment without another one. Of an object that this mount has not just written every change is
made at once, so that its error reaches the caller; so are all after a failure, until one has succeeded. Must not know: requests, headers.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import cachetools
import trio

from zosfs.config import Options
from zosfs.content.content import Content
from zosfs.content.finishing import same_attributes
from zosfs.counters import Counters
from zosfs.fs.open_file import OpenFile
from zosfs.tree.inodes import Inode

log = logging.getLogger(__name__)

LATELY = 2.0
"""Seconds after a file was written here in which changes of its attributes are taken to be a part of making it."""
QUIET, LONGEST = 0.5, 2.0
"""Seconds without another change of a file's attributes after which they go, and after which they go anyway."""
DOUBTED = 3.0
"""Seconds after which somebody else may well have changed the object's attributes, which leaves its ETag as it is."""
MOST = 1000
"""Files whose attributes may wait at once: further changes are made at once."""
AT_ONCE = 16
REMEMBERED = 100
"""Failures that wait to be told."""
RETRY_SECONDS = (1, 5, 15, 60)


@dataclass(slots=True, eq=False)
class _Promise:
    """What is promised of one file, whose object lies at *key*."""

    key: str
    began: float
    due: float
    tried: list[Mapping[str, str]] = field(default_factory=list)
    """Metadata that deliveries which failed may have given the object: each of them may be the one that did, unanswered."""


class PromisedAttributes:
    """The promised attributes of a mount's files. *let_go* gives back the hold of a file that has none any more."""

    deliver: Callable[[OpenFile], Awaitable[None]]
    """Delivers the attributes of a file, in turn with what else is done with it; set by whoever made that."""

    def __init__(self, options: Options, counters: Counters, nursery: trio.Nursery, let_go: Callable[[OpenFile], None]) -> None:
        self._wanted = options.posix and options.gather_attributes
        self._counters = counters
        self._nursery = nursery
        self._let_go = let_go
        self._lately: cachetools.TTLCache[int, None] = cachetools.TTLCache(100 * MOST, LATELY, timer=trio.current_time)
        self._promises: dict[OpenFile, _Promise] = {}
        self._line: dict[OpenFile, _Promise] = {}  # those that wait for their time, the first due first
        self._running = False
        self._slots = trio.CapacityLimiter(AT_ONCE)
        self._failing: set[Content] = set()
        self._failures: deque[tuple[Inode, OSError]] = deque(maxlen=REMEMBERED)

    def written(self, inode: Inode) -> None:
        """The object of *inode* was written here just now."""
        if self._wanted:
            self._lately[inode.number] = None

    def may_wait(self, file: OpenFile) -> bool:
        """Whether a change of the attributes of *file* may be promised; else it is made at once."""
        if file.promised:
            return True
        return file.inode.number in self._lately and len(self._promises) < MOST and file.content not in self._failing

    def add(self, file: OpenFile) -> None:
        """The attributes that *file* has now are promised; the caller holds its lock. The file is held until they are `done`."""
        now = trio.current_time()
        self._counters["gathered_attributes"] += 1
        promise = self._promises.get(file)
        if promise is None:
            promise = self._promises[file] = self._line[file] = _Promise(file.inode.key, now, now + QUIET)
            file.promised = True
            file.users += 1
        elif file in self._line and now < promise.began + LONGEST - QUIET:
            promise.due = now + QUIET
            self._line[file] = self._line.pop(file)
        if not self._running:
            self._running = True
            self._nursery.start_soon(self._run)

    def done(self, file: OpenFile) -> None:
        """The store has them, or nobody wants them any more; nothing to do where none are promised."""
        promise = self._promises.pop(file, None)
        if promise is not None:
            self._line.pop(file, None)
            file.promised = file.attributes_changed = False
            file.content.headers_done(promise.key)
            self._let_go(file)

    def tries(self, file: OpenFile, metadata: Mapping[str, str]) -> Sequence[Mapping[str, str]]:
        """The object of *file* is about to be given *metadata*; returns what `tried` was before."""
        before = self.tried(file)
        promise = self._promises.get(file)
        if promise is not None and not any(same_attributes(metadata, one) for one in before):
            promise.tried.append(metadata)
        return before

    def tried(self, file: OpenFile) -> Sequence[Mapping[str, str]]:
        """The metadata, one of which deliveries of them that failed may have given the object."""
        promise = self._promises.get(file)
        return tuple(promise.tried) if promise is not None else ()

    def late(self, file: OpenFile) -> bool:
        """Whether they were promised so long ago that the object is to be looked at before."""
        promise = self._promises.get(file)
        return promise is not None and trio.current_time() > promise.began + DOUBTED

    def below(self, directory: Inode) -> list[OpenFile]:
        """The files below *directory* that have some."""
        return [file for file in self._promises if file.inode.is_below(directory)]

    def succeeded(self, content: Content) -> None:
        """The store took an attribute change."""
        self._failing.discard(content)

    def failed(self, inode: Inode, content: Content, why: OSError) -> None:
        """They could not be delivered, and nobody who asked for that was told."""
        self._failing.add(content)
        self._failures.append((inode, why))

    def report(self, inode: Inode) -> None:
        """Raise why attributes of *inode*, or of what lies below it, could not be delivered, if nobody was told of it yet."""
        ours = [(one, why) for one, why in self._failures if one.is_below(inode)]
        for told in ours:
            self._failures.remove(told)
        if ours:
            raise ours[0][1]

    async def _run(self) -> None:
        try:
            while self._line:
                file, promise = next(iter(self._line.items()))
                if trio.current_time() < promise.due:
                    await trio.sleep_until(promise.due)
                    continue
                del self._line[file]
                await self._slots.acquire_on_behalf_of(promise)
                self._nursery.start_soon(self._deliver, file, promise)
        finally:
            self._running = False

    async def _deliver(self, file: OpenFile, promise: _Promise) -> None:
        pauses = iter(RETRY_SECONDS)
        slot = True
        try:
            while self._promises.get(file) is promise:
                try:
                    await self.deliver(file)
                except OSError as exc:
                    self._failing.add(file.content)
                    log.warning("%s: changed attributes are not delivered yet: %s", promise.key, exc)
                if slot:
                    self._slots.release_on_behalf_of(promise)
                    slot = False
                if self._promises.get(file) is promise:
                    await trio.sleep(next(pauses, RETRY_SECONDS[-1]))
        finally:
            if slot:
                self._slots.release_on_behalf_of(promise)
