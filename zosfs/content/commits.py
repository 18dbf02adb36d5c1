"""Changes on their way to the journal: those that arrive together go to the disk together.

Owns: the journal's thread and the line in front of it. One batch is at the disk, the next one gathers behind it; the first task of a batch
hands it over, to the disk itself where that takes it and else to the thread, and is woken by the end of the write (one turn of the loop at
most; `ThreadPool.run` takes two), the others by that task.
Must not know: what the changes mean.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import Any, TypeVar, TypeVarTuple

import trio

from zosfs import inplace

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Batch:
    """What goes to the disk at once, and who waits for it."""

    __slots__ = ("call", "done", "failure", "handed_over", "result", "statements", "waiting")

    def __init__(self, call: Callable[[], Any] | None = None) -> None:
        self.call = call
        self.statements: list[bytes] = []
        self.waiting: deque[trio.lowlevel.Task] = deque()
        self.handed_over = False  # it has a task that sees to it
        self.done = False
        self.failure: BaseException | None = None
        self.result: Any = None


def _never(_: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED


class Commits:
    """Statements applied one batch after the other."""

    def __init__(
        self, apply: Callable[[Iterable[bytes]], None], begin: Callable[[Iterable[bytes]], int] = lambda statements: -1,
        finish: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        """*begin* hands statements over to the disk without waiting, and returns the eventfd that tells of the end, or -1 where that cannot
        be; *finish* tells then whether they are there. Where one says no, *apply* has its turn."""
        self._apply = apply
        self._begin = begin
        self._finish = finish
        self._line: deque[_Batch] = deque()
        self._gathering: _Batch | None = None  # the last of the line, while more may join it
        self._queue: SimpleQueue[_Batch | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._ended = -1

    async def commit(self, *statements: bytes) -> None:
        """Have *statements* applied, all or none of them; raises what *apply* raised. Not cancelled: what was handed over happens.

        Who is cancelled already hands nothing over: it would come behind the end of the journal.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        batch = self._gathering
        if batch is None:
            batch = self._gathering = _Batch()
            self._line.append(batch)
        batch.statements += statements
        await self._through(batch)
        if batch.failure is not None:
            raise _anew(batch.failure)

    async def alone(self, call: Callable[[*Ts], T], *args: *Ts) -> T:
        """Run ``call(*args)`` in the same thread, behind what was committed before and in front of what comes after."""
        await trio.lowlevel.checkpoint_if_cancelled()
        batch = _Batch(lambda: call(*args))
        self._gathering = None
        self._line.append(batch)
        await self._through(batch)
        if batch.failure is not None:
            raise batch.failure
        result: T = batch.result
        return result

    async def _through(self, batch: _Batch) -> None:
        if batch.handed_over or self._line[0] is not batch:
            batch.waiting.append(trio.lowlevel.current_task())
            await trio.lowlevel.wait_task_rescheduled(_never)
            if batch.done:
                return
        batch.handed_over = True
        if self._gathering is batch:
            self._gathering = None
        try:
            await self._run(batch)
        finally:
            self._line.popleft()
            for task in batch.waiting:
                trio.lowlevel.reschedule(task)
            if self._line:
                following = self._line[0]
                following.handed_over = True  # to its first task: who comes before that one runs waits behind it
                trio.lowlevel.reschedule(following.waiting.popleft())

    async def _run(self, batch: _Batch) -> None:
        if batch.call is not None or not await self._by_itself(batch.statements):
            await self._in_thread(batch)
        batch.done = True

    async def _by_itself(self, statements: list[bytes]) -> bool:
        ended = self._begin(statements) if statements else -1
        if ended < 0:
            return False
        if not inplace.readable(ended):
            await self._wait(ended)
        return self._finish()

    async def _in_thread(self, batch: _Batch) -> None:
        if self._thread is None:
            self._ended = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
            self._thread.start()
        self._queue.put(batch)
        while not batch.done:
            if not inplace.readable(self._ended):
                await self._wait(self._ended)
            os.eventfd_read(self._ended)

    @staticmethod
    async def _wait(ended: int) -> None:
        try:
            await trio.lowlevel.wait_readable(ended)
        except trio.Cancelled:
            # what is at the disk is waited for; the caller hears of its cancellation when it waits the next time
            with trio.CancelScope(shield=True):
                await trio.lowlevel.wait_readable(ended)

    def _work(self) -> None:
        while (batch := self._queue.get()) is not None:
            try:
                if batch.call is not None:
                    batch.result = batch.call()
                elif batch.statements:
                    self._apply(batch.statements)
            except BaseException as exc:
                batch.failure = exc
            batch.done = True
            os.eventfd_write(self._ended, 1)
            del batch

    def close(self) -> None:
        """End the thread; nothing may be waiting."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None
            trio.lowlevel.notify_closing(self._ended)
            os.close(self._ended)


def _anew(failure: BaseException) -> BaseException:
    """*failure* for one more caller, each with a traceback of its own."""
    if isinstance(failure, OSError):
        again = OSError(failure.errno, failure.strerror)
        again.__cause__ = failure
        return again
    return failure
