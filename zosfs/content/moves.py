"""Moving everything below one prefix to another: copies on the server, then deletes; begun, gone on with, or taken back.

Owns: in which order that is done so that at every moment each object is whole below one prefix or the other, and what the next run
makes of a move that was cut short. Must not know: names, inodes, tasks that wait for it.
"""

from __future__ import annotations

import dataclasses
import errno
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import trio

from zosfs.config import Options
from zosfs.content.grants import acl_under_another_name
from zosfs.content.journal_rows import Move
from zosfs.content.promises import Promises
from zosfs.errors import StoreError
from zosfs.store.api import ObjectHeaders, ObjectInfo, Store
from zosfs.store.objects import objects_below, waves

log = logging.getLogger(__name__)

PARALLEL = 32
BATCH = 1000
ROUNDS = 5
"""Times that objects which others change meanwhile are copied again."""

CLOCKS = 60.0
"""Seconds by which the server's clock may be behind ours."""

KEPT_HEADERS = ("cache-control", "content-disposition", "content-encoding", "content-language", "expires")


Made = Mapping[str, int]
"""By the keys of objects: when they were made (ns since the epoch), as near as their server's answers tell."""
Whole = Callable[[Made], Awaitable[None]]


class Moves:
    """The moves within one bucket."""

    def __init__(self, store: Store, promises: Promises, options: Options) -> None:
        self._store = store
        self._promises = promises
        self._options = options

    async def move(self, old: str, new: str, first: Sequence[ObjectInfo], whole: Whole) -> list[ObjectInfo]:
        """Move all objects below *old* to *new*, both ending in a slash; *first* is what a listing found there just now.

        Returns the objects that were moved. *whole* is called in between, when both prefixes have all of them: who looks below the new
        one from then on misses nothing; it is told when the objects at the new keys were made. When a copy fails, the copies are taken
        back and its error is raised: the old prefix is still whole. Should the process end in between, the next run goes on (`finish`).
        """
        move = Move(old, new, time.time())
        if not first:
            await whole({})
            await self._promises.redirect(move)
            return []
        await self._promises.note_move(move)
        copied: dict[str, ObjectInfo] = {}
        made: dict[str, int] = {}
        try:
            await self._copy_until_settled(move, list(first), copied, made)
        except OSError as exc:
            log.error("renaming %s to %s failed, taking back %d copies: %s", old, new, len(copied), exc)
            with trio.CancelScope(shield=True):
                move = dataclasses.replace(move, back=True)
                await self._promises.note_move(move)
                await self._delete_with_folders([new + key[len(old) :] for key in copied], new)
                await self._promises.move_done(move, {})
            raise
        await whole(made)
        await self._delete_with_folders([*copied], old, itself=True)
        await self._promises.move_done(move, made)
        return list(copied.values())

    async def finish(self, move: Move, went_on: Callable[[], object] = lambda: None) -> None:
        """Go on with a move that an earlier run began; *went_on* is called whenever a part of it is done. Raises StoreError when it cannot
        be ended now.

        When the server refuses it, it is given up. Objects that others have made or changed at either place since are left
        where they are, and the log names them.
        """
        made: dict[str, int] = {}
        try:
            await self._finish(move, made, went_on)
        except StoreError as exc:
            if not exc.refused:
                raise
            log.error("the renaming of %s to %s, cut short, is refused, objects are at both places: %s", move.old, move.new, exc)
            move = dataclasses.replace(move, back=True)
        else:
            log.info("the renaming of %s to %s, cut short, is %s", move.old, move.new, "taken back" if move.back else "done")
        await self._promises.move_done(move, made)

    async def _finish(self, move: Move, made: dict[str, int], went_on: Callable[[], object]) -> None:
        there = {info.key: info async for info in objects_below(self._store, move.new)}
        made.update((key, info.modified_ns) for key, info in there.items())
        here = [info async for info in objects_below(self._store, move.old)]
        twins = {info.key for info in here if is_copy(move, info, there.get(self._moved(move, info.key)))}
        if move.back:
            copies = [self._moved(move, info.key) for info in here if self._moved(move, info.key) in there]
            await self._delete_with_folders([self._moved(move, key) for key in twins], move.new, copies, went_on=went_on)
        else:
            todo = [info for info in here if info.key not in twins and (self._moved(move, info.key) not in there or _is_marker(info))]
            await self._copy_all(move, todo, {}, made, went_on)
            for info in here:
                if info.key not in twins and info not in todo:
                    wanted = self._moved(move, info.key)
                    log.warning("%s was to be renamed to %s, which is another object by now: both stay", info.key, wanted)
            gone = [move.old + key[len(move.new) :] for key in there]
            await self._delete_with_folders([*twins, *(info.key for info in todo)], move.old, gone, itself=True, went_on=went_on)

    def _moved(self, move: Move, key: str) -> str:
        return move.new + key[len(move.old) :]

    async def _copy_until_settled(
        self, move: Move, todo: list[ObjectInfo], copied: dict[str, ObjectInfo], made: dict[str, int]
    ) -> None:
        """Copy *todo*, and what others have put below the old prefix until that was done."""
        for _ in range(ROUNDS):
            await self._copy_all(move, todo, copied, made)
            now = {info.key: info async for info in objects_below(self._store, move.old)}
            for key in [key for key in copied if key not in now]:
                del copied[key]  # removed by others meanwhile, as the copy is to be
                await self._store.delete(self._moved(move, key))
            todo = [info for info in now.values() if info.key not in copied or copied[info.key].etag != info.etag]
            if not todo:
                return
        raise StoreError("OperationAborted", operation="copy", key=move.old, message="others change what lies below again and again")

    async def _copy_all(
        self, move: Move, objects: Iterable[ObjectInfo], copied: dict[str, ObjectInfo], made: dict[str, int],
        went_on: Callable[[], object] = lambda: None,
    ) -> None:  # fmt: skip
        failures: list[OSError] = []
        waiting = iter(objects)

        async def worker() -> None:
            for info in waiting:
                if failures:
                    return
                try:
                    key = self._moved(move, info.key)
                    done, made_ns = await self._copy(info, key)
                    went_on()
                    if done is not None:
                        copied[info.key] = done
                    if made_ns:
                        made[key] = made_ns
                except OSError as exc:
                    failures.append(exc)

        async with trio.open_nursery() as nursery:
            for _ in range(PARALLEL):
                nursery.start_soon(worker)
        if failures:
            raise failures[0]

    async def _copy(self, info: ObjectInfo, key: str) -> tuple[ObjectInfo | None, int]:
        """Copy one object as it is now; returns what was copied (None when it is gone), and when the copy was made, 0 where nobody said."""
        for _ in range(ROUNDS):
            try:
                acl = await acl_under_another_name(self._store, info.key, self._options)
                written = await self._store.copy(info.key, key, acl=acl, if_match=info.etag, size=info.size)
                return info, written.modified_ns
            except StoreError as exc:
                if exc.errno not in (errno.ENOENT, errno.ESTALE):
                    raise
                found = await self._now(info.key)
                if found is None:
                    return None, 0
                if exc.errno == errno.ENOENT and found.key.endswith("/") and not found.size:
                    # SeaweedFS copies no markers of directories: the same one is written anew
                    written = await self._store.put(key, (), marker_headers(found, self._options))
                    return info, written.modified_ns
                info = found
        raise StoreError("OperationAborted", operation="copy", key=info.key, message="others change it again and again")

    async def _now(self, key: str) -> ObjectInfo | None:
        try:
            return await self._store.head(key)
        except StoreError as exc:
            if exc.errno == errno.ENOENT:
                return None
            raise

    async def _delete_with_folders(
        self, keys: Sequence[str], prefix: str, before: Iterable[str] = (), *, itself: bool = False,
        went_on: Callable[[], object] = lambda: None,
    ) -> None:  # fmt: skip
        """Delete *keys*, and of the directories below *prefix* (and that *itself*) that they or those of *before* lie in what is there
        without a marker: a server that keeps folders of its own (SeaweedFS) shows them else, empty as they are.

        Nothing is asked where it keeps none, or that would leave a version, or may.
        """
        folders = folders_of([*keys, *before], prefix) if self._store.abilities.keeps_folders else set()
        if not itself:
            folders.discard(prefix)
        await self._delete({*keys, *folders}, went_on)

    async def _delete(self, keys: Iterable[str], went_on: Callable[[], object]) -> None:
        left = [key for wave in waves(keys) for key in wave]
        refused: dict[str, Any] = {}
        for start in range(0, len(left), BATCH):
            batch = left[start : start + BATCH]
            failures = await self._store.delete_many(batch)
            refused |= failures
            if len(failures) < len(batch):
                went_on()
        if refused:
            key, failure = next(iter(refused.items()))
            raise StoreError(failure.code, message=failure.message, operation="delete", key=key)


