"""rename(2): a server-side copy and a delete for a file, many in parallel for a directory, nothing for what was never sent."""

from __future__ import annotations

import dataclasses
import errno
import logging
import os
import time

import trio

from zosfs.config import Options
from zosfs.errors import StoreError
from zosfs.fs.acls import unusual_acl
from zosfs.fs.directories import Directories
from zosfs.fs.files import Files, OpenFile
from zosfs.fs.headers import of_object
from zosfs.store.api import ObjectHeaders, ObjectInfo, Store
from zosfs.tree.inodes import Inode
from zosfs.tree.tree import Tree

log = logging.getLogger(__name__)

PARALLEL = 32
BATCH = 1000


def _fail(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class Renames:
    """Moves names, in the store first and then in the tree."""

    def __init__(self, tree: Tree, files: Files, directories: Directories, options: Options) -> None:
        self._tree = tree
        self._files = files
        self._directories = directories
        self._options = options

    async def rename(self, parent: Inode, name: bytes, new_parent: Inode, new_name: bytes, *, replace: bool) -> None:
        """Move ``parent/name`` to ``new_parent/new_name``, replacing what is there when *replace*. Raises what rename(2) says."""
        source = await self._tree.lookup(parent, name)
        if source is None:
            raise _fail(errno.ENOENT)
        if source.store is not new_parent.store:
            raise _fail(errno.EXDEV)
        self._tree.check_name(new_parent, new_name)
        target = await self._tree.lookup(new_parent, new_name)
        if target is source:
            return
        if target is not None:
            if not replace:
                raise _fail(errno.EEXIST)
            if target.is_dir and not source.is_dir:
                raise _fail(errno.EISDIR)
            if source.is_dir and not target.is_dir:
                raise _fail(errno.ENOTDIR)
            if target.is_dir and not await self._tree.is_empty(target):
                raise _fail(errno.ENOTEMPTY)
        if source.is_dir:
            await self._directory(source, new_parent, new_name, target)
        else:
            await self._file(source, new_parent, new_name, target)
        self._directories.unowe(new_parent)
        self._directories.emptied(parent)

    async def _file(self, source: Inode, new_parent: Inode, new_name: bytes, target: Inode | None) -> None:
        file = await self._files.hold(source)
        try:
            async with file.lock:
                old_key, new_key = source.key, self._tree.key_of(new_parent, new_name)
                writer = file.writer
                if target is not None and target.file is not None:
                    await self._files.keep_for_holders(target)
                if writer is not None and await writer.rename_undelivered(new_key):
                    if target is not None and target.info is not None:
                        # the old object at the new name stays until the new one replaces it in one step
                        writer.replaces(target.info)
                    moved = None
                else:
                    if writer is not None and writer.dirty:
                        await writer.deliver()
                        file.attributes_changed = False
                    elif file.attributes_changed:
                        await self._files.deliver_attributes(file)
                    await file.content.settle(old_key)
                    await file.content.settle(new_key)
                    moved = await self._copy(source, file, new_key)
                    await source.store.delete(old_key)
                    if writer is not None:
                        await writer.renamed(new_key)
                replaced = self._tree.move(source, new_parent, new_name)
                if moved is not None:
                    self._tree.delivered(source, moved)
                    file.version += 1
            if replaced is not None and replaced.file is not None:
                await self._files.unlinked(replaced)
        finally:
            self._files.let_go(file)

    async def _copy(self, source: Inode, file: OpenFile, new_key: str) -> ObjectInfo:
        info = source.info
        if info is None:
            info = await source.store.head(source.key)
        grants = await unusual_acl(source.store, info.key) if self._options.keep_acl == "always" else None
        written = await source.store.copy(info.key, new_key, acl=self._options.acl, if_match=info.etag, size=info.size)
        if grants is not None:
            await source.store.put_acl(new_key, grants)
        return dataclasses.replace(
            info, key=new_key, etag=written.etag or info.etag, version_id=written.version_id,
            modified_ns=written.modified_ns or time.time_ns(),
        )  # fmt: skip

    async def _directory(self, source: Inode, new_parent: Inode, new_name: bytes, target: Inode | None) -> None:
        ancestor: Inode | None = new_parent
        while ancestor is not None:
            if ancestor is source:
                raise _fail(errno.EINVAL)
            ancestor = ancestor.parent
        store = source.store
        await self._files.deliver_below(source)
        old_prefix = source.key
        new_prefix = self._tree.key_of(new_parent, new_name) + "/"
        objects = [info async for info in self._tree.objects_below(source)]
        if source.marker is not False and not any(info.key == old_prefix for info in objects):
            source.marker = False
        await self._copy_all(store, objects, old_prefix, new_prefix)
        await self._delete_all(store, [info.key for info in objects])
        if not objects:
            self._directories.emptied(source)
        self._tree.move(source, new_parent, new_name)
        await self._files.renamed_below(source)

    async def _copy_all(self, store: Store, objects: list[ObjectInfo], old_prefix: str, new_prefix: str) -> None:
        """Copy every object; when one fails, take back the copies and raise: the old directory is still whole."""
        done: list[str] = []
        failures: list[OSError] = []
        slots = trio.CapacityLimiter(PARALLEL)

        async def one(info: ObjectInfo) -> None:
            key = new_prefix + info.key[len(old_prefix) :]
            async with slots:
                if failures:
                    return
                try:
                    await self._copy_one(store, info, key)
                    done.append(key)
                except OSError as exc:
                    failures.append(exc)

        async with trio.open_nursery() as nursery:
            for info in objects:
                nursery.start_soon(one, info)
        if failures:
            log.error("renaming %s to %s failed, taking back %d copies: %s", old_prefix, new_prefix, len(done), failures[0])
            with trio.CancelScope(shield=True):
                await self._delete_all(store, done)
            raise failures[0]

    async def _copy_one(self, store: Store, info: ObjectInfo, key: str) -> None:
        try:
            await store.copy(info.key, key, acl=self._options.acl, if_match=info.etag, size=info.size)
        except StoreError as exc:
            if exc.errno != errno.ENOENT or info.size or not key.endswith("/"):
                raise
            # SeaweedFS copies no directory markers: write the same one anew
            marker = await store.head(info.key)
            described = of_object(marker, self._options)
            again = ObjectHeaders(described.metadata, described.content_type, self._options.acl, extra=described.extra)
            await store.put(key, (), again)

    async def _delete_all(self, store: Store, keys: list[str]) -> None:
        for start in range(0, len(keys), BATCH):
            failed = await store.delete_many(keys[start : start + BATCH])
            if failed:
                key, failure = next(iter(failed.items()))
                self._tree.invalidate(self._tree.root)
                raise StoreError(failure.code, message=failure.message, operation="delete", key=key)
