"""When a server was last heard, and who waits for it since when.

Owns: these times and numbers, of one pool of connections. Must not know: S3. `moved` may come from any thread, all else is the trio
thread's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

import trio

log = logging.getLogger(__name__)

QUIET = 10.0
"""Seconds without a word from a server, requests waiting, after which the log says so."""
LOOKS = 1.0
"""Seconds between two looks whether a silent server speaks again."""
AGAIN = 60.0
"""Seconds within which a request after one that had no answer goes on with its waiting: pauses between two sendings are shorter."""


class Waiting(NamedTuple):
    """How many *requests* wait for *host* (HOST:PORT; the one that most wait for), which said nothing *since* then, *seconds* ago."""

    requests: int
    host: str
    since: float
    seconds: float


class Traffic:
    """When a pool's connections last heard from their server, or the server's machine took bytes of a large body."""

    def __init__(self, port: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.moved_at = clock()
        self._port = port
        self._waiting: dict[str, int] = {}
        self._asked_at = 0.0  # the first request of those that wait, or waited until they were given up
        self._left_at = 0.0  # when the last of them was answered or given up

    def moved(self) -> None:
        """Just now."""
        self.moved_at = self.clock()

    def asked(self, host: str) -> None:
        """A request to *host* begins, whose answer should come soon."""
        if not self._waiting:
            now = self.clock()
            if self._asked_at < self.moved_at or now - self._left_at > AGAIN:
                self._asked_at = now
        self._waiting[host] = self._waiting.get(host, 0) + 1

    def done(self, host: str) -> None:
        """It was answered, or given up."""
        left = self._waiting[host] - 1
        if left:
            self._waiting[host] = left
            return
        del self._waiting[host]
        if not self._waiting:
            self._left_at = self.clock()

    def waiting(self) -> Waiting | None:
        """Who waits now; None when nobody does."""
        if not self._waiting:
            return None
        since = max(self._asked_at, self.moved_at)
        host = max(self._waiting, key=lambda host: self._waiting[host])
        return Waiting(sum(self._waiting.values()), f"{host}:{self._port}", since, self.clock() - since)


async def tell(traffic: Traffic) -> None:
    """Say in the log when the server falls silent while requests wait, and when it speaks again: a line each. Until cancelled."""
    while True:
        waiting = traffic.waiting()
        quiet = waiting.seconds if waiting is not None else 0.0
        if waiting is None or quiet < QUIET:
            await trio.sleep(max(QUIET - quiet, 0.1))
            continue
        log.warning("%s has said nothing for %.0f s; requests that wait for it: %d", waiting.host, quiet, waiting.requests)
        heard = traffic.moved_at
        while traffic.moved_at == heard:  # noqa: ASYNC110 - threads hear it
            await trio.sleep(LOOKS)
        log.warning("%s speaks again, after %.0f s", waiting.host, traffic.moved_at - waiting.since)
