"""Connections over which one exchange after the other goes, in passing where it is short."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from zosfs.config import Options
from zosfs.counters import Counters
from zosfs.store.http import WireError
from zosfs.store.pool import Pool

HEAD = b"PUT / HTTP/1.1\r\nhost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@contextlib.contextmanager
def server(*connections: tuple[bytes | None, ...]) -> Iterator[int]:
    """The port of a server that answers, on each connection in turn, each request by the next of its answers, and then hangs up.

    None: it says nothing until the client hangs up.
    """
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for answers in connections:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # nobody comes any more
            with client:
                for answer in answers:
                    got = b""
                    while not got.endswith(b"\r\n\r\n"):
                        data = client.recv(1 << 20)
                        if not data:
                            break
                        got += data
                    if answer is None:
                        with contextlib.suppress(OSError):
                            client.recv(1)
                        break
                    client.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(60)


def run(port: int, main: Callable[[Pool], Awaitable[None]], **options: Any) -> Counters:
    """*main* with a pool of connections to *port*."""
    counters = Counters()

    async def with_pool() -> None:
        pool = Pool(port, None, replace(Options(), **{"connections": 4, **options}), counters)
        try:
            await main(pool)
        finally:
            pool.close()

    trio.run(with_pool)
    return counters


async def ask(pool: Pool, **more: bool) -> bytes:
    return (await pool.send("127.0.0.1", HEAD, (), brief=True, **more)).body


def test_the_first_makes_the_connection_and_the_next_use_it() -> None:
    async def main(pool: Pool) -> None:
        before = threading.active_count()
        assert await ask(pool) == b"ok"
        threads = threading.active_count()
        assert threads == before + 1, "connecting may take long"
        assert [await ask(pool) for _ in range(3)] == [b"ok"] * 3

    with server((OK,) * 4) as port:
        assert run(port, main)["connections"] == 1


def test_no_thread_works_on_a_short_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(pool: Pool) -> None:
        await ask(pool)
        monkeypatch.setattr(pool, "_threads", None)
        assert await ask(pool) == b"ok"
        monkeypatch.undo()

    with server((OK, OK)) as port:
        run(port, main)


def test_a_thread_receives_what_turns_out_to_be_long() -> None:
    long = b"HTTP/1.1 500 Oh\r\ncontent-length: 3000000\r\n\r\n" + b"x" * 3000000
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"

    async def main(pool: Pool) -> None:
        await ask(pool)
        assert await ask(pool) == b"x" * 3000000
        assert await ask(pool) == b"abc"
        assert await ask(pool) == b"ok"

    with server((OK, long, chunked, OK)) as port:
        assert run(port, main)["connections"] == 1


def test_a_connection_that_the_server_closed_meanwhile_is_replaced() -> None:
    async def main(pool: Pool) -> None:
        await ask(pool)
        assert await ask(pool) == b"ok"

    with server((OK, b""), (OK,)) as port:
        assert run(port, main)["connections"] == 2


def test_what_may_be_sent_only_once_is_not_sent_again() -> None:
    async def main(pool: Pool) -> None:
        await ask(pool)
        with pytest.raises(WireError) as failure:
            await ask(pool, again=False)
        assert (failure.value.code, failure.value.reused, failure.value.answered) == ("ConnectionClosed", True, False)

    with server((OK, b"")) as port:
        assert run(port, main)["connections"] == 1


def test_silence_ends_in_time() -> None:
    async def main(pool: Pool) -> None:
        await ask(pool)
        with pytest.raises(WireError) as failure:
            await ask(pool)
        assert (failure.value.code, failure.value.answered) == ("ReadTimeout", False)
        assert await ask(pool) == b"ok", "on another connection"

    with server((OK, None), (OK,)) as port:
        assert run(port, main, read_timeout=1.0)["connections"] == 2


def test_who_is_cancelled_leaves_no_connection_in_the_middle_of_an_answer() -> None:
    async def main(pool: Pool) -> None:
        await ask(pool)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, pool)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert await ask(pool) == b"ok"

    with server((OK, None), (OK,)) as port:
        assert run(port, main)["connections"] == 2


def test_many_at_once() -> None:
    many = 300

    async def main(pool: Pool) -> None:
        answers: list[bytes] = []

        async def one() -> None:
            answers.append(await ask(pool))

        async with trio.open_nursery() as nursery:
            for _ in range(many):
                nursery.start_soon(one)
        assert answers == [b"ok"] * many

    with server(*((OK,) * many,)) as port:
        # the server serves one connection after the other, and all go over the first
        assert run(port, main, connections=1)["connections"] == 1


def heard(pool: Pool) -> bool:
    """Whether the server was heard since the last time that this was asked."""
    spoke = pool.traffic.moved_at > 0
    pool.traffic.moved_at = 0.0
    return spoke


def test_every_answer_is_heard() -> None:
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    to_the_end = b"HTTP/1.1 200 OK\r\n\r\nabc"
    none = b"HTTP/1.1 200 OK\r\n\r\n"

    async def main(pool: Pool) -> None:
        heard(pool)
        assert await ask(pool) == b"ok"
        assert heard(pool), "by a thread"
        assert await ask(pool) == b"ok"
        assert heard(pool), "in passing"
        assert await ask(pool) == b"abc"
        assert heard(pool)
        assert len(await pool.pipeline("127.0.0.1", [HEAD]) or ()) == 1
        assert heard(pool), "heads behind one another"
        assert await ask(pool) == b"abc"
        assert heard(pool)
        assert not heard(pool)

    with server((OK, OK, chunked, none, to_the_end)) as port:
        run(port, main)


def test_who_waits_for_whom_and_since_when() -> None:
    async def main(pool: Pool) -> None:
        traffic = pool.traffic
        assert traffic.waiting() is None
        await ask(pool)
        assert traffic.waiting() is None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, pool)
            await trio.testing.wait_all_tasks_blocked()
            long = traffic.waiting()
            assert long is not None
            assert (long.requests, long.host) == (1, f"127.0.0.1:{pool.port}")
            nursery.start_soon(partial(pool.send, "127.0.0.1", HEAD, (), patience=0.001))  # as of a small copy
            nursery.start_soon(pool.pipeline, "127.0.0.1", [HEAD])
            nursery.start_soon(partial(pool.send, "127.0.0.1", HEAD, (), patience=3600))
            await trio.testing.wait_all_tasks_blocked()
            longer = traffic.waiting()
            assert longer is not None
            assert (longer.requests, longer.since) == (3, long.since), "a request whose work takes long is not counted"
            nursery.cancel_scope.cancel()
        assert traffic.waiting() is None

    with server((OK, None), (None,), (None,), (None,)) as port:
        run(port, main)
