"""Deliveries that fail half-way, find the disk full or get no answer: nothing is lost, and the next try gets there."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from tests.content.memory_bucket import CUT, LOST
from tests.content.room import Bucket, new, room, run, until
from tests.content.test_writer import letters
from zosfs.content import staging
from zosfs.content.content import Content
from zosfs.content.writer import Writer
from zosfs.errors import StoreError

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
    monkeypatch.setattr(staging, "PATIENCE", 3)

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
