"""The HTTP connection against a peer that says exactly what the test tells it to."""

from __future__ import annotations

import contextlib
import itertools
import resource
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from zosfs.store import short
from zosfs.store.api import FileSlice
from zosfs.store.http import Answer, WireError
from zosfs.store.outgoing import PIECE, slices
from zosfs.store.waking import SMALL, portion
from zosfs.store.wire import Comes, Connection, Peer

HEAD = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


@contextlib.contextmanager
def peer(
    *says: bytes, dribble: bool = False, hang: bool = False, timeout: float = 60.0, packet: int = 1 << 20, pause: float = 0.0
) -> Iterator[Connection]:
    """A connection to someone who answers each request with the next of *says* and then hangs up (*hang*: is silent).

    He sends *packet* bytes at a time, each *pause* seconds after the one before; or, if he is to *dribble*, one.
    """
    packet = 1 if dribble else packet
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        client, _ = listener.accept()
        with client:
            for answer in says:
                got = b""
                while b"\r\n\r\n" not in got:
                    data = client.recv(65536)
                    if not data:
                        return
                    got += data
                for start in range(0, len(answer), packet):
                    with contextlib.suppress(OSError):
                        client.sendall(answer[start : start + packet])
                    if pause:
                        time.sleep(pause)
            if hang:
                client.recv(1)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    connection = Connection(Peer("127.0.0.1", listener.getsockname()[1], None, 60.0, timeout))
    try:
        yield connection
    finally:
        connection.close()
        listener.close()
        thread.join(60)


class Ask(Protocol):
    """One request, and its answer."""

    def __call__(self, connection: Connection, into: memoryview | None = None, has_body: bool = True) -> Answer:
        """With the body of a good answer *into* a buffer, where one is given."""
        ...


def in_one_call(connection: Connection, into: memoryview | None = None, has_body: bool = True) -> Answer:
    return connection.request(HEAD, (), into, has_body)


def in_passing(connection: Connection, into: memoryview | None = None, has_body: bool = True) -> Answer:
    async def main() -> Answer:
        if await short.begin(connection, HEAD, (), has_body, connection._peer.read_timeout):
            return connection.take(into, has_body)
        return await trio.to_thread.run_sync(connection.wait, into, has_body)

    if not connection.made:
        connection._connect()
    return trio.run(main)


@pytest.fixture(params=[in_one_call, in_passing])
def ask(request: pytest.FixtureRequest) -> Ask:
    found: Ask = request.param
    return found


@pytest.mark.parametrize("dribble", [False, True])
def test_answers_of_every_framing(dribble: bool, ask: Ask) -> None:
    with peer(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A:  b \r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0a;x=y\r\n0123456789\r\n0\r\ntrailer: x\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 206 Partial\r\ncontent-length: 4\r\n\r\nrang",
        b"HTTP/1.1 200 OK\r\n\r\nto the end",
        dribble=dribble,
    ) as connection:
        answer = ask(connection)
        assert (answer.status, answer.body, answer.headers["x-a"]) == (200, b"hello", "b")
        assert ask(connection).body == b"abc0123456789"
        assert ask(connection).status == 204
        buffer = bytearray(6)
        answer = ask(connection, memoryview(buffer))
        assert (answer.received, answer.body, buffer[:4]) == (4, b"", b"rang")
        assert ask(connection).body == b"to the end"
        assert connection.closed


