"""An archive in front of a real server: objects of it are put into an archive class, refuse to be read, and are thawed when asked.

Ceph 16 and SeaweedFS have no archive. This proxy passes every request on as it came (so signatures hold) and changes what S3's
documentation of archived objects says: the storage class in HEAD, GET and listings, ``InvalidObjectState`` for reading and copying,
``POST ?restore`` and ``x-amz-restore``. What writes a key anew takes it out of the archive. It can also hold a key as a server does that
keeps no versions of what is locked: writing and deleting are refused.
"""

from __future__ import annotations

import http.client
import re
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.servers.server import Server

UNTIL = "Fri, 21 Dec 2029 00:00:00 GMT"
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})
_REFUSED = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>in the archive</Message></Error>"
_HELD = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>forbidden by object lock</Message></Error>"


class Archive:
    """Runs from construction to `stop`. `freeze` archives an object; a thaw that was asked for ends with `thaw`, or by itself after
    *heads* more HEADs of it."""

    def __init__(self, behind: Server, heads: int = -1) -> None:
        self._behind = urllib.parse.urlsplit(behind.url).netloc
        self._heads = heads
        self._lock = threading.Lock()
        self._state: dict[str, str] = {}  # path -> archived, thawing, thawed
        self._left: dict[str, int] = {}
        self._held: set[str] = set()
        self.requests: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []  # of each request, by lower-case name
        self.asked: list[bytes] = []
        standing = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def handle_one(self) -> None:
                standing._handle(self)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_one

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        port = self._server.server_address[1]
        self.server = Server(f"http://127.0.0.1:{port}", behind.access_key, behind.secret_key, behind.kind)

    def freeze(self, bucket: str, key: str) -> None:
        """Put the object into the archive."""
        with self._lock:
            self._state[f"/{bucket}/{key}"] = "archived"

    def thaw(self, bucket: str, key: str) -> None:
        """The copy that was asked for is ready."""
        with self._lock:
            assert self._state[f"/{bucket}/{key}"] == "thawing", "nobody asked for it"
            self._state[f"/{bucket}/{key}"] = "thawed"

    def hold(self, bucket: str, key: str) -> None:
        """Refuse to change the object from now on."""
        self._held.add(f"/{bucket}/{key}")

    def release(self, bucket: str, key: str) -> None:
        """Let it be changed again."""
        self._held.remove(f"/{bucket}/{key}")

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def sent(self, method: str, path: str) -> int:
        """How often *method* of *path* (with its query) was asked."""
        return self.requests.count((method, path))

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length", "0") or 0))
        target = urllib.parse.urlsplit(handler.path)
        path = urllib.parse.unquote(target.path)
        names = {name for name, _ in urllib.parse.parse_qsl(target.query, keep_blank_values=True)}
        with self._lock:
            self.requests.append((handler.command, urllib.parse.unquote(handler.path)))
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
        with self._lock:
            state = self._state.get(path, "")
            source = urllib.parse.unquote("/" + handler.headers.get("x-amz-copy-source", "").lstrip("/").partition("?")[0])
            frozen = self._state.get(source, "") in ("archived", "thawing")
            if state and handler.command == "POST" and "restore" in names:
                return self._restore(handler, path, state, body)
            if path in self._held and handler.command in ("PUT", "POST", "DELETE"):
                return self._answer(handler, 403, {}, _HELD)
            reading = handler.command == "GET" and not names - {"response-content-type", "versionId"}
            if frozen or (state in ("archived", "thawing") and (reading or "append" in names)):
                return self._answer(handler, 403, {}, _REFUSED % b"InvalidObjectState")
            if handler.command == "HEAD" and self._left.get(path) is not None:
                self._left[path] -= 1
                if self._left[path] < 0:
                    del self._left[path]
                    self._state[path] = state = "thawed"
        status, headers, answer = self._pass_on(handler, body)
        with self._lock:
            if status < 300 and (handler.command, bool(names)) in (("PUT", False), ("DELETE", False)):
                self._state.pop(path, None)
            if state and not names:
                headers["x-amz-storage-class"] = "GLACIER"
                if state == "thawing":
                    headers["x-amz-restore"] = 'ongoing-request="true"'
                elif state == "thawed":
                    headers["x-amz-restore"] = f'ongoing-request="false", expiry-date="{UNTIL}"'
            if b"<ListBucketResult" in answer:
                answer = re.sub(rb"<Contents>.*?</Contents>", lambda found: self._listed(path, found[0]), answer, flags=re.S)
        return self._answer(handler, status, headers, answer)

    def _restore(self, handler: BaseHTTPRequestHandler, path: str, state: str, body: bytes) -> None:
        self.asked.append(body)
        if state == "thawing":
            self._answer(handler, 409, {}, _REFUSED % b"RestoreAlreadyInProgress")
            return
        if state == "archived":
            self._state[path] = "thawing"
            if self._heads >= 0:
                self._left[path] = self._heads
        self._answer(handler, 200 if state == "thawed" else 202, {}, b"")

    def _listed(self, bucket_path: str, entry: bytes) -> bytes:
        found = re.search(rb"<Key>(.*?)</Key>", entry, re.S)
        key = urllib.parse.unquote_plus(found[1].decode()) if found else ""  # as encoding-type=url has it
        if f"{bucket_path.rstrip('/')}/{key}" not in self._state:
            return entry
        return re.sub(rb"<StorageClass>[^<]*</StorageClass>", b"<StorageClass>GLACIER</StorageClass>", entry)

    def _pass_on(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self._behind, timeout=60)
        try:
            connection.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
            for name, value in handler.headers.items():
                if name.lower() not in ("connection", "expect"):
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP}
            if handler.command == "HEAD" and answer.getheader("content-length"):
                headers["content-length"] = str(answer.getheader("content-length"))
            return answer.status, headers, answer.read()
        finally:
            connection.close()

    @staticmethod
    def _answer(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
        handler.send_response_only(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        if "content-length" not in headers and status not in (204, 304):
            handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)
