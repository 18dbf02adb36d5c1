"""What an open file's object has besides its bytes, asked for before the first change, so that what replaces it has that, too.

Owns: when that is asked for; the answer is the file's (`OpenFile.described`). How it is changed is in change.py.
"""

from __future__ import annotations

import contextlib

import trio

from zosfs.admin.thawing import ARCHIVES
from zosfs.config import Options
from zosfs.errors import StoreError
from zosfs.fs.acls import Acls
from zosfs.fs.change import Changes
from zosfs.fs.contents import Contents
from zosfs.fs.headers import Described, of_object
from zosfs.fs.open_file import OpenFile
from zosfs.store.api import ObjectInfo
from zosfs.tree.inodes import Inode
from zosfs.tree.tree import Tree


class Describing:
    """Describes the open files of a mount."""

    def __init__(self, tree: Tree, contents: Contents, acls: Acls, changes: Changes, options: Options) -> None:
        self._tree = tree
        self._contents = contents
        self._acls = acls
        self._changes = changes
        self._options = options

    async def know(self, file: OpenFile, *, appending: bool = False) -> None:
        """Before a change: the object's own facts as of now, so that a conflict is found and nothing of it is lost. The caller holds the
        file's lock.

        An append upload names the length that it expects, so what is known of an appendable object need not be fresh.
        """
        inode = file.inode
        await self._changes.settle(file)
        if file.writer is not None or inode.pending:
            return
        await self._contents.learn(inode.volume)
        await file.content.settle(inode.key)  # what an earlier run promised of it comes first
        await self._changes.inherit(inode)
        known = inode.info
        if not (appending and known is not None and known.appendable and known.metadata is not None):
            await self._refresh(inode)
        info = inode.info
        if info is not None and info.metadata is None:
            info = await inode.store.head(info.key)
            self._tree.delivered(inode, info)
        await self._describe(file)

    async def _refresh(self, inode: Inode) -> None:
        """Ask for the facts of *inode*, and for its ACL at the same time: a round trip less for whoever overwrites a file."""
        known = inode.info
        failure: OSError | None = None

        async def acl() -> None:
            if known is not None and self._options.metadata_ttl > 0:  # what is learnt here is believed so long
                with contextlib.suppress(StoreError):  # asked for again, and told, if what replaces the object has to have it
                    await self._acls.of(inode.store, known)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(acl)
            try:
                await self._tree.refresh(inode, force=True)
            except OSError as exc:
                failure = exc
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def relearn(self, inode: Inode) -> None:
        """Tags, ACL or other settings of *inode*'s object were changed past its open file: what is written next keeps them."""
        self._acls.forget(inode.store, inode.key)
        file: OpenFile | None = inode.file
        if file is None or file.described is None or inode.pending:
            return
        async with file.lock:
            if not file.dirty:
                await self._describe(file)
            elif inode.info is not None:  # it is being written: what else changed of the object is a conflict, if anything
                await self._beside(file, file.described, await inode.store.head(inode.key))
                if file.writer is not None:
                    await file.writer.headers_changed()

    async def _describe(self, file: OpenFile) -> None:
        inode = file.inode
        info = inode.info
        if info is not None and not (file.attributes_changed and file.described is not None):
            file.described = of_object(info, self._options)
            if info.storage_class in ARCHIVES:
                file.described.storage_class = self._options.storage_class  # what is written now is meant to be read
            await self._beside(file, file.described, info)

    async def _beside(self, file: OpenFile, described: Described, info: ObjectInfo) -> None:
        """What is kept beside the object *info*, and no part of its HEAD."""
        tagged = int(info.headers.get("x-amz-tagging-count", "0") or 0)
        described.tags = dict(await file.inode.store.get_tags(info.key)) if tagged else None
        described.grants = await self._acls.of(file.inode.store, info)
