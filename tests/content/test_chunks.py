"""The chunk cache on a real disk: what was written comes back, over restarts, within its limit; damage is noticed."""

from __future__ import annotations

import json
import os
import pickle
import random
import sqlite3
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import diskcache
import pytest
import trio
import trio.testing

from zosfs.content import chunks as module
from zosfs.content.chunk_table import SEGMENT
from zosfs.content.chunks import ChunkCache
from zosfs.content.disk import JsonDisk
from zosfs.content.ranges import Ranges
from zosfs.counters import Counters
from zosfs.store.api import ObjectInfo

MIB = 1 << 20


def version(key: str = "k", size: int = 8 * MIB, etag: str = "e1") -> ObjectInfo:
    return ObjectInfo(key, size, etag, 10**18)


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def run(directory: Path, body: Callable[[ChunkCache], Awaitable[Any]], limit: int = 1 << 30, **more: Any) -> Any:
    """One life of a cache: started, used by *body*, closed."""

    async def main() -> Any:
        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                cache = ChunkCache(directory, limit, 0, Counters(), **more)
                await cache.start(nursery)
                result = await body(cache)
                await cache.aclose()
                nursery.cancel_scope.cancel()
                return result

    return trio.run(main)


async def put(cache: ChunkCache, info: ObjectInfo, start: int, data: bytes) -> None:
    assert cache.write(info, start, memoryview(data))
    await cache.settle()


def test_what_was_taken_last_is_there_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LAST", 60.0)
    data = noise(3 * MIB)

    async def first(cache: ChunkCache) -> None:
        assert cache.write(version(), 0, memoryview(data))

    async def second(cache: ChunkCache) -> None:
        assert await cache.read(version(), 0, len(data)) == data

    run(tmp_path / "chunks", first)
    run(tmp_path / "chunks", second)


def test_what_was_written_comes_back_after_a_restart(tmp_path: Path) -> None:
    data = noise(3 * MIB)

    async def first(cache: ChunkCache) -> None:
        await put(cache, version(), MIB, data)
        assert cache.used == len(data)
        assert await cache.read(version(), MIB + 5, MIB + 105) == data[5:105]

    async def second(cache: ChunkCache) -> None:
        assert cache.used == len(data)
        assert cache.missing(version(), 0, 8 * MIB) == [(0, MIB), (4 * MIB, 8 * MIB)]
        assert await cache.read(version(), MIB, 4 * MIB) == data
        assert await cache.read(version(), 2 * MIB, 3 * MIB) == data[MIB : 2 * MIB]
        assert await cache.read(version(), 0, 2 * MIB) is None

    run(tmp_path / "chunks", first)
    run(tmp_path / "chunks", second)
    for folder, _, names in os.walk(tmp_path / "chunks"):
        assert stat.S_IMODE(os.stat(folder).st_mode) & 0o077 == 0 or folder != str(tmp_path / "chunks")
        for name in names:
            assert not pickled(Path(folder, name))


def pickled(path: Path) -> bool:
    return path.suffix == ".val" and path.read_bytes()[:1] == pickle.dumps(0)[:1]


def test_another_version_is_another_file(tmp_path: Path) -> None:
    async def body(cache: ChunkCache) -> None:
        await put(cache, version(), 0, b"old" * 1000)
        assert not cache.has(version(etag="e2"), 0, 10)
        assert not cache.has(version(size=9 * MIB), 0, 10)
        await put(cache, version(etag="e2"), 0, b"new" * 1000)
        assert await cache.read(version(etag="e2"), 0, 6) == b"newnew"
        assert not cache.has_any(version())
        assert cache.used == 3000

    run(tmp_path / "chunks", body)


def test_no_etag_no_cache(tmp_path: Path) -> None:
    async def body(cache: ChunkCache) -> None:
        assert not cache.write(version(etag=""), 0, memoryview(b"abc"))

    run(tmp_path / "chunks", body)


def test_drop_forgets_on_disk_too(tmp_path: Path) -> None:
    async def first(cache: ChunkCache) -> None:
        await put(cache, version("a"), 0, b"a" * 5000)
        await put(cache, version("b"), 0, b"b" * 5000)
        cache.drop("a")
        assert cache.used == 5000

    async def second(cache: ChunkCache) -> list[bool]:
        return [cache.has_any(version("a")), cache.has_any(version("b"))]

    run(tmp_path / "chunks", first)
    assert run(tmp_path / "chunks", second) == [False, True]
    assert len([name for _, _, names in os.walk(tmp_path / "chunks" / "files") for name in names]) == 1


