"""Small versions of the chunk cache share files: their bytes stay their own, and the disk gets back what nobody has any more."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.content.test_chunks import run, version
from zosfs.content import chunk_files, chunk_packs
from zosfs.content import chunks as module
from zosfs.content.chunk_files import OPEN_FILES, write_all
from zosfs.content.chunk_packs import PACKED, gaps, room
from zosfs.content.chunk_table import SEGMENT
from zosfs.content.chunks import SOME, ChunkCache
from zosfs.content.ranges import Ranges
from zosfs.counters import Counters
from zosfs.store.api import ObjectInfo

KIB = 1 << 10
MIB = 1 << 20
spans = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 10)).map(lambda found: (found[0], found[0] + found[1])), max_size=8)


def small(key: str, size: int = 5000, etag: str = "e1") -> ObjectInfo:
    return version(key, size, etag)


def body_of(info: ObjectInfo) -> bytes:
    return random.Random(f"{info.key} {info.etag}").randbytes(info.size)


def several(n: int, size: int = 5000, etag: str = "e1") -> list[ObjectInfo]:
    return [small(f"k{at}", size, etag) for at in range(n)]


async def fill(cache: ChunkCache, infos: Sequence[ObjectInfo]) -> None:
    for info in infos:
        assert cache.write(info, 0, memoryview(body_of(info)))
    await cache.settle()


async def all_right(cache: ChunkCache, infos: Sequence[ObjectInfo]) -> list[str]:
    """The keys of the versions that are here; their bytes are checked."""
    here = []
    for info in infos:
        data = await cache.read(info, 0, info.size)
        assert data in (None, body_of(info)), f"{info.key} has other bytes"
        here += [info.key] if data is not None else []
    return here


def files(directory: Path, pattern: str = "*/*") -> list[Path]:
    return sorted((directory / "files").glob(pattern))


def packs(directory: Path) -> list[Path]:
    return files(directory, "pa/pack*")


def on_disk(directory: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in files(directory))


def takes(directory: Path, n: int) -> bool:
    """Whether the files take *n* bytes of the disk, and at most the block that a file in many pieces needs besides."""
    return n <= on_disk(directory) <= n + 4096 * len(files(directory))


def killed(directory: Path, body: Callable[[ChunkCache], Awaitable[Any]], limit: int = 1 << 30) -> None:
    """A life of a cache that nothing is written down at the end of."""

    async def main() -> None:
        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                cache = ChunkCache(directory, limit, 0, Counters())
                await cache.start(nursery)
                await body(cache)
                nursery.cancel_scope.cancel()
        cache._files.close_all()

    trio.run(main)


@contextmanager
def records(directory: Path) -> Iterator[dict[str, dict[str, Any]]]:
    """The index's records by key; what is changed of them within is written."""
    with sqlite3.connect(directory / "index" / "cache.db") as database:
        rows = database.execute("SELECT rowid, value FROM Cache WHERE key != 'format'").fetchall()
        found = {json.loads(text)["key"]: (rowid, json.loads(text)) for rowid, text in rows}
        yield {key: record for key, (_, record) in found.items()}
        for rowid, record in found.values():
            database.execute("UPDATE Cache SET value = ? WHERE rowid = ?", (json.dumps(record), rowid))
    database.close()


@given(spans, st.integers(0, 60))
def test_gaps_are_what_no_span_has(taken: list[tuple[int, int]], end: int) -> None:
    positions = [at for low, high in taken for at in range(low, high)]
    if len(positions) != len(set(positions)):
        with pytest.raises(ValueError, match="one place"):
            gaps(taken, end)
    else:
        assert sorted(at for low, high in gaps(taken, end) for at in range(low, high)) == sorted(set(range(end)) - set(positions))


