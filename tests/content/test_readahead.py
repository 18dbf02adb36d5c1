"""Read-ahead decisions: kinds of readers by example, and what holds for any reader by properties."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zosfs.content.ranges import Ranges
from zosfs.content.readahead import FIRST, GRANULE, LARGEST, SHARE, STREAMS, WHOLE, Found, History, Way

KIB = 1 << 10
MIB = 1 << 20
MOST = 64 * MIB


class Fetcher:
    """Carries the advice out at once: what was asked for is here for later reads (or still coming, with *slow*)."""

    def __init__(self, size: int, most: int = MOST, *, slow: bool = False, around: int = 0) -> None:
        self.size = size
        self.history = History(size, most, around)
        self.there = Ranges()
        self.slow = slow
        self.fetched = 0
        self.requests = 0
        self.waits = 0

    def read(self, offset: int, size: int) -> None:
        end = min(offset + size, self.size)
        here = self.there.covers(offset, end)
        found = (Found.COMING if self.slow else Found.READY) if here else Found.ABSENT
        self.waits += found is Found.ABSENT
        advice = self.history.observe(offset, end - offset, found)
        low, high = advice.demand
        assert 0 <= low <= offset
        assert end <= high <= self.size
        gaps = [] if here else [(a, b) for a, b in self.there.missing(low, high) if a < end and b > offset]
        for start, stop in [*gaps, *advice.ahead]:
            assert 0 <= start < stop <= self.size
            assert stop - start <= max(LARGEST, size)
            for a, b in self.there.missing(start, stop):
                self.requests += 1
                self.fetched += b - a
            self.there.add(start, stop)
        assert sum(stream.window for stream in self.history.streams) <= MOST


def test_first_read_of_a_large_file_is_small() -> None:
    fetcher = Fetcher(1 << 30)
    fetcher.read(0, 16 * KIB)
    assert (fetcher.requests, fetcher.fetched) == (1, GRANULE)


def test_small_file_is_one_request() -> None:
    fetcher = Fetcher(WHOLE)
    for offset in range(0, WHOLE, 16 * KIB):
        fetcher.read(offset, 16 * KIB)
    assert (fetcher.requests, fetcher.fetched) == (1, WHOLE)


def test_a_look_at_the_first_lines_fetches_no_more() -> None:
    fetcher = Fetcher(1 << 30)
    for page in range(8):
        fetcher.read(page * 4096, 4096)
    assert fetcher.fetched == GRANULE


def test_sequential_reader_that_waits_gets_the_largest_window_soon() -> None:
    fetcher = Fetcher(1 << 30, slow=True)
    for at in range(48):
        fetcher.read(at * MIB, MIB)
    assert fetcher.history.streams[-1].window == MOST
    assert fetcher.waits <= 2


def test_sequential_reader_that_never_waits_keeps_its_small_window() -> None:
    fetcher = Fetcher(1 << 30)
    for at in range(100):
        fetcher.read(at * MIB, MIB)
    assert fetcher.history.streams[-1].window <= 2 * FIRST
    assert fetcher.fetched <= 100 * MIB + 3 * FIRST


def test_every_byte_of_a_sequential_read_is_fetched_once() -> None:
    size = 300 * MIB + 12345
    fetcher = Fetcher(size, slow=True)
    at = 0
    while at < size:
        fetcher.read(at, 128 * KIB)
        at += 128 * KIB
    assert fetcher.fetched == size
    assert fetcher.requests <= size // LARGEST + 25


def test_requests_out_of_order_are_one_stream() -> None:
    order = list(range(60))
    rng = random.Random(1)
    for at in range(4, 56, 4):
        part = order[at : at + 4]
        rng.shuffle(part)
        order[at : at + 4] = part
    fetcher = Fetcher(1 << 30, slow=True)
    for at in order:
        fetcher.read(at * MIB, MIB)
    assert len(fetcher.history.streams) == 1
    assert fetcher.waits <= 3


def test_random_small_reads_cost_what_they_ask() -> None:
    rng = random.Random(2)
    fetcher = Fetcher(8 << 30)
    for _ in range(500):
        fetcher.read(rng.randrange(1, (8 << 30) // 4096 - 64) * 4096, 4096)
    assert fetcher.fetched == 500 * 4096


def test_random_reads_bring_what_lies_around_them_if_asked_to() -> None:
    rng = random.Random(2)
    fetcher = Fetcher(256 * MIB, around=4 * MIB)
    for _ in range(500):
        fetcher.read(rng.randrange(1, 256 * MIB // 4096 - 1) * 4096, 4096)
    assert fetcher.waits <= 256 // 4 + 2
    assert fetcher.fetched <= 256 * MIB
    assert fetcher.requests <= 2 * (256 // 4) + 2


def test_dense_random_reads_have_the_rest_of_a_small_file_fetched() -> None:
    dice = random.Random(3)
    fetcher = Fetcher(32 * MIB)
    for _ in range(400):
        fetcher.read(dice.randrange(1, 32 * MIB // 4096) * 4096, 4096)
    assert fetcher.waits <= 40
    assert fetcher.requests <= 100
    assert fetcher.fetched == 32 * MIB


def test_what_was_refused_of_the_rest_is_advised_again() -> None:
    dice = random.Random(3)
    history = History(32 * MIB, MOST)
    advice = history.observe(MIB, 4096, Found.ABSENT)
    while not advice.ahead:
        advice = history.observe(dice.randrange(1, 32 * MIB // 4096) * 4096, 4096, Found.ABSENT)
    assert advice.ahead == tuple((at, at + LARGEST) for at in range(0, 32 * MIB, LARGEST))
    assert advice.stream is not None
    for span in reversed(advice.ahead[1:]):
        advice.stream.refuse(span)
    assert history.observe(20 * MIB + 12288, 4096, Found.READY).ahead == (), "who need not wait has nothing fetched"
    assert history.observe(20 * MIB + 81920, 4096, Found.ABSENT).ahead == advice.ahead[1:]
    assert history.observe(28 * MIB + 12288, 4096, Found.ABSENT).ahead == ()


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 100 * MIB), st.lists(st.integers(0, 1 << 30), min_size=1, max_size=200), st.integers(0, 64))
def test_random_reads_never_cost_more_than_some_granules_each(size: int, places: list[int], alike: int) -> None:
    fetcher = Fetcher(size)
    touched: set[int] = set()
    for number, place in enumerate(places):
        at = (place * 7919 + alike * number * number * 31) % max(1, size // 4096) * 4096
        touched.add(at // GRANULE)
        fetcher.read(at, min(4096, size - at))
    streams = len(fetcher.history.streams) * FIRST
    assert fetcher.fetched <= max(WHOLE, SHARE * GRANULE * len(touched)) + GRANULE * len(touched) + streams + 2 * GRANULE


def test_two_neighbours_are_worth_little() -> None:
    fetcher = Fetcher(1 << 30)
    fetcher.read(100 * MIB, 4096)
    fetcher.read(100 * MIB + 4096, 4096)
    assert fetcher.fetched <= 2 * GRANULE + 8192


def test_a_busy_granule_is_fetched_whole() -> None:
    fetcher = Fetcher(1 << 30)
    for page in (3, 19, 7, 29, 11, 23, 1):
        fetcher.read(100 * MIB + page * 4096, 4096)
    for page in (5, 28, 13, 31, 2, 17, 8):
        fetcher.read(100 * MIB + page * 4096, 4096)
    assert fetcher.requests <= 5
    assert fetcher.fetched == GRANULE


def test_backward_reader_is_read_ahead_of() -> None:
    fetcher = Fetcher(1 << 30, slow=True)
    at = 600 * MIB
    for _ in range(400):
        at -= 128 * KIB
        fetcher.read(at, 128 * KIB)
    assert fetcher.history.streams[-1].way is Way.BACKWARD
    assert fetcher.waits <= 3


def test_strided_reader_is_read_ahead_of_without_the_holes() -> None:
    fetcher = Fetcher(1 << 40, slow=True)
    for at in range(1, 200):
        fetcher.read(at * 10 * MIB, 64 * KIB)
    assert fetcher.history.streams[-1].way is Way.STRIDED
    assert fetcher.waits <= 4
    assert fetcher.fetched <= (200 + 32) * 64 * KIB


def test_small_strides_are_joined_to_few_requests() -> None:
    fetcher = Fetcher(1 << 30, slow=True)
    for at in range(1, 2000):
        fetcher.read(100 * MIB + at * 32 * KIB, 4096)
    assert fetcher.requests < 200
    assert fetcher.waits <= 4


def test_strides_backward_are_read_ahead_of_as_far_as_those_forward() -> None:
    requests = []
    for way in (1, -1):
        history = History(1 << 30, MOST)
        ahead = [len(history.observe(512 * MIB + way * at * MIB, 4 * KIB, Found.COMING).ahead) for at in range(100)]
        requests.append(max(ahead))
        assert sum(ahead) >= 95
    assert requests[0] == requests[1]


@pytest.mark.parametrize("way", [1, -1])
@pytest.mark.parametrize("step", [256 * KIB, MIB, 3 * MIB])
def test_who_skims_after_a_sequential_start_does_not_have_all_fetched(step: int, way: int) -> None:
    fetcher = Fetcher(1 << 30, slow=True)
    at = 512 * MIB
    for _ in range(256):
        fetcher.read(at, 128 * KIB)
        at += way * 128 * KIB
    before, waits = fetcher.fetched, fetcher.waits
    for _ in range(100):
        at += way * step
        fetcher.read(at, 4 * KIB)
    assert fetcher.fetched - before <= MOST + 16 * MIB, "what the window held, and little more"
    assert fetcher.waits - waits <= 40


def test_holes_now_and_then_do_not_end_a_stream() -> None:
    fetcher = Fetcher(1 << 30, slow=True)
    at = 0
    for n in range(1000):
        fetcher.read(at, 128 * KIB)
        at += 128 * KIB + (n % 10 == 9) * 512 * KIB
    assert len(fetcher.history.streams) == 1
    assert fetcher.waits <= 3


def test_interleaved_streams_are_told_apart() -> None:
    fetcher = Fetcher(8 << 30, slow=True)
    for at in range(64):
        for stream in range(8):
            fetcher.read((stream << 30) + at * MIB, MIB)
    assert fetcher.waits <= 8 * 2
    assert len(fetcher.history.streams) == 8


def test_many_interleaved_streams_are_told_apart() -> None:
    dice = random.Random(4)
    places = [dice.randrange(1 << 30) * 8 for _ in range(48)]
    fetcher = Fetcher(9 << 30, slow=True)
    for at in range(64):
        for place in places:
            fetcher.read(place + at * 128 * KIB, 128 * KIB)
    assert fetcher.waits <= 48 * 2


def test_full_speed_soon_after_a_seek() -> None:
    fetcher = Fetcher(8 << 30, slow=True)
    for at in range(64):
        fetcher.read(at * MIB, MIB)
    for at in range(20):
        fetcher.read((4 << 30) + at * MIB, MIB)
    assert fetcher.history.streams[-1].window >= MOST // 4


def test_a_stream_that_was_left_is_forgotten() -> None:
    history = History(8 << 30, MOST)
    for at in range(32):
        history.observe(at * MIB, MIB, Found.COMING)
    forgotten = []
    for at in range(40):
        forgotten += history.observe((4 << 30) + at * MIB, MIB, Found.COMING).forget
    assert forgotten
    assert all(end <= 200 * MIB for _, end in forgotten)


def test_refused_spans_are_advised_again() -> None:
    for step in (MIB, -MIB):
        history = History(1 << 30, MOST)
        at = 512 * MIB
        history.observe(at, MIB, Found.ABSENT)
        advice = history.observe(at + step, MIB, Found.ABSENT)
        assert advice.ahead
        assert advice.stream is not None
        for span in reversed(advice.ahead):
            advice.stream.refuse(span)
        again = history.observe(at + 2 * step, MIB, Found.ABSENT)
        assert again.ahead


def test_the_end_of_a_file_comes_at_once() -> None:
    size = (1 << 30) + 777
    fetcher = Fetcher(size)
    fetcher.read(size - 22, 22)
    fetcher.read(size - 20000, 8000)
    assert fetcher.requests == 1


reads = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 300), st.sampled_from(list(Found))), min_size=1, max_size=80)


@settings(max_examples=300, deadline=None)
@given(reads, st.integers(1, 300 * 37), st.sampled_from([0, MIB, MOST]), st.sampled_from([0, 0, 1000, 3 * MIB, 20 * MIB]))
def test_any_reads_get_sane_advice(trace: list[tuple[int, int, Found]], units: int, most: int, around: int) -> None:
    unit = 27011
    size = units * unit // 37
    history = History(max(size, 1), most, around)
    for at, length, found in trace:
        offset = min(at * unit, history.size - 1)
        end = min(offset + length * unit, history.size)
        advice = history.observe(offset, end - offset, found)
        low, high = advice.demand
        assert 0 <= low <= offset < end <= high <= history.size
        assert high - low <= max(end - offset + GRANULE, WHOLE, min(LARGEST, around) + end - offset)
        seen = Ranges()
        for start, stop in advice.ahead:
            assert 0 <= start < stop <= history.size
            assert stop - start <= max(LARGEST, end - offset)
            assert not seen.overlaps(start, stop)
            seen.add(start, stop)
        assert seen.total <= max(most + LARGEST + (end - offset), around)
        assert all(start < stop for start, stop in advice.forget)
        assert len(history.streams) <= STREAMS + 1


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 200 * MIB), st.integers(4096, 2 * MIB), st.booleans(), st.sampled_from([MIB, 8 * MIB, MOST]))
def test_any_sequential_read_fetches_each_byte_once(size: int, step: int, slow: bool, most: int) -> None:
    fetcher = Fetcher(size, most, slow=slow)
    for at in range(0, size, max(step, size // 300)):
        fetcher.read(at, max(step, size // 300))
    assert fetcher.fetched == size
