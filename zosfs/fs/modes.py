"""What a call makes of a file's mode, owner and times (pure)."""

from __future__ import annotations

import stat
import time

import pyfuse3

from zosfs.tree.attributes import Attributes


def without_setid(mode: int) -> int:
    """The mode after a write or a truncate: set-user-ID goes, set-group-ID goes where the group may execute (inode(7))."""
    mode &= ~stat.S_ISUID
    if mode & stat.S_IXGRP:
        mode &= ~stat.S_ISGID
    return mode


def new_attributes(
    kind: int, mode: int, ctx: pyfuse3.RequestContext, parent: Attributes, *, size: int = 0, rdev: int = 0
) -> Attributes:
    """Attributes of something made now by the caller *ctx* in the directory *parent*; *kind* is an S_IF* constant.

    In a set-group-ID directory all gets its group, and directories its bit (inode(7)): the kernel leaves that to the filesystem.
    """
    now, gid, mode = time.time_ns(), ctx.gid, stat.S_IMODE(mode)
    if parent.mode & stat.S_ISGID:
        gid = parent.gid
        if kind == stat.S_IFDIR:
            mode |= stat.S_ISGID
    return Attributes(mode=kind | mode, uid=ctx.uid, gid=gid, size=size, atime_ns=now, mtime_ns=now, ctime_ns=now, rdev=rdev)
