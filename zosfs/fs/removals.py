"""Objects to delete, one by one or many in one request.

Owns: what a row of removals is, and when those that were gathered are delivered. The first removal is made at once, and its
error reaches the caller. Those that follow on its heels (rm -r) are promised in the journal, answered, and delivered
together: while the row goes on and a moment after it (zosfs.fs.gathering_pace), before anything that could tell the difference, at
fsync of a directory and at umount. One that the server then refuses comes back to its directory, the log says why, and fsync of a
directory above it fails. Once a delivery failed, nothing is gathered until a single removal has succeeded: its error reaches
whoever goes on removing.
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
from zosfs.fs.gathering_pace import MOST, GatheringPace
from zosfs.store.api import StoreFailure
from zosfs.store.objects import folder
from zosfs.tree.inodes import Inode
from zosfs.tree.tree import Tree

log = logging.getLogger(__name__)

ROW = 0.5
"""Seconds between two removals of a row at most."""
REMEMBERED = 100
"""Refusals that wait to be told."""
RETRY_SECONDS = (1, 5, 15, 60)


class _Row:
    """The row of removals in one bucket that is gathered, or was gathered last."""

    __slots__ = ("delivering", "enough", "pace")

    def __init__(self) -> None:
        self.pace = GatheringPace()
        self.enough = trio.Event()
        self.delivering = False


class Removals:
    """The removals of a mount."""

    def __init__(self, tree: Tree, contents: Contents, options: Options, counters: Counters, nursery: trio.Nursery) -> None:
        self._tree = tree
        self._contents = contents
        self._options = options
        self._counters = counters
        self._nursery = nursery
        self._last = float("-inf")
        self._rows: dict[Content, _Row] = {}
        self._failing: set[Content] = set()
        self._refused: deque[tuple[Inode, StoreError]] = deque(maxlen=REMEMBERED)  # directories to which names came back, and why

    async def delete(self, inode: Inode, *, at_once: bool = False) -> None:
        """Delete the object of *inode*, now or soon, or *at_once*. Raises StoreError, and nothing is deleted then."""
        content = await self._contents.of(inode.volume)
        if inode.is_dir and inode.store.abilities.keeps_folders and self._tree.removed.any_below(inode.store, inode.key):
            # its folder goes with the last of them (unlink.py), or should this run end early, in the next one
            await content.owe_deletion(folder(inode.key))
        in_a_row = trio.current_time() - self._last < ROW
        trusted = in_a_row and not at_once and self._options.gather_deletes and content not in self._failing
        if not (trusted and await self._gather(inode, content)):
            await inode.store.delete(inode.key)
            self._failing.discard(content)
        self._last = trio.current_time()

    async def _gather(self, inode: Inode, content: Content) -> bool:
        info = inode.info
        if inode.is_dir and inode.marker is False:
            info = folder(inode.key)
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
        row, now = self._rows.get(content), trio.current_time()
        if row is None or not (row.delivering or row.pace.goes_on(now)):
            row = self._rows[content] = _Row()
        row.pace.added(now)
        if content.store.promised_deletions >= row.pace.wanted:
            row.enough.set()
        if not row.delivering:
            row.delivering = True
            self._nursery.start_soon(self._deliver_later, content, row)
        return True

    async def _deliver_later(self, content: Content, row: _Row) -> None:
        pauses = iter(RETRY_SECONDS)
        pace, store = row.pace, content.store
        try:
            while waiting := store.promised_deletions:
                left = pace.left(trio.current_time(), waiting)
                if left:
                    row.enough = trio.Event()
                    with trio.move_on_after(left):
                        await row.enough.wait()
                    continue
                pace.going(waiting)
                try:
                    await store.settle_deletions(full=waiting >= MOST)
                    pauses = iter(RETRY_SECONDS)
                except OSError as exc:
                    self._failing.add(content)
                    log.warning("%d removals are not delivered yet: %s", store.promised_deletions, exc)
                    await trio.sleep(next(pauses, RETRY_SECONDS[-1]))
        finally:
            row.delivering = False

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
