"""What is known of one directory's names, and how own changes and listings in flight stay out of each other's way.

Owns: a directory's children, its freshness, its negative entries. Every own change carries a sequence number; what a LIST says of a
name that was changed here after the request was sent is older than the change, and is not believed. Pure state: no requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from zosfs.tree.asked_ahead import AskedAhead
from zosfs.tree.by_name import Reach, Told, with_part
from zosfs.tree.inodes import Inode
from zosfs.tree.names import file_beside_directory, name_to_part, plain_name

MANY_NEGATIVE = 10_000
MANY_CHANGES = 4096


class Flying:
    """The requests under way whose answers may be older than what is changed here meanwhile."""

    __slots__ = ("_sent", "_tokens")

    def __init__(self) -> None:
        self._sent: dict[int, int] = {}
        self._tokens = 0

    @contextmanager
    def request(self, sequence: int) -> Iterator[None]:
        """Around requests whose answers will be judged by *sequence*: the tree's of now, or since when nothing was changed but what is
        remembered still.
        """
        self._tokens += 1
        token = self._tokens
        self._sent[token] = sequence
        try:
            yield
        finally:
            del self._sent[token]

    def oldest(self) -> int | None:
        """The least sequence of them all, None when nothing is under way."""
        return min(self._sent.values(), default=None)


class Directory:
    """The names below one inode."""

    __slots__ = (
        "asked", "asked_ahead", "by_name", "changes", "children", "complete_until", "counted_at", "doubted_at", "huge", "listed_at",
        "loading", "moved", "negative", "sweeping", "told",
    )  # fmt: skip

    def __init__(self) -> None:
        self.children: dict[bytes, Inode] = {}
        self.complete_until = float("-inf")  # until then `children` is all there is
        self.listed_at = float("-inf")  # when the store last said which names there are, or which are not
        self.doubted_at = float("-inf")  # what was asked before then may be older than a change that somebody told of
        self.counted_at = float("-inf")  # when all objects below were last counted, for a rename
        self.moved = 0  # the tree's count of renamed directories when this was the last one
        self.changes: dict[bytes, int] = {}  # names changed here while requests were in flight -> sequence number
        self.negative: dict[bytes, float] = {}  # names known to be missing -> until when
        self.told: tuple[Told, ...] = ()  # parts of which `children` has all names
        self.loading: object | None = None
        self.asked = False  # somebody wanted to know a name
        self.huge = False  # more than one page: single names are looked up by themselves
        self.by_name = 0  # how many were, since a page was asked for because of them
        self.sweeping = False  # HEADs of many names are under way
        self.asked_ahead: AskedAhead | None = None

    def complete(self) -> bool:
        """Whether `children` may be trusted to be all names."""
        return trio.current_time() < self.complete_until

    def untouched(self) -> bool:
        """Whether nobody has wanted to know a name here, and nothing was listed nor is being listed."""
        return not self.asked and self.listed_at == float("-inf") and self.loading is None

    def doubt(self) -> None:
        """Names may have changed by another hand: no listing of until now, nor one under way, is believed to be whole any more."""
        self.unlist()
        self.doubted_at = trio.current_time()

    def unlist(self) -> None:
        """`children` is not known to be all there is any more, nor all of any part."""
        self.complete_until = float("-inf")
        self.told = ()

    def note_told(self, reach: Reach | None, until: float) -> None:
        """All names in *reach* (of keys without this directory's) are among `children` now, unless they were changed here meanwhile."""
        if reach is not None and reach.begin != reach.end:
            self.told = with_part(self.told, Told(reach, until))

    def is_missing(self, name: bytes) -> bool:
        """Whether *name*, which is not among `children`, was found missing a short while ago, or was not where all names were listed."""
        until = self.negative.get(name)
        if until is None and not self.told:
            return False
        now = trio.current_time()
        if until is not None:
            if now < until:
                return True
            del self.negative[name]
        part = name_to_part(name)
        if plain_name(part) != name or file_beside_directory(part) in self.children:
            return False  # the file has its plain name again once its directory is gone
        return any(told.misses(part, now) for told in reversed(self.told))

    def note_missing(self, name: bytes, ttl: float) -> None:
        """*name* does not exist; believed for *ttl* seconds."""
        if len(self.negative) >= MANY_NEGATIVE:
            self.negative.clear()
        self.negative[name] = trio.current_time() + ttl

    def changed(self, name: bytes, sequence: int, oldest: int | None) -> None:
        """This mount changed what *name* is; *oldest* is the least sequence of the requests under way, None without any."""
        self.negative.pop(name, None)
        if oldest is None:
            if self.changes:
                self.changes = {}
            return
        if self.changes and len(self.changes) % MANY_CHANGES == 0:
            self.changes = {other: at for other, at in self.changes.items() if at > oldest}
        self.changes[name] = sequence

    def newer_than(self, name: bytes, sequence: int) -> bool:
        """Whether *name* was changed here after a request with *sequence* was sent."""
        return self.changes.get(name, 0) > sequence
