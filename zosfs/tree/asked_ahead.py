"""How many attributes are asked for ahead of who asks for one name after the other (pure).

Who goes through a directory in its order gets twice as many ahead each time, from the second name on, or the first where it is known that
he begins to. Who asks in another order (fts(3) sorts by inode number) gets more with each name that had to be waited for, so that what is
asked for in vain stays in proportion. Owns: one directory's count of these.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from zosfs.tree.inodes import Inode

FIRST = 32
"""Names in the first sweep, and behind the last one of a sweep that count as the next ones."""

LATE = 10.0
"""Seconds: a name that is missed so long after the one before begins anew."""


class AskedAhead:
    """What was missed of late in one directory. *next*: the names that somebody who goes on in its order comes to."""

    __slots__ = ("_at", "_last", "_missed", "next")

    def __init__(self) -> None:
        self.next: Collection[Inode] = ()
        self._missed = 0
        self._last = 0
        self._at = -math.inf

    def missed(self, wanted: Inode, now: float, *, begins: bool = False) -> int:
        """Somebody has to wait for *wanted*: how many of those behind it to ask for. None with the first, unless *begins*: who has just
        read the names wants to know of the first of them, and likely of the others."""
        if now - self._at > LATE:
            self._missed = self._last = 0
        if begins and not self._missed:
            self._missed = 1
        in_order = self._missed > 0 and wanted in self.next
        self._at = now
        self._last = max(FIRST * self._missed, 2 * self._last if in_order else 0)
        self._missed += 1
        return self._last
