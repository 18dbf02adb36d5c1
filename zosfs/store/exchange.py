"""One signed request and its answer: addressing, signing, sending again, and what can be put right in passing (clock, region).

Owns: the signer with its clock offset, the retry schedule. May use: pool, sigv4, retries, answers. Must not know: verbs.
"""

from __future__ import annotations

import base64
import ipaddress
import logging
import random
import re
import time
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import trio

from zosfs.config import Options
from zosfs.counters import Counters
from zosfs.errors import UNMET, StoreError
from zosfs.store import answers, digests
from zosfs.store.api import Body, body_length
from zosfs.store.arrival import Arrival
from zosfs.store.credentials import Provider
from zosfs.store.heads import THROTTLED
from zosfs.store.http import Answer, WireError
from zosfs.store.pool import Pool, tls_context
from zosfs.store.retries import THROTTLES, Schedule
from zosfs.store.short import is_short
from zosfs.store.sigv4 import EMPTY, UNSIGNED, Signer, quote_key, quote_query

log = logging.getLogger(__name__)

HASHED_AT_ONCE = 16 << 10
"""Bodies up to here are hashed where they are; a hop to a thread costs more."""
FIRST_TRIES = 5
"""Sendings of the first request of a mount, which somebody waits for."""
UNREACHED = 2
"""Sendings of a request whose tries are limited, when nobody is reached."""
SKEW = 300.0
"""Seconds of difference between the clocks from which a refusal is blamed on it (servers allow 900)."""
_DNS_NAME = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")

Settle = Callable[[], Awaitable[Answer | None]]
"""Finds out whether a doubtful request was applied: its answer as it would have been, or None."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the server is and how buckets are addressed there."""

    scheme: str
    host: str
    port: int
    base: str
    path_style: bool

    @classmethod
    def of(cls, options: Options) -> Endpoint:
        """The endpoint of ``url=``. Raises StoreError ``BadEndpoint``."""
        url = options.url if "://" in options.url else f"https://{options.url}"
        try:
            parts = urllib.parse.urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as exc:
            raise StoreError("BadEndpoint", operation="connect", message=f"{options.url}: {exc}") from None
        if parts.scheme not in ("http", "https") or not host or parts.query or parts.username:
            raise StoreError("BadEndpoint", operation="connect", message=options.url.partition("@")[2] or options.url)
        try:
            ipaddress.ip_address(host)
            numeric = True
        except ValueError:
            numeric = "." not in host
        return cls(
            parts.scheme, host, port or (443 if parts.scheme == "https" else 80), parts.path.rstrip("/"),
            options.use_path_request_style or numeric,
        )  # fmt: skip

    def place(self, bucket: str, key: str) -> tuple[str, str, str, str]:
        """Host to connect to, Host header, path on the wire and the path that version 2 signs, of *key* in *bucket*."""
        resource = "/" + quote_key(bucket) + ("/" + quote_key(key) if key else "") if bucket else "/"
        host, path = self.host, resource
        if bucket and not self.path_style and _DNS_NAME.fullmatch(bucket):
            host, path = f"{bucket}.{self.host}", "/" + quote_key(key)
            resource = f"/{bucket}{path}"
        shown = f"[{host}]" if ":" in host else host
        if self.port != (443 if self.scheme == "https" else 80):
            shown = f"{shown}:{self.port}"
        return host, shown, self.base + path, resource


class Broken(StoreError):
    """A body that broke off after *received* bytes in the caller's buffer; the answer's *headers* are known."""

    received = 0


