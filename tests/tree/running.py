"""Tests of the tree on a clock of their own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
import trio.testing

Test = Callable[[], Awaitable[None]]


def run(test: Test) -> None:
    """Run *test* on a clock that jumps over waits; a hang fails."""

    async def limited() -> None:
        with trio.fail_after(1_000_000):
            await test()

    trio.run(limited, clock=trio.testing.MockClock(autojump_threshold=0))