def test_small_versions_share_a_file_and_come_back_after_restarts(tmp_path: Path) -> None:
    first = [small(f"a{size}", size) for size in (1, 4095, 4096, 4097, 60_000, 64 * KIB, PACKED)] + several(200)
    second = [*several(100, etag="e2"), small("own", PACKED + 1)]

    async def one(cache: ChunkCache) -> None:
        await fill(cache, first)
        assert len(await all_right(cache, first)) == len(first)

    async def two(cache: ChunkCache) -> None:
        assert len(await all_right(cache, first)) == len(first)
        await fill(cache, second)

    async def three(cache: ChunkCache) -> None:
        left = first[:7] + first[107:]
        assert await all_right(cache, first) == [info.key for info in left], "another version takes the place"
        assert len(await all_right(cache, second)) == len(second)
        assert cache.used == sum(info.size for info in left + second)
        assert cache.status()["files"] == len(left) + len(second)

    directory = tmp_path / "chunks"
    run(directory, one)
    assert len(files(directory)) == len(packs(directory)) == 1
    run(directory, two)
    run(directory, three)
    assert (len(files(directory)), len(packs(directory))) == (3, 2)


def test_parts_of_a_small_version_are_told_of_as_parts(tmp_path: Path) -> None:
    info = small("k", 20_000)
    data = body_of(info)

    async def first(cache: ChunkCache) -> None:
        await fill(cache, [small("before", 100)])
        assert cache.write(info, 8192, memoryview(data)[8192:12_288])
        await cache.settle()
        assert cache.write(info, 4000, memoryview(data)[4000:8192])
        assert cache.write(info, 19_000, memoryview(data)[19_000:])
        await cache.settle()
        await fill(cache, [small("after", 100)])

    async def second(cache: ChunkCache) -> None:
        assert cache.missing(info, 0, 20_000) == [(0, 4000), (12_288, 19_000)]
        assert await cache.read(info, 4000, 12_288) == data[4000:12_288]
        assert await cache.read(info, 19_000, 20_000) == data[19_000:]
        assert len(await all_right(cache, [small("before", 100), small("after", 100)])) == 2

    run(tmp_path / "chunks", first)
    run(tmp_path / "chunks", second)


def test_bytes_beyond_a_version_are_refused(tmp_path: Path) -> None:
    async def body(cache: ChunkCache) -> None:
        await fill(cache, several(2, 4096))
        assert not cache.write(small("k0", 4096), 0, memoryview(b"x" * 4097))
        assert not cache.write(small("k0", 4096), 4096, memoryview(b"x"))
        await cache.settle()
        assert len(await all_right(cache, several(2, 4096))) == 2

    run(tmp_path / "chunks", body)


def test_what_follows_in_a_file_is_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    pwritev = os.pwritev

    def counted(fd: int, views: Sequence[memoryview], offset: int) -> int:
        calls.append(len(views))
        return pwritev(fd, views, offset)

    monkeypatch.setattr(os, "pwritev", counted)

    async def body(cache: ChunkCache) -> None:
        await fill(cache, several(SOME))
        assert len(await all_right(cache, several(SOME))) == SOME

    run(tmp_path / "chunks", body)
    assert calls == [2 * SOME]


def test_rows_of_views_are_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwritev = os.pwritev

    def short(fd: int, views: Sequence[memoryview], offset: int) -> int:
        return pwritev(fd, views if len(views[0]) < 700 else [views[0][:700]], offset)

    monkeypatch.setattr(os, "pwritev", short)
    data = random.Random(1).randbytes(3 * MIB)
    cuts = [0, 1, 600, 5000, 5000, 70_000, MIB, 2 * MIB, 2 * MIB + 10, *range(2 * MIB + 100, 2 * MIB + 9000, 5), 3 * MIB]
    jobs = []
    with open(tmp_path / "one", "w+b") as one, open(tmp_path / "two", "w+b") as two:
        for low, high in itertools.pairwise(cuts):
            jobs.append((one.fileno(), low, memoryview(data)[low:high]))
        jobs[5:5] = [(two.fileno(), 10, memoryview(b"between"))]
        write_all(jobs)
    assert (tmp_path / "one").read_bytes() == data
    assert (tmp_path / "two").read_bytes() == bytes(10) + b"between"


