"""Ranges against the plainest model there is: a Python set of integers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from zosfs.content.ranges import Ranges

SPAN = 60
edges = st.tuples(st.integers(0, SPAN), st.integers(0, SPAN))
edits = st.lists(st.tuples(st.sampled_from(["add", "remove", "truncate"]), edges), max_size=25)


def build(steps: list[tuple[str, tuple[int, int]]]) -> tuple[Ranges, set[int]]:
    ranges, model = Ranges(), set[int]()
    for verb, (start, end) in steps:
        if verb == "add":
            ranges.add(start, end)
            model |= set(range(start, end))
        elif verb == "remove":
            ranges.remove(start, end)
            model -= set(range(start, end))
        else:
            ranges.truncate(start)
            model = {position for position in model if position < start}
    return ranges, model


def positions(pieces: list[tuple[int, int]]) -> set[int]:
    return {position for start, end in pieces for position in range(start, end)}


@given(edits)
def test_edits_agree_with_a_set(steps: list[tuple[str, tuple[int, int]]]) -> None:
    ranges, model = build(steps)
    pieces = list(ranges)
    assert positions(pieces) == model
    assert ranges.total == len(model)
    assert bool(ranges) == bool(model)
    assert ranges.end == (max(model) + 1 if model else 0)
    assert ranges.start == (min(model) if model else 0)
    assert all(start < end for start, end in pieces)
    assert all(before[1] < after[0] for before, after in pairwise(pieces))


@given(edits, edges)
def test_questions_agree_with_a_set(steps: list[tuple[str, tuple[int, int]]], asked: tuple[int, int]) -> None:
    ranges, model = build(steps)
    start, end = asked
    wanted = set(range(start, end))
    assert ranges.covers(start, end) == (wanted <= model)
    assert ranges.overlaps(start, end) == bool(wanted & model)
    assert positions(ranges.missing(start, end)) == wanted - model
    assert positions(ranges.within(start, end)) == wanted & model
    assert sum(b - a for a, b in ranges.missing(start, end)) == len(wanted - model)


@given(edits, edits)
def test_two_sets(first: list[tuple[str, tuple[int, int]]], second: list[tuple[str, tuple[int, int]]]) -> None:
    (left, left_model), (right, right_model) = build(first), build(second)
    assert positions(list(left.union(right))) == left_model | right_model
    assert positions(list(left)) == left_model
    assert (left == right) == (left_model == right_model)


@given(edits)
def test_copies_and_lists(steps: list[tuple[str, tuple[int, int]]]) -> None:
    ranges, model = build(steps)
    twin = ranges.copy()
    assert Ranges.from_list(ranges.to_list()) == twin == ranges
    twin.add(0, SPAN + 5)
    assert positions(list(ranges)) == model
    twin.clear()
    assert not twin
    assert twin.total == 0
