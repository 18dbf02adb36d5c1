"""close(2) and fsync(2): what they promise, and what the last close of a file leaves.

Owns: nothing; how a file is delivered is in deliveries.py.
"""

from __future__ import annotations

import errno
import logging
import os

from zosfs.config import Options
from zosfs.errors import StoreError
from zosfs.fs.compacting import Compacting
from zosfs.fs.conflicts import end_lost, keep_lost, refuse_lost
from zosfs.fs.deliveries import Deliveries
from zosfs.fs.open_file import Handle, OpenFile
from zosfs.fs.open_files import OpenFiles
from zosfs.fs.promised_attributes import PromisedAttributes
from zosfs.fs.unlink import Unlinks
from zosfs.fs.writers import Writers
from zosfs.tree.tree import Tree

log = logging.getLogger(__name__)


class Closes:
    """Closes the files of a mount."""

    def __init__(
        self, tree: Tree, open_files: OpenFiles, writers: Writers, unlinks: Unlinks, deliveries: Deliveries, compacting: Compacting,
        promised: PromisedAttributes, options: Options, mountpoint: str,
    ) -> None:  # fmt: skip
        self._tree = tree
        self._open_files = open_files
        self._writers = writers
        self._unlinks = unlinks
        self._deliveries = deliveries
        self._compacting = compacting
        self._promised = promised
        self._options = options
        self._mountpoint = mountpoint

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
        except OSError as exc:
            file.unreported = None
            if file.dirty and exc.errno != errno.ESTALE and not (isinstance(exc, StoreError) and exc.refused):
                self._deliveries.later.again(file)  # others who have it open to write may keep it so for long, and write nothing
            raise
        if file.dirty and isinstance(file.error, StoreError) and file.error.refused:
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
        await self._deliveries.deliver(handle.file, close=self._options.fsync == "journal")
        self._promised.report(handle.file.inode)

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
            writer = file.writer
            if self._options.writeback >= 0 and writer is not None and (writer.dirty or writer.on_its_way) and writer.entry.promised:
                return  # by the close before this
            if await self._deliveries.promise_attributes(file):
                async with file.lock:
                    if file.promised and not file.handles:
                        await self._writers.drop(file)  # whose staged bytes nobody needs meanwhile
                return
            try:
                # who opened it to write meanwhile is in the middle of it, and closes it
                await self._deliveries.deliver(file, close=True, but=lambda file: file.open_to_write)
            except OSError as exc:
                log.warning("%s is not delivered yet (%s); its bytes are kept and tried again", inode.key, exc)
                self._deliveries.later.again(file)
        elif file.dirty:
            # a conflict: the journal keeps these bytes, the name shows what the other writer left
            async with file.lock:
                writer = file.writer
                if writer is not None and not writer.partly_gone:
                    await keep_lost(file, writer)
                    if not writer.entry.conflict:  # the disk is full, say: they are here and nowhere else
                        return
                await self._writers.drop(file)
                self._tree.invalidate(inode)
