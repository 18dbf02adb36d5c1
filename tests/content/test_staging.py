"""Staged files against a reference: bytes, what is dirty and present, and the budget, in memory and on the disk."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.content.room import run, until
from zosfs.content import staging
from zosfs.content.disk_budget import DiskBudget, WritePace
from zosfs.content.ranges import Ranges
from zosfs.content.staging import StagedFile
from zosfs.counters import Counters
from zosfs.store.api import FileSlice
from zosfs.threads import ThreadPool


def made(directory: Path, limit: int = 1 << 30) -> tuple[StagedFile, DiskBudget]:
    budget = DiskBudget(directory, limit, 0, Counters())
    return StagedFile(directory, "staged", budget, ThreadPool("test", 2)), budget


operations = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["write", "write now", "keep"]), st.integers(0, 200), st.binary(min_size=1, max_size=60)),
        st.tuples(st.just("truncate"), st.integers(0, 200)),
        st.tuples(st.just("copy")),
        st.tuples(st.just("shed")),
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(operations, st.sampled_from([0, 50, 1 << 16]), st.sampled_from([4, 1 << 17]))
def test_any_history_equals_the_reference(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[Any, ...]], small: int, inline: int
) -> None:
    directory = tmp_path_factory.mktemp("staged")

    async def main() -> None:
        file, budget = made(directory)
        bytes_, dirty, present = {}, set[int](), set[int]()
        for number, operation in enumerate(history):
            match operation:
                case ("write" | "write now", offset, data):
                    if operation[0] == "write" or not file.write_now(offset, data):
                        await file.write(offset, data)
                    for at, byte in enumerate(data, offset):
                        bytes_[at] = byte
                        dirty.add(at)
                        present.add(at)
                case ("keep", offset, data):
                    await file.keep(offset, data)
                    for at, byte in enumerate(data, offset):
                        if at not in present:
                            bytes_[at] = byte
                            present.add(at)
                case ("truncate", size):
                    await file.truncate(size)
                    dirty = {at for at in dirty if at < size}
                    present = {at for at in present if at < size}
                case ("copy",):
                    twin = await file.copy_to(directory / f"copy{number}")
                    file.close(remove=True)
                    file = twin
                case ("shed",):
                    if file.shed(Ranges()):
                        present = dirty.copy()
            assert {at for a, b in file.dirty for at in range(a, b)} == dirty
            assert {at for a, b in file.present for at in range(a, b)} == present
            content = file.read(0, 400)
            assert all(content[at] == bytes_[at] for at in present)
            assert budget.used == file.counted == len(present)
        file.close(remove=True)
        assert budget.used == budget.in_memory == 0
        assert os.listdir(directory) == []

    before = staging.SMALL, staging.INLINE
    staging.SMALL, staging.INLINE = small, inline
    try:
        run(main)
    finally:
        staging.SMALL, staging.INLINE = before


def test_what_is_on_the_disk_is_written_at_once_while_the_page_cache_takes_it_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        file, budget = made(tmp_path)
        await file.write(0, b"x" * 100_000)
        assert file.write_now(100_000, b"y" * 1000)
        assert file.read(99_999, 2) == b"xy"
        file.lend(0, 10)
        assert not file.write_now(5, b"z")
        file.give_back(0, 10)
        now = time.monotonic()
        budget.pace.took(now - 1, now, waited=True)
        assert not file.write_now(5, b"z"), "the disk is slow: the trio thread does not wait for it"
        assert file.read(5, 1) == b"x"
        await file.write(5, b"z")
        assert file.read(5, 1) == b"z"
        assert budget.used == file.counted == 101_000
        file.close(remove=True)

    run(main)


def test_a_write_that_the_disk_refuses_at_once_counts_for_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        file, budget = made(tmp_path)
        await file.write(0, b"x" * 100_000)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        refused = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, before[1]))
            assert not file.write_now(150_000, b"y" * 1000)
            assert budget.used == file.counted == file.present.total == 100_000
            with pytest.raises(OSError, match="too large"):
                await file.write(150_000, b"y" * 1000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, refused)
        file.close(remove=True)

    run(main)


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0, 2), st.booleans()), max_size=20))
def test_after_a_write_that_had_to_wait_the_next_ones_are_not_expected_to_be_prompt(writes: list[tuple[float, float, bool]]) -> None:
    pace, now, again = WritePace(), 100.0, 0.0
    for pause, took, waited in writes:
        now += pause
        assert pace.prompt(now) == (now >= again)
        pace.took(now, now + took, waited=waited)
        now += took
        if waited and took > WritePace.SLOW + 1e-9:
            again = now + WritePace.PAUSE
    assert pace.prompt(now + WritePace.PAUSE)


def test_a_small_file_is_memory_and_a_large_one_is_not(tmp_path: Path) -> None:
    async def main() -> None:
        file, budget = made(tmp_path)
        await file.write(0, b"x" * 1000)
        assert file.image == b"x" * 1000
        assert file.lend(0, 1002) == (b"x" * 1000, b"\0\0")
        file.give_back(0, 1002)
        assert os.listdir(tmp_path) == []
        await file.write(100_000, b"y")
        assert file.image is None
        assert budget.in_memory == 0
        (piece,) = file.lend(0, 100_001)
        assert isinstance(piece, FileSlice)
        assert os.stat(tmp_path / "staged").st_mode & 0o777 == 0o600

    run(main)


@pytest.mark.parametrize("size", [100, staging.SMALL + 1])
def test_a_closed_file_has_no_bytes_rather_than_zeros(tmp_path: Path, size: int) -> None:
    async def body() -> None:
        file, budget = made(tmp_path)
        await file.write(0, b"x" * size)
        file.close(remove=True)
        for ask in (lambda: file.read(0, size), lambda: file.lend(0, size)):
            with pytest.raises(OSError, match="Bad file descriptor"):
                ask()
        assert not file.write_now(0, b"y")
        with pytest.raises(OSError, match="Bad file descriptor"):
            await file.write(0, b"y")
        assert budget.in_memory == 0

    run(body)


def test_what_is_held_or_sent_is_not_written(tmp_path: Path) -> None:
    async def main() -> None:
        file, _ = made(tmp_path)
        await file.write(0, b"a" * 100)
        file.hold(50)
        file.lend(60, 70)
        done: list[str] = []

        async def write(name: str, offset: int) -> None:
            await file.write(offset, b"b" * 10)
            done.append(name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, "held", 45)
            nursery.start_soon(write, "sent", 65)
            nursery.start_soon(write, "free", 80)
            await trio.testing.wait_all_tasks_blocked()
            assert done == ["free"]
            file.give_back(60, 70)
            await trio.testing.wait_all_tasks_blocked()
            assert done == ["free", "sent"]
            file.release()
        assert done == ["free", "sent", "held"]

    run(main)


def test_a_full_disk_is_enospc_and_nothing_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        file, budget = made(tmp_path)
        await file.write(0, b"x" * 100_000)

        def full(*_: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "pwrite", full)
        for length in (10, 300_000):
            with pytest.raises(OSError, match="No space") as caught:
                await file.write(200_000, b"y" * length)
            assert caught.value.errno == errno.ENOSPC
            assert budget.used == 100_000
        assert file.dirty.to_list() == [[0, 100_000]]

    run(main)


class Watched(DiskBudget):
    """A budget that is never overrun."""

    def take(self, n: int) -> None:
        super().take(n)
        assert self.used <= self._limit, "more is used than may be"


def test_a_write_counts_what_it_replaces_anew_after_it_waited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "SMALL", 0)

    async def main() -> None:
        budget = Watched(tmp_path, 100, 0, Counters())
        staged = StagedFile(tmp_path, "one", budget, ThreadPool("disk", 2))
        await staged.keep(0, b"c" * 60)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(staged.write, 40, b"1" * 80)
            nursery.start_soon(staged.write, 150, b"2" * 40)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert staged.shed(Ranges()) == 60
            await until(lambda: budget.used)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert staged.present.total <= budget.used <= 100
            nursery.cancel_scope.cancel()
        assert budget.used == staged.present.total

    run(main)


steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["write", "write now", "fetch"]), st.integers(0, 180), st.integers(1, 60)),
        st.tuples(st.sampled_from(["shed", "punch"]), st.integers(0, 180), st.integers(1, 60)),
        st.tuples(st.sampled_from(["lend", "give back", "hold", "let go", "cut"]), st.integers(0, 180), st.integers(1, 60)),
    ),
    max_size=12,
)


@settings(max_examples=100, deadline=None)
@given(steps, st.booleans())
def test_the_disk_budget_is_kept_to_the_byte(history: list[tuple[str, int, int]], in_memory: bool) -> None:
    async def main(directory: Path) -> None:
        budget = Watched(directory, 100, 0, Counters())
        threads = ThreadPool("disk", 2)
        staged = StagedFile(directory, "one", budget, threads)
        lent: list[tuple[int, int]] = []

        async def put(verb: str, offset: int, length: int) -> None:
            with contextlib.suppress(OSError):
                await (staged.write if verb == "write" else staged.keep)(offset, bytes([65]) * length)

        async with trio.open_nursery() as nursery:
            for verb, at, length in history:
                match verb:
                    case "write" | "fetch":
                        nursery.start_soon(put, verb, at, length)
                    case "write now":
                        staged.write_now(at, bytes([65]) * length)
                    case "shed":
                        staged.shed(Ranges([(at, at + length)]))
                    case "punch":
                        staged.punch(at, at + length)
                        staged.dirty.remove(at, at + length)
                    case "lend":
                        lent.append((at, at + length))
                        staged.lend(at, at + length)
                    case "give back" if lent:
                        staged.give_back(*lent.pop())
                    case "hold":
                        staged.hold(at)
                    case "let go":
                        staged.release()
                    case "cut":
                        staged.dirty.truncate(at)
                        if not (lent or staged._held or staged._busy):
                            await staged.truncate(at)
                await trio.testing.wait_all_tasks_blocked(0.001)
                assert budget.used <= 100
            staged.release()
            for span in lent:
                staged.give_back(*span)
            await trio.testing.wait_all_tasks_blocked(0.001)
            nursery.cancel_scope.cancel()
        assert budget.used == staged.counted == staged.present.total
        staged.close(remove=True)
        assert budget.used == 0
        threads.close()

    directory = Path(tempfile.mkdtemp(prefix="zosfs-staged-"))
    before = staging.SMALL, staging.INLINE
    if not in_memory:
        staging.SMALL, staging.INLINE = 0, 8
    try:
        run(lambda: main(directory))
    finally:
        staging.SMALL, staging.INLINE = before
        shutil.rmtree(directory)
