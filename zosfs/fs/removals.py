"""Objects to delete, one by one or many in one request.

Owns: what a row of removals is, and when those that were gathered are delivered. The first removal is made at once, and its
error reaches the caller. Those that follow on its heels (rm -r) are promised in the journal, answered, and delivered
together: within a moment, before anything that could tell the difference, at fsync of a directory and at umount. One that
the server then refuses comes back to its directory, and the log says why.
"""

from __future__ import annotations

import itertools
import logging

import trio

from zosfs.config import Options
from zosfs.content.content import Content
from zosfs.counters import Counters
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

    async def delete(self, inode: Inode) -> None:
        """Delete the object of *inode*, now or soon. Raises StoreError, and nothing is deleted then."""
        content = await self._contents.of(inode.volume)
        in_a_row = trio.current_time() - self._last < ROW
        if not (in_a_row and self._options.gather_deletes and await self._gather(inode, content)):
            await inode.store.delete(inode.key)
        self._last = trio.current_time()

    async def _gather(self, inode: Inode, content: Content) -> bool:
        info = inode.info
        if info is None or inode.pending or info.key != inode.key:
            return False  # the next run could not tell which object was meant
        if content.store.promised_deletions >= MOST:
            await content.store.settle_deletions()

        def refused(failure: StoreFailure) -> None:
            log.error("%s was removed, but the server refuses to delete it (%s %s): it is back", info.key, failure.code, failure.message)
            if inode.parent is not None:
                self._tree.invalidate(inode.parent)

        try:
            content.delete_soon(info, refused)
        except OSError as exc:
            log.warning("removals are not gathered: %s", exc)
            return False
        self._counters["gathered_deletes"] += 1
        if content not in self._timed:
            self._timed.add(content)
            self._nursery.start_soon(self._deliver_later, content)
        return True

    async def _deliver_later(self, content: Content) -> None:
        try:
            for pause in itertools.chain((GATHERED_FOR,), RETRY_SECONDS, itertools.repeat(RETRY_SECONDS[-1])):
                await trio.sleep(pause)
                try:
                    await content.store.settle_deletions()
                    return
                except OSError as exc:
                    log.warning("%d removals are not delivered yet: %s", content.store.promised_deletions, exc)
        finally:
            self._timed.discard(content)

    async def settle(self) -> None:
        """Deliver what is gathered, in all buckets. Raises the first StoreError; the journal keeps what is left."""
        for content in self._contents.all():
            await content.store.settle_deletions()