def test_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    async def body(cache: ChunkCache) -> list[bool]:
        for name in "abcd":
            await put(cache, version(name, 2 * MIB), 0, noise(2 * MIB))
        assert await cache.read(version("a", 2 * MIB), 0, 4096)
        await put(cache, version("e", 2 * MIB), 0, noise(2 * MIB))
        assert cache.used <= 8 * MIB
        return [cache.has_any(version(name, 2 * MIB)) for name in "abcde"]

    assert run(tmp_path / "chunks", body, limit=8 * MIB) == [True, False, True, True, True]


def test_a_file_larger_than_the_cache_is_kept_in_part(tmp_path: Path) -> None:
    info = version(size=4 * SEGMENT)
    piece = noise(8 * MIB)

    async def body(cache: ChunkCache) -> None:
        for start in range(0, 4 * SEGMENT, len(piece)):
            await put(cache, info, start, piece)
            assert cache.used <= 2 * SEGMENT
        assert not cache.has(info, 0, 1)
        assert await cache.read(info, 4 * SEGMENT - len(piece), 4 * SEGMENT) == piece
        path = next(Path(folder, name) for folder, _, names in os.walk(tmp_path / "chunks" / "files") for name in names)
        assert os.stat(path).st_blocks * 512 <= 2 * SEGMENT + MIB

    run(tmp_path / "chunks", body, limit=2 * SEGMENT)


def test_staged_bytes_count_too(tmp_path: Path) -> None:
    staged = 0

    async def body(cache: ChunkCache) -> None:
        nonlocal staged
        await put(cache, version("a", 4 * MIB), 0, noise(4 * MIB))
        staged = 6 * MIB
        await put(cache, version("b", MIB), 0, noise(MIB))
        assert cache.used <= 2 * MIB

    run(tmp_path / "chunks", body, limit=8 * MIB, elsewhere=lambda: staged)


def test_a_staged_file_becomes_the_cached_version(tmp_path: Path) -> None:
    data = noise(MIB)
    staged = tmp_path / "staged"
    staged.write_bytes(data)
    info = version(size=3 * MIB, etag="new")

    async def first(cache: ChunkCache) -> None:
        await put(cache, version(etag="old"), 0, b"old")
        assert await cache.adopt(staged, info, Ranges([(0, MIB)]))
        assert not staged.exists()
        assert not cache.has_any(version(etag="old"))
        assert await cache.read(info, 0, MIB) == data
        assert cache.used == MIB

    async def second(cache: ChunkCache) -> None:
        assert await cache.read(info, 0, MIB) == data
        assert not cache.has(info, MIB, MIB + 1)

    run(tmp_path / "chunks", first)
    run(tmp_path / "chunks", second)


def test_a_damaged_index_starts_anew(tmp_path: Path) -> None:
    async def fill(cache: ChunkCache) -> None:
        await put(cache, version(), 0, noise(MIB))

    async def empty(cache: ChunkCache) -> None:
        assert cache.enabled
        assert cache.used == 0
        assert not cache.has_any(version())
        await put(cache, version(), 0, b"again")
        assert await cache.read(version(), 0, 5) == b"again"

    run(tmp_path / "chunks", fill)
    database = tmp_path / "chunks" / "index" / "cache.db"
    raw = bytearray(database.read_bytes())
    raw[100:8000] = os.urandom(7900)
    database.write_bytes(raw)
    run(tmp_path / "chunks", empty)


def test_a_lying_index_starts_anew(tmp_path: Path) -> None:
    async def fill(cache: ChunkCache) -> None:
        await put(cache, version(), 0, noise(MIB))

    async def empty(cache: ChunkCache) -> None:
        assert not cache.has_any(version())

    run(tmp_path / "chunks", fill)
    with sqlite3.connect(tmp_path / "chunks" / "index" / "cache.db") as database:
        (text,) = database.execute("SELECT value FROM Cache WHERE key != 'format'").fetchone()
        record = json.loads(text)
        record["key"] = "another"
        database.execute("UPDATE Cache SET value = ? WHERE key != 'format'", (json.dumps(record),))
    database.close()
    run(tmp_path / "chunks", empty)


