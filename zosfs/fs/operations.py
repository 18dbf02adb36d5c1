"""The pyfuse3 Operations of zosfs: kernel requests to calls of the rooms below, each handler a few lines.

Owns: nothing; it translates inode numbers and handles. Unexpected exceptions end here (zosfs.fs.handler).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any

import pyfuse3
import trio

from zosfs.config import Options
from zosfs.counters import Counters
from zosfs.fs.about_to_open import AboutToOpen
from zosfs.fs.acls import Acls
from zosfs.fs.attributes import FileAttributes, is_followed
from zosfs.fs.capacity import Capacity
from zosfs.fs.change import Changes
from zosfs.fs.close import Closes
from zosfs.fs.compacting import Compacting
from zosfs.fs.contents import Contents
from zosfs.fs.create import Creates
from zosfs.fs.deliveries import Deliveries
from zosfs.fs.describing import Describing
from zosfs.fs.directories import Directories
from zosfs.fs.earlier_run import EarlierRun
from zosfs.fs.entries import entry, missing
from zosfs.fs.file_io import FileIO
from zosfs.fs.handler import handler
from zosfs.fs.kernel_pages import KernelPages, forget_attributes
from zosfs.fs.links import Links
from zosfs.fs.modes import new_attributes
from zosfs.fs.moving import Moving
from zosfs.fs.open import Opens
from zosfs.fs.open_file import Handle
from zosfs.fs.open_files import OpenFiles
from zosfs.fs.prefetch import Prefetch
from zosfs.fs.promised_attributes import PromisedAttributes
from zosfs.fs.removals import Removals
from zosfs.fs.rename import Renames
from zosfs.fs.unlink import Unlinks
from zosfs.fs.writers import Writers
from zosfs.fs.xattrs import NEVER, Xattrs
from zosfs.store.api import Account, ObjectInfo
from zosfs.tree.inodes import Inode
from zosfs.tree.names import NAME_MAX
from zosfs.tree.tree import Tree

RENAME_NOREPLACE = 1

DOTS = (b".", b"..")
"""Looked up for file handles (NFS, open_by_handle_at); no directory lists them among its names."""

OF_FILES = frozenset({"read", "write", "flush", "fsync", "release"})
"""Requests that say by a file's handle what they are about."""
OF_NAMES = frozenset({"lookup", "mkdir", "rmdir", "unlink", "rename", "symlink", "mknod", "create"})
"""Those that say it by a directory's inode and a name in it."""
WITHOUT_A_NUMBER = frozenset({"readdir", "releasedir", "fsyncdir", "statfs"})
"""Those of which no path is told."""

NOT_KEPT = tuple(map(os.fsencode, NEVER))