def folders_of(keys: Iterable[str], prefix: str) -> set[str]:
    """The directories that *keys*, which begin with *prefix*, lie in: their keys from *prefix* on (pure)."""
    found: set[str] = set()
    for key in keys:
        end = key.rfind("/", 0, len(key) - 1) + 1
        while end >= len(prefix) and key[:end] not in found:
            found.add(key[:end])
            end = key.rfind("/", 0, end - 1) + 1
    return found


def _is_marker(info: ObjectInfo) -> bool:
    return info.key.endswith("/") and not info.size


def is_copy(move: Move, old: ObjectInfo, new: ObjectInfo | None) -> bool:
    """Whether *new* is the copy of *old* that *move* made. A marker may be an older directory's, and is none.

    Objects over 5 GiB are copied in parts, which gives them another ETag: those made since the move began count.
    """
    if new is None or _is_marker(old) or old.size != new.size:
        return False
    return old.etag == new.etag or ("-" in new.etag and new.modified_ns / 1e9 >= move.began - CLOCKS)


def marker_headers(info: ObjectInfo, options: Options) -> ObjectHeaders:
    """The headers of a directory's marker like *info*, which a HEAD told."""
    extra = {name: info.headers[name] for name in KEPT_HEADERS if name in info.headers}
    return ObjectHeaders(dict(info.metadata or {}), info.content_type, options.acl, extra=extra)
