"""What is known of one directory's names, and how own changes and listings in flight stay out of each other's way.

Owns: a directory's children, its freshness, its negative entries. Every own change carries a sequence number; what a LIST says of a
name that was changed here after the request was sent is older than the change, and is not believed. Pure state: no requests.
"""

from __future__ import annotations

import trio

from zosfs.tree.inodes import Inode

MANY_NEGATIVE = 10_000


class Directory:
    """The names below one inode."""

    __slots__ = ("asking", "changes", "children", "complete_until", "huge", "loading", "negative")

    def __init__(self) -> None:
        self.children: dict[bytes, Inode] = {}
        self.complete_until = float("-inf")  # until then `children` is all there is
        self.changes: dict[bytes, int] = {}  # names changed here while listings were in flight -> sequence number
        self.negative: dict[bytes, float] = {}  # names known to be missing -> until when
        self.loading: object | None = None
        self.huge = False  # more than one page: single names are looked up by themselves
        self.asking = 0  # requests for single names under way

    def complete(self) -> bool:
        """Whether `children` may be trusted to be all names."""
        return trio.current_time() < self.complete_until

    def is_missing(self, name: bytes) -> bool:
        """Whether *name* was found missing a short while ago."""
        until = self.negative.get(name)
        if until is None:
            return False
        if trio.current_time() < until:
            return True
        del self.negative[name]
        return False

    def note_missing(self, name: bytes, ttl: float) -> None:
        """*name* does not exist; believed for *ttl* seconds."""
        if len(self.negative) >= MANY_NEGATIVE:
            self.negative.clear()
        self.negative[name] = trio.current_time() + ttl

    def changed(self, name: bytes, sequence: int, *, walking: bool) -> None:
        """This mount changed what *name* is; *walking*: an undelimited listing is in flight somewhere."""
        self.negative.pop(name, None)
        if self.loading is not None or self.asking or walking:
            self.changes[name] = sequence

    def newer_than(self, name: bytes, sequence: int) -> bool:
        """Whether *name* was changed here after a request with *sequence* was sent."""
        return self.changes.get(name, 0) > sequence
