"""open(2): what has to be known and asked for before the kernel gets a handle of a file that is there.

Owns: nothing; the handles are in open_files.py. What may have been fetched before an open is in about_to_open.py and prefetch.py.
"""

from __future__ import annotations

import errno
import os

import trio

from zosfs.config import Options
from zosfs.content.reader import Reader
from zosfs.fs.about_to_open import AboutToOpen
from zosfs.fs.archived import refuse_archived
from zosfs.fs.conflicts import leave_behind, read_past
from zosfs.fs.describing import Describing
from zosfs.fs.file_io import FileIO
from zosfs.fs.kernel_pages import KernelPages
from zosfs.fs.open_file import Handle, OpenFile
from zosfs.fs.open_files import OpenFiles
from zosfs.fs.prefetch import Prefetch
from zosfs.fs.writers import Writers
from zosfs.tree.inodes import Inode
from zosfs.tree.tree import Tree


class Opens:
    """Opens the files of a mount."""

    def __init__(
        self, tree: Tree, open_files: OpenFiles, pages: KernelPages, describing: Describing, writers: Writers, file_io: FileIO,
        about_to_open: AboutToOpen, prefetch: Prefetch, options: Options,
    ) -> None:  # fmt: skip
        self._tree = tree
        self._open_files = open_files
        self._pages = pages
        self._describing = describing
        self._writers = writers
        self._file_io = file_io
        self._about_to_open = about_to_open
        self._prefetch = prefetch
        self._options = options

    async def open(self, inode: Inode, flags: int, pid: int) -> Handle:
        """Open an existing file. O_TRUNC sends nothing: the old object stays until the new one is complete.

        ESTALE has the kernel look the name up again, once: others have removed the file, or replaced it while somebody reads it here.
        """
        writable = flags & os.O_ACCMODE != os.O_RDONLY
        if (writable or flags & os.O_TRUNC) and self._options.ro:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        if self._tree.taken(inode):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        if flags & os.O_TRUNC and not writable:
            await self._file_io.truncate(inode, 0)  # such a descriptor cannot deliver it
        file = await self._open_files.hold(inode)
        early: Reader | None = None
        unchecked = False
        try:
            if file.writer is not None and file.writer.entry.conflict:
                async with file.lock:
                    await leave_behind(file, self._tree, self._pages)
            elif file.left_behind:
                await self._tree.refresh(inode, force=True)
            if writable and file.unreported is not None:
                refused, file.unreported = file.unreported, None
                raise refused  # once: whoever opens it again means to see to it
            if writable:
                append = bool(flags & os.O_APPEND)
                async with file.lock:
                    if not append:
                        await self._outdated(file)
                    await self._describing.know(file, appending=append and not flags & os.O_TRUNC)
                    if not flags & os.O_TRUNC:
                        await refuse_archived(file)
                    if flags & os.O_TRUNC:
                        await self._file_io.truncate_open(file, 0)
                        file.untouched = True
                    elif append:
                        await self._writers.of(file, appending=True)
            elif file.promised:
                # rsync opens what it has written for the sake of an fchmod: the server is not asked before something is read
                unchecked = not file.handles
                if unchecked:
                    self._pages.forget(inode)
                else:
                    await self._file_io.check(file, cached=self._pages.cached(inode))
                await refuse_archived(file)
            elif not file.dirty:
                early = self._about_to_open.take(inode, pid)
                if early is not None and file.writer is None:
                    self._prefetch.opening(inode, file.content)
                else:
                    if file.writer is not None or not self._prefetch.opening(inode, file.content):
                        await self._revalidate(file)
                    if early is not None:
                        early.close()
                    early = self._prefetch.take(inode)
                await refuse_archived(file)
        except BaseException:
            self._open_files.let_go(file)
            if early is not None:
                early.close()
            raise
        handle = self._open_files.opened(file, flags, pid)
        handle.unchecked = unchecked
        if early is not None:
            handle.reader, handle.reader_version = early, file.version
        if not writable:
            read_past(handle)
        return handle

    async def _outdated(self, file: OpenFile) -> None:
        """Close-to-open of who means to write: a Writer that owes nothing, and is kept for who reads, gives way where others changed the
        object since. One that appends finds that out by itself."""
        writer = file.writer
        if writer is None or file.dirty or file.open_to_write:
            return
        await self._tree.refresh(file.inode, force=True)
        base, info = writer.draft.base, file.inode.info
        if file.writer is writer and not file.dirty and base is not None and info is not None and base.etag != info.etag:
            await self._writers.drop(file)
            file.described = None

    async def _revalidate(self, file: OpenFile) -> None:
        """Close-to-open: what is opened is what the server has now.

        Where the bytes have to be fetched anyway the first GET carries If-Match and finds a change by itself (`FileIO.read`);
        only bytes that would come from a local cache, or from a writer that owes nothing, need a HEAD.
        """
        inode = file.inode
        age = trio.current_time() - inode.checked_at
        if age > self._options.open_ttl and (self._pages.cached(inode) or inode.info is None or file.writer is not None):
            await self._tree.refresh(inode, force=True)
        else:
            await self._tree.refresh(inode)
