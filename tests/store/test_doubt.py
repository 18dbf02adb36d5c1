"""Lost requests, lost answers, broken bodies: what is sent again, what is recognised as done, what is never repeated."""

from __future__ import annotations

import errno
import gc
import hashlib
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.store.conftest import account, fresh_bucket
from tests.store.lossy import ANSWER_LOST, REQUEST_LOST, SILENT, Fate, Lossy, error
from zosfs.errors import StoreError
from zosfs.store.api import ObjectHeaders, ObjectInfo
from zosfs.store.arrival import Arrival
from zosfs.store.s3 import S3Store

NONE = ObjectHeaders()
SHORT = 3.0
"""Seconds of silence where silence is what happens; a request that is answered is not to be given up by a busy machine."""
MIB = 1 << 20


def lossy(server: Any, test: Callable[[S3Store, Lossy, S3Store], Any], **options: Any) -> None:
    """Run *test* with a Store behind a Lossy, the Lossy, and the same bucket's Store reached straight."""

    async def main() -> None:
        async with fresh_bucket(server) as name:
            with Lossy(server.url) as proxy:
                straight, behind = account(server), account(server, proxy.url, **{"read_timeout": 20.0, "retry_timeout": 120.0, **options})
                store = behind.bucket(name)
                store.abilities = await straight.bucket(name).probe()
                with trio.fail_after(240):
                    await test(store, proxy, straight.bucket(name))
                await straight.aclose()
                await behind.aclose()

    trio.run(main)


def sent(proxy: Lossy, method: str) -> int:
    """How many requests of *method* came by."""
    return sum(seen == method for seen, _ in proxy.seen)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("fate", [ANSWER_LOST, REQUEST_LOST, error(500, "InternalError"), error(503, "SlowDown"), error(502)])
def test_put(server: Any, fate: Fate, conditional: bool) -> None:
    put(server, fate, conditional)


@pytest.mark.parametrize("conditional", [False, True])
def test_put_and_silence(rgw: Any, conditional: bool) -> None:
    put(rgw, SILENT, conditional)


def put(server: Any, fate: Fate, conditional: bool) -> None:
    """A PUT that meets *fate* over an object, and one, if *conditional*, where none is: both arrive, after as few requests as can be."""

    async def test(store: S3Store, proxy: Lossy, straight: S3Store) -> None:
        old = await store.put("k", (b"old",), NONE)
        proxy.once("PUT", fate)
        written = await store.put("k", (b"new",), ObjectHeaders({"mode": "1"}), if_match=old.etag if conditional else "")
        assert written.etag == hashlib.md5(b"new").hexdigest()
        assert (await straight.head("k")).metadata == {"mode": "1"}
        if not conditional:
            assert sent(proxy, "PUT") == 3
        else:
            # whether it arrived is asked before it is sent again
            assert sent(proxy, "PUT") == (2 if fate == ANSWER_LOST else 3)
            assert store.exchange.counters["retries"] == (0 if fate == ANSWER_LOST else 1)
            proxy.once("PUT", fate)
            await store.put("fresh", (b"new",), NONE, if_none_match=True)

    lossy(server, test, read_timeout=SHORT if fate == SILENT else 20.0)


def test_the_same_bytes_with_other_attributes_are_not_taken_for_done(rgw: Any) -> None:
    async def test(store: S3Store, proxy: Lossy, straight: S3Store) -> None:
        await store.put("k", (b"same",), ObjectHeaders({"mode": "1"}))
        proxy.once("PUT", REQUEST_LOST)
        await store.put("k", (b"same",), ObjectHeaders({"mode": "2"}))
        assert (await straight.head("k")).metadata == {"mode": "2"}

    lossy(rgw, test)


def test_a_conditional_put_loses_to_another_between_its_tries(server: Any) -> None:
    async def test(store: S3Store, proxy: Lossy, straight: S3Store) -> None:
        old = await store.put("k", (b"old",), NONE)
        await straight.put("k", (b"theirs",), NONE)
        proxy.once("PUT", REQUEST_LOST)
        with pytest.raises(StoreError) as failure:
            await store.put("k", (b"ours",), NONE, if_match=old.etag)
        assert failure.value.errno == errno.ESTALE

    lossy(server, test)


@pytest.mark.parametrize("fate", [ANSWER_LOST, REQUEST_LOST, error(500, "InternalError")])
def test_complete(server: Any, fate: Fate) -> None:
    async def test(store: S3Store, proxy: Lossy, straight: S3Store) -> None:
        upload = await store.create_upload("k", NONE)
        part = await store.upload_part("k", upload, 1, (b"bytes",))
        proxy.once("POST", fate, "uploadId")
        written = await store.complete_upload("k", upload, [part])
        info = await straight.head("k")
        assert (info.size, info.etag) == (5, written.etag)

    lossy(server, test)


