"""Open files: opening, reading, writing, delivering."""

from __future__ import annotations

import errno
import logging
import os
import stat
import time

import pyfuse3
import trio

from zosfs.config import Options
from zosfs.content.content import Content
from zosfs.content.reader import Reader
from zosfs.content.writer import Writer
from zosfs.counters import Counters
from zosfs.errors import StoreError
from zosfs.fs.archived import refuse_archived
from zosfs.fs.compacting import Compacting
from zosfs.fs.conflicts import end_lost, keep_lost, leave_behind, read_past, refuse_lost
from zosfs.fs.contents import Contents
from zosfs.fs.deliveries import Deliveries
from zosfs.fs.describing import Describing
from zosfs.fs.headers import fresh
from zosfs.fs.kernel_pages import KernelPages
from zosfs.fs.moving import Moving
from zosfs.fs.open_file import Handle, OpenFile
from zosfs.fs.open_files import OpenFiles
from zosfs.fs.openings import Openings
from zosfs.fs.prefetch import Prefetch
from zosfs.fs.unlink import Unlinks
from zosfs.fs.writers import Writers
from zosfs.store.api import Buffer, ObjectInfo
from zosfs.tree.attributes import Attributes
from zosfs.tree.inodes import Inode
from zosfs.tree.tree import Tree

log = logging.getLogger(__name__)


