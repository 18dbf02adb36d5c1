"""The log of what was answered and not done: the next run finds it, whatever the last one was cut off in."""

from __future__ import annotations

import contextlib
import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from zosfs.content import promise_log
from zosfs.content.journal_rows import Deletion
from zosfs.content.promise_log import PromiseLog

KEYS = st.text(st.characters(exclude_categories=[]), min_size=1, max_size=8)


@given(st.lists(st.tuples(KEYS, st.booleans()), max_size=20), st.integers(0, 30), st.sampled_from((0, 100, 1 << 20)))
def test_what_is_not_done_is_found_again(script: list[tuple[str, bool]], torn: int, rewritten: int) -> None:
    with tempfile.TemporaryDirectory() as home, pytest.MonkeyPatch.context() as patch:
        patch.setattr(promise_log, "REWRITTEN", rewritten)
        path = Path(home) / "removals"
        log = PromiseLog(path, Deletion)
        assert log.open() == []
        owed: dict[str, Deletion] = {}
        for n, (key, done) in enumerate(script):
            if done:
                log.done(key)
                owed.pop(key, None)
            else:
                owed[key] = Deletion(key, f"etag{n}", n)
                log.add(key, (f"etag{n}", n))
        log.close()
        with path.open("ab") as file:
            file.write(b'["torn", "etag", 12'[:torn])
        again = PromiseLog(path, Deletion)
        assert {deletion.key: deletion for deletion in again.open()} == owed
        again.add("of this run", ("etag", 1))
        again.close()
        again = PromiseLog(path, Deletion)
        assert {deletion.key for deletion in again.open()} == {*owed, "of this run"}, "a torn line spoils no other"
        again.done("of this run")
        again.close()
        again = PromiseLog(path, Deletion)
        assert {deletion.key: deletion for deletion in again.open()} == owed, "what is not done yet outlives what came after it"
        again.clear()
        again.close()
        assert PromiseLog(path, Deletion).open() == []


def test_a_log_that_never_comes_to_rest_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promise_log, "REWRITTEN", 1000)
    log = PromiseLog(tmp_path / "log", Deletion)
    log.open()
    for n in range(2000):
        log.add(f"key{n}", ("etag", n))
        if n >= 10:
            log.done(f"key{n - 10}")
        assert (tmp_path / "log").stat().st_size < 1200
    log.close()
    again = PromiseLog(tmp_path / "log", Deletion)
    assert [deletion.key for deletion in again.open()] == [f"key{n}" for n in range(1990, 2000)]


@contextlib.contextmanager
def room_for(size: int) -> Iterator[None]:
    """Within, no file grows beyond *size* bytes: a write that reaches that is cut short, the next one refused, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 1, 5])
@pytest.mark.parametrize("torn", ["in this run", "by a crash"])
def test_what_found_no_room_on_the_disk_spoils_nothing_that_is_promised_later(tmp_path: Path, room: int, torn: str) -> None:
    path = tmp_path / "log"
    log = PromiseLog(path, Deletion)
    log.open()
    log.add("first", ("etag", 1))
    if torn == "by a crash":
        log.close()
        with path.open("ab") as file:
            file.write(b'["never answ')
        log = PromiseLog(path, Deletion)
        with room_for(path.stat().st_size):
            assert log.open() == [Deletion("first", "etag", 1)]
    with room_for(path.stat().st_size + room), pytest.raises(OSError, match=r"No space|too large"):
        log.add("refused, and long", ("e" * 100, 1))
    log.add("second", ("etag", 2))
    log.close()
    again = PromiseLog(path, Deletion)
    assert [deletion.key for deletion in again.open()] == ["first", "second"]


class Disk:
    """A thread's place, which counts what is brought to the disk."""

    def __init__(self) -> None:
        self.synced = 0

    async def run(self, call: Callable[[], None]) -> None:
        await trio.lowlevel.checkpoint()
        call()
        self.synced += 1


@pytest.mark.parametrize("left", ["others", "none"])
def test_what_is_done_is_on_the_disk_before_anything_takes_its_place(tmp_path: Path, left: str) -> None:
    """A power cut is not to bring the promise back: it would be kept on what is there by then."""
    log, disk = PromiseLog(tmp_path / "log", Deletion), Disk()
    log.open()

    async def main() -> None:
        for key in ("a", "b", *(["c"] if left == "others" else [])):
            log.add(key, ("etag", 1))
        log.done("a")
        log.done("b")
        await log.settle("never promised", disk.run)
        assert not disk.synced
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.settle, "a", disk.run)
            nursery.start_soon(log.settle, "b", disk.run)
        assert disk.synced == 1
        await log.settle("a", disk.run)
        assert disk.synced == 1

    trio.run(main)
    log.close()


def test_who_takes_the_place_of_what_the_disk_keeps_promised_is_told_so(tmp_path: Path) -> None:
    log, disk = PromiseLog(tmp_path / "log", Deletion), Disk()
    log.open()
    log.add("a", ("etag", 1))
    log.add("b", ("etag", 1))

    async def main() -> None:
        with room_for(0):
            log.done("a")
            with pytest.raises(OSError, match="too large"):
                await log.settle("a", disk.run)
        await log.settle("a", disk.run)

    trio.run(main)
    log.close()
    assert [deletion.key for deletion in PromiseLog(tmp_path / "log", Deletion).open()] == ["b"]


def test_what_is_done_is_not_remembered_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promise_log, "UNSYNCED", 10)
    log = PromiseLog(tmp_path / "log", Deletion)
    log.open()
    for n in range(100):
        log.add(f"key{n}", ("etag", n))
        log.done(f"key{n}")
        assert len(log._unsynced) <= 10

    async def main() -> None:
        for _ in range(2):
            await log.settle("key5", disk.run)  # which it may be
            assert disk.synced == 1

    disk = Disk()
    trio.run(main)
    log.close()


def test_what_was_promised_before_is_brought_to_the_disk_though_the_log_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = PromiseLog(path, Deletion)
    log.open()
    before = path.stat().st_ino
    sync = log.syncing()
    while path.stat().st_ino == before:
        log.add("key", ("x" * 10_000, 1))
    sync()
    log.syncing()()
    log.close()
    assert [deletion.key for deletion in PromiseLog(path, Deletion).open()] == ["key"]
