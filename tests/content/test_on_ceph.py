"""Appends and deliveries against a real Ceph gateway: what the rules in memory claim of it must hold there."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from zosfs.config import Options
from zosfs.content.append import AppendState, append, look, set_headers_by_empty_append
from zosfs.content.content import Content
from zosfs.content.delivery import Assumed, Means, Outgoing, deliver
from zosfs.content.memory import MemoryBudget
from zosfs.content.plan import MIB, Base, CopyRange, Limits, Multipart, Plan, Put, only_grown, plan
from zosfs.content.ranges import Ranges
from zosfs.counters import Counters
from zosfs.errors import StoreError
from zosfs.store.account import S3Account
from zosfs.store.api import Abilities, Body, ObjectHeaders, ObjectInfo, Store
from zosfs.store.credentials import Fixed
from zosfs.store.sigv4 import Credentials

PLAIN = ObjectHeaders({"mode": "33188"}, "text/plain")
CEPH = Abilities(append=True, put_if_match=True, put_if_none_match=True)


class Bytes:
    """A file all of whose bytes are here."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def lend(self, start: int, end: int) -> Body:
        return [self.data[start:end]]

    def give_back(self, start: int, end: int) -> None: ...

    async def fetch(self, start: int, end: int) -> None: ...


async def send(
    store: Store, key: str, steps: Plan, data: bytes, base: Base | None, tail: tuple[int, int] | None = None
) -> ObjectInfo | None:
    means = Means(store, Limits(), 4, MemoryBudget(64 * MIB, Counters()))
    return await deliver(means, steps, Outgoing(key, len(data), Bytes(data), PLAIN), Assumed(base, tail))


@asynccontextmanager
async def fresh(server: Any) -> AsyncIterator[tuple[Store, Counters]]:
    """A new bucket, deleted afterwards with all that is in it."""
    counters = Counters()
    account = S3Account(Options(url=server.url), counters, Fixed(Credentials(server.access_key, server.secret_key)))
    name = f"plan-{uuid.uuid4().hex[:12]}"
    await account.create_bucket(name)
    store = account.bucket(name)
    store.abilities = CEPH
    try:
        yield store, counters
    finally:
        for thing in (await store.list_page("")).objects:
            await store.delete(thing.key)
        await account.delete_bucket(name)
        await account.aclose()


async def content(store: Store, key: str) -> bytes:
    """All bytes of an object."""
    size = (await store.head(key)).size
    data = bytearray(size)
    if size:
        await store.get_range(key, 0, memoryview(data))
    return bytes(data)


def test_chained_etags_and_headers(rgw: Any) -> None:
    async def main() -> None:
        async with fresh(rgw) as (store, _):
            state = AppendState()
            for chunk in (b"one\n", b"two\n", b"three\n"):
                done = await append(store, "log", state, [chunk], PLAIN, appending=True)
                state = done.state
                there = await store.head("log")
                assert there.appendable
                assert AppendState.of(there) == state
            later = ObjectHeaders({"mode": "33152"}, "text/x-log")
            done = await set_headers_by_empty_append(store, "log", state, later)
            there = await store.head("log")
            assert there.appendable
            assert there.metadata == later.metadata
            assert there.content_type == "text/x-log"
            assert AppendState.of(there) == done.state
            done = await append(store, "log", done.state, [b"four\n"], later, appending=False)
            assert await content(store, "log") == b"one\ntwo\nthree\nfour\n"
            assert AppendState.of(await store.head("log")) == done.state

    trio.run(main)


@pytest.mark.parametrize("appendable", [True, False])
def test_two_writers_keep_all_their_lines(rgw: Any, appendable: bool) -> None:
    """Appended, or PUT on condition where the object takes no appends."""

    async def main() -> None:
        async with fresh(rgw) as (store, _):
            if not appendable:
                await store.put("log", [], PLAIN)

            async def writer(name: str) -> None:
                for number in range(15):
                    found = await look(store, "log")
                    base = Base.of(found) if found else None
                    old = base.size if base else 0
                    line = f"{name}{number}\n".encode()
                    dirty, size = Ranges([(old, old + len(line))]), old + len(line)
                    limits = Limits()
                    steps = plan(base, dirty, size, limits, CEPH, appending=True, present=Ranges([(0, old)]))
                    whole = (await content(store, "log") if base and isinstance(steps, Put) else bytes(old))[:old] + line
                    await send(store, "log", steps, whole, base, only_grown(base, dirty, size, old))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(writer, "a")
                nursery.start_soon(writer, "b")
            lines = (await content(store, "log")).decode().split()
            for name in "ab":
                assert [line for line in lines if line[0] == name] == [f"{name}{n}" for n in range(15)]
            assert (await store.head("log")).appendable == appendable

    trio.run(main)


