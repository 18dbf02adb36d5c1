"""What is kept of a file while it is open or has something undelivered, and of each open(2) of it: data, and nothing that waits.

Owns: nothing; the tables are in open_files.py, and a file's dirty ranges belong to its Writer.
Concurrency: between two awaits a task owns all state. `OpenFile.lock` orders opening for writing, delivering,
attribute changes, renames and removal of one file, because requests of one key must never overlap; reads never take it.
"""

from __future__ import annotations

import os

import trio

from zosfs.content.content import Content
from zosfs.content.reader import Reader
from zosfs.content.writer import Writer
from zosfs.errors import StoreError
from zosfs.fs.headers import Described
from zosfs.locks import Lock
from zosfs.store.api import ObjectInfo
from zosfs.tree.inodes import Inode


class OpenFile:
    """The state of one inode while it is open or has something undelivered."""

    __slots__ = (
        "attributes_changed", "content", "described", "doomed", "error", "failed", "followed", "handles", "inode", "kernel_end", "lock",
        "passed", "promised", "renaming", "unreported", "untouched", "users", "version", "waits", "writer",
    )  # fmt: skip

    def __init__(self, inode: Inode, content: Content) -> None:
        self.inode = inode
        self.content = content
        self.kernel_end = inode.size
        """The file's size by what the kernel has done here: it has not asked yet what another host's appends made of it."""
        self.handles: set[Handle] = set()
        self.users = 0  # handles and running operations: the state lives while there are any, or something is undelivered
        self.writer: Writer | None = None
        self.described: Described | None = None
        self.lock = Lock()
        self.version = 0  # bumped when this mount replaces the object under its readers
        self.attributes_changed = False  # of an object whose bytes are delivered
        self.promised = False  # the changed attributes, in the journal (promised_attributes.py)
        self.untouched = False  # created or truncated by open, and nothing written since
        self.passed = False  # handles may read past the writer
        self.doomed = False  # unlinked here; the object lives on the server until the last handle is closed
        self.error: OSError | None = None
        self.unreported: StoreError | None = None  # the server refused what was promised, and no caller was told yet
        self.waits = False  # for its delivery, behind others
        self.failed: trio.Event | None = None  # while it is tried again and again: set when somebody else failed, too
        self.renaming = False
        self.followed = False  # somebody has read to the end of an object that grows by appends: he may wait for more (tail -f)

    @property
    def dirty(self) -> bool:
        """Whether local bytes or attributes are newer than the store's, be they on their way: remote facts must not overwrite them."""
        return self.attributes_changed or (self.writer is not None and (self.writer.dirty or self.writer.on_its_way))

    @property
    def open_to_write(self) -> bool:
        """Whether a program may be in the middle of writing it, and will close it."""
        return any(handle.writable for handle in self.handles)

    @property
    def pinned(self) -> bool:
        """Whether programs have seen some of the version that is known, and nobody here is about to change it."""
        return any(handle.served for handle in self.handles) and not (self.dirty or self.open_to_write)

    @property
    def left_behind(self) -> bool:
        """Whether programs go on with changes that lost against another host's: what is at the name is another file."""
        return any(handle.lost is not None for handle in self.handles)

    def bytes_changed(self) -> None:
        """Bytes were changed here: everybody here sees that at once."""
        self.untouched = False
        if self.passed:
            self.passed = False
            for handle in self.handles:
                handle.past = None


class Handle:
    """One open(2)."""

    __slots__ = (
        "append", "file", "lost", "mappable", "number", "past", "pid", "reader", "reader_version", "served", "unchecked", "writable"
    )  # fmt: skip

    def __init__(self, number: int, file: OpenFile, flags: int, pid: int) -> None:
        self.number = number
        self.file = file
        self.writable = flags & os.O_ACCMODE != os.O_RDONLY
        self.append = bool(flags & os.O_APPEND)
        self.mappable = flags & os.O_ACCMODE == os.O_RDWR
        """Whether a shared mapping may be made of it that can be written: the kernel writes its pages through this handle then."""
        self.pid = pid
        self.reader: Reader | None = None
        self.reader_version = -1
        self.served = False
        """Bytes of the pinned version were handed out, by us or from the kernel's pages: from then on no other version may be."""
        self.unchecked = False  # whether the object is still the one that is known was not asked when it was opened
        self.past: ObjectInfo | None = None
        """The base of a writer that owed nothing when this was opened, and that others' changes have left behind: it is read past."""
        self.lost: Writer | None = None
        """The writer of before, whose changes lost against another host's: this goes on with it, later handles do not."""