def test_head_has_no_body_whatever_it_says(ask: Ask) -> None:
    with peer(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n", b"HTTP/1.1 404 No\r\ncontent-length: 7\r\n\r\n") as connection:
        assert ask(connection, has_body=False).headers["content-length"] == "500"
        assert ask(connection, has_body=False).status == 404


def test_errors_do_not_go_into_the_buffer(ask: Ask) -> None:
    with peer(b"HTTP/1.1 404 No\r\ncontent-length: 3\r\n\r\nerr") as connection:
        buffer = bytearray(b"mine!")
        answer = ask(connection, memoryview(buffer))
        assert (answer.body, answer.received, buffer) == (b"err", 0, b"mine!")


@pytest.mark.parametrize(
    ("says", "code", "received"),
    [
        (b"", "ConnectionClosed", 0),
        (b"HTTP/1.1 200", "BadAnswer", 0),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "BadAnswer", 0),
        (b"HTTP/1.1 2x0 OK\r\n\r\n", "BadAnswer", 0),
        (b"HTTP/1.1 206 OK\r\ncontent-length: 4\r\n\r\nab", "TruncatedBody", 2),
        (b"HTTP/1.1 206 OK\r\ncontent-length: 40\r\n\r\n", "BadAnswer", 0),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcd", "BadAnswer", 0),
        (b"HTTP/1.1 404 OK\r\ncontent-length: -4\r\n\r\nabcd", "BadAnswer", 0),
        (b"HTTP/1.1 404 OK\r\ncontent-length: 99999999999\r\n\r\nabcd", "BadAnswer", 0),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nab", "TruncatedBody", 0),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n", "BadAnswer", 0),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "BadAnswer", 0),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000, "BadAnswer", 0),
    ],
)
def test_bad_answers(says: bytes, code: str, received: int, ask: Ask) -> None:
    with peer(says) as connection:
        with pytest.raises(WireError) as failure:
            ask(connection, memoryview(bytearray(4)))
        assert (failure.value.code, failure.value.received) == (code, received)
        assert connection.closed