class Exchange:
    """Sends requests of one account."""

    def __init__(self, options: Options, counters: Counters, credentials: Provider) -> None:
        self.options = options
        self.counters = counters
        self.credentials = credentials
        self.endpoint = Endpoint.of(options)
        self.pool = Pool(
            self.endpoint.port, tls_context(options) if self.endpoint.scheme == "https" else None, options, counters
        )
        self.signer = Signer(options.region, version=2 if options.sigv2 else 4)
        self.schedule = Schedule(options.retries, options.retry_timeout)
        self._signs_payload = options.sign_payload == "always" or (options.sign_payload == "auto" and self.pool.tls is None)
        self._region_tried = ""
        self.throttled = 0  # answers so far by which the server asked for fewer requests

    async def request(
        self, verb: str, method: str, bucket: str, key: str = "", *,
        query: Mapping[str, str] = {}, headers: Mapping[str, str] = {}, body: Body = (), into: memoryview | None = None,
        tries: int | None = None, again: bool = True, patience: float = 0, md5: bool = False, settle: Settle | None = None,
        arrival: Arrival | None = None,
    ) -> Answer:  # fmt: skip
        """Sign, send, and send again what may pass by itself; the answer is a 2xx without an error inside.

        Each sending counts in ``requests_<verb>``. *again* False: the server may act twice on this request, so it is not repeated on a
        fresh connection without asking. *settle* is asked after each failure that leaves in doubt whether the
        server acted, and after refusals that follow one; its answer stands for the request's. *tries* limits the sendings, of which those
        that reach nobody are two at most. *md5* wants a Content-MD5 whatever the signature. *arrival* is told of what comes *into* the
        buffer. Raises StoreError.
        """
        host, shown, path, resource = self.endpoint.place(bucket, key)
        fixed, payload, length = await self._describe(method, body, headers, md5)
        fixed["host"] = shown
        if self.options.requester_pays:
            fixed["x-amz-request-payer"] = "requester"
        target = f"{path}?{quote_query(query)}" if query else path
        began = trio.current_time()
        attempt, corrected, doubtful = 0, False, False
        brief = is_short(method, body, into)

        def count() -> None:
            self.counters.add("requests_" + verb)

        while True:
            attempt += 1
            sent = dict(fixed)
            self.signer.sign(await self.credentials.current(), method, path, query, sent, payload, resource=resource)
            head = _head(method, target, sent, verb, key)
            try:
                answer = await self.pool.send(
                    host, head, body, into=into, has_body=method != "HEAD", again=again, patience=patience, started=count,
                    arrival=arrival, brief=brief,
                )  # fmt: skip
                self.counters.add("bytes_sent", length)
                self.counters.add("bytes_received", answer.received or len(answer.body))
                if 200 <= answer.status < 300 and not (answer.body and method != "GET" and answers.error_inside(answer)):
                    return answer
                failure = answers.failure(answer, verb, key)
            except WireError as exc:
                failure = self._broken(exc, verb, key)
                if exc.received:
                    self.counters.add("bytes_received", exc.received)
                    try:
                        raise failure from None  # whoever gave the buffer goes on from there
                    finally:
                        del failure
            self.throttled += failure.row.code in THROTTLES
            if failure.status in (301, 307, 400, 403) and not corrected and self._correct(failure):
                corrected = True
                attempt -= 1
                continue
            if settle is not None:
                doubtful = doubtful or failure.ambiguous
                if doubtful:
                    settled = await self._settled(settle)
                    if settled is not None:
                        return settled
            pause = self.schedule.pause(failure, attempt, trio.current_time() - began, random.random())
            if pause is None or (tries is not None and attempt >= (min(tries, UNREACHED) if failure.row.unsent else tries)):
                if failure.status not in (404, 412) and failure.row.code not in UNMET:  # answers like others
                    self.counters.add("errors")
                try:
                    raise failure
                finally:
                    del failure  # as in wire
            log.debug("again in %.1f s: %s", pause, failure)
            self.counters.add("retries")
            await trio.sleep(pause)

    async def heads(self, bucket: str, keys: Sequence[str]) -> list[Answer] | None:
        """HEAD of all *keys* at once, over one connection: the answers that came, in their order, whatever their status; None without a
        connection.

        Nothing is sent again: what has no answer, or one that may pass by itself, is the caller's to ask for alone.
        """
        credentials = await self.credentials.current()
        host, lines = "", []
        for key in keys:
            host, shown, path, resource = self.endpoint.place(bucket, key)
            headers = {"host": shown}
            if self.options.requester_pays:
                headers["x-amz-request-payer"] = "requester"
            self.signer.sign(credentials, "HEAD", path, {}, headers, EMPTY, resource=resource)
            lines.append(_head("HEAD", path, headers, "head", key))
        self.counters.add("requests_head", len(lines))
        found = await self.pool.pipeline(host, lines)
        self.throttled += sum(answer.status in THROTTLED for answer in found or ())
        return found

    async def _describe(
        self, method: str, body: Body, headers: Mapping[str, str], md5: bool
    ) -> tuple[dict[str, str], str, int]:
        fixed = dict(headers)
        length = body_length(body)
        payload = EMPTY
        if method in ("PUT", "POST"):
            fixed["content-length"] = str(length)
        if length:
            digest = digests.sha256_hex if self._signs_payload and self.signer.version == 4 else digests.md5_hex
            text = digest(body) if length <= HASHED_AT_ONCE else await self.pool.work(digest, body)
            if digest is digests.sha256_hex:
                payload = text
                text = digests.md5_hex(body) if md5 else ""
            else:
                payload = UNSIGNED
            if text:
                fixed["content-md5"] = base64.b64encode(bytes.fromhex(text)).decode()
        return fixed, payload, length

    def _broken(self, exc: WireError, verb: str, key: str) -> StoreError:
        kind = Broken if exc.received else StoreError
        failure = kind(exc.code, message=str(exc), operation=verb, key=key, headers=exc.headers)
        if isinstance(failure, Broken):
            failure.received = exc.received
        return failure

    async def _settled(self, settle: Settle) -> Answer | None:
        try:
            return await settle()
        except StoreError as exc:
            log.debug("the doubt stays: %s", exc)
            return None

    def _correct(self, failure: StoreError) -> bool:
        """Put right what *failure* says of our clock or region; whether that is worth another try."""
        region = failure.headers.get("x-amz-bucket-region", "")
        if failure.code == "AuthorizationHeaderMalformed" and not region:
            found = re.search(r"expecting '([\w-]+)'", failure.message)
            region = found.group(1) if found else ""
        if region and region not in (self.signer.region, self._region_tried):
            log.warning("the bucket's region is %s, not %s", region, self.signer.region)
            self.signer.region = self._region_tried = region
            return True
        server = answers.http_time_ns(failure.headers.get("date", "")) / 1e9
        if failure.status == 403 and server:
            offset = server - time.time()
            if abs(offset - self.signer.clock_offset) > SKEW:
                log.warning("this machine's clock is %.0f s off the server's; corrected for requests: set the clock", -offset)
                self.signer.clock_offset = offset
                return True
        return False

    def close(self) -> None:
        """Close connections and threads."""
        self.pool.close()


def _head(method: str, target: str, headers: Mapping[str, str], verb: str, key: str) -> bytes:
    lines = [f"{method} {target} HTTP/1.1"]
    for name, value in headers.items():
        if "\r" in value or "\n" in value or "\0" in value:
            raise StoreError("InvalidArgument", operation=verb, key=key, message=f"a line break in the header {name}")
        lines.append(f"{name}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")


def also_quoted(etag: str) -> str:
    """An ETag as the HTTP conditions of reads want it."""
    return f'"{etag}"'


def source_of(bucket: str, key: str, version_id: str = "") -> str:
    """The x-amz-copy-source of an object."""
    version = f"?versionId={urllib.parse.quote(version_id, safe='')}" if version_id else ""
    return quote_key(f"/{bucket}/{key}") + version


def source_conditions(etag: str) -> dict[str, str]:
    """Headers that make a copy fail unless the source has *etag*: the one that S3 has for it, which Ceph ignores, and Ceph's own."""
    return {"x-amz-copy-source-if-match": etag, "x-amz-copy-if-match": etag}


def is_one_of(failure: StoreError, codes: Sequence[str]) -> bool:
    """Whether *failure* is, by code or by what its status stands for, one of *codes*."""
    return failure.code in codes or failure.row.code in codes
