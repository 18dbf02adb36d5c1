"""When a failed request is sent again (pure).

Owns: the schedule. May use: zosfs.errors. Must not know: time, sockets.
"""

from __future__ import annotations

from dataclasses import dataclass

from zosfs.errors import StoreError

THROTTLES = frozenset({"SlowDown", "ServiceUnavailable", "TooManyRequests"})
"""What a server says that has too much to do."""

FIRST, LONGEST = 0.1, 10.0
"""Seconds of the first pause and of the longest, before jitter."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """At most *retries* more tries, none begun later than *timeout* seconds after the first."""

    retries: int
    timeout: float

    def pause(self, failure: StoreError, attempt: int, elapsed: float, chance: float) -> float | None:
        """Seconds to wait before the next try, after try number *attempt* (from 1) failed *elapsed* seconds after the first began.

        None: give up. *chance* in [0, 1) is the jitter: pauses spread over the upper three quarters of the step, so that many who
        failed together do not come back together. A server's Retry-After is obeyed as a minimum.
        """
        if not failure.retry or attempt > self.retries:
            return None
        step = min(LONGEST, FIRST * 2 ** (attempt - 1))
        if failure.row.code in THROTTLES:
            step = min(LONGEST, step * 4)
        pause = step * (0.25 + 0.75 * chance)
        asked = failure.headers.get("retry-after", "")
        if asked.isdigit():
            pause = max(pause, float(asked))
        return None if elapsed + pause > self.timeout else pause
