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


def new_attributes(kind: int, mode: int, ctx: pyfuse3.RequestContext, *, size: int = 0, rdev: int = 0) -> Attributes:
    """Attributes of something made now by the caller *ctx*; *kind* is an S_IF* constant."""
    now = time.time_ns()
    return Attributes(
        mode=kind | stat.S_IMODE(mode), uid=ctx.uid, gid=ctx.gid, size=size, atime_ns=now, mtime_ns=now, ctime_ns=now, rdev=rdev
    )
