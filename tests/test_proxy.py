"""The proxy carries bytes faithfully, and misbehaves only when told to."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.proxy import Proxy, answer

BODY = bytes(range(256)) * 4096


class _Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def upstream() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def get(proxy: Proxy, timeout: float = 60) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(proxy.url.removeprefix("http://"), timeout=timeout)
    try:
        connection.request("GET", "/x")
        got = connection.getresponse()
        return got.status, got.read()
    finally:
        connection.close()


def test_carries_all_bytes(upstream: str) -> None:
    with Proxy(upstream) as proxy:
        assert get(proxy) == (200, BODY)
        assert proxy.requests == [("GET", "/x")]


def test_latency_and_rate(upstream: str) -> None:
    with Proxy(upstream, latency=0.1, rate=4e6) as proxy:
        start = time.monotonic()
        assert get(proxy) == (200, BODY)
        assert time.monotonic() - start > 0.2 + 0.2


def test_cuts_and_refuses(upstream: str) -> None:
    with Proxy(upstream) as proxy:
        proxy.cut_after = 1000
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            get(proxy)
        proxy.cut_after, proxy.gone = None, True
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            get(proxy)
        proxy.gone, proxy.stalled = False, True
        with pytest.raises(TimeoutError):
            get(proxy, timeout=0.3)
        proxy.stalled = False
        assert get(proxy) == (200, BODY)


def test_a_reset_is_made_when_it_returns(upstream: str) -> None:
    with Proxy(upstream) as proxy:
        kept = http.client.HTTPConnection("127.0.0.1", int(proxy.url.rsplit(":", 1)[1]), timeout=60)
        kept.request("GET", "/x")
        assert kept.getresponse().read() == BODY
        proxy._loop.call_soon_threadsafe(time.sleep, 0.3)  # a busy machine
        proxy.reset_all()
        assert not proxy._writers or all(writer.transport.is_closing() for writer in proxy._writers)
        kept.close()
        assert get(proxy) == (200, BODY)


def test_answers_by_itself(upstream: str) -> None:
    with Proxy(upstream) as proxy:
        proxy.intercept = lambda method, target: answer(403, "AccessDenied") if target == "/x" else None
        status, body = get(proxy)
        assert status == 403
        assert b"<Code>AccessDenied</Code>" in body
