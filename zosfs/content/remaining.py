"""What is left of many deliveries, told to whoever watches.

Owns: the count. Telling costs (a file is written each time), so it is done now and then, and at the beginning and the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

INTERVAL = 0.2
"""Seconds between two tellings at least."""


class Remaining:
    """So many deliveries, and the bytes that they bring."""

    def __init__(self, progress: Callable[[int, int], object], sizes: Iterable[int]) -> None:
        """*progress* gets the number of deliveries and bytes that are left; *sizes* are the bytes of each."""
        self._progress = progress
        self._files = self._bytes = 0
        for size in sizes:
            self._files += 1
            self._bytes += size
        self._tell()

    def done(self, size: int) -> None:
        """A delivery of *size* bytes ended, well or not."""
        self._files -= 1
        self._bytes -= size
        if not self._files or trio.current_time() - self._told >= INTERVAL:
            self._tell()

    def _tell(self) -> None:
        self._told = trio.current_time()
        self._progress(self._files, self._bytes)
