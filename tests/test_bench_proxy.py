"""The way to a distant server really delays and limits, alters nothing, and counts requests as they are."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.proxy import Distant, Line
from bench.requests import AccessLog, Framing, by_verb, logged, verb

BODY = random.Random(3).randbytes(3 << 20)


@given(
    st.lists(st.tuples(st.floats(0, 0.05), st.integers(1, 1 << 20), st.floats(0, 1)), min_size=1, max_size=30),
    st.sampled_from([0.0, 1e6, 50e6]),
    st.floats(0, 0.1),
)
def test_no_byte_arrives_before_its_time_nor_faster_than_the_rate(sent: list[tuple[float, int, float]], rate: float, delay: float) -> None:
    line = Line(delay, rate)
    now = left = 0.0
    entered: list[tuple[float, int]] = []
    for pause, count, part in sent:
        now += pause
        line.put(now, count)
        entered.append((now, count))
        may = line.arrived(now)
        in_time = sum(n for at, n in entered if at + delay <= now + 1e-9)
        assert left + may <= in_time
        first = entered[0][0] + delay
        if rate:
            assert left + may <= (now - first) * rate + 1 or not may
        line.take(int(may * part))
        left += int(may * part)
    total = sum(count for _, count in entered)
    assert line.length == total - left
    while line.length:
        now = max(now, line.when())
        may = line.arrived(now + 1e-6)
        assert may, "woken for nothing"
        line.take(may)
        left += may
    assert left == total
    if rate:
        assert now + 1e-5 >= entered[0][0] + delay + (total - 1) / rate


def test_a_line_opens_late() -> None:
    line = Line(0.01, 0, opens=5.0)
    line.put(1.0, 10)
    assert line.when() == 5.0
    assert line.arrived(4.9) == 0
    assert line.arrived(5.0) == 10


REQUESTS = (
    ("GET", "/b/key", b""), ("PUT", "/b/key?partNumber=1&uploadId=x", b"GET /no HTTP/1.1\r\n\r\n" * 50), ("HEAD", "/b/key", b""),
    ("POST", "/b?delete", b"<Delete/>"), ("PUT", "/b/empty", b""),
)  # fmt: skip


def _wire(request: tuple[str, str, bytes], chunked: bool) -> bytes:
    method, target, body = request
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\n"
    if chunked and body:
        return f"{head}Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    return (head + (f"content-length: {len(body)}\r\n" if body else "") + "\r\n").encode() + body


@given(st.lists(st.tuples(st.sampled_from(REQUESTS), st.booleans()), max_size=8), st.lists(st.integers(1, 400)), st.data())
def test_requests_are_found_however_the_bytes_are_cut(
    requests: list[tuple[tuple[str, str, bytes], bool]], cuts: list[int], data: st.DataObject
) -> None:
    wire = b"".join(_wire(request, chunked) for request, chunked in requests)
    framing, found = Framing(), []
    for cut in [*cuts, len(wire)]:
        piece, wire = wire[:cut], wire[cut:]
        if framing.unseen and piece and data.draw(st.booleans()):
            passed = min(framing.unseen, len(piece))
            framing.skip(passed)
            piece = piece[passed:]
        found += framing.feed(piece)
    assert found == [request[:2] for request, _ in requests]


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", "/b?list-type=2&prefix=a", "LIST"), ("GET", "/b/", "LIST"), ("GET", "/b?location", "other"), ("GET", "/", "other"),
        ("GET", "/b?versions&prefix=x", "other"), ("GET", "/b/a/b", "GET"), ("HEAD", "/b/k", "HEAD"), ("HEAD", "/b", "other"),
        ("PUT", "/b/k", "PUT"), ("PUT", "/b/k?append&position=3", "append"), ("PUT", "/b/k?uploadId=1&partNumber=2", "part"),
        ("POST", "/b/k?uploads", "upload"), ("POST", "/b/k?uploadId=1", "upload"), ("POST", "/b?delete", "DELETE many"),
        ("DELETE", "/b/k", "DELETE"), ("DELETE", "/b/k?uploadId=1", "other"), ("GET", "/b/k?acl", "other"),
    ],
)  # fmt: skip
def test_verbs(method: str, target: str, expected: str) -> None:
    assert verb(method, target) == expected


LOG = (
    b"2026-11-28T02:46:40.384+0000 7f2ac 1 beast: 0x7f2b4c36a6e0: 127.0.0.1 - test [28/Nov/2026:02:46:40.384 +0000] "
    b'"GET /abc/a%%20b HTTP/1.1" 200 100 - "%s" - latency=0.000000000s\n'
)


def test_the_log_is_read_up_to_a_request_and_without_our_own(tmp_path: Path) -> None:
    without_agent = (LOG % b"").replace(b'""', b"-")
    lines = b"beast: nonsense\n" + LOG % b"rclone/v1" + LOG % b"zosfs-bench Botocore/1" + without_agent
    assert logged(lines) == [("GET", "/abc/a%20b")] * 2
    path = tmp_path / "log"
    path.write_bytes(LOG % b"before")
    log = AccessLog(path)
    with path.open("ab") as more:
        more.write(LOG % b"s3fs/1" + (LOG % b"s3fs/1")[:60])
    assert log.since(b"marker-1") is None
    assert by_verb(log.since() or []) == {"GET": 1}
    with path.open("ab") as more:
        more.write((LOG % b"s3fs/1")[60:] + (LOG % b"zosfs-bench").replace(b"a%20b", b"marker-1"))
    assert by_verb(log.since(b"marker-1") or []) == {"GET": 1}
    assert log.since() == []


@pytest.fixture
def upstream() -> Iterator[str]:
    """Answers each request, told by its first byte, with `BODY`, and echoes how many bytes of body it got."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(side: socket.socket) -> None:
            with side:
                while head := side.recv(1 << 16):
                    assert head.startswith(b"GET")
                    side.sendall(BODY)

        def accept() -> None:
            while True:
                try:
                    side, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(side,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def _get(connection: socket.socket, start: float) -> tuple[float, float]:
    """Seconds from *start* to the first and to the last byte of `BODY`, which must be right."""
    connection.sendall(b"GET /b/key HTTP/1.1\r\n\r\n")
    got, first = bytearray(), 0.0
    while len(got) < len(BODY):
        piece = connection.recv(1 << 20)
        first = first or time.monotonic() - start
        assert piece
        got += piece
    assert got == BODY
    return first, time.monotonic() - start


def test_the_way_delays_limits_and_counts(upstream: str) -> None:
    with Distant(upstream, delay=0.03, rate=30e6) as distant:
        address = ("127.0.0.1", int(distant.url.rpartition(":")[2]))
        start = time.monotonic()
        with socket.create_connection(address) as connection:
            connection.settimeout(60)
            first, last = _get(connection, start)
            assert first >= 0.12 - 0.001, "a new connection costs a round trip of its own"
            assert last >= 0.12 + len(BODY) / 30e6 - 0.001
            first, last = _get(connection, time.monotonic())
            assert first >= 0.06 - 0.001
            assert last >= 0.06 + len(BODY) / 30e6 - 0.001
        assert distant.counts() == {"GET": 2}
        assert distant.counts() == {}


def test_the_end_of_a_connection_goes_on_to_the_other_side(upstream: str) -> None:
    with Distant(upstream, delay=0.001, rate=0) as distant:
        with socket.create_connection(("127.0.0.1", int(distant.url.rpartition(":")[2]))) as connection:
            connection.settimeout(60)
            connection.sendall(b"GET /b/key HTTP/1.1\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            got = b""
            while piece := connection.recv(1 << 20):
                got += piece
        assert got == BODY
