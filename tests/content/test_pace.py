"""How much is worth being fetched ahead at once: more where more is faster, no more where it is not."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from zosfs.content.pace import FIRST, MIB, PAUSE, Pace, may_ask_for

RANGE = 8 * MIB


def read(pace: Pace, rate: Callable[[int], float], amount: int, *, now: float = 0.0, wanted: bool = True) -> float:
    """*amount* bytes come in ranges, as fast as *rate* says (bytes a second) with so many bytes under way; when the last did."""
    while amount > 0:
        if wanted:
            pace.refused()
        now += RANGE / rate(pace.limit)
        pace.came(now, RANGE)
        amount -= RANGE
    return now


def each_connection_is_slow(limit: int) -> float:
    return limit // RANGE * 50e6


def server_is_the_bottleneck(limit: int) -> float:
    return 500e6


def test_far_away_more_is_under_way_soon() -> None:
    pace = Pace()
    read(pace, each_connection_is_slow, 512 * MIB)
    assert pace.limit >= 4 * FIRST


def test_a_reader_that_gets_going_is_not_taken_for_what_more_at_once_has_won() -> None:
    pace = Pace()
    now, came = 0.0, 0
    while came < 64 * MIB:  # from a tenth of the speed to all of it, evenly
        pace.refused()
        now += MIB / (500e6 * (0.1 + 0.9 * came / (64 * MIB)))
        pace.came(now, MIB)
        came += MIB
    for _ in range(512):
        now = read(pace, server_is_the_bottleneck, RANGE, now=now)
        assert pace.limit <= 2 * FIRST, "tried, and found no faster"


def test_near_it_stays_at_what_is_as_fast() -> None:
    pace = Pace()
    least, most, now = 0, 0, 0.0
    for _ in range(512):
        now = read(pace, server_is_the_bottleneck, RANGE, now=now)
        most = max(most, pace.limit)
        least = min(least, pace.limit) if most > FIRST else most
    assert (least, most) == (FIRST, 2 * FIRST), "tried, and found no faster"


def test_a_server_that_has_become_able_to_more_is_found_out() -> None:
    pace = Pace()
    now = read(pace, server_is_the_bottleneck, 2048 * MIB)
    read(pace, each_connection_is_slow, 16384 * MIB, now=now)
    assert pace.limit >= 4 * FIRST


def test_who_wants_no_more_is_given_no_more() -> None:
    pace = Pace()
    read(pace, each_connection_is_slow, 4096 * MIB, wanted=False)
    assert pace.limit == FIRST


def test_a_pause_is_not_taken_for_slowness() -> None:
    pace = Pace()
    now = 0.0
    while pace.limit == FIRST:
        now = read(pace, each_connection_is_slow, RANGE, now=now)
    now = read(pace, each_connection_is_slow, RANGE, now=now)
    read(pace, each_connection_is_slow, 1024 * MIB, now=now + 100 * PAUSE)
    assert pace.limit >= 4 * FIRST


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, RANGE), st.booleans()), max_size=400))
def test_whatever_comes_it_is_never_less_than_at_first(events: list[tuple[float, int, bool]]) -> None:
    pace = Pace()
    now = 0.0
    for passed, n, wanted in events:
        if wanted:
            pace.refused()
        now += passed
        before = pace.limit
        pace.came(now, n)
        assert pace.limit >= FIRST
        assert pace.limit in (before // 2, before, before * 2)


@given(st.integers(FIRST, 1 << 32), st.lists(st.integers(0, 40), min_size=1, max_size=400))
def test_every_stream_gets_its_part_and_all_together_no_more(limit: int, order: list[int]) -> None:
    own = dict.fromkeys(order, 0)
    for stream in order:
        if may_ask_for(limit, sum(own.values()), own[stream], len(own), RANGE):
            own[stream] += RANGE
            assert sum(own.values()) <= limit
            assert own[stream] <= max(RANGE, limit // len(own))
        else:
            assert sum(own.values()) + RANGE > limit or own[stream] + RANGE > limit // len(own)
