"""Which version of a file the kernel's page cache holds, and what it is told to forget of one.

Owns: the ETags of those versions. Whoever changes a file here through the kernel tells it of the version that came of that.
"""

from __future__ import annotations

import logging

import cachetools
import pyfuse3

from zosfs.content.content import Content
from zosfs.tree.inodes import Inode

log = logging.getLogger(__name__)

KEPT = 100_000
"""Inodes whose version is remembered."""


def forget_attributes(inode: Inode) -> None:
    """The kernel asks for the size and the times of *inode* anew. Where it cannot be told there is nobody who could see the old ones: the
    mount is gone, and only what is undelivered is brought to the store still."""
    try:
        pyfuse3.invalidate_inode(pyfuse3.InodeT(inode.number), attr_only=True)
    except OSError as exc:
        log.debug("the kernel is not told of %s: %s", inode.key, exc)


def forget_name(inode: Inode) -> None:
    """The kernel looks up anew what the name of *inode* is."""
    assert inode.parent is not None
    pyfuse3.invalidate_entry_async(pyfuse3.InodeT(inode.parent.number), pyfuse3.FileNameT(inode.name), ignore_enoent=True)


class KernelPages:
    """The pages that the kernel has of a mount's files."""

    def __init__(self) -> None:
        self._of: cachetools.LRUCache[int, str] = cachetools.LRUCache(KEPT)

    def are_of(self, inode: Inode, etag: str) -> None:
        """The kernel has seen every byte of the version *etag*, or will."""
        self._of[inode.number] = etag

    def none_of(self, inode: Inode) -> None:
        """The kernel has no page of *inode* that is worth keeping: of what is written it keeps those that were written whole."""
        self._of.pop(inode.number, None)

    def forget(self, inode: Inode) -> None:
        """What the kernel has of *inode* is not the file, its size included."""
        self._of[inode.number] = ""

    def keep(self, inode: Inode) -> bool:
        """Whether the kernel's pages of *inode* are of the version that is opened now."""
        before = self._of.get(inode.number)
        if inode.file is not None and inode.file.dirty and before != "":
            return True
        etag = inode.info.etag if inode.info is not None else ""
        keep = bool(etag) and before == etag
        if before is not None and not keep:
            # the size that the kernel has is that of the version before, and would end every read there
            forget_attributes(inode)
        if etag:
            self._of[inode.number] = etag
        else:
            self._of.pop(inode.number, None)
        return keep

    def cached(self, inode: Inode) -> bool:
        """Whether bytes of *inode* could come from a cache of this host, the kernel's or that of chunks."""
        info = inode.info
        if info is None:
            return False
        content: Content | None = inode.volume.content if inode.volume else None
        return self._of.get(inode.number) == info.etag or (content is not None and content.cached(info))
