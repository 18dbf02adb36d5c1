"""How far ahead of programs that open file after file is asked: nothing twice, nothing behind them, nothing for who jumps about."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from zosfs.fs.rows import FIRST, LEFT_OUT, MOST, ROWS, Rows


def test_one_after_the_other() -> None:
    rows = Rows(1000)
    asked: list[int] = []
    for number in range(1000):
        asked += rows.opened(number, waits=True).ahead
        assert all(at > number for at in asked[-MOST:] if at not in range(number + 1))
    assert asked == list(range(2, 1000)), "from the second on everything is asked for, once and in order"


def test_who_need_not_wait_gets_no_more_than_at_first() -> None:
    rows = Rows(1000)
    for number in range(50):
        step = rows.opened(number, waits=False)
        assert not step.ahead or step.ahead.stop <= number + 1 + FIRST


def test_files_left_out_are_given_up_and_the_row_goes_on() -> None:
    rows = Rows(100)
    for number in range(5):
        rows.opened(number, waits=False)
    step = rows.opened(7, waits=False)
    assert step.left == (range(5, 7),)
    assert step.ahead == range(9, 12)


def test_two_programs_in_one_directory() -> None:
    rows = Rows(2000)
    asked: list[int] = []
    for number in range(100):
        asked += rows.opened(number, waits=True).ahead
        asked += rows.opened(1000 + number, waits=True).ahead
    assert len(asked) == len(set(asked))
    assert set(range(2, 100)) | set(range(1002, 1100)) <= set(asked)


def test_a_row_that_does_not_go_on_is_given_up() -> None:
    rows = Rows(100_000)
    for number in range(10):
        rows.opened(number, waits=True)
    left = [gone for n in range(100) for gone in rows.opened(90_000 - 100 * n, waits=True).left]
    assert sum(len(gone) for gone in left) > 0
    assert left[0].start == 10


def test_what_is_opened_is_not_given_up_with_the_row_that_asked_for_it() -> None:
    rows = Rows(1000)
    for number in range(6):
        rows.opened(number, waits=True)
    for n in range(ROWS - 1):
        rows.opened(500 + 100 * n, waits=True)
    step = rows.opened(6 + LEFT_OUT + 1, waits=True)
    assert len(step.left) == 2, "before it and behind it"
    assert all(15 not in gone for gone in step.left)
    assert step.left[0] == range(6, 15)


def test_jumping_about_asks_for_nothing() -> None:
    rows, dice = Rows(100_000), random.Random(1)
    asked = sum(len(rows.opened(number, waits=True).ahead) for number in dice.sample(range(0, 100_000, LEFT_OUT + 2), 500))
    assert asked == 0


def test_what_was_refused_is_asked_for_again() -> None:
    rows = Rows(100)
    rows.opened(0, waits=True)
    step = rows.opened(1, waits=True)
    step.row.refuse(step.ahead[1])
    again = rows.opened(2, waits=True).ahead
    assert again.start == step.ahead[1]


@given(st.integers(1, 200), st.lists(st.tuples(st.integers(0, 199), st.booleans(), st.booleans()), max_size=200))
def test_any_order(count: int, opens: list[tuple[int, bool, bool]]) -> None:
    rows = Rows(count)
    at = 0
    out: set[int] = set()
    for jump, waits, goes_on in opens:
        at = (at + 1) % count if goes_on else jump % count
        assert all(0 <= place < count for place in rows.next_places())
        step = rows.opened(at, waits=waits)
        assert step.row.at == at
        assert all(at < number < count for number in step.ahead)
        assert len(step.ahead) <= MOST
        assert not out.intersection(step.ahead) or len(rows._rows) > 1, "one program's files are asked for once"
        for gone in step.left:
            assert at not in gone
            out.difference_update(gone)
        out.update(step.ahead)
        out.discard(at)
