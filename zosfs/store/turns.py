"""One writer per key at a time: requests that change a key never overlap.

Owns: who has the turn of each key. Must not know: requests.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import trio


class Turns:
    """First come, first served, per key. Keys without a holder cost no memory."""

    def __init__(self) -> None:
        self._locks: dict[str, trio.Lock] = {}

    @asynccontextmanager
    async def of(self, key: str) -> AsyncIterator[None]:
        """Hold *key*'s turn within the block."""
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = trio.Lock()
        try:
            async with lock:
                yield
        finally:
            self._forget(key, lock)

    @asynccontextmanager
    async def of_all(self, keys: Iterable[str]) -> AsyncIterator[None]:
        """Hold the turns of all *keys*; taken in one order everywhere, so two of these cannot wait for each other."""
        held: list[tuple[str, trio.Lock]] = []
        try:
            for key in sorted(set(keys)):
                lock = self._locks.get(key)
                if lock is None:
                    lock = self._locks[key] = trio.Lock()
                held.append((key, lock))
                if lock.locked():
                    await lock.acquire()
                else:
                    lock.acquire_nowait()
            yield
        finally:
            me = trio.lowlevel.current_task()
            for key, lock in held:
                if lock.statistics().owner is me:
                    lock.release()
                self._forget(key, lock)

    def _forget(self, key: str, lock: trio.Lock) -> None:
        if self._locks.get(key) is lock and not lock.locked() and not lock.statistics().tasks_waiting:
            del self._locks[key]
