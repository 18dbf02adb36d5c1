"""statfs: what HEAD bucket tells of objects, bytes and quotas, and a generous guess where it tells nothing."""

from __future__ import annotations

import logging

import pyfuse3
import trio

from zosfs.config import Options
from zosfs.store.api import BucketUsage
from zosfs.tree.tree import Tree

log = logging.getLogger(__name__)

BLOCK = 4096
UNTOLD_BYTES = 1 << 50
UNTOLD_OBJECTS = 1 << 40


class Capacity:
    """The numbers of df, asked for once before the mount is live and then at most every metadata_ttl seconds."""

    def __init__(self, tree: Tree, options: Options) -> None:
        self._tree = tree
        self._options = options
        self._usage = BucketUsage()
        self._asked = float("-inf")

    async def prime(self) -> None:
        """Ask before anybody waits; a server that refuses HEAD bucket costs only the numbers."""
        try:
            await self.statfs()
        except OSError as exc:
            log.info("the bucket's usage is not known: %s", exc)
            self._asked = trio.current_time()

    async def statfs(self) -> pyfuse3.StatvfsData:
        """Sizes in blocks of 4096 bytes; objects count as inodes."""
        volume = self._tree.root.volume
        if volume is not None and trio.current_time() - self._asked > self._options.metadata_ttl:
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
