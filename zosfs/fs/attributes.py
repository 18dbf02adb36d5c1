"""stat(2), chmod(2), chown(2) and utimes(2): what is shown of a file that others may have changed, and what a change of it makes.

Owns: nothing; the attributes belong to the inode, and how the store gets them is in change.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import stat
import time

import pyfuse3
import trio

from zosfs.config import Options
from zosfs.fs.about_to_open import AboutToOpen
from zosfs.fs.change import Changes
from zosfs.fs.entries import entry
from zosfs.fs.kernel_pages import forget_name
from zosfs.fs.modes import without_setid
from zosfs.tree.inodes import Inode
from zosfs.tree.tree import Tree

FOLLOWED = 1.0
"""Seconds for which the size of a log is trusted whose end somebody here has reached: tail(1) looks as often."""

SETTABLE = ("mode", "uid", "gid", "atime_ns", "mtime_ns", "ctime_ns")
"""The attributes that setattr sets but the size."""


def is_followed(inode: Inode) -> bool:
    """Whether somebody has *inode* open and waits at its end for others to append."""
    return inode.file is not None and inode.file.followed and not inode.dirty


class FileAttributes:
    """Shows and sets the attributes of a mount's files and directories."""

    def __init__(self, tree: Tree, changes: Changes, about_to_open: AboutToOpen, options: Options) -> None:
        self._tree = tree
        self._changes = changes
        self._about_to_open = about_to_open
        self._posix = options.posix
        self._ttl = options.metadata_ttl

    async def show(self, inode: Inode, pid: int) -> pyfuse3.EntryAttributes:
        """What process *pid* is told of *inode*, asked of the server where it is not fresh. Who has a file open that others replaced or
        removed is shown what he has."""
        followed = is_followed(inode)
        try:
            if followed and trio.current_time() >= inode.fresh_until - self._ttl + FOLLOWED:
                await self._tree.refresh(inode, force=True)
            soon = not inode.unlinked and await self._about_to_open.refresh(inode, pid)
        except OSError as exc:
            if not self._tree.taken(inode) or (exc.errno != errno.ESTALE and inode.file is None):
                raise
            forget_name(inode)  # whoever comes by the name will find the new one
            soon = False
        shown = entry(inode, self._ttl)
        if soon:
            shown.attr_timeout = 0.0
        elif followed:
            shown.attr_timeout = min(shown.attr_timeout, FOLLOWED)
        return shown

    async def set(self, inode: Inode, attr: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields) -> None:
        """Give *inode* those of *attr* that *fields* name, but the size. What the store refuses is as it was before. The caller has the
        turn to change it."""
        now = time.time_ns()
        await self._changes.prepare(inode)
        facts = inode.attributes
        before = dataclasses.replace(facts)
        if fields.update_mode:
            facts.mode = stat.S_IFMT(facts.mode) | stat.S_IMODE(attr.st_mode)
        if fields.update_uid or fields.update_gid:
            facts.uid = attr.st_uid if fields.update_uid else facts.uid
            facts.gid = attr.st_gid if fields.update_gid else facts.gid
            if not fields.update_mode and not inode.is_dir:
                facts.mode = without_setid(facts.mode)
        if fields.update_atime:
            facts.atime_ns = attr.st_atime_ns
        if fields.update_mtime:
            facts.mtime_ns = attr.st_mtime_ns
        if fields.update_atime or fields.update_mtime:
            self._changes.times_set(inode)
        facts.ctime_ns = attr.st_ctime_ns if fields.update_ctime else now
        wanted = dataclasses.replace(facts)
        self._tree.changed(inode)
        if self._posix and not inode.unlinked:
            try:
                await self._changes.apply(inode)
            except BaseException as exc:
                facts = inode.attributes
                for name in SETTABLE:  # but what was set by a write meanwhile
                    if getattr(facts, name) == getattr(wanted, name):
                        setattr(facts, name, getattr(before, name))
                self._tree.invalidate(inode)
                if isinstance(exc, OSError) and exc.errno == errno.ESTALE:
                    # the kernel looks the name up again, and then changes what it finds: once, so that we have to know by then
                    with contextlib.suppress(OSError):
                        await self._tree.refresh(inode, force=True)
                raise
