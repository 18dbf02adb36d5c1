"""Staged files against a reference: bytes, what is dirty and present, and the budget, in memory and on the disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.content.room import run
from zosfs.content import staging
from zosfs.content.ranges import Ranges
from zosfs.content.staging import DiskBudget, StagedFile
from zosfs.counters import Counters
from zosfs.store.api import FileSlice
from zosfs.threads import ThreadPool


def made(directory: Path, limit: int = 1 << 30) -> tuple[StagedFile, DiskBudget]:
    budget = DiskBudget(directory, limit, 0, Counters())
    return StagedFile(directory, "staged", budget, ThreadPool("test", 2)), budget


operations = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["write", "keep"]), st.integers(0, 200), st.binary(min_size=1, max_size=60)),
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
                case ("write", offset, data):
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
