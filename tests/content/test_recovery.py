"""Deliveries that fail half-way, find the disk full or get no answer: nothing is lost, and the next try gets there."""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.content.memory_bucket import CUT, LOST
from tests.content.room import PLAIN, Bucket, new, room, run, until
from tests.content.test_writer import crash_and_replay, edit_beyond_the_cache, letters, write_beyond_the_cache
from zosfs.content import disk_budget, staging
from zosfs.content.content import Content
from zosfs.content.writer import Writer
from zosfs.errors import StoreError
from zosfs.store.api import ObjectHeaders, ObjectInfo, PartInfo

pytestmark = pytest.mark.usefixtures("disk")


# -- a full disk --------------------------------------------------------------------------------------------------------


async def fill_up(content: Content, size: int) -> Writer:
    """Another file, whose bytes leave the disk for none of ours."""
    other = await new(content, "other", appending=True)
    await other.write(0, letters(size))
    return other


@pytest.mark.parametrize(("size", "at"), [(20, 3), (200, 98)])
@pytest.mark.parametrize("fault", ["nothing", "cut", "lost", "lost and changed", "killed"])
@pytest.mark.parametrize("full", ["budget", "disk"])
def test_a_full_disk_takes_no_old_bytes_and_the_file_is_delivered(
    tmp_path: Path, size: int, at: int, fault: str, full: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_budget, "PATIENCE", 3)

    async def main() -> None:
        bucket = Bucket()
        base = bucket.set("k", letters(size))
        state = letters(size)[:at] + b"NEW" + letters(size)[at + 3 :]
        async with room(bucket, tmp_path, cache_size=100 if full == "budget" else 1 << 30) as content:
            writer = await new(content, "k", base)
            await writer.write(at, b"NEW")
            if full == "budget":
                await fill_up(content, 97)
            else:
                monkeypatch.setattr(staging, "_pwrite", no_space)
            if fault == "killed":
                await writer.promise()
                bucket.lives = 4  # what the delivery asks for, and its last request
                content.nursery.start_soon(writer.deliver)
                await until(lambda: bucket.dead.is_set() or not writer.dirty)
            elif fault == "nothing":
                await writer.deliver()
            else:
                verb = "put" if size == 20 else "complete_upload"
                bucket.faults = {verb: [CUT if fault == "cut" else LOST], "head": [None, CUT] if size > 20 else [CUT]}
                with pytest.raises(StoreError):
                    await writer.deliver()
                assert writer.dirty
                bucket.faults.clear()
                if fault.endswith("changed"):
                    with monkeypatch.context() as patched:
                        patched.setattr(staging, "_pwrite", put_there)
                        await writer.write(at, b"TWO")
                    state = state.replace(b"NEW", b"TWO")
                await writer.deliver()
            if fault != "killed":
                assert bucket.things["k"].data == state
                assert not bucket.uploads
                assert content.memory.used == 0
                assert bytes(await writer.read(0, 1000)) == state
        monkeypatch.undo()
        if fault == "killed":
            bucket.lives = -1
            async with room(bucket, tmp_path) as content:
                await until(lambda: not content.records())
            assert bucket.things["k"].data == state

    run(main, seconds=20)


put_there = staging._pwrite


def no_space(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "no space")


def the_journals_disk_is_full(content: Content, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content.promises._commits, "_begin", lambda statements: -1)
    monkeypatch.setattr(content.promises._commits, "_apply", no_space)


