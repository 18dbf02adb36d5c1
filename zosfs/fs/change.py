"""Changing what an object has besides its bytes: mode, owner, times, user metadata, content type.

A dirty file takes the change along with its next write (no request). Of a clean one the object is copied onto itself on the
server with the new headers, which bring its grants along; its tags, which Ceph drops on such a copy, are put back. Where more such
changes are to be expected, it is promised in the journal first (promised_attributes.py says when), and delivered before anything that could
tell the difference.
"""

from __future__ import annotations

import dataclasses
import errno
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import trio

from zosfs.config import Options
from zosfs.content.append import AppendState, look, set_headers_by_empty_append
from zosfs.content.conflicts import conflict
from zosfs.content.finishing import REWRITABLE, rewrite, same_attributes
from zosfs.errors import StoreError
from zosfs.fs.acls import Acls
from zosfs.fs.contents import Contents
from zosfs.fs.headers import Described, fresh, headers, locks, of_object
from zosfs.fs.kernel_pages import forget_attributes
from zosfs.fs.open_file import OpenFile
from zosfs.fs.open_files import OpenFiles
from zosfs.fs.promised_attributes import PromisedAttributes
from zosfs.store.api import ObjectHeaders, ObjectInfo, Store
from zosfs.store.turns import Turns
from zosfs.tree.attributes import from_object
from zosfs.tree.inodes import Inode
from zosfs.tree.tree import Tree

log = logging.getLogger(__name__)


class Changes:
    """Brings changed attributes to the store."""

    def __init__(
        self, tree: Tree, contents: Contents, open_files: OpenFiles, acls: Acls, promised: PromisedAttributes, options: Options
    ) -> None:
        self._tree = tree
        self._contents = contents
        self._open_files = open_files
        self._acls = acls
        self._promised = promised
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
        if not inode.is_dir:
            await (await self._contents.of(inode.volume)).settle(inode.key)  # what an earlier run promised of it comes first
        await self.inherit(inode)
        await self._tree.refresh(inode)

    async def inherit(self, inode: Inode) -> None:
        """Before the object of *inode* is changed or copied: it has what an earlier run promised of its attributes, and that is known here.
        Raises StoreError."""
        if not (inode.is_dir or inode.dirty or inode.unlinked):
            await (await self._contents.of(inode.volume)).left_headers.settle(inode.key)

    async def apply(self, inode: Inode, described: Described | None = None) -> None:
        """Deliver the attributes that *inode* has now, and what else *described* says (None: as it is).

        Raises StoreError, with ESTALE when others changed the object.
        """
        if inode.is_dir:
            if not inode.unlinked:  # or it would be there again
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
                elif described is not None or not await self.promise(file):
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

    async def promise(self, file: OpenFile) -> bool:
        """Promise the attributes that *file* has now, which go to its object a moment later. False, and nothing happened, where they should
        not wait. The caller holds the file's lock, and nobody has it open to write."""
        inode, info = file.inode, file.inode.info
        if not self._promised.may_wait(file) or info is None or info.metadata is None or info.key != inode.key or info.appendable:
            return False
        described = file.described or of_object(info, self._options)
        changed, file.attributes_changed = file.attributes_changed, True  # what the store says of it meanwhile is not believed
        try:
            described.grants = await self._acls.of(inode.store, info)
            kept = await self._keep(file, info, headers(described, inode.attributes, self._options))
        except BaseException:
            file.attributes_changed = changed
            raise
        if kept:
            file.described = described
            self._promised.add(file)
        else:
            file.attributes_changed = changed
        return kept

    async def _keep(self, file: OpenFile, info: ObjectInfo, wanted: ObjectHeaders) -> bool:
        """Promise in the journal that the object *info* of *file* gets the headers *wanted*. False, and nothing happened, where that cannot
        be."""
        try:
            file.content.promise_headers(info, wanted, self._promised.tried(file))
            await file.content.headers_kept()
        except OSError as exc:
            log.warning("changed attributes are not gathered: %s", exc)
            if not file.promised:
                file.content.headers_done(info.key)
            return False
        return True

    async def settle(self, file: OpenFile) -> None:
        """Deliver what is promised of *file*'s attributes, before something that could tell that they are not there; the caller holds the
        file's lock. Where others have changed the object, or the server refuses, they are given up, and fsync tells of it: the kernel makes
        calls that name a path again where they fail with ESTALE, so that these tell nobody.

        Raises StoreError when it cannot be told, and they are kept.
        """
        if not file.promised:
            return
        try:
            await self.deliver(file)
        except StoreError as exc:
            if file.promised:
                raise
            self._promised.failed(file.inode, file.content, exc)

    async def settle_below(self, directory: Inode) -> None:
        """`settle` all files below *directory*. Raises the first StoreError."""
        failures: list[StoreError] = []

        async def one(file: OpenFile) -> None:
            with self._open_files.held(file):
                async with file.lock:
                    try:
                        await self.settle(file)
                    except StoreError as exc:
                        failures.append(exc)

        async with trio.open_nursery() as nursery:
            for file in self._promised.below(directory):
                nursery.start_soon(one, file)
        if failures:
            raise failures[0]

    def carried(self, file: OpenFile) -> ObjectHeaders | None:
        """The headers with which a copy of *file*'s object under another name has the attributes that *file* has now, its ACL aside. None
        where more than one copy is needed to keep all that the object has: they are to be delivered first."""
        inode, info, described = file.inode, file.inode.info, file.described
        if info is None or info.metadata is None or described is None or self._promised.late(file):
            return None
        locked = described.locks or locks(self._options, 0)
        if info.appendable or info.size > REWRITABLE or locked or int(info.headers.get("x-amz-tagging-count", "0") or 0):
            return None
        plain = dataclasses.replace(described, grants=None, tags=None)
        return dataclasses.replace(headers(plain, inode.attributes, self._options), acl="")

    async def deliver(self, file: OpenFile) -> None:
        """Bring the attributes of *file* to its object now; the caller holds the file's lock.

        Raises StoreError; where that is for good, what was promised of them is given up.
        """
        try:
            await self._deliver(file)
        except StoreError as exc:
            if file.promised and (exc.errno in (errno.ESTALE, errno.ENOENT) or exc.refused):
                log.error("%s: its changed attributes cannot be delivered, it has those of the store again: %s", file.inode.key, exc)
                self._give_up(file)
            raise
        self._promised.succeeded(file.content)
        self._promised.written(file.inode)

    def _give_up(self, file: OpenFile) -> None:
        """Show the attributes that the object has, as far as is known, and ask for them."""
        inode, info = file.inode, file.inode.info
        self._promised.done(file)
        file.described = None
        if info is not None and info.metadata is not None:
            inode.attributes = from_object(info, False, self._tree.defaults)
        self._tree.invalidate(inode)
        forget_attributes(inode)

    async def _deliver(self, file: OpenFile) -> None:
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
        tried = self._promised.tries(file, wanted.metadata)
        if self._promised.late(file):
            await _refuse_changed(store, info, tried)
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
        self._promised.done(file)
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


async def _refuse_changed(store: Store, info: ObjectInfo, tried: Sequence[Mapping[str, str]]) -> None:
    """Raise ``Conflict`` (ESTALE) where somebody else has made another object of *info*, be it with other attributes only: *tried* is the
    metadata that tries of ours without an answer may have given it."""
    found = await look(store, info.key)
    known = [info.metadata, *tried]
    if found is None or found.etag != info.etag or not any(same_attributes(found.metadata, one) for one in known):
        raise conflict(info.key, "others have changed it since")


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
