"""Inode attributes as the kernel wants them.

Owns: the one EntryAttributes that every answer is written in. One an inode would be a third of the daemon's memory for a million
names, and filling it costs a microsecond. May use: tree/. Must not know: the store's requests.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator

import pyfuse3
import trio

from zosfs.tree.inodes import Inode, Volume
from zosfs.tree.listed import size_and_time

BLOCK_SIZE = 128 * 1024
"""st_blksize: what cp and stdio use as their I/O size."""

_shown = pyfuse3.EntryAttributes()
_shown.st_blksize = BLOCK_SIZE
_shown.generation = 0


def _node_of(shown: pyfuse3.EntryAttributes) -> ctypes.c_uint64 | None:
    """Where *shown* has the number by which the kernel will refer to the inode; None where pyfuse3 keeps it otherwise.

    pyfuse3 sets it together with the number that readdir(3) shows. libfuse's fuse_entry_param begins with it, and goes on with a generation
    and a struct stat, whose second field the other one is.
    """
    words = (ctypes.c_uint64 * (type(shown).__basicsize__ // 8)).from_address(id(shown))
    places = []
    for number in (0x5A05F5, 0x7E57ED):
        shown.st_ino = pyfuse3.InodeT(number)
        places.append([at for at, word in enumerate(words) if word == number])
    if places[0] != places[1] or len(places[0]) != 2 or places[0][1] - places[0][0] != 3:
        return None
    node = ctypes.c_uint64.from_buffer(words, places[0][0] * 8)
    node.value = 0
    return node if shown.st_ino == 0 else None


_node = _node_of(_shown)

MAY_BE_UNKNOWN = _node is not None
"""Whether a directory's names can be told without saying what they are."""


def entry(inode: Inode, ttl: float) -> pyfuse3.EntryAttributes:
    """The kernel's view of *inode*; the kernel may trust it for what is left of *ttl* seconds.

    Good until the next call: pyfuse3 copies it into its answer before any other task runs, so a handler returns it without an await
    in between.
    """
    return _entry(inode, ttl, trio.current_time())


def unknown(inode: Inode) -> pyfuse3.EntryAttributes:
    """A name of a directory, told without saying what it is (DT_UNKNOWN): the kernel keeps nothing of it, and refers to no inode."""
    assert _node is not None
    _shown.st_ino = inode.number
    _shown.st_mode = pyfuse3.ModeT(0)
    _node.value = 0
    return _shown


def entries(inodes: Iterable[Inode], ttl: float, unsure: Callable[[Inode], bool] | None = None) -> Iterator[pyfuse3.EntryAttributes]:
    """As `entry` of one inode after the other, all of one moment; each is good until the next, and nothing else is told meanwhile. As
    `unknown` where *unsure* is given and says so.

    Most of a directory are files that were only listed: these differ in their numbers, sizes and times.
    """
    now, shown = trio.current_time(), _shown
    of: Volume | None = None  # whose files *shown* is set for
    until, known = now, False
    for inode in inodes:
        if unsure is not None and unsure(inode):
            of = None
            yield unknown(inode)
            continue
        row = inode.listed
        if row is None:
            of = None
            yield _entry(inode, ttl, now)
            continue
        if of is None or inode.volume is not of or inode.fresh_until != until or inode.known != known:
            _entry(inode, ttl, now)
            of, until, known = inode.volume, inode.fresh_until, inode.known
            yield shown
            continue
        size, when = size_and_time(row)
        shown.st_ino = inode.number
        shown.st_size = size
        shown.st_blocks = (size + 511) // 512
        shown.st_atime_ns = shown.st_mtime_ns = shown.st_ctime_ns = when
        yield shown


def _entry(inode: Inode, ttl: float, now: float) -> pyfuse3.EntryAttributes:
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
    left = ttl if inode.pending or inode.top else min(ttl, max(0.0, inode.fresh_until - now))
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