def test_the_trio_thread_opens_a_pack_once_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "chunks"
    monkeypatch.setattr(chunk_packs, "PACK", 256 * KIB)
    here = threading.get_ident()
    seen: list[str] = []
    watching = False

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if watching and event in ("open", "os.mkdir", "os.remove") and threading.get_ident() == here:
            seen.append(event)

    sys.addaudithook(watch)

    async def body(cache: ChunkCache) -> None:
        nonlocal watching
        await fill(cache, [small("first")])
        watching = True
        await fill(cache, several(100))
        await fill(cache, several(100, etag="e2"))
        await cache._commit(sync=True)
        await cache.evict(200_000)
        assert len(await all_right(cache, several(100, etag="e2"))) > 20
        for info in several(100):
            cache.drop(info.key)
        await cache.give_back()
        watching = False

    run(directory, body)
    made = 2 * 100 * room(5000) // (256 * KIB)
    assert set(seen) == {"open"}
    assert len(seen) <= made + 1
    assert len(packs(directory)) <= 2, "emptied packs are removed"


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_no_version_has_another_ones_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Random lives of a cache that is too small, some of which end early; from what every thread is told nothing is wrong."""
    monkeypatch.setattr(chunk_packs, "PACK", 256 * KIB)
    choose = random.Random(seed)
    known: dict[tuple[str, str], ObjectInfo] = {}
    directory = tmp_path / "chunks"

    def one_of(n: int) -> ObjectInfo:
        key, etag = f"k{choose.randrange(n)}", f"e{choose.randrange(3)}"
        return known.setdefault((key, etag), small(key, choose.choice((1, 100, 4096, 5000, 30_000, PACKED, PACKED + 1, 200_000)), etag))

    async def reader(cache: ChunkCache, info: ObjectInfo) -> None:
        low = choose.randrange(info.size)
        high = choose.randrange(low, info.size) + 1
        cache._files._nowait = choose.random() < 0.5
        data = await cache.read(info, low, high)
        assert data in (None, body_of(info)[low:high])

    async def life(cache: ChunkCache) -> None:
        await all_right(cache, list(known.values()))
        async with trio.open_nursery() as nursery:
            for _ in range(300):
                info = one_of(60)
                what = choose.random()
                if what < 0.5:
                    low = choose.choice((0, 0, choose.randrange(info.size)))
                    cache.write(info, low, memoryview(body_of(info))[low:])
                elif what < 0.8:
                    nursery.start_soon(reader, cache, info)
                elif what < 0.85:
                    cache.drop(info.key)
                elif what < 0.88:
                    nursery.start_soon(cache.evict, choose.randrange(100_000))
                elif what < 0.9:
                    nursery.start_soon(cache.give_back)
                elif what < 0.92:
                    await cache._commit(sync=choose.random() < 0.5)
                else:
                    await cache.settle()
        assert cache.used == sum(cache.held(info) for info in known.values())
        await cache.settle()
        assert cache.used <= MIB

    async def last(cache: ChunkCache) -> None:
        await all_right(cache, list(known.values()))
        held = [cache.held(info) for info in known.values()]
        assert cache.used == sum(held)
        assert on_disk(directory) <= sum(room(info.size) for info, n in zip(known.values(), held, strict=True) if n) + 256 * KIB

    for n in range(4):
        (killed if n % 2 else run)(directory, life, MIB)
    run(directory, last)


class Pause:
    """A function of worker threads that waits, before its work, until the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self._function = getattr(module, name)
        self._reached = threading.Event()
        self._go = threading.Event()
        self.result: Any = None
        monkeypatch.setattr(module, name, self)

    def __call__(self, *args: Any) -> Any:
        self._reached.set()
        assert self._go.wait(60)
        return self._function(*args)

    async def reached(self) -> None:
        assert await trio.to_thread.run_sync(self._reached.wait, 60)

    def go(self) -> None:
        self._go.set()


@pytest.mark.parametrize("how", ["drop", "version", "evict"])
def test_bytes_stay_while_a_thread_reads_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    directory = tmp_path / "chunks"
    info = small("k1", PACKED)

    async def body(cache: ChunkCache) -> None:
        await fill(cache, several(3, PACKED))
        await cache._commit(sync=True)
        pause = Pause(monkeypatch, "read_all")
        cache._files._nowait = False
        got: list[Any] = []

        async def reader() -> None:
            got.append(await cache.read(info, 0, PACKED))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader)
            await pause.reached()
            if how == "evict":
                assert await cache.evict(MIB) == 2 * PACKED, "what is read is not evicted"
                assert cache.has(info, 0, PACKED)
                cache.drop("k1")
            elif how == "version":
                await fill(cache, [small("k1", 4096, "e2")])
            else:
                cache.drop("k1")
            assert not cache.has_any(info)
            assert await cache.read(info, 0, PACKED) is None
            await cache._commit(sync=True)
            assert on_disk(directory) >= PACKED, "the reader still needs them"
            pause.go()
        assert got == [body_of(info)]
        before = on_disk(directory)
        await cache.give_back()
        assert on_disk(directory) <= before - PACKED

    run(directory, body)


