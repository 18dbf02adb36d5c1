"""Writers: what is read back, delivered, promised and replayed equals a reference, whatever fails and whenever it ends."""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.content.memory_bucket import CUT, LOST
from tests.content.room import Bucket, new, room, run, standing_clock, until
from zosfs.content import disk_budget, journal_entry, staging
from zosfs.content.content import Content
from zosfs.content.disk_budget import DiskBudget
from zosfs.content.journal_rows import Move, Record
from zosfs.content.promises import Promises
from zosfs.content.writer import Writer
from zosfs.errors import StoreError
from zosfs.store.api import ListPage, ObjectHeaders, ObjectInfo, PartInfo, Written


def letters(size: int, first: int = 97) -> bytes:
    return bytes(first + at % 26 for at in range(size))


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
@pytest.mark.parametrize("at_once", [False, True])
def test_a_long_new_file_goes_up_while_it_is_written(tmp_path: Path, at_once: bool) -> None:
    async def main() -> None:
        bucket = Bucket()
        waited = 0
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k")
            for at in range(0, 200, 5):
                piece = letters(200)[at : at + 5]
                if not (at_once and writer.write_now(at, piece)):
                    waited += 1
                    await writer.write(at, piece)
                await trio.testing.wait_all_tasks_blocked()
            assert bucket.calls.count("upload_part") >= 17
            if at_once:
                assert waited <= 2, "leaving memory, and beginning the upload"
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
            writer.draft.headers = lambda: ObjectHeaders({"mode": "33261"}, "text/plain")
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
            writer.draft.headers = headers
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
            assert writer.draft.size == 6
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
        async with room(bucket, tmp_path, append_interval=20.0) as content:
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
            assert list(content.earlier.pending()) == []
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
            (pending,) = content.earlier.pending()
            assert (pending.key, pending.size, pending.state) == ("k", 4, "parked")
            assert "AccessDenied" in pending.cause
            assert bucket.calls.count("put") == 2
            taken = content.earlier.take("k")
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
            content.earlier.on_replayed = told.append
            assert [pending.key for pending in content.earlier.pending()] == ["k"]
            await until(lambda: told)
            assert bucket.things["k"].data == b"mine"
            assert [info.key for info in told] == ["k"]
            assert list(content.earlier.pending()) == []
            assert content.counters["journal_replayed"] == 1

    run(main)


# -- promises ---------------------------------------------------------------------------------------------------------------


async def crash_and_replay(bucket: Bucket, directory: Path) -> None:
    async with room(bucket, directory) as content:
        await until(lambda: not content.earlier.pending())
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
            assert writer.entry.promised
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
            assert await writer.rename_undelivered("there", lambda: there)
        await crash_and_replay(bucket, tmp_path)
        assert bucket.things["there"].data == b"new"
        assert "new" not in bucket.things

    run(main)


def test_a_file_that_is_removed_with_the_name_it_took_is_gone_for_good(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        there = bucket.set("there", b"old")
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "new")
            await writer.write(0, b"new")
            await writer.promise()
            assert await writer.rename_undelivered("there", lambda: there)
            await content.discard("there")
        await crash_and_replay(bucket, tmp_path)
        assert bucket.things == {}, "the object that was replaced is removed with what replaced it"

    run(main)


class Listed(Bucket):
    """A bucket whose objects can be listed and deleted together, as a move wants it; their grants are nobody's."""

    async def list_page(self, prefix: str, **_: Any) -> ListPage:
        await self._enter("list")
        return ListPage([self.info(key) for key in sorted(self.things) if key.startswith(prefix)], (), "")

    async def delete_many(self, keys: Sequence[str]) -> Mapping[str, Any]:
        for key in keys:
            await self.delete(key)
        return {}

    async def get_acl(self, key: str) -> Mapping[str, Any]:
        return {}


