"""Objects that very many appends made, made whole again in the background when nobody has used them for a while.

Owns: which files wait for that. May use: open files, the tree, content/. Must not know: how an object is made whole.

A file is thought of when it is closed, and when its bytes were delivered. Its object is copied by the server while programs go on;
only the exchange keeps them waiting, and it is left out when anybody has the file open by then or the object has changed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

import trio

from zosfs.config import Options
from zosfs.content.compaction import Compaction, worth
from zosfs.content.content import Content
from zosfs.content.finishing import put_tags
from zosfs.content.grants import grant_headers
from zosfs.errors import StoreError
from zosfs.fs.acls import Acls
from zosfs.fs.change import Changes
from zosfs.fs.contents import Contents
from zosfs.fs.headers import of_object
from zosfs.fs.moving import Moving
from zosfs.fs.open_files import OpenFiles
from zosfs.store.api import ObjectHeaders, ObjectInfo, Store
from zosfs.tree.attributes import format_time, from_object
from zosfs.tree.inodes import Inode
from zosfs.tree.tree import Tree

log = logging.getLogger(__name__)

QUIET = 300.0
"""Seconds for which nobody has used a file before its object is made whole."""
MOST = 1000
"""Files that wait; of more, the others are thought of when they are used again."""


class Compacting:
    """The objects of a mount that are to be made whole, one after the other."""

    def __init__(
        self, tree: Tree, contents: Contents, open_files: OpenFiles, moving: Moving, acls: Acls, changes: Changes, options: Options,
        nursery: trio.Nursery,
    ) -> None:  # fmt: skip
        self._tree = tree
        self._contents = contents
        self._open_files = open_files
        self._moving = moving
        self._acls = acls
        self._changes = changes
        self._options = options
        self._nursery = nursery
        self._ever = bool(options.compact_appends) and not options.ro
        self._waiting: dict[Inode, float] = {}  # until when
        self._running = False

    def consider(self, inode: Inode) -> None:
        """*inode* was used until now: make its object whole when it has been quiet, if that is worth it."""
        if self._ever and worth(inode.info, time.time_ns(), self._options.compact_appends, QUIET) is not None:
            self._wait(inode, QUIET)

    def _wait(self, inode: Inode, seconds: float) -> None:
        if inode not in self._waiting:
            if len(self._waiting) >= MOST:
                return
            inode.pins += 1
        self._waiting[inode] = trio.current_time() + seconds
        if not self._running:
            self._running = True
            self._nursery.start_soon(self._run)

    async def _run(self) -> None:
        try:
            while self._waiting:
                inode = min(self._waiting, key=self._waiting.__getitem__)
                due = self._waiting[inode]
                if due > trio.current_time():
                    await trio.sleep_until(due)
                    continue
                again = await self._try(inode)
                if self._waiting[inode] != due:
                    continue  # used meanwhile
                if again is not None:
                    self._waiting[inode] = trio.current_time() + again
                else:
                    del self._waiting[inode]
                    self._unpin(inode)
        finally:
            self._running = False

    def _unpin(self, inode: Inode) -> None:
        inode.pins -= 1
        if inode.lookups <= 0:
            self._tree.forget(inode.number, 0)

    def _unused(self, inode: Inode) -> bool:
        file = inode.file
        return not inode.unlinked and (file is None or not (file.handles or file.writer is not None or file.dirty or file.waits))

    def _still(self, inode: Inode, info: ObjectInfo) -> bool:
        """Whether nobody here has used *inode* since its object was *info*."""
        now = inode.info
        return self._unused(inode) and inode.key == info.key and now is not None and now.etag == info.etag

    async def _try(self, inode: Inode) -> float | None:
        """Make the object of *inode* whole; in how many seconds to look again where it is too early, None where not at all."""
        if not self._unused(inode):
            return None  # and thought of again when it is closed
        key = inode.key
        try:
            content = await self._contents.of(inode.volume)
            await self._contents.learn(inode.volume)
            able = content.abilities
            if not able.append or able.versioned:
                return None
            await self._tree.refresh(inode, force=True)
            info = inode.info
            wait = worth(info, time.time_ns(), self._options.compact_appends, QUIET)
            if wait == 0 and info is not None and info.key == key:
                await self._make_whole(inode, content, info)
                return None
            return wait
        except OSError as exc:
            log.warning("%s, which many appends made, is not made whole: %s", key, exc)
            return None

    async def _make_whole(self, inode: Inode, content: Content, info: ObjectInfo) -> None:
        store, key = inode.store, info.key
        wanted = await self._headers(store, info)
        work = Compaction(content, info, wanted)
        try:
            await work.gather()
            async with self._moving.still(inode), self._changes.turn(inode):
                file = await self._open_files.hold(inode)
                try:
                    async with file.lock, content.only_one(key):
                        if not self._still(inode, info) or await self._headers(store, info) != wanted or not self._still(inode, info):
                            log.info("%s, which many appends made, is in use again, and not made whole", key)
                            return
                        with trio.CancelScope(shield=True):  # an end of the mount waits, or the tags might be lost
                            try:
                                done = await work.exchange()
                            except StoreError:
                                self._tree.invalidate(inode)
                                raise
                            self._acls.forget(store, key)
                            file.version += 1
                            self._tree.delivered(inode, done)
                            await self._give_tags(store, key, wanted)
                finally:
                    self._open_files.let_go(file)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(10):
                await work.drop()
        log.info("%s, which many appends made, is whole", key)

    async def _give_tags(self, store: Store, key: str, wanted: ObjectHeaders) -> None:
        """Ceph drops the tags that come with an upload."""
        try:
            await put_tags(store, key, wanted)
        except StoreError as exc:
            log.error("%s is whole, but its tags %s could not be given back: %s", key, dict(wanted.tags or {}), exc)

    async def _headers(self, store: Store, info: ObjectInfo) -> ObjectHeaders:
        """All that the object has besides bytes. Raises StoreError also where its ACL may not be read, or it could not be kept."""
        described = of_object(info, self._options)
        metadata = described.metadata
        if self._options.posix and "mtime" not in metadata:
            metadata["mtime"] = format_time(from_object(info, False, self._tree.defaults).mtime_ns)  # the object will be younger
        tags: Mapping[str, str] = await store.get_tags(info.key)
        extra = {**described.extra, **grant_headers(await store.get_acl(info.key))}
        return ObjectHeaders(metadata, described.content_type, "", described.storage_class, dict(tags) or None, extra)
