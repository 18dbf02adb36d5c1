"""The content rooms of the mounted buckets, one a bucket, made when a bucket is first touched.

Owns: which bucket has which Content. A mount of one bucket has one; `zos:` has one for each bucket that was used.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable
from pathlib import Path

import trio

from zosfs import places
from zosfs.config import Options
from zosfs.content.content import Content
from zosfs.content.earlier_run import REPLAY_PATIENCE
from zosfs.content.memory import MemoryBudget
from zosfs.content.patience import Patience
from zosfs.counters import Counters
from zosfs.store.api import ObjectInfo
from zosfs.tree.inodes import Volume

PROBE_PATIENCE = 4.0
"""Seconds that a first change waits to know what the server can do."""
PROBE_PAUSE = 60.0


class Contents:
    """Makes, finds and ends the Content of each Volume."""

    def __init__(
        self, options: Options, counters: Counters, nursery: trio.Nursery, budget: MemoryBudget, cache_dir: Path
    ) -> None:
        self._options = options
        self._counters = counters
        self._nursery = nursery
        self._budget = budget
        self._cache_dir = cache_dir
        self._made: dict[str, Content] = {}
        self._making = trio.Lock()
        self._probed_at: dict[str, float] = {}
        self.on_moved: Callable[[], object] = lambda: None  # see EarlierRun.on_moved
        self.on_replayed: Callable[[str, ObjectInfo], object] = lambda bucket, info: None  # see EarlierRun.on_replayed

    async def of(self, volume: Volume | None, *, moved: bool = True, patience: float = REPLAY_PATIENCE) -> Content:
        """The Content of *volume*, started; OSError(EBUSY) when another mount uses its journal, EPERM for no bucket.

        Where it was not known before, and unless the caller sees to it that nobody meets them (not *moved*), renamings that an earlier run
        began are waited for; EBUSY where one does not go on. *patience*: seconds that a start waits at most for what was promised, see
        `Content.start`.
        """
        if volume is None:
            raise OSError(errno.EPERM, "only directories are made among buckets")
        content: Content | None = volume.content
        if content is not None:
            return content
        async with self._making:
            content = self._made.get(volume.store.bucket)
            if content is None:
                content = Content(
                    volume.store, self._options, self._counters, self._nursery, budget=self._budget,
                    cache_dir=self._cache_dir / places.bucket_folder(self._options.url, volume.store.bucket),
                )  # fmt: skip
                content.earlier.on_moved = lambda: self.on_moved()
                content.earlier.on_replayed = functools.partial(self._replayed, volume.store.bucket)
                await content.start(patience)
                self._made[volume.store.bucket] = content
        if moved:
            await content.earlier.moved()
        volume.content = content
        return content

    def _replayed(self, bucket: str, info: ObjectInfo) -> None:
        self.on_replayed(bucket, info)

    async def learn(self, volume: Volume | None) -> None:
        """Before something of *volume* is changed: know what its server can do there.

        One bucket was asked when it was mounted; those of an account are asked at their first change. Waits no longer than
        PROBE_PATIENCE, and asks a server that was too slow again only after PROBE_PAUSE.
        """
        if volume is None or volume.store.probed or self.asked(volume):
            return
        bucket = volume.store.bucket
        with trio.move_on_after(PROBE_PATIENCE):
            await volume.store.probe(volume.prefix)
        if not volume.store.probed:
            self._probed_at[bucket] = trio.current_time()

    def asked(self, volume: Volume) -> bool:
        """Whether its server was asked a short while ago, and was too slow to tell."""
        return trio.current_time() - self._probed_at.get(volume.store.bucket, float("-inf")) < PROBE_PAUSE

    def all(self) -> list[Content]:
        """Every Content made so far."""
        return list(self._made.values())

    def pressed(self) -> bool:
        """Whether what some bucket is owed should leave this host soon: it takes half of the disk or the memory that it may."""
        return any(content.half_full for content in self._made.values())

    async def drain(self, progress: Callable[[int, int], None], patience: Patience) -> None:
        """Deliver everything that was promised, as far as *patience* goes; *progress* gets the files and bytes that are left.

        All buckets get their turn; then raises the first one's OSError that says what stays.
        """
        failures: list[OSError] = []
        for content in self.all():
            try:
                await content.drain(progress, patience)
            except OSError as exc:
                failures.append(exc)
        if failures:
            raise failures[0]

    async def keep(self, failure: OSError) -> None:
        """Journal what is not delivered because of *failure* and not journalled yet."""
        for content in self.all():
            await content.keep(failure)

    async def aclose(self) -> None:
        """End all; what is undelivered stays in the journals."""
        for content in self.all():
            await content.aclose()