@pytest.mark.parametrize("there", [{"old/f"}, {"old/f", "new/f"}, {"new/f"}])
def test_what_was_promised_below_a_move_that_was_cut_short_goes_along(tmp_path: Path, there: set[str]) -> None:
    """However far the objects have come: the next run ends the move first, and delivers what was promised to where its object is then."""

    async def main() -> None:
        bucket = Listed()
        base = bucket.set("old/f", b"at first")
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "old/f", base)
            await writer.write(0, b"changed")
            await writer.promise()
            await content.promises.note_move(Move("old/", "new/", time.time()))
        bucket.things = dict.fromkeys(there, bucket.things["old/f"])
        async with room(bucket, tmp_path) as content:
            await until(lambda: not content.records())
            assert {key: thing.data for key, thing in bucket.things.items()} == {"new/f": b"changedt"}

    run(main)


@pytest.mark.parametrize("promised", [False, True])
@pytest.mark.parametrize("refused", [False, True])
def test_a_delivery_beside_another_object_that_takes_the_place(tmp_path: Path, refused: bool, promised: bool) -> None:
    """It waits for what comes of that: the bytes are not wanted any more, which is no conflict, or they are delivered."""

    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k", bucket.set("k", b"at first"))
            await writer.write(0, b"changed")
            if promised:
                await writer.promise()
            async with trio.open_nursery() as nursery:
                with contextlib.suppress(ZeroDivisionError):
                    async with content.replacing("k", "another"):
                        nursery.start_soon(writer.deliver)
                        await trio.testing.wait_all_tasks_blocked()
                        if refused:
                            raise ZeroDivisionError
                        bucket.set("k", b"another")
            assert bucket.things["k"].data == (b"changedt" if refused else b"another")
            assert content.records() == []
            assert writer.dirty != refused
        async with room(bucket, tmp_path) as content:
            assert (content.records(), content.earlier.pending()) == ([], [])

    run(main)


def test_a_read_beside_the_end_of_a_delivery_sees_the_file_and_no_stranger(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        base = bucket.set("k", letters(200))
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k", base)
            await writer.write(50, b"N" * 60)
            complete, read = bucket.complete_upload, []

            async def slow_answer(*words: Any) -> Written:
                done = await complete(*words)
                content.nursery.start_soon(reads)
                await trio.testing.wait_all_tasks_blocked(0.01)
                return done

            async def reads() -> None:
                read.append(bytes(await writer.read(0, 200)))

            bucket.complete_upload = slow_answer  # type: ignore[method-assign]
            await writer.deliver()
            await until(lambda: read)
            assert read == [letters(50) + b"N" * 60 + letters(200)[110:]]

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
            writer.draft.headers = lambda: ObjectHeaders({"mode": "33261"}, "text/plain")
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


# -- killed between the store's answer and the journal's note of it ----------------------------------------------------------


def dies_before_the_note(content: Content) -> trio.Event:
    """The journal hangs when it is to forget a record: nothing that it is told from then on is on the disk. Set when it does."""
    commit, forget, hangs = content.promises._commits.commit, content.promises.forget, trio.Event()

    async def commit_or_hang(*statements: bytes) -> None:
        if hangs.is_set():
            await trio.sleep_forever()
        await commit(*statements)

    async def hang_or_forget(*records: Record | None, **more: Any) -> None:
        if any(records):
            hangs.set()
        await forget(*records, **more)

    content.promises._commits.commit = commit_or_hang  # type: ignore[method-assign]
    content.promises.forget = hang_or_forget  # type: ignore[method-assign]
    return hangs


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("copied", [True, False])
@pytest.mark.parametrize("base", [False, True])
def test_a_write_that_lands_before_the_note_of_a_delivery_makes_no_conflict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied: bool, base: bool
) -> None:
    if not copied:
        monkeypatch.setattr(journal_entry, "COPY_MOST", 10)

    async def main() -> None:
        bucket = Bucket()
        there = bucket.set("k", letters(20, 65)) if base else None
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k", there)
            await writer.write(0, letters(20))
            await writer.promise()
            hangs = dies_before_the_note(content)
            bucket.between["put"] = lambda: content.nursery.start_soon(writer.write, 3, b"LATER")
            content.nursery.start_soon(writer.deliver)
            await hangs.wait()
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert bucket.things["k"].data == letters(20)
        await crash_and_replay(bucket, tmp_path)
        async with room(bucket, tmp_path) as content:
            assert content.records() == [], "what was delivered was taken for another's"

    run(main)


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("size", [8, 20, 60])
@pytest.mark.parametrize("change", ["overwrite", "grow", "cut"])
@pytest.mark.parametrize("state", ["promised", "failed"])
def test_what_is_newer_than_its_record_is_delivered_before_the_note(tmp_path: Path, size: int, change: str, state: str) -> None:
    async def main() -> None:
        bucket = Bucket()
        expected = bytearray(letters(size))
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k")
            await writer.write(0, expected)
            if state == "promised":
                await writer.promise()
            else:
                bucket.faults = {verb: [CUT] for verb in ("put", "complete_upload")}
                with pytest.raises(StoreError) as caught:
                    await writer.deliver()
                await content.failed(writer, caught.value)
                bucket.faults.clear()
            if change == "overwrite":
                await writer.write(2, b"NEW")
                expected[2:5] = b"NEW"
            elif change == "grow":
                await writer.write(size, b"NEW")
                expected += b"NEW"
            else:
                await writer.truncate(5)
                del expected[5:]
            hangs = dies_before_the_note(content)
            content.nursery.start_soon(writer.deliver)
            await hangs.wait()
        assert bucket.things["k"].data == expected
        await crash_and_replay(bucket, tmp_path)
        assert bucket.things["k"].data == expected
        async with room(bucket, tmp_path) as content:
            assert content.records() == [], "what was delivered was taken for another's"

    run(main)


