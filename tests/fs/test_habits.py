"""Whether who asks for the attributes of small files opens them next: seldom wrong, and never for who only lists."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zosfs.fs.about_to_open import MOST_NEEDED, Habit


def fetched_in_vain(opened: list[bool]) -> tuple[int, int]:
    """How many files are fetched with their attributes when these are *opened* next or not: in all, and those that were not opened."""
    habit = Habit()
    fetched = vain = 0
    for opens in opened:
        fetches = habit.opens_next
        fetched += fetches
        if opens:
            habit.opened()
        else:
            vain += fetches
            habit.left(fetched=fetches)
    return fetched, vain


def test_who_reads_one_file_after_the_other_asks_for_the_first_only() -> None:
    assert fetched_in_vain([True] * 500) == (499, 0)


def test_who_only_lists_has_nothing_fetched() -> None:
    assert fetched_in_vain([False] * 500) == (0, 0)


@given(st.lists(st.booleans(), max_size=400))
def test_what_is_fetched_in_vain_was_earned(opened: list[bool]) -> None:
    _, vain = fetched_in_vain(opened)
    needed, earned = 1, 0
    for _ in range(vain):
        earned += needed
        needed = min(MOST_NEEDED, 2 * needed)
    assert sum(opened) >= earned, "each one takes twice the proof of the one before"
