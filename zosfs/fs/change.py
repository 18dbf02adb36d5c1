"""Changing what an object has besides its bytes: mode, owner, times, user metadata, content type.

A dirty file takes the change along with its next write (no request). Of a clean one the object is copied onto itself on the
server with the new headers, which bring its grants along; its tags, which Ceph drops on such a copy, are put back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from zosfs.config import Options
from zosfs.content.append import AppendState, set_headers_by_empty_append
from zosfs.content.finishing import put_locks
from zosfs.fs.acls import Acls
from zosfs.fs.contents import Contents
from zosfs.fs.headers import Described, fresh, headers, of_object
from zosfs.fs.open_file import OpenFile
from zosfs.fs.open_files import OpenFiles
from zosfs.store.api import ObjectHeaders, ObjectInfo, Store
from zosfs.store.turns import Turns
from zosfs.tree.inodes import Inode
from zosfs.tree.tree import Tree


class Changes:
    """Brings changed attributes to the store."""

    def __init__(self, tree: Tree, contents: Contents, open_files: OpenFiles, acls: Acls, options: Options) -> None:
        self._tree = tree
        self._contents = contents
        self._open_files = open_files
        self._acls = acls
        self._options = options
        self._turns = Turns()

    def turn(self, inode: Inode) -> AbstractAsyncContextManager[None]:
        """Changes of one inode's attributes come one after the other: each is made of what the one before left."""
        return self._turns.of(str(inode.number))

    async def prepare(self, inode: Inode) -> None:
        """Before attributes are changed: know what the object has now, so that nothing of it is lost."""
        if inode.unlinked or inode.pending or (inode.file is not None and inode.file.dirty):
            return
        await self._contents.learn(inode.volume)
        await self._tree.refresh(inode)

    async def apply(self, inode: Inode, described: Described | None = None) -> None:
        """Deliver the attributes that *inode* has now, and what else *described* says (None: as it is).

        Raises StoreError, with ESTALE when others changed the object.
        """
        if inode.is_dir:
            await self._directory(inode, described)
            return
        file = await self._open_files.hold(inode)
        try:
            async with file.lock:  # behind what is being delivered with the headers of before
                if described is not None:
                    file.described = described
                if file.writer is not None and file.writer.dirty:
                    await file.writer.headers_changed()  # what the journal promised has the new ones, too
                elif inode.pending or inode.unlinked:
                    pass
                elif file.open_to_write:
                    file.attributes_changed = True  # rides on what is written until close, or is delivered by it
                else:
                    await self.deliver(file)
        finally:
            self._open_files.let_go(file)

    def times_set(self, inode: Inode) -> None:
        """Somebody set the times of *inode*: its object must have exactly them."""
        file: OpenFile | None = inode.file
        if file is not None and file.writer is not None:
            file.writer.draft.exact_times = True

    async def _directory(self, inode: Inode, described: Described | None) -> None:
        if inode.top:
            return  # the root of a bucket has no object to keep its attributes
        if described is None:
            described = of_object(inode.info, self._options) if inode.info else fresh(inode.name, True, self._options)
        if inode.info is not None:
            described.grants = await self._acls.of(inode.store, inode.info)
        wanted = headers(described, inode.attributes, self._options)
        written = await inode.store.put(inode.key, (), wanted)
        inode.marker = True
        self._tree.delivered(inode, described_info(inode, wanted, written.etag, written.modified_ns))

    async def deliver(self, file: OpenFile) -> None:
        """Bring the attributes of *file* to its object now; the caller holds the file's lock."""
        inode = file.inode
        store, key = inode.store, inode.key
        await file.content.settle(key)
        info = inode.info
        described = file.described
        if described is None:
            if info is None or info.metadata is None:
                info = await store.head(key)
            described = of_object(info, self._options)
            file.described = described
        assert info is not None
        described.grants = await self._acls.of(store, info)
        wanted = headers(described, inode.attributes, self._options)
        if info.appendable and store.abilities.append and self._options.append == "auto":
            # a copy onto itself would end its appendability; what an append does not bring is gone, tags too
            wanted = dataclasses.replace(wanted, tags=await store.get_tags(key))
            changed = (await set_headers_by_empty_append(store, key, AppendState.of(info), wanted)).info
        else:
            etag, modified_ns = await rewrite(store, info, wanted)
            changed = described_info(inode, wanted, etag or info.etag, modified_ns)
        self._acls.note(store, changed, described.grants)
        if changed.etag != info.etag:
            file.version += 1
        if file.writer is not None:
            file.writer.draft.base = changed
        file.attributes_changed = False
        self._tree.delivered(inode, changed)

    async def beneath(self, file: OpenFile, rewrite: Callable[[], Awaitable[None]]) -> None:
        """*rewrite* the object that *file*, which is being written, is a change of, its bytes staying as they are: it is one of that still.

        Raises what *rewrite* raises.
        """
        inode, writer = file.inode, file.writer
        async with file.lock:
            await file.content.settle(inode.key)
            before = writer.draft.base if writer is not None else None
            await rewrite()
            now = await inode.store.head(inode.key)
            if file.described is not None:
                file.described.storage_class = of_object(now, self._options).storage_class
            if writer is None:
                return
            # where more is there than it was a change of, what others have done, or a try of ours without an answer, the delivery finds out
            is_base = before is not None and writer.draft.base is before and now.size == before.size
            if is_base:
                writer.draft.base = now
                writer.draft.close_reader()
                file.version += 1
            await writer.headers_changed()
            if is_base:
                self._tree.delivered(inode, now)


async def rewrite(store: Store, info: ObjectInfo, wanted: ObjectHeaders) -> tuple[str, int]:
    """Give the object *info* the headers *wanted* in place; returns its ETag ("" unknown) and new modification time in ns.

    Keeps tags; the ACL is what *wanted* says. Raises ESTALE when the object is no longer the one of *info*.
    """
    key = info.key
    tags: Mapping[str, str] | None = None
    if int(info.headers.get("x-amz-tagging-count", "0") or 0):
        tags = await store.get_tags(key)
    written = await store.copy(key, key, headers=wanted, acl=wanted.acl, if_match=info.etag, size=info.size)
    if tags:
        await store.put_tags(key, tags)
    await put_locks(store, key, wanted)
    return written.etag, written.modified_ns


def described_info(inode: Inode, wanted: ObjectHeaders, etag: str, modified_ns: int) -> ObjectInfo:
    """What a HEAD would say of *inode*'s object after a write with the headers *wanted*."""
    base = inode.info
    changes: dict[str, Any] = {
        "key": inode.key, "etag": etag, "modified_ns": modified_ns, "metadata": dict(wanted.metadata),
        "content_type": wanted.content_type,
    }  # fmt: skip
    if base is None:
        return ObjectInfo(size=0 if inode.is_dir else inode.attributes.size, **changes)
    return dataclasses.replace(base, **changes)