@pytest.mark.parametrize("size", [20, 60])
@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("change", ["overwritten", "grown", "cut"])
def test_what_is_changed_while_the_next_run_looks_at_it_is_not_lost(tmp_path: Path, size: int, applied: bool, change: str) -> None:
    async def main() -> None:
        bucket = Bucket()
        state = bytearray(letters(size))
        async with room(bucket, tmp_path) as content:
            writer = await new(content, "k")
            await writer.write(0, state)
            await writer.promise()
            if applied:
                hangs = dies_before_the_note(content)
                content.nursery.start_soon(writer.deliver)
                await hangs.wait()
        looked, go_on, changed = trio.Event(), trio.Event(), trio.Event()
        head = bucket.head

        async def slow_head(key: str, **more: Any) -> ObjectInfo:
            looked.set()
            await go_on.wait()
            return await head(key, **more)

        bucket.head = slow_head  # type: ignore[method-assign]
        async with room(bucket, tmp_path) as content:
            await looked.wait()

            async def take_and_change() -> None:
                writer = content.earlier.take("k") or await new(content, "k", bucket.info("k"))
                if change == "overwritten":
                    await writer.write(2, b"NEW")
                    state[2:5] = b"NEW"
                elif change == "grown":
                    await writer.write(size, b"NEW")
                    state.extend(b"NEW")
                else:
                    await writer.truncate(5)
                    del state[5:]
                writer.on_delivered = lambda info: None
                await writer.deliver()
                changed.set()

            content.nursery.start_soon(take_and_change)
            await trio.testing.wait_all_tasks_blocked(0.01)
            go_on.set()
            await changed.wait()
            assert bucket.things["k"].data == state
        async with room(bucket, tmp_path) as content:
            assert content.records() == []

    run(main)


# -- disk space -------------------------------------------------------------------------------------------------------------