def test_append_is_never_repeated(rgw: Any) -> None:
    async def test(store: S3Store, proxy: Lossy, straight: S3Store) -> None:
        await store.append("k", 0, (b"one",), NONE)
        for fate in (ANSWER_LOST, REQUEST_LOST, error(500)):
            before = sent(proxy, "PUT")
            size = (await straight.head("k")).size
            proxy.once("PUT", fate)
            with pytest.raises(StoreError) as failure:
                await store.append("k", size, (b"two",), NONE)
            assert failure.value.ambiguous
            assert sent(proxy, "PUT") == before + 1
        assert (await straight.head("k")).size == 6

    lossy(rgw, test)


def test_an_outcome_left_in_doubt_is_looked_after_before_the_next_request(rgw: Any) -> None:
    async def test(store: S3Store, proxy: Lossy, straight: S3Store) -> None:
        await store.append("k", 0, (b"one",), NONE)
        proxy.once("PUT", ANSWER_LOST)
        with pytest.raises(StoreError):
            await store.append("k", 3, (b"two",), NONE)
        proxy.seen.clear()
        await store.append("k", 6, (b"three",), NONE)
        assert [method for method, _ in proxy.seen] == ["HEAD", "PUT"]

    lossy(rgw, test)


@pytest.mark.parametrize("pinned", [False, True])
def test_a_broken_body_is_continued_where_it_broke(server: Any, pinned: bool) -> None:
    async def test(store: S3Store, proxy: Lossy, straight: S3Store) -> None:
        data = os.urandom(3 * MIB)
        etag = (await straight.put("k", (data,), NONE)).etag
        cuts = iter([MIB, 5, 0, MIB])

        def fate(method: str, target: str) -> Fate:
            return next(cuts, "pass") if method == "GET" else "pass"

        proxy.fate = fate
        buffer = bytearray(3 * MIB - 10)
        before = store.exchange.counters["bytes_received"]
        info = await store.get_range("k", 10, memoryview(buffer), if_match=etag if pinned else "")
        assert bytes(buffer) == data[10:]
        assert (info.size, info.etag) == (3 * MIB, etag)
        assert store.exchange.counters["bytes_received"] - before == len(buffer)

    lossy(server, test)


def test_a_listing_that_broke_off_is_asked_for_again(server: Any) -> None:
    async def test(store: S3Store, proxy: Lossy, straight: S3Store) -> None:
        keys = [f"key{n}" for n in range(20)]
        for key in keys:
            await straight.put(key, (b"x",), NONE)
        for arrives in (20, 600, 2000):
            proxy.once("GET", arrives)
            assert [info.key for info in (await store.list_page("")).objects] == sorted(keys)

    lossy(server, test)


def test_what_has_come_is_told_before_the_rest_has(server: Any) -> None:
    async def test(store: S3Store, proxy: Lossy, straight: S3Store) -> None:
        data = os.urandom(3 * MIB)
        etag = (await straight.put("k", (data,), NONE)).etag
        cuts = iter([MIB, MIB])
        proxy.fate = lambda method, target: next(cuts, "pass")
        buffer = bytearray(3 * MIB)
        told: list[int] = []

        def note(info: ObjectInfo, n: int) -> None:
            assert (info.etag, bytes(buffer[:n])) == (etag, data[:n])
            told.append(n)
            arrival.want(n + 256 * 1024)

        arrival = Arrival(note)
        arrival.want(1)
        await store.get_range("k", 0, memoryview(buffer), if_match=etag, arrival=arrival)
        assert bytes(buffer) == data
        assert told == sorted(told)
        assert told[0] <= MIB
        assert told[-1] > MIB

    lossy(server, test)


