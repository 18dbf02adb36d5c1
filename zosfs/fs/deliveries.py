"""What a file owes the store, brought to where it is promised to be: into the store, or with writeback into the journal first.

Owns: nothing; a file's Writer knows what is dirty, later.py which promised file comes when.
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Awaitable, Callable

import trio

from zosfs.config import Options
from zosfs.counters import Counters
from zosfs.fs.change import Changes
from zosfs.fs.contents import Contents
from zosfs.fs.headers import Described, fresh
from zosfs.fs.later import Later
from zosfs.fs.moving import Moving
from zosfs.fs.open_file import OpenFile
from zosfs.fs.open_files import OpenFiles
from zosfs.tree.inodes import Inode


class Deliveries:
    """The deliveries of a mount's files; *later* are those to come."""

    def __init__(
        self, contents: Contents, open_files: OpenFiles, moving: Moving, changes: Changes, options: Options, counters: Counters,
        nursery: trio.Nursery,
    ) -> None:  # fmt: skip
        self._open_files = open_files
        self._moving = moving
        self._changes = changes
        self._options = options
        self._counters = counters
        self.later = Later(nursery, self.deliver_promised, open_files.let_go, contents.pressed)

    async def deliver(
        self, file: OpenFile, *, close: bool = False, only_promised: bool = False, but: Callable[[OpenFile], bool] = lambda file: False
    ) -> None:
        """Bring what is dirty to where it is promised to be; raises what prevents it, keeping the bytes.

        *only_promised*: while a program has it open to write, and may be in the middle of that, only what was promised: the rest is that
        program's close to deliver. *but*: nor a file of which this is true when its turn comes.
        """
        if not file.dirty:
            return
        with self._open_files.held(file):
            async with self._moving.still(file.inode):
                await self._deliver(file, close=close, only_promised=only_promised, but=but)

    async def _deliver(self, file: OpenFile, *, close: bool, only_promised: bool, but: Callable[[OpenFile], bool]) -> None:
        promise = close and self._options.writeback >= 0
        async with file.lock:
            if file.inode.unlinked or but(file):
                return
            writer = file.writer
            if writer is not None and writer.on_its_way and not (promise and writer.entry.promised):
                await writer.settled()  # begun by somebody else, and what comes of it is told to all who ask
            if writer is None or not writer.dirty:
                await self.attributes(file)
                return
            generation = writer.draft.generation
            try:
                if promise:
                    if not writer.entry.promised:
                        await writer.promise()
                        self.later.add(file, self._options.writeback)
                else:
                    await writer.deliver(only_promised=only_promised and file.open_to_write)
                    if writer.dirty:
                        return
                    file.attributes_changed = False
                    self._counters["flushes"] += 1
            except OSError as exc:
                file.error = exc
                if close:
                    writer.entry.closed(generation)
                if exc.errno == errno.ESTALE:
                    self._counters["conflicts"] += 1
                await file.content.failed(writer, exc)
                raise

    async def attributes(self, file: OpenFile) -> None:
        """Bring changed attributes of *file* to its object, promised or not; the caller holds the file's lock. Raises StoreError."""
        await self._changes.settle(file)
        if file.attributes_changed:
            await self._changes.deliver(file)

    async def promise_attributes(self, file: OpenFile) -> bool:
        """After the last close of *file*: where nothing but attributes is to be delivered, they are promised, and wait with others. False,
        and nothing happened, where that cannot be."""
        with self._open_files.held(file):
            async with self._moving.still(file.inode), file.lock:
                writer, inode = file.writer, file.inode
                clean = writer is None or not (writer.dirty or writer.on_its_way)
                return clean and file.attributes_changed and not (file.handles or inode.unlinked) and await self._changes.promise(file)

    async def take_along(self, file: OpenFile, change: Callable[[Described], Awaitable[None]], *, replaced: bool) -> bool:
        """*change* what the object of *file* is to have, before it is made: with what was written, and once nobody writes it any more, at
        once. False, and nothing happened, where no object is still to be made; nor, but where *replaced*, one over another.

        Raises what *change* raises, and nothing happened; and what prevents the delivery, which keeps the bytes and the change.
        """
        with self._open_files.held(file):
            async with file.lock:
                writer = file.writer
                if writer is None:
                    return False
                if writer.on_its_way:
                    await writer.settled()
                if not writer.dirty or file.inode.unlinked or not (file.inode.pending or replaced):
                    return False
                inode = file.inode
                described = dataclasses.replace(file.described or fresh(inode.name, inode.is_dir, self._options))
                await change(described)
                file.described = described
                await writer.headers_changed()  # what the journal promised has it, too
            if not file.open_to_write:
                await self.deliver(file)
        return True

    async def deliver_promised(self, file: OpenFile) -> None:
        """Deliver what was promised of *file*, or kept of a close that failed: not while a program is in the middle of rewriting it."""
        await self.deliver(file, only_promised=True)

    async def deliver_below(
        self, directory: Inode, *, only_promised: bool = False, but: Callable[[OpenFile], bool] = lambda file: False
    ) -> None:
        """Deliver every dirty file below *directory*, as `deliver` does with *only_promised* and *but*."""
        for file in self._open_files.undelivered():
            if file.inode.is_below(directory) and not but(file):
                await self.deliver(file, only_promised=only_promised, but=but)
