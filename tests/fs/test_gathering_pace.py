"""When gathered removals go: early while a row goes on, soon after it, and in few requests whatever the pace."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from zosfs.fs.gathering_pace import FIRST, LONGEST, MOST, QUIET, GatheringPace


def requests(gaps: list[float], takes: float) -> list[tuple[float, int]]:
    """When requests go for removals that come after each of *gaps*, and how many each has; one at a time, and each *takes* so long."""
    pace, now, waiting, free = GatheringPace(), 0.0, 0, 0.0
    sent: list[tuple[float, int]] = []

    def send_until(then: float) -> None:
        nonlocal waiting, free
        at = max(now, free)
        while waiting and (due := at + pace.left(at, waiting)) < then:
            pace.going(waiting)
            sent.append((due, min(MOST, waiting)))
            waiting -= sent[-1][1]
            at = free = due + takes

    for gap in gaps:
        send_until(now + gap)
        now += gap
        pace.added(now)
        waiting += 1
    send_until(math.inf)
    return sent


def test_five_hundred_in_a_row_are_four_requests_of_which_the_first_goes_early() -> None:
    sent = requests([0.001] * 500, 0.15)
    assert len(sent) == 4
    assert sent[0][0] < 0.05
    assert sent[-1][0] < 0.5 + 3 * QUIET
    assert sum(count for _, count in sent) == 500


def test_who_removes_slowly_is_not_taken_for_somebody_who_has_ended() -> None:
    sent = requests([0.1] * 300, 0.01)
    assert len(sent) <= 300 * 0.1 / LONGEST + 6


@given(st.lists(st.floats(0, 0.6), max_size=300), st.floats(0, 2))
def test_all_go_and_few_requests_are_made(gaps: list[float], takes: float) -> None:
    sent = requests(gaps, takes)
    assert sum(count for _, count in sent) == len(gaps)
    doublings = math.log2(MOST / FIRST) + 1 + math.log2(LONGEST / QUIET) + 1
    assert len(sent) <= doublings + len(gaps) / MOST + sum(gaps) / LONGEST + 1
    if sent:
        assert sent[-1][0] <= sum(gaps) + LONGEST + takes * len(sent), "nothing waits longer than a row may pause"