def test_nothing_is_told_of_an_answer_that_is_not_what_was_asked_for(rgw: Any) -> None:
    async def test(store: S3Store, proxy: Lossy, straight: S3Store) -> None:
        etag = (await straight.put("k", (b"a" * MIB,), NONE)).etag
        body = b"b" * (MIB // 2)
        proxy.fate = lambda method, target: (
            b"HTTP/1.1 206 Partial\r\ncontent-length: %d\r\ncontent-range: bytes 7-%d/%d\r\n\r\n" % (len(body), MIB // 2 + 6, MIB) + body
        )
        told: list[int] = []
        arrival = Arrival(lambda info, n: told.append(n))
        arrival.want(1)
        with pytest.raises(StoreError) as failure:
            await store.get_range("k", 0, memoryview(bytearray(MIB // 2)), if_match=etag, arrival=arrival)
        assert failure.value.code == "BadAnswer"
        await trio.testing.wait_all_tasks_blocked()
        assert told == []

    lossy(rgw, test)


def test_a_body_is_not_continued_with_another_object(server: Any) -> None:
    async def test(store: S3Store, proxy: Lossy, straight: S3Store) -> None:
        await straight.put("k", (b"a" * MIB,), NONE)
        await straight.put("other", (b"b" * MIB,), NONE)
        gets = 0

        def fate(method: str, target: str) -> Fate:
            nonlocal gets
            gets += method == "GET"
            if gets == 1:
                return 1000
            if gets == 2:
                # somebody replaces the object before the request goes on; straight from the proxy's thread
                trio.from_thread.run(straight.put, "k", (b"b" * MIB,), NONE, trio_token=token)
            return "pass"

        token = trio.lowlevel.current_trio_token()
        proxy.fate = fate
        with pytest.raises(StoreError) as failure:
            await store.get_range("k", 0, memoryview(bytearray(MIB)))
        assert failure.value.errno == errno.ESTALE

    lossy(server, test)


def test_reading_gives_up_when_the_server_stays_away(rgw: Any) -> None:
    async def test(store: S3Store, proxy: Lossy, straight: S3Store) -> None:
        await straight.put("k", (b"x",), NONE)
        proxy.fate = lambda method, target: error(503, "SlowDown")
        with pytest.raises(StoreError) as failure:
            await store.head("k")
        assert (failure.value.errno, failure.value.status) == (errno.EIO, 503)
        assert sent(proxy, "HEAD") == 3
        assert store.exchange.counters["errors"] == 1
        with Lossy(rgw.url, lambda method, target: SILENT) as silent:
            deaf = account(rgw, silent.url, read_timeout=0.5, retries=2)
            with pytest.raises(StoreError) as failure:
                await deaf.bucket(store.bucket).get_range("k", 0, memoryview(bytearray(1)))
            await deaf.aclose()
        assert failure.value.errno == errno.ETIMEDOUT

    lossy(rgw, test, retries=2)


def test_a_connection_that_died_while_idle_costs_nothing(server: Any) -> None:
    async def test(store: S3Store, proxy: Lossy, straight: S3Store) -> None:
        await store.put("k", (b"x",), NONE)
        # the answer promises a connection that is then closed
        proxy.once("HEAD", 0)
        await store.head("k")
        before = store.exchange.counters["retries"]
        with trio.fail_after(60):
            while not any(  # noqa: ASYNC110  # nobody tells
                connection.stale() for connection, _ in store.exchange.pool._idle["127.0.0.1"]
            ):
                await trio.sleep(0.005)
        await store.put("k", (b"y",), NONE, if_match=hashlib.md5(b"x").hexdigest())
        assert store.exchange.counters["retries"] == before

    lossy(server, test)


def resizable(buffer: bytearray) -> bool:
    """Whether nobody holds a view of *buffer*."""
    try:
        buffer.append(0)
    except BufferError:
        return False
    return True


def test_cancelling_frees_the_buffer_at_once(rgw: Any) -> None:
    async def test(store: S3Store, proxy: Lossy, straight: S3Store) -> None:
        await straight.put("k", (b"x" * MIB,), NONE)
        proxy.fate = lambda method, target: SILENT
        buffer = bytearray(MIB)
        gc.disable()
        with trio.fail_after(60):  # the server would be waited for much longer
            with trio.move_on_after(0.3) as scope, memoryview(buffer) as view:
                await store.get_range("k", 0, view)
        assert scope.cancelled_caught
        with trio.fail_after(60):  # without the garbage collector's help; the worker may still be on its way out
            while not resizable(buffer):  # noqa: ASYNC110
                await trio.sleep(0.001)
        gc.enable()
        proxy.fate = lambda method, target: "pass"
        assert (await store.head("k")).size == MIB

    lossy(rgw, test, read_timeout=1000.0)


def test_cancelling_while_connecting() -> None:
    async def main() -> None:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            where = full.getsockname()
            taken = [socket.socket() for _ in range(3)]
            for each in taken:
                each.setblocking(False)
                each.connect_ex(where)
            server = type("Server", (), {"url": f"http://127.0.0.1:{where[1]}", "access_key": "a", "secret_key": "b"})()
            reached = account(server, connect_timeout=1000.0)
            with trio.fail_after(60):  # a connection would be waited for much longer
                with trio.move_on_after(0.3) as scope:
                    await reached.bucket("any").head("k")
            assert scope.cancelled_caught
            await reached.aclose()
            for each in taken:
                each.close()

    trio.run(main)
