"""A Content over a bucket in memory, that can be ended as a crash ends it and begun again on the same directory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import trio
import trio.testing

from tests.content.memory_bucket import MemoryBucket
from zosfs.config import Options
from zosfs.content.commits import Commits
from zosfs.content.content import Content
from zosfs.content.memory import MemoryBudget
from zosfs.content.plan import Limits
from zosfs.content.writer import Writer
from zosfs.counters import Counters
from zosfs.store.api import ObjectHeaders, ObjectInfo, Store
from zosfs.threads import ThreadPool

SMALL = Limits(
    min_part=5, max_part=40, max_parts=60, max_put=1000, copy_part=16, part_size=10, multipart_threshold=24, max_object=2400
)
HASTE = 10
PLAIN = ObjectHeaders({"mode": "33188"}, "text/plain")


class Bucket(MemoryBucket):
    """A bucket in memory from which objects can be deleted, too."""

    async def delete(self, key: str, **_: Any) -> None:
        await self._enter("delete")
        self.things.pop(key, None)


@asynccontextmanager
async def room(bucket: Bucket, directory: Path, limits: Limits = SMALL, **options: Any) -> AsyncIterator[Content]:
    """A started Content that ends as a crash would end it: its tasks are cut off, nothing is delivered any more."""
    async with trio.open_nursery() as nursery:
        counters = Counters()
        content = Content(
            cast(Store, bucket), dataclasses.replace(Options(), free_space=0, **options), counters, nursery,
            budget=MemoryBudget(1 << 20, counters), cache_dir=directory,
        )  # fmt: skip
        content.limits = limits
        try:
            await content.start()
            yield content
        finally:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await content.aclose()


async def new(content: Content, key: str, base: ObjectInfo | None = None, **more: Any) -> Writer:
    """A writer with plain headers."""
    writer = content.writer(key, base, **more)
    writer.draft.headers = lambda: PLAIN
    writer.on_delivered = lambda info: None
    return writer


async def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until *condition* holds; so many seconds of the wall at most."""
    with trio.fail_after(seconds * HASTE):
        while not condition():  # noqa: ASYNC110 - what is waited for is not ours to signal
            await trio.sleep(0.05)


class _Clock:
    """Runs `HASTE` times as fast as the wall's while a thread or the disk is waited for, and jumps when all tasks wait for time alone."""

    def __init__(self) -> None:
        self.mock = trio.testing.MockClock(rate=HASTE, autojump_threshold=0)
        self.standing = False
        self._under_way = 0

    def settle(self) -> None:
        """Run, jump or stand, as what is under way has it."""
        self.mock.rate = 0 if self.standing else HASTE
        self.mock.autojump_threshold = math.inf if self.standing or self._under_way else 0

    def watched(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """*call*, during which all tasks may wait for something else than time."""

        async def called(*args: Any, **more: Any) -> Any:
            self._under_way += 1
            self.settle()
            try:
                return await call(*args, **more)
            finally:
                self._under_way -= 1
                self.settle()

        return called


_clocks: list[_Clock] = []


@contextmanager
def standing_clock() -> Iterator[None]:
    """No time passes for the room within: a busy machine lets none of its time limits pass."""
    clock = _clocks[-1]
    clock.standing = True
    clock.settle()
    try:
        yield
    finally:
        clock.standing = False
        clock.settle()


def run(main: Callable[[], Any], *, seconds: float = 200) -> None:
    """Run a test's main task, in at most so many seconds of the wall while it waits for threads; what it waits of time alone takes none."""
    clock = _Clock()

    async def bounded() -> None:
        with trio.fail_after(seconds * HASTE):
            await main()

    _clocks.append(clock)
    try:
        with ExitStack() as watch:
            for owner, name in ((ThreadPool, "run"), (Commits, "_through"), (trio.to_thread, "run_sync")):
                watch.enter_context(patch.object(owner, name, clock.watched(getattr(owner, name))))
            trio.run(bounded, clock=clock.mock)
    finally:
        _clocks.pop()
