"""The Writer of an open file: made when something is about to be changed, and what its deliveries mean for the file.

Owns: nothing; the Writer is the file's (`OpenFile.writer`), its dirty ranges are the Writer's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from mmap import PAGESIZE

from zosfs.config import Options
from zosfs.content.writer import Writer
from zosfs.fs.acls import Acls
from zosfs.fs.compacting import Compacting
from zosfs.fs.deliveries import Deliveries
from zosfs.fs.describing import Describing
from zosfs.fs.headers import fresh, headers
from zosfs.fs.kernel_pages import KernelPages, forget_attributes
from zosfs.fs.moving import Moving
from zosfs.fs.open_file import OpenFile
from zosfs.fs.promised_attributes import PromisedAttributes
from zosfs.store.api import ObjectHeaders, ObjectInfo
from zosfs.tree.attributes import from_object
from zosfs.tree.inodes import Inode
from zosfs.tree.tree import Tree

log = logging.getLogger(__name__)


class Writers:
    """Gives the open files of a mount their Writers."""

    def __init__(
        self, tree: Tree, pages: KernelPages, moving: Moving, acls: Acls, describing: Describing, deliveries: Deliveries,
        compacting: Compacting, promised: PromisedAttributes, options: Options,
    ) -> None:  # fmt: skip
        self._tree = tree
        self._pages = pages
        self._moving = moving
        self._acls = acls
        self._describing = describing
        self._deliveries = deliveries
        self._compacting = compacting
        self._promised = promised
        self._options = options

    async def of(self, file: OpenFile, *, appending: bool = False) -> Writer:
        """The Writer of *file*, made when there is none; *appending*: for what is written at the end."""
        if file.writer is None:
            if file.described is None:
                await self._describing.know(file)
            writer = file.content.writer(file.inode.key, file.inode.info, appending=appending)
            self.adopt(file, writer)
        assert file.writer is not None
        return file.writer

    def adopt(self, file: OpenFile, writer: Writer) -> None:
        """*writer* is *file*'s from now on: it is told what it needs to know, and what it delivers shows in the tree."""
        inode = file.inode
        locks: Mapping[str, str] = {}

        def headers_now() -> ObjectHeaders:
            nonlocal locks
            described = file.described or fresh(inode.name, inode.is_dir, self._options)
            locks = described.locks
            return headers(described, inode.attributes, self._options)

        def delivered(info: ObjectInfo) -> None:
            file.error = file.unreported = None
            if file.described is not None:
                self._acls.note(inode.store, info, file.described.grants)
                if file.described.locks is locks:
                    file.described.locks = {}  # they were of this version
            if info.size < PAGESIZE:
                self._pages.none_of(inode)
            else:
                self._pages.are_of(inode, info.etag)  # the kernel saw every byte that was written through it
            if inode.unlinked:
                return
            size = writer.draft.size  # with what was written since
            if size != inode.attributes.size:
                # another host's appends went in before ours: what the kernel has cached is not the file
                inode.attributes.size = size
                inode.attributes.mtime_ns = time.time_ns()
                self._pages.forget(inode)
                forget_attributes(inode)
            if not writer.dirty and not file.attributes_changed:
                self._times_of(inode, info)
            self._tree.delivered(inode, info)
            self._promised.written(inode)
            self._compacting.consider(inode)

        async def due() -> None:
            try:
                await self._deliveries.deliver(file)
            except OSError as exc:
                log.warning("%s: gathered appends are not delivered yet: %s", inode.key, exc)

        writer.draft.headers = headers_now
        writer.draft.unlinked = file.doomed  # unlinked before it was written: its object only waits for the last close
        writer.on_delivered = delivered
        writer.due = due
        writer.deliver_promised = lambda: self._deliveries.deliver_promised(file)
        writer.free = lambda: not (file.lock.locked() or file.renaming or self._moving.has(inode))
        writer.draft.moving = lambda: file.renaming or self._moving.has(inode)
        file.writer = writer

    async def drop(self, file: OpenFile) -> None:
        """What *file*'s Writer has that the store has not is given up, and its staged bytes go."""
        writer, file.writer = file.writer, None
        if writer is not None:
            file.version += 1
            await writer.aclose()

    def _times_of(self, inode: Inode, info: ObjectInfo) -> None:
        """A file that went up while it was written has the times of when that began: show what the next mount will show."""
        if "mtime" not in (info.metadata or {}):
            return
        stored, shown = from_object(info, False, self._tree.defaults), inode.attributes
        if stored.mtime_ns != shown.mtime_ns:
            shown.atime_ns, shown.mtime_ns, shown.ctime_ns = stored.atime_ns, stored.mtime_ns, stored.ctime_ns
            forget_attributes(inode)
