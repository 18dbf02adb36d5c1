"""The connections of an account and the resident threads that work on them.

Owns: idle connections per host, the limit on all of them, the TLS context. May use: wire, short, threads. Must not know: S3, signatures.
"""

from __future__ import annotations

import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence

import trio

from zosfs.config import Options
from zosfs.counters import Counters
from zosfs.errors import StoreError
from zosfs.store import short
from zosfs.store.api import Body
from zosfs.store.arrival import Arrival
from zosfs.store.http import Answer, WireError, parse_head
from zosfs.store.traffic import Traffic
from zosfs.store.wire import Connection, Peer
from zosfs.threads import ThreadPool

IDLE = 50.0
"""Seconds after which an idle connection is not used again: Ceph closes them at 64.5 s."""
PATIENT = 1.0
"""Seconds of patience with a request from which on the server's silence tells nothing."""


def tls_context(options: Options) -> ssl.SSLContext:
    """How certificates are judged. Raises StoreError ``TlsFailed`` when ca_file cannot be read."""
    try:
        context = ssl.create_default_context(cafile=options.ca_file or None)
    except (OSError, ssl.SSLError) as exc:
        raise StoreError("TlsFailed", operation="connect", message=f"ca_file {options.ca_file}: {exc.strerror or exc}") from None
    if not options.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Pool:
    """Connections to one port, over one or (with bucket names in host names) several hosts."""

    def __init__(self, port: int, tls: ssl.SSLContext | None, options: Options, counters: Counters) -> None:
        self.tls = tls
        self.port = port
        self._options = options
        self._counters = counters
        self._idle: dict[str, deque[tuple[Connection, float]]] = {}
        self.traffic = Traffic(port)
        self._slots = trio.CapacityLimiter(options.connections)
        # hashing of what is uploaded works beside the sockets
        self._threads = ThreadPool("store", options.connections + 2)

    async def send(
        self, host: str, head: bytes, body: Body, *, into: memoryview | None = None, has_body: bool = True, again: bool = True,
        patience: float = 0, started: Callable[[], None] | None = None, arrival: Arrival | None = None, brief: bool = False,
    ) -> Answer:  # fmt: skip
        """One exchange with *host*; raises WireError. *brief*: both ways it is expected to be short (`short.is_short`).

        A kept connection that the server closed meanwhile is replaced by a fresh one, if no byte of an answer had come and the
        request may be sent twice (*again*). *started* is called before each sending. A cancelled caller's socket is shut down and
        its buffers are free when Cancelled is raised. With *patience* (seconds) the server may be silent for longer; from
        PATIENT on nobody is said to wait for it.
        """
        try:
            self._slots.acquire_nowait()  # no trip through the scheduler where nobody waits
        except trio.WouldBlock:
            await self._slots.acquire()
        soon = patience < PATIENT
        if soon:
            self.traffic.asked(host)
        try:
            while True:
                connection = self._take(host)
                if started is not None:
                    started()
                try:
                    if brief and connection.made:
                        answer = await self._in_passing(connection, head, body, into, has_body, patience, arrival)
                    else:
                        answer = await self._threads.run(
                            connection.request, head, body, into, has_body, patience, arrival, on_cancel=connection.abort
                        )
                except WireError as exc:
                    await trio.lowlevel.checkpoint_if_cancelled()
                    if exc.reused and again and not exc.answered and exc.code in ("ConnectionReset", "ConnectionClosed"):
                        continue
                    raise
                except BaseException:
                    connection.close()
                    raise
                if not connection.closed:
                    self._idle.setdefault(host, deque()).append((connection, time.monotonic()))
                return answer
        finally:
            if soon:
                self.traffic.done(host)
            self._slots.release()

    async def _in_passing(
        self, connection: Connection, head: bytes, body: Body, into: memoryview | None, has_body: bool, patience: float,
        arrival: Arrival | None,
    ) -> Answer:  # fmt: skip
        if await short.begin(connection, head, body, has_body, self._options.read_timeout + patience):
            return connection.take(into, has_body, arrival)
        return await self._threads.run(connection.wait, into, has_body, patience, arrival, on_cancel=connection.abort)

    async def pipeline(self, host: str, heads: Sequence[bytes]) -> list[Answer] | None:
        """Send these HEAD requests at once over one connection: the answers that came, in their order; None without a connection. Never
        raises WireError.
        """
        await self._slots.acquire()
        self.traffic.asked(host)
        try:
            connection = self._take(host)
            try:
                received = await self._threads.run(
                    connection.pipeline, b"".join(heads), len(heads), on_cancel=connection.abort
                )
                if connection.closed:
                    await trio.lowlevel.checkpoint_if_cancelled()  # who gives up cuts it himself
            except WireError:
                return None
            except BaseException:
                connection.close()
                raise
            answered: list[Answer] = []
            try:
                # what stands behind the last empty line has no end: it is no answer
                whole = received.decode("utf-8", "surrogateescape").split("\r\n\r\n")[:-1]
                answered = [Answer(*parse_head(head)) for head in whole]
            except ValueError:
                connection.close()
            if len(answered) > len(heads) or any(answer.status < 200 for answer in answered):
                connection.close()
                return []  # whose answer is whose cannot be told
            if any(answer.headers.get("connection", "").lower() == "close" for answer in answered):
                connection.close()
            if not connection.closed:
                self._idle.setdefault(host, deque()).append((connection, time.monotonic()))
            return answered
        finally:
            self.traffic.done(host)
            self._slots.release()

    def _take(self, host: str) -> Connection:
        idle = self._idle.get(host)
        while idle:
            connection, since = idle.pop()
            if time.monotonic() - since < IDLE and not connection.stale():
                return connection
            connection.close()
        self._counters.add("connections")
        options = self._options
        return Connection(Peer(host, self.port, self.tls, options.connect_timeout, options.read_timeout, self.traffic))

    async def work(self, fn: Callable[[Body], str], body: Body) -> str:
        """Run *fn* (a digest of *body*) in a worker; the caller is not disturbed until it ends."""
        return await self._threads.run(fn, body)

    def close(self) -> None:
        """Close what is idle and let the threads end."""
        for idle in self._idle.values():
            for connection, _ in idle:
                connection.close()
        self._idle.clear()
        self._threads.close()