class Files:
    """All open files of a mount."""

    def __init__(
        self, tree: Tree, contents: Contents, open_files: OpenFiles, pages: KernelPages, moving: Moving,
        describing: Describing, writers: Writers, unlinks: Unlinks, deliveries: Deliveries, compacting: Compacting, options: Options,
        counters: Counters, nursery: trio.Nursery, mountpoint: str,
    ) -> None:  # fmt: skip
        self._tree = tree
        self._open_files = open_files
        self.contents = contents
        self.options = options
        self._counters = counters
        self._mountpoint = mountpoint
        self._unlinks = unlinks
        self._describing = describing
        self._writers = writers
        self._deliveries = deliveries
        self._handles = open_files.handles
        self._compacting = compacting
        self._moving = moving
        self._pages = pages
        self.prefetch = Prefetch(tree, options, nursery, pages.cached)
        self.openings = Openings(tree, contents, nursery, pages.cached, self.prefetch.coming)

    # -- opening ----------------------------------------------------------------------------------------------------

    async def open(self, inode: Inode, flags: int, pid: int) -> Handle:
        """Open an existing file. O_TRUNC sends nothing: the old object stays until the new one is complete."""
        writable = flags & os.O_ACCMODE != os.O_RDONLY
        if writable and self.options.ro:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        file = await self._open_files.hold(inode)
        early: Reader | None = None
        try:
            if file.writer is not None and file.writer.conflict:
                async with file.lock:
                    await leave_behind(file, self._tree, self._pages)
            if writable and file.unreported is not None:
                refused, file.unreported = file.unreported, None
                raise refused  # once: whoever opens it again means to see to it
            if writable:
                append = bool(flags & os.O_APPEND)
                async with file.lock:
                    await self._describing.know(file, appending=append and not flags & os.O_TRUNC)
                    if not flags & os.O_TRUNC:
                        await refuse_archived(file)
                    if flags & os.O_TRUNC:
                        await self._truncate(file, 0)
                        file.untouched = True
                    elif append:
                        await self._writers.of(file, appending=True)
            elif not file.dirty:
                early = self.openings.take(inode, pid)
                if early is not None and file.writer is None:
                    self.prefetch.opening(inode, file.content)
                else:
                    if file.writer is not None or not self.prefetch.opening(inode, file.content):
                        await self._revalidate(file)
                    if early is not None:
                        early.close()
                    early = self.prefetch.take(inode)
                await refuse_archived(file)
        except BaseException:
            self._open_files.let_go(file)
            if early is not None:
                early.close()
            raise
        handle = self._open_files.opened(file, flags, pid)
        if early is not None:
            handle.reader, handle.reader_version = early, file.version
        if not writable:
            read_past(handle)
        return handle

    async def _revalidate(self, file: OpenFile) -> None:
        """Close-to-open: what is opened is what the server has now.

        Where the bytes have to be fetched anyway the first GET carries If-Match and finds a change by itself (see `read`);
        only bytes that would come from a local cache, or from a writer that owes nothing, need a HEAD.
        """
        inode = file.inode
        age = trio.current_time() - inode.checked_at
        if age > self.options.open_ttl and (self._pages.cached(inode) or inode.info is None or file.writer is not None):
            await self._tree.refresh(inode, force=True)
        else:
            await self._tree.refresh(inode)

    async def create(self, parent: Inode, name: bytes, attributes: Attributes, flags: int, pid: int) -> tuple[Inode, Handle]:
        """Make and open a new file; nothing is sent before it is closed."""
        if self.options.ro:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        await self.contents.learn(parent.volume)
        await self._unlinks.free_name(parent, name)
        return self._make(parent, name, attributes, flags, pid, await self.contents.of(parent.volume))

    def create_now(
        self, parent: Inode, name: bytes, attributes: Attributes, flags: int, pid: int
    ) -> tuple[Inode, Handle] | None:
        """As `create`, of a name that is free, where nothing has to be waited for; None where something has."""
        volume = parent.volume
        if self.options.ro or volume is None or volume.content is None or not (volume.store.probed or self.contents.asked(volume)):
            return None
        if self._unlinks.doomed(parent, name) is not None:
            return None
        return self._make(parent, name, attributes, flags, pid, volume.content)

    def _make(
        self, parent: Inode, name: bytes, attributes: Attributes, flags: int, pid: int, content: Content
    ) -> tuple[Inode, Handle]:
        inode = self._tree.add(parent, name, attributes, pending=True)
        file = self._open_files.add(inode, content)
        file.described = fresh(name, False, self.options)
        self._writers.adopt(file, content.new_writer(inode.key, None, appending=bool(flags & os.O_APPEND)))
        file.untouched = True
        return inode, self._open_files.opened(file, flags, pid)

    # -- bytes ------------------------------------------------------------------------------------------------------

    async def read(self, number: int, offset: int, size: int) -> Buffer:
        """Bytes ``[offset, offset + size)``, short only at the end of the file.

        ESTALE when others replaced the object after this handle was served; a handle that was served nothing yet goes
        on with the version that is there now.
        """
        handle = self._open_files.handle(number)
        file = handle.file
        writer = handle.lost or file.writer
        if writer is not None and (handle.past is None or writer.base is not handle.past):
            data = await writer.read(offset, size)
        else:
            reader = handle.reader
            if reader is None or handle.reader_version != file.version:
                reader = self._open_reader(handle)
            pinned = file.inode.info
            try:
                data = await reader.read(offset, size)
            except StoreError as exc:
                if exc.errno not in (errno.ESTALE, errno.ENOENT):
                    raise
                if await self._moved(handle, pinned):
                    data = await self._open_reader(handle).read(offset, size)
                elif handle.served:
                    self._tree.invalidate(file.inode)
                    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from exc
                else:
                    data = await self._read_anew(handle, offset, size)
            handle.served = True
        self._counters["read_bytes"] += len(data)
        return data

    async def _moved(self, handle: Handle, pinned: ObjectInfo | None) -> bool:
        """Whether the object *pinned* is missing because it lies at another key since the handle's reader was made."""
        file, version = handle.file, handle.reader_version
        await self._moving.unmoved(file.inode)
        info = file.inode.info
        return version != file.version and pinned is not None and info is not None and info.etag == pinned.etag

    async def _read_anew(self, handle: Handle, offset: int, size: int) -> Buffer:
        inode = handle.file.inode
        await self._tree.refresh(inode, force=True)
        pyfuse3.invalidate_inode(pyfuse3.InodeT(inode.number), attr_only=True)
        return await self._open_reader(handle).read(offset, size)

    def _open_reader(self, handle: Handle) -> Reader:
        file = handle.file
        info = file.inode.info
        if info is None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        if handle.reader is not None:
            handle.reader.close()
        handle.reader = file.content.reader(info)
        handle.reader_version = file.version
        return handle.reader

    async def write(self, number: int, offset: int, data: Buffer) -> int:
        """Take all of *data* at *offset* (for O_APPEND handles: at the end); returns its length."""
        handle = self._open_files.handle(number)
        file = handle.file
        if handle.lost is not None:
            return await handle.lost.write(offset, data, append=handle.append)
        writer = file.writer
        if writer is None:
            async with file.lock:
                writer = await self._writers.of(file, appending=handle.append)
        written = await writer.write(offset, data, append=handle.append)
        self._written(file, writer, written)
        return written

    def write_now(self, number: int, offset: int, data: Buffer) -> int | None:
        """As `write`, where nothing has to be waited for; None where something has."""
        handle = self._handles.get(number)
        if handle is None or handle.append or handle.lost is not None:
            return None
        writer = handle.file.writer
        if writer is None or not writer.write_now(offset, data):
            return None
        self._written(handle.file, writer, len(data))
        return len(data)

    def _written(self, file: OpenFile, writer: Writer, written: int) -> None:
        file.bytes_changed()
        inode = file.inode
        attributes = inode.attributes
        attributes.size = writer.size
        now = time.time_ns()
        attributes.mtime_ns = attributes.ctime_ns = now
        if attributes.mode & (stat.S_ISUID | stat.S_ISGID):
            attributes.mode = without_setid(attributes.mode)
        self._tree.changed(inode)
        self._counters["written_bytes"] += written

    async def truncate(self, inode: Inode, size: int) -> None:
        """Set the size; of a file that nobody has open for writing it is delivered at once."""
        file = await self._open_files.hold(inode)
        try:
            async with file.lock:
                await self._describing.know(file)
                if size:
                    await refuse_archived(file)
                await self._truncate(file, size)
            if not any(handle.writable for handle in file.handles):
                await self._deliveries.deliver(file)
        finally:
            self._open_files.let_go(file)

    async def _truncate(self, file: OpenFile, size: int) -> None:
        inode = file.inode
        if file.writer is None and size == 0:
            self._writers.adopt(file, await file.content.writer(inode.key, inode.info, truncate=True))
        else:
            await (await self._writers.of(file)).truncate(size)
        attributes = inode.attributes
        if attributes.size != size:
            attributes.size = size
        attributes.mtime_ns = attributes.ctime_ns = time.time_ns()
        attributes.mode = without_setid(attributes.mode)
        file.bytes_changed()
        self._tree.changed(inode)

    # -- promises ---------------------------------------------------------------------------------------------------

    async def flush(self, number: int) -> None:
        """close(2) of one descriptor: returns when the store (or, with writeback, the journal) has the bytes."""
        handle = self._open_files.handle(number)
        file = handle.file
        if not handle.writable:
            return  # who only read has no part in what others wrote, nor in why it is not delivered
        await refuse_lost(handle)
        if file.untouched and file.dirty and self._open_elsewhere(handle):
            # a shell's `> file`: the descriptor was duplicated before anything was written, and publishing an empty
            # file now would show half of what is meant
            return
        try:
            await self._deliveries.deliver(file, close=True)
        except OSError:
            file.unreported = None
            raise
        if file.dirty and isinstance(file.error, StoreError) and not file.error.retry and not file.error.ambiguous:
            file.unreported = None
            raise file.error  # with writeback: what was promised earlier is refused

    def _open_elsewhere(self, handle: Handle) -> bool:
        if handle.pid <= 0:
            return False
        path = os.path.join(os.fsencode(self._mountpoint), handle.file.inode.path())
        folder = f"/proc/{handle.pid}/fd"
        try:
            return any(os.readlink(os.path.join(os.fsencode(folder), fd)) == path for fd in os.listdir(os.fsencode(folder)))
        except OSError:
            return False

    async def fsync(self, number: int) -> None:
        """fsync(2): in the store, or in the journal with ``fsync=journal`` under writeback."""
        handle = self._open_files.handle(number)
        await refuse_lost(handle)
        await self._deliveries.deliver(handle.file, close=self.options.fsync == "journal")

    async def release(self, number: int) -> None:
        """The last descriptor of an open(2) is gone."""
        handle = self._open_files.closed(number)
        file = handle.file
        if handle.reader is not None:
            handle.reader.close()
        try:
            await end_lost(handle)
            if not file.handles:
                await self._last_close(file)
                self._compacting.consider(file.inode)
        finally:
            self._open_files.let_go(file)

    async def _last_close(self, file: OpenFile) -> None:
        inode = file.inode
        if inode.unlinked:
            await self._unlinks.closed(file)
        elif file.dirty and (file.error is None or file.error.errno != errno.ESTALE):
            if self.options.writeback >= 0 and file.writer is not None and file.writer.dirty and file.writer.promised:
                return  # by the close before this
            try:
                await self._deliveries.deliver(file, close=True)
            except OSError as exc:
                log.warning("%s is not delivered yet (%s); its bytes are kept and tried again", inode.key, exc)
                self._deliveries.later.again(file)
        elif file.dirty:
            # a conflict: the journal keeps these bytes, the name shows what the other writer left
            async with file.lock:
                writer = file.writer
                if writer is not None and not writer.partly_gone:
                    await keep_lost(file, writer)
                    if not writer.conflict:  # the disk is full, say: they are here and nowhere else
                        return
                await self._writers.drop(file)
                self._tree.invalidate(inode)


def without_setid(mode: int) -> int:
    """The mode after a write or a truncate: set-user-ID goes, set-group-ID goes where the group may execute (inode(7))."""
    mode &= ~stat.S_ISUID
    if mode & stat.S_IXGRP:
        mode &= ~stat.S_ISGID
    return mode


def new_attributes(kind: int, mode: int, ctx: pyfuse3.RequestContext, *, size: int = 0, rdev: int = 0) -> Attributes:
    """Attributes of something made now by the caller *ctx*; *kind* is an S_IF* constant."""
    now = time.time_ns()
    return Attributes(
        mode=kind | stat.S_IMODE(mode), uid=ctx.uid, gid=ctx.gid, size=size, atime_ns=now, mtime_ns=now, ctime_ns=now, rdev=rdev
    )
