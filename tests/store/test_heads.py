"""HEADs that are wanted at the same time: sent in batches, and each gets its own answer, whatever the server leaves out."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import trio
import trio.testing

from tests.store.conftest import Test
from zosfs.config import Options
from zosfs.counters import Counters
from zosfs.errors import StoreError
from zosfs.store.account import S3Account
from zosfs.store.api import ObjectHeaders
from zosfs.store.credentials import Fixed
from zosfs.store.heads import DEPTH, WIDTH, Heads
from zosfs.store.http import Answer
from zosfs.store.s3 import S3Store
from zosfs.store.sigv4 import Credentials

Run = Callable[[Test], None]


def test_every_head_gets_its_own_answer(run: Run) -> None:
    async def test(store: S3Store) -> None:
        async with trio.open_nursery() as nursery:
            for n in range(200):
                nursery.start_soon(store.put, f"many/{n}", (b"x" * n,), ObjectHeaders({"n": str(n)}))
        opened, sent = store.exchange.counters["connections"], store.exchange.counters["requests_head"]
        found: dict[int, int] = {}

        async def ask(n: int) -> None:
            try:
                info = await store.head(f"many/{n}")
            except StoreError as exc:
                found[n] = -exc.status
            else:
                assert info.key == f"many/{n}"
                assert info.metadata == {"n": str(n)}
                found[n] = info.size

        async with trio.open_nursery() as nursery:
            for n in range(260):
                nursery.start_soon(ask, n)
        assert found == {n: n if n < 200 else -404 for n in range(260)}
        assert store.exchange.counters["requests_head"] - sent == 260
        assert store.exchange.counters["connections"] - opened <= WIDTH

    run(test)


@contextmanager
def server(answers: int, *, broken: bytes = b"") -> Iterator[tuple[str, list[str]]]:
    """A server that closes each connection after so many *answers*, with *broken* for its last words; and the paths it was asked for."""
    listener = socket.create_server(("127.0.0.1", 0))
    asked: list[str] = []

    def serve(sock: socket.socket) -> None:
        pending = b""
        with sock:
            for _ in range(answers):
                while b"\r\n\r\n" not in pending:
                    data = sock.recv(65536)
                    if not data:
                        return
                    pending += data
                head, _, pending = pending.partition(b"\r\n\r\n")
                path = head.split()[1].decode()
                asked.append(path)
                size = re.sub(r"\D", "", path)
                sock.sendall(f'HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nETag: "{size}"\r\n\r\n'.encode())
            sock.sendall(broken)

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(sock,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.mark.parametrize(("answers", "broken"), [(1, b""), (3, b""), (5, b"HTTP/1.1 200 OK\r\nContent-Le"), (7, b"nonsense\r\n\r\n")])
def test_what_a_closing_server_leaves_out_is_asked_for_again(answers: int, broken: bytes) -> None:
    async def test(url: str) -> None:
        account = S3Account(Options(url=url, retry_timeout=120.0), Counters(), Fixed(Credentials("a", "s")))
        store = account.bucket("b")
        found: dict[int, int] = {}

        async def ask(n: int) -> None:
            found[n] = (await store.head(f"k{n}")).size

        async with trio.open_nursery() as nursery:
            for n in range(100):
                nursery.start_soon(ask, n)
        assert found == {n: n for n in range(100)}
        await account.aclose()

    with server(answers, broken=broken) as (url, asked):
        trio.run(test, url)
        assert {path.rpartition("/")[2] for path in asked} == {f"k{n}" for n in range(100)}


def test_who_is_cancelled_leaves_the_others_their_turn() -> None:
    async def test() -> None:
        release = trio.Event()

        async def ask(keys: Sequence[str]) -> list[Answer]:
            await release.wait()
            return [Answer(200, {"key": key}) for key in keys]

        heads = Heads(ask, alone=64, pipeline=True)
        got: list[tuple[str, str | None]] = []

        async def one(key: str, scope: trio.CancelScope) -> None:
            with scope:
                async with heads.turn(key) as answer:
                    if answer is None:
                        await release.wait()
                    got.append((key, answer.headers["key"] if answer is not None else None))

        scopes = [trio.CancelScope() for _ in range(5 * WIDTH)]
        async with trio.open_nursery() as nursery:
            for n, scope in enumerate(scopes):
                nursery.start_soon(one, f"k{n}", scope)
            await trio.testing.wait_all_tasks_blocked()
            for scope in scopes[::3]:
                scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            release.set()
        assert {key for key, _ in got} == {f"k{n}" for n in range(5 * WIDTH) if n % 3}
        assert all(answer in (key, None) for key, answer in got)

        async with heads.turn("after"):
            pass  # nobody holds a turn that is gone

    trio.run(test)


def test_batches_are_bounded() -> None:
    async def test() -> None:
        sizes: list[int] = []

        async def ask(keys: Sequence[str]) -> list[Answer]:
            sizes.append(len(keys))
            await trio.sleep(0.01)
            return [Answer(200, {}) for _ in keys]

        heads = Heads(ask, alone=64, pipeline=True)

        async def one(key: str) -> None:
            async with heads.turn(key) as answer:
                if answer is None:
                    sizes.append(1)
                    await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            for n in range(1000):
                nursery.start_soon(one, str(n))
        assert sum(sizes) == 1000
        assert max(sizes) == DEPTH

    trio.run(test)


@pytest.mark.parametrize("pipeline", [True, False])
def test_a_server_that_asks_for_fewer_gets_fewer_and_then_more_again(pipeline: bool) -> None:
    async def test() -> None:
        complaints = halved = running = 0
        most: list[int] = []
        busy = True

        async def answer() -> None:
            nonlocal running, complaints
            running += 1
            most.append(running)
            await trio.sleep(0.01)
            running -= 1
            complaints += busy

        async def ask(keys: Sequence[str]) -> list[Answer]:
            await answer()
            return [Answer(503 if busy else 200, {}) for _ in keys]

        def slowed() -> None:
            nonlocal halved
            halved += 1

        heads = Heads(ask, alone=8, pipeline=pipeline, throttled=lambda: complaints, slowed=slowed)

        async def one(key: str) -> None:
            async with heads.turn(key) as given:
                if given is None or given.status == 503:
                    await answer()

        async def many(count: int) -> int:
            most.clear()
            async with trio.open_nursery() as nursery:
                for n in range(count):
                    nursery.start_soon(one, str(n))
            return max(most[len(most) // 2 :])

        assert heads.width == 8
        await many(1000)
        assert (heads.width, halved) == (1, 3), "8, 4, 2, 1: those under way together are one complaint"
        assert await many(100) == 1, "who was told 503 asks again, one after the other"
        busy = False
        await many(2000)
        assert heads.width == 8
        assert halved == 3

    trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0))
