"""A blocking HTTP/1.1 connection for worker threads: plain or TLS, bodies received straight into the caller's buffer.

Owns: one socket. Must not know: trio, XML, S3. Every call ends within the socket's time-outs; `abort` ends it at once.
"""

from __future__ import annotations

import mmap
import os
import socket
import ssl
from dataclasses import dataclass

from zosfs.store.api import Body, FileSlice, body_length

PIECE = 1 << 20
MAX_HEAD = 64 << 10


class WireError(Exception):
    """No good answer: *code* is one of our own codes in zosfs.errors; *sent* tells whether the server may have acted."""

    def __init__(self, code: str, message: str, *, answered: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.answered = answered


@dataclass(slots=True)
class Answer:
    """Status, headers (lower-case names) and, unless it went into the caller's buffer, the body."""

    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """One kept-alive connection."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None, connect_timeout: float, read_timeout: float) -> None:
        self._host = host
        self.used = False
        self.closed = False
        try:
            raw = socket.create_connection((host, port), timeout=connect_timeout)
        except socket.gaierror as exc:
            raise WireError("NameNotResolved", f"{host}: {exc.strerror}") from None
        except TimeoutError:
            raise WireError("ConnectTimeout", f"{host}:{port} does not answer") from None
        except OSError as exc:
            raise WireError("EndpointUnreachable", f"{host}:{port}: {exc.strerror}") from None
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._sock: socket.socket = raw
        self._tls = tls is not None
        if tls is not None:
            try:
                self._sock = tls.wrap_socket(raw, server_hostname=host)
            except ssl.SSLError as exc:
                raw.close()
                raise WireError("TlsFailed", f"{host}: {exc.reason or exc}") from None
            except OSError as exc:
                raw.close()
                raise WireError("TlsFailed", f"{host}: {exc}") from None
        self._sock.settimeout(read_timeout)
        self._buffer = bytearray()

    def abort(self) -> None:
        """End whatever call is running on this connection, from any thread."""
        self.closed = True
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def close(self) -> None:
        """Give the socket back."""
        self.closed = True
        self._sock.close()

    def request(self, head: bytes, body: Body, into: memoryview | None, has_body: bool) -> Answer:
        """Send *head* and *body*, receive the answer; a 200/206 body goes into *into* if given.

        *has_body* False (HEAD) means the answer has no body whatever its headers say.
        """
        got = False
        try:
            self._send(head, body)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            status, headers = self._head()
            got = True
            while status == 100:
                status, headers = self._head()
            return self._receive(status, headers, into, has_body)
        except TimeoutError:
            self.close()
            raise WireError("ReadTimeout", f"{self._host} said nothing in time", answered=got) from None
        except (OSError, ssl.SSLError) as exc:
            self.close()
            raise WireError("ConnectionReset", f"{self._host}: {exc}", answered=got) from None
        except WireError as exc:
            exc.answered = got
            self.close()
            raise
        except ValueError as exc:
            self.close()
            raise WireError("BadAnswer", f"{self._host}: {exc}", answered=got) from None

    def _send(self, head: bytes, body: Body) -> None:
        if not body:
            self._sock.sendall(head)
            return
        if body_length(body) <= 65536:
            parts = [head]
            for piece in body:
                parts.append(os.pread(piece.fd, piece.length, piece.offset) if isinstance(piece, FileSlice) else bytes(piece))
            self._sock.sendall(b"".join(parts))
            return
        self._sock.sendall(head)
        for piece in body:
            if not isinstance(piece, FileSlice):
                view = memoryview(piece)
                for start in range(0, len(view), PIECE):
                    self._sock.sendall(view[start : start + PIECE])
            elif self._tls:
                with mmap.mmap(-1, min(PIECE, max(piece.length, 1))) as scratch, memoryview(scratch) as view:
                    done = 0
                    while done < piece.length:
                        n = os.preadv(piece.fd, [view[: min(PIECE, piece.length - done)]], piece.offset + done)
                        if n <= 0:
                            raise ValueError("the staged file is shorter than it should be")
                        self._sock.sendall(view[:n])
                        done += n
            else:
                self._sendfile(piece)

    def _sendfile(self, piece: FileSlice) -> None:
        import select

        done = 0
        fd = self._sock.fileno()
        timeout = self._sock.gettimeout()
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        while done < piece.length:
            try:
                n = os.sendfile(fd, piece.fd, piece.offset + done, min(piece.length - done, 8 * PIECE))
            except BlockingIOError:
                if not poll.poll(None if timeout is None else timeout * 1000):
                    raise TimeoutError from None
                continue
            if n == 0:
                raise ValueError("the staged file is shorter than it should be")
            done += n

    def _head(self) -> tuple[int, dict[str, str]]:
        buffer = self._buffer
        while (end := buffer.find(b"\r\n\r\n")) < 0:
            if len(buffer) > MAX_HEAD:
                raise ValueError("headers too long")
            data = self._sock.recv(65536)
            if not data:
                raise ConnectionResetError("closed before an answer")
            buffer += data
        text = buffer[:end].decode("latin-1")
        del buffer[: end + 4]
        lines = text.split("\r\n")
        status = int(lines[0].split(" ", 2)[1])
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return status, headers

    def _receive(self, status: int, headers: dict[str, str], into: memoryview | None, has_body: bool) -> Answer:
        body = b""
        if has_body and status not in (204, 304):
            if "chunked" in headers.get("transfer-encoding", ""):
                body = self._chunked()
            else:
                length = int(headers.get("content-length", "0"))
                if into is not None and status in (200, 206):
                    if length != len(into):
                        raise WireError("TruncatedBody", f"asked for {len(into)} bytes, the answer has {length}")
                    self._fill(into)
                else:
                    scratch = bytearray(length)
                    self._fill(memoryview(scratch))
                    body = bytes(scratch)
        self.used = True
        if headers.get("connection", "").lower() == "close" or self._buffer:
            self.close()
        return Answer(status, headers, body)

    def _fill(self, into: memoryview) -> None:
        have = min(len(self._buffer), len(into))
        if have:
            into[:have] = self._buffer[:have]
            del self._buffer[:have]
        while have < len(into):
            n = self._sock.recv_into(into[have : have + PIECE])
            if n == 0:
                raise ConnectionResetError("closed in mid-body")
            have += n

    def _chunked(self) -> bytes:
        out = bytearray()
        while True:
            while (end := self._buffer.find(b"\r\n")) < 0:
                self._more()
            size = int(self._buffer[:end].split(b";")[0], 16)
            del self._buffer[: end + 2]
            while len(self._buffer) < size + 2:
                self._more()
            out += self._buffer[:size]
            del self._buffer[: size + 2]
            if size == 0:
                return bytes(out)

    def _more(self) -> None:
        data = self._sock.recv(PIECE)
        if not data:
            raise ConnectionResetError("closed in mid-body")
        self._buffer += data
