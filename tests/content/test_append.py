"""Appends exactly once, whatever happens to requests and whoever else appends; the judgement alone, then against Ceph's rules."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path
from typing import cast

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.content.memory_bucket import CUT, LOST, MemoryBucket
from tests.content.room import Bucket, new, room, run
from zosfs.content.append import AppendState, Sent, Verdict, append, judge, set_headers_by_empty_append
from zosfs.content.etags import body_bytes, chain_etag, slice_body
from zosfs.errors import StoreError
from zosfs.store.api import ObjectHeaders, ObjectInfo, PartInfo, Store, appends_of
from zosfs.store.digests import multipart_etag

PLAIN = ObjectHeaders()


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def as_store(bucket: MemoryBucket) -> Store:
    return cast(Store, bucket)


def test_etags() -> None:
    first = chain_etag("", md5(b"a"))
    assert first == md5(b"a")
    second = chain_etag(first, md5(b"b"))
    assert second == multipart_etag([PartInfo(1, md5(b"a"), 1), PartInfo(2, md5(b"b"), 1)])
    third = chain_etag(second, md5(b"c"))
    assert third != multipart_etag([PartInfo(n, md5(c), 1) for n, c in enumerate((b"a", b"b", b"c"), 1)])
    assert [appends_of(etag) for etag in ("", first, second, third)] == [0, 1, 2, 3]


@given(st.lists(st.binary(max_size=9), max_size=5), st.integers(0, 40), st.integers(0, 40))
def test_slices_of_bodies(pieces: list[bytes], start: int, end: int) -> None:
    assert body_bytes(slice_body(pieces, start, end)) == b"".join(pieces)[start:end]


def found(size: int, etag: str, kind: str = "Appendable") -> ObjectInfo:
    return ObjectInfo("k", size, etag, 0, object_type=kind)


BEFORE = AppendState(10, md5(b"x" * 10))
AFTER = BEFORE.after(3, md5(b"abc"))


@pytest.mark.parametrize(
    ("there", "code", "doubtful", "verdict"),
    [
        (found(13, AFTER.etag), "ConnectionFailed", True, Verdict.LANDED),
        (found(13, AFTER.etag), "PositionNotEqualToLength", False, Verdict.MOVED),
        (found(10, BEFORE.etag), "ConnectionFailed", True, Verdict.AGAIN),
        (found(10, BEFORE.etag), "BucketAlreadyExists", False, Verdict.WAIT),
        (found(10, "other"), "PositionNotEqualToLength", False, Verdict.MOVED),
        (found(20, "other"), "PositionNotEqualToLength", False, Verdict.MOVED),
        (found(20, "other"), "ConnectionFailed", True, Verdict.LOOK),
        (found(4, "other"), "ConnectionFailed", True, Verdict.MOVED),
        (found(10, BEFORE.etag, "Normal"), "ObjectNotAppendable", False, Verdict.NORMAL),
        (None, "ConnectionFailed", True, Verdict.GONE),
    ],
)
def test_judgement(there: ObjectInfo | None, code: str, doubtful: bool, verdict: Verdict) -> None:
    assert judge(BEFORE, 3, md5(b"abc"), there, code, doubtful=doubtful) is verdict


def test_creating_again() -> None:
    assert judge(AppendState(), 3, md5(b"abc"), None, "ConnectionFailed", doubtful=True) is Verdict.AGAIN


@given(
    st.lists(st.sampled_from([LOST, CUT, None]), max_size=6),
    st.lists(st.tuples(st.integers(0, 6), st.binary(min_size=1, max_size=4)), max_size=4),
)
def test_every_line_once_whatever_fails(faults: list[str | None], foreign: list[tuple[int, bytes]]) -> None:
    """Several lines appended while requests and answers get lost and another client appends before some of them."""

    async def main() -> None:
        bucket = MemoryBucket()
        bucket.add("log", b"begin\n")
        bucket.faults["append"] = list(faults)
        state = AppendState.of(bucket.info("log"))
        others = 0
        for number in range(4):
            for at, text in foreign:
                if at == number:
                    bucket.between["append"] = lambda text=text: bucket.add("log", b"<" + text.hex().encode() + b">\n")
                    others += 1
            # `between` holds one
            done = await append(as_store(bucket), "log", state, [b"line %d\n" % number], PLAIN, appending=True)
            state = done.state
        data = bucket.things["log"].data
        assert state == AppendState.of(bucket.info("log"))
        lines = data.splitlines()
        for number in range(4):
            assert lines.count(b"line %d" % number) == 1
        assert lines[0] == b"begin"

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_foreign_append_after_a_lost_answer() -> None:
    async def main() -> None:
        bucket = MemoryBucket()
        info = bucket.add("log", b"0\n")
        bucket.faults["append"] = [LOST]
        bucket.between["head"] = lambda: bucket.add("log", b"theirs\n")
        done = await append(as_store(bucket), "log", AppendState.of(info), [b"ours\n"], PLAIN, appending=True)
        assert bucket.things["log"].data == b"0\nours\ntheirs\n"
        assert done.foreign
        assert done.info.size == 14

    trio.run(main)


def log_of_others(others: list[str | None], there: bool) -> tuple[MemoryBucket, list[bytes]]:
    """A bucket with a log (if it is *there* already) and the lines that others append to it: each before the next request of the kind that
    *others* says, as soon as the one before was met."""
    bucket = MemoryBucket()
    left, theirs = list(others), [b"begin\n"] if there else []
    for line in theirs:
        bucket.add("log", line)

    def next_one() -> None:
        verb = left.pop(0) if left else None
        if verb is not None:
            bucket.between[verb] = add

    def add() -> None:
        if "log" in bucket.things:
            theirs.append(b"theirs %d\n" % len(theirs))
            bucket.add("log", theirs[-1])
        next_one()

    next_one()
    return bucket, theirs


@given(
    st.lists(st.sampled_from([None, LOST, CUT]), max_size=6),
    st.lists(st.sampled_from(["head", "get_range", "append", None]), max_size=8),
    st.booleans(),
)
def test_every_line_once_of_a_log_that_others_append_to_all_the_time(
    faults: list[str | None], others: list[str | None], there: bool
) -> None:
    async def main() -> None:
        bucket, theirs = log_of_others(others, there)
        bucket.faults["append"] = list(faults)
        state = AppendState.of(bucket.info("log")) if there else AppendState()
        for number in range(2):
            done = await append(as_store(bucket), "log", state, [b"line %d\n" % number], PLAIN, appending=True)
            state = done.state
            assert bucket.things["log"].data[: done.end].endswith(b"line %d\n" % number)
        lines = bucket.things["log"].data.splitlines(keepends=True)
        assert sorted(lines) == sorted([*theirs, b"line 0\n", b"line 1\n"])

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


FAULTS = st.lists(st.sampled_from([None, LOST, CUT]), max_size=6)


@given(FAULTS, FAULTS, FAULTS, st.lists(st.sampled_from(["head", "get_range", "append", None]), max_size=8), st.booleans())
def test_every_line_once_over_calls_that_fail_while_others_append(
    appends: list[str | None], heads: list[str | None], gets: list[str | None], others: list[str | None], there: bool
) -> None:
    """Each call that fails is followed by one with a line more, as the deliveries of a log are."""

    async def main() -> None:
        bucket, theirs = log_of_others(others, there)
        bucket.faults.update({"append": list(appends), "head": list(heads), "get_range": list(gets)})
        state, sent, doubtful = AppendState.of(bucket.info("log")) if there else AppendState(), Sent(), False
        ours = [b"line 0\n"]
        while True:
            try:
                done = await append(as_store(bucket), "log", state, ours, PLAIN, appending=True, doubtful=doubtful, sent=sent)
                break
            except StoreError:
                doubtful = True
                ours.append(b"line %d\n" % len(ours))
        data = bucket.things["log"].data
        assert data[: done.end].endswith(ours[-1])
        assert sorted(data.splitlines(keepends=True)) == sorted([*theirs, *ours])

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_doubtful_append_that_landed_is_not_repeated() -> None:
    async def main() -> None:
        bucket = MemoryBucket()
        state = AppendState.of(bucket.add("log", b"0\n"))
        bucket.add("log", b"ours\n")
        done = await append(as_store(bucket), "log", state, [b"ours\n"], PLAIN, appending=True, doubtful=True)
        assert bucket.things["log"].data == b"0\nours\n"
        assert done.info.size == 7
        # the file grew between the try that landed and this one
        done = await append(as_store(bucket), "log", state, [b"ours\nmore\n"], PLAIN, appending=True, doubtful=True)
        assert bucket.things["log"].data == b"0\nours\nmore\n"
        assert done.info.size == 12

    trio.run(main)


def test_without_o_append_a_changed_object_is_a_conflict() -> None:
    async def main() -> None:
        bucket = MemoryBucket()
        state = AppendState.of(bucket.add("log", b"0\n"))
        bucket.add("log", b"theirs\n")
        with pytest.raises(StoreError) as caught:
            await append(as_store(bucket), "log", state, [b"ours\n"], PLAIN, appending=False)
        assert caught.value.errno == errno.ESTALE
        bucket.set("log", b"normal")
        with pytest.raises(StoreError) as caught:
            await append(as_store(bucket), "log", state, [b"ours\n"], PLAIN, appending=True)
        assert caught.value.code == "ObjectNotAppendable"
        del bucket.things["log"]
        bucket.faults["append"] = [CUT]
        with pytest.raises(StoreError) as caught:
            await append(as_store(bucket), "log", state, [b"ours\n"], PLAIN, appending=True)
        assert caught.value.code == "Conflict"

    trio.run(main)


def test_a_wedged_object_is_left_to_a_rewrite_after_patience() -> None:
    async def main() -> None:
        bucket = MemoryBucket()
        state = AppendState.of(bucket.add("log", b"0\n"))
        bucket.faults["append"] = [StoreError("BucketAlreadyExists", status=409)] * 3
        await append(as_store(bucket), "log", state, [b"a\n"], PLAIN, appending=True)
        assert bucket.things["log"].data == b"0\na\n"
        state = AppendState.of(bucket.info("log"))
        bucket.faults["append"] = [StoreError("BucketAlreadyExists", status=409)] * 300
        began = trio.current_time()
        with pytest.raises(StoreError) as caught:
            await append(as_store(bucket), "log", state, [b"b\n"], PLAIN, appending=True)
        assert caught.value.code == "ObjectNotAppendable"
        assert 60 <= trio.current_time() - began <= 71

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_headers_by_an_empty_append() -> None:
    async def main() -> None:
        bucket = MemoryBucket()
        state = AppendState.of(bucket.add("log", b"0\n"))
        done = await set_headers_by_empty_append(as_store(bucket), "log", state, ObjectHeaders({"mode": "33188"}))
        assert done.info.metadata == {"mode": "33188"}
        assert done.state == AppendState.of(bucket.info("log"))
        assert bucket.info("log").appendable

    trio.run(main)


@pytest.mark.parametrize("there", [True, False], ids=["there", "new"])
@pytest.mark.parametrize("since", [b"", b"theirs since\n"], ids=["last", "in between"])
def test_a_line_whose_answer_is_lost_behind_anothers_is_not_repeated_by_the_next_try(
    there: bool, since: bytes, tmp_path: Path
) -> None:
    """The try that may have landed went behind what another host had appended first, and the server is away then."""

    async def main() -> None:
        bucket = Bucket()
        base = bucket.add("log", b"begin\n") if there else None
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "log", base, appending=True)
            await writer.write(0, b"ours\n", append=True)

            def first() -> None:
                bucket.add("log", b"theirs\n")
                bucket.faults["append"].insert(0, None)
                bucket.between["append"] = second

            def second() -> None:
                bucket.faults["head"] = [CUT] * 9

            if there:
                bucket.between["append"] = first
                bucket.faults["append"] = [LOST]
            else:

                def made() -> None:
                    bucket.between["append"] = first

                bucket.between["append"] = made
                bucket.faults["append"] = [None, LOST]
            with pytest.raises(StoreError):
                await writer.deliver()
            landed = bucket.things["log"].data
            assert landed.endswith(b"theirs\nours\n")
            if since:
                bucket.add("log", since)
            bucket.faults.clear()
            await writer.write(0, b"more\n", append=True)
            await writer.deliver()
            assert bucket.things["log"].data == landed + since + b"more\n"

    run(main)
