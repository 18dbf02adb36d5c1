"""The tables of a mount: which inodes have open state, and which handle the kernel means by a number.

Owns: both tables, and each inode's open state (inode.file): it lives while somebody uses it or something is undelivered. Must not
know: what is done with an open file.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Iterator

import trio

from zosfs.content.content import Content
from zosfs.fs.contents import Contents
from zosfs.fs.open_file import Handle, OpenFile
from zosfs.tree.inodes import Inode
from zosfs.tree.tree import Tree


class OpenFiles:
    """The open files of a mount, and those that have something undelivered."""

    def __init__(self, tree: Tree, contents: Contents, nursery: trio.Nursery) -> None:
        self._tree = tree
        self._contents = contents
        self._nursery = nursery
        self._files: dict[int, OpenFile] = {}  # by inode number
        self.handles: dict[int, Handle] = {}
        """By the number that the kernel knows; others look in it only."""
        self._numbers = itertools.count(1)

    async def hold(self, inode: Inode) -> OpenFile:
        """The OpenFile of *inode*, made when there is none; to be given back with `let_go`."""
        file: OpenFile | None = inode.file
        if file is None:
            content = await self._contents.of(inode.volume)
            file = inode.file
            if file is None:
                return self.add(inode, content)
        file.users += 1
        return file

    def add(self, inode: Inode, content: Content) -> OpenFile:
        """The OpenFile of *inode*, which has none yet; to be given back with `let_go`."""
        file = inode.file = self._files[inode.number] = OpenFile(inode, content)
        file.users = 1
        inode.pins += 1
        return file

    @contextlib.contextmanager
    def held(self, file: OpenFile) -> Iterator[None]:
        """Within, *file* is not let go, whoever else closes it."""
        file.users += 1
        try:
            yield
        finally:
            self.let_go(file)

    def let_go(self, file: OpenFile) -> None:
        """Give back a `hold`; the open state is forgotten with the last one, unless something is undelivered."""
        file.users -= 1
        self.drop(file)

    def drop(self, file: OpenFile) -> None:
        """Forget the open state of *file* where nobody uses it and nothing is undelivered."""
        inode = file.inode
        if file.users or file.dirty or inode.file is not file:
            return
        inode.file = None
        del self._files[inode.number]
        inode.pins -= 1
        writer, file.writer = file.writer, None
        if writer is not None:
            self._nursery.start_soon(writer.aclose)
        if inode.lookups <= 0:
            self._tree.forget(inode.number, 0)

    def opened(self, file: OpenFile, flags: int, pid: int) -> Handle:
        """A handle of *file*, which is held for it."""
        handle = Handle(next(self._numbers), file, flags, pid)
        self.handles[handle.number] = handle
        file.handles.add(handle)
        return handle

    def handle(self, number: int) -> Handle:
        """The handle that the kernel means; EBADF when there is none."""
        try:
            return self.handles[number]
        except KeyError:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None

    def closed(self, number: int) -> Handle:
        """The handle that the kernel gives up; its file is still held."""
        handle = self.handles.pop(number)
        handle.file.handles.discard(handle)
        return handle

    def count(self) -> int:
        """How many files are open."""
        return sum(1 for file in self._files.values() if file.handles)

    def below(self, directory: Inode) -> Iterator[OpenFile]:
        """The files of now that lie below *directory* when they are reached."""
        for file in list(self._files.values()):
            if file.inode.is_below(directory):
                yield file

    def undelivered(self) -> list[OpenFile]:
        """Files that have something to deliver, open or not."""
        return [file for file in self._files.values() if file.dirty and not file.inode.unlinked]