def test_silence_ends_in_time(ask: Ask) -> None:
    with peer(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab", hang=True, timeout=1.5) as connection:
        with pytest.raises(WireError) as failure:
            ask(connection, memoryview(bytearray(4)))
        assert (failure.value.code, failure.value.answered) == ("ReadTimeout", True)
        assert failure.value.received == (2 if ask is in_one_call else 0), "what is short comes whole into the buffer, or not at all"
        assert connection.closed


LARGE = bytes(range(256)) * (5 << 12)


def test_silence_in_the_middle_of_a_large_body_ends_in_time(ask: Ask) -> None:
    head = b"HTTP/1.1 206 Partial\r\ncontent-length: %d\r\n\r\n" % len(LARGE)
    with peer(head + LARGE[:3000000], hang=True, timeout=1.5) as connection:
        into = memoryview(bytearray(len(LARGE)))
        with pytest.raises(WireError) as failure:
            ask(connection, into)
        assert (failure.value.code, failure.value.received) == ("ReadTimeout", 3000000)
        assert into[:3000000] == LARGE[:3000000]


def test_a_large_body_that_comes_in_drops_is_whole_and_the_next_answer_follows() -> None:
    head = b"HTTP/1.1 206 Partial\r\ncontent-length: 200000\r\n\r\n"
    with peer(head + LARGE[:200000], b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", dribble=True) as connection:
        into = memoryview(bytearray(200000))
        assert in_one_call(connection, into).received == 200000
        assert into == LARGE[:200000]
        assert in_one_call(connection).body == b"ok"


@pytest.mark.parametrize("length", [n * PIECE + more for n in (1, 2, 3) for more in (-1, 0, 1, SMALL)])
def test_a_body_of_any_length_comes_to_its_end_and_the_next_answer_follows(length: int) -> None:
    head = b"HTTP/1.1 206 Partial\r\ncontent-length: %d\r\n\r\n" % length
    with peer(head + LARGE[:length], b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", packet=100_003, pause=0.0005) as connection:
        into = memoryview(bytearray(length))
        assert in_one_call(connection, into).received == length
        assert into == LARGE[:length]
        assert in_one_call(connection).body == b"ok"


@given(st.integers(1, 20 * PIECE), st.lists(st.integers(SMALL, PIECE), min_size=1))
def test_whoever_waits_for_a_portion_is_woken_at_the_end_of_the_body_at_the_latest(left: int, wanted: list[int]) -> None:
    for each in itertools.cycle(wanted):
        piece, worth = portion(each, left)
        assert 0 < piece <= min(each, left)
        assert worth == 1 or worth <= left - piece, "all but a byte of the portion is handed out: what is to come must wake"
        left -= piece
        if not left:
            break
    assert worth == 1, "the head of the next answer is short"


def test_the_packets_of_a_large_body_do_not_wake_who_receives_it_one_by_one() -> None:
    packets = 200
    length = packets * 25_000
    head = b"HTTP/1.1 206 Partial\r\ncontent-length: %d\r\n\r\n" % length
    with peer(head + LARGE[:length], packet=25_000, pause=0.001) as connection:
        into = memoryview(bytearray(length))
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        assert in_one_call(connection, into).received == length
        woken = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before
    assert into == LARGE[:length]
    assert woken < 40  # a few for the connection and the head, five for the portions, and the packets of the last of them


def test_abort_ends_a_large_body_at_once() -> None:
    head = b"HTTP/1.1 206 Partial\r\ncontent-length: %d\r\n\r\n" % len(LARGE)
    with peer(head + LARGE[:3000000], hang=True) as connection:
        threading.Timer(0.1, connection.abort).start()
        with pytest.raises(WireError) as failure:
            in_one_call(connection, memoryview(bytearray(len(LARGE))))
        assert failure.value.code == "Interrupted"


def test_abort_from_another_thread() -> None:
    with peer(b"", hang=True) as connection:
        threading.Timer(0.1, connection.abort).start()
        with pytest.raises(WireError) as failure:
            in_one_call(connection)
        assert failure.value.code == "Interrupted"


def test_a_refusal_before_the_body_is_read() -> None:
    with peer(b"HTTP/1.1 403 No\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno") as connection:
        # the reset may overtake the answer; either way it ends at once
        seen = ""
        try:
            seen = str(connection.request(HEAD, [bytes(8 << 20)], None, True).status)
        except WireError as exc:
            seen = exc.code
        assert seen in ("403", "ConnectionReset")


def test_unasked_words_make_a_connection_stale(ask: Ask) -> None:
    with peer(b"HTTP/1.1 204 No\r\n\r\n", hang=True) as connection:
        ask(connection)
        assert not connection.stale()
    with peer(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab") as connection:
        assert ask(connection).body == b"a"
        assert connection.closed or connection.stale()


def test_who_reads_slices_of_files_beside_each_other_has_a_buffer_of_his_own(tmp_path: Path) -> None:
    whole = bytes(range(256)) * 10000
    path = tmp_path / "file"
    path.write_bytes(whole)
    with path.open("rb") as file:
        for _ in range(2):
            first, second = slices(FileSlice(file.fileno(), 0, len(whole))), slices(FileSlice(file.fileno(), 5, 10))
            one, other = next(first), next(second)
            assert bytes(one) == whole[:PIECE]
            assert bytes(other) == whole[5:15]
            assert next(second, None) is next(second, None) is None
            third = slices(FileSlice(file.fileno(), 7, 10))
            assert bytes(next(third)) == whole[7:17]
            assert bytes(one) == whole[:PIECE]
            assert b"".join(map(bytes, first)) == whole[PIECE:]
        with pytest.raises(WireError):
            list(slices(FileSlice(file.fileno(), 0, len(whole) + 1)))


ANSWERS = (
    (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", b"hello", False),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"", False),
    (b"HTTP/1.1 204 No Content\r\n\r\n", b"", False),
    (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"abc", True),
    (b"HTTP/1.1 500 Oh\r\ncontent-length: %d\r\n\r\n" % (SMALL + 1) + b"e" * (SMALL + 1), b"e" * (SMALL + 1), True),
    (b"HTTP/1.1 404 Not\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno", b"no", False),
)


@given(st.sampled_from(ANSWERS), st.lists(st.floats(0, 1), max_size=6))
def test_an_answer_in_any_pieces_is_the_same(case: tuple[bytes, bytes, bool], cuts: list[float]) -> None:
    says, body, long = case
    at = sorted(int(cut * len(says)) for cut in cuts)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = Connection(Peer("127.0.0.1", listener.getsockname()[1], None, 60.0, 60.0))
        here = connection._connect()
        there, _ = listener.accept()
    with there, contextlib.closing(connection):
        assert connection.begin(memoryview(HEAD)) == len(HEAD)
        assert connection.receive_some(True) is Comes.LATER
        comes = Comes.LATER
        for start, end in itertools.pairwise([0, *at, len(says)]):
            there.sendall(says[start:end])
            if comes is Comes.LATER and select.select([here], [], [], 0)[0]:
                comes = connection.receive_some(True)
            assert comes is not Comes.WHOLE or end == len(says), "taken for whole before it was"
        while comes is Comes.LATER:
            assert select.select([here], [], [], 60)[0]
            comes = connection.receive_some(True)
        assert (comes is Comes.LONG) is long
        answer = connection.take(None, True) if comes is Comes.WHOLE else connection.wait(None, True)
        assert answer.body == body
        assert connection.closed is (b"connection: close" in says)
