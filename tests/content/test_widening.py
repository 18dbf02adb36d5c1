"""When a read-ahead window goes beyond what every reader may have that waits: speeds that depend on it, and those that do not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zosfs.content.widening import EACH, FREELY, REST, Widening

MIB = 1 << 20
ROOM = 4 * FREELY


def windows(speed: Callable[[int], float], room: int = ROOM, *, count: int = 200, files: int = 1) -> list[int]:
    """The windows of a reader that waits at the end of each, and reads what was asked for under one at ``speed(window)`` bytes a second."""
    widening, window, asked, place, now = Widening(), 2 * MIB, 2 * MIB, 0, 0.0
    seen = []
    for _ in range(count):
        place += asked
        now += asked / speed(asked)
        asked, window = window, widening.passed(window, room, place, now, files)
        seen.append(window)
    return seen


def test_who_gets_faster_gets_the_largest_window() -> None:
    assert windows(lambda window: 5.0 * window)[-1] == ROOM


def test_who_gets_no_faster_goes_back_and_tries_again_after_long() -> None:
    seen = windows(lambda window: 500e6)
    assert set(seen[10:]) == {FREELY, 2 * FREELY}
    assert seen[10:].count(2 * FREELY) <= 2 * (len(seen) // REST + 1)
    assert seen[-REST:].count(2 * FREELY) >= 1


def test_a_room_between_is_on_trial_like_any_other() -> None:
    seen = windows(lambda window: 500e6, FREELY * 3 // 2)
    assert set(seen[10:]) == {FREELY, FREELY * 3 // 2}
    assert seen[10:].count(FREELY) > seen[10:].count(FREELY * 3 // 2)


@pytest.mark.parametrize("files", [2, 3])
def test_those_who_read_some_files_share_what_needs_no_trial(files: int) -> None:
    freely = max(FREELY // files, EACH)
    assert set(windows(lambda window: 500e6, files=files)[10:]) == {freely, 2 * freely}
    assert windows(lambda window: 5.0 * window, files=files)[-1] == ROOM, "whom more makes faster gets it"


@pytest.mark.parametrize("files", [4, 100])
def test_those_who_read_many_files_try_no_wider_windows(files: int) -> None:
    assert set(windows(lambda window: 5.0 * window, files=files)[10:]) == {EACH}


def test_who_gets_faster_up_to_a_limit_stays_there() -> None:
    seen = windows(lambda window: 5.0 * min(window, 2 * FREELY))
    assert seen[-REST:].count(2 * FREELY) >= REST - 3


def test_without_a_clock_nothing_is_proved() -> None:
    widening, window = Widening(), 2 * MIB
    for place in range(0, 100 * FREELY, FREELY):
        window = widening.passed(window, ROOM, place, 0.0)
    assert window == FREELY


@given(st.lists(st.tuples(st.integers(0, 1 << 40), st.floats(0, 10), st.integers(1 << 10, 1 << 30), st.integers(1, 100)), max_size=100))
def test_any_reader_has_a_window_that_is_allowed(steps: list[tuple[int, float, int, int]]) -> None:
    widening, window, now = Widening(), 2 * MIB, 0.0
    for place, seconds, room, files in steps:
        now += seconds
        window = widening.passed(min(window, room), room, place, now, files)
        assert 0 < window <= room