def test_the_old_bytes_of_what_is_extended_are_taken_from_the_memory_budget(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        used: list[int] = []
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k", bucket.set("k", letters(3)), appending=True)
            await writer.write(0, b"ours", append=True)
            bucket.set("k", letters(4))

            def note() -> None:
                used.append(content.memory.used)
                bucket.between["put"] = note

            note()
            await writer.deliver()
            assert bucket.things["k"].data == letters(4) + b"ours"
            assert used[-1] == 4
            assert content.memory.used == 0
            assert bytes(await writer.read(0, 100)) == letters(4) + b"ours"

    run(main, seconds=20)


# -- bytes that are in an unfinished upload only -----------------------------------------------------------------------


async def beyond_the_cache(content: Content, bucket: Bucket, kind: str) -> tuple[Writer, bytearray]:
    if kind == "stream":
        writer, data = await write_beyond_the_cache(content)
        await writer.write(400, b"more!")
        return writer, data + b"more!"
    return await edit_beyond_the_cache(content, bucket, 400 if kind == "edit" else 0)


async def completed_without_an_answer(content: Content, bucket: Bucket, kind: str, fault: str) -> tuple[Writer, bytearray]:
    writer, data = await beyond_the_cache(content, bucket, kind)
    await until(lambda: not writer.arriving)
    bucket.faults = {"complete_upload": [fault], "head": [None, CUT]}
    with pytest.raises(StoreError):
        await writer.deliver()
    bucket.faults.clear()
    return writer, data


@pytest.mark.parametrize("kind", ["stream", "edit", "new edit"])
@pytest.mark.parametrize("fault", [LOST, CUT])
@pytest.mark.parametrize("change", ["nothing", "written", "grown", "cut", "emptied", "headers"])
def test_a_completion_without_an_answer_and_then_a_change(tmp_path: Path, kind: str, fault: str, change: str) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path, cache_size=100) as content:
            writer, data = await completed_without_an_answer(content, bucket, kind, fault)
            assert writer.partly_gone
            here = next(at for at in range(len(data)) if not writer._uploads.gone.overlaps(at, at + 2))
            if change == "written":
                await writer.write(here, b"OK")
                data[here : here + 2] = b"OK"
            elif change == "grown":
                await writer.write(len(data) + 3, b"MORE")
                data += b"\0\0\0MORE"
            elif change == "cut":
                await writer.truncate(33)
                del data[33:]
            elif change == "emptied":
                await writer.truncate(0)
                data.clear()
            elif change == "headers":
                await writer.headers_changed()
            await writer.deliver()
            assert bucket.things["k"].data == data
            assert bytes(await writer.read(0, 1000)) == data
            assert bucket.uploads == {}
            assert not writer.partly_gone
            await writer.aclose()
            assert content.status()["staged_bytes"] == 0

    run(main, seconds=20)


@pytest.mark.parametrize("kind", ["stream", "edit", "new edit"])
@pytest.mark.parametrize(("fault", "later"), [(LOST, False), (LOST, True), (CUT, False)])
def test_who_writes_on_after_a_completion_without_an_answer_gets_the_disk_he_needs(
    tmp_path: Path, kind: str, fault: str, later: bool
) -> None:
    """The upload is no more, and with it there is nowhere to put what the disk does not take: the object is made first."""

    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path, cache_size=100) as content:
            writer, data = await completed_without_an_answer(content, bucket, kind, fault)
            if later:
                bucket.faults = {"head": [CUT] * 2}
            for at in (*range(len(data), len(data) + 200, 20), *range(0, 400, 40)):
                await writer.write(at, b"which needs the disk")
                data[at : at + 20] = b"which needs the disk"
            bucket.faults.clear()
            await writer.deliver()
            assert bucket.things["k"].data == data
            assert bytes(await writer.read(0, 1000)) == data
            await writer.aclose()
            assert bucket.uploads == {}
            assert content.status()["staged_bytes"] == 0

    run(main, seconds=40)


@pytest.mark.parametrize("kind", ["stream", "edit", "new edit"])
@pytest.mark.parametrize("verb", ["head", "upload_part", "complete_upload"])
@pytest.mark.parametrize("failing", [False, True])
def test_a_cut_beside_a_delivery_waits_for_its_end(tmp_path: Path, kind: str, verb: str, failing: bool) -> None:
    """Ceph makes no object of an upload that has more parts than are named."""

    async def main() -> None:
        for size in (0, 5, 60, 133, 200, 390):
            bucket = Bucket()
            async with room(bucket, tmp_path / str(size), cache_size=100) as content:
                writer, data = await beyond_the_cache(content, bucket, kind)
                await until(lambda writer=writer: not writer.arriving)
                done = trio.Event()

                async def cut(writer: Writer = writer, size: int = size, done: trio.Event = done) -> None:
                    await writer.truncate(size)
                    done.set()

                async def meanwhile(*words: Any, verb: str = verb, bucket: Bucket = bucket, content: Content = content) -> Any:
                    delattr(bucket, verb)
                    content.nursery.start_soon(cut)
                    for _ in range(20):
                        await trio.lowlevel.checkpoint()
                    return await getattr(bucket, verb)(*words)

                setattr(bucket, verb, meanwhile)
                if failing:
                    bucket.faults = {"complete_upload": [CUT]}
                try:
                    await writer.deliver()
                except StoreError:
                    assert failing
                bucket.faults.clear()
                await done.wait()
                await writer.deliver()
                data = data[:size] + bytes(max(0, size - len(data)))
                assert bucket.things["k"].data == data
                assert bytes(await writer.read(0, 1000)) == data
                await writer.aclose()
                assert bucket.uploads == {}

    run(main, seconds=20)


LATER = ObjectHeaders({"mode": "33152"}, "text/plain", tags={"a": "b"})


