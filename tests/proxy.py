"""A TCP proxy that misbehaves on command: slow, far away, silent, gone, cut in mid-answer, or answering by itself.

Owns: its listening port and connections, in one asyncio thread. What it does is read from plain attributes at every piece
that passes, so a test changes them at any moment. The benchmarks have a cheaper one of their own that only delays (`bench/proxy.py`).
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

STALL = 3.0
_PIECE = 1 << 16
_REQUEST = re.compile(rb"(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP/1\.1\r\n")


def answer(status: int, code: str, reason: str = "Error") -> bytes:
    """A whole S3 error answer, after which the connection closes."""
    body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>injected</Message></Error>'.encode()
    return (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n".encode() + body
    )


class Proxy:
    """Carries bytes between ``self.url`` and *upstream* (a URL).

    *latency* is seconds added each way, *rate* bytes a second and connection in each direction (0: no limit). *gone* refuses
    and resets, *stalled* takes bytes and delivers none, *cut_after* resets each connection after that many bytes of answers.
    *hold* gets the target of a request and returns how many bytes of its answer are let through, or None for all: the rest waits until
    *hold* says otherwise. *intercept* gets method and target of each request and returns the bytes to answer with instead of asking the
    server, or None;
    or what shall become of this one: "reset" (before the server sees it), "lost" (the server acts, and its answer is dropped with the
    connection), "truncated" (half of the answer's first piece arrives), "slow" (its pieces come one by one), "stalled" (the answer
    comes `STALL` seconds late).
    """

    def __init__(self, upstream: str, *, latency: float = 0, rate: float = 0, port: int = 0) -> None:
        split = urlsplit(upstream)
        self._host, self._port = split.hostname or "127.0.0.1", split.port or 80
        self.latency, self.rate = latency, rate
        self.gone = False
        self.stalled = False
        self.cut_after: int | None = None
        self.hold: Callable[[str], int | None] = lambda target: None
        self.intercept: Callable[[str, str], bytes | str | None] | None = None
        self.requests: list[tuple[str, str]] = []
        self.heads: list[str] = []  # of the same requests: the first line and the headers, in lower case
        self._listen_port = port
        self.held = 0  # answers held now
        self._connections = 0
        self._answering: dict[asyncio.StreamWriter, str] = {}  # to whom -> the target of the last request
        self.most = 0  # connections at the same time
        self._writers: set[asyncio.StreamWriter] = set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="proxy", daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(60)

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return self._connections

    def reset_all(self) -> None:
        """Reset the connections that are open now; returns when none of them carries anything any more."""
        done = threading.Event()
        self._loop.call_soon_threadsafe(lambda: (self._reset_all(), done.set()))
        done.wait(60)

    def _reset_all(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", self._listen_port, backlog=256)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._end.wait()
        server.close()
        for _ in range(200):
            self._reset_all()
            if not self._connections:
                break
            await asyncio.sleep(0.01)

    async def _connection(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        self._connections += 1
        self.most = max(self.most, self._connections)
        self._writers.add(client_out)
        server_out: asyncio.StreamWriter | None = None
        fates: list[str] = []
        try:
            if self.gone:
                return
            server_in, server_out = await asyncio.open_connection(self._host, self._port)
            self._writers.add(server_out)
            tasks = [
                asyncio.ensure_future(self._carry(client_in, server_out, client_out, fates)),
                asyncio.ensure_future(self._carry(server_in, client_out, None, fates)),
            ]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        except OSError:
            pass
        finally:
            self._connections -= 1
            self._answering.pop(client_out, None)
            for writer in (client_out, server_out):
                if writer is not None:
                    self._writers.discard(writer)
                    writer.transport.abort()

    async def _carry(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, back: asyncio.StreamWriter | None, fates: list[str]
    ) -> None:
        pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(256)
        sender = asyncio.ensure_future(self._send(pieces, sink, fates, answers=back is None))
        try:
            while piece := await source.read(_PIECE):
                if self.gone:
                    return
                if back is not None and (request := _REQUEST.match(piece)):
                    method, target = request.group(1).decode(), request.group(2).decode("latin-1")
                    self.requests.append((method, target))
                    self._answering[back] = target
                    self.heads.append(piece.partition(b"\r\n\r\n")[0].decode("latin-1").lower())
                    said = self.intercept(method, target) if self.intercept else None
                    if said == "reset":
                        back.transport.abort()
                        return
                    if isinstance(said, str):
                        fates[:] = [said]
                    elif said is not None:
                        back.write(said)
                        await back.drain()
                        back.write_eof()
                        await asyncio.sleep(0.2)  # the client reads the answer before the connection is reset
                        return
                await pieces.put((time.monotonic() + self.latency, piece))
            await pieces.put((0, b""))
            await sender
        except OSError:
            pass
        finally:
            sender.cancel()

    async def _send(
        self, pieces: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter, fates: list[str], *, answers: bool
    ) -> None:
        carried, free_at, of_this = 0, 0.0, 0
        while True:
            due, piece = await pieces.get()
            if not piece:
                await sink.drain()
                return
            now = time.monotonic()
            if (wait := max(due, free_at) - now) > 0:
                await asyncio.sleep(wait)
            while self.stalled:  # noqa: ASYNC110  # a plain attribute, set from another thread
                await asyncio.sleep(0.02)
            fate = fates.pop() if answers and fates and not piece.startswith(b"HTTP/1.1 100") else ""
            if fate in ("lost", "truncated"):
                if fate == "truncated":
                    sink.write(piece[: len(piece) // 2])
                    await sink.drain()
                sink.transport.abort()
                return
            if fate == "stalled":
                await asyncio.sleep(STALL)
            elif fate == "slow":
                for at in range(0, len(piece), 1 + len(piece) // 8):
                    sink.write(piece[at : at + 1 + len(piece) // 8])
                    await asyncio.sleep(0.02)
                carried += len(piece)
                continue
            of_this = 0 if piece.startswith(b"HTTP/1.1 ") else of_this
            while answers and piece:
                held = self.hold(self._answering.get(sink, ""))
                if held is None or of_this + len(piece) <= held:
                    break
                if held > of_this:
                    sink.write(piece[: held - of_this])
                    piece = piece[held - of_this :]
                    of_this = held
                self.held += 1
                try:
                    await asyncio.sleep(0.02)
                finally:
                    self.held -= 1
            of_this += len(piece)
            if answers and self.cut_after is not None and carried + len(piece) > self.cut_after:
                sink.write(piece[: max(0, self.cut_after - carried)])
                await sink.drain()
                sink.transport.abort()
                return
            carried += len(piece)
            if self.rate:
                free_at = max(free_at, now) + len(piece) / self.rate
            sink.write(piece)
            await sink.drain()
