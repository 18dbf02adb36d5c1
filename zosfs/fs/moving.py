"""Directories that are being renamed: what is changed below them waits until their objects have come to the other keys.

Owns: which directories those are. Must not know: how objects move.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import trio

from zosfs.fs.open_files import OpenFiles
from zosfs.tree.inodes import Inode


class Moving:
    """The directories of a mount whose objects are on their way to other keys."""

    def __init__(self, open_files: OpenFiles) -> None:
        self._open_files = open_files
        self._ends: dict[Inode, trio.Event] = {}

    @contextlib.asynccontextmanager
    async def directory(self, directory: Inode) -> AsyncIterator[None]:
        """While the objects below *directory* move to other keys: nothing below it is changed in the store, that waits for the end."""
        end = self._ends[directory] = trio.Event()
        try:
            for file in self._open_files.below(directory):
                with self._open_files.held(file):
                    async with file.lock:  # what had begun is done
                        if file.writer is not None and file.writer.partly_gone:
                            await file.writer.deliver()
            yield
        finally:
            del self._ends[directory]
            end.set()

    def has(self, inode: Inode) -> bool:
        """Whether *inode* lies below one of them."""
        return any(inode.is_below(directory) for directory in self._ends)

    async def unmoved(self, inode: Inode) -> None:
        """Before *inode*, or a name in it, is changed in the store: wait until no directory above it is on its way to other keys."""
        while self._ends:
            end = next((end for directory, end in self._ends.items() if inode.is_below(directory)), None)
            if end is None:
                return
            await end.wait()

    async def renamed_below(self, directory: Inode) -> None:
        """The keys of everything below *directory* changed: readers and writers go on under the new ones."""
        for file in self._open_files.below(directory):
            file.version += 1
            if file.writer is not None:
                await file.writer.renamed(file.inode.key)