def test_a_full_cache_slows_writers_and_then_refuses(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path, cache_size=100) as content:
            first = await new(content, "first", appending=True)
            await first.write(1, b"x" * 80, append=True)  # it goes up as one append, and not before it is asked to
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


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("kind", ["long file", "another's delivery", "another's edit"])
def test_a_slow_server_slows_writers_and_does_not_refuse_them(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_budget, "PATIENCE", 10)

    async def main() -> None:
        bucket = Bucket()
        base = bucket.set("edited", letters(200))
        for verb in ("put", "upload_part", "upload_part_copy"):
            at_once = getattr(bucket, verb)

            async def slowly(*words: Any, at_once: Any = at_once, **more: Any) -> Any:
                await trio.sleep(10)
                return await at_once(*words, **more)

            setattr(bucket, verb, slowly)
        async with room(bucket, tmp_path, cache_size=100) as content:
            if kind == "another's delivery":
                other = await new(content, "other")
                await other.write(0, letters(20))
                content.nursery.start_soon(other.deliver)
            elif kind == "another's edit":
                other = await new(content, "edited", base)
                await other.write(95, letters(20))
                content.nursery.start_soon(other.deliver)
            await trio.testing.wait_all_tasks_blocked(0.01)
            writer = await new(content, "k")
            if kind == "long file":
                data = letters(160)
                for at in range(0, 160, 20):
                    await writer.write(at, data[at : at + 20])
            else:
                data = letters(23)
                await writer.write(0, data)
                more = await new(content, "more")
                await more.write(1, letters(70))
            await writer.deliver()
            assert bucket.things["k"].data == data

    run(main)


@pytest.mark.usefixtures("disk")
def test_a_server_that_is_away_refuses_writers_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_budget, "PATIENCE", 10)

    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path, cache_size=100) as content:
            for key in ("long", "promised"):
                writer = await new(content, key)
                bucket.faults = {verb: [CUT] * 1000 for verb in ("put", "upload_part", "create_upload", "head")}

                async def write_on(writer: Writer = writer, promised: bool = key == "promised") -> None:
                    for at in range(0, 400, 20):
                        await writer.write(at, letters(20))
                        if promised:
                            await writer.promise()

                with pytest.raises(OSError, match="No space"):
                    await write_on()

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


EDITS = [(at * 37 % 380, 17) for at in range(24)]


