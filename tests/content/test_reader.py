"""Readers over a bucket in memory: right bytes whatever the order, one fetch a byte, one version, bounded memory."""

from __future__ import annotations

import errno
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.content.versions import Objects
from zosfs.config import Options
from zosfs.content.chunks import ChunkCache
from zosfs.content.memory import MemoryBudget
from zosfs.content.reader import Reader, Readers
from zosfs.counters import Counters
from zosfs.errors import StoreError
from zosfs.store.api import Store

KIB = 1 << 10
MIB = 1 << 20


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


class Room:
    """A reading side with its bucket, budget and counters."""

    def __init__(self, nursery: trio.Nursery, memory: int, chunks: ChunkCache | None) -> None:
        self.objects = Objects()
        self.counters = Counters()
        self.budget = MemoryBudget(memory, self.counters)
        self.readers = Readers(
            cast(Store, self.objects), self.budget, self.counters, nursery, Options(memory=memory), chunks
        )

    def open(self, key: str = "k") -> Reader:
        return self.readers.reader(self.objects.info(key))


@asynccontextmanager
async def room(memory: int = 512 * MIB, chunks: ChunkCache | None = None) -> AsyncIterator[Room]:
    async with trio.open_nursery() as nursery:
        yield Room(nursery, memory, chunks)
        nursery.cancel_scope.cancel()


def run(body: Callable[[Room], Awaitable[None]], **more: Any) -> None:
    async def main() -> None:
        with trio.fail_after(120):
            async with room(**more) as place:
                await body(place)

    trio.run(main)


def test_sequential_read_fetches_every_byte_once() -> None:
    async def body(room: Room) -> None:
        data = noise(40 * MIB + 4321)
        room.objects.put("k", data)
        reader = room.open()
        at = 0
        while piece := await reader.read(at, MIB):
            assert piece == data[at : at + MIB]
            at += len(piece)
        assert at == len(data)
        assert room.objects.fetched() == len(data)
        assert room.objects.most_running > 1
        reader.close()
        assert room.budget.used == 0

    run(body)


def test_first_answer_costs_one_small_request() -> None:
    async def body(room: Room) -> None:
        room.objects.put("k", noise(20 * MIB))
        reader = room.open()
        await reader.read(0, 16 * KIB)
        assert room.objects.requests == [("k", 0, 128 * KIB)]
        reader.close()

    run(body)


def test_random_small_read_costs_what_it_asks() -> None:
    async def body(room: Room) -> None:
        data = noise(20 * MIB)
        room.objects.put("k", data)
        reader = room.open()
        assert await reader.read(7 * MIB + 4096, 4096) == data[7 * MIB + 4096 :][:4096]
        assert room.objects.requests == [("k", 7 * MIB + 4096, 7 * MIB + 8192)]

    run(body)


def test_short_only_at_the_end() -> None:
    async def body(room: Room) -> None:
        data = noise(100_000)
        room.objects.put("k", data)
        room.objects.put("empty", b"")
        reader = room.open()
        assert await reader.read(99_000, 5000) == data[99_000:]
        assert await reader.read(100_000, 1) == b""
        assert await reader.read(200_000, 1) == b""
        assert await room.open("empty").read(0, 4096) == b""
        assert len(room.objects.requests) == 1

    run(body)


def test_readers_of_one_version_share_requests() -> None:
    async def body(room: Room) -> None:
        data = noise(6 * MIB)
        room.objects.put("k", data)
        room.objects.gate = trio.Event()
        readers = [room.open() for _ in range(5)]
        results: list[bytes] = []

        async def take(reader: Reader) -> None:
            results.append(bytes(await reader.read(3 * MIB, 256 * KIB)))

        async with trio.open_nursery() as nursery:
            for reader in readers:
                nursery.start_soon(take, reader)
            await trio.testing.wait_all_tasks_blocked()
            room.objects.gate.set()
        assert results == [data[3 * MIB :][: 256 * KIB]] * 5
        assert len(room.objects.requests) == 1
        for reader in readers:
            reader.close()
        assert room.budget.used == 0

    run(body)


