"""Which directories beside the wanted one a walk will want next, and in what portions to list them (pure).

Owns: the plan of one step of a walk, and how many listings at once a server answers faster than one. May not know: requests, inodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

FULL = 0.9
"""How much of a page a portion is meant to fill: what is left over keeps one page enough for most of them."""

MOST_AT_ONCE = 8

LEAST = 0.72
"""How much of its pages a portion has to fill: where portions would fill less, the listing that just goes on costs fewer requests."""

MOST_PAGES = 4
"""A directory whose whole subtree is larger than these pages is listed by itself after all."""


def portions(complete: Sequence[bool], at: int, each: float, page: int, width: int) -> list[range]:
    """Portions of the siblings to list at once, the one with the wanted sibling *at* first; at most *width*.

    *complete* tells in key order which siblings are known already, *each* how many names one is guessed to have below it (0: nobody
    knows), *page* how many names one request brings. The walk comes from the side where the neighbours are known, and no more is
    listed ahead of it than lies known behind it: who stops after two directories has cost little. Where neither neighbour is known it
    goes in an order of its own (`find` and `rm`: that of inode numbers, beyond 10,000 names), and one portion of fixed bounds is listed, so
    that the next ones leave no gaps. Portions are not empty, do not overlap, and hold nothing that is known. A sibling that fills a page or
    several is a portion of its own.
    """
    size = max(1, int(page * FULL / max(1.0, each))) if each else 1
    width = max(1, width) if pages_of(size * each, page) else 1
    most = size * width
    before, behind = _known(complete, at, -1, most), _known(complete, at, 1, most)
    if not before and not behind:
        return [_around(complete, at, size)]
    if behind > before:
        reach = min(2 * behind, most)
        first = min(size, reach)
        return _backward(complete, at, first, size, max(1, min(width, reach // size)))
    return _forward(complete, at, size, max(1, min(width, before // size)))


def pages_of(names: float, page: int) -> int:
    """How many pages a portion of so many *names* takes; 0 when it would not fill them, or takes too many."""
    pages = max(1, math.ceil(names / page))
    return pages if pages <= MOST_PAGES and names >= LEAST * pages * page else 0


def onward(found: Sequence[range], at: int, count: int) -> tuple[int, int] | None:
    """Of *count* siblings the portions *found* are being listed, because *at* is wanted: with which of them the walk is half through, and
    the first one beyond them. None when there is none, or only *at* is listed, or it is in their midst: nobody knows what comes next.
    """
    listed = sorted(n for some in found for n in some)
    if len(listed) < 2 or at not in (listed[0], listed[-1]):
        return None
    step = 1 if listed[0] == at else -1
    edge = listed[::step][-1] + step
    return (listed[::step][len(listed) // 2], edge) if 0 <= edge < count else None


def first_unknown(complete: Sequence[bool], edge: int, step: int) -> int | None:
    """The first sibling from *edge* on, by *step*, that is not known: full pages bring some of those beyond what they were asked for.
    None when all are known.
    """
    while 0 <= edge < len(complete) and complete[edge]:
        edge += step
    return edge if 0 <= edge < len(complete) else None


def _known(complete: Sequence[bool], at: int, step: int, most: int) -> int:
    count, here = 0, at + step
    while count < most and 0 <= here < len(complete) and complete[here]:
        count, here = count + 1, here + step
    return count


def _around(complete: Sequence[bool], at: int, size: int) -> range:
    """What is not known around *at* of those *size* siblings, counted from the first of all, to which it belongs."""
    low = at - at % size
    begin, end = at, at + 1
    while begin > low and not complete[begin - 1]:
        begin -= 1
    while end < min(low + size, len(complete)) and not complete[end]:
        end += 1
    return range(begin, end)


def _forward(complete: Sequence[bool], at: int, size: int, many: int) -> list[range]:
    found: list[range] = []
    begin = at
    while len(found) < many and begin < len(complete) and (begin == at or not complete[begin]):
        end = begin + 1
        while end < len(complete) and end - begin < size and not complete[end]:
            end += 1
        found.append(range(begin, end))
        begin = end
    return found


def _backward(complete: Sequence[bool], at: int, first: int, size: int, many: int) -> list[range]:
    found: list[range] = []
    end, wanted = at + 1, first
    while len(found) < many and end > 0 and (end == at + 1 or not complete[end - 1]):
        begin = end - 1
        while begin > 0 and end - begin < wanted and not complete[begin - 1]:
            begin -= 1
        found.append(range(begin, end))
        end, wanted = begin, size
    return found


@dataclass(slots=True)
class ListingPace:
    """How many listings a server answers at once without making each wait: learnt from how long they take."""

    width: int = 1
    alone: float = 0.0  # seconds of one listing by itself, smoothed

    def answered(self, count: int, seconds: float) -> None:
        """*count* listings that were sent at once took *seconds*, all together."""
        if count == 1:
            self.alone = (self.alone + seconds) / 2 if self.alone else seconds
        if count > 1 and self.alone and seconds > self.alone * (1 + count) / 2:
            self.width = max(1, self.width // 2)  # hardly faster than one after the other
        elif count >= self.width:
            self.width = min(MOST_AT_ONCE, self.width * 2)
