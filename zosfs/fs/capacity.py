"""statfs: what HEAD bucket tells of objects, bytes and quotas, and a generous guess where it tells nothing."""

from __future__ import annotations

import pyfuse3
import trio

from zosfs.config import Options
from zosfs.store.api import BucketUsage
from zosfs.tree.tree import Tree

BLOCK = 4096
UNTOLD_BYTES = 1 << 50
UNTOLD_OBJECTS = 1 << 40
FRESH_SECONDS = 10.0


class Capacity:
    """The numbers of df, asked for at most every FRESH_SECONDS."""

    def __init__(self, tree: Tree, options: Options) -> None:
        self._tree = tree
        self._options = options
        self._usage = BucketUsage()
        self._asked = float("-inf")

    async def statfs(self) -> pyfuse3.StatvfsData:
        """Sizes in blocks of 4096 bytes; objects count as inodes."""
        volume = self._tree.root.volume
        if volume is not None and trio.current_time() - self._asked > FRESH_SECONDS:
            self._usage = await volume.store.usage()
            self._asked = trio.current_time()
        usage = self._usage
        used = usage.bytes or 0
        total = usage.quota_bytes or self._options.bucket_size or max(UNTOLD_BYTES, used * 2)
        objects = usage.objects or 0
        most = usage.quota_objects or max(UNTOLD_OBJECTS, objects * 2)
        shown = pyfuse3.StatvfsData()
        shown.f_bsize = shown.f_frsize = BLOCK
        shown.f_blocks = total // BLOCK
        shown.f_bfree = shown.f_bavail = max(0, total - used) // BLOCK
        shown.f_files = most
        shown.f_ffree = shown.f_favail = max(0, most - objects)
        shown.f_namemax = 255
        return shown