async def edit_beyond_the_cache(content: Content, bucket: Bucket, size: int) -> tuple[Writer, bytearray]:
    """Changes here and there of more bytes than the disk takes; *size* is that of the base, 0 for a new file."""
    base = bucket.set("k", letters(size)) if size else None
    writer = await new(content, "k", base)
    data = bytearray(letters(size))
    for number, (at, length) in enumerate(EDITS):
        piece = bytes([65 + number]) * length
        if not writer._uploads.gone.overlaps(at, at + length):
            await writer.write(at, piece)
            data.extend(bytes(max(0, at + length - len(data))))
            data[at : at + length] = piece
    assert writer.partly_gone
    assert content.status()["staged_bytes"] <= 100
    return writer, data


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("size", [0, 213, 400])
@pytest.mark.parametrize("fault", ["nothing", "part lost", "part cut", "complete lost", "complete cut"])
def test_scattered_changes_larger_than_the_cache(tmp_path: Path, size: int, fault: str) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path, cache_size=100) as content:
            writer, data = await edit_beyond_the_cache(content, bucket, size)
            if size:
                assert bucket.things["k"].data == letters(size), "nothing is visible before it is whole"
            else:
                assert "k" not in bucket.things
            await until(lambda: not writer.arriving)
            if fault != "nothing":
                verb = "complete_upload" if fault.startswith("complete") else "upload_part"
                bucket.faults = {verb: [LOST if fault.endswith("lost") else CUT]}
                if fault.endswith("cut"):
                    with pytest.raises(StoreError):
                        await writer.deliver()
                    assert writer.dirty
                    assert bucket.things["k"].data == letters(size) if size else "k" not in bucket.things
            await writer.deliver()
            assert bucket.things["k"].data == data
            assert bucket.uploads == {}
            assert bytes(await writer.read(0, 1000)) == data
            await writer.write(3, b"AND ON")
            data[3:9] = b"AND ON"
            await writer.deliver()
            assert bucket.things["k"].data == data
            await writer.aclose()
            assert content.status()["staged_bytes"] == 0

    run(main)


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("failed", [False, True])
@pytest.mark.parametrize("old", [0, 400])
def test_a_cut_leaves_no_part_in_an_unfinished_upload_that_the_object_has_no_place_for(tmp_path: Path, old: int, failed: bool) -> None:
    """Ceph makes no object of an upload that has more parts than are named."""

    async def main() -> None:
        for size in range(10, 400, 24):
            bucket = Bucket()
            async with room(bucket, tmp_path / str(size), cache_size=100) as content:
                writer, data = await edit_beyond_the_cache(content, bucket, old)
                await until(lambda writer=writer: not writer.arriving)
                if failed:
                    bucket.faults = {"upload_part": [None, CUT]}
                    with pytest.raises(StoreError):
                        await writer.deliver()
                    bucket.faults.clear()
                await writer.truncate(size)
                data = data[:size] + bytes(max(0, size - len(data)))
                await writer.deliver()
                assert bucket.things["k"].data == data
                await writer.aclose()
                assert bucket.uploads == {}

    run(main)


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("size", [0, 400])
@pytest.mark.parametrize("change", ["read", "write", "cut", "emptied", "grown", "grown far", "promise", "rename", "conflict"])
def test_changes_that_are_only_in_an_unfinished_upload(tmp_path: Path, size: int, change: str) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path, cache_size=100) as content:
            writer, data = await edit_beyond_the_cache(content, bucket, size)
            gone = next(iter(writer._uploads.gone))[0]
            match change:
                case "read":
                    assert bytes(await writer.read(gone, 5)) == data[gone : gone + 5]
                    assert bucket.things["k"].data == data, "reading them back makes the object, as fsync does"
                case "write":
                    await writer.write(gone + 1, b"NEW")
                    data[gone + 1 : gone + 4] = b"NEW"
                case "cut":
                    await writer.truncate(gone + 3)
                    del data[gone + 3 :]
                case "emptied":
                    await writer.truncate(0)
                    data.clear()
                case "grown" | "grown far":
                    await writer.truncate(len(data) + (2 if change == "grown" else 900))
                    data.extend(bytes(2 if change == "grown" else 900))
                case "promise":
                    await writer.promise()
                case "rename":
                    assert not await writer.rename_undelivered("other")
                case "conflict":
                    bucket.set("k", b"theirs")
                    with pytest.raises(StoreError) as caught:
                        await writer.deliver()
                    assert caught.value.errno == errno.ESTALE
                    return
            assert bytes(await writer.read(0, 2000)) == data
            await writer.deliver()
            assert bucket.things["k"].data == data
            await writer.aclose()
            assert bucket.uploads == {}
            assert content.status()["staged_bytes"] == 0

    run(main)


