"""creat(2) and open(2) with O_CREAT of a name that is free: the new file is a writer's from the start.

Owns: nothing; the handles are in open_files.py. Nothing is sent before the file is delivered.
"""

from __future__ import annotations

import errno
import os

from zosfs.config import Options
from zosfs.content.content import Content
from zosfs.fs.contents import Contents
from zosfs.fs.headers import fresh
from zosfs.fs.open_file import Handle
from zosfs.fs.open_files import OpenFiles
from zosfs.fs.unlink import Unlinks
from zosfs.fs.writers import Writers
from zosfs.tree.attributes import Attributes
from zosfs.tree.inodes import Inode
from zosfs.tree.tree import Tree


class Creates:
    """Makes the new files of a mount."""

    def __init__(
        self, tree: Tree, contents: Contents, open_files: OpenFiles, writers: Writers, unlinks: Unlinks, options: Options
    ) -> None:
        self._tree = tree
        self._contents = contents
        self._open_files = open_files
        self._writers = writers
        self._unlinks = unlinks
        self._options = options

    async def create(self, parent: Inode, name: bytes, attributes: Attributes, flags: int, pid: int) -> tuple[Inode, Handle]:
        """Make and open a new file; nothing is sent before it is closed."""
        if self._options.ro:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        await self._contents.learn(parent.volume)
        await self._unlinks.free_name(parent, name)
        return self._make(parent, name, attributes, flags, pid, await self._contents.of(parent.volume))

    def create_now(
        self, parent: Inode, name: bytes, attributes: Attributes, flags: int, pid: int
    ) -> tuple[Inode, Handle] | None:
        """As `create`, of a name that is free, where nothing has to be waited for; None where something has."""
        volume = parent.volume
        if self._options.ro or volume is None or volume.content is None or not (volume.store.probed or self._contents.asked(volume)):
            return None
        if self._unlinks.doomed(parent, name) is not None:
            return None
        return self._make(parent, name, attributes, flags, pid, volume.content)

    def _make(
        self, parent: Inode, name: bytes, attributes: Attributes, flags: int, pid: int, content: Content
    ) -> tuple[Inode, Handle]:
        inode = self._tree.add(parent, name, attributes, pending=True)
        file = self._open_files.add(inode, content)
        file.described = fresh(name, False, self._options)
        self._writers.adopt(file, content.writer(inode.key, None, appending=bool(flags & os.O_APPEND)))
        file.untouched = True
        return inode, self._open_files.opened(file, flags, pid)