def test_replaced_object_is_stale_and_never_mixed() -> None:
    async def body(room: Room) -> None:
        room.objects.put("k", b"a" * (30 * MIB))
        reader = room.open()
        await reader.read(0, MIB)
        room.objects.put("k", b"b" * (30 * MIB))
        seen = 0

        async def rest() -> None:
            nonlocal seen
            for at in range(30):
                piece = await reader.read(at * MIB, MIB)
                assert set(bytes(piece)) == {ord("a")}
                seen += 1

        with pytest.raises(StoreError) as failure:
            await rest()
        assert failure.value.errno == errno.ESTALE
        assert seen < 30
        reader.close()
        assert room.budget.used == 0

    run(body)


def test_stale_although_the_server_ignores_the_condition() -> None:
    async def body(room: Room) -> None:
        room.objects.honours_if_match = False
        room.objects.put("k", b"a" * (4 * MIB))
        reader = room.open()
        await reader.read(0, 4096)
        room.objects.put("k", b"b" * (4 * MIB))
        with pytest.raises(StoreError) as failure:
            await reader.read(2 * MIB, 4096)
        assert failure.value.errno == errno.ESTALE

    run(body)


def test_object_that_became_shorter_is_stale() -> None:
    async def body(room: Room) -> None:
        room.objects.honours_if_match = False
        room.objects.put("k", b"a" * (4 * MIB))
        reader = room.open()
        room.objects.put("k", b"a")
        with pytest.raises(StoreError) as failure:
            await reader.read(2 * MIB, 4096)
        assert failure.value.errno == errno.ESTALE

    run(body)


def test_a_failure_reaches_those_who_wait_and_the_next_read_asks_anew() -> None:
    async def body(room: Room) -> None:
        data = noise(3 * MIB)
        room.objects.put("k", data)
        reader = room.open()
        room.objects.faults.append(StoreError("InternalError", status=500))
        with pytest.raises(StoreError) as failure:
            await reader.read(2 * MIB, 4096)
        assert failure.value.errno == errno.EIO
        assert await reader.read(2 * MIB, 4096) == data[2 * MIB :][:4096]
        reader.close()
        assert room.budget.used == 0

    run(body)


