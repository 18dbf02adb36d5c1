"""Who wants to know what the names are that it reads, and not just the names (pure).

What a small object is, a file or a symbolic link, no listing says: it takes a HEAD of each. Programs that read names only (ls, a shell's
`*`) get them without, their kinds unknown (DT_UNKNOWN, readdir(3)). Who then asks for one after the other wants to know, and gets the
kinds with the names from there on, in the next directories as well. Owns: these habits. Times are seconds of any one clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cachetools

REMEMBERED = 256
"""Threads, and directories, that are remembered."""

ENOUGH = 3
"""So many names of a directory that had to be asked for show that a program wants to know of all. More would not be: the others are asked
for ahead by then."""

LASTS = 10.0
"""Seconds after the last directory that it read until a thread is taken for a new program."""


@dataclass(slots=True)
class _Told:
    """The names of a directory that were told without their kinds, the last ones *at* this time, and how many were asked for since."""

    thread: int
    names: int = 0
    asked: int = 0
    at: float = -math.inf


class KindsWanted:
    """What the threads that read directories are known for."""

    def __init__(self) -> None:
        self._until: cachetools.LRUCache[int, float] = cachetools.LRUCache(REMEMBERED)  # by thread
        self._told: cachetools.LRUCache[int, _Told] = cachetools.LRUCache(REMEMBERED)  # by directory

    def wants(self, thread: int, now: float) -> bool:
        """Whether *thread*, which reads names *now*, wants to know what they are: for LASTS seconds more then."""
        if self._until.get(thread, -math.inf) <= now:
            return False
        self._until[thread] = now + LASTS
        return True

    def told(self, directory: int, thread: int, names: int, now: float) -> None:
        """*thread* was told so many *names* of *directory* without their kinds."""
        told = self._told.get(directory)
        if told is None or told.thread != thread:
            told = self._told[directory] = _Told(thread)
        told.names += names
        told.at = now

    def asked(self, directory: int, thread: int, now: float, *, first: bool) -> bool:
        """*thread* asks what a name of *directory* is: likely who read it, be it by another of its threads. Whether he begins to ask for
        all of them: it is the *first* one that he was told just before, and nobody asked for another. That counts as two."""
        told = self._told.get(directory)
        if told is None:
            return False
        begins = first and not told.asked and told.thread == thread and now - told.at < LASTS
        told.asked += 1 + begins
        if told.asked >= min(ENOUGH, told.names):
            self._until[told.thread] = now + LASTS
        return begins
