"""Programs that open the files of a directory one after the other: how far ahead of them to fetch (pure).

Owns: nothing outside its own `Rows`. Must not know: inodes, requests, time. Files are numbers, their places in the directory's listing.

A *row* is a program's way through the files: it may leave some out, but does not go back. Several programs may be under way at
once. How far ahead is asked grows only while the program has to wait.
"""

from __future__ import annotations

from dataclasses import dataclass, field

PROVED = 2
"""Files opened in a row before anything is fetched ahead: one is no row."""

FIRST, MOST = 4, 64
"""Files ahead at first, and at most."""

LEFT_OUT = 8
"""Files that may be left out from one to the next."""

ROWS = 4
"""Programs that are told apart in one directory."""

PATIENCE = 64
"""Files opened by others after which a row that does not go on is over."""


@dataclass(slots=True)
class Row:
    """*at* was opened last, *run* files were opened in all, everything before *asked* was asked for or left out, *width* may be ahead."""

    at: int
    run: int = 1
    asked: int = 0
    width: int = 0
    last: int = 0

    def refuse(self, number: int) -> None:
        """File *number* could not be asked for, nor those behind it: they are wanted again with the next step."""
        self.asked = min(self.asked, number)


@dataclass(frozen=True, slots=True)
class Step:
    """What one open means: *row* is the program's that opened it, *ahead* are the files to ask for now, in order; *left* are files that
    were asked for and are not wanted any more, half-open ranges of them."""

    row: Row
    ahead: range
    left: tuple[range, ...] = ()


@dataclass(slots=True)
class Rows:
    """The rows through a directory of *count* files."""

    count: int
    _rows: list[Row] = field(default_factory=list)
    _opened: int = 0

    def next_places(self) -> list[int]:
        """Where the rows may go on, the likeliest first."""
        return [
            number
            for step in range(1, LEFT_OUT + 2)
            for row in self._rows
            if (number := row.at + step) < self.count
        ]  # fmt: skip

    def opened(self, number: int, *, waits: bool) -> Step:
        """File *number* was opened; *waits*: its bytes are not here yet."""
        self._opened += 1
        row = next((row for row in self._rows if row.at < number <= row.at + 1 + LEFT_OUT), None)
        if row is None:
            row = Row(number, asked=number + 1, last=self._opened)
            self._rows.append(row)
            return Step(row, range(0), self._over(row))
        missed = range(row.at + 1, min(number, row.asked))
        row.at, row.last = number, self._opened
        row.run += 1
        row.asked = max(row.asked, number + 1)
        if row.run < PROVED:
            return Step(row, range(0), self._over(row))
        if not row.width:
            row.width = FIRST
        elif waits:
            row.width = min(MOST, 2 * row.width)
        ahead = range(row.asked, max(row.asked, min(self.count, number + 1 + row.width)))
        row.asked = ahead.stop
        return Step(row, ahead, ((missed,) if missed else ()) + self._over(row))

    def _over(self, now: Row) -> tuple[range, ...]:
        """End the rows that do not go on, and all but the last few; what was asked for them and is not wanted any more."""
        going = sorted((row for row in self._rows if self._opened - row.last <= PATIENCE), key=lambda row: row.last)[-ROWS:]
        over = [range(row.at + 1, row.asked) for row in self._rows if row not in going]
        self._rows = going
        # what is opened just now may be one of them
        before = [range(gone.start, min(gone.stop, now.at)) for gone in over]
        behind = [range(max(gone.start, now.at + 1), gone.stop) for gone in over]
        return tuple(part for pair in zip(before, behind, strict=True) for part in pair if part)