def test_a_version_dropped_while_it_is_written_stays_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "chunks"
    again = small("k1", PACKED, "e2")

    async def body(cache: ChunkCache) -> None:
        pause = Pause(monkeypatch, "write_all")
        for info in several(3, PACKED):
            assert cache.write(info, 0, memoryview(body_of(info)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cache.settle)
            await pause.reached()
            cache.drop("k1")
            await cache._commit(sync=True)
            assert cache.write(again, 0, memoryview(body_of(again)))
            pause.go()
        await cache.settle()
        assert await all_right(cache, [*several(3, PACKED), again]) == ["k0", "k2", "k1"]
        assert cache.used == 3 * PACKED
        assert on_disk(directory) >= 4 * PACKED
        await cache.give_back()
        assert on_disk(directory) <= 3 * PACKED + 4096

    run(directory, body)


def test_the_least_recently_used_goes_first_and_the_disk_gets_its_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "chunks"
    monkeypatch.setattr(chunk_packs, "PACK", MIB)
    infos = several(64, 32 * KIB)

    async def body(cache: ChunkCache) -> None:
        await fill(cache, infos)
        assert cache.used == 2 * MIB
        kept = infos[::4]
        for info in kept:
            assert await cache.read(info, 0, 4096)
        assert await cache.evict(1536 * KIB) == 1536 * KIB
        assert await all_right(cache, infos) == [info.key for info in kept]
        assert cache.used == 512 * KIB
        assert takes(directory, cache.used)
        await fill(cache, [small("next", 32 * KIB)])
        assert await cache.evict(256 * KIB) == 256 * KIB
        assert cache.used == 288 * KIB
        assert takes(directory, cache.used)
        assert len(packs(directory)) == 2, "what nothing is left of is removed"
        assert await cache.evict(MIB) == 288 * KIB
        assert cache.used == 0
        assert takes(directory, cache.used)
        assert len(packs(directory)) == 1, "the one to write on"

    run(directory, body)


@pytest.mark.parametrize("early", [True, False])
def test_what_a_cancelled_eviction_leaves_is_given_back_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, early: bool) -> None:
    directory = tmp_path / "chunks"
    monkeypatch.setattr(chunk_packs, "PACK", 2 * PACKED)

    async def body(cache: ChunkCache) -> None:
        await fill(cache, several(7, PACKED))
        for n in (1, 3, 5):
            assert await cache.read(several(7, PACKED)[n], 0, 10)
        with trio.CancelScope() as scope:
            if early:
                scope.cancel()
            else:
                punch = chunk_packs.punch

                def cancelling(fd: int, holes: Sequence[tuple[int, int]]) -> bool:
                    trio.from_thread.run_sync(scope.cancel, trio_token=token)
                    return punch(fd, holes)

                token = trio.lowlevel.current_trio_token()
                monkeypatch.setattr(chunk_packs, "punch", cancelling)
            await cache.evict(3 * PACKED)
        assert scope.cancelled_caught
        assert on_disk(directory) > cache.used == 4 * PACKED
        monkeypatch.undo()
        await cache.give_back()
        assert takes(directory, cache.used)

    run(directory, body)


def test_the_limit_holds_for_what_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "chunks"

    async def body(cache: ChunkCache) -> None:
        for n in range(30):
            await fill(cache, [small(f"{n}-{at}", 16 * KIB) for at in range(20)])
            assert on_disk(directory) <= MIB + 4 * KIB * len(files(directory))
            assert cache.used <= MIB
        assert cache.used > MIB - 400 * KIB
        await fill(cache, [small(f"last{n}", 32 * KIB) for n in range(60)])
        assert MIB // 2 < cache.used <= MIB, "more at once than may be there"

    run(directory, body, limit=MIB)


