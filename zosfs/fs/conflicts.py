"""Changes that lost against another host's: who goes on with what, and that the journal has what was lost.

Handles that were open go on with the Writer of before (`Handle.lost`), and are told ESTALE; who opens the file afterwards gets the other
host's version, which is a file of its own to the kernel: neither is shown the other's pages. Where nothing was owed nothing is lost:
handles opened since then read past the Writer (`Handle.past`), until bytes are changed here again.
"""

from __future__ import annotations

import errno
import os

from zosfs.content.writer import Writer
from zosfs.fs.kernel_pages import KernelPages
from zosfs.fs.open_file import Handle, OpenFile
from zosfs.tree.tree import Tree


async def keep_lost(file: OpenFile, writer: Writer) -> None:
    """Journal what was written since the conflict was found."""
    if not writer.entry.recorded:
        await file.content.failed(writer, file.error or OSError(errno.ESTALE, os.strerror(errno.ESTALE)))


async def leave_behind(file: OpenFile, tree: Tree, pages: KernelPages) -> None:
    """What was written here lost against another host's change, and is in the journal: who opens the file now gets that one's.

    Handles that are open go on with what they have. The caller holds the file's lock. ESTALE where there are any: the name is another
    inode's then.
    """
    writer = file.writer
    if writer is None or not writer.entry.conflict:
        return
    await keep_lost(file, writer)
    file.writer, file.described, file.error, file.unreported = None, None, None, None
    file.attributes_changed = file.untouched = file.passed = False
    file.version += 1
    for handle in file.handles:
        handle.past = None
        if handle.lost is None:
            handle.lost = writer
    if not file.handles:
        await writer.aclose()
    file.inode.pending = False  # the other host's object has its name
    pages.forget(file.inode)
    await tree.refresh(file.inode, force=True)


async def refuse_lost(handle: Handle) -> None:
    """Raise ESTALE where what this handle wrote lost against another host's change; all of it is in the journal by then."""
    if handle.lost is not None:
        await keep_lost(handle.file, handle.lost)
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


async def end_lost(handle: Handle) -> None:
    """*handle* is closed: with the last one that went on with a Writer of before that one ends, too."""
    lost = handle.lost
    if lost is not None and not any(other.lost is lost for other in handle.file.handles):
        await keep_lost(handle.file, lost)
        await lost.aclose()


def read_past(handle: Handle) -> None:
    """*handle* was opened for reading just now: it reads past a Writer that owes nothing where others changed the object since."""
    file = handle.file
    if file.writer is not None and not file.dirty:
        base, info = file.writer.draft.base, file.inode.info
        if base is not None and info is not None and base.etag != info.etag:
            handle.past = base
            file.passed = True
