"""Names that the kernel takes for missing, because it was told so (pure).

Until then it answers for them by itself, even when a directory's listing has shown one to it meanwhile, unless that came with an inode.
Owns: which names these are, and until when. Times are seconds of any one clock.
"""

from __future__ import annotations

import math

MOST = 10_000
"""Names that are remembered; with more, all are taken for missing until the last of those told by then has expired."""


SLACK = 1.0
"""Seconds: the kernel counts from when it reads the answer, in ticks of its own."""


class NegativeNames:
    """What the kernel remembers as missing for *ttl* seconds each."""

    def __init__(self, ttl: float) -> None:
        self._ttl = ttl + SLACK
        self._until: dict[tuple[int, bytes], float] = {}
        self._all_until = -math.inf

    def told(self, directory: int, name: bytes, now: float) -> None:
        """The kernel is told *now* that *name* is missing in *directory*."""
        if len(self._until) >= MOST:
            self._until = {place: until for place, until in self._until.items() if until > now}
            if len(self._until) > MOST // 2:
                self._until.clear()
                self._all_until = now + self._ttl
        self._until[directory, name] = now + self._ttl

    def hold(self, directory: int, name: bytes, now: float) -> bool:
        """Whether the kernel may take *name* in *directory* for missing."""
        return now < self._all_until or now < self._until.get((directory, name), -math.inf)
