"""Resident worker threads for calls that release the GIL, and the hop between them and the trio thread.

Owns: the threads. A hop costs about 40 us of CPU against 70 us for `trio.to_thread`, and resident threads keep what
is thread-local (connections) warm. Work given here must be one long call or a few (sockets, hashing, pread, fsync, SQLite) and
next to no bytecode: three threads of busy Python turn 25,000 requests a second into 16.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar, TypeVarTuple

import outcome
import trio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class ThreadPool:
    """*size* daemon threads that run functions for trio tasks; started lazily, after any fork."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = 0

    async def run(
        self, fn: Callable[[*Ts], T], *args: *Ts, on_cancel: Callable[[], object] | None = None
    ) -> T:
        """Run ``fn(*args)`` in a worker and return its result or raise its exception.

        A cancelled caller calls *on_cancel* (which should make fn return soon, as shutting down its socket does) and still
        waits for fn's end, so buffers lent to fn are never in use after this returns. The result then wins
        over the cancellation, which is delivered at the caller's next checkpoint.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        task = trio.lowlevel.current_task()
        token = trio.lowlevel.current_trio_token()

        def work() -> None:
            result = outcome.capture(fn, *args)
            try:
                token.run_sync_soon(trio.lowlevel.reschedule, task, outcome.Value(result))
            except trio.RunFinishedError:
                pass
            finally:
                del result  # see below

        def abort(_: object) -> trio.lowlevel.Abort:
            if on_cancel is not None:
                on_cancel()
            return trio.lowlevel.Abort.FAILED

        if self._idle <= 0 and len(self._threads) < self._size:
            self._start()
        self._idle -= 1
        self._queue.put(work)
        try:
            result: outcome.Outcome[T] = await trio.lowlevel.wait_task_rescheduled(abort)
        finally:
            self._idle += 1
        try:
            return result.unwrap()
        finally:
            del result  # an exception that is kept by its own frame would keep lent buffers until the garbage collector comes

    def _start(self) -> None:
        thread = threading.Thread(target=self._loop, name=f"{self._name}-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        self._idle += 1
        thread.start()

    def _loop(self) -> None:
        while (work := self._queue.get()) is not None:
            work()
            del work

    def close(self) -> None:
        """Tell the idle threads to end; running calls finish first."""
        for _ in self._threads:
            self._queue.put(None)
        self._threads.clear()
