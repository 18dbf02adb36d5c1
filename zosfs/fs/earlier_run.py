"""What an earlier run promised and has not delivered: shown from the start of the mount, as it will be in the store.

Owns: nothing; the journal (content/) has it.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable

import trio

from zosfs.config import Options
from zosfs.content.content import Content
from zosfs.content.earlier_run import Pending
from zosfs.fs.contents import Contents
from zosfs.fs.deliveries import Deliveries
from zosfs.fs.headers import Described
from zosfs.fs.moving import Moving
from zosfs.fs.open_files import OpenFiles
from zosfs.fs.writers import Writers
from zosfs.store.api import ObjectInfo
from zosfs.tree.attributes import Attributes, from_object
from zosfs.tree.inodes import Inode
from zosfs.tree.names import part_to_name
from zosfs.tree.tree import Tree

log = logging.getLogger(__name__)

SHOWN_WITHIN = 2.0
"""Seconds that a start waits at most for what an earlier run promised to be shown."""


class EarlierRun:
    """What the run of before left in a mount's journals."""

    def __init__(
        self, tree: Tree, contents: Contents, open_files: OpenFiles, moving: Moving, writers: Writers, deliveries: Deliveries,
        options: Options, nursery: trio.Nursery,
    ) -> None:  # fmt: skip
        self._tree = tree
        self._contents = contents
        self._open_files = open_files
        self._moving = moving
        self._writers = writers
        self._deliveries = deliveries
        self._options = options
        self._nursery = nursery

    async def adopt(self, top: Inode, patience: float = SHOWN_WITHIN) -> None:
        """Show what an earlier run promised and has not delivered yet: names, sizes and bytes as they will be in the store.

        Waits *patience* seconds at most. Whoever asks for a name waits until all is shown, where finding its places takes longer; where the
        earlier run began a renaming that is not ended yet, who asks there waits for that, and for what was promised there to be shown, and
        is refused (EBUSY) where that does not go on.
        """
        content = await self._contents.of(top.volume)
        places = tuple(place for move in content.earlier.moving for place in (move.old, move.new))
        if places:
            await self._nursery.start(self._adopt_moved, content, top, places)
        if not content.earlier.pending():
            return
        shown = trio.Event()
        await self._nursery.start(self._adopt_others, content, top, places, shown)
        with trio.move_on_after(patience):
            await shown.wait()
        if not shown.is_set():
            log.warning("who looks for a name waits until what an earlier run promised is shown, for which the server takes long")

    async def _adopt_moved(self, content: Content, top: Inode, places: tuple[str, ...], task_status: trio.TaskStatus[None]) -> None:
        with self._moving.of_an_earlier_run(top.volume, places, content.earlier.check_moving):
            task_status.started()
            await content.earlier.moved_at_last()
            await self._adopt(content, top, lambda key: key.startswith(places))

    async def _adopt_others(
        self, content: Content, top: Inode, places: tuple[str, ...], shown: trio.Event, task_status: trio.TaskStatus[None]
    ) -> None:
        with self._moving.of_an_earlier_run(top.volume, [""]):  # all names: a promised file may make the directories that it lies in
            task_status.started()
            await self._adopt(content, top, lambda key: not key.startswith(places))
        shown.set()

    async def _adopt(self, content: Content, top: Inode, wanted: Callable[[str], bool]) -> None:
        assert top.volume is not None
        prefix = top.volume.prefix
        for pending in list(content.earlier.pending()):
            if not pending.key.startswith(prefix) or not wanted(pending.key):
                continue
            try:
                await self._adopt_one(content, top, pending)
            except OSError as exc:
                log.warning("%s, left by an earlier run, is not shown until it is delivered: %s", pending.key, exc)

    async def _adopt_one(self, content: Content, top: Inode, pending: Pending) -> None:
        assert top.volume is not None
        *parts, last = pending.key[len(top.volume.prefix) :].split("/")
        parent = top
        for part in parts:
            name = part_to_name(part)
            found = await self._tree.lookup(parent, name)
            if found is None:
                now = time.time_ns()
                mode = stat.S_IFDIR | self._options.dir_mode
                found = self._tree.add(parent, name, Attributes(mode, os.getuid(), os.getgid(), 0, now, now, now), is_dir=True)
                found.marker = False
            parent = found
        name = part_to_name(last)
        writer = content.earlier.take(pending.key)
        if writer is None:
            self._tree.invalidate(parent)  # it is delivered since, and what was found may be what was there before
            return
        inode = self._tree.peek(parent, name)  # no request, for which a server may let wait that lets the delivery wait
        shown = ObjectInfo(pending.key, writer.draft.size, "", time.time_ns(), metadata=pending.headers.metadata)
        attributes = from_object(shown, False, self._tree.defaults)
        if inode is None or isinstance(inode, bool):
            base = writer.draft.base
            inode = self._tree.add(parent, name, attributes, info=base, pending=base is None)
        else:
            inode.attributes = attributes
        file = await self._open_files.hold(inode)
        file.described = Described(
            dict(pending.headers.metadata), pending.headers.content_type, pending.headers.storage_class,
            dict(pending.headers.extra), dict(pending.headers.tags) if pending.headers.tags else None,
            None if pending.headers.acl else {},  # its grants are among the extra headers
        )  # fmt: skip
        self._writers.adopt(file, writer)
        self._tree.changed(inode)
        self._deliveries.later.again(file)
        self._open_files.let_go(file)
