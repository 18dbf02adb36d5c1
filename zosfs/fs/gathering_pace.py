"""When removals that were gathered go to the server (pure).

Owns: nothing outside its own `GatheringPace`. Must not know: the store, tasks. Times are seconds of any one clock.

While removals come in a row the first batch goes early, so that the server works while the program goes on, and each later one takes twice
as many, so that the requests stay few. What is left goes as soon as the row seems to be over: after a quiet moment, which is longer for
who removes slowly, and twice as long each time that it was not the end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

FIRST = 32
"""Removals in the first batch of a row."""

MOST = 1000
"""Removals in one request at most (S3's limit)."""

QUIET, LONGEST = 0.05, 0.5
"""Seconds without another removal after which a row is taken to be over: at least, at most."""

GAPS = 4
"""How many of the row's usual gaps make a quiet moment."""


@dataclass(slots=True)
class GatheringPace:
    """The pace of one row of removals."""

    wanted: int = FIRST
    calm: int = 1
    gap: float = 0.0
    last: float = -math.inf

    def added(self, now: float) -> None:
        """One more was gathered."""
        if self.last > -math.inf:
            self.gap += (min(now - self.last, LONGEST) - self.gap) / GAPS
        self.last = now

    def goes_on(self, now: float) -> bool:
        """Whether one that is removed *now* belongs to this row."""
        return now - self.last <= LONGEST

    def left(self, now: float, waiting: int) -> float:
        """Seconds until the *waiting* ones are to go if none comes, 0 for at once."""
        if waiting >= self.wanted:
            return 0.0
        return max(0.0, self.last + min(LONGEST, max(self.calm * QUIET, GAPS * self.gap)) - now)

    def going(self, waiting: int) -> None:
        """The *waiting* ones go now."""
        if waiting >= self.wanted:
            self.wanted = min(MOST, 2 * self.wanted)
        else:
            self.calm *= 2 if self.calm * QUIET < LONGEST else 1
