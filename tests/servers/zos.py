"""A small HTTP server in the place of ZOS for what Ceph lacks: it answers exactly the requests that ZOS's manuals document.

A test says which request it expects and what is answered; everything else is refused with NotImplemented. Signatures (version 4) are
checked as a server would.
"""

from __future__ import annotations

import hashlib
import threading
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.servers.server import Server

ACCESS, SECRET = "zosak", "zossk"


@dataclass(frozen=True)
class Request:
    """What arrived: *path* decoded, *query* decoded, header names in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        """The fields of a form body."""
        return dict(urllib.parse.parse_qsl(self.body.decode(), keep_blank_values=True))


@dataclass
class Answer:
    """What is answered; *times* (0: always)."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class Zos:
    """Runs from construction to `stop`."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.refused: list[str] = []
        self.secrets = {ACCESS: SECRET}
        self._answers: dict[tuple[str, str, tuple[tuple[str, str], ...]], list[Answer]] = {}
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
        self.server = Server(f"http://127.0.0.1:{self._server.server_address[1]}", ACCESS, SECRET, "zos")

    def answer(
        self, method: str, path: str, query: Mapping[str, str] | None = None, *, status: int = 200, body: bytes | str = b"",
        headers: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Answer *method* of *path* with exactly *query*. Said more than once: one after the other, the last one for ever."""
        raw = body.encode() if isinstance(body, str) else body
        key = (method, path, tuple(sorted((query or {}).items())))
        self._answers.setdefault(key, []).append(Answer(status, raw, headers or {}))

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def sent(self, method: str) -> list[Request]:
        """The requests of *method* so far."""
        return [request for request in self.requests if request.method == method]

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers.get("content-length", "0") or 0)
        body = handler.rfile.read(length)
        parts = urllib.parse.urlsplit(handler.path)
        query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        headers = {name.lower(): value for name, value in handler.headers.items()}
        request = Request(handler.command, urllib.parse.unquote(parts.path), query, headers, body)
        self.requests.append(request)
        wrong = self._wrong_signature(request, handler.path)
        if wrong:
            self.refused.append(wrong)
            answer = Answer(403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>")
        else:
            found = self._answers.get((request.method, request.path, tuple(sorted(query.items()))))
            if not found:
                self.refused.append(f"{request.method} {handler.path}")
                answer = Answer(501, b"<Error><Code>NotImplemented</Code></Error>")
            else:
                answer = found.pop(0) if len(found) > 1 else found[0]
        handler.send_response(answer.status)
        given = {name.lower() for name in answer.headers}
        for name, value in answer.headers.items():
            handler.send_header(name, value)
        if "content-length" not in given:
            handler.send_header("content-length", str(len(answer.body)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(answer.body)

    def _wrong_signature(self, request: Request, target: str) -> str:
        told = request.headers.get("authorization", "")
        if not told.startswith("AWS4-HMAC-SHA256 "):
            return f"{request.method} {target}: not signed with version 4"
        fields = dict(word.strip().partition("=")[::2] for word in told.removeprefix("AWS4-HMAC-SHA256 ").split(","))
        access, _, region, service, _ = fields["Credential"].rsplit("/", 4)
        secret = self.secrets.get(access)
        if secret is None:
            return f"{request.method} {target}: unknown key {access}"
        signed = {name: request.headers[name] for name in fields["SignedHeaders"].split(";")}
        claimed = request.headers.get("x-amz-content-sha256")
        if claimed not in (None, "UNSIGNED-PAYLOAD", hashlib.sha256(request.body).hexdigest()):
            return f"{request.method} {target}: the body is not what was signed"
        again = AWSRequest(method=request.method, url=f"http://{request.headers['host']}{target}", headers=signed, data=request.body)
        again.context["timestamp"] = request.headers["x-amz-date"]
        auth = (S3SigV4Auth if service == "s3" else SigV4Auth)(Credentials(access, secret), service, region)
        if auth.signature(auth.string_to_sign(again, auth.canonical_request(again)), again) != fields["Signature"]:
            return f"{request.method} {target}: the signature does not match"
        return ""
