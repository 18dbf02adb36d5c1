"""Requests side by side, so many at once, of which the first failure ends the others.

Owns: nothing that lasts. Must not know: what they are for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

T = TypeVar("T")


async def in_parallel(jobs: Sequence[Callable[[], Awaitable[T]]], concurrency: int) -> list[T]:
    """Run *jobs*, *concurrency* at once, and return their results in order; the first failure ends the others and is raised."""
    results: dict[int, T] = {}
    waiting = iter(enumerate(jobs))
    failure: Exception | None = None

    async with trio.open_nursery() as nursery:

        async def worker() -> None:
            nonlocal failure
            for index, job in waiting:
                try:
                    results[index] = await job()
                except Exception as exc:
                    failure = failure or exc
                    nursery.cancel_scope.cancel()
                    return

        for _ in range(min(concurrency, len(jobs))):
            nursery.start_soon(worker)
    if failure is not None:
        raise failure
    return [results[index] for index in range(len(jobs))]
