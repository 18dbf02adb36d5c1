"""A lock that costs nothing while nobody else wants it.

Owns: who holds it, and who waits. trio.Lock gives way to all other tasks each time it is taken, free or not: a turn of the loop, which is
more than most of what is done under a lock here. Who takes this one when it is free goes on at once.
"""

from __future__ import annotations

from collections import deque

import trio


class Lock:
    """Mutual exclusion, first come, first served; used with ``async with``. Taking it is a checkpoint only where that has to wait."""

    __slots__ = ("_held", "_waiting")

    def __init__(self) -> None:
        self._held = False
        self._waiting: deque[trio.lowlevel.Task] | None = None

    def locked(self) -> bool:
        """Whether somebody holds it."""
        return self._held

    async def __aenter__(self) -> None:
        if not self._held:
            self._held = True
            return
        task = trio.lowlevel.current_task()
        waiting = self._waiting
        if waiting is None:
            waiting = self._waiting = deque()
        waiting.append(task)

        def abort(_: object) -> trio.lowlevel.Abort:
            waiting.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    async def __aexit__(self, *_: object) -> None:
        if self._waiting:
            trio.lowlevel.reschedule(self._waiting.popleft())  # it holds the lock from now on
        else:
            self._held = False
