"""unlink(2), and what becomes of files that are open when they lose their name to it or to a rename.

Owns: which unlinked files still have their object at its key. The object of a file that is open is deleted when the last handle closes,
unless its bytes are all local already; so it is, too, before another file takes its name. What others have put in its place stays.
"""

from __future__ import annotations

import dataclasses
import logging

import trio

from zosfs.content.append import look
from zosfs.content.writer import Writer
from zosfs.fs.change import Changes
from zosfs.fs.contents import Contents
from zosfs.fs.open_file import OpenFile
from zosfs.fs.open_files import OpenFiles
from zosfs.fs.promised_attributes import PromisedAttributes
from zosfs.fs.removals import Removals
from zosfs.fs.writers import Writers
from zosfs.store.objects import is_still
from zosfs.tree.inodes import Inode
from zosfs.tree.tree import Tree

log = logging.getLogger(__name__)


class Unlinks:
    """Takes files their names."""

    def __init__(
        self, tree: Tree, contents: Contents, open_files: OpenFiles, writers: Writers, removals: Removals, changes: Changes,
        promised: PromisedAttributes,
    ) -> None:
        self._tree = tree
        self._contents = contents
        self._open_files = open_files
        self._writers = writers
        self._removals = removals
        self._changes = changes
        self._promised = promised
        self._doomed: dict[tuple[str, str], OpenFile] = {}  # by the bucket and key where their objects still lie

    async def unlink(self, inode: Inode) -> None:
        """Remove the object of *inode*; who has it open goes on, without a server-side copy.

        The object of a file that is open is deleted when the last handle closes, unless its bytes are all local already.
        """
        file: OpenFile | None = inode.file
        if file is None:
            await self._delete_object(inode)
            self._tree.remove(inode)
            return
        async with file.lock:
            key = inode.key
            writer = file.writer
            if writer is not None and writer.partly_gone and file.handles:
                await writer.deliver()  # or its holders could not read any more what is only in the unfinished upload
            while writer is not None and writer.on_its_way:
                await writer.settled()  # or it would arrive after the removal
            if writer is not None and writer.draft.base is None:
                delete = not inode.pending
                if not delete:
                    await file.content.discard(key)
            elif file.handles:
                if writer is None or not writer.draft.complete:
                    file.doomed = True
                    self._doomed[inode.store.bucket, key] = file
                    if writer is not None:
                        writer.draft.unlinked = True
                    if inode.info is not None:
                        await file.content.owe_deletion(dataclasses.replace(inode.info, key=key))
                delete = not file.doomed
            else:
                delete = True
            if delete:
                await self._delete_object(inode)
            if file.doomed:
                self._tree.removed.add(inode.store, key, inode.info)
            self._tree.remove(inode)
            self._promised.done(file)
        await self._without_holders(file)

    async def keep_for_holders(self, target: Inode) -> None:
        """Before the object of *target* is replaced by a rename: whoever has it open gets its bytes locally, and nothing is promised of it
        any more that the next run could take for a promise of what replaces it."""
        file: OpenFile | None = target.file
        if file is None or not (file.handles or file.promised):
            return
        with self._open_files.held(file):
            async with file.lock:
                await self._changes.settle(file)
                if file.handles:
                    await (await self._writers.of(file)).fetch_all()

    async def replaced(self, inode: Inode) -> None:
        """*inode* lost its name to a rename: nothing of it will be sent any more."""
        file: OpenFile | None = inode.file
        if file is not None:
            self._promised.done(file)
            await self._without_holders(file)

    async def closed(self, file: OpenFile) -> None:
        """Nobody has *file* open any more, which has no name: nothing of it is needed."""
        async with file.lock:
            if file.doomed:
                await self._delete_doomed(file)
            if file.writer is not None:
                await file.writer.discard()
                await self._writers.drop(file)

    def doomed(self, parent: Inode, name: bytes) -> list[OpenFile]:
        """The unlinked files whose objects still lie where a new one called *name* would, or in a directory of that name that was removed:
        where that is a folder of the server's, it takes no file in its place."""
        if not self._doomed:
            return []
        key = self._tree.key_of(parent, name)
        return [
            doomed for (bucket, other), doomed in self._doomed.items()
            if bucket == parent.store.bucket and (other == key or other.startswith(key + "/"))
        ]  # fmt: skip

    async def free_name(self, parent: Inode, name: bytes, *, is_dir: bool = False) -> None:
        """Before a name is used anew: whoever still reads the unlinked objects in its way gets their bytes locally first. What lies in a
        removed directory is in the way of no other directory."""
        for doomed in self.doomed(parent, name):
            if doomed.inode.key == self._tree.key_of(parent, name) or not is_dir:
                await self._free(doomed)

    async def free_below(self, directory: Inode, prefix: str) -> None:
        """Before *directory* is renamed: the same for all that was unlinked below it, which must not come along, and below its new
        *prefix*, where others will lie."""
        for doomed in self._doomed_below(directory, prefix):
            await self._free(doomed)

    def free(self, directory: Inode, prefix: str) -> bool:
        """Whether `free_below` has nothing to do."""
        return not self._doomed_below(directory, prefix)

    def _doomed_below(self, directory: Inode, prefix: str) -> list[OpenFile]:
        return [
            doomed for (_, key), doomed in self._doomed.items()
            if doomed.inode.store is directory.store and key.startswith((directory.key, prefix))
        ]  # fmt: skip

    async def _free(self, doomed: OpenFile) -> None:
        async with doomed.lock:
            if doomed.doomed:
                writer = await self._writers.of(doomed)
                await writer.fetch_all()
                await self._delete_doomed(doomed)

    async def _without_holders(self, file: OpenFile) -> None:
        if not file.handles:
            await self.closed(file)
            self._open_files.drop(file)

    async def _delete_object(self, inode: Inode) -> None:
        content = await self._contents.of(inode.volume)
        await content.settle(inode.key)
        aside = await content.set_aside(inode.key)
        try:
            async with content.only_one(inode.key):
                # bytes that the store does not have are all there is of them, and stay until the object is gone
                unsent = bool(aside.records) or any(writer.dirty for writer in aside.writers)
                unsent = unsent or (inode.file is not None and inode.file.promised)  # so are its attributes
                await self._removals.delete(inode, at_once=unsent)
            await content.throw_away(aside)
        except BaseException as exc:
            with trio.CancelScope(shield=True):
                await content.put_back(aside)
                writer: Writer | None = inode.file.writer if inode.file is not None else None
                if writer is not None and writer.dirty and isinstance(exc, OSError):
                    await content.failed(writer, exc)
            raise

    async def _delete_doomed(self, file: OpenFile) -> None:
        at = file.inode.store.bucket, file.inode.key
        try:
            if self._doomed.get(at) is file:
                if await self._is_there(file.inode):
                    await file.inode.store.delete(file.inode.key)
                await file.content.deletion_done(file.inode.key)
                await self._delete_folders_of(file)
        finally:
            # not before: who makes a new one in its place meanwhile waits for the lock
            file.doomed = False
            if self._doomed.get(at) is file:
                del self._doomed[at]
                self._tree.removed.discard(file.inode.store, file.inode.key)

    @staticmethod
    async def _delete_folders_of(file: OpenFile) -> None:
        """Delete the directories that were removed while the object of *file* still lay in them: a server that keeps folders of its own
        (SeaweedFS) has kept them for it. What has been made in their place since stays."""
        store, folder = file.inode.store, file.inode.parent
        if not store.abilities.keeps_folders:
            return
        try:
            while folder is not None and folder.unlinked and not folder.top:
                if not await store.delete_folder(folder.key):
                    return
                await file.content.deletion_done(folder.key)
                folder = folder.parent
        except OSError as exc:
            log.info("a removed directory may still be shown, empty: %s", exc)

    @staticmethod
    async def _is_there(unlinked: Inode) -> bool:
        # what another host has put in its place while it was open here is not ours to delete
        found = await look(unlinked.store, unlinked.key)
        info = unlinked.info
        return found is not None and (info is None or is_still(found, info.etag, info.modified_ns))