def test_a_shortened_file_is_not_believed(tmp_path: Path) -> None:
    async def fill(cache: ChunkCache) -> None:
        await put(cache, version(), 0, noise(MIB))

    async def empty(cache: ChunkCache) -> None:
        assert not cache.has_any(version())

    async def shortened(cache: ChunkCache) -> None:
        await put(cache, version(), 0, noise(MIB))
        os.truncate(path(), 1000)
        assert await cache.read(version(), 0, MIB) is None
        assert not cache.has_any(version())

    def path() -> Path:
        return next(Path(folder, name) for folder, _, names in os.walk(tmp_path / "chunks" / "files") for name in names)

    run(tmp_path / "chunks", fill)
    os.truncate(path(), 1000)
    run(tmp_path / "chunks", empty)
    run(tmp_path / "chunks", shortened)


def test_after_a_power_cut_only_what_was_synced_counts(tmp_path: Path) -> None:
    async def fill(cache: ChunkCache) -> None:
        await put(cache, version("synced"), 0, b"s" * 100)
        await cache._commit(sync=True)
        await put(cache, version("unsynced"), 0, b"u" * 100)

    async def look(cache: ChunkCache) -> list[bool]:
        return [cache.has_any(version("synced")), cache.has_any(version("unsynced"))]

    run(tmp_path / "chunks", fill)
    assert run(tmp_path / "chunks", look) == [True, True]
    with sqlite3.connect(tmp_path / "chunks" / "index" / "cache.db") as database:  # as another boot would find it
        rows = database.execute("SELECT rowid, value FROM Cache WHERE key != 'format'").fetchall()
        for rowid, text in rows:
            record = json.loads(text)
            record["boot"] = record["boot"] and "an earlier boot"
            database.execute("UPDATE Cache SET value = ? WHERE rowid = ?", (json.dumps(record), rowid))
    database.close()
    assert run(tmp_path / "chunks", look) == [True, False]


def test_a_full_queue_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUEUED", 100)

    async def body(cache: ChunkCache) -> None:
        assert cache.write(version("a"), 0, memoryview(b"x" * 60))
        assert not cache.write(version("b"), 0, memoryview(b"x" * 60))
        await cache.settle()
        assert cache.write(version("b"), 0, memoryview(b"x" * 60))

    run(tmp_path / "chunks", body)


def test_small_pieces_are_written_together_and_at_once_when_somebody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[int] = []
    write_all = module.write_all

    def counted(jobs: list[tuple[int, int, memoryview]]) -> None:
        batches.append(len(jobs))
        write_all(jobs)
        if len(batches) == 2:
            trio.from_thread.run_sync(second.set, trio_token=tokens[0])

    tokens: list[trio.lowlevel.TrioToken] = []
    second = trio.Event()
    monkeypatch.setattr(module, "write_all", counted)
    monkeypatch.setattr(module, "GATHERED", 3600.0)

    async def body(cache: ChunkCache) -> None:
        tokens.append(trio.lowlevel.current_trio_token())
        for n in range(40):
            assert cache.write(version("a"), n * 4096, memoryview(noise(4096, n)))
            await trio.testing.wait_all_tasks_blocked()
        assert batches == [], "nobody waits for so few bytes"
        await cache.settle()
        assert batches == [40]
        for n in range(module.SOME):
            assert cache.write(version(f"b{n}"), 0, memoryview(b"x"))
            await trio.testing.wait_all_tasks_blocked()
        await second.wait()
        assert batches == [40, module.SOME]

    run(tmp_path / "chunks", body)


def test_a_directory_open_to_others_is_closed(tmp_path: Path) -> None:
    (tmp_path / "chunks").mkdir(mode=0o755)

    async def body(cache: ChunkCache) -> None:
        assert stat.S_IMODE(os.stat(tmp_path / "chunks").st_mode) == 0o700

    run(tmp_path / "chunks", body)


def test_a_directory_that_cannot_be_made_means_no_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    async def body(cache: ChunkCache) -> None:
        assert not cache.enabled
        assert not cache.write(version(), 0, memoryview(b"x"))
        assert await cache.read(version(), 0, 1) is None

    run(tmp_path / "file" / "chunks", body)


def test_the_index_never_unpickles(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "evil"),))

    with diskcache.Cache(str(tmp_path / "index")) as plain:
        plain["a"] = Evil()
    with diskcache.Cache(str(tmp_path / "index"), disk=JsonDisk) as cache, pytest.raises(ValueError, match="not text"):
        cache.get("a")
    assert not (tmp_path / "evil").exists()
    with diskcache.Cache(str(tmp_path / "other"), disk=JsonDisk) as cache:
        cache["long"] = {"text": "ü" * 100_000}
        assert cache["long"] == {"text": "ü" * 100_000}
        with pytest.raises(TypeError):
            cache["object"] = Evil()
        with pytest.raises(ValueError, match="keys are str"):
            cache[(1, 2)] = 1
