"""Hints at what changed in the bucket without the tree's doing: the names concerned are asked for afresh, and nothing else.

Owns: which names a changed key touches. A hint may be late, come twice or be wrong: it never tells what is there, only what to look at.
Must not know: who brings the hints, nor the kernel.
"""

from __future__ import annotations

from zosfs.tree.inodes import Inode
from zosfs.tree.names import part_to_name
from zosfs.tree.tree import Tree

_NEVER = float("-inf")


def changed_elsewhere(tree: Tree, key: str, etag: str, *, removed: bool) -> list[tuple[Inode, bytes]]:
    """Doubt what is known of *key*, whose object has *etag* now (or was *removed*). Returns the directories and names that the kernel
    should forget, too: none where nothing is known of the key, or where it is what this mount wrote itself."""
    inode = tree.root
    if inode.volume is None or not key.startswith(inode.volume.prefix):
        return []
    parts = key.removeprefix(inode.volume.prefix).split("/")
    marker = len(parts) > 1 and not parts[-1]
    if marker:
        parts.pop()
    for at, part in enumerate(parts):
        directory = inode.directory
        if directory is None:
            return []
        name = part_to_name(part)
        child = directory.children.get(name)
        last = at == len(parts) - 1
        if child is None:
            if removed:
                return []  # what is not known here is not shown
            directory.negative.pop(name, None)
            directory.doubt()
            return [(inode, name)]
        if last:
            if child.dirty or (not removed and etag and child.info is not None and child.info.etag == etag):
                return []
            child.fresh_until = _NEVER
            child.stamp += 1
            directory.doubt()
            return [(inode, name)]
        inode = child
    return []


def name_appeared_beside(tree: Tree, key: str) -> None:
    """Names of which this mount knows nothing may have appeared in the directory that *key* lies in: it is listed again next time."""
    inode = tree.root
    if inode.volume is None or not key.startswith(inode.volume.prefix):
        return
    directory = inode.directory
    for part in key.removeprefix(inode.volume.prefix).split("/")[:-1]:
        child = directory.children.get(part_to_name(part)) if directory is not None else None
        if child is None:
            return
        directory = child.directory
    if directory is not None:
        directory.negative.clear()
        directory.doubt()
