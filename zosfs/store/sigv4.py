"""Request signatures (pure): AWS version 4 with the day's key kept, about 20 microseconds a request, and the old version 2.

Owns: the canonical forms and the kept key. Must not know: sockets, where credentials come from.
Source of the rules: "Authenticating Requests" of the S3 API reference, both versions.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

UNSIGNED = "UNSIGNED-PAYLOAD"
EMPTY = hashlib.sha256(b"").hexdigest()

V2_SUBRESOURCES = frozenset(
    {
        "acl", "cors", "delete", "lifecycle", "location", "logging", "notification", "partNumber", "policy", "policyStatus",
        "publicAccessBlock", "requestPayment", "tagging", "torrent", "uploadId", "uploads", "versionId", "versioning",
        "versions", "website", "object-lock", "legal-hold", "retention", "restore", "replication", "response-cache-control",
        "response-content-disposition", "response-content-encoding", "response-content-language", "response-content-type",
        "response-expires",
    }
)  # fmt: skip
"""The query parameters that version 2 signs."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Keys that sign. Empty *access_key*: requests are sent unsigned."""

    access_key: str = ""
    secret_key: str = field(default="", repr=False)
    token: str = field(default="", repr=False)


def quote_key(key: str) -> str:
    """A key as it stands in a URL path: everything but unreserved characters and `/` percent-encoded."""
    return quote(key.encode("utf-8", "surrogateescape"), safe="/-_.~")


def quote_query(query: Mapping[str, str]) -> str:
    """The canonical query string: sorted, percent-encoded; values may be empty."""
    pairs = sorted(
        (quote(name, safe="-_.~"), quote(value.encode("utf-8", "surrogateescape"), safe="-_.~")) for name, value in query.items()
    )
    return "&".join(f"{name}={value}" for name, value in pairs)


class _Hmac:
    """HMAC-SHA256 (RFC 2104) with a kept key of at most 64 bytes.

    hmac.digest lets go of the GIL, and in a busy mount has to wait for it: 43 us a signature, against 1 us so.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        block = key.ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def hexdigest(self, message: bytes) -> str:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.hexdigest()


class Signer:
    """Signs requests for one region. *clock_offset* are seconds to add to this machine's clock."""

    def __init__(self, region: str, *, version: int = 4) -> None:
        self.region = region
        self.version = version
        self.clock_offset = 0.0
        self._kept: tuple[str, str, str] = ("", "", "")
        self._key = _Hmac(b"")
        self._second = 0
        self._stamp = ""

    def sign(
        self, credentials: Credentials, method: str, path: str, query: Mapping[str, str], headers: dict[str, str], payload: str,
        *, resource: str = "", now: float | None = None,
    ) -> None:  # fmt: skip
        """Add the date, the payload's hash and the signature to *headers* (lower-case names, host included).

        *path* is in canonical form already; *payload* is the hex SHA-256 of the body or UNSIGNED. *resource* is the path
        with the bucket in front, which version 2 wants, where *path* lacks it.
        """
        if not credentials.access_key:
            return
        second = int((time.time() if now is None else now) + self.clock_offset)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
        if credentials.token:
            headers["x-amz-security-token"] = credentials.token
        if self.version == 2:
            self._sign_v2(credentials, method, resource or path, query, headers)
        else:
            self._sign_v4(credentials, method, path, quote_query(query), headers, payload)

    def _sign_v4(
        self, credentials: Credentials, method: str, path: str, query: str, headers: dict[str, str], payload: str
    ) -> None:
        stamp, day = self._stamp, self._stamp[:8]
        if self._kept != (day, self.region, credentials.secret_key):
            key = ("AWS4" + credentials.secret_key).encode()
            for part in (day, self.region, "s3", "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._kept, self._key = (day, self.region, credentials.secret_key), _Hmac(key)
        headers["x-amz-date"] = stamp
        headers["x-amz-content-sha256"] = payload
        names = sorted(name for name in headers if name == "host" or name.startswith(("x-amz-", "content-md5", "content-type")))
        signed = ";".join(names)
        canonical = "".join(f"{name}:{' '.join(headers[name].split())}\n" for name in names)
        canonical = f"{method}\n{path}\n{query}\n{canonical}\n{signed}\n{payload}"
        scope = f"{day}/{self.region}/s3/aws4_request"
        digest = hashlib.sha256(canonical.encode("utf-8", "surrogateescape")).hexdigest()
        signature = self._key.hexdigest(f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}".encode())
        headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, SignedHeaders={signed}, Signature={signature}"
        )

    def _sign_v2(
        self, credentials: Credentials, method: str, resource: str, query: Mapping[str, str], headers: dict[str, str]
    ) -> None:
        headers["x-amz-date"] = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(self._second))
        own = "".join(f"{name}:{headers[name].strip()}\n" for name in sorted(headers) if name.startswith("x-amz-"))
        # valueless and valued as they stand in the canonical form, values not encoded
        parts = [f"{name}={value}" if value else name for name, value in sorted(query.items()) if name in V2_SUBRESOURCES]
        resource += "?" + "&".join(parts) if parts else ""
        text = f"{method}\n{headers.get('content-md5', '')}\n{headers.get('content-type', '')}\n\n{own}{resource}"
        mac = hmac.digest(credentials.secret_key.encode(), text.encode("utf-8", "surrogateescape"), "sha1")
        headers["authorization"] = f"AWS {credentials.access_key}:{base64.b64encode(mac).decode()}"