@pytest.mark.parametrize("kind", ["stream", "edit", "new edit"])
@pytest.mark.parametrize("verb", ["copy", "put_tags"])
@pytest.mark.parametrize("fault", [CUT, StoreError("AccessDenied", status=403)])
@pytest.mark.parametrize("change", ["nothing", "written", "journalled"])
def test_an_object_that_was_made_lacks_only_what_was_refused_afterwards(
    tmp_path: Path, kind: str, verb: str, fault: str | StoreError, change: str
) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path, cache_size=100) as content:
            writer, data = await beyond_the_cache(content, bucket, kind)
            await until(lambda: not writer.arriving)
            writer.draft.headers = lambda: LATER if verb == "copy" else ObjectHeaders(PLAIN.metadata, PLAIN.content_type, tags=LATER.tags)
            bucket.faults = {verb: [fault]}
            with pytest.raises(StoreError) as caught:
                await writer.deliver()
            assert bucket.things["k"].data == data
            if change == "written":
                await writer.write(3, b"NEW")
                data[3:6] = b"NEW"
            if change == "journalled":
                await content.failed(writer, caught.value)
            else:
                assert bytes(await writer.read(0, 1000)) == data
                await writer.deliver()
                assert not writer.dirty
                assert bucket.tags.get("k", bucket.things["k"].headers.tags) == LATER.tags
                await writer.aclose()
                assert content.status()["staged_bytes"] == 0
        if change == "journalled":
            async with room(bucket, tmp_path) as content:
                await until(lambda: not content.records())
        assert bucket.things["k"].data == data
        assert bucket.things["k"].headers.metadata == writer.draft.headers().metadata
        assert bucket.uploads == {}

    run(main, seconds=20)


REFUSED, BUSY = StoreError("AccessDenied", status=403), StoreError("SlowDown", status=503)
TAGGED = ObjectHeaders(PLAIN.metadata, PLAIN.content_type, tags={"a": "b"})


@pytest.mark.parametrize(("verb", "fault"), [("complete_upload", LOST), ("put_tags", CUT), ("put_tags", REFUSED), ("put_tags", BUSY)])
@pytest.mark.parametrize("then", ["again", "written", "next run"])
def test_what_comes_after_an_upload_comes_also_when_the_next_try_completes_it(
    tmp_path: Path, verb: str, fault: str | StoreError, then: str
) -> None:
    async def main() -> None:
        bucket = Bucket()
        data = bytearray(letters(200))
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k", bucket.set("k", letters(200)))
            writer.draft.headers = lambda: TAGGED
            await writer.write(98, b"NEW")
            data[98:101] = b"NEW"
            bucket.faults = {verb: [fault], "head": [None, CUT]}
            with pytest.raises(StoreError) as caught:
                await writer.deliver()
            bucket.faults.clear()
            if then == "written":
                await writer.write(3, b"MORE")
                data[3:7] = b"MORE"
            if then == "next run":
                await content.failed(writer, caught.value)
            else:
                await writer.deliver()
        if then == "next run":
            async with room(bucket, tmp_path) as content:
                await until(lambda: not content.records())
        assert bucket.things["k"].data == data
        assert bucket.tags == {"k": {"a": "b"}}
        assert bucket.uploads == {}

    run(main, seconds=20)


def test_what_is_written_while_its_name_changes_goes_along(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path, cache_size=100) as content:
            writer, data = await edit_beyond_the_cache(content, bucket, 400)
            moving = [True]
            writer.draft.moving = lambda: bool(moving)
            await writer.deliver()

            async def write_on() -> None:
                for at in range(0, 400, 20):
                    await writer.write(at, b"written while it moves"[:20])
                    data[at : at + 20] = b"written while it moves"[:20]

            async with trio.open_nursery() as nursery:
                nursery.start_soon(write_on)
                await trio.sleep(50)
                bucket.things["other"] = bucket.things.pop("k")
                await writer.renamed("other")
                moving.clear()
            await writer.deliver()
            assert bucket.things["other"].data == data
            assert "k" not in bucket.things

    run(main, seconds=40)


