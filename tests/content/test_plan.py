"""Flush plans: whatever was written, the steps make exactly the reference file, within the server's limits and few bytes.

The properties run with a smallest part of 5 bytes instead of 5 MiB, so that real byte strings can be compared.
"""

from __future__ import annotations

import errno
import random
from dataclasses import replace
from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zosfs.content.plan import (
    GIB,
    MIB,
    Append,
    Base,
    CopyRange,
    Limits,
    Multipart,
    Nothing,
    Plan,
    Put,
    UploadRange,
    part_bounds,
    part_size_for,
    plan,
)
from zosfs.content.ranges import Ranges
from zosfs.errors import StoreError
from zosfs.store.api import Abilities, ObjectInfo

SMALL = Limits(
    min_part=5, max_part=40, max_parts=60, max_put=1000, copy_part=16, part_size=10, multipart_threshold=24, max_object=2400
)
APPENDS = Abilities(append=True)
NONE = Abilities()


class Written:
    """A file as a writer leaves it, beside the reference bytes."""

    def __init__(self, base: bytes | None, edits: list[tuple[str, int, int]], appendable: bool) -> None:
        self.old = base or b""
        self.base = None if base is None else Base("k", len(base), "e", appendable)
        self.bytes = bytearray(self.old)
        self.dirty = Ranges()
        fresh = random.Random(len(edits))
        for verb, at, length in edits:
            if verb == "write":
                self.grow(max(len(self.bytes), at))
                self.bytes[at : at + length] = fresh.randbytes(length)
                self.dirty.add(at, at + length)
            elif verb == "append":
                at = len(self.bytes)
                self.bytes += fresh.randbytes(length)
                self.dirty.add(at, at + length)
            elif at < len(self.bytes):
                del self.bytes[at:]
                self.dirty.truncate(at)
            else:
                self.grow(at)

    def grow(self, size: int) -> None:
        before = len(self.bytes)
        self.bytes += bytes(size - before) if size > before else b""
        self.dirty.add(before, min(size, len(self.old)))

    def staged(self, downloads: tuple[tuple[int, int], ...], present: Ranges) -> list[int | None]:
        """The staged file's bytes: None where nothing was written, downloaded or past the base (holes read as zero there)."""
        have = self.dirty.union(present)
        for start, end in downloads:
            assert not have.overlaps(start, end), "read twice"
            assert end <= len(self.old)
            have.add(start, end)
        have.add(len(self.old), len(self.bytes))
        return [byte if have.covers(at, at + 1) else None for at, byte in enumerate(self.bytes)]

    def result(self, steps: Plan, present: Ranges) -> list[int | None]:
        """What the store has after *steps*."""
        match steps:
            case Nothing():
                return list(self.old)
            case Put(size, downloads):
                assert size == len(self.bytes)
                return self.staged(downloads, present)
            case Append(position, start, end):
                assert position == len(self.old)
                return [*self.old, *self.staged((), present)[start:end]]
            case Multipart(parts, downloads):
                staged = self.staged(downloads, present)
                made: list[int | None] = []
                for part in parts:
                    source: list[int | None] = list(self.old) if isinstance(part, CopyRange) else staged
                    assert part.end <= len(source)
                    made += source[part.start : part.end]
                return made


edits = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 250), st.integers(1, 20)),
        st.tuples(st.just("append"), st.just(0), st.integers(1, 20)),
        st.tuples(st.just("truncate"), st.integers(0, 250), st.just(0)),
    ),
    max_size=12,
)
bases = st.one_of(st.none(), st.integers(0, 250).map(lambda size: random.Random(size).randbytes(size)))
spots = st.lists(st.tuples(st.integers(0, 250), st.integers(0, 250)), max_size=3).map(Ranges)