def test_a_read_waits_for_its_own_bytes_not_for_the_whole_range() -> None:
    async def body(room: Room) -> None:
        data = noise(MIB)
        room.objects.put("k", data)
        room.objects.gate, room.objects.early = trio.Event(), 300 * KIB
        reader, other = room.open(), room.open()
        assert await reader.read(0, 128 * KIB) == data[: 128 * KIB]
        assert await other.read(200 * KIB, 100 * KIB) == data[200 * KIB : 300 * KIB]
        assert room.objects.requests == [("k", 0, MIB)]
        beyond: list[bytes] = []

        async def take() -> None:
            beyond.append(bytes(await other.read(250 * KIB, 100 * KIB)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take)
            await trio.testing.wait_all_tasks_blocked()
            assert not beyond
            room.objects.gate.set()
        assert beyond == [data[250 * KIB : 350 * KIB]]
        reader.close()
        other.close()
        assert room.budget.used == 0

    run(body)


def test_bytes_that_came_are_served_although_the_rest_never_comes() -> None:
    async def body(room: Room) -> None:
        data = noise(MIB)
        room.objects.put("k", data)
        room.objects.gate, room.objects.early = trio.Event(), 64 * KIB
        room.objects.faults.append(StoreError("InternalError", status=500))
        reader = room.open()
        first = await reader.read(0, 64 * KIB)
        room.objects.gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert first == data[: 64 * KIB]
        assert await reader.read(0, MIB) == data
        reader.close()
        assert room.budget.used == 0

    run(body)


def test_early_bytes_of_another_version_are_not_served() -> None:
    async def body(room: Room) -> None:
        room.objects.honours_if_match = False
        room.objects.put("k", b"a" * MIB)
        reader = room.open()
        room.objects.put("k", b"b" * MIB)
        room.objects.early = 512 * KIB
        with pytest.raises(StoreError) as failure:
            await reader.read(0, 4 * KIB)
        assert failure.value.errno == errno.ESTALE
        reader.close()
        assert room.budget.used == 0

    run(body)


def test_a_closed_handle_takes_its_running_request_with_it_whatever_came_of_it() -> None:
    async def body(room: Room) -> None:
        room.objects.put("k", noise(MIB))
        room.objects.gate, room.objects.early = trio.Event(), 64 * KIB
        reader = room.open()
        await reader.read(0, 4 * KIB)
        assert room.objects.running == 1
        reader.close()
        await trio.testing.wait_all_tasks_blocked()
        assert room.objects.running == 0
        assert room.budget.used == 0

    run(body)


def test_close_cancels_what_only_it_wanted() -> None:
    async def body(room: Room) -> None:
        room.objects.put("k", noise(64 * MIB))
        one, two = room.open(), room.open()
        await one.read(0, MIB)
        await one.read(MIB, MIB)
        await trio.testing.wait_all_tasks_blocked()
        room.objects.gate = trio.Event()
        for at in range(2, 5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.read, at * MIB, MIB)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        assert room.objects.running > 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(two.read, 5 * MIB, 4096)
            await trio.testing.wait_all_tasks_blocked()
            one.close()
            await trio.testing.wait_all_tasks_blocked()
            assert room.objects.running == 1
            room.objects.gate.set()
        two.close()
        await trio.testing.wait_all_tasks_blocked()
        assert room.budget.used == 0

    run(body)


def test_a_cancelled_read_leaves_nothing_behind() -> None:
    async def body(room: Room) -> None:
        room.objects.put("k", noise(8 * MIB))
        room.objects.gate = trio.Event()
        one, two = room.open(), room.open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(two.read, 2 * MIB, 4096)
            nursery.start_soon(one.read, 2 * MIB, 4096)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        room.objects.gate.set()
        one.close()
        two.close()
        await trio.testing.wait_all_tasks_blocked()
        assert room.budget.used == 0
        assert room.objects.running == 0

    run(body)


def test_who_waits_beside_a_cancelled_read_gets_its_bytes() -> None:
    async def body(room: Room) -> None:
        data = noise(8 * MIB)
        room.objects.put("k", data)
        room.objects.gate = trio.Event()
        one, other = room.open(), room.open()
        got: list[bytes] = []

        async def wait_too() -> None:
            got.append(bytes(await other.read(3 * MIB, 4 * KIB)))

        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def begin() -> None:
                with scope:
                    await one.read(3 * MIB, 4 * KIB)

            nursery.start_soon(begin)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(wait_too)
            await trio.testing.wait_all_tasks_blocked()
            assert room.objects.running == 1, "both wait for the same request"
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            room.objects.gate.set()
        assert got == [data[3 * MIB : 3 * MIB + 4 * KIB]]
        one.close()
        other.close()
        assert room.budget.used == 0

    run(body)


def test_what_is_asked_for_whole_is_fetched_by_the_first_who_wants_it_and_given_back_if_nobody_does() -> None:
    async def body(room: Room) -> None:
        data = noise(4 * KIB)
        room.objects.put("k", data)
        reader = room.open()
        assert reader.ask_whole()
        assert not room.open().ask_whole(), "it is on its way"
        await trio.testing.wait_all_tasks_blocked()
        assert (await reader.facts()).size == len(data)
        assert reader.whole
        assert await reader.read(0, 8 * KIB) == data
        assert room.objects.fetched() == len(data)
        reader.close()

        room.objects.put("k", data)
        reader = room.open()
        assert reader.ask_whole()
        assert await reader.read(0, 8 * KIB) == data, "nobody asked for the facts"
        reader.close()

        reader = room.open()
        assert reader.ask_whole()
        reader.close()
        assert room.readers.may_run_ahead()
        assert (room.budget.used, room.objects.fetched()) == (0, 2 * len(data))

    run(body)


def test_parts_that_lie_apart_are_asked_for_at_once() -> None:
    async def body(room: Room) -> None:
        data = noise(8 * MIB)
        room.objects.put("k", data)
        reader = room.open()
        await reader.read(3 * MIB + 32 * KIB, 4 * KIB)
        room.objects.gate = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader.read, 3 * MIB, 64 * KIB)
            await trio.testing.wait_all_tasks_blocked()
            assert room.objects.running == 2, "before and behind what is there"
            room.objects.gate.set()
        reader.close()

    run(body)