def test_a_write_far_behind_the_end_that_waits_for_room_has_its_place_in_the_upload(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path, cache_size=100) as content:
            writer = await new(content, "k", bucket.set("k", letters(150)))
            data = bytearray(letters(150)) + bytes(1870)
            for at in range(0, 90, 9):
                await writer.write(at + at // 9, b"123456789")
                data[at + at // 9 : at + at // 9 + 9] = b"123456789"
            keep = bucket._keep

            def no_further(upload_id: str, number: int, piece: bytes) -> PartInfo:
                if number > content.limits.max_parts:
                    raise StoreError("InvalidPartNumber", status=400)
                return keep(upload_id, number, piece)

            bucket._keep = no_further  # type: ignore[method-assign]
            await writer.write(2000, b"far behind its end..")
            data[2000:] = b"far behind its end.."
            await writer.deliver()
            assert bucket.things["k"].data == data

    run(main, seconds=40)


def test_what_is_written_and_goes_up_beside_a_promise_is_in_it(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path, cache_size=100) as content:
            writer, data = await edit_beyond_the_cache(content, bucket, 400)
            await until(lambda: not writer.arriving)
            deliver = writer.deliver

            async def and_more() -> Any:
                done = await deliver()
                writer.deliver = deliver  # type: ignore[method-assign]
                for at in range(0, 400, 20):
                    await writer.write(at, b"written meanwhile...")
                    data[at : at + 20] = b"written meanwhile..."
                await until(lambda: not writer.arriving)
                assert writer.partly_gone
                return done

            writer.deliver = and_more  # type: ignore[method-assign]
            await writer.promise()
        async with room(bucket, tmp_path) as content:
            await until(lambda: not content.records())
        assert bucket.things["k"].data == data

    run(main, seconds=40)


# -- deliveries that are given up ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "verb"), [("put", "put"), ("multipart", "complete_upload"), ("append", "append"), ("early", "complete_upload")]
)
@pytest.mark.parametrize("change", ["nothing", "written", "grown", "cut"])
def test_a_delivery_that_was_given_up_is_no_conflict_with_the_next_one(tmp_path: Path, kind: str, verb: str, change: str) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path, cache_size=100 if kind == "early" else 1 << 30) as content:
            if kind == "early":
                writer, data = await beyond_the_cache(content, bucket, "edit")
                await until(lambda: not writer.arriving)
            else:
                data = bytearray(letters(200 if kind == "multipart" else 12))
                base = bucket.add("k", bytes(data)) if kind == "append" else bucket.set("k", bytes(data))
                writer = await new(content, "k", base, appending=kind == "append")
                at = 0 if kind == "put" else len(data)
                await writer.write(at, b"ANOTHER BEGINNING", append=kind == "append")
                data[at : at + 17] = b"ANOTHER BEGINNING"
            real, done = getattr(bucket, verb), trio.Event()

            async def without_answer(*words: Any, **more: Any) -> None:
                await real(*words, **more)
                done.set()
                await trio.sleep_forever()

            setattr(bucket, verb, without_answer)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(writer.deliver)
                    await done.wait()
                    scope.cancel()
            setattr(bucket, verb, real)
            if change == "written":
                at = next(at for at in range(len(data)) if not writer._uploads.gone.overlaps(at, at + 3))
                await writer.write(at, b"NEW")
                data[at : at + 3] = b"NEW"
            elif change == "grown":
                await until(lambda: not writer.arriving)
                await writer.write(len(data), b"AND MORE", append=kind == "append")
                data += b"AND MORE"
            elif change == "cut":
                await writer.truncate(7)
                del data[7:]
            await writer.deliver()
            assert bucket.things["k"].data == data
            assert bucket.uploads == {}

    run(main, seconds=20)


def test_a_journal_that_takes_no_more_stops_no_upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k", bucket.set("k", letters(200)))
            await writer.write(98, b"NEW")
            monkeypatch.setattr(content.promises, "note_upload", no_space)
            await writer.deliver()
            assert bucket.things["k"].data == letters(200)[:98] + b"NEW" + letters(200)[101:]

    run(main, seconds=20)


# -- removals that are refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("taken", [False, True])
def test_what_an_earlier_run_promised_stays_when_its_removal_is_refused(tmp_path: Path, taken: bool) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k", bucket.set("k", letters(20)))
            await writer.write(3, b"NEW")
            await writer.promise()
        bucket.faults = {"head": [CUT] * 3, "get_range": [CUT] * 3}
        async with room(bucket, tmp_path) as content:
            if taken:
                assert content.earlier.take("k") is not None
            aside = await content.set_aside("k")
            await content.put_back(aside)
            assert [record.key for record in content.records()] == ["k"]
            assert len(content.earlier.pending()) == (not taken)
        bucket.faults.clear()
        async with room(bucket, tmp_path) as content:
            await until(lambda: not content.records())
        assert bucket.things["k"].data == letters(20)[:3] + b"NEW" + letters(20)[6:]

    run(main, seconds=20)


