"""A filesystem that has everything in memory: what pyfuse3 and the kernel take. `python -m bench.bare MOUNTPOINT SCALE` mounts it.

It has the files that the workloads here want, asks no server for them, and does as little for an answer as Python can. What a
workload takes here, no filesystem through pyfuse3 can undercut; the requests' own time (floor.py) comes on top, as far as both do not run
at the same time. It is mounted as zosfs is, and serves until somebody unmounts it.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyfuse3
import trio

from bench.tools import Installed, Kind, Target, Tool
from bench.work import MIB, NOISE, Scale, many_keys, scratch_keys, some_keys, tree_keys
from zosfs.config import Options
from zosfs.mount.session import Session

TOOL = "pyfuse3 with everything in memory"
"""Under which its numbers are kept."""

WORKLOADS = ("first-byte", "seq-read", "par-read", "rand-read", "ls", "find", "read-small", "rm")
"""Those that it has the files of."""

LASTS = 300
"""Seconds for which the kernel may trust what it is told."""

_CONTENT = NOISE + NOISE


def in_memory(scale: Scale) -> Installed:
    """It with the files of *scale*, to be mounted as tools are."""

    def command(program: str, target: Target, point: Path, home: Path) -> tuple[list[str], Mapping[str, str]]:
        return [program, "-m", "bench.bare", str(point), json.dumps(vars(scale))], {}

    return Installed(Tool(TOOL, "", "without a server", command, Kind.FLOOR), sys.executable, pyfuse3.__version__)


def sizes(scale: Scale) -> list[tuple[str, int]]:
    """The keys of its files, and the bytes of each."""
    large = [("large.bin", scale.large * MIB), *((f"quarter{n}.bin", scale.quarter * MIB) for n in range(4))]
    small = {4096: some_keys(scale), 100: many_keys(scale), 1: tree_keys(scale), 1000: scratch_keys(scale)}
    return [*large, *((key, size) for size, keys in small.items() for key in keys)]


@dataclass(slots=True)
class Node:
    """A file, or a directory with the nodes of its *names*, and what the kernel is shown of it."""

    shown: pyfuse3.EntryAttributes
    names: dict[bytes, Node] | None = None


def tree_of(files: Iterable[tuple[str, int]]) -> list[Node]:
    """The nodes of the files of these keys and sizes, and of the directories above; a node's place is its number, the root's is 1."""
    root = Node(_shown(pyfuse3.ROOT_INODE, None), {})
    nodes = [root, root]
    for key, size in files:
        names = root.names
        *above, name = key.encode().split(b"/")
        for part in above:
            assert names is not None, "a file is no directory"
            if part not in names:
                nodes.append(Node(_shown(len(nodes), None), {}))
                names[part] = nodes[-1]
            names = names[part].names
        assert names is not None, "a file is no directory"
        nodes.append(Node(_shown(len(nodes), size)))
        names[name] = nodes[-1]
    return nodes


def _shown(number: int, size: int | None) -> pyfuse3.EntryAttributes:
    shown = pyfuse3.EntryAttributes()
    shown.st_ino = pyfuse3.InodeT(number)
    shown.st_mode = pyfuse3.ModeT(stat.S_IFDIR | 0o755 if size is None else stat.S_IFREG | 0o644)
    shown.st_nlink = 2 if size is None else 1
    shown.st_size = size or 0
    shown.st_uid, shown.st_gid = os.getuid(), os.getgid()
    shown.st_mtime_ns = shown.st_ctime_ns = shown.st_atime_ns = 10**18
    shown.entry_timeout = shown.attr_timeout = LASTS
    return shown


class Bare(pyfuse3.Operations):
    """Answers at once. What is missing here (flush, extended attributes) the kernel asks for once, and never again."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        """*nodes* as `tree_of` gives them."""
        super().__init__()
        self._nodes = nodes
        self._listed: dict[int, list[tuple[bytes, Node]]] = {}
        self._listings = 0

    def _names(self, number: int) -> dict[bytes, Node]:
        names = self._nodes[number].names
        if names is None:
            raise pyfuse3.FUSEError(errno.ENOTDIR)
        return names

    async def lookup(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """Of a name that is there; FUSEError with ENOENT otherwise."""
        node = self._names(parent_inode).get(name)
        if node is None:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return node.shown

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """Never changes."""
        return self._nodes[inode].shown

    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileHandleT:
        """A listing of the names that are there now."""
        self._listings += 1
        self._listed[self._listings] = list(self._names(inode).items())
        return pyfuse3.FileHandleT(self._listings)

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """As many as the kernel takes, with their attributes."""
        names = self._listed[fh]
        for at in range(start_id, len(names)):
            name, node = names[at]
            if not pyfuse3.readdir_reply(token, pyfuse3.FileNameT(name), node.shown, at + 1):
                return

    async def releasedir(self, fh: int) -> None:
        """Forget the listing."""
        del self._listed[fh]

    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        """The handle is the file's number."""
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(inode))

    async def read(self, fh: int, off: int, size: int) -> bytes:
        """What large files repeat and small ones begin with, as `bench.work` expects it; at most 1 MiB."""
        start, size = off % MIB, min(size, max(0, self._nodes[fh].shown.st_size - off))
        return memoryview(_CONTENT)[start : start + size]  # type: ignore[return-value]  # pyfuse3 takes any contiguous buffer

    async def release(self, fh: int) -> None:
        """Nothing is kept of an open file."""

    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """The name goes, the node stays."""
        if self._names(parent_inode).pop(name, None) is None:
            raise pyfuse3.FUSEError(errno.ENOENT)

    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Of an empty directory; FUSEError with ENOTEMPTY otherwise."""
        names = self._names(parent_inode)
        if name not in names:
            raise pyfuse3.FUSEError(errno.ENOENT)
        if names[name].names:
            raise pyfuse3.FUSEError(errno.ENOTEMPTY)
        del names[name]


def main() -> None:
    """Run from the command line."""
    point, scale = sys.argv[1], Scale(**json.loads(sys.argv[2]))
    session = Session(point, "bare", Options())
    session.open()
    trio.run(session.serve, Bare(tree_of(sizes(scale))), lambda: None)


if __name__ == "__main__":
    main()
