"""Which objects are worth being made whole, and in which parts."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from zosfs.content.compaction import part_ranges, worth
from zosfs.content.plan import Limits
from zosfs.store.api import ObjectInfo

SECOND = 10**9
NOW = 1_800_000_000 * SECOND
COUNTS = st.integers(1, 20_000)
AGES = st.integers(-1000, 100_000)


def appended(count: int, age: int = 10_000, object_type: str = "Appendable", size: int = 10) -> ObjectInfo:
    """An object of *count* appends, the last of them *age* seconds ago."""
    etag = "0" * 32 + (f"-{count}" if count > 1 else "")
    return ObjectInfo("log", size, etag, NOW - age * SECOND, object_type=object_type)


@given(COUNTS, AGES, COUNTS)
def test_enough_appends_and_a_quiet_time(count: int, age: int, least: int) -> None:
    wait = worth(appended(count, age), NOW, least, 300)
    if count < least:
        assert wait is None
    else:
        assert wait == max(0, 300 - max(0, age))


@given(COUNTS, AGES)
def test_never_unless_it_is_asked_for(count: int, age: int) -> None:
    assert worth(appended(count, age), NOW, 0, 300) is None


@given(COUNTS, st.sampled_from(["Normal", ""]))
def test_never_what_does_not_grow_by_appends(count: int, object_type: str) -> None:
    assert worth(appended(count, object_type=object_type), NOW, 1, 300) is None
    assert worth(None, NOW, 1, 300) is None
    assert worth(appended(count, size=0), NOW, 1, 300) is None


@given(st.integers(1, 10**14), st.integers(1, 64), st.integers(1, 64), st.integers(1, 10_000))
def test_parts_cover_all_and_are_not_too_small(size: int, least: int, usual: int, most: int) -> None:
    limits = Limits(min_part=least << 20, copy_part=usual << 20, max_parts=most)
    ranges = part_ranges(size, limits)
    assert ranges[0][0] == 0
    assert ranges[-1][1] == size
    assert all(end == start for (_, end), (start, _) in pairwise(ranges))
    assert all(end - start >= limits.min_part for start, end in ranges[:-1])
    assert len(ranges) <= most
