"""Symbolic links and special files: objects whose kind is in the mode that s3fs-fuse's metadata format stores.

A link's target is the object's body; FIFOs, sockets, device nodes and empty regular files are empty objects.
"""

from __future__ import annotations

import errno
import os
import stat

import cachetools

from zosfs.config import Options
from zosfs.fs.acls import Acls
from zosfs.fs.change import described_info
from zosfs.fs.headers import fresh, headers
from zosfs.fs.promised_attributes import PromisedAttributes
from zosfs.fs.unlink import Unlinks
from zosfs.tree.attributes import Attributes
from zosfs.tree.inodes import Inode
from zosfs.tree.tree import Tree

PATH_MAX = 4096


class Links:
    """Makes links and special files, and reads links."""

    def __init__(self, tree: Tree, unlinks: Unlinks, acls: Acls, promised: PromisedAttributes, options: Options) -> None:
        self._tree = tree
        self._unlinks = unlinks
        self._acls = acls
        self._promised = promised
        self._options = options
        self._targets: cachetools.LRUCache[tuple[str, str, str], bytes] = cachetools.LRUCache(4096)

    async def make(self, parent: Inode, name: bytes, attributes: Attributes, body: bytes) -> Inode:
        """One PUT of an object with *body*; EEXIST, ENAMETOOLONG as symlink(2) and mknod(2) say, EPERM among buckets."""
        if len(body) >= PATH_MAX:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        self._tree.check_name(parent, name)
        if await self._tree.lookup(parent, name) is not None:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        if parent.volume is None:
            raise OSError(errno.EPERM, "only directories are made among buckets")
        if self._tree.lists_kinds and not stat.S_ISREG(attributes.mode):
            raise OSError(errno.ENOTSUP, "noposix and nospecial keep no file types")
        await self._unlinks.free_name(parent, name)
        inode = self._tree.add(parent, name, attributes, pending=True)
        wanted = headers(fresh(name, False, self._options), attributes, self._options)
        try:
            written = await inode.store.put(inode.key, (body,) if body else (), wanted)
        except BaseException:
            self._tree.remove(inode)
            raise
        info = described_info(inode, wanted, written.etag, written.modified_ns)
        self._tree.delivered(inode, info)
        self._acls.note(inode.store, info, None)
        self._targets[inode.store.bucket, inode.key, written.etag] = body
        self._promised.written(inode)
        return inode

    async def target(self, inode: Inode) -> bytes:
        """The target of a link: one GET the first time. EINVAL when *inode* is no link."""
        if not stat.S_ISLNK(inode.attributes.mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        info = inode.info or await inode.store.head(inode.key)
        kept = (inode.store.bucket, info.key, info.etag)
        body = self._targets.get(kept)
        if body is None:
            buffer = bytearray(info.size)
            if info.size:
                await inode.store.get_range(info.key, 0, memoryview(buffer), if_match=info.etag)
            # s3fs-fuse trims what other tools leave around the target
            body = self._targets[kept] = bytes(buffer).strip()
        return body
