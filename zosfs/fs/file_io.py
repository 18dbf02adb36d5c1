"""read(2), write(2) and truncate(2): which Reader or Writer answers, and what a change makes of the file's attributes.

Owns: nothing; bytes belong to the Reader of a handle and the Writer of a file.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from mmap import PAGESIZE

from zosfs.content.append import look
from zosfs.content.reader import Reader
from zosfs.content.writer import Writer
from zosfs.counters import Counters
from zosfs.errors import StoreError
from zosfs.fs.archived import refuse_archived
from zosfs.fs.change import Changes
from zosfs.fs.deliveries import Deliveries
from zosfs.fs.describing import Describing
from zosfs.fs.kernel_pages import forget_attributes
from zosfs.fs.modes import without_setid
from zosfs.fs.moving import Moving
from zosfs.fs.open_file import Handle, OpenFile
from zosfs.fs.open_files import OpenFiles
from zosfs.fs.writers import Writers
from zosfs.store.api import Buffer, ObjectInfo
from zosfs.tree.inodes import Inode
from zosfs.tree.tree import Tree


def _is_mapped(file: OpenFile, offset: int, length: int) -> bool:
    """Whether what the kernel writes through an O_APPEND handle are pages of a mapping, which belong where they are, and no write(2).

    FUSE_WRITE_CACHE would tell, but pyfuse3 drops it. Pages begin within the file as the kernel knows it, and end on a page's edge or the
    file's; what write(2) appends begins at that end.
    """
    size = file.inode.attributes.size
    if offset >= size or offset == file.kernel_end:
        return False
    return not offset % PAGESIZE and (not length % PAGESIZE or offset + length == size)


class FileIO:
    """Reads and changes the bytes of a mount's files."""

    def __init__(
        self, tree: Tree, open_files: OpenFiles, moving: Moving, describing: Describing, writers: Writers, deliveries: Deliveries,
        changes: Changes, counters: Counters,
    ) -> None:  # fmt: skip
        self._tree = tree
        self._open_files = open_files
        self._handles = open_files.handles
        self._moving = moving
        self._describing = describing
        self._writers = writers
        self._deliveries = deliveries
        self._changes = changes
        self._counters = counters

    async def read(self, number: int, offset: int, size: int) -> Buffer:
        """Bytes ``[offset, offset + size)``, short only at the end of the file.

        ESTALE when others replaced the object after this handle was served; a handle that was served nothing yet goes
        on with the version that is there now.
        """
        handle = self._open_files.handle(number)
        file = handle.file
        if handle.unchecked:
            handle.unchecked = False
            await self.check(file, cached=file.inode.info is not None and file.content.cached(file.inode.info))
        writer = handle.lost or file.writer
        if writer is not None and (handle.past is None or writer.draft.base is not handle.past):
            data = await writer.read(offset, size)
            handle.served = True
        else:
            reader, pinned = handle.reader, file.inode.info
            if reader is None or handle.reader_version != file.version or (pinned is not None and pinned.grew_from(reader.info)):
                reader = self._open_reader(handle)
            try:
                data = await reader.read(offset, size)
                if not handle.served and reader.outgrown:
                    data = await self._read_anew(handle, offset, size)
            except StoreError as exc:
                if handle.reader is not reader:  # another read of this handle went on to what the file is now, and ended this one
                    return await self.read(number, offset, size)
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
            if len(data) < size and not file.followed:
                file.followed = file.inode.info is not None and file.inode.info.appendable
        self._counters["read_bytes"] += len(data)
        return data

    async def check(self, file: OpenFile, *, cached: bool) -> None:
        """Close-to-open of a file whose attributes are, or were when it was opened, on their way to the store: what is read is what the
        server has now. Where the bytes are not *cached* here and have to be fetched, the GET finds a change by itself."""
        inode = file.inode
        info = inode.info
        if info is not None and not cached:
            return
        if file.promised and info is not None:
            found = await look(inode.store, info.key)
            if found is not None and found.etag == info.etag:
                return
            async with file.lock:
                await self._changes.settle(file)
        await self._tree.refresh(inode, force=True)

    async def _moved(self, handle: Handle, pinned: ObjectInfo | None) -> bool:
        """Whether the object *pinned* is missing because it lies at another key since the handle's reader was made."""
        file, version = handle.file, handle.reader_version
        await self._moving.unmoved(file.inode)
        info = file.inode.info
        return version != file.version and pinned is not None and info is not None and info.etag == pinned.etag

    async def _read_anew(self, handle: Handle, offset: int, size: int) -> Buffer:
        inode = handle.file.inode
        if handle.file.promised:
            async with handle.file.lock:
                await self._changes.settle(handle.file)
        await self._tree.refresh(inode, force=True)
        forget_attributes(inode)
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
        """Take all of *data* at *offset* (what is written to O_APPEND handles: at the end); returns its length."""
        handle = self._open_files.handle(number)
        file = handle.file
        append = handle.append and not (handle.mappable and _is_mapped(file, offset, len(data)))
        writer = handle.lost or file.writer
        if writer is None:
            async with file.lock:
                writer = await self._writers.of(file, appending=handle.append)
        written = await writer.write(offset, data, append=append)
        self._written(file, writer, offset, written)
        return written

    def write_now(self, number: int, offset: int, data: Buffer) -> int | None:
        """As `write`, where nothing has to be waited for; None where something has."""
        handle = self._handles.get(number)
        if handle is None or handle.append or handle.lost is not None:
            return None
        writer = handle.file.writer
        if writer is None or not writer.write_now(offset, data):
            return None
        self._written(handle.file, writer, offset, len(data))
        return len(data)

    def _written(self, file: OpenFile, writer: Writer, offset: int, written: int) -> None:
        file.bytes_changed()
        if offset + written > file.kernel_end:
            file.kernel_end = offset + written
        inode = file.inode
        attributes = inode.attributes
        attributes.size = writer.draft.size
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
                await self.truncate_open(file, size)
            if not file.open_to_write:
                await self._deliveries.deliver(file, but=lambda file: file.open_to_write)
        finally:
            self._open_files.let_go(file)

    async def truncate_open(self, file: OpenFile, size: int) -> None:
        """Set the size of *file*, of which is known what it has besides bytes; the caller holds its lock."""
        inode = file.inode
        if file.writer is None and size == 0:
            self._writers.adopt(file, file.content.writer(inode.key, inode.info, truncate=True))
        else:
            await (await self._writers.of(file)).truncate(size)
        file.kernel_end = size
        attributes = inode.attributes
        if attributes.size != size:
            attributes.size = size
        attributes.mtime_ns = attributes.ctime_ns = time.time_ns()
        attributes.mode = without_setid(attributes.mode)
        file.bytes_changed()
        self._tree.changed(inode)
