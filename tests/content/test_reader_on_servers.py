"""Readers against the real servers: right bytes by range requests, versions never mixed, a versioned bucket's reader undisturbed."""

from __future__ import annotations

import errno
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio

from tests.servers.server import Server
from zosfs.config import Options
from zosfs.content.memory import MemoryBudget
from zosfs.content.reader import Readers
from zosfs.counters import Counters
from zosfs.errors import StoreError
from zosfs.store.account import S3Account
from zosfs.store.api import ObjectHeaders, Store
from zosfs.store.credentials import Fixed
from zosfs.store.sigv4 import Credentials

MIB = 1 << 20
PLAIN = ObjectHeaders()


class Room:
    """A new bucket and the reading side of it."""

    def __init__(self, store: Store, counters: Counters, nursery: trio.Nursery) -> None:
        self.store = store
        self.counters = counters
        self.budget = MemoryBudget(128 * MIB, counters)
        self.readers = Readers(store, self.budget, counters, nursery, Options())

    async def put(self, data: bytes) -> None:
        await self.store.put("k", [data], PLAIN)


@asynccontextmanager
async def room(server: Server) -> AsyncIterator[Room]:
    counters = Counters()
    account = S3Account(Options(url=server.url), counters, Fixed(Credentials(server.access_key, server.secret_key)))
    name = f"reader-{uuid.uuid4().hex[:12]}"
    await account.create_bucket(name)
    try:
        async with trio.open_nursery() as nursery:
            yield Room(account.bucket(name), counters, nursery)
            nursery.cancel_scope.cancel()
    finally:
        store = account.bucket(name)
        versions: Any = await store.call("list_object_versions")
        for thing in [*versions.get("Versions", ()), *versions.get("DeleteMarkers", ())]:
            await store.delete(thing["Key"], version_id=thing["VersionId"])
        for left in (await store.list_page("")).objects:
            await store.delete(left.key)
        await account.delete_bucket(name)
        await account.aclose()


def run(server: Server, body: Callable[[Room], Awaitable[None]]) -> None:
    async def main() -> None:
        with trio.fail_after(120):
            async with room(server) as place:
                await body(place)

    trio.run(main)


@pytest.fixture(params=["rgw", "weed"])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    return found


def test_sequential_and_random_reads(server: Server) -> None:
    async def body(room: Room) -> None:
        data = random.Random(1).randbytes(24 * MIB + 17)
        await room.put(data)
        reader = room.readers.reader(await room.store.head("k"))
        at = 0
        while piece := await reader.read(at, 128 << 10):
            assert piece == data[at : at + len(piece)]
            at += len(piece)
        assert at == len(data)
        assert room.counters["requests_get"] <= 25
        reader.close()
        before = room.counters["bytes_received"]
        reader = room.readers.reader(await room.store.head("k"))
        rng = random.Random(2)
        for _ in range(20):
            at = rng.randrange(1, 24 * MIB >> 12) << 12
            assert await reader.read(at, 4096) == data[at : at + 4096]
        assert room.counters["bytes_received"] - before <= 20 * (128 << 10)
        reader.close()

    run(server, body)


def test_a_replaced_object_is_stale(server: Server) -> None:
    async def body(room: Room) -> None:
        await room.put(b"a" * (8 * MIB))
        reader = room.readers.reader(await room.store.head("k"))
        assert bytes(await reader.read(0, 4096)) == b"a" * 4096
        await room.put(b"b" * (8 * MIB))
        with pytest.raises(StoreError) as failure:
            await reader.read(4 * MIB, 4096)
        assert failure.value.errno == errno.ESTALE
        reader.close()
        again = room.readers.reader(await room.store.head("k"))
        assert bytes(await again.read(4 * MIB, 4096)) == b"b" * 4096
        again.close()

    run(server, body)


def test_a_shortened_object_is_stale(server: Server) -> None:
    async def body(room: Room) -> None:
        await room.put(b"a" * (8 * MIB))
        reader = room.readers.reader(await room.store.head("k"))
        await room.put(b"b")
        with pytest.raises(StoreError) as failure:
            await reader.read(4 * MIB, 4096)
        assert failure.value.errno == errno.ESTALE

    run(server, body)


def test_a_deleted_object_is_missing(server: Server) -> None:
    async def body(room: Room) -> None:
        await room.put(b"a" * MIB)
        reader = room.readers.reader(await room.store.head("k"))
        await room.store.delete("k")
        with pytest.raises(StoreError) as failure:
            await reader.read(0, 4096)
        assert failure.value.errno == errno.ENOENT

    run(server, body)


@pytest.mark.parametrize("told", [True, False], ids=["version known", "version learnt"])
def test_on_a_versioned_bucket_the_reader_keeps_its_version(rgw: Server, told: bool) -> None:
    async def body(room: Room) -> None:
        await room.store.call("put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})
        await room.put(b"a" * (8 * MIB))
        info = await room.store.head("k")
        reader = room.readers.reader(info if told else replace(info, version_id=""))
        assert bytes(await reader.read(0, 4096)) == b"a" * 4096
        await room.put(b"b" * (8 * MIB))
        assert bytes(await reader.read(4 * MIB, 4096)) == b"a" * 4096
        await room.store.delete("k")
        assert bytes(await reader.read(6 * MIB, 4096)) == b"a" * 4096
        reader.close()

    run(rgw, body)
