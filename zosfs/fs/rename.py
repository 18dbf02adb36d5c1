"""rename(2): a server-side copy and a delete for a file, many in parallel for a directory, nothing for what was never sent."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import os
import time
from collections.abc import AsyncIterator

from zosfs.config import Options
from zosfs.content.content import Content
from zosfs.content.finishing import REWRITABLE
from zosfs.content.grants import acl_under_another_name
from zosfs.content.moves import Made
from zosfs.content.writer import Writer
from zosfs.errors import StoreError
from zosfs.fs.change import Changes
from zosfs.fs.contents import Contents
from zosfs.fs.deliveries import Deliveries
from zosfs.fs.directories import Directories
from zosfs.fs.moving import Moving
from zosfs.fs.open_file import OpenFile
from zosfs.fs.open_files import OpenFiles
from zosfs.fs.promised_attributes import PromisedAttributes
from zosfs.fs.unlink import Unlinks
from zosfs.store.api import ObjectHeaders, ObjectInfo, Store
from zosfs.tree.inodes import Inode
from zosfs.tree.tree import Tree

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def _renaming(file: OpenFile) -> AsyncIterator[None]:
    file.renaming = True
    try:
        yield
    finally:
        file.renaming = False


def _is_being_written(file: OpenFile) -> bool:
    """Whether a program is in the middle of writing *file*: nobody is to see half of it, and what there is of it here goes along.

    Not of a base so large that it is copied in parts: it has another ETag then.
    """
    base = file.writer.draft.base if file.writer is not None else None
    return file.open_to_write and (base is None or base.size <= REWRITABLE)


def _base_of_half(file: OpenFile) -> ObjectInfo | None:
    """The object that a program is in the middle of changing: it goes to the new name as it is, and what was written or promised of it goes
    along. None where nobody is, as all that was written was to be in the store or is promised, or where some of it is in an unfinished
    upload only."""
    writer = file.writer
    if writer is None or not writer.dirty or writer.partly_gone or writer.entry.recorded or not _is_being_written(file):
        return None
    return writer.draft.base


def _object_of(target: Inode | None) -> ObjectInfo | None:
    """What the store has at the name of *target*: what a file that was never sent was itself renamed over, too."""
    if target is None:
        return None
    writer: Writer | None = target.file.writer if target.file is not None else None
    return (writer.draft.base if writer is not None else None) or target.info


async def _is_there(store: Store, source: ObjectInfo) -> bool:
    """Whether *source*, whose removal was refused, is there for sure: an earlier try of that may have got no answer."""
    try:
        return (await store.head(source.key)).etag == source.etag
    except StoreError as exc:
        if exc.errno != errno.ENOENT:
            _cannot_take_back(exc)
        return False


async def _take_back(store: Store, copy: ObjectInfo) -> None:
    """Delete *copy*. Whatever else lies in its place by now is let be."""
    try:
        there = await store.head(copy.key)
        if there.etag == copy.etag and copy.version_id in ("", there.version_id):
            await store.delete(copy.key)
    except StoreError as exc:
        if exc.errno != errno.ENOENT:
            _cannot_take_back(exc)


def _cannot_take_back(exc: StoreError) -> None:
    log.warning("a rename failed, and its copy cannot be taken back, so that both names are there: %s", exc)


def _fail(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class Renames:
    """Moves names, in the store first and then in the tree."""

    def __init__(
        self, tree: Tree, contents: Contents, open_files: OpenFiles, moving: Moving, changes: Changes, deliveries: Deliveries,
        unlinks: Unlinks, directories: Directories, promised: PromisedAttributes, options: Options,
    ) -> None:  # fmt: skip
        self._tree = tree
        self._contents = contents
        self._open_files = open_files
        self._moving = moving
        self._changes = changes
        self._deliveries = deliveries
        self._unlinks = unlinks
        self._directories = directories
        self._promised = promised
        self._options = options

    async def rename(self, parent: Inode, name: bytes, new_parent: Inode, new_name: bytes, *, replace: bool) -> None:
        """Move ``parent/name`` to ``new_parent/new_name``, replacing what is there when *replace*. Raises what rename(2) says."""
        source = await self._tree.lookup(parent, name)
        if source is None:
            raise _fail(errno.ENOENT)
        if new_parent.volume is None or source.store is not new_parent.store:
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
            await self._directory(source, new_parent, new_name)
        else:
            await self._unlinks.free_name(new_parent, new_name)
            await self._file(source, parent, new_parent, new_name, target)
        self._directories.unowe(new_parent)
        self._directories.emptied(parent)

    async def _file(self, source: Inode, parent: Inode, new_parent: Inode, new_name: bytes, target: Inode | None) -> None:
        file = await self._open_files.hold(source)
        try:
            async with file.lock, _renaming(file):
                old_key, new_key = source.key, self._tree.key_of(new_parent, new_name)
                writer = file.writer
                if target is not None and target.file is not None:
                    await self._unlinks.keep_for_holders(target)
                # the old object at the new name stays until the new one replaces it in one step
                carried: ObjectHeaders | None = None
                if writer is not None and await writer.rename_undelivered(new_key, lambda: _object_of(target)):
                    moved = None
                else:
                    half = _base_of_half(file)
                    if half is None and writer is not None and writer.dirty:
                        await writer.deliver()
                        file.attributes_changed = False
                    elif half is None and file.attributes_changed:
                        carried = self._changes.carried(file)
                        if carried is None:
                            await self._deliveries.attributes(file)
                    await file.content.settle(old_key)
                    await self._changes.inherit(source)
                    if half is not None and writer is not None:
                        half = await writer.standing_on()
                        await writer.entry.has_room_to_move()  # or what is replaced would be gone, and the renaming fail
                    info = half or source.info or await source.store.head(source.key)
                    async with file.content.replacing(new_key, info.etag, writer) as etags:
                        moved = await self._copy(file, info, new_key, etags, carried)
                        goes_along = writer if half is not None else None
                        try:
                            if goes_along is not None:
                                await goes_along.promise_at(new_key, moved.modified_ns)
                            await source.store.delete(old_key)
                        except OSError as exc:
                            if goes_along is not None:
                                # where the disk is too full for that, the next run finds no such object, and keeps the bytes as a conflict
                                with contextlib.suppress(OSError):
                                    await goes_along.promise_at(old_key, info.modified_ns)
                            if (isinstance(exc, StoreError) and exc.ambiguous) or not await _is_there(source.store, info):
                                etags.clear()  # the copy may be all there is
                            elif target is None:
                                await _take_back(source.store, moved)
                            self._tree.invalidate(parent)
                            self._tree.invalidate(new_parent)
                            raise
                    if writer is not None:
                        await writer.renamed(new_key, moved.modified_ns)
                if carried is not None:
                    file.attributes_changed = False
                    self._promised.done(file)
                replaced = self._tree.move(source, new_parent, new_name)
                if moved is not None:
                    self._tree.delivered(source, moved)
                    file.version += 1
            if replaced is not None and replaced.file is not None:
                await self._unlinks.replaced(replaced)
        finally:
            self._open_files.let_go(file)

    async def _copy(
        self, file: OpenFile, info: ObjectInfo, new_key: str, etags: set[str], carried: ObjectHeaders | None
    ) -> ObjectInfo:
        """The object *info* of *file* under *new_key*, with the headers *carried* if those are others; *etags* are those that it may have
        there, also when this fails."""
        source = file.inode
        acl = await acl_under_another_name(source.store, info.key, self._options)
        etags.add(info.etag)
        try:
            written = await source.store.copy(info.key, new_key, headers=carried, acl=acl, if_match=info.etag, size=info.size)
        except StoreError as exc:
            if not exc.ambiguous:
                etags.clear()
            if exc.errno == errno.ESTALE:
                with contextlib.suppress(OSError):  # the kernel calls again: it is what others have put there that is to be renamed
                    await self._changes.settle(file)
                    await self._tree.refresh(source, force=True)
            raise
        etags.add(written.etag or info.etag)
        if carried is not None:
            info = dataclasses.replace(info, metadata=dict(carried.metadata), content_type=carried.content_type)
        # a time of this clock is good for its second only, as one that is taken from an answer's Date (Facts._own)
        now = time.time_ns() // 10**9 * 10**9
        return dataclasses.replace(
            info, key=new_key, etag=written.etag or info.etag, version_id=written.version_id, modified_ns=written.modified_ns or now,
        )  # fmt: skip

    async def _directory(self, source: Inode, new_parent: Inode, new_name: bytes) -> None:
        ancestor: Inode | None = new_parent
        while ancestor is not None:
            if ancestor is source:
                raise _fail(errno.EINVAL)
            ancestor = ancestor.parent
        content, prefix = await self._contents.of(source.volume), self._tree.key_of(new_parent, new_name) + "/"
        await self._deliveries.deliver_below(source, but=lambda file: file.promised or _is_being_written(file))
        await content.left_headers.settle_below(source.key)
        while True:
            # before others have to wait for us: this may have to wait for the room on the disk that their deliveries make
            await self._unlinks.free_below(source, prefix)
            await self._changes.settle_below(source)
            async with self._moving.directory(source):
                if self._unlinks.free(source, prefix) and not self._promised.below(source):
                    await self._move(content, source, new_parent, new_name)
                    return

    async def _move(self, content: Content, source: Inode, new_parent: Inode, new_name: bytes) -> None:
        """Bring the objects of directory *source* to their new keys; nothing below it is changed meanwhile."""
        old_prefix, old_parent, old_name = source.key, source.parent, source.name
        assert old_parent is not None
        objects = [info async for info in self._tree.objects_below(source)]
        if source.marker is not False and not any(info.key == old_prefix for info in objects):
            source.marker = False
        try:
            await content.moves.move(
                old_prefix, self._tree.key_of(new_parent, new_name) + "/", objects,
                lambda made: self._called(source, new_parent, new_name, made),
            )
        except OSError:
            if source.parent is not old_parent or source.name != old_name:
                await self._called(source, old_parent, old_name, {})
            self._tree.invalidate(self._tree.root)
            raise
        self._tree.left(old_parent, old_name)
        if not objects:
            self._directories.emptied(source)

    async def _called(self, directory: Inode, parent: Inode, name: bytes, made: Made) -> None:
        """*directory* is *name* in *parent* from now on, for who asks here and for what is written below it."""
        self._tree.move(directory, parent, name, made)
        await self._moving.renamed_below(directory, made)