def test_a_disk_that_makes_no_holes_loses_packs_rather_than_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "chunks"
    monkeypatch.setattr(chunk_packs, "PACK", 256 * KIB)
    monkeypatch.setattr(chunk_packs, "punch", lambda fd, holes: False)

    async def body(cache: ChunkCache) -> None:
        await fill(cache, several(40, 16 * KIB))
        await cache.evict(20 * KIB)
        assert await all_right(cache, several(40, 16 * KIB)) == [f"k{at}" for at in range(16, 40)]
        assert on_disk(directory) <= cache.used == 24 * 16 * KIB
        cache.drop("k20")
        await cache.give_back()
        assert on_disk(directory) <= cache.used == 8 * 16 * KIB
        await fill(cache, several(10, 16 * KIB, "e2"))
        assert len(packs(directory)) == 1
        assert len(files(directory)) == 11, "what comes later has files of its own"
        assert await cache.evict(1) == 16 * KIB
        assert on_disk(directory) <= cache.used

    run(directory, body)


def test_what_no_record_knows_goes_at_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "chunks"
    monkeypatch.setattr(chunk_packs, "PACK", MIB)

    async def first(cache: ChunkCache) -> None:
        await fill(cache, several(6, PACKED))
        await cache._commit(sync=True)
        await fill(cache, [small(f"unknown{n}", PACKED) for n in range(20)] + [small("large", MIB)])

    async def second(cache: ChunkCache) -> None:
        assert cache.used == 6 * PACKED
        assert takes(directory, cache.used)
        assert len(await all_right(cache, several(6, PACKED))) == 6
        assert len(packs(directory)) == len(files(directory)) == 1

    killed(directory, first)
    assert takes(directory, 26 * PACKED + MIB)
    run(directory, second)


def test_a_disk_that_makes_no_holes_does_not_keep_what_no_record_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "chunks"

    async def first(cache: ChunkCache) -> None:
        await fill(cache, several(10, PACKED))
        await cache._commit(sync=True)
        await fill(cache, [small("unknown", PACKED)])

    async def second(cache: ChunkCache) -> None:
        assert cache.used == 0
        assert takes(directory, cache.used)

    killed(directory, first)
    monkeypatch.setattr("zosfs.content.chunk_index.punch", lambda fd, holes: not holes)
    run(directory, second)


def test_the_index_forgets_before_the_disk_takes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "chunks"
    punch = chunk_packs.punch
    left: list[set[str]] = []

    def looked(fd: int, holes: Sequence[tuple[int, int]]) -> bool:
        with records(directory) as known:
            left.append(set(known))
        return punch(fd, holes)

    monkeypatch.setattr(chunk_packs, "punch", looked)

    async def body(cache: ChunkCache) -> None:
        await fill(cache, several(3))
        await cache._commit(sync=False)
        await cache.evict(1)
        cache.drop("k1")
        await fill(cache, [small("k1")])
        await cache.give_back()

    killed(directory, body)
    assert left == [{"k1", "k2"}, {"k2"}]


def test_a_hole_is_never_believed(tmp_path: Path) -> None:
    """After a power cut the index may be older than the files."""
    directory = tmp_path / "chunks"
    large = version("large", 3 * SEGMENT)
    tailed = version("tailed", SEGMENT + 1000)

    async def first(cache: ChunkCache) -> None:
        await fill(cache, several(3))
        for segment in range(3):
            assert cache.write(large, segment * SEGMENT, memoryview(b"x" * MIB))
        for low in (0, SEGMENT):
            assert cache.write(tailed, low, memoryview(b"x" * 1000))
        await cache.settle()
        await cache._commit(sync=True)
        shutil.copytree(directory / "index", tmp_path / "old")
        for info in (large, tailed, small("k2")):
            assert await cache.read(info, 0, 10)
        await cache.evict(2 * 5000 + 2 * MIB + 1000)
        for info in (large, tailed, small("k2")):
            assert await cache.read(info, 0, 10)

    async def second(cache: ChunkCache) -> None:
        assert await all_right(cache, several(3)) == ["k2"]
        assert not cache.has_any(large)
        assert not cache.has_any(tailed)

    run(directory, first)
    shutil.rmtree(directory / "index")
    (tmp_path / "old").rename(directory / "index")
    run(directory, second)


