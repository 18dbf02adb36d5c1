"""An HTTP proxy that decides per request what gets lost: the request, its answer, or the answer's tail.

Owns: its listening port and one thread a connection. Whole requests are read before anything is decided, so what is lost is exact.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from urllib.parse import urlsplit

PASS, REQUEST_LOST, ANSWER_LOST, SILENT = "pass", "request lost", "answer lost", "silent"
Fate = str | int | bytes
"""What happens to one request; a number: so many bytes of the answer arrive; bytes: this is the answer."""


class Lossy:
    """Carries requests between ``self.url`` and *upstream*; *fate* gets method and target of each and says what happens to it."""

    def __init__(self, upstream: str, fate: Callable[[str, str], Fate] = lambda method, target: PASS) -> None:
        split = urlsplit(upstream)
        self._upstream = (split.hostname or "127.0.0.1", split.port or 80)
        self.fate = fate
        self.seen: list[tuple[str, str]] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Lossy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def once(self, method: str, fate: Fate, target: str = "", skip: int = 0) -> None:
        """Let the first request of *method* with *target* in its target (after *skip* of them) meet *fate*, all others pass."""
        left = [skip]

        def decide(m: str, t: str) -> Fate:
            if m == method and target in t:
                left[0] -= 1
                if left[0] == -1:
                    return fate
            return PASS

        self.fate = decide

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        upstream = socket.create_connection(self._upstream)
        try:
            with client, upstream, client.makefile("rb") as requests, upstream.makefile("rb") as answers:
                while (line := requests.readline()) and self._one(client, upstream, requests, answers, line):
                    pass
        except OSError:
            pass

    def _one(self, client: socket.socket, upstream: socket.socket, requests, answers, line: bytes) -> bool:  # type: ignore[no-untyped-def]
        head, headers = _head(requests, line)
        body = requests.read(int(headers.get("content-length", 0)))
        method, target = line.decode("latin-1").split(" ")[:2]
        self.seen.append((method, target))
        fate = self.fate(method, target)
        if isinstance(fate, bytes):
            client.sendall(fate)
            return b"connection: close" not in fate.lower()
        if fate == REQUEST_LOST:
            _reset(client)
            return False
        if fate == SILENT:
            requests.read(1)  # until the client gives up
            return False
        upstream.sendall(head + body)
        line = answers.readline()
        head, headers = _head(answers, line)
        status = int(line.split(b" ")[1])
        if method == "HEAD" or status in (204, 304):
            body = b""
        elif "chunked" in headers.get("transfer-encoding", ""):
            body = b""
            while True:
                size = answers.readline()
                chunk = answers.read(int(size, 16) + 2)
                body += size + chunk
                if int(size, 16) == 0:
                    break
        else:
            body = answers.read(int(headers.get("content-length", 0)))
        if fate == ANSWER_LOST:
            _reset(client)
            return False
        if isinstance(fate, int):
            client.sendall(head + body[:fate])
            client.shutdown(socket.SHUT_WR)
            requests.read(1)
            return False
        client.sendall(head + body)
        return True


def _head(stream, first: bytes) -> tuple[bytes, dict[str, str]]:  # type: ignore[no-untyped-def]
    lines = [first]
    headers: dict[str, str] = {}
    while (line := stream.readline()) not in (b"\r\n", b""):
        lines.append(line)
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    return b"".join(lines) + b"\r\n", headers


def _reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.shutdown(socket.SHUT_RD)
    sock.close()


def error(status: int, code: str = "", *, headers: str = "") -> bytes:
    """A whole error answer on a connection that stays open."""
    body = f"<Error><Code>{code}</Code></Error>".encode() if code else b""
    return f"HTTP/1.1 {status} Error\r\ncontent-length: {len(body)}\r\n{headers}\r\n".encode() + body
