"""Deliveries: the right bytes, conflicts found, lost answers recognised, uploads continued or aborted; faults in memory."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.content.memory_bucket import CUT, LOST, MemoryBucket
from zosfs.content.delivery import Assumed, Means, Outgoing, deliver
from zosfs.content.finishing import correct_headers
from zosfs.content.memory import MemoryBudget
from zosfs.content.multipart import UploadRecord
from zosfs.content.parallel import in_parallel
from zosfs.content.plan import Append, Base, Limits, Multipart, Nothing, Put, only_grown, plan
from zosfs.content.ranges import Ranges
from zosfs.counters import Counters
from zosfs.errors import StoreError
from zosfs.store.api import Abilities, Body, ObjectHeaders, ObjectInfo, Store

SMALL = Limits(
    min_part=5, max_part=40, max_parts=60, max_put=1000, copy_part=16, part_size=10, multipart_threshold=24, max_object=2400
)
PLAIN = ObjectHeaders({"mode": "33188", "mtime": "1.5"}, "text/plain")


class Staged:
    """A staged file in memory that notices what was not fetched, and what is changed while lent."""

    def __init__(self, bucket: MemoryBucket, base: Base | None, data: bytes, dirty: Ranges) -> None:
        self.bucket, self.base = bucket, base
        self.data = bytearray(data)
        self.have = dirty.copy()
        kept = base.size if base else 0
        self.have.add(kept, len(data))
        for start, end in self.have.missing(0, len(data)):
            self.data[start:end] = b"?" * (end - start)
        self.lent = 0

    def lend(self, start: int, end: int) -> Body:
        assert self.have.covers(start, end)
        self.lent += 1
        return [bytes(self.data[start:end])]

    def give_back(self, start: int, end: int) -> None:
        self.lent -= 1

    async def fetch(self, start: int, end: int) -> None:
        assert self.base is not None
        assert not self.have.overlaps(start, end), "fetched twice"
        into = memoryview(bytearray(end - start))
        await self.bucket.get_range(self.base.key, start, into, if_match=self.base.etag)
        self.data[start:end] = into
        self.have.add(start, end)


class Case:
    """A bucket, an object in it, and a changed file."""

    def __init__(self, old: bytes | None, writes: list[tuple[int, bytes]], *, append_made: bool = False) -> None:
        self.bucket = MemoryBucket()
        self.limits = SMALL
        self.base: Base | None = None
        if old is not None:
            self.base = Base.of(self.bucket.add("k", old) if append_made else self.bucket.set("k", old))
        self.data = bytearray(old or b"")
        self.dirty = Ranges()
        for at, data in writes:
            self.data[at : at + len(data)] = data
            self.dirty.add(at, at + len(data))
        self.source = Staged(self.bucket, self.base, bytes(self.data), self.dirty)

    def plan(self, *, appending: bool = False) -> Any:
        return plan(
            self.base, self.dirty, len(self.data), self.limits, self.bucket.abilities, appending=appending, present=self.source.have
        )

    async def deliver(
        self, *, appending: bool = False, doubtful: bool = False, headers: ObjectHeaders = PLAIN, **more: Any
    ) -> ObjectInfo | None:
        size = len(self.data)
        tail = only_grown(self.base, self.dirty, size, self.base.size if self.base else 0) if appending else None
        means = Means(cast(Store, self.bucket), self.limits, 3, MemoryBudget(1 << 20, Counters()))
        outgoing = Outgoing("k", size, self.source, headers)
        try:
            return await deliver(means, self.plan(appending=appending), outgoing, Assumed(self.base, tail, doubtful), **more)
        finally:
            assert self.source.lent == 0

    @property
    def stored(self) -> bytes:
        return self.bucket.things["k"].data


def run(main: Callable[[], Any]) -> None:
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@contextmanager
def suppress_ambiguous() -> Iterator[None]:
    """A failure after which another try is due; others pass."""
    try:
        yield
    except StoreError as exc:
        if not exc.ambiguous:
            raise


def letters(size: int) -> bytes:
    return bytes(97 + at % 26 for at in range(size))


EDIT = [(50, b"EDIT")]

olds = st.one_of(st.none(), st.integers(0, 200).map(letters))
writes = st.lists(st.tuples(st.integers(0, 199), st.binary(min_size=1, max_size=30)), max_size=4)
faults = st.dictionaries(
    st.sampled_from(["put", "append", "complete_upload"]), st.lists(st.sampled_from([LOST, CUT]), min_size=1, max_size=2)
)


@settings(max_examples=250, deadline=None)
@given(olds, writes, st.booleans(), faults)
def test_after_failures_a_second_try_has_the_reference_bytes_once(
    old: bytes | None, changes: list[tuple[int, bytes]], append_made: bool, broken: dict[str, list[str | StoreError | None]]
) -> None:
    async def main() -> None:
        changes_in = [(min(at, len(old or b"")), data) for at, data in changes]
        case = Case(old, changes_in, append_made=append_made)
        if isinstance(case.plan(), Nothing):
            assert await case.deliver() is None
            return
        case.bucket.faults = {verb: list(them) for verb, them in broken.items()}
        info = None
        for attempt in range(4):
            with suppress_ambiguous():
                info = await case.deliver(doubtful=attempt > 0)
                break
        assert info is not None
        assert case.stored == bytes(case.data)
        assert (info.etag, info.size) == (case.bucket.info("k").etag, len(case.data))
        assert not case.bucket.uploads
        assert case.bucket.things["k"].headers.metadata == PLAIN.metadata

    run(main)


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize(
    ("old", "changes"),
    [(None, [(0, b"new")]), (letters(9), [(0, b"X")]), (letters(100), EDIT), (None, [(0, letters(100))])],
)
def test_anothers_change_is_a_conflict(old: bytes | None, changes: list[tuple[int, bytes]], conditional: bool) -> None:
    async def main() -> None:
        case = Case(old, changes)
        if not conditional:
            case.bucket.abilities = Abilities()
        case.bucket.set("k", b"theirs")
        with pytest.raises(StoreError) as caught:
            await case.deliver()
        assert caught.value.errno == errno.ESTALE
        assert case.stored == b"theirs"
        assert not case.bucket.uploads

    run(main)


def test_a_change_in_the_last_moment_is_caught_by_the_condition() -> None:
    async def main() -> None:
        case = Case(letters(4), [(0, b"X")])
        assert isinstance(case.plan(), Put)
        case.bucket.between["put"] = lambda: case.bucket.set("k", b"theirs")
        with pytest.raises(StoreError) as caught:
            await case.deliver()
        assert caught.value.errno == errno.ESTALE
        assert case.stored == b"theirs"
        case = Case(letters(4), [(0, b"X")])
        assert isinstance(case.plan(), Put)
        case.bucket.between["put"] = lambda: case.bucket.things.clear()
        with pytest.raises(StoreError) as caught:
            await case.deliver()
        assert caught.value.errno == errno.ESTALE

    run(main)


def test_a_vanished_base_is_a_conflict() -> None:
    async def main() -> None:
        case = Case(letters(100), EDIT)
        del case.bucket.things["k"]
        with pytest.raises(StoreError) as caught:
            await case.deliver()
        assert caught.value.errno in (errno.ESTALE, errno.ENOENT)
        assert not case.bucket.uploads

    run(main)


def test_an_upload_is_continued() -> None:
    async def main() -> None:
        case = Case(letters(100), EDIT)
        records: list[dict[str, Any]] = []

        async def on_part(record: UploadRecord) -> None:
            records.append(record.to_json())

        case.bucket.faults["upload_part"] = [CUT]
        with pytest.raises(StoreError):
            await case.deliver(on_part=on_part)
        assert len(case.bucket.uploads) == 1
        before = len(case.bucket.calls)
        up = len(records[-1]["parts"])
        info = await case.deliver(on_part=on_part, resume=UploadRecord.from_json(records[-1]))
        again = case.bucket.calls[before:]
        assert "create_upload" not in again
        parts = cast(Multipart, case.plan()).parts
        assert again.count("upload_part_copy") + again.count("upload_part") == len(parts) - up
        assert up > 0
        assert case.stored == bytes(case.data)
        assert info is not None
        assert info.etag == case.bucket.info("k").etag
        # completed without anybody hearing of it
        done = await case.deliver(on_part=on_part, resume=UploadRecord.from_json(records[-1]))
        assert done is not None
        assert done.etag == info.etag

    run(main)


def test_an_upload_of_another_shape_is_not_continued() -> None:
    async def main() -> None:
        case = Case(letters(100), EDIT)
        upload = await case.bucket.create_upload("k", PLAIN)
        await case.bucket.upload_part("k", upload, 9, [b"stale"])
        await case.deliver(resume=UploadRecord(upload, "other"))
        assert case.stored == bytes(case.data)
        assert not case.bucket.uploads

    run(main)


def test_refused_for_good_leaves_no_upload() -> None:
    async def main() -> None:
        case = Case(letters(100), EDIT)
        case.bucket.faults["upload_part"] = [StoreError("QuotaExceeded", status=403)]
        with pytest.raises(StoreError) as caught:
            await case.deliver()
        assert caught.value.code == "QuotaExceeded"
        assert not case.bucket.uploads

    run(main)


def test_cancelled_leaves_no_upload() -> None:
    async def main() -> None:
        case = Case(letters(100), EDIT)
        with trio.CancelScope() as scope:
            case.bucket.between["upload_part"] = scope.cancel
            case.bucket.between["upload_part_copy"] = scope.cancel
            await case.deliver()
        assert scope.cancelled_caught
        assert not case.bucket.uploads
        assert case.stored == letters(100)

    run(main)


def test_tags_come_after_an_upload() -> None:
    async def main() -> None:
        case = Case(letters(100), EDIT)
        await case.deliver(headers=replace(PLAIN, tags={"a": "b"}))
        assert case.bucket.tags["k"] == {"a": "b"}

    run(main)


@pytest.mark.parametrize("size", [3, 60])
@pytest.mark.parametrize("append_made", [True, False])
def test_an_appending_file_goes_to_the_end_of_whatever_is_there(size: int, append_made: bool) -> None:
    async def main() -> None:
        old = letters(size)
        for theirs in (b"theirs", None):
            case = Case(old, [(size, b"ours")], append_made=append_made)
            assert isinstance(case.plan(appending=True), Append) == append_made
            if theirs and append_made:
                case.bucket.add("k", theirs)
            elif theirs:
                case.bucket.set("k", old + theirs)
            info = await case.deliver(appending=True)
            assert info is not None
            assert case.stored == old + (theirs or b"") + b"ours"
            assert info.size == len(case.stored)
            # replaced by a normal object meanwhile
            case = Case(old, [(size, b"ours")], append_made=append_made)
            case.bucket.set("k", b"another")
            await case.deliver(appending=True)
            assert case.stored == b"anotherours"
            # or gone
            case = Case(old, [(size, b"ours")], append_made=append_made)
            del case.bucket.things["k"]
            await case.deliver(appending=True)
            assert case.stored == b"ours"

    run(main)


def test_two_appending_writers_of_a_normal_object_both_keep_their_lines() -> None:
    async def main() -> None:
        bucket = MemoryBucket()
        bucket.set("k", b"")

        async def writer(name: bytes) -> None:
            for number in range(10):
                base = Base.of(await bucket.head("k"))
                case = Case(None, [])
                case.bucket, case.base = bucket, base
                # small enough for PUTs, whose condition leaves no window
                case.limits = Limits()
                line = b"%s%d\n" % (name, number)
                case.data = bytearray(base.size) + bytearray(line)
                case.dirty = Ranges([(base.size, base.size + len(line))])
                case.source = Staged(bucket, base, bytes(case.data), case.dirty)
                await case.deliver(appending=True)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer, b"a")
            nursery.start_soon(writer, b"b")
        lines = bucket.things["k"].data.splitlines()
        assert sorted(lines) == sorted(b"%s%d" % (name, n) for name in (b"a", b"b") for n in range(10))

    run(main)


def test_an_object_that_takes_no_appends_is_rewritten_without_a_conflict() -> None:
    async def main() -> None:
        case = Case(letters(60), [(60, b"ours")], append_made=True)
        thing = case.bucket.things["k"]
        steps = case.plan()
        assert isinstance(steps, Append)
        case.bucket.things["k"] = replace(thing, kind="Normal")
        await case.deliver()
        assert case.stored == letters(60) + b"ours"

    run(main)


def test_headers_are_corrected_where_it_is_worth_it() -> None:
    async def main() -> None:
        bucket = MemoryBucket()
        bucket.set("k", b"x")
        store = cast(Store, bucket)
        info = replace(bucket.info("k"), metadata={"mode": "1", "mtime": "1"})
        later = ObjectHeaders({"mode": "1", "mtime": "2"})
        assert (await correct_headers(store, info, later)).metadata == later.metadata
        large = replace(info, size=6 << 30)
        assert await correct_headers(store, large, later) is large
        assert (await correct_headers(store, large, ObjectHeaders({"mode": "2"}))).metadata == {"mode": "2"}
        bucket.abilities.versioned = True
        assert await correct_headers(store, info, later) is info

    run(main)


def test_in_parallel_keeps_order_and_raises_the_first_failure_as_it_is() -> None:
    async def main() -> None:
        running = most = 0

        async def job(n: int) -> int:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await trio.sleep(abs(5 - n))
            running -= 1
            if n == 9:
                raise OSError(errno.ENOSPC, "full")
            return n

        assert await in_parallel([lambda n=n: job(n) for n in range(5)], 2) == [0, 1, 2, 3, 4]  # type: ignore[misc]
        assert most == 2
        with pytest.raises(OSError, match="full"):
            await in_parallel([lambda n=n: job(n) for n in (0, 9)], 2)  # type: ignore[misc]

    run(main)
