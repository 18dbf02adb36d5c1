"""Names of a huge directory that are asked for one by one: every so often one of them is answered by a page that begins with it (pure).

Who goes through a thousand names in their order has them all after the first few then, and who asks for names at random pays hardly
more than without: a page is one request, and the answer alone would be two.

Owns: nothing. Must not know: requests, inodes.
"""

from __future__ import annotations

from dataclasses import dataclass

from zosfs.store.api import ListPage
from zosfs.tree.spread import bytewise

EACH = 16
"""Names that are told for one page more, each by requests of its own or by a page before."""

MOST_PARTS = 32
"""Parts of a directory that are remembered to have been listed."""

_LAST = "\U0010ffff"
_BEFORE_SURROGATES, _BEHIND_SURROGATES = "\ud7ff", "\ue000"


def just_before(key: str) -> str:
    """A key before *key* with little in between, behind which a page is asked for that is to begin with *key*; *key* is not empty.

    Only the order of bytes of UTF-8 matters, which is that of code points.
    """
    last = key[-1]
    if last <= "\x01":
        return key[:-1]
    if "\ud800" <= last <= _BEHIND_SURROGATES:
        return key[:-1] + _BEFORE_SURROGATES + _LAST
    return key[:-1] + chr(ord(last) - 1) + _LAST


@dataclass(frozen=True, slots=True)
class Reach:
    """The keys between *begin* and *end* (both left out; None: to the end of the directory): a page has every one that is there."""

    begin: bytes
    end: bytes | None

    def tells(self, key: str) -> bool:
        """Whether the page has *key* and the directory of that name, if they are there. (`a-b` lies between `a` and what is below `a/`.)"""
        name = bytewise(key)
        return self.begin < name and (self.end is None or name + b"/" < self.end)

    def below(self, prefix: str) -> Reach | None:
        """As keys without *prefix*, with which they begin, are told; None where one does not."""
        before = bytewise(prefix)
        if not self.begin.startswith(before) or not (self.end is None or self.end.startswith(before)):
            return None
        return Reach(self.begin[len(before) :], self.end[len(before) :] if self.end is not None else None)


def reach(page: ListPage, behind: str) -> Reach:
    """How far *page* reaches, which was asked for behind *behind*: nowhere where it is not in the order of bytes."""
    begin = bytewise(behind)
    for keys in ([bytewise(info.key) for info in page.objects], [bytewise(below) for below in page.prefixes]):
        if keys != sorted(keys) or (keys and keys[0] <= begin):
            return Reach(begin, begin)
    return Reach(begin, bytewise(page.next_marker) if page.next_marker else None)


def reach_of_next(page: ListPage, behind: str) -> Reach:
    """As `reach`, of a page of a listing that has come to *behind* ("": it is the first one), which may begin with files that were held
    back (`undecided`). Of the first one only what lies behind its first key is told: in another order names may lie before it that are
    on a later page."""
    objects = page.objects
    while objects and behind.startswith(objects[0].key):
        objects = objects[1:]
    whole = reach(ListPage(objects, page.prefixes, page.next_marker), behind)
    if behind or whole.begin == whole.end:
        return whole
    first = min((bytewise(keys[0]) for keys in ([info.key for info in objects], page.prefixes) if keys), default=b"")
    return Reach(first, whole.end)


@dataclass(frozen=True, slots=True)
class Told:
    """A part of a directory all of whose names are known *until* then: what else is in *reach* is missing."""

    reach: Reach
    until: float

    def misses(self, part: str, now: float) -> bool:
        """Whether *part*, which is not among the names, is known to be missing. Both by bytes and by names it has to lie in the reach:
        behind `0/` a server that lists by names has `0.`, which comes before it by bytes."""
        end = self.reach.end
        return now < self.until and self.reach.tells(part) and (end is None or bytewise(part) < end.rstrip(b"/"))


def with_part(told: tuple[Told, ...], part: Told) -> tuple[Told, ...]:
    """What is *told* of a directory, and *part*, too; of much the oldest is left out."""
    last = told[-1] if told else None
    if last is not None and last.until == part.until and last.reach.end == part.reach.begin:
        return *told[:-1], Told(Reach(last.reach.begin, part.reach.end), part.until)
    return *told[1 - MOST_PARTS :], part
