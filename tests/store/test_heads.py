"""HEADs that are wanted at the same time: sent in batches, and each gets its own answer, whatever the server leaves out."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager

import pytest
import trio
import trio.testing

from tests.store.conftest import Test
from zosfs.config import Options
from zosfs.counters import Counters
from zosfs.errors import StoreError
from zosfs.store.account import S3Account
from zosfs.store.api import HEADS_TOGETHER, ObjectHeaders, ObjectInfo
from zosfs.store.credentials import Fixed
from zosfs.store.heads import DISAPPOINTMENTS, REST, WIDTH, Heads
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


def test_many_at_once_are_answered_each_for_itself(run: Run) -> None:
    async def test(store: S3Store) -> None:
        keys = [f"many/{n}" for n in range(HEADS_TOGETHER)]
        for n, key in enumerate(keys[:-2]):
            await store.put(key, (b"x" * n,), ObjectHeaders({"n": str(n)}))
        opened, sent = store.exchange.counters["connections"], store.exchange.counters["requests_head"]
        *infos, missing, also = await store.head_many(keys)
        for n, info in enumerate(infos):
            assert isinstance(info, ObjectInfo)
            assert (info.key, info.size, info.metadata) == (keys[n], n, {"n": str(n)})
        for n, failure in enumerate((missing, also)):
            assert isinstance(failure, StoreError)
            assert (failure.status, failure.key) == (404, keys[n - 2])
        assert store.exchange.counters["requests_head"] - sent == HEADS_TOGETHER
        assert store.exchange.counters["connections"] - opened <= 1
        assert await store.head_many([*keys, "one/more"]) == [None] * (HEADS_TOGETHER + 1)
        assert await store.head_many(["many/0"]) == [None]
        assert store.exchange.counters["requests_head"] - sent == HEADS_TOGETHER, "what is asked for alone is not asked for here"

    run(test)


@contextmanager
def server(answers: int, *, broken: bytes = b"", refused: Container[int] = ()) -> Iterator[tuple[str, list[str]]]:
    """A server that closes each connection after so many *answers*, with *broken* for its last words; and the paths it was asked for.

    Those requests whose numbers are *refused* it answers with 503.
    """
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
                if len(asked) - 1 in refused:
                    sock.sendall(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n")
                    continue
                size = re.sub(r"\D", "", path)
                padding = "x" * 8000 if size == "0" else ""
                sock.sendall(f'HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nETag: "{size}{padding}"\r\n\r\n'.encode())
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


@pytest.mark.parametrize(("answers", "broken"), [(1, b""), (3, b""), (5, b"HTTP/1.1 200 OK\r\nContent-Le"), (7, b"nonsense\r\n\r\n")])
def test_of_many_at_once_a_closing_server_answers_some(answers: int, broken: bytes) -> None:
    async def test(url: str) -> None:
        account = S3Account(Options(url=url, retry_timeout=120.0), Counters(), Fixed(Credentials("a", "s")))
        store = account.bucket("b")
        for first in range(0, 40, 8):
            keys = [f"k{n}" for n in range(first, first + 8)]
            for key, info in zip(keys, await store.head_many(keys), strict=True):
                assert info is None or (isinstance(info, ObjectInfo) and f"k{info.size}" == key)
                assert (await store.head(key)).size == int(key[1:])
        assert await store.head_many(["k1", "k2"]) == [None, None], "after so many disappointments it is not tried any more"
        await account.aclose()

    with server(answers, broken=broken) as (url, _):
        trio.run(test, url)


@pytest.mark.parametrize("together", [1, 4, HEADS_TOGETHER])
def test_whoever_asks_for_several_waits_for_his_turn_as_others_do(together: int) -> None:
    async def test() -> None:
        running = 0
        sizes: list[int] = []

        async def ask(keys: Sequence[str]) -> list[Answer]:
            nonlocal running
            running += 1
            assert running <= WIDTH
            sizes.append(len(keys))
            await trio.sleep(0.01)
            running -= 1
            return [Answer(200, {"key": key}) for key in keys]

        heads = Heads(ask, alone=64, pipeline=True)
        told: list[str] = []

        async def some(keys: Sequence[str]) -> None:
            async with heads.turn(keys) as given:
                if None in given:
                    assert len(keys) == 1, "who may send one alone has asked for one"
                    await trio.sleep(0.01)
                told.extend(key for key, answer in zip(keys, given, strict=True) if answer is None or answer.headers["key"] == key)

        keys = [f"k{n}" for n in range(1600)]
        async with trio.open_nursery() as nursery:
            for at in range(0, 800, together):
                nursery.start_soon(some, keys[at : at + together])
            for key in keys[800:]:
                nursery.start_soon(some, (key,))
        assert sorted(told) == sorted(keys)
        assert max(sizes) == HEADS_TOGETHER
        assert heads.width == WIDTH

    trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0))


def test_answers_much_shorter_than_the_first_are_not_waited_for_in_vain() -> None:
    async def test(url: str) -> None:
        account = S3Account(Options(url=url), Counters(), Fixed(Credentials("a", "s")))
        keys = [f"k{n}" for n in range(HEADS_TOGETHER)]
        with trio.fail_after(30):
            infos = await account.bucket("b").head_many(keys)
        for n, info in enumerate(infos):
            assert isinstance(info, ObjectInfo)
            assert info.size == n
        await account.aclose()

    with server(1000) as (url, _):
        trio.run(test, url)


def test_of_several_those_that_were_too_many_are_asked_for_one_after_the_other() -> None:
    async def test(url: str) -> None:
        account = S3Account(Options(url=url, retry_timeout=120.0), Counters(), Fixed(Credentials("a", "s")))
        store = account.bucket("b")
        keys = [f"k{n}" for n in range(8)]
        for key, info in zip(keys, await store.head_many(keys), strict=True):
            assert isinstance(info, ObjectInfo)
            assert f"k{info.size}" == key
        assert store.exchange.counters["slowdowns"] == 1
        await account.aclose()

    with server(1000, refused=range(5)) as (url, asked):
        trio.run(test, url)
        assert len(asked) == 8 + 5


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
                async with heads.turn((key,)) as (answer,):
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

        async with heads.turn(("after",)):
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
            async with heads.turn((key,)) as (answer,):
                if answer is None:
                    sizes.append(1)
                    await trio.sleep(0.01)

        async with trio.open_nursery() as nursery:
            for n in range(1000):
                nursery.start_soon(one, str(n))
        assert sum(sizes) == 1000
        assert max(sizes) == HEADS_TOGETHER

    trio.run(test)


@pytest.mark.parametrize(("pipeline", "widest"), [(True, WIDTH), (False, 8)])
def test_a_server_that_asks_for_fewer_gets_fewer_and_then_more_again(pipeline: bool, widest: int) -> None:
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
            async with heads.turn((key,)) as (given,):
                if given is None or given.status == 503:
                    await answer()

        async def many(count: int) -> int:
            most.clear()
            async with trio.open_nursery() as nursery:
                for n in range(count):
                    nursery.start_soon(one, str(n))
            return max(most[len(most) // 2 :])

        halvings = widest.bit_length() - 1
        assert heads.width == widest
        await many(1000)
        assert (heads.width, halved) == (1, halvings), "16, 8, 4, 2, 1: those under way together are one complaint"
        assert await many(100) == 1, "who was told 503 asks again, one after the other"
        busy = False
        await many(4000)
        assert heads.width == widest
        assert halved == halvings

    trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0))


KEYS = [f"k{n}" for n in range(HEADS_TOGETHER)]


def test_what_is_cut_now_and_then_goes_on_in_batches() -> None:
    """A proxy that closes each connection after so many requests (nginx: keepalive_requests) is none that cannot do this."""

    async def test(url: str) -> None:
        account = S3Account(Options(url=url), Counters(), Fixed(Credentials("a", "s")))
        store = account.bucket("b")
        came = [await store.head_many(KEYS) for _ in range(40)]
        assert sum(None in infos for infos in came) > 5, "some were cut"
        assert sum(None not in infos for infos in came) > 25
        await account.aclose()

    with server(5 * HEADS_TOGETHER + 3) as (url, _):
        trio.run(test, url)


def test_a_server_that_is_away_for_a_while_is_asked_in_batches_afterwards() -> None:
    async def test() -> None:
        connected = True
        away = False

        async def ask(keys: Sequence[str]) -> list[Answer] | None:
            await trio.sleep(0.01)
            if not connected:
                return None
            return [] if away else [Answer(200, {}) for _ in keys]

        heads = Heads(ask, alone=64, pipeline=True)

        async def sweep() -> None:
            async with heads.turn(KEYS):
                pass

        async def sweeps() -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(2 * WIDTH):
                    nursery.start_soon(sweep)

        for _ in range(2 * DISAPPOINTMENTS):
            away = True
            await sweep()
            away, connected = False, False
            await sweeps()
            await sweeps()
            connected = True
            assert heads.together == HEADS_TOGETHER
            await sweeps()
        away = True
        for _ in range(DISAPPOINTMENTS):
            await sweep()
        assert heads.together == 1

    trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_server_that_leaves_out_answers_is_tried_again_after_a_rest() -> None:
    async def test() -> None:
        cuts = True

        async def ask(keys: Sequence[str]) -> list[Answer]:
            await trio.sleep(0.01)
            return [] if cuts else [Answer(200, {}) for _ in keys]

        heads = Heads(ask, alone=64, pipeline=True)

        async def sweep() -> int:
            async with heads.turn(KEYS[: heads.together]) as came:
                return sum(answer is not None for answer in came)

        for _ in range(DISAPPOINTMENTS):
            await sweep()
        assert (heads.together, heads.width) == (1, 64)
        await trio.sleep(REST)
        assert await sweep() == 0
        assert heads.together == 1, "one more is enough"
        await trio.sleep(REST)
        assert heads.together == 1, "the rest is longer each time"
        cuts = False
        await trio.sleep(REST)
        assert await sweep() == HEADS_TOGETHER
        assert (heads.together, heads.width) == (HEADS_TOGETHER, WIDTH)

    trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0))


def test_who_gives_up_says_nothing_of_the_server() -> None:
    async def test() -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        options = Options(url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        account = S3Account(options, Counters(), Fixed(Credentials("a", "s")))
        store = account.bucket("b")
        for _ in range(DISAPPOINTMENTS + 1):
            with trio.fail_after(30):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(store.head_many, KEYS)
                    sock, _ = await trio.to_thread.run_sync(listener.accept, abandon_on_cancel=True)
                    await trio.to_thread.run_sync(sock.recv, 1, abandon_on_cancel=True)
                    nursery.cancel_scope.cancel()
            sock.close()
        await account.aclose()
        listener.close()

    trio.run(test)


def test_a_server_that_has_too_much_to_do_for_long_is_not_waited_for_key_by_key() -> None:
    async def test(url: str) -> None:
        account = S3Account(Options(url=url, retries=2), Counters(), Fixed(Credentials("a", "s")))
        store = account.bucket("b")
        failure, *others = await store.head_many(KEYS)
        assert isinstance(failure, StoreError)
        assert failure.status == 503
        assert others == [None] * (HEADS_TOGETHER - 1)
        await account.aclose()

    with server(1000, refused=range(1000)) as (url, asked):
        trio.run(test, url)
        assert len(asked) == HEADS_TOGETHER + 3


def test_those_that_were_answered_are_told_where_others_were_too_many() -> None:
    async def test(url: str) -> None:
        account = S3Account(Options(url=url, retries=0), Counters(), Fixed(Credentials("a", "s")))
        infos = await account.bucket("b").head_many(KEYS)
        assert isinstance(infos[0], StoreError)
        assert infos[1:5] == [None] * 4
        assert [info.key for info in infos[5:] if isinstance(info, ObjectInfo)] == KEYS[5:]
        await account.aclose()

    with server(1000, refused={0, 1, 2, 3, 4, HEADS_TOGETHER}) as (url, _):
        trio.run(test, url)
