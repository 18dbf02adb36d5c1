"""Deliveries that fail half-way, find the disk full or get no answer: nothing is lost, and the next try gets there."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.content.memory_bucket import CUT, LOST
from tests.content.room import Bucket, new, room, run, until
from tests.content.test_writer import edit_beyond_the_cache, letters, write_beyond_the_cache
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


# -- bytes that are in an unfinished upload only -----------------------------------------------------------------------


async def beyond_the_cache(content: Content, bucket: Bucket, kind: str) -> tuple[Writer, bytearray]:
    if kind == "stream":
        writer, data = await write_beyond_the_cache(content)
        await writer.write(400, b"more!")
        return writer, data + b"more!"
    return await edit_beyond_the_cache(content, bucket, 400 if kind == "edit" else 0)


@pytest.mark.parametrize("kind", ["stream", "edit", "new edit"])
@pytest.mark.parametrize("fault", [LOST, CUT])
@pytest.mark.parametrize("change", ["nothing", "written", "grown", "cut", "emptied", "headers"])
def test_a_completion_without_an_answer_and_then_a_change(tmp_path: Path, kind: str, fault: str, change: str) -> None:
    async def main() -> None:
        bucket = Bucket()
        async with room(bucket, tmp_path, cache_size=100) as content:
            writer, data = await beyond_the_cache(content, bucket, kind)
            await until(lambda: not writer.arriving)
            bucket.faults = {"complete_upload": [fault], "head": [None, CUT]}
            with pytest.raises(StoreError):
                await writer.deliver()
            bucket.faults.clear()
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