def test_an_edit_inside_a_large_object(rgw: Any) -> None:
    async def main() -> None:
        async with fresh(rgw) as (store, counters):
            old = bytes(range(256)) * (4096 * 24)
            await store.put("big", [old], PLAIN)
            base = Base.of(await store.head("big"))
            new = old[: 12 * MIB] + b"EDIT" + old[12 * MIB + 4 :]
            steps = plan(base, Ranges([(12 * MIB, 12 * MIB + 4)]), len(new), Limits(), CEPH, appending=False)
            assert isinstance(steps, Multipart)
            assert sum(isinstance(part, CopyRange) for part in steps.parts) >= 2
            sent = counters["bytes_sent"]
            info = await send(store, "big", steps, new, base)
            assert info is not None
            assert counters["bytes_sent"] - sent < 6 * MIB
            assert await content(store, "big") == new
            there = await store.head("big")
            assert (there.etag, there.size, there.metadata) == (info.etag, info.size, PLAIN.metadata)

    trio.run(main)


@pytest.mark.parametrize("size", [10, 12 * MIB])
def test_a_conflict_keeps_the_others_bytes(rgw: Any, size: int) -> None:
    async def main() -> None:
        async with fresh(rgw) as (store, _):
            await store.put("k", [bytes(size)], PLAIN)
            base = Base.of(await store.head("k"))
            await store.put("k", [b"theirs"], PLAIN)
            steps = plan(base, Ranges([(0, 1)]), size, Limits(), CEPH, appending=False, present=Ranges([(0, size)]))
            with pytest.raises(StoreError) as caught:
                await send(store, "k", steps, bytes(size), base)
            assert caught.value.errno == 116
            assert await content(store, "k") == b"theirs"
            with pytest.raises(StoreError):
                await send(store, "k", Put(3), b"new", None)
            assert await content(store, "k") == b"theirs"

    trio.run(main)


@asynccontextmanager
async def room(store: Store, counters: Counters, path: Path) -> AsyncIterator[Content]:
    """The content room over a bucket, as one mount has it."""
    async with trio.open_nursery() as nursery:
        made = Content(store, Options(), counters, nursery, budget=MemoryBudget(64 * MIB, counters), cache_dir=path)
        await made.start()
        yield made
        await made.aclose()
        nursery.cancel_scope.cancel()


def test_truncating_reaches_the_store(rgw: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with fresh(rgw) as (store, counters), room(store, counters, tmp_path) as files:
            for size in (0, 3, 7):
                await store.put("k", [b"old"], PLAIN)
                writer = files.writer("k", await store.head("k"))
                writer.draft.headers, writer.on_delivered = lambda: PLAIN, lambda info: None
                await writer.truncate(0)
                await writer.truncate(size)
                await writer.deliver()
                assert await content(store, "k") == bytes(size)
                await writer.aclose()

    trio.run(main)


def test_a_writer_whose_append_came_second_goes_on_behind_the_others(rgw: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with fresh(rgw) as (store, counters), room(store, counters, tmp_path) as files:
            await append(store, "log", AppendState(), [b"begin\n"], PLAIN, appending=True)
            writer = files.writer("log", await store.head("log"), appending=True)
            writer.draft.headers, writer.on_delivered = lambda: PLAIN, lambda info: None
            await writer.write(0, b"one\n", append=True)
            theirs = AppendState.of(await store.head("log"))
            await append(store, "log", theirs, [b"theirs, longer\n"], PLAIN, appending=True)
            await writer.deliver()
            await writer.write(0, b"two\n", append=True)
            whole = b"begin\ntheirs, longer\none\ntwo\n"
            assert bytes(await writer.read(0, 100)) == whole
            await writer.deliver()
            assert await content(store, "log") == whole
            await writer.aclose()

    trio.run(main)
