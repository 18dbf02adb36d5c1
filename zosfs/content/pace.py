"""How many bytes are worth being fetched ahead of all readers together: a pure decision from how fast ranges came.

Owns: nothing outside its own `Pace`. May use: nothing of zosfs. Must not know: the store, clocks, readers. Where each connection is slow,
more at once are faster, and far from the server many are needed; where the server or this machine is the bottleneck, more at once
only take memory. Which of the two it is shows when more is tried.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20

FIRST = 64 * MIB
"""Bytes ahead that are not questioned."""

WORTH = 1.5
"""How many times faster twice as much must be for it to stay."""

PAUSE = 1.0
"""Seconds in which nothing comes, after which measuring begins anew: nobody wanted anything."""

REST, LONGEST_REST = 8, 64
"""Measures after which more is tried again: few at first, twice as many after each trial in vain."""


@dataclass(slots=True)
class Pace:
    """The bytes *limit* that may be ahead of the readers, coming or here. A measure lasts until as many have come."""

    limit: int = FIRST
    _since: float = 0.0
    _last: float = float("-inf")
    _bytes: int = 0
    _wanted: bool = False
    _before: float = 0.0  # bytes per second before more was tried; 0: nothing is being tried
    _rest: int = 1  # measures that say nothing: the first ones of a limit are of what was under way before
    _patience: int = REST

    def refused(self) -> None:
        """A reader wanted more than *limit* allows."""
        self._wanted = True

    def came(self, now: float, n: int) -> None:
        """*n* bytes of a range have come, the last of them *now* (seconds of any clock that does not go backwards)."""
        if now - self._last > PAUSE:
            self._begin(now)
        else:
            self._bytes += n
            if self._bytes >= self.limit and now > self._since:
                self._judge(self._bytes / (now - self._since))
                self._begin(now)
        self._last = now

    def _begin(self, now: float) -> None:
        self._since, self._bytes, self._wanted = now, 0, False

    def _judge(self, rate: float) -> None:
        if not self._wanted:
            return  # it tells what was wanted, not what would be possible
        if self._rest:
            self._rest -= 1
            return
        if self._before and rate < WORTH * self._before:
            self.limit //= 2
            self._before = 0.0
            self._rest, self._patience = self._patience, min(2 * self._patience, LONGEST_REST)
            return
        self._before = rate
        self.limit *= 2
        self._rest = 1


def may_ask_for(limit: int, unread: int, own: int, streams: int, n: int) -> bool:
    """Whether a reader with *own* bytes ahead of it may have *n* more, where the *streams* readers that are being fetched for have *unread*
    in all: as long as that is within *limit*, and the reader's within its fair part of it."""
    return unread + n <= limit and own + n <= max(n, limit // max(streams, 1))
