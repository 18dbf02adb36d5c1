"""Where the next pages of a huge directory may begin, guessed from how the keys of one page are spread (pure).

Owns: nothing outside its own `Guesses`. Must not know: requests, inodes.

A page asked for behind a guess is true whatever the guess: it has all keys from there to its end. It is used once the pages before have
come as far as the guess, and what they told already is left out. Only a directory of plain objects whose pages end with their last key in
bytewise order is listed like this: of another order, or of common prefixes, it cannot be told what lies between two keys.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from zosfs.store.api import ListPage

DIGITS = 12
"""Characters behind the common beginning that are looked at: 1000 keys are seldom told apart by more."""

SCATTER = 3
"""How many times the scatter of keys that lie at random (one in the root of their number) pages overlap."""

IN_VAIN = 2
"""Guesses that may bring little or nothing, in one directory."""


def bytewise(key: str) -> bytes:
    """What keys are compared by in the order of S3: their bytes."""
    return key.encode("utf-8", "surrogateescape")


def plain(page: ListPage, start: str) -> bool:
    """Whether *page* has nothing but objects, all behind *start*, behind which it was asked for, in bytewise order."""
    if page.prefixes or not page.objects or page.next_marker not in ("", page.objects[-1].key):
        return False
    keys = [start, *(info.key for info in page.objects)]
    return keys == sorted(keys, key=bytewise)


def later(page: ListPage, reached: str) -> ListPage:
    """What *page* has behind *reached*, which lies behind where the page begins."""
    limit = bytewise(reached)
    return ListPage([info for info in page.objects if bytewise(info.key) > limit], (), page.next_marker)


def next_start(keys: Sequence[str], start: str) -> str:
    """A key about as far behind *start* as the last of *keys*, which are in order, is behind the first; "" when that cannot be told.

    Keys that are numbered without a gap are met exactly; of others a part of the way is left, as it is cheaper when pages overlap
    than when they leave a gap.
    """
    if len(keys) < 3:
        return ""
    first, last = keys[0], keys[-1]
    common = 0
    while common < min(len(first), len(last), len(start)) and first[common] == last[common] == start[common]:
        common += 1
    digits = {char for key in keys for char in key[common : common + DIGITS]}
    while common and first[common - 1] in digits:
        common -= 1  # what these keys have in common may be about to change: numbers carry over
    tails = [key[common : common + DIGITS] for key in keys]
    alphabet = ["", *sorted({char for tail in tails for char in tail})]
    if len(alphabet) < 3 or not start[common:]:
        return ""
    width = max(map(len, tails))
    rank = {char: number for number, char in enumerate(alphabet)}
    numbered = all(len(tail) == width for tail in tails)
    if numbered:  # no key is a beginning of another: the end is no digit
        rank = {char: number for number, char in enumerate(alphabet[1:])}
    base = len(rank)

    def number(tail: str) -> int | None:
        value = 0
        for at in range(width):
            char = tail[at] if at < len(tail) else ""
            if char not in rank:
                return None
            value = value * base + rank[char]
        return value

    here, low, high = number(start[common : common + width]), number(tails[0]), number(tails[-1])
    if here is None or low is None or high is None or high <= low:
        return ""
    dense = high - low + 1 == len(keys)
    there = here + ((high - low) + 1 if dense else int((high - low) * max(0.5, 1 - SCATTER / math.sqrt(len(keys)))))
    if there >= base**width:
        return ""
    chars = {value: char for char, value in rank.items()}
    guessed = []
    for _ in range(width):
        there, digit = divmod(there, base)
        guessed.append(chars[digit])
    return start[:common] + "".join(reversed(guessed))


@dataclass(slots=True)
class Guesses:
    """The guesses for one listing of one directory: how many may be under way, and where."""

    pages: int = 0
    in_vain: int = 0
    trusted: bool = True
    _full: int = 0
    _keys: list[str] = field(default_factory=list)

    def told(self, page: ListPage, start: str) -> None:
        """One more page was told, which goes on from *start*."""
        self.pages += 1
        if not page.next_marker:
            return  # most directories end with their first page: nothing is behind it to be guessed at
        self.trusted = self.trusted and plain(page, start)
        if self.trusted and self.in_vain < IN_VAIN:
            self._full = max(self._full, len(page.objects))
            self._keys = [*self._keys, *(info.key for info in page.objects)][-self._full :]

    def used(self, new: int, of: int) -> None:
        """The page behind a guess had *of* names, of which *new* were not told before."""
        self.in_vain += 2 * new < of or not of

    def starts(self, page: ListPage, under_way: Sequence[str]) -> list[str]:
        """Where to ask behind the last page told, *page*, besides its marker; *under_way* are guesses that were asked for and not used."""
        if not self.trusted or self.pages < 2 or not page.next_marker:
            return []
        found: list[str] = []
        start = max([page.next_marker, *under_way], key=bytewise)
        for _ in range(IN_VAIN - self.in_vain - len(under_way)):
            guess = next_start(self._keys, start)
            if not guess or bytewise(guess) <= bytewise(start):
                break
            found.append(guess)
            start = guess
        return found
