"""Whether a wider read-ahead window makes its reader faster: a pure decision from how fast the reader went before and with it.

A window has to hold what is on its way from the server; more only takes memory and the processor's caches. From a server nearby a moderate
one is enough. From one far away, each of whose connections carries so much and no more, a wider one has more connections at work.

Owns: what one stream's trials have shown. May use: nothing of zosfs. Must not know: the store, memory, clocks (times are told).
"""

from __future__ import annotations

from dataclasses import dataclass

FREELY = 64 << 20
"""Bytes up to which a window doubles whenever its reader waits, without a trial: the windows of all readers of files together."""

EACH = 16 << 20
"""Of these, what each reader of several files may have at least. Where so much for each is all of them, none tries a wider one: four
readers would try at the same time, and take fresh memory for it, which costs more than it brings."""

WORTH = 1.15
"""How many times faster a reader must be for a window up to twice as large."""

REST = 32
"""Windows read before a width that was of no use is tried again: the way to the server may have changed."""


@dataclass(slots=True)
class Widening:
    """The trials of one stream, whose reader tells each time that it has *passed* all that was asked for when it told before."""

    _from: tuple[int, float] | None = None  # where and when the measured stretch begins
    _before: tuple[int, float] | None = None  # while the window is on trial: the one before, and bytes a second with that
    _rest: int = 0

    def passed(self, window: int, room: int, place: int, now: float, files: int = 1) -> int:
        """The window from now on, of a reader at *place* that had to wait under *window*; *room* is the largest, *now* seconds. So many
        *files* are read ahead at the moment, this one included: they share the way from the server."""
        freely = min(max(FREELY // files, EACH), room)
        if files * EACH >= FREELY:
            room = freely
        if window < freely:
            return min(2 * window, freely)
        if self._from is None:  # what was read until now had been asked for under the window before
            self._from = place, now
            return window
        start, since = self._from
        rate = abs(place - start) / (now - since) if now > since else 0.0
        self._from = place, now
        if self._before is not None and rate < WORTH * self._before[1]:
            narrow = min(self._before[0], room)
            self._from, self._before, self._rest = None, None, REST
            return narrow
        self._before = None
        if self._rest:
            self._rest -= 1
        elif rate and window < room:
            self._from, self._before = None, (window, rate)
            return min(2 * window, room)
        return window