@pytest.mark.parametrize("key", ["small", "large"])
def test_what_was_evicted_before_a_kill_is_gone(tmp_path: Path, key: str) -> None:
    directory = tmp_path / "chunks"
    info = small("small") if key == "small" else version("large", 2 * SEGMENT)

    async def first(cache: ChunkCache) -> None:
        for low in range(0, info.size, SEGMENT):
            assert cache.write(info, low, memoryview(b"x" * min(MIB, info.size)))
        await cache.settle()
        await cache._commit(sync=False)
        await cache.evict(1)
        assert not cache.has(info, 0, 1)

    async def second(cache: ChunkCache) -> None:
        assert not cache.has(info, 0, 1)

    killed(directory, first)
    run(directory, second)


def lie(change: str, value: Any) -> Callable[[dict[str, dict[str, Any]]], None]:
    return lambda known: known["k1"].update({change: value})


@pytest.mark.parametrize(
    "change",
    [
        lie("base", 0), lie("base", 5 * 8192 + 100), lie("base", -8192), lie("base", 1 << 40), lie("base", "0"),
        lie("base", chunk_packs.PACK - 4096),
        lie("file", "../../../../etc/passwd"), lie("file", "pack/../../" + "0" * 20), lie("file", 5), lie("size", 5001),
        lambda known: known["own"].update(base=4096), lambda known: known["k0"].update(file=known["own"]["file"]),
        lambda known: known["k1"].update(file=known["own"]["file"]),
        lambda known: known["k1"].pop("file"),
    ],
)  # fmt: skip
def test_an_index_that_lies_about_places_starts_anew(
    tmp_path: Path, change: Callable[[dict[str, dict[str, Any]]], None], caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "chunks"

    async def first(cache: ChunkCache) -> None:
        await fill(cache, [*several(3), small("own", 2 * PACKED)])

    async def second(cache: ChunkCache) -> None:
        assert cache.enabled
        assert cache.used == on_disk(directory) == 0
        await fill(cache, several(3))
        assert len(await all_right(cache, several(3))) == 3

    run(directory, first)
    with records(directory) as known:
        change(known)
    run(directory, second)
    assert "starting anew" in caplog.text


def test_an_index_of_another_format_starts_anew(tmp_path: Path) -> None:
    directory = tmp_path / "chunks"

    async def first(cache: ChunkCache) -> None:
        await fill(cache, several(3))

    async def second(cache: ChunkCache) -> None:
        assert cache.enabled
        assert cache.used == on_disk(directory) == 0

    run(directory, first)
    with sqlite3.connect(directory / "index" / "cache.db") as database:
        database.execute("UPDATE Cache SET value = '1' WHERE key = 'format'")
    database.close()
    run(directory, second)


def test_a_damaged_pack_is_believed_as_far_as_it_goes(tmp_path: Path) -> None:
    directory = tmp_path / "chunks"

    async def first(cache: ChunkCache) -> None:
        await fill(cache, several(3))

    async def second(cache: ChunkCache) -> None:
        assert await all_right(cache, several(3)) == ["k0", "k1"]

    run(directory, first)
    os.truncate(packs(directory)[0], 2 * room(5000) + 4000)
    run(directory, second)


def test_a_pack_is_synced_once_for_all_that_changed_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "chunks"
    synced: list[int] = []
    fdatasync = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (synced.append(os.fstat(fd).st_ino), fdatasync(fd))[1])

    async def first(cache: ChunkCache) -> None:
        await fill(cache, several(300))
        await cache._commit(sync=True)
        assert synced == [os.stat(path).st_ino for path in packs(directory)]
        await fill(cache, [small(f"later{n}") for n in range(10)])

    async def second(cache: ChunkCache) -> None:
        assert len(await all_right(cache, several(300))) == 300
        assert not cache.has_any(small("later3"))
        assert takes(directory, 300 * room(5000))

    run(directory, first)
    with records(directory) as known:  # as another boot would find it
        for record in known.values():
            record["boot"] = record["boot"] and "an earlier boot"
    run(directory, second)


