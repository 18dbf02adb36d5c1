"""Sets of byte positions kept as sorted, disjoint, half-open ranges.

Owns: nothing but its own numbers. May use: nothing of zosfs. Must not know: files, stores, tasks.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence


class Ranges:
    """A set of non-negative integers as sorted disjoint half-open ranges ``(start, end)``; touching ranges are one.

    Looking up costs O(log n); adding and removing cost that plus the move of a list's tail. Empty ranges (start >= end) are
    allowed everywhere as arguments and stand for no bytes.
    """

    __slots__ = ("_ends", "_starts", "_total")

    def __init__(self, ranges: Iterable[Sequence[int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._total = 0
        for start, end in ranges:
            self.add(start, end)

    def add(self, start: int, end: int) -> None:
        """Put ``[start, end)`` into the set."""
        if start >= end:
            return
        starts, ends = self._starts, self._ends
        if not ends or start > ends[-1]:
            starts.append(start)
            ends.append(end)
            self._total += end - start
            return
        # ranges low..high-1 overlap or touch the new one and melt into it
        low = bisect_left(ends, start)
        high = bisect_right(starts, end)
        if low < high:
            self._total -= sum(ends[low:high]) - sum(starts[low:high])
            start = min(start, starts[low])
            end = max(end, ends[high - 1])
        starts[low:high] = [start]
        ends[low:high] = [end]
        self._total += end - start

    def remove(self, start: int, end: int) -> None:
        """Take ``[start, end)`` out of the set."""
        if start >= end:
            return
        starts, ends = self._starts, self._ends
        low = bisect_right(ends, start)
        high = bisect_left(starts, end)
        if low >= high:
            return
        self._total -= sum(ends[low:high]) - sum(starts[low:high])
        kept = [(starts[low], start)] if starts[low] < start else []
        if ends[high - 1] > end:
            kept.append((end, ends[high - 1]))
        starts[low:high] = [piece[0] for piece in kept]
        ends[low:high] = [piece[1] for piece in kept]
        self._total += sum(b - a for a, b in kept)

    def truncate(self, size: int) -> None:
        """Take out everything from *size* on."""
        if self._ends and self._ends[-1] > size:
            self.remove(size, self._ends[-1])

    def clear(self) -> None:
        """Take out everything."""
        self._starts.clear()
        self._ends.clear()
        self._total = 0

    def covers(self, start: int, end: int) -> bool:
        """Whether all of ``[start, end)`` is in the set; an empty range always is."""
        if start >= end:
            return True
        at = bisect_right(self._starts, start) - 1
        return at >= 0 and self._ends[at] >= end

    def overlaps(self, start: int, end: int) -> bool:
        """Whether any position of ``[start, end)`` is in the set."""
        if start >= end:
            return False
        at = bisect_right(self._ends, start)
        return at < len(self._starts) and self._starts[at] < end

    def run_end(self, at: int) -> int:
        """The end of the range that holds position *at*, or *at* itself when none does."""
        index = bisect_right(self._starts, at) - 1
        return max(at, self._ends[index]) if index >= 0 else at

    def within(self, start: int, end: int) -> list[tuple[int, int]]:
        """The parts of ``[start, end)`` that are in the set, in order."""
        if start >= end:
            return []
        low = bisect_right(self._ends, start)
        high = bisect_left(self._starts, end)
        return [
            (max(a, start), min(b, end)) for a, b in zip(self._starts[low:high], self._ends[low:high], strict=True)
        ]

    def missing(self, start: int, end: int) -> list[tuple[int, int]]:
        """The parts of ``[start, end)`` that are not in the set, in order."""
        gaps = []
        at = start
        for a, b in self.within(start, end):
            if a > at:
                gaps.append((at, a))
            at = b
        if at < end:
            gaps.append((at, end))
        return gaps

    def union(self, other: Ranges) -> Ranges:
        """The positions that are in either."""
        few, many = (self, other) if len(self) <= len(other) else (other, self)
        either = many.copy()
        for start, end in few:
            either.add(start, end)
        return either

    @property
    def total(self) -> int:
        """How many positions are in the set."""
        return self._total

    @property
    def end(self) -> int:
        """The end of the last range, 0 for the empty set."""
        return self._ends[-1] if self._ends else 0

    @property
    def start(self) -> int:
        """The start of the first range, 0 for the empty set."""
        return self._starts[0] if self._starts else 0

    def copy(self) -> Ranges:
        """An independent set with the same positions."""
        twin = Ranges()
        twin._starts = self._starts.copy()
        twin._ends = self._ends.copy()
        twin._total = self._total
        return twin

    def to_list(self) -> list[list[int]]:
        """The ranges as lists of two integers, fit for JSON."""
        return [[a, b] for a, b in self]

    @classmethod
    def from_list(cls, ranges: Iterable[Sequence[int]]) -> Ranges:
        """The set that `to_list` told of; any order and overlaps are accepted."""
        return cls(ranges)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(list(zip(self._starts, self._ends, strict=True)))

    def __len__(self) -> int:
        """How many separate ranges there are."""
        return len(self._starts)

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ranges):
            return NotImplemented
        return self._starts == other._starts and self._ends == other._ends

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Ranges({self.to_list()})"
