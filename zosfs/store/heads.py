"""HEADs that are wanted at the same time, sent behind one another over few connections (HTTP/1.1 pipelining).

Owns: who waits, and who sends for whom. Must not know: signatures, sockets. A sweep over a directory asks for thousands of attributes:
one by one each costs a hop to a thread and back and a round trip of its connection, in a batch they share both. HEAD
changes nothing, and its answers have no bodies, so that those of a batch come in order by RFC 9112 §9.3.2; what a server
leaves unanswered is simply asked for again, alone.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import trio

from zosfs.store.wire import Answer

WIDTH = 8
"""Batches at once."""
DEPTH = 16
"""HEADs in a batch: Ceph answers one in 0.3 ms, so that nobody waits long for those in front."""
DISAPPOINTMENTS = 3
"""Batches that were not answered whole until the server is taken for one that cannot do this."""

Ask = Callable[[Sequence[str]], Awaitable[Sequence[Answer]]]


class _Wanted:
    __slots__ = ("answer", "key", "leads", "told")

    def __init__(self, key: str) -> None:
        self.key = key
        self.answer: Answer | None = None
        self.leads = False
        self.told = trio.Event()


class Heads:
    """Gathers the HEADs of one bucket. *ask* sends some keys' HEADs at once and returns the answers that came, in their order."""

    def __init__(self, ask: Ask, *, alone: int, pipeline: bool) -> None:
        self._ask = ask
        self._width = WIDTH if pipeline else alone
        self._alone = alone
        self._depth = DEPTH if pipeline else 1
        self._running = 0
        self._disappointments = 0
        self._waiting: deque[_Wanted] = deque()

    @contextlib.asynccontextmanager
    async def turn(self, key: str) -> AsyncIterator[Answer | None]:
        """The answer for *key* that came with others', whatever its status; None: send it alone before you leave."""
        wanted = _Wanted(key)
        if self._running >= self._width:
            await self._wait(wanted)
            if not wanted.leads:
                yield wanted.answer
                return
        else:
            self._running += 1
        try:
            share = min(self._depth - 1, -(-len(self._waiting) // self._width))
            batch = [wanted, *(self._waiting.popleft() for _ in range(share))]
            if len(batch) > 1:
                await self._send(batch)
            yield wanted.answer
        finally:
            self._running -= 1
            self._pass_on()

    async def _wait(self, wanted: _Wanted) -> None:
        self._waiting.append(wanted)
        try:
            await wanted.told.wait()
        except trio.Cancelled:
            if wanted.leads:
                self._running -= 1
                self._pass_on()
            elif wanted in self._waiting:
                self._waiting.remove(wanted)
            raise

    def _pass_on(self) -> None:
        while self._waiting and self._running < self._width:
            following = self._waiting.popleft()
            following.leads = True
            self._running += 1
            following.told.set()

    async def _send(self, batch: Sequence[_Wanted]) -> None:
        try:
            answers = await self._ask([wanted.key for wanted in batch])
            for wanted, answer in zip(batch, answers, strict=False):
                wanted.answer = answer
            if len(answers) < len(batch):
                self._disappointments += 1
                if self._disappointments >= DISAPPOINTMENTS:
                    self._width, self._depth = self._alone, 1
        finally:
            # also where the one who sends is cancelled: the others then send for themselves
            for wanted in batch:
                wanted.told.set()
