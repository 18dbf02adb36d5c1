"""The way to a distant server: `python -m bench.proxy URL` delays all bytes, limits each connection, and counts requests.

Owns: the listening port, its connections, and one pipe for each direction of each. Bytes are moved by splice(2) from socket to pipe,
which is the delay line, and from pipe to socket: they never enter this process, except for the heads of requests, which are looked at.
A new connection costs the round trip of its handshake before its first byte goes on.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import heapq
import json
import os
import resource
import select
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from urllib.parse import urlsplit

from bench.requests import Framing, verb

DELAY, RATE = 0.010, 50e6
"""Seconds each way, and bytes a second of each direction of a connection."""

_TICK = 0.002
_PIPE = 1 << 20
_REFILL = _PIPE * 3 // 4
_LOOK = 1 << 16
_SPLICE = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_GONE = (ConnectionError, BrokenPipeError)


class Line:
    """When the bytes on a way may arrive at its end: each *delay* seconds after it was sent, and none faster than *rate* (0: any).

    Pure: the time is told. Not before *opens* does anything leave.
    """

    def __init__(self, delay: float, rate: float, opens: float = 0.0) -> None:
        self._delay, self._rate = delay, rate
        self._free = opens
        self._sent: deque[tuple[float, int]] = deque()  # when it may arrive at the earliest, bytes
        self.length = 0

    def put(self, now: float, count: int) -> None:
        """*count* bytes enter the way at *now*."""
        self.length += count
        self._sent.append((now + self._delay, count))

    def arrived(self, now: float) -> int:
        """How many bytes may leave the way by *now*, in all that have not left."""
        total, free = 0, self._free
        for due, count in self._sent:
            start = max(due, free)
            if start > now:
                break
            may = count if not self._rate else min(count, int((now - start) * self._rate + 0.5))
            total += may
            if may < count:
                break
            free = start + count / self._rate if self._rate else start
        return total

    def take(self, count: int) -> None:
        """*count* of the bytes that have arrived leave the way."""
        self.length -= count
        while count:
            due, there = self._sent.popleft()
            taken = min(count, there)
            start = max(due, self._free)
            self._free = start + taken / self._rate if self._rate else start
            if taken < there:
                self._sent.appendleft((due, there - taken))
            count -= taken

    def when(self) -> float:
        """When the next bytes worth a wake-up will have arrived; the way must not be empty."""
        due, count = self._sent[0]
        start = max(due, self._free)
        return start + min(count / self._rate, _TICK) if self._rate else start


class _Way:
    """One direction of one connection."""

    def __init__(self, source: socket.socket, sink: socket.socket, line: Line, framing: Framing | None) -> None:
        self.source, self.sink, self.line, self.framing = source, sink, line, framing
        self.out, self.into = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.fcntl(self.into, fcntl.F_SETPIPE_SZ, _PIPE)
        self.readable = self.ended = self.shut = self.full = False
        self.armed = float("inf")

    def close(self) -> None:
        """Give the pipe back."""
        os.close(self.out)
        os.close(self.into)


class _Connection:
    def __init__(self, client: socket.socket, server: socket.socket, delay: float, rate: float) -> None:
        now = time.monotonic()
        self.client, self.server = client, server
        self.up = _Way(client, server, Line(delay, rate, now + 3 * delay), Framing())
        self.down = _Way(server, client, Line(delay, rate), None)
        self.ways = (self.up, self.down)
        self.open = True

    def close(self) -> None:
        self.open = False
        for way in self.ways:
            way.close()
        self.client.close()
        self.server.close()


class Carrier:
    """The program: one loop over all sockets, and a heap of when what is on the ways arrives."""

    def __init__(self, upstream: str, delay: float, rate: float) -> None:
        split = urlsplit(upstream)
        self._to = (split.hostname or "127.0.0.1", split.port or 80)
        self._delay, self._rate = delay, rate
        self._epoll = select.epoll()
        self._by_fd: dict[int, _Connection] = {}
        self._due: list[tuple[float, int, _Connection, _Way]] = []
        self._tie = 0
        self._counts: Counter[str] = Counter()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._listener.setblocking(False)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def run(self) -> None:
        """Carry until stdin ends. Each line on stdin is answered by one of JSON: requests by verb since the last."""
        self._epoll.register(self._listener, select.EPOLLIN)
        self._epoll.register(sys.stdin, select.EPOLLIN)
        control = sys.stdin.fileno()
        while True:
            self._wait()
            for fd, event in self._epoll.poll(0):
                if fd == self._listener.fileno():
                    self._accept()
                elif fd == control:
                    if not os.read(control, 4096):
                        return
                    print(json.dumps(dict(self._counts.most_common())), flush=True)
                    self._counts.clear()
                elif (connection := self._by_fd.get(fd)) is not None:
                    self._happened(connection, fd, event)
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                _, _, connection, way = heapq.heappop(self._due)
                way.armed = float("inf")
                if connection.open:
                    self._guarded(connection, way, arrive=True)

    def _wait(self) -> None:
        # epoll's own timeout is of whole milliseconds, a tenth of the delay
        patience = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
        select.select([self._epoll.fileno()], [], [], patience)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                return
            try:
                server = socket.create_connection(self._to, 10)
            except OSError:
                client.close()
                continue
            connection = _Connection(client, server, self._delay, self._rate)
            for side in (client, server):
                side.setblocking(False)
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._by_fd[side.fileno()] = connection
                self._epoll.register(side, select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET)

    def _happened(self, connection: _Connection, fd: int, event: int) -> None:
        from_client = fd == connection.client.fileno()
        inwards, outwards = (connection.up, connection.down) if from_client else (connection.down, connection.up)
        if event & select.EPOLLERR:
            self._drop(connection)
            return
        if event & (select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP):
            inwards.readable = True
            if not self._guarded(connection, inwards):
                return
        if event & select.EPOLLOUT and outwards.full:
            outwards.full = False
            self._guarded(connection, outwards, arrive=True)

    def _guarded(self, connection: _Connection, way: _Way, *, arrive: bool = False) -> bool:
        """Move what can be moved on *way*; False when the connection ended thereby."""
        try:
            if arrive:
                self._arrive(way)
            if way.readable and way.line.length < _REFILL:
                self._depart(way)
        except OSError as error:
            if not isinstance(error, _GONE) and error.errno not in (errno.EPIPE, errno.ENOTCONN):
                raise
            self._drop(connection)
            return False
        if way.ended and not way.line.length and not way.shut:
            way.shut = True
            try:
                way.sink.shutdown(socket.SHUT_WR)
            except OSError:
                self._drop(connection)
                return False
            if all(each.shut for each in connection.ways):
                self._drop(connection)
                return False
        if way.line.length and not way.full and (when := way.line.when()) < way.armed:
            way.armed = when
            self._tie += 1
            heapq.heappush(self._due, (when, self._tie, connection, way))
        return True

    def _depart(self, way: _Way) -> None:
        while True:
            try:
                count = self._splice_in(way)
            except BlockingIOError:
                # nothing there, or the pipe is full: with something in the pipe it is tried again when that has left
                way.readable = way.line.length > 0
                return
            if not count:
                way.readable, way.ended = False, True
                return
            way.line.put(time.monotonic(), count)

    def _splice_in(self, way: _Way) -> int:
        if way.framing is None:
            return os.splice(way.source.fileno(), way.into, _PIPE, flags=_SPLICE)
        if way.framing.unseen:
            count = os.splice(way.source.fileno(), way.into, min(way.framing.unseen, _PIPE), flags=_SPLICE)
            way.framing.skip(count)
            return count
        piece = way.source.recv(_LOOK, socket.MSG_PEEK)
        if not piece:
            return 0
        count = os.splice(way.source.fileno(), way.into, len(piece), flags=_SPLICE)
        self._counts.update(verb(*request) for request in way.framing.feed(piece[:count]))
        return count

    def _arrive(self, way: _Way) -> None:
        # of what has arrived by now: more arrives all the time, a few bytes at each look
        left = way.line.arrived(time.monotonic())
        while left:
            try:
                count = os.splice(way.out, way.sink.fileno(), left, flags=_SPLICE)
            except BlockingIOError:
                way.full = True
                return
            way.line.take(count)
            left -= count

    def _drop(self, connection: _Connection) -> None:
        if connection.open:
            for side in (connection.client, connection.server):
                del self._by_fd[side.fileno()]
            connection.close()


class Distant:
    """A `Carrier` to *upstream* as a child process; a context manager that ends it."""

    def __init__(self, upstream: str, *, delay: float = DELAY, rate: float = RATE) -> None:
        self._command = [sys.executable, "-m", "bench.proxy", upstream, "--delay", str(delay), "--rate", str(rate)]

    def __enter__(self) -> Distant:
        self._child = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = self._said()
        return self

    def _said(self) -> str:
        assert self._child.stdout is not None
        return self._child.stdout.readline().strip()

    @property
    def pid(self) -> int:
        """The child's."""
        return self._child.pid

    def counts(self) -> dict[str, int]:
        """Requests by verb since the last call."""
        assert self._child.stdin is not None
        self._child.stdin.write("\n")
        self._child.stdin.flush()
        return dict(json.loads(self._said()))

    def __exit__(self, *_: object) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait()


def main() -> None:
    """Run from the command line; the first line on stdout is the URL to use instead of the server's."""
    parser = argparse.ArgumentParser(prog="python -m bench.proxy", description=__doc__)
    parser.add_argument("to")
    parser.add_argument("--delay", type=float, default=DELAY, help="seconds each way")
    parser.add_argument("--rate", type=float, default=RATE, help="bytes a second of each direction of a connection; 0: no limit")
    given = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    carrier = Carrier(given.to, given.delay, given.rate)
    print(carrier.url, flush=True)
    carrier.run()


if __name__ == "__main__":
    main()
