"""Inode attributes as the kernel wants them.

Owns: the one EntryAttributes that every answer is written in. One an inode would be a third of the daemon's memory for a million
names, and filling it costs a microsecond. May use: tree/. Must not know: the store's requests.
"""

from __future__ import annotations

import pyfuse3
import trio

from zosfs.tree.inodes import Inode

BLOCK_SIZE = 128 * 1024
"""st_blksize: what cp and stdio use as their I/O size."""

_shown = pyfuse3.EntryAttributes()
_shown.st_blksize = BLOCK_SIZE
_shown.generation = 0


def entry(inode: Inode, ttl: float) -> pyfuse3.EntryAttributes:
    """The kernel's view of *inode*; the kernel may trust it for what is left of *ttl* seconds.

    Good until the next call: pyfuse3 copies it into its answer before any other task runs, so a handler returns it without an await
    in between.
    """
    shown, facts = _shown, inode.attributes if inode.is_dir else inode.shown()
    size = facts.size
    shown.st_ino = inode.number
    shown.st_mode = facts.mode
    shown.st_nlink = 2 if inode.is_dir else 0 if inode.unlinked else 1
    shown.st_uid = facts.uid
    shown.st_gid = facts.gid
    shown.st_rdev = facts.rdev
    shown.st_size = size
    shown.st_blocks = (size + 511) // 512
    shown.st_atime_ns = facts.atime_ns
    shown.st_mtime_ns = facts.mtime_ns
    shown.st_ctime_ns = facts.ctime_ns
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
