"""An HTTP/1.1 connection, plain or TLS: bodies received straight into the caller's buffer by a worker thread, or in steps that never wait.

Owns: one socket. May use: the body types of store/api. Must not know: trio, XML, S3. Every call that waits ends within the socket's
time-outs; `abort` ends it at once. Nothing here runs long in Python: pieces are large, and the socket calls release the GIL.
"""

from __future__ import annotations

import enum
import fcntl
import select
import socket
import ssl
import struct
import termios
from typing import NamedTuple

from zosfs.store.api import Body, FileSlice, body_length
from zosfs.store.arrival import Arrival
from zosfs.store.http import Answer, WireError, parse_head
from zosfs.store.outgoing import PIECE, read_slice, send_file, slices
from zosfs.store.traffic import Traffic
from zosfs.store.waking import SMALL, linger, portion

MAX_HEAD = 128 << 10
MAX_BODY = 256 << 20
"""No answer that is not a range of an object is as large (a listing has some 500 KiB)."""

_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Comes(enum.Enum):
    """How far an answer has come: there is more to wait for, nothing more to wait for, or more than should be received in passing."""

    LATER = enum.auto()
    WHOLE = enum.auto()
    LONG = enum.auto()


class Peer(NamedTuple):
    """Where a connection goes, and its time-outs in seconds."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    connect_timeout: float
    read_timeout: float
    traffic: Traffic = Traffic()


class Connection:
    """One kept-alive connection, made at its first request. One thread at a time uses it; `abort` may come from any."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._sock: socket.socket | None = None
        self._buffer = bytearray()
        self._aborted = False
        self._answered = False
        self._peer_closes = False
        self._received = 0
        self._kernel_patience: float | None = None
        self._status = 0
        self._headers: dict[str, str] = {}
        self._reused = False
        self.used = 0
        self.closed = False

    def abort(self) -> None:
        """End whatever call is running on this connection."""
        self._aborted = True
        sock = self._sock
        if sock is not None:
            try:
                # SSLSocket.shutdown would drop the TLS state under the feet of the thread that reads
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self) -> None:
        """Give the socket back."""
        self.closed = True
        if self._sock is not None:
            self._sock.close()

    def stale(self) -> bool:
        """Whether the server has closed the connection (or said something unasked) while it was idle."""
        if self.closed or self._sock is None:
            return self.closed
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(0))

    def request(
        self, head: bytes, body: Body, into: memoryview | None, has_body: bool, patience: float = 0, arrival: Arrival | None = None
    ) -> Answer:
        """Send *head* and *body* and receive the answer. The body of a 200 or 206 goes into *into*, if given and no larger.

        *has_body* False (HEAD) means the answer has no body whatever its headers say. *patience* are seconds of silence
        allowed beyond the usual time-out, for requests whose work takes long. *arrival* counts what comes into *into*. Raises
        WireError, after which the connection is closed.
        """
        self._begins()
        try:
            sock = self._sock or self._connect()
            sock.settimeout(self._peer.read_timeout + patience)
            try:
                self._send(sock, head, body)
            except (BrokenPipeError, ConnectionResetError):
                # a server that refuses may answer and close before it has read the body
                self._answer_before_close(sock)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            return self._answer(sock, into, has_body, arrival)
        except (WireError, OSError, ValueError) as exc:
            raise self._broken(exc) from None  # never a name for it here: its own frame would keep the caller's buffer

    # -- the same in steps that do not wait, for a thread that has other things to do ---------------------------------

    @property
    def made(self) -> bool:
        """Whether a request can begin without waiting."""
        return self._sock is not None and not self.closed

    def fileno(self) -> int:
        """Of the socket; -1 where there is none."""
        return self._sock.fileno() if self._sock is not None else -1

    def begin(self, data: memoryview) -> int:
        """Begin a request, head and body in *data*, on a connection that is `made`: how many of its bytes the socket took."""
        self._begins()
        if self._sock is not None and self._sock.gettimeout() != 0:
            self._sock.settimeout(0)
        return self.send_some(data)

    def send_some(self, data: memoryview) -> int:
        """Send what the socket takes of *data* now: how many bytes. Raises WireError as `request`."""
        sock = self._sock
        try:
            if sock is None:
                raise ConnectionResetError("closed")
            try:
                n = sock.send(data)
                if n == len(data):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            except _NOT_NOW:
                return 0
            except (BrokenPipeError, ConnectionResetError):
                self._answer_before_close(sock)
                return len(data)
        except (WireError, OSError) as exc:
            raise self._broken(exc) from None
        return n

    def receive_some(self, has_body: bool) -> Comes:
        """Receive what has come of the answer. Raises WireError as `request`."""
        sock = self._sock
        try:
            if sock is None:
                raise ConnectionResetError("closed")
            try:
                data = sock.recv(SMALL)
            except _NOT_NOW:
                return Comes.LATER
            if not data:
                return Comes.WHOLE  # as far as it ever will: `take` tells how it ended
            self._heard(data)
            while not self._status and b"\r\n\r\n" in self._buffer:
                status, self._headers = self._head(sock)
                self._status = status if status != 100 else 0
            if not self._status:
                return Comes.LATER if len(self._buffer) <= MAX_HEAD else Comes.WHOLE
        except (WireError, OSError, ValueError) as exc:
            raise self._broken(exc) from None
        if not has_body or self._status in (204, 304):
            return Comes.WHOLE
        length = self._headers.get("content-length", "")
        if not length.isdecimal() or int(length) > SMALL or "transfer-encoding" in self._headers:
            return Comes.LONG
        return Comes.WHOLE if len(self._buffer) >= int(length) else Comes.LATER

    def take(self, into: memoryview | None, has_body: bool, arrival: Arrival | None = None) -> Answer:
        """What `request` returns or raises, of a request that was begun and whose answer is WHOLE."""
        try:
            if self._sock is None:
                raise ConnectionResetError("closed")
            return self._answer(self._sock, into, has_body, arrival)
        except (WireError, OSError, ValueError) as exc:
            raise self._broken(exc) from None  # never a name for it here: its own frame would keep the caller's buffer

    def wait(self, into: memoryview | None, has_body: bool, patience: float = 0, arrival: Arrival | None = None) -> Answer:
        """As `take`, of an answer that is LONG: waits for the rest of it, with the time-outs of `request`."""
        if self._sock is not None:
            self._sock.settimeout(self._peer.read_timeout + patience)
        return self.take(into, has_body, arrival)

    def silent(self) -> WireError:
        """Nothing came for too long: the connection is closed, and this is why."""
        return self._broken(TimeoutError())

    def _begins(self) -> None:
        self._reused = self.used > 0
        self.used += 1
        self._answered, self._received, self._status, self._headers = False, 0, 0, {}

    def _broken(self, exc: Exception) -> WireError:
        self.close()
        failure = self._failure(exc)
        failure.answered, failure.reused = self._answered, self._reused
        failure.received, failure.headers = self._received, self._headers
        return failure

    def _answer(self, sock: socket.socket, into: memoryview | None, has_body: bool, arrival: Arrival | None) -> Answer:
        while self._status in (0, 100):
            self._status, self._headers = self._head(sock)
        return self._receive(sock, self._status, self._headers, into, has_body, arrival)

    def pipeline(self, heads: bytes, count: int) -> bytes:
        """Send *count* HEAD requests at once and receive the heads of their answers, one after the other as they came.

        Fewer than *count* when the server closes before, or does not speak for the usual time; the connection is closed then.
        Raises WireError only when there is no connection. Parsing is left to the caller: this runs in a worker.
        """
        self.used += 1
        try:
            sock = self._sock or self._connect()
        except (WireError, OSError) as exc:
            self.close()
            raise self._failure(exc) from None
        received = bytearray()
        try:
            sock.settimeout(self._peer.read_timeout)
            sock.sendall(heads)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            while (came := received.count(b"\r\n\r\n")) < count and len(received) <= count * MAX_HEAD:
                if came:
                    linger(sock, len(received) // came * (count - came) // 2)
                data = sock.recv(SMALL)
                if not data:
                    break
                received += data
                self._peer.traffic.moved()
        except OSError:
            self.close()
        if received.count(b"\r\n\r\n") != count or not received.endswith(b"\r\n\r\n"):
            self.close()
        return bytes(received)

    def _failure(self, exc: Exception) -> WireError:
        if self._aborted:
            return WireError("Interrupted", "given up")
        if isinstance(exc, WireError):
            return exc
        host = self._peer.host
        if isinstance(exc, TimeoutError):
            return WireError("ReadTimeout", f"{host} said nothing for {self._peer.read_timeout:g} s")
        if isinstance(exc, ssl.SSLError | OSError):
            return WireError("TruncatedBody" if self._headers else "ConnectionReset", f"{host}: {exc.strerror or exc}")
        return WireError("BadAnswer", f"{host}: {exc}")

    def _connect(self) -> socket.socket:
        host, port, tls, patience, _, _ = self._peer
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as exc:
            raise WireError("NameNotResolved", f"{host}: {getattr(exc, 'strerror', None) or exc}") from None
        failure = WireError("EndpointUnreachable", f"{host}: no address")
        for family, kind, protocol, _, address in found:
            if self._aborted:
                break
            sock = socket.socket(family, kind, protocol)
            self._sock = sock
            sock.settimeout(patience)
            try:
                sock.connect(address)
            except TimeoutError:
                failure = WireError("ConnectTimeout", f"{host}:{port} did not answer in {patience:g} s")
            except OSError as exc:
                failure = WireError("EndpointUnreachable", f"{host}:{port}: {exc.strerror or exc}")
            else:
                break
            sock.close()
        else:
            raise failure
        if self._aborted:
            raise failure
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if tls is not None:
            try:
                self._sock = sock = tls.wrap_socket(sock, server_hostname=host)
            except ssl.SSLCertVerificationError as exc:
                raise WireError("TlsFailed", f"{host}: {exc.verify_message}") from None
            except ssl.SSLError as exc:
                raise WireError("TlsFailed", f"{host}:{port}: {exc.reason or exc}") from None
            except TimeoutError:
                raise WireError("ConnectTimeout", f"{host}:{port} did not greet in {patience:g} s") from None
            except (OSError, ValueError) as exc:
                raise WireError("TlsFailed", f"{host}:{port}: {exc}") from None
        return sock

    def _send(self, sock: socket.socket, head: bytes, body: Body) -> None:
        length = body_length(body)
        if length <= SMALL:
            sock.sendall(b"".join((head, *(read_slice(p) if isinstance(p, FileSlice) else p for p in body))))
            return
        sock.sendall(head)
        sent = arrived = 0

        def count(n: int) -> None:
            nonlocal sent, arrived
            sent += n
            if (there := sent - _on_the_way(sock)) > arrived:
                arrived = there
                self._peer.traffic.moved()

        for piece in body:
            if not isinstance(piece, FileSlice):
                view = memoryview(piece).cast("B")
                for start in range(0, len(view), PIECE):
                    sock.sendall(view[start : start + PIECE])
                    count(PIECE)
            elif isinstance(sock, ssl.SSLSocket):
                for part in slices(piece):
                    sock.sendall(part)
                    count(len(part))
            else:
                send_file(sock, piece, count)

    def _answer_before_close(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(SMALL)
        except OSError:
            data = b""
        if not data:
            raise ConnectionResetError("closed while the request was sent")
        self._heard(data)
        self._peer_closes = True

    def _heard(self, data: bytes) -> None:
        self._answered = True
        self._buffer += data
        self._peer.traffic.moved()

    def _head(self, sock: socket.socket) -> tuple[int, dict[str, str]]:
        buffer = self._buffer
        while (end := buffer.find(b"\r\n\r\n")) < 0:
            if len(buffer) > MAX_HEAD:
                raise ValueError("its headers have no end")
            data = sock.recv(SMALL)
            if not data:
                if buffer:
                    raise ValueError("it broke off in its headers")
                raise WireError("ConnectionClosed", f"{self._peer.host} closed without an answer")
            self._heard(data)
        head = buffer[:end].decode("utf-8", "surrogateescape")
        del buffer[: end + 4]
        return parse_head(head)

    def _receive(
        self, sock: socket.socket, status: int, headers: dict[str, str], into: memoryview | None, has_body: bool,
        arrival: Arrival | None,
    ) -> Answer:  # fmt: skip
        answer = Answer(status, headers)
        keep = headers.get("connection", "").lower() != "close" and not self._peer_closes
        if has_body and status not in (204, 304):
            target = into if status in (200, 206) else None
            length = headers.get("content-length")
            if "chunked" in headers.get("transfer-encoding", "").lower():
                answer.body = self._chunked(sock)
            elif length is None:
                answer.body = self._to_the_end(sock)
                keep = False
            elif target is not None:
                if int(length) > len(target):
                    raise ValueError(f"asked for {len(target)} bytes it sends {length}")
                if arrival is not None:
                    arrival.begins(status, headers)
                self._fill(sock, target[: int(length)], arrival)
            else:
                if int(length) > MAX_BODY:
                    raise ValueError(f"its answer has {length} bytes")
                scratch = bytearray(int(length))
                self._fill(sock, memoryview(scratch), for_caller=False)
                answer.body = bytes(scratch)
            if target is not None and answer.body:
                if len(answer.body) > len(target):
                    raise ValueError("more bytes than were asked for")
                target[: len(answer.body)] = answer.body
                self._received = len(answer.body)
                answer.body = b""
        answer.received = self._received
        if not keep or self._buffer:
            self.close()
        return answer

    def _fill(
        self, sock: socket.socket, into: memoryview, arrival: Arrival | None = None, *, for_caller: bool = True
    ) -> None:
        have = min(len(self._buffer), len(into))
        if have:
            into[:have] = self._buffer[:have]
            del self._buffer[:have]
        self._received = have if for_caller else 0
        whole = 0
        if len(into) - have > SMALL and not isinstance(sock, ssl.SSLSocket):
            self._let_it_sleep(sock)
            whole = socket.MSG_WAITALL
        asked = 1
        while have < len(into):
            piece = PIECE
            if arrival is not None:
                arrival.count(have)
                piece = min(PIECE, max(SMALL, arrival.lacking))
            if whole:
                piece, worth = portion(piece, len(into) - have)
                if worth != asked:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, worth)
                    asked = worth
            try:
                n = sock.recv_into(into[have : have + piece], 0, whole)
            except BlockingIOError:
                raise TimeoutError from None
            if n == 0:
                raise ConnectionResetError("closed in the middle of the answer")
            have += n
            self._peer.traffic.moved()
            self._received = have if for_caller else 0

    def _let_it_sleep(self, sock: socket.socket) -> None:
        """Let one call receive a whole piece, however many packets it comes in, until the next request sets a time-out.

        Each call costs two hand-overs of the GIL, and a poll before it as many again; with Python's own time-outs, a call returns what has
        come and MSG_WAITALL does nothing. The kernel's time-out is as good: a piece that takes longer is returned as far as it has come.
        """
        patience = sock.gettimeout()
        if patience != self._kernel_patience:
            seconds, fraction = divmod(patience or 0.0, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", int(seconds), int(fraction * 1e6)))
            self._kernel_patience = patience
        sock.settimeout(None)

    def _chunked(self, sock: socket.socket) -> bytes:
        out = bytearray()
        while True:
            size = int(self._line(sock).split(b";")[0], 16)
            if len(out) + size > MAX_BODY:
                raise ValueError("its answer has no end")
            while len(self._buffer) < size:
                self._more(sock)
            out += memoryview(self._buffer)[:size]
            del self._buffer[:size]
            if size == 0:
                while self._line(sock):
                    pass  # trailers
                return bytes(out)
            if self._line(sock):
                raise ValueError("a chunk has the wrong length")

    def _line(self, sock: socket.socket) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > MAX_HEAD:
                raise ValueError("a line has no end")
            self._more(sock)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _to_the_end(self, sock: socket.socket) -> bytes:
        while data := sock.recv(PIECE):
            self._heard(data)
            if len(self._buffer) > MAX_BODY:
                raise ValueError("its answer has no end")
        body = bytes(self._buffer)
        self._buffer.clear()
        return body

    def _more(self, sock: socket.socket) -> None:
        data = sock.recv(PIECE)
        if not data:
            raise ConnectionResetError("closed in the middle of the answer")
        self._heard(data)


def _on_the_way(sock: socket.socket) -> int:
    """Bytes that were given to the kernel and did not reach the other machine yet."""
    found: int = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0]
    return found