@settings(max_examples=600)
@given(bases, edits, st.booleans(), st.booleans(), st.sampled_from([APPENDS, NONE]), spots)
def test_the_steps_make_the_reference_file(
    base: bytes | None,
    steps: list[tuple[str, int, int]],
    appendable: bool,
    appending: bool,
    abilities: Abilities,
    present: Ranges,
) -> None:
    file = Written(base, steps, appendable)
    present.truncate(len(file.old))
    size = len(file.bytes)
    made = plan(file.base, file.dirty, size, SMALL, abilities, appending=appending, present=present)
    assert file.result(made, present) == list(file.bytes)
    check_limits(made, SMALL, file.old)
    check_wire(made, file.dirty, len(file.old), size, SMALL)


def check_limits(made: Plan, limits: Limits, old: bytes) -> None:
    if isinstance(made, Put):
        assert made.size <= limits.max_put
    if isinstance(made, Append):
        assert made.end - made.start <= limits.max_put
    if isinstance(made, Multipart):
        assert 1 <= len(made.parts) <= limits.max_parts
        assert all(part.end - part.start >= limits.min_part for part in made.parts[:-1])
        assert all(1 <= part.end - part.start <= limits.max_part for part in made.parts)
        assert made.parts[0].start == 0
        assert all(before.end == after.start for before, after in pairwise(made.parts))