def _fail(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class Operations(pyfuse3.Operations):
    """What the kernel may ask of a mount."""

    supports_dot_lookup = True
    enable_writeback_cache = False  # it makes the kernel the authority on size and mtime: others' changes would not be seen
    enable_acl = False

    def __init__(
        self,
        tree: Tree,
        contents: Contents,
        options: Options,
        counters: Counters,
        nursery: trio.Nursery,
        *,
        mountpoint: str,
        account: Account,
    ) -> None:
        super().__init__()
        self.tree = tree
        self.contents = contents
        self.options = options
        self.counters = counters
        self.account = account
        self.deadline = options.retry_timeout * 2 + options.read_timeout
        self.ttl = options.metadata_ttl
        self.open_files = OpenFiles(tree, contents, nursery)
        self.pages = KernelPages()
        self.moving = Moving(self.open_files)
        self.acls = Acls(options)
        self.promised = PromisedAttributes(options, counters, nursery, self.open_files.let_go)
        self.changes = Changes(tree, contents, self.open_files, self.acls, self.promised, options)
        self.deliveries = Deliveries(contents, self.open_files, self.moving, self.changes, options, counters, nursery)
        self.promised.deliver = self.deliveries.deliver
        compacting = Compacting(tree, contents, self.open_files, self.moving, self.acls, self.changes, options, nursery)
        describing = Describing(tree, contents, self.acls, self.changes, options)
        writers = Writers(
            tree, self.pages, self.moving, self.acls, describing, self.deliveries, compacting, self.promised, options
        )
        self.removals = Removals(tree, contents, options, counters, nursery)
        self.unlinks = Unlinks(tree, contents, self.open_files, writers, self.removals, self.changes, self.promised)
        self.earlier_run = EarlierRun(tree, contents, self.open_files, self.moving, writers, self.deliveries, options, nursery)
        self.file_io = FileIO(tree, self.open_files, self.moving, describing, writers, self.deliveries, self.changes, counters)
        prefetch = Prefetch(tree, options, nursery, self.pages.cached)
        self.about_to_open = AboutToOpen(tree, contents, nursery, self.pages.cached, prefetch.coming)
        self.opens = Opens(
            tree, self.open_files, self.pages, describing, writers, self.file_io, self.about_to_open, prefetch, options
        )
        self.creates = Creates(tree, contents, self.open_files, writers, self.unlinks, options)
        self.closes = Closes(tree, self.open_files, writers, self.unlinks, self.deliveries, compacting, self.promised, options, mountpoint)
        contents.on_moved = lambda: tree.invalidate(tree.root)
        contents.on_replayed = self._replayed
        self.directories = Directories(tree, self.moving, options, nursery, self.removals, self.about_to_open)
        self.renames = Renames(
            tree, contents, self.open_files, self.moving, self.changes, self.deliveries, self.unlinks, self.directories, self.promised,
            options,
        )  # fmt: skip
        self.links = Links(tree, self.unlinks, self.acls, self.promised, options)
        self.xattrs = Xattrs(tree, contents, self.changes, describing, self.deliveries, options, counters, self.status)
        self.attributes = FileAttributes(tree, self.changes, self.about_to_open, options)
        self.capacity = Capacity(tree, options)

    def status(self) -> Mapping[str, Any]:
        """What `zosfs status` shows."""
        waiting = self.account.waiting()
        return {
            "waiting": waiting and {"requests": waiting.requests, "host": waiting.host, "seconds": round(waiting.seconds, 1)},
            "open_files": self.open_files.count(),
            "undelivered": [file.inode.key for file in self.open_files.undelivered()],
            "buckets": {content.store.bucket: content.status() for content in self.contents.all()},
        }

    def _replayed(self, bucket: str, info: ObjectInfo) -> None:
        """*info* is in *bucket* since an earlier run's promise was kept."""
        if self.tree.cache is not None:
            self.tree.cache.put(bucket, info)
        inode = self.tree.rewritten(bucket, info)
        if inode is not None:
            forget_attributes(inode)

    def place(self, request: str, args: Sequence[Any]) -> str:
        """The path from the mount point that *request* is about, which was asked for with *args*; "" where none is known."""
        inode, name = None, b""
        if request in OF_FILES:
            handle = self.open_files.handles.get(args[0])
            inode = handle.file.inode if handle is not None else None
        elif request not in WITHOUT_A_NUMBER:
            inode = self.tree.find(args[0])
            name = b"/" + args[1] if request in OF_NAMES else b""
        return (inode.path() + name).lstrip(b"/").decode("utf-8", "backslashreplace") if inode is not None else ""

    def _inode(self, number: int) -> Inode:
        try:
            return self.tree.get(number)
        except KeyError:
            raise _fail(errno.ESTALE) from None

    def _writable(self) -> None:
        if self.options.ro:
            raise _fail(errno.EROFS)

    # -- names ------------------------------------------------------------------------------------------------------

    def _lookup_known(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes | None:
        tree = self.tree
        parent = tree.find(parent_inode)
        if parent is None or len(name) > NAME_MAX or name in DOTS or self.moving.left:
            return None
        inode = tree.peek(parent, name)
        if inode is None:
            self.counters["negative_hits"] += 1
            return self._missing(parent, name)
        if isinstance(inode, bool) or not inode.known:
            return None
        self.counters["listing_hits"] += 1
        tree.remember(inode)
        self.about_to_open.shown(inode, ctx.pid)
        return entry(inode, self.ttl)

    def _getattr_known(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes | None:
        found = self.tree.find(inode)
        if found is None or not self.tree.is_fresh(found) or is_followed(found):
            return None
        self.counters["attribute_hits"] += 1
        self.about_to_open.shown(found, ctx.pid)
        return entry(found, self.ttl)

    @handler(known=_lookup_known)
    async def lookup(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        parent = self._inode(parent_inode)
        if name == b".":
            inode: Inode | None = parent
        elif name == b"..":
            inode = parent.parent or parent
        else:
            await self.moving.settled(parent, name)
            inode = await self.tree.lookup(parent, name)
        if inode is None:
            return self._missing(parent, name)
        if not inode.known and not self.tree.told_by_listing(inode):
            await self.tree.refresh(inode, begins=self.directories.asked_for(parent, inode, ctx.pid))
        self.tree.remember(inode)
        self.about_to_open.shown(inode, ctx.pid)
        return entry(inode, self.ttl)

    def _missing(self, parent: Inode, name: bytes) -> pyfuse3.EntryAttributes:
        self.directories.told_missing(parent, name)
        return missing(self.options.negative_ttl)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for number, n in inode_list:
            self.tree.forget(number, n)

    @handler(known=_getattr_known)
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return await self.attributes.show(self._inode(inode), ctx.pid)

    @handler()
    async def setattr(
        self, inode: int, attr: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields, fh: int | None, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        self._writable()
        found = self._inode(inode)
        if self.tree.taken(found):
            raise _fail(errno.ESTALE)
        async with self.moving.still(found):
            if fields.update_size:
                await self.file_io.truncate(found, attr.st_size)
            if fields.update_mode or fields.update_uid or fields.update_gid or fields.update_atime or fields.update_mtime:
                async with self.changes.turn(found):
                    await self.attributes.set(found, attr, fields)
        self.about_to_open.shown(found, ctx.pid)
        return entry(found, self.ttl)

    @handler()
    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        self._writable()
        parent = self._inode(parent_inode)
        attributes = new_attributes(stat.S_IFDIR, mode, ctx, parent.attributes)
        async with self.moving.still(parent):
            if parent is self.tree.root and parent.volume is None:
                inode = await self.tree.create_bucket(name, attributes)
            else:
                await self.unlinks.free_name(parent, name, is_dir=True)
                inode = await self.directories.make(parent, name, attributes)
        self.tree.remember(inode)
        return entry(inode, self.ttl)

    @handler()
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        self._writable()
        parent = self._inode(parent_inode)
        await self.moving.settled(parent, name)
        async with self.moving.still(parent):
            inode = await self._existing(parent, name)
            if not inode.is_dir:
                raise _fail(errno.ENOTDIR)
            if parent is self.tree.root and parent.volume is None:
                await self.tree.delete_bucket(inode)
            else:
                await self.directories.remove(inode)
                self.directories.emptied(parent)

    @handler()
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        self._writable()
        parent = self._inode(parent_inode)
        await self.moving.settled(parent, name)
        async with self.moving.still(parent):
            inode = await self._existing(parent, name)
            if inode.is_dir:
                raise _fail(errno.EISDIR)
            await self.unlinks.unlink(inode)
            self.directories.emptied(parent)

    async def _existing(self, parent: Inode, name: bytes) -> Inode:
        inode = await self.tree.lookup(parent, name)
        if inode is None:
            raise _fail(errno.ENOENT)
        return inode

    @handler(bounded=False)
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        self._writable()
        if flags & ~RENAME_NOREPLACE:
            raise _fail(errno.EINVAL)
        old, new = self._inode(parent_inode_old), self._inode(parent_inode_new)
        await self.moving.settled(old, name_old, below=True)
        await self.moving.settled(new, name_new, below=True)
        async with self.moving.still(old, new):
            await self.renames.rename(old, name_old, new, name_new, replace=not flags & RENAME_NOREPLACE)

    @handler()
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        self._writable()
        parent = self._inode(parent_inode)
        attributes = new_attributes(stat.S_IFLNK, 0o777, ctx, parent.attributes, size=len(target))
        async with self.moving.still(parent):
            inode = await self.links.make(parent, name, attributes, target)
        self.tree.remember(inode)
        return entry(inode, self.ttl)

    @handler()
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        return await self.links.target(self._inode(inode))

    @handler()
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        raise pyfuse3.FUSEError(errno.ENOTSUP)  # without a line in the log: git tries for each object

    @handler()
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        self._writable()
        parent = self._inode(parent_inode)
        kind = stat.S_IFMT(mode) or stat.S_IFREG
        async with self.moving.still(parent):
            inode = await self.links.make(parent, name, new_attributes(kind, mode, ctx, parent.attributes, rdev=rdev), b"")
        self.tree.remember(inode)
        return entry(inode, self.ttl)

    # -- files ------------------------------------------------------------------------------------------------------

    @handler()
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        found = self._inode(inode)
        await self.moving.unmoved(found)
        handle = await self.opens.open(found, flags, ctx.pid)
        handle.served = self.pages.keep(found)
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(handle.number), keep_cache=handle.served)

    def _create_known(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes] | None:
        parent = self.tree.find(parent_inode)
        if parent is None or len(name) > NAME_MAX or self.tree.peek(parent, name) is not None:
            return None
        self.tree.check_name(parent, name)
        made = self.creates.create_now(parent, name, new_attributes(stat.S_IFREG, mode, ctx, parent.attributes), flags, ctx.pid)
        if made is None:
            return None
        self.counters["negative_hits"] += 1
        return self._created(parent, *made)

    def _created(self, parent: Inode, inode: Inode, handle: Handle) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        self.directories.unowe(parent)
        self.tree.remember(inode)
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(handle.number)), entry(inode, self.ttl)

    @handler(known=_create_known)
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        parent = self._inode(parent_inode)
        self.tree.check_name(parent, name)
        existing = await self.tree.lookup(parent, name)
        if existing is not None:
            if flags & os.O_EXCL:
                raise _fail(errno.EEXIST)
            if not existing.known and not existing.is_dir:
                await self.tree.refresh(existing)
            if not stat.S_ISREG(existing.shown().mode):
                # others made it since the kernel was told that there is none; ESTALE has the kernel look the name up again
                raise _fail(errno.ESTALE)
            handle = await self.opens.open(existing, flags, ctx.pid)
            self.tree.remember(existing)
            self.about_to_open.shown(existing, ctx.pid)
            return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(handle.number)), entry(existing, self.ttl)
        attributes = new_attributes(stat.S_IFREG, mode, ctx, parent.attributes)
        return self._created(parent, *await self.creates.create(parent, name, attributes, flags, ctx.pid))

    @handler(bounded=False)
    async def read(self, fh: int, off: int, size: int) -> bytes:
        data = await self.file_io.read(fh, off, size)
        return data  # type: ignore[return-value]  # pyfuse3 takes any contiguous buffer and copies it before the loop goes on

    def _write_known(self, fh: int, off: int, buf: bytes) -> int | None:
        return self.file_io.write_now(fh, off, buf)

    @handler(bounded=False, known=_write_known)
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        return await self.file_io.write(fh, off, buf)

    @handler(bounded=False)
    async def flush(self, fh: int) -> None:
        await self.closes.flush(fh)

    @handler(bounded=False)
    async def fsync(self, fh: int, datasync: bool) -> None:
        await self.closes.fsync(fh)

    @handler(bounded=False)
    async def release(self, fh: int) -> None:
        await self.closes.release(fh)

    # -- directories ------------------------------------------------------------------------------------------------

    @handler(bounded=False)
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        found = self._inode(inode)
        await self.moving.settled(found)
        return self.directories.open(found, ctx.pid)

    def _readdir_known(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> bool | None:
        return self.directories.read_now(fh, start_id, token) or None

    @handler(known=_readdir_known)
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        await self.directories.read(fh, start_id, token)

    @handler(bounded=False)
    async def releasedir(self, fh: int) -> None:
        self.directories.release(fh)

    @handler(bounded=False)
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        directory = self.directories.inode(fh)
        await self.changes.settle_below(directory)
        await self.deliveries.deliver_below(directory, only_promised=True)
        await self.directories.settle_markers()
        await self.removals.settle()
        self.removals.report(directory)
        self.promised.report(directory)

    # -- the rest ---------------------------------------------------------------------------------------------------

    @handler()
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        return await self.capacity.statfs()

    def _getxattr_known(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes | None:
        if name.startswith(NOT_KEPT):
            raise pyfuse3.FUSEError(errno.ENOTSUP)
        return None

    @handler(known=_getxattr_known)
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        return await self.xattrs.get(self._inode(inode), os.fsdecode(name))

    @handler()
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext) -> None:
        self._writable()
        if name.startswith(NOT_KEPT):
            raise pyfuse3.FUSEError(errno.ENOTSUP)  # without a line in the log: cp -p, install and sed -i try for each file
        found = self._inode(inode)
        if self.tree.taken(found):
            raise _fail(errno.ESTALE)
        async with self.moving.still(found), self.changes.turn(found):
            await self.changes.inherit(found)
            await self.xattrs.set(found, os.fsdecode(name), value)

    @handler()
    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        self._writable()
        found = self._inode(inode)
        if self.tree.taken(found):
            raise _fail(errno.ESTALE)
        async with self.moving.still(found), self.changes.turn(found):
            await self.changes.inherit(found)
            await self.xattrs.remove(found, os.fsdecode(name))

    @handler()
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        return [os.fsencode(name) for name in await self.xattrs.names(self._inode(inode))]