def test_a_small_staged_file_stays_one(tmp_path: Path) -> None:
    directory = tmp_path / "chunks"
    info = small("k1", 5000, "new")

    async def first(cache: ChunkCache) -> None:
        await fill(cache, several(3))
        for _ in range(2):
            staged = tmp_path / "staged"
            staged.write_bytes(body_of(info))
            assert await cache.adopt(staged, info, Ranges([(0, 5000)]))
        assert not cache.has_any(small("k1"))
        await cache.give_back()
        assert takes(directory, 3 * room(5000))

    async def second(cache: ChunkCache) -> None:
        assert await all_right(cache, [*several(3), info]) == ["k0", "k2", "k1"]
        assert cache.used == 15_000
        cache.drop("k1")
        assert len(files(directory)) == 1

    run(directory, first)
    run(directory, second)


def test_descriptors_stay_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk_packs, "PACK", 8192)
    infos = several(2 * OPEN_FILES)
    directory = tmp_path / "chunks"

    def opened() -> int:
        links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
        return sum(os.readlink(link).startswith(str(directory / "files")) for link in links if os.path.lexists(link))

    async def first(cache: ChunkCache) -> None:
        await fill(cache, infos)
        assert 0 < opened() <= OPEN_FILES
        await cache._commit(sync=True)
        assert opened() <= OPEN_FILES
        assert len(await all_right(cache, infos)) == len(infos)
        assert opened() <= OPEN_FILES
        await cache.evict(len(infos) * 5000)
        assert takes(directory, 0)
        assert opened() <= 1, "removed packs are closed"

    run(directory, first)
    assert opened() == 0


@pytest.mark.parametrize("then", ["read", "write", "commit", "evict"])
def test_a_pack_that_somebody_removed_is_lost_and_no_more(tmp_path: Path, then: str) -> None:
    directory = tmp_path / "chunks"

    async def first(cache: ChunkCache) -> None:
        await fill(cache, several(3))
        cache._files.close_all()
        packs(directory)[0].unlink()
        if then == "write":
            assert cache.write(small("another"), 0, memoryview(body_of(small("another"))))
            await cache.settle()
        elif then == "commit":
            await cache._commit(sync=True)
        elif then == "evict":
            await cache.evict(1)
        assert await all_right(cache, several(3)) == []
        assert cache.used == 0
        await fill(cache, several(4))
        assert len(await all_right(cache, several(4))) == 4
        assert cache.enabled

    async def second(cache: ChunkCache) -> None:
        assert len(await all_right(cache, several(4))) == 4

    run(directory, first)
    run(directory, second)


LIVES = """
import random, sys, trio
from pathlib import Path
from tests.content.test_chunk_packs import body_of, small
from zosfs.content import chunk_packs, chunks
from zosfs.counters import Counters

async def main():
    chunks.COMMIT_EVERY = 0.0
    chunks.GATHERED = 0.001
    chunk_packs.PACK = 256 << 10
    choose = random.Random(int(sys.argv[2]))
    async with trio.open_nursery() as nursery:
        cache = chunks.ChunkCache(Path(sys.argv[1]), 1 << 20, 0, Counters())
        await cache.start(nursery)
        while True:
            for _ in range(20):
                info = small(f"k{choose.randrange(200)}", 9000, f"e{choose.randrange(2)}")
                cache.write(info, 0, memoryview(body_of(info)))
                if choose.random() < 0.1:
                    cache.drop(info.key)
            print(cache.used, flush=True)
            await trio.sleep(0)
            if choose.random() < 0.3:
                await cache.settle()

trio.run(main)
"""


def test_killed_at_any_time_nothing_wrong_is_left(tmp_path: Path) -> None:
    directory = tmp_path / "chunks"
    choose = random.Random(7)
    infos = [small(f"k{n}", 9000, f"e{etag}") for n in range(200) for etag in range(2)]
    seen = 0

    async def look(cache: ChunkCache) -> None:
        nonlocal seen
        assert cache.enabled
        seen += len(await all_right(cache, infos))
        assert takes(directory, cache.used // 9000 * room(9000))

    for life in range(3):
        command = [sys.executable, "-c", LIVES, str(directory), str(life)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2], text=True) as process:
            assert process.stdout is not None
            for _ in range(choose.randrange(20, 60)):
                assert process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        run(directory, look, MIB)
    assert seen > 50


def test_direct_writes_are_not_for_rows(tmp_path: Path) -> None:
    assert PACKED < chunk_files.DIRECT_FROM, "what is written past the page cache would be cut out of the row"