def check_wire(made: Plan, dirty: Ranges, old: int, size: int, limits: Limits) -> None:
    runs = dirty.copy()
    runs.truncate(size)
    runs.add(min(old, size), size)
    assert made.wire <= runs.total + 2 * limits.min_part * len(runs) + limits.min_part


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 400).map(lambda n: n * GIB // 7),
    st.lists(st.tuples(st.integers(0, 400 * GIB // 7), st.integers(1, 80 * MIB)), max_size=30),
)
def test_real_sizes(old: int, writes: list[tuple[int, int]]) -> None:
    dirty = Ranges((at, at + length) for at, length in writes)
    size = max(old, dirty.end)
    limits = Limits()
    made = plan(Base("k", old, "e"), dirty, size, limits, NONE, appending=False)
    if isinstance(made, Multipart):
        check_limits(made, limits, b"")
        assert made.parts[-1].end == size
    check_wire(made, dirty, old, size, limits)


def best_by_trying(dirty: Ranges, old: int, size: int, smallest: int) -> int:
    """The fewest clean bytes that must be uploaded, by trying every set of copied bytes (one letter per byte)."""
    best = size
    for marks in product("uc", repeat=size):
        if any(mark == "c" and (at >= old or dirty.covers(at, at + 1)) for at, mark in enumerate(marks)):
            continue
        text = "".join(marks)
        runs = text.replace("uc", "u c").replace("cu", "c u").split()
        if all(len(run) >= smallest for run in runs[:-1]):
            best = min(best, sum(not dirty.covers(at, at + 1) and at < old for at, mark in enumerate(text) if mark == "u"))
    return best


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 12), st.lists(st.tuples(st.integers(0, 11), st.integers(1, 2)), min_size=1, max_size=4))
def test_no_choice_of_copies_is_cheaper(old: int, writes: list[tuple[int, int]]) -> None:
    limits = replace(SMALL, min_part=3, part_size=3, copy_part=40, multipart_threshold=0, max_put=0)
    dirty = Ranges((at, at + length) for at, length in writes)
    size = max(old, dirty.end)
    made = plan(Base("k", old, "e"), dirty, size, limits, NONE, appending=False)
    assert isinstance(made, Multipart)
    assert sum(end - start for start, end in made.downloads) == best_by_trying(dirty, old, size, limits.min_part)


def test_a_mebibyte_inside_ten_gibibytes() -> None:
    made = plan(
        Base("k", 10 * GIB, "e"), Ranges([(5 * GIB, 5 * GIB + MIB)]), 10 * GIB, Limits(), APPENDS, appending=False
    )
    assert isinstance(made, Multipart)
    assert made.wire <= 16 * MIB
    assert sum(isinstance(part, UploadRange) for part in made.parts) == 1


def test_a_tail_is_appended() -> None:
    base = Base("k", 5 * GIB, "e", appendable=True, next_position=5 * GIB)
    dirty = Ranges([(5 * GIB, 5 * GIB + 1024)])
    assert plan(base, dirty, dirty.end, Limits(), APPENDS, appending=True) == Append(5 * GIB, 5 * GIB, dirty.end)
    copied = plan(replace(base, appendable=False), dirty, dirty.end, Limits(), APPENDS, appending=True)
    assert isinstance(copied, Multipart)
    assert copied.wire == 1024
    rewritten = plan(base, Ranges([(0, 1), (5 * GIB, dirty.end)]), dirty.end, Limits(), APPENDS, appending=True)
    assert isinstance(rewritten, Multipart)


def test_new_files() -> None:
    limits = Limits()
    assert plan(None, Ranges([(0, 9)]), 9, limits, APPENDS, appending=True) == Append(0, 0, 9)
    assert plan(None, Ranges(), 0, limits, APPENDS, appending=True) == Append(0, 0, 0)
    assert plan(None, Ranges([(0, 9)]), 9, limits, NONE, appending=True) == Put(9)
    assert plan(None, Ranges(), 0, limits, NONE, appending=False) == Put(0)
    assert plan(None, Ranges([(0, 32 * MIB)]), 32 * MIB, limits, NONE, appending=False) == Put(32 * MIB)
    large = plan(None, Ranges([(0, GIB)]), GIB, limits, NONE, appending=False)
    assert isinstance(large, Multipart)
    assert len(large.parts) == 64


def test_unchanged_and_truncated() -> None:
    base = Base("k", GIB, "e")
    assert plan(base, Ranges(), GIB, Limits(), NONE, appending=False) == Nothing()
    shorter = plan(base, Ranges(), GIB - 5, Limits(), NONE, appending=False)
    assert isinstance(shorter, Multipart)
    assert shorter.wire == 0
    assert plan(base, Ranges(), 0, Limits(), NONE, appending=False) == Put(0)


def test_too_large() -> None:
    limits = Limits()
    with pytest.raises(StoreError) as caught:
        plan(None, Ranges(), limits.max_object + 1, limits, NONE, appending=False)
    assert caught.value.errno == errno.EFBIG
    most = plan(None, Ranges(), limits.max_object, limits, NONE, appending=False)
    check_limits(most, limits, b"")


def test_many_small_writes_fit_into_the_parts() -> None:
    limits = Limits()
    step = 20 * MIB
    dirty = Ranges((at * step, at * step + 1) for at in range(1, 12_000))
    made = plan(Base("k", 12_000 * step, "e"), dirty, 12_000 * step, limits, NONE, appending=False)
    check_limits(made, limits, b"")
    assert isinstance(made, Multipart)
    assert made.parts[-1].end == 12_000 * step


@pytest.mark.parametrize("part_size", [5 * MIB, 16 * MIB, 64 * MIB, GIB])
def test_the_schedule_reaches_five_tebibytes(part_size: int) -> None:
    limits = Limits(part_size=part_size)
    sizes = [part_size_for(number, limits) for number in range(1, limits.max_parts + 1)]
    assert sum(sizes) >= 5 << 40
    assert all(limits.min_part <= size <= limits.max_part for size in sizes)
    start = 0
    for number, size in enumerate(sizes, 1):
        if number % 97 == 1 or number % 800 < 2:
            assert part_bounds(number, limits) == (start, start + size)
        start += size


def test_base_of_a_head() -> None:
    info = ObjectInfo("k", 11, "e", 0, object_type="Appendable", headers={"x-rgw-next-append-position": "11"})
    assert Base.of(info) == Base("k", 11, "e", appendable=True, next_position=11)
    assert Base.of(replace(info, headers={}, object_type="Normal")).position == 11
