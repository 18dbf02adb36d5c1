"""Whether a wait is worth being awake for: what comes within microseconds comes sooner to who has not gone to sleep (pure).

A processor that nobody uses is halted, and in a virtual machine it takes 50 to 200 us until it runs again: more than the kernel, the
program and this process need for most requests. So whoever expects something at once looks again and again for a while first. That costs
processor time only where nothing comes; then it is left off, for the longer the more often it was in vain. The idea is that of the
kernel's own haltpoll governor (Documentation/virt/guest-halt-polling.rst), which many machines have switched off.
"""

from __future__ import annotations

AWAKE = 0.0002
"""Seconds for which one wait looks before it sleeps, at most."""
SHORT = 0.0005
"""Seconds of a sleep that would have been worth staying awake for: it is told of with all that waking up takes."""
MOST_PAUSE = 63
"""Short sleeps that it takes at most after looking in vain until it is tried again."""


class Eagerness:
    """What the last waits of one place tell about the next one."""

    __slots__ = ("_in_vain", "_pause")

    def __init__(self) -> None:
        self._in_vain = 0  # in a row
        self._pause = 0  # short sleeps until it is worth a try

    def awake(self) -> bool:
        """Whether to look for `AWAKE` seconds before sleeping."""
        return not self._pause

    def came(self) -> None:
        """Something was there while it looked."""
        self._in_vain = 0

    def in_vain(self) -> None:
        """Nothing was, or somebody else has a use for the processor."""
        self._in_vain = min(self._in_vain + 1, 16)
        self._pause = min((1 << self._in_vain) - 1, MOST_PAUSE)

    def slept(self, seconds: float) -> None:
        """It slept for so long, whether or not something came."""
        if self._pause and seconds < SHORT:
            self._pause -= 1