@pytest.mark.usefixtures("disk")
def test_old_bytes_that_a_delivery_needs_have_room_where_the_file_itself_fills_the_disk(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        base = bucket.set("k", letters(400))
        async with room(bucket, tmp_path, cache_size=100) as content:
            writer = await new(content, "k", base)
            await writer.draft.fetch(0, 95)
            await writer.write(203, b"NEW")
            assert content.status()["staged_bytes"] == 98
            await writer.deliver()
            assert bucket.things["k"].data == letters(400)[:203] + b"NEW" + letters(400)[206:]

    run(main)


@pytest.mark.usefixtures("disk")
def test_a_crash_leaves_nothing_of_changes_that_were_not_acknowledged(tmp_path: Path) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path, cache_size=100) as content:
            await edit_beyond_the_cache(content, bucket, 400)
            assert bucket.uploads
        await crash_and_replay(bucket, tmp_path)
        assert bucket.things["k"].data == letters(400)
        assert bucket.uploads == {}

    run(main)


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("truncated", [False, True])
def test_a_write_beside_a_part_that_goes_up_early_stays(tmp_path: Path, truncated: bool) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path, cache_size=100) as content:
            base = bucket.set("k", letters(400))
            writer = await new(content, "k", base)
            data = bytearray(letters(400))
            for at in range(0, 100, 10):
                await writer.write(2 * at, b"first time")
                data[2 * at : 2 * at + 10] = b"first time"
            begun: list[bool] = []
            late: list[bool] = []

            async def change() -> None:
                if truncated:
                    await writer.truncate(7)
                else:
                    await writer.write(0, b"NEWER")
                late.append(True)

            upload_part = bucket.upload_part

            async def meanwhile(*words: Any) -> PartInfo:
                if not begun:
                    begun.append(True)
                    content.nursery.start_soon(change)
                    for _ in range(20):
                        await trio.lowlevel.checkpoint()
                return await upload_part(*words)

            bucket.upload_part = meanwhile  # type: ignore[method-assign]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(writer.write, 300, b"one more of these")
                await until(lambda: late)
            if truncated:
                expected = (bytes(data[:7]), bytes(data[:7]) + bytes(293) + b"one more of these")
            else:
                data[0:5] = b"NEWER"
                data[300:317] = b"one more of these"
                expected = (bytes(data), bytes(data))
            await writer.deliver()
            assert bucket.things["k"].data in expected
            assert bytes(await writer.read(0, 1000)) == bucket.things["k"].data

    run(main)


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("size", [7, 35, 60, 95, 130])
@pytest.mark.parametrize("gone", [False, True])
def test_a_long_new_file_cut_while_the_server_is_behind_is_as_long_as_it_was_cut(tmp_path: Path, size: int, gone: bool) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path, cache_size=100 if gone else 1 << 30, upload_concurrency=1) as content:
            slow, upload_part = trio.CapacityLimiter(1), bucket.upload_part
            may_go = trio.Event()

            async def slow_part(*words: Any) -> PartInfo:
                if len(bucket.uploads.get("upload0", ())) >= 3:
                    await may_go.wait()
                async with slow:
                    await trio.sleep(0.2)
                    return await upload_part(*words)

            bucket.upload_part = slow_part  # type: ignore[method-assign]
            writer = await new(content, "k")
            length = 110 if gone else 150
            for at in range(0, length, 10):
                await writer.write(at, letters(150)[at : at + 10])
            if gone:
                assert writer.partly_gone
            await until(lambda: len(bucket.uploads["upload0"]) >= 3)
            content.nursery.start_soon(writer.truncate, size)
            await trio.testing.wait_all_tasks_blocked(0.01)
            may_go.set()
            await until(lambda: writer.draft.size == size and not writer.arriving)
            await writer.deliver()
            expected = letters(150)[: min(size, length)].ljust(size, b"\0")
            assert bucket.things["k"].data == expected
            assert bytes(await writer.read(0, 1000)) == expected

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


def mortal(content: Content, bucket: Bucket) -> None:
    """Changes of the journal count among the requests after which all ends."""
    commit = content.promises._commits.commit

    async def commit_while_alive(*statements: bytes) -> None:
        if bucket.lives >= 0:
            await bucket._enter("journal")
        await commit(*statements)

    content.promises._commits.commit = commit_while_alive  # type: ignore[method-assign]


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
                assert content.records() == [], "nobody else was there to be in conflict with"
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
                                acknowledged = [bytes(now) if now or writer.draft.base is not None else None]
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
                            mortal(content, bucket)
                            async with trio.open_nursery() as nursery:
                                nursery.start_soon(give_up_when_dead, bucket, nursery.cancel_scope)
                                try:
                                    await writer.deliver()
                                    acknowledged = [bytes(now) if now or writer.draft.base is not None else None]
                                except StoreError as exc:
                                    assert exc.errno != errno.ESTALE  # noqa: PT017
                                    acknowledged.append(bytes(now))
                                nursery.cancel_scope.cancel()
                            if bucket.dead.is_set():
                                if not writer.entry.promised:
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

early = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 300), st.integers(1, 40)),
        st.tuples(st.just("write on"), st.integers(20, 60), st.just(0)),
        st.tuples(st.just("truncate"), st.integers(0, 380), st.just(0)),
        st.tuples(st.just("read"), st.integers(0, 300), st.integers(1, 60)),
        st.tuples(st.just("deliver"), st.just(0), st.just(0)),
    ),
    min_size=4, max_size=24,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.none(), st.integers(0, 300)), early, faults, st.booleans())
@example(
    None,
    [("write on", 20, 0), ("truncate", 330, 0), ("write on", 38, 0), ("deliver", 0, 0), ("write on", 55, 0), ("truncate", 307, 0)],
    {"upload_part": [CUT]},
    False,
)
@example(2, [("write on", 20, 0), ("write on", 20, 0), ("write on", 59, 0), ("write", 0, 1)], {}, False)
def test_any_history_of_a_file_larger_than_the_disk_equals_the_reference(
    old: int | None, history: list[tuple[str, int, int]], trouble: dict[str, list[str | None]], at_once: bool
) -> None:
    """What is refused did not happen; what is visible is a state that the file had; the disk takes no byte more than it may."""

    async def main(directory: Path) -> None:
        bucket = Bucket()
        base = bucket.set("k", letters(old)) if old is not None else None
        async with room(bucket, directory, cache_size=100) as content:
            writer = await new(content, "k", base)
            now = bytearray(letters(old or 0))
            had = [bytes(now)]
            bucket.faults = {verb: list(what) for verb, what in trouble.items()}
            for number, (verb, at, length) in enumerate(history):
                try:
                    match verb:
                        case "write" | "write on":
                            start, piece = (at, bytes([65 + number]) * length) if verb == "write" else (len(now), bytes([65 + number]) * at)
                            if not (at_once and writer.write_now(start, piece)):
                                await writer.write(start, piece)
                            now.extend(bytes(max(0, start - len(now))))
                            now[start : start + len(piece)] = piece
                        case "truncate":
                            await writer.truncate(at)
                            now = now[:at] + bytes(max(0, at - len(now)))
                        case "read":
                            assert bytes(await writer.read(at, length)) == now[at : at + length]
                        case "deliver":
                            await writer.deliver()
                except OSError as exc:
                    assert exc.errno != errno.ESTALE  # noqa: PT017 - nobody else was there
                had.append(bytes(now))
                assert writer.draft.size == len(now)
                assert content.status()["staged_bytes"] <= 100
                assert "k" not in bucket.things or bucket.things["k"].data in had
            bucket.faults.clear()
            await writer.deliver()
            assert bytes(await writer.read(0, 1000)) == now
            if "k" in bucket.things:
                assert bucket.things["k"].data == now
            else:
                assert not now
                assert base is None
            await writer.aclose()
            assert content.status()["staged_bytes"] == 0
            assert bucket.uploads == {}

    directory = Path(tempfile.mkdtemp(prefix="zosfs-writer-"))
    before = staging.SMALL, staging.INLINE, disk_budget.PATIENCE
    staging.SMALL, staging.INLINE, disk_budget.PATIENCE = 0, 64 if at_once else 8, 10
    try:
        run(lambda: main(directory))
    finally:
        staging.SMALL, staging.INLINE, disk_budget.PATIENCE = before
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
            taken = content.earlier.take("k")
            assert taken is not None
            taken.draft.headers, taken.on_delivered = writer.draft.headers, writer.on_delivered
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
