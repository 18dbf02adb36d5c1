"""Writers: what is read back, delivered, promised and replayed equals a reference, whatever fails and whenever it ends."""

from __future__ import annotations

import errno
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.content.memory_bucket import CUT, LOST
from tests.content.room import Bucket, new, room, run, standing_clock, until
from zosfs.content import staging
from zosfs.content.content import Content
from zosfs.content.promises import Promises
from zosfs.content.staging import DiskBudget
from zosfs.content.writer import Writer
from zosfs.errors import StoreError
from zosfs.store.api import ObjectHeaders, ObjectInfo


def letters(size: int, first: int = 97) -> bytes:
    return bytes(first + at % 26 for at in range(size))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even small files are staged on the disk, and written there by threads."""
    monkeypatch.setattr(staging, "SMALL", 0)
    monkeypatch.setattr(staging, "INLINE", 8)


# -- the whole path, one step at a time ---------------------------------------------------------------------------------


def test_a_small_new_file_is_one_put_and_touches_no_disk(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k")
            assert await writer.write(0, b"hello") == 5
            assert bytes(await writer.read(0, 100)) == b"hello"
            info = await writer.deliver()
            assert info is not None
            assert (info.size, writer.dirty, bucket.calls) == (5, False, ["put"])
            assert bucket.things["k"].data == b"hello"
            assert await writer.deliver() is None
            assert list((tmp_path / "staged").iterdir()) == []
            await writer.aclose()
            assert content.status()["staged_bytes"] == 0

    run(main)


def test_an_empty_new_file_is_made(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path) as content:
            await (await new(content, "k")).deliver()
            assert bucket.things["k"].data == b""

    run(main)


def test_truncating_sends_nothing_and_the_old_object_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        base = bucket.set("k", b"old bytes")
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k", base, truncate=True)
            await writer.write(0, b"new")
            assert bucket.calls == []
            assert bucket.things["k"].data == b"old bytes"
            await writer.deliver()
            assert bucket.things["k"].data == b"new"

    run(main)


@pytest.mark.usefixtures("disk")
def test_a_long_new_file_goes_up_while_it_is_written(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k")
            for at in range(0, 200, 5):
                await writer.write(at, letters(200)[at : at + 5])
                await trio.testing.wait_all_tasks_blocked()
            assert bucket.calls.count("upload_part") >= 17
            assert "k" not in bucket.things
            await writer.write(33, b"CHANGED")
            await writer.deliver()
            expected = bytearray(letters(200))
            expected[33:40] = b"CHANGED"
            assert bucket.things["k"].data == expected
            assert bucket.uploads == {}
            assert await content.promises.open_uploads() == []

    run(main)


def test_attributes_changed_while_a_long_file_went_up_are_on_it(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k")
            await writer.write(0, letters(100))
            writer.headers = lambda: ObjectHeaders({"mode": "33261"}, "text/plain")
            info = await writer.deliver()
            assert info is not None
            assert info.metadata == {"mode": "33261"}
            assert bucket.things["k"].headers.metadata == {"mode": "33261"}

    run(main)


@pytest.mark.usefixtures("disk")
def test_a_lock_that_ends_later_at_the_end_of_a_long_upload_costs_no_copy(tmp_path: Path) -> None:
    """A copy would be one more locked version."""

    async def main() -> None:
        bucket, asked = Bucket(), list[tuple[str, Any]]()

        async def call(operation: str, **members: Any) -> dict[str, Any]:
            asked.append((operation, members.get("Retention", {}).get("RetainUntilDate")))
            return {}

        bucket.call = call  # type: ignore[attr-defined]
        minute = 1

        def headers() -> ObjectHeaders:
            lock = {"x-amz-object-lock-mode": "GOVERNANCE", "x-amz-object-lock-retain-until-date": f"2030-01-01T00:0{minute}:00Z"}
            return ObjectHeaders({"mode": "33188"}, "text/plain", extra=lock)

        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k")
            writer.headers = headers
            await writer.write(0, letters(100))
            await until(lambda: "upload_part" in bucket.calls)
            minute = 2
            await writer.write(100, letters(100))
            await writer.deliver()
        assert bucket.things["k"].data == letters(100) * 2
        assert "copy" not in bucket.calls
        assert asked == [("put_object_retention", "2030-01-01T00:02:00Z")], "locked for as long as it was asked when it was closed"

    run(main)


@pytest.mark.usefixtures("disk")
def test_a_large_write_beside_a_fetch_of_the_same_range_wins(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        base = bucket.set("k", letters(200))
        async with room(bucket, tmp_path) as content:
            for _ in range(20):
                writer = await new(content, "k", base)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(writer.fetch_all)
                    nursery.start_soon(writer.write, 50, b"X" * 100)
                assert bytes(await writer.read(0, 200)) == letters(50) + b"X" * 100 + letters(200)[150:]
                await writer.aclose()

    run(main)


def test_writes_during_a_delivery_are_the_next_ones(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k")
            await writer.write(0, b"aaaa")
            late: list[Any] = []

            def meanwhile() -> None:
                content.nursery.start_soon(writer.write, 2, b"bbbb")
                late.append(1)

            bucket.between["put"] = meanwhile
            await writer.deliver()
            assert bucket.things["k"].data == b"aaaa"
            await trio.testing.wait_all_tasks_blocked()
            assert writer.dirty
            assert writer.size == 6
            assert bytes(await writer.read(0, 10)) == b"aabbbb"
            await writer.deliver()
            assert bucket.things["k"].data == b"aabbbb"
            assert late

    run(main)


def test_a_file_cut_and_grown_during_its_delivery_has_zeros_in_between(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k")
            await writer.write(0, letters(20))

            async def cut_and_grow() -> None:
                await writer.truncate(5)
                await writer.truncate(20)

            # the truncation waits for the bytes that are being sent, and comes right after
            bucket.between["put"] = lambda: content.nursery.start_soon(cut_and_grow)
            await writer.deliver()
            await trio.testing.wait_all_tasks_blocked()
            assert bytes(await writer.read(0, 20)) == letters(5) + bytes(15)
            await writer.deliver()
            assert bucket.things["k"].data == letters(5) + bytes(15)

    run(main)


def test_two_handles_appending_through_one_mount_keep_all_lines(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k", appending=True)

            async def lines(name: bytes) -> None:
                for at in range(30):
                    await writer.write(0, b"%s%03d\n" % (name, at), append=True)
                    if at % 7 == 0:
                        await writer.deliver()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(lines, b"a")
                nursery.start_soon(lines, b"b")
            await writer.deliver()
            found = sorted(bucket.things["k"].data.split())
            assert found == sorted(b"%s%03d" % (name, at) for name in (b"a", b"b") for at in range(30))

    run(main)


def test_bytes_that_others_appended_in_front_are_seen(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        base = bucket.add("k", b"one\n")
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k", base, appending=True)
            await writer.write(0, b"mine\n", append=True)
            bucket.add("k", b"theirs\n")
            bucket.between["append"] = lambda: content.nursery.start_soon(append, b"late\n")

            async def append(data: bytes) -> None:
                await writer.write(0, data, append=True)

            await writer.deliver()
            await until(lambda: writer.dirty)
            assert bytes(await writer.read(0, 100)) == b"one\ntheirs\nmine\nlate\n"
            await writer.deliver()
            assert bucket.things["k"].data == b"one\ntheirs\nmine\nlate\n"

    run(main)


def test_gathered_appends_are_delivered_when_due(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path, append_interval=1.0) as content:
            writer = await new(content, "k", appending=True)

            async def due() -> None:
                await writer.deliver()

            writer.due = due
            with standing_clock():
                for _ in range(10):
                    await writer.write(0, b"line\n", append=True)
                assert bucket.calls == []
            await until(lambda: not writer.dirty and "k" in bucket.things and bucket.things["k"].data)
            assert bucket.calls.count("append") == 2, "one makes the object, one brings all lines"
            assert bucket.things["k"].data == b"line\n" * 10

    run(main)


# -- conflicts and failures -------------------------------------------------------------------------------------------------


def test_anothers_change_is_estale_and_the_bytes_stay_in_the_journal(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        base = bucket.set("k", b"old")
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k", base)
            await writer.write(0, b"mine")
            bucket.set("k", b"theirs")
            with pytest.raises(StoreError) as caught:
                await writer.deliver()
            assert caught.value.errno == errno.ESTALE
            assert await content.failed(writer, caught.value) == "conflict"
            await writer.aclose()
        async with room(bucket, tmp_path) as content:
            assert list(content.pending()) == []
            (entry,) = content.status()["journal"]
            assert (entry["key"], entry["state"]) == ("k", "conflict")
            await content.discard("k")
            assert len(content.status()["journal"]) == 1
            assert bucket.things["k"].data == b"theirs"

    run(main)


def test_a_try_that_arrived_without_an_answer_is_no_conflict_with_itself(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        base = bucket.set("k", b"old")
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k", base)
            await writer.write(0, b"first try")
            bucket.faults["put"] = [LOST]
            bucket.faults["head"] = [CUT] * 5
            with pytest.raises(StoreError):
                await writer.deliver()
            bucket.faults.clear()
            assert bucket.things["k"].data == b"first try"
            await writer.write(6, b"more")
            await writer.deliver()
            assert bucket.things["k"].data == b"first more"

    run(main)


def test_a_refused_file_is_parked_and_tried_once_in_the_next_run(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        refused = StoreError("AccessDenied", status=403)
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k")
            await writer.write(0, b"mine")
            bucket.faults["put"] = [refused]
            with pytest.raises(StoreError) as caught:
                await writer.deliver()
            assert await content.failed(writer, caught.value) == "parked"
            await writer.aclose()
        bucket.faults["put"] = [refused]
        async with room(bucket, tmp_path) as content:
            (pending,) = content.pending()
            assert (pending.key, pending.size, pending.state) == ("k", 4, "parked")
            assert "AccessDenied" in pending.cause
            assert bucket.calls.count("put") == 2
            taken = await content.take("k")
            assert taken is not None
            assert bytes(await taken.read(0, 10)) == b"mine"
            await taken.deliver()
            assert bucket.things["k"].data == b"mine"
            assert list(content.records()) == []

    run(main)


def test_what_fails_in_passing_is_tried_again_beside_the_mount(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k")
            await writer.write(0, b"mine")
            await writer.promise()
        bucket.faults["put"] = [CUT] * 3
        async with room(bucket, tmp_path) as content:
            told: list[ObjectInfo] = []
            content.on_replayed = told.append
            assert [pending.key for pending in content.pending()] == ["k"]
            await until(lambda: told)
            assert bucket.things["k"].data == b"mine"
            assert [info.key for info in told] == ["k"]
            assert list(content.pending()) == []
            assert content.counters["journal_replayed"] == 1

    run(main)


# -- promises ---------------------------------------------------------------------------------------------------------------


async def crash_and_replay(bucket: Bucket, directory: Path) -> None:
    async with room(bucket, directory) as content:
        await until(lambda: not content.pending())
        assert [record for record in content.records() if record.state != "conflict"] == []
        await until(lambda: not content.status()["staged_bytes"])  # the writer is closed a moment after its file is no longer pending


@pytest.mark.parametrize("size", [4, 60])
@pytest.mark.parametrize("on_disk", [False, True])
def test_promised_is_delivered_by_the_next_run(tmp_path: Path, size: int, on_disk: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if on_disk:
        monkeypatch.setattr(staging, "SMALL", 0)

    async def main() -> None:
        bucket = Bucket()
        base = bucket.set("old", letters(50))
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k")
            await writer.write(0, letters(size))
            await writer.promise()
            assert writer.promised
            edited = await new(content, "old", base)
            await edited.write(10, b"EDIT")
            await edited.promise()
            unpromised = await new(content, "unpromised")
            await unpromised.write(0, b"never acknowledged")
        await crash_and_replay(bucket, tmp_path)
        assert bucket.things["k"].data == letters(size)
        assert bucket.things["old"].data == letters(10) + b"EDIT" + letters(50)[14:]
        assert "unpromised" not in bucket.things
        assert list((tmp_path / "staged").iterdir()) == []

    run(main)


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("change", ["overwrite", "cut", "empty", "grow"])
def test_what_was_promised_is_not_touched_by_later_writes(tmp_path: Path, change: str) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k")
            await writer.write(0, letters(20))
            await writer.promise()
            match change:
                case "overwrite":
                    await writer.write(5, b"UNPROMISED")
                    assert bytes(await writer.read(0, 30)) == letters(5) + b"UNPROMISED" + letters(20)[15:]
                case "cut":
                    await writer.truncate(3)
                case "empty":
                    await writer.truncate(0)
                    await writer.write(0, b"UNPROMISED")
                case "grow":
                    await writer.write(20, b"UNPROMISED")
        await crash_and_replay(bucket, tmp_path)
        assert bucket.things["k"].data == letters(20)

    run(main)


@pytest.mark.usefixtures("disk")
def test_promised_anew_the_newest_state_is_delivered(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k")
            for state in (letters(20), b"second", b"the third state"):
                await writer.truncate(0)
                await writer.write(0, state)
                await writer.promise()
            assert len(list(content.records())) == 1
            assert len(list((tmp_path / "staged").iterdir())) == 1
        await crash_and_replay(bucket, tmp_path)
        assert bucket.things["k"].data == b"the third state"

    run(main)


def test_renamed_and_removed_while_only_promised(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path) as content:
            for key in ("moved", "removed", "replaced", "replacing"):
                writer = await new(content, key)
                await writer.write(0, key.encode())
                await writer.promise()
                if key in ("moved", "replacing"):
                    assert await writer.rename_undelivered("there" if key == "moved" else "replaced")
                elif key == "removed":
                    await content.discard(key)
        await crash_and_replay(bucket, tmp_path)
        assert {key: thing.data for key, thing in bucket.things.items()} == {"there": b"moved", "replaced": b"replacing"}

    run(main)


def test_a_promised_file_that_took_the_name_of_an_object_replaces_it(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        there = bucket.set("there", b"old")
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "new")
            await writer.write(0, b"new")
            await writer.promise()
            await content.rename("new", "there")
            await writer.renamed("there")
            writer.replaces(there)
            await trio.testing.wait_all_tasks_blocked()
            await content.promises.settled()
        await crash_and_replay(bucket, tmp_path)
        assert bucket.things["there"].data == b"new"
        assert "new" not in bucket.things

    run(main)


def test_what_is_being_rewritten_is_not_delivered_behind_the_programs_back(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k")
            await writer.write(0, b"whole")
            await writer.promise()
            await writer.truncate(0)
            assert await writer.deliver(only_promised=True) is None
            await writer.write(0, b"whole again")
            assert await writer.deliver(only_promised=True) is None
            await writer.promise()
            assert await writer.deliver(only_promised=True) is not None
            assert bucket.things["k"].data == b"whole again"

    run(main)


def test_headers_of_a_promised_file_can_change(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k")
            await writer.write(0, b"x")
            await writer.promise()
            writer.headers = lambda: ObjectHeaders({"mode": "33261"}, "text/plain")
            await writer.headers_changed()
        await crash_and_replay(bucket, tmp_path)
        assert bucket.things["k"].headers.metadata == {"mode": "33261"}

    run(main)


def test_draining_delivers_what_was_promised(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path) as content:
            for at in range(12):
                writer = await new(content, f"k{at}")
                await writer.write(0, b"x" * at)
                await writer.promise()
            gone = await new(content, "gone")
            await gone.write(0, b"x")
            await gone.promise()
            await content.discard("gone")
            seen: list[tuple[int, int]] = []
            await content.drain(lambda files, size: seen.append((files, size)))
            assert seen[0] == (12, 66)
            assert seen[-1] == (0, 0)
            assert len(bucket.things) == 12
            assert list(content.records()) == []
            late = await new(content, "late")
            await late.write(0, b"x")
            await late.promise()
            bucket.faults["put"] = [StoreError("AccessDenied", status=403)]
            with pytest.raises(OSError, match="1 files are not delivered"):
                await content.drain(lambda files, size: None)

    run(main)


def test_two_mounts_never_share_a_journal(tmp_path: Path) -> None:
    async def main() -> None:
        async with room(Bucket(), tmp_path) as content:
            second = Promises(tmp_path / "journal", tmp_path / "staged", DiskBudget(tmp_path, 1, 0, content.counters))
            with pytest.raises(OSError, match="in use by another mount") as caught:
                await second.open()
            assert caught.value.errno == errno.EBUSY

    run(main)


def test_uploads_of_a_crashed_run_are_aborted_and_its_unlinked_objects_deleted(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        for key in ("unlinked", "made anew"):
            bucket.set(key, b"old")
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k")
            await writer.write(0, letters(100))
            await trio.testing.wait_all_tasks_blocked()
            for key in ("unlinked", "made anew"):
                await content.owe_deletion(bucket.info(key))
            bucket.set("made anew", b"new")
            assert bucket.uploads
        assert bucket.uploads
        await crash_and_replay(bucket, tmp_path)
        assert bucket.uploads == {}
        assert {key: thing.data for key, thing in bucket.things.items()} == {"made anew": b"new"}

    run(main)


@pytest.mark.usefixtures("disk")
def test_a_promised_upload_is_continued_by_the_next_run(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        base = bucket.set("k", letters(200))
        async with room(bucket, tmp_path, upload_concurrency=1) as content:
            writer = await new(content, "k", base)
            await writer.write(50, b"N" * 100)
            await writer.promise()
            # fails after some parts, in passing
            bucket.faults["upload_part"] = [None, None, None, CUT]
            with pytest.raises(StoreError):
                await writer.deliver()
        await crash_and_replay(bucket, tmp_path)
        assert bucket.things["k"].data == letters(50) + b"N" * 100 + letters(200)[150:]
        assert bucket.calls.count("upload_part") == 11, "ten parts, and one of them twice"
        assert bucket.uploads == {}

    run(main)


# -- disk space -------------------------------------------------------------------------------------------------------------


def test_a_full_cache_slows_writers_and_then_refuses(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path, cache_size=100) as content:
            first = await new(content, "first")
            await first.write(1, b"x" * 80)  # not from the beginning: it cannot go up before it is whole
            second = await new(content, "second")
            with pytest.raises(OSError, match="No space") as caught:
                await second.write(0, b"y" * 80)
            assert caught.value.errno == errno.ENOSPC
            async with trio.open_nursery() as nursery:
                nursery.start_soon(second.write, 0, b"y" * 80)
                await until(lambda: content.counters["disk_waits"] == 2)
                with standing_clock():
                    await first.deliver()
                    await first.aclose()
            await second.deliver()
            assert bucket.things["second"].data == b"y" * 80
            assert content.counters["disk_waits"] == 2

    run(main)


@pytest.mark.usefixtures("disk")
def test_what_the_store_has_makes_room(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        size = 1 << 16
        async with room(bucket, tmp_path, cache_size=3 * size // 2) as content:
            content.limits = type(content.limits)()
            delivered = await new(content, "delivered")
            await delivered.write(0, b"d" * size)
            await delivered.deliver()
            promised = await new(content, "promised")
            await promised.write(0, b"p" * (size // 2))
            await promised.promise()
            more = await new(content, "more")
            await more.write(0, b"m" * size)
            assert bytes(await delivered.read(0, size)) == b"d" * size

    run(main)


async def write_beyond_the_cache(content: Content) -> tuple[Writer, bytearray]:
    """400 bytes where the disk takes 100."""
    writer = await new(content, "k")
    data = bytearray(letters(400))
    for at in range(0, 400, 20):
        await writer.write(at, data[at : at + 20])
    assert writer.partly_gone
    assert content.status()["staged_bytes"] <= 100
    return writer, data


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("fault", ["nothing", "part lost", "complete lost", "complete cut", "part refused later"])
def test_a_file_larger_than_the_cache(tmp_path: Path, fault: str) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path, cache_size=100) as content:
            writer, data = await write_beyond_the_cache(content)
            if fault.startswith("complete"):
                bucket.faults["complete_upload"] = [LOST if fault.endswith("lost") else CUT]
            elif fault.startswith("part"):
                bucket.faults["upload_part"] = [LOST if fault.endswith("lost") else CUT]
            if fault != "nothing" and fault != "complete lost":
                await writer.write(400, b"more!")
                data += b"more!"
                try:
                    await writer.deliver()
                except StoreError:
                    assert writer.dirty
                else:
                    assert fault.startswith("part"), "a part that failed behind the writer is sent again at once"
                assert content.status()["staged_bytes"] <= 100
            await writer.deliver()
            assert bucket.things["k"].data == data
            assert bucket.uploads == {}
            assert bytes(await writer.read(0, 1000)) == data
            assert bucket.calls.count("copy") == 0
            assert not bucket.faults.get("upload_part")
            assert not bucket.faults.get("complete_upload")

    run(main)


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("change", ["read", "write", "cut", "emptied", "promise", "rename", "conflict"])
def test_bytes_that_are_only_in_the_unfinished_upload(tmp_path: Path, change: str) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path, cache_size=100) as content:
            writer, data = await write_beyond_the_cache(content)
            assert "k" not in bucket.things
            match change:
                case "read":
                    assert bytes(await writer.read(3, 30)) == data[3:33]
                    assert bucket.things["k"].data == data, "reading them back makes the object, as fsync does"
                case "write":
                    await writer.write(3, b"NEW")
                    data[3:6] = b"NEW"
                case "cut":
                    await writer.truncate(33)
                    del data[33:]
                case "emptied":
                    await writer.truncate(0)
                    data.clear()
                case "promise":
                    await writer.promise()
                    assert bucket.things["k"].data == data, "the journal could not promise it"
                case "rename":
                    assert not await writer.rename_undelivered("other"), "the object has to be renamed"
                case "conflict":
                    bucket.set("k", b"theirs")
                    with pytest.raises(StoreError) as caught:
                        await writer.deliver()
                    assert caught.value.errno == errno.ESTALE
                    await content.failed(writer, caught.value)
                    assert content.records() == []
                    return
            assert bytes(await writer.read(0, 1000)) == data
            await writer.deliver()
            assert bucket.things["k"].data == data
            await writer.aclose()
            assert bucket.uploads == {}
            assert content.status()["staged_bytes"] == 0

    run(main)


# -- everything at once -----------------------------------------------------------------------------------------------------

operations = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 80), st.integers(1, 40)),
        st.tuples(st.just("truncate"), st.integers(0, 90)),
        st.tuples(st.just("read"), st.integers(0, 100), st.integers(1, 60)),
        st.tuples(st.just("deliver")),
        st.tuples(st.just("promise")),
        st.tuples(st.just("crash")),
        st.tuples(st.just("die"), st.integers(0, 5)),
    ),
    max_size=14,
)
faults = st.dictionaries(
    st.sampled_from(["put", "upload_part", "complete_upload", "create_upload", "get_range", "append", "head"]),
    st.lists(st.sampled_from([LOST, CUT, None]), max_size=3),
)


async def give_up_when_dead(bucket: Bucket, scope: trio.CancelScope) -> None:
    await bucket.dead.wait()
    scope.cancel()


@settings(max_examples=120, deadline=None)
@given(st.one_of(st.none(), st.integers(0, 100).map(letters)), operations, faults, st.booleans(), st.booleans())
def test_any_history_keeps_what_was_acknowledged(
    old: bytes | None, history: list[tuple[Any, ...]], trouble: dict[str, list[str | None]], on_disk: bool, appending: bool
) -> None:
    """Reads equal the reference, a crash goes back to the last acknowledged state at most, and a delivery leaves the reference."""

    async def main(directory: Path) -> None:
        bucket = Bucket()
        base = bucket.set("k", old) if old is not None else None
        now, acknowledged = bytearray(old or b""), [old]  # the states that may be found after a crash
        todo = list(history)
        while todo or acknowledged[-1] != bytes(now):
            async with room(bucket, directory) as content:
                found = bucket.things["k"].data if "k" in bucket.things else None
                assert found in acknowledged, "an acknowledged state is lost"
                now, acknowledged = bytearray(found or b""), [found]
                base = bucket.info("k") if found is not None else None
                writer: Writer = await new(content, "k", base, appending=appending)
                if base is None and appending:
                    acknowledged.append(b"")  # made empty before the first bytes
                bucket.faults = {verb: list(what) for verb, what in trouble.items()}
                trouble.clear()
                for operation in list(todo):
                    todo = todo[1:]
                    match operation:
                        case ("write", offset, length):
                            await writer.write(offset, bytes([65 + len(todo)]) * length)
                            now.extend(bytes(max(0, offset - len(now))))
                            now[offset : offset + length] = bytes([65 + len(todo)]) * length
                        case ("truncate", size):
                            await writer.truncate(size)
                            now = now[:size] + bytes(max(0, size - len(now)))
                        case ("read", offset, length):
                            try:
                                assert bytes(await writer.read(offset, length)) == now[offset : offset + length]
                            except StoreError:
                                pass
                        case ("deliver",):
                            try:
                                await writer.deliver()
                                acknowledged = [bytes(now) if now or writer.base is not None else None]
                            except StoreError as exc:
                                assert exc.errno != errno.ESTALE  # noqa: PT017
                                acknowledged.append(bytes(now))
                        case ("promise",):
                            await writer.promise()
                            if writer.dirty:
                                acknowledged = [bytes(now)]
                        case ("crash",):
                            break
                        case ("die", requests):
                            bucket.lives, bucket.dead = requests, trio.Event()
                            async with trio.open_nursery() as nursery:
                                nursery.start_soon(give_up_when_dead, bucket, nursery.cancel_scope)
                                try:
                                    await writer.deliver()
                                    acknowledged = [bytes(now) if now or writer.base is not None else None]
                                except StoreError as exc:
                                    assert exc.errno != errno.ESTALE  # noqa: PT017
                                    acknowledged.append(bytes(now))
                                nursery.cancel_scope.cancel()
                            if bucket.dead.is_set():
                                if not writer.promised:
                                    acknowledged.append(bytes(now))
                                break
                            bucket.lives = -1
                else:
                    bucket.faults.clear()
                    await writer.deliver()
                    acknowledged = [bytes(now)]
                    assert bucket.things["k"].data == now
                bucket.faults.clear()
            bucket.lives = -1

    directory = Path(tempfile.mkdtemp(prefix="zosfs-writer-"))
    before = staging.SMALL
    staging.SMALL = 0 if on_disk else before
    try:
        run(lambda: main(directory))
    finally:
        staging.SMALL = before
        shutil.rmtree(directory)




@pytest.mark.parametrize("change", ["nothing", "overwritten", "cut", "grown", "other"])
@pytest.mark.parametrize("requests", range(6))
def test_a_promised_first_append_killed_at_any_request_is_delivered_once(tmp_path: Path, requests: int, change: str) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k", appending=True)
            await writer.write(0, letters(20))
            await writer.promise()
            state, told = letters(20), trio.Event()
            if change != "nothing":
                bucket.faults = {"append": [None, LOST], "head": [CUT] * 9}
                with pytest.raises(StoreError):
                    await writer.deliver()
                bucket.faults.clear()
                if change == "overwritten":
                    await writer.write(3, b"NEW")
                    state = letters(3) + b"NEW" + letters(20)[6:]
                elif change == "cut":
                    await writer.truncate(7)
                    state = letters(7)
                elif change == "grown":
                    await writer.write(20, b"GROWN", append=True)
                    state += b"GROWN"
                else:
                    await writer.truncate(0)
                    await writer.write(0, b"quite another one, and longer")
                    state = b"quite another one, and longer"
                await writer.promise()
            bucket.lives, bucket.dead = requests, told
            content.nursery.start_soon(writer.deliver)
            await until(lambda: told.is_set() or not writer.dirty)
        bucket.lives = -1
        await crash_and_replay(bucket, tmp_path)
        assert bucket.things["k"].data == state
        async with room(bucket, tmp_path) as content:
            assert content.records() == []

    run(main)


@pytest.mark.parametrize("change", ["emptied", "overwritten", "grown"])
@pytest.mark.parametrize("requests", range(5))
@pytest.mark.parametrize("old", [b"", b"what was there"])
def test_an_append_that_an_earlier_run_began_may_change_before_it_is_settled(
    tmp_path: Path, requests: int, change: str, old: bytes
) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k", bucket.add("k", old) if old else None, appending=True)
            await writer.write(len(old), letters(20), append=True)
            await writer.promise()
            bucket.lives = requests
            content.nursery.start_soon(writer.deliver)
            await until(lambda: bucket.dead.is_set() or not writer.dirty)
            if not writer.dirty:
                return
        bucket.lives = -1
        bucket.faults = {verb: [CUT] * 5 for verb in ("head", "put", "append")}
        state = old + letters(20)
        async with room(bucket, tmp_path) as content:
            taken = await content.take("k")
            assert taken is not None
            taken.headers, taken.on_delivered = writer.headers, writer.on_delivered
            if change == "emptied":
                state = b"another one"
                await taken.truncate(0)
                await taken.write(0, state)
            elif change == "overwritten":
                await taken.write(len(old) + 2, b"NEW")
                state = state[: len(old) + 2] + b"NEW" + state[len(old) + 5 :]
            else:
                await taken.write(len(state), b"GROWN", append=True)
                state += b"GROWN"
            await taken.promise()
        bucket.faults.clear()
        await crash_and_replay(bucket, tmp_path)
        assert bucket.things["k"].data == state

    run(main)
