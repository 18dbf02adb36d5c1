"""Objects to delete, one by one or many in one request.

Owns: what a row of removals is, and when those that were gathered are delivered. The first removal is made at once, and its
error reaches the caller. Those that follow on its heels (rm -r) are promised in the journal, answered, and delivered
together: within a moment, before anything that could tell the difference, at fsync of a directory and at umount. One that
the server then refuses comes back to its directory, the log says why, and fsync of a directory above it fails. Once a delivery
failed, nothing is gathered until a single removal has succeeded: its error reaches whoever goes on removing.
"""

from __future__ import annotations

import logging
from collections import deque

import trio

from zosfs.config import Options
from zosfs.content.content import Content
from zosfs.counters import Counters
from zosfs.errors import StoreError
from zosfs.fs.contents import Contents
from zosfs.store.api import StoreFailure
from zosfs.tree.inodes import Inode
from zosfs.tree.tree import Tree

log = logging.getLogger(__name__)

ROW = 0.5
"""Seconds between two removals of a row at most."""
GATHERED_FOR = 0.5
"""Seconds that a removal waits for others."""
MOST = 1000
REMEMBERED = 100
"""Refusals that wait to be told."""
RETRY_SECONDS = (1, 5, 15, 60)


class Removals:
    """The removals of a mount."""

    def __init__(self, tree: Tree, contents: Contents, options: Options, counters: Counters, nursery: trio.Nursery) -> None:
        self._tree = tree
        self._contents = contents
        self._options = options
        self._counters = counters
        self._nursery = nursery
        self._last = float("-inf")
        self._timed: set[Content] = set()
        self._failing: set[Content] = set()
        self._refused: deque[tuple[Inode, StoreError]] = deque(maxlen=REMEMBERED)  # directories to which names came back, and why

    async def delete(self, inode: Inode, *, at_once: bool = False) -> None:
        """Delete the object of *inode*, now or soon, or *at_once*. Raises StoreError, and nothing is deleted then."""
        content = await self._contents.of(inode.volume)
        in_a_row = trio.current_time() - self._last < ROW
        trusted = in_a_row and not at_once and self._options.gather_deletes and content not in self._failing
        if not (trusted and await self._gather(inode, content)):
            await inode.store.delete(inode.key)
            self._failing.discard(content)
        self._last = trio.current_time()

    async def _gather(self, inode: Inode, content: Content) -> bool:
        info = inode.info
        if info is None or inode.pending or info.key != inode.key or info.object_type == "Version":
            return False  # the next run could not tell which object was meant
        if content.store.promised_deletions >= 2 * MOST:
            await content.store.settle_deletions(full=True)

        def refused(failure: StoreFailure) -> None:
            log.error("%s was removed, but the server refuses to delete it (%s %s): it is back", info.key, failure.code, failure.message)
            self._failing.add(content)
            if inode.parent is not None:
                why = StoreError(failure.code, message=failure.message, operation="delete", key=info.key)
                self._refused.append((inode.parent, why))
                self._tree.invalidate(inode.parent)

        try:
            content.delete_soon(info, refused)
        except OSError as exc:
            log.warning("removals are not gathered: %s", exc)
            return False
        self._counters["gathered_deletes"] += 1
        if content.store.promised_deletions == MOST:
            self._nursery.start_soon(self._deliver_full, content)
        if content not in self._timed:
            self._timed.add(content)
            self._nursery.start_soon(self._deliver_later, content)
        return True

    async def _deliver_full(self, content: Content) -> None:
        """A request's worth goes while the next is gathered."""
        try:
            await content.store.settle_deletions(full=True)
        except OSError as exc:
            self._failing.add(content)
            log.info("%d removals are tried again in a moment: %s", content.store.promised_deletions, exc)

    async def _deliver_later(self, content: Content) -> None:
        pauses = iter(RETRY_SECONDS)
        pause: float = GATHERED_FOR
        try:
            while content.store.promised_deletions:
                await trio.sleep(pause)
                try:
                    await content.store.settle_deletions()
                    pauses, pause = iter(RETRY_SECONDS), GATHERED_FOR
                except OSError as exc:
                    pause = next(pauses, RETRY_SECONDS[-1])
                    self._failing.add(content)
                    log.warning("%d removals are not delivered yet: %s", content.store.promised_deletions, exc)
        finally:
            self._timed.discard(content)

    async def settle(self) -> None:
        """Deliver what is gathered, in all buckets. Raises the first StoreError; the journal keeps what is left."""
        for content in self._contents.all():
            try:
                await content.store.settle_deletions()
            except OSError:
                self._failing.add(content)
                raise

    def report(self, directory: Inode) -> None:
        """Raise why a name below *directory* came back, if nobody was told of it yet."""
        ours = [(parent, why) for parent, why in self._refused if parent.is_below(directory)]
        for told in ours:
            self._refused.remove(told)
        if ours:
            raise ours[0][1]
