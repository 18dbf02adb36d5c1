"""Inode attributes as the kernel wants them.

Owns: the one EntryAttributes of each inode (building one costs a microsecond, so it is kept and brought up to date only when
the attributes' stamp moved). May use: tree/. Must not know: the store's requests.
"""

from __future__ import annotations

from typing import cast

import pyfuse3
import trio

from zosfs.tree.inodes import Inode

BLOCK_SIZE = 128 * 1024
"""st_blksize: what cp and stdio use as their I/O size."""


class _Entry:
    """An EntryAttributes with the stamp of the attributes it shows."""

    __slots__ = ("attributes", "stamp")

    def __init__(self) -> None:
        self.attributes = pyfuse3.EntryAttributes()
        self.attributes.st_blksize = BLOCK_SIZE
        self.attributes.generation = 0
        self.stamp = -1


def entry(inode: Inode, ttl: float) -> pyfuse3.EntryAttributes:
    """The kernel's view of *inode*; the kernel may trust it for what is left of *ttl* seconds.

    The returned object belongs to the inode: it is good until the next call for the same inode.
    """
    kept = inode.entry
    if kept is None:
        kept = inode.entry = _Entry()
    kept = cast(_Entry, kept)
    shown = kept.attributes
    if kept.stamp != inode.stamp:
        facts = inode.attributes
        shown.st_ino = inode.number
        shown.st_mode = facts.mode
        shown.st_nlink = 2 if inode.is_dir else 0 if inode.unlinked else 1
        shown.st_uid = facts.uid
        shown.st_gid = facts.gid
        shown.st_rdev = facts.rdev
        shown.st_size = facts.size
        shown.st_blocks = (facts.size + 511) // 512
        shown.st_atime_ns = facts.atime_ns
        shown.st_mtime_ns = facts.mtime_ns
        shown.st_ctime_ns = facts.ctime_ns
        kept.stamp = inode.stamp
    left = ttl if inode.pending or inode.top else min(ttl, max(0.0, inode.fresh_until - trio.current_time()))
    shown.entry_timeout = left
    shown.attr_timeout = left if inode.known else 0.0
    return shown


def missing(ttl: float) -> pyfuse3.EntryAttributes:
    """The answer that lets the kernel remember for *ttl* seconds that a name does not exist."""
    negative = pyfuse3.EntryAttributes()
    negative.st_ino = pyfuse3.InodeT(0)
    negative.entry_timeout = ttl
    negative.attr_timeout = ttl
    return negative
