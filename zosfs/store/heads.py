"""HEADs that are wanted at the same time, sent behind one another over few connections (HTTP/1.1 pipelining).

Owns: who waits, and who sends for whom. Must not know: signatures, sockets. A sweep over a directory asks for thousands of attributes:
one by one each costs a hop to a thread and back and a round trip of its connection, in a batch they share both. HEAD
changes nothing, and its answers have no bodies, so that those of a batch come in order by RFC 9112 §9.3.2; what a server
leaves unanswered is simply asked for again, alone, and who leaves out too much gets no batches for a while. When the server asks for
fewer requests (503 SlowDown, 429), half as many go at once, and one more again after each round that it answers without complaint.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import trio

from zosfs.store.api import HEADS_TOGETHER
from zosfs.store.http import Answer

WIDTH = 16
"""Batches at once: with fewer Ceph takes more processor time for each HEAD, 0.73 ms with 8, 0.65 with 16 and no less with more."""
DISAPPOINTMENTS = 3
"""Batches in a row that were not answered whole until the server is taken for one that cannot do this; those under way together are one."""

REST = 600.0
"""Seconds for which such a server gets no batches: it may be a proxy's bad hour. Twice as long each time that it was not."""

THROTTLED = (429, 503)
"""Statuses by which a server asks for fewer requests."""

Ask = Callable[[Sequence[str]], Awaitable[Sequence[Answer] | None]]


class _Wanted:
    __slots__ = ("alone", "answers", "keys", "leads", "told")

    def __init__(self, keys: Sequence[str], *, alone: bool = False) -> None:
        self.alone = alone
        self.keys = keys
        self.answers: list[Answer | None] = [None] * len(keys)
        self.leads = False
        self.told = trio.Event()


class Heads:
    """Gathers the HEADs of one bucket. *ask* sends some keys' HEADs at once and returns the answers that came, in their order; None
    where nobody was reached.

    *throttled* tells how often the server has asked for fewer requests so far, *slowed* is told of each halving.
    """

    def __init__(
        self, ask: Ask, *, alone: int, pipeline: bool, throttled: Callable[[], int] = int, slowed: Callable[[], object] = int
    ) -> None:
        self._ask = ask
        self._throttled, self._slowed = throttled, slowed
        self._pipeline = pipeline
        self._alone = alone
        self._rests_until, self._rest = -math.inf, REST
        self._begun = 0  # turns so far
        self._halved = 0  # of which so many when the width was halved last
        self._well = 0  # turns without complaint since the width changed
        self._batches(pipeline)
        self._running = 0
        self._disappointments = 0
        self._disappointed = 0  # turns begun when the last of them came
        self._waiting: deque[_Wanted] = deque()
        self._again: deque[_Wanted] = deque()  # whom the server told to ask later: each for itself

    @contextlib.asynccontextmanager
    async def turn(self, keys: Sequence[str], *, alone: bool = False) -> AsyncIterator[Sequence[Answer | None]]:
        """The answers for *keys*, at most `together`, that came in a batch, whatever their status.

        None for what came in none: who asked for a single key sends it alone before he leaves, who asked for several takes a turn for
        each, *alone* where the server said that it was too much at once.
        """
        if self._depth == 1 and self.together > 1:
            self._batches(True)
            self._disappointments = DISAPPOINTMENTS - 1
        wanted = _Wanted(keys, alone=alone)
        if await self._follows(wanted, self._again if alone else self._waiting):
            if len(keys) > 1 or wanted.answers[0] is None or wanted.answers[0].status not in THROTTLED:
                yield wanted.answers
                return
            wanted = _Wanted(keys, alone=True)  # fifteen at once would be no answer to a request for fewer
            await self._follows(wanted, self._again)
        self._begun += 1
        begun, complaints = self._begun, self._throttled()
        try:
            batch = [wanted] if wanted.alone else self._together_with(wanted)
            if len(batch) > 1 or len(keys) > 1:
                await self._send(batch, begun)
            yield wanted.answers
        finally:
            self._running -= 1
            self._judge(begun, self._throttled() > complaints)
            self._pass_on()

    @property
    def width(self) -> int:
        """How many batches may be under way at once."""
        return self._width

    @property
    def together(self) -> int:
        """How many keys one turn may be for."""
        return HEADS_TOGETHER if self._pipeline and trio.current_time() >= self._rests_until else 1

    def _batches(self, wanted: bool) -> None:
        self._depth = HEADS_TOGETHER if wanted else 1
        self._most = self._width = WIDTH if wanted else self._alone

    def _together_with(self, first: _Wanted) -> list[_Wanted]:
        """Who waits, and is sent for by *first*: a fair share, and as many as a batch has room for."""
        batch, room = [first], self._depth - len(first.keys)
        for _ in range(-(-len(self._waiting) // self._width)):
            if len(self._waiting[0].keys) > room:
                break
            batch.append(self._waiting.popleft())
            room -= len(batch[-1].keys)
        return batch

    def _judge(self, begun: int, throttled: bool) -> None:
        """The turn that was the *begun*th is over: adapt the width to whether the server complained meanwhile."""
        if throttled:
            if begun > self._halved:  # those sent together are one complaint
                self._halved, self._well = self._begun, 0
                if self._width > 1:
                    self._width //= 2
                    self._slowed()
            return
        self._well += 1
        if self._well >= self._width < self._most:
            self._well = 0
            self._width += 1

    async def _follows(self, wanted: _Wanted, queue: deque[_Wanted]) -> bool:
        """Wait in *queue* for a turn. False: *wanted* has one now, and gives it back; True: somebody sent for it."""
        if self._running < self._width:
            self._running += 1
            return False
        queue.append(wanted)
        try:
            await wanted.told.wait()
        except trio.Cancelled:
            if wanted.leads:
                self._running -= 1
                self._pass_on()
            elif wanted in queue:
                queue.remove(wanted)
            raise
        return not wanted.leads

    def _pass_on(self) -> None:
        while self._running < self._width and (queue := self._again or self._waiting):
            following = queue.popleft()
            following.leads = True
            self._running += 1
            following.told.set()

    async def _send(self, batch: Sequence[_Wanted], begun: int) -> None:
        try:
            keys = [key for wanted in batch for key in wanted.keys]
            answers = await self._ask(keys)
            if answers is None:
                return  # that tells nothing of a server
            waiting = iter(answers)
            for wanted in batch:
                wanted.answers = [next(waiting, None) for _ in wanted.keys]
            if len(answers) == len(keys):
                self._disappointments = 0
            elif not any(answer.status in THROTTLED for answer in answers):  # who has too much to do may close connections, too
                self._disappoint(begun)
        finally:
            # also where the one who sends is cancelled: the others then send for themselves
            for wanted in batch:
                wanted.told.set()

    def _disappoint(self, begun: int) -> None:
        """The batch of the turn that was the *begun*th was not answered whole."""
        if begun <= self._disappointed:
            return
        self._disappointed = self._begun
        self._disappointments += 1
        if self._disappointments >= DISAPPOINTMENTS:
            self._batches(False)
            self._rests_until = trio.current_time() + self._rest
            self._rest *= 2