@pytest.mark.parametrize("became", ["kept", "deleted", "replaced"])
def test_a_removal_that_was_cut_short_is_found_out_about_by_the_next_run(tmp_path: Path, became: str) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k", bucket.set("k", letters(20)))
            await writer.write(3, b"NEW")
            await writer.promise()
            await content.set_aside("k")
            if became == "deleted":
                await bucket.delete("k")
            elif became == "replaced":
                bucket.set("k", b"theirs")
        async with room(bucket, tmp_path) as content:
            await until(lambda: all(record.state == "conflict" for record in content.records()))
            assert not content.earlier.pending()
            assert len(content.records()) == (became == "replaced")
            assert not content.promises.owed
        wanted = {"kept": letters(20)[:3] + b"NEW" + letters(20)[6:], "replaced": b"theirs"}
        assert {key: thing.data for key, thing in bucket.things.items()} == ({"k": wanted[became]} if became in wanted else {})

    run(main, seconds=20)


@pytest.mark.parametrize("base", [False, True])
def test_a_removal_that_the_journal_cannot_note_comes_to_an_end_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: bool
) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k", bucket.set("k", letters(20)) if base else None)
            await writer.write(3, b"NEW")
            await writer.promise()
            aside = await content.set_aside("k")
            await bucket.delete("k")
            with monkeypatch.context() as patched:
                the_journals_disk_is_full(content, patched)
                if base:
                    await content.throw_away(aside)  # the next run sees that it is gone
                else:
                    with pytest.raises(OSError, match="no space"):
                        await content.throw_away(aside)
                    await content.put_back(aside)
            if not base:
                await content.discard("k")
        async with room(bucket, tmp_path) as content:
            assert not content.records()
        assert not bucket.things

    run(main, seconds=20)


def test_a_deletion_that_the_journal_could_not_forget_is_forgotten_before_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run would take the new object for the one that it is to delete: the bytes are the same, and so is the second."""

    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path) as content:
            await content.owe_deletion(bucket.set("k", letters(20)))
            del bucket.things["k"]
            writer = await new(content, "k")
            await writer.write(0, letters(20))
            with monkeypatch.context() as patched:
                the_journals_disk_is_full(content, patched)
                with pytest.raises(OSError, match="no space"):
                    await writer.deliver()
            await writer.deliver()
            await writer.aclose()
        async with room(bucket, tmp_path):
            pass
        assert bucket.things["k"].data == letters(20)

    run(main, seconds=20)


# -- appends behind others' ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["appendable", "new", "put", "parts"])
@pytest.mark.parametrize("since", [b"", b"s\n"], ids=["last", "in between"])
@pytest.mark.parametrize("then", ["crash", "grow and crash", "grow and try again"])
@pytest.mark.parametrize("requests", range(8))
def test_a_promised_line_that_went_behind_anothers_without_an_answer_is_there_once(
    tmp_path: Path, kind: str, since: bytes, then: str, requests: int
) -> None:
    """The run that sent it ends after so many requests, or its try after so many looks."""

    async def main() -> None:
        bucket = Bucket()
        normal = kind in ("put", "parts")
        sends, before = {"put": ("put", "put"), "parts": ("complete_upload", "upload_part")}.get(kind, ("append", "append"))

        def others(line: bytes) -> ObjectInfo:
            theirs.append(line)
            return bucket.set("log", bucket.things["log"].data + line) if normal else bucket.add("log", line)

        theirs: list[bytes] = []
        ours = [b"ours\n"]
        base = None
        if kind != "new":
            bucket.add("log", b"")
            base = others(b"begin\n" if kind == "parts" else b"b\n")
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "log", base, appending=True)
            await writer.write(0, ours[0], append=True)
            await writer.promise()

            def first() -> None:
                if "log" in bucket.things:
                    others(b"t\n")
                else:
                    bucket.between[before] = first  # it is made empty before

            bucket.between[before] = first
            bucket.faults[sends] = [LOST] * 99
            if then == "crash":
                bucket.lives = requests
                content.nursery.start_soon(writer.deliver)
                await until(lambda: bucket.dead.is_set() or not (writer.dirty or writer.on_its_way))
            else:
                bucket.faults["head"] = [None] * requests + [CUT] * 99
                with contextlib.suppress(StoreError):
                    await writer.deliver()
                ours.append(b"more\n")
                await writer.write(0, ours[1], append=True)
                await writer.promise()
            bucket.lives = -1
            bucket.faults.clear()
            bucket.between.clear()
            if since and "log" in bucket.things:
                others(since)
            if then == "grow and try again":
                await writer.deliver()
        await crash_and_replay(bucket, tmp_path)
        lines = bucket.things["log"].data.splitlines(keepends=True)
        assert sorted(lines) == sorted([*theirs, *ours])
        assert [line for line in lines if line in ours] == ours

    run(main)