def test_memory_stays_within_the_budget_and_idle_handles_give_way() -> None:
    async def body(room: Room) -> None:
        data = {f"k{n}": noise(24 * MIB, n) for n in range(6)}
        for key, value in data.items():
            room.objects.put(key, value)
        readers = {key: room.open(key) for key in data}
        most = 0
        for at in range(24):
            for key, reader in readers.items():
                assert await reader.read(at * MIB, MIB) == data[key][at * MIB : (at + 1) * MIB]
                most = max(most, room.budget.used)
        assert most <= 16 * MIB
        for reader in readers.values():
            reader.close()
        await trio.testing.wait_all_tasks_blocked()
        assert room.budget.used == 0

    run(body, memory=16 * MIB)


def test_a_budget_smaller_than_a_read_still_serves_it() -> None:
    async def body(room: Room) -> None:
        data = noise(12 * MIB)
        room.objects.put("k", data)
        reader = room.open()
        assert await reader.read(0, 12 * MIB) == data
        for at in range(12):
            assert await reader.read(at * MIB, MIB) == data[at * MIB : (at + 1) * MIB]

    run(body, memory=MIB)


def test_a_stream_does_not_starve_a_small_reader() -> None:
    async def body(room: Room) -> None:
        stream, small = noise(200 * MIB), noise(100 * MIB, 1)
        room.objects.put("stream", stream)
        room.objects.put("small", small)
        reader = room.open("stream")
        for at in range(100):
            await reader.read(at * MIB, MIB)
        before = room.counters["memory_waits"]
        other = room.open("small")
        for at in (50, 3, 77, 20):
            assert await other.read(at * MIB, 4096) == small[at * MIB :][:4096]
        assert room.counters["memory_waits"] == before

    run(body, memory=64 * MIB)


def test_a_buffer_that_is_held_keeps_its_bytes() -> None:
    async def body(room: Room) -> None:
        data = noise(64 * MIB)
        room.objects.put("k", data)
        reader = room.open()
        held = await reader.read(0, MIB)
        for at in range(1, 64):
            await reader.read(at * MIB, MIB)
        reader.close()
        other = room.open()
        for at in range(63, -1, -1):
            await other.read(at * MIB, MIB)
        assert held == data[:MIB]

    run(body, memory=32 * MIB)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5 * MIB), st.integers(1, 2 * MIB)), min_size=1, max_size=30),
    st.integers(1, 5 * MIB),
    st.sampled_from([256 * KIB, 4 * MIB, 512 * MIB]),
)
def test_any_reads_at_once_return_the_right_bytes(reads: list[tuple[int, int]], size: int, memory: int) -> None:
    data = (b"0123456789abcdefghijklmnopqrstuvwxyz" * (size // 36 + 1))[:size]

    async def body(room: Room) -> None:
        room.objects.put("k", data)
        readers = [room.open(), room.open()]

        async def take(number: int, offset: int, length: int) -> None:
            assert await readers[number % 2].read(offset, length) == data[offset : offset + length]

        for group in range(0, len(reads), 4):
            async with trio.open_nursery() as nursery:
                for number, (offset, length) in enumerate(reads[group : group + 4]):
                    nursery.start_soon(take, number, offset, length)
        for reader in readers:
            reader.close()
        await trio.testing.wait_all_tasks_blocked()
        assert room.budget.used == 0

    run(body, memory=memory)


def test_what_was_read_comes_from_the_disk_after_a_remount(tmp_path: Path) -> None:
    data = noise(20 * MIB)

    async def mount() -> int:
        counters = Counters()
        async with trio.open_nursery() as nursery:
            chunks = ChunkCache(tmp_path / "chunks", 1 << 30, 0, counters)
            await chunks.start(nursery)
            place = Room(nursery, 64 * MIB, chunks)
            place.objects.put("k", data)
            reader = place.open()
            for at in range(20):
                assert await reader.read(at * MIB, MIB) == data[at * MIB : (at + 1) * MIB]
                await chunks.settle()
            reader.close()
            await chunks.aclose()
            nursery.cancel_scope.cancel()
        return place.objects.fetched()

    assert trio.run(mount) == len(data)
    assert trio.run(mount) == 0
