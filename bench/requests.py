"""Which requests a tool sent: read from the server's access log, or from the bytes that pass on the way to it.

Both give requests as ``(method, target)`` and count them by the same verbs. Only path-style addressing is understood.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

OWN_AGENT = "zosfs-bench"
"""The user agent of the benchmarks' own requests, which count as nobody's."""

_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.I)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.I)
_LAST_CHUNK = b"0\r\n\r\n"
# the beast front end of RADOS gateways: ... "GET /bucket/key HTTP/1.1" 200 100 - "agent" ...
_LOGGED = re.compile(rb'beast: \S+: \S+ - \S+ \[[^\]]*\] "(\S+) (\S+) HTTP/1\.[01]" \d+ \d+ \S+ (?:"([^"]*)"|-)')


def verb(method: str, target: str) -> str:
    """What a request to S3 with *method* and *target* does, as the tables name it; a copy is a PUT."""
    split = urlsplit(target)
    words = {pair.partition("=")[0] for pair in split.query.split("&") if pair}
    key = split.path.strip("/").partition("/")[2]
    if not key:
        listing = not words or words & {"prefix", "delimiter", "marker", "list-type", "max-keys"}
        if method == "GET" and split.path.strip("/") and listing and not words & {"versions", "uploads"}:
            return "LIST"
        return "DELETE many" if method == "POST" and "delete" in words else "other"
    if method == "PUT":
        for word, name in (("append", "append"), ("partNumber", "part")):
            if word in words:
                return name
    if method == "POST" and words & {"uploads", "uploadId"}:
        return "upload"
    return "other" if words & {"acl", "tagging", "uploadId", "retention", "legal-hold"} else method


def by_verb(requests: Iterable[tuple[str, str]]) -> dict[str, int]:
    """How many requests of each verb, the most frequent first."""
    return dict(Counter(verb(method, target) for method, target in requests).most_common())


class Framing:
    """The requests within one connection's bytes towards the server, in whatever pieces these come.

    ``unseen`` bytes from here on are the body of a request, and may be passed by `skip` instead of being shown to `feed`.
    """

    def __init__(self) -> None:
        self.unseen = 0
        self._head = b""
        self._chunked = False

    def skip(self, count: int) -> None:
        """Pass *count* bytes of body, at most ``unseen``."""
        assert count <= self.unseen
        self.unseen -= count

    def feed(self, piece: bytes) -> list[tuple[str, str]]:
        """The requests whose heads end in *piece*, the next bytes of the connection."""
        found = []
        while piece:
            if self.unseen:
                taken = min(self.unseen, len(piece))
                self.unseen -= taken
                piece = piece[taken:]
                continue
            held = len(self._head)
            self._head += piece
            end = self._head.find(_LAST_CHUNK if self._chunked else _HEAD_END, 0 if self._chunked else max(0, held - 3))
            if end < 0:
                # of a body in chunks only what its end may begin with is still needed
                self._head = self._head[-len(_LAST_CHUNK) :] if self._chunked else self._head
                break
            end += len(_LAST_CHUNK) if self._chunked else len(_HEAD_END)
            head, piece, self._head = self._head[:end], self._head[end:], b""
            if self._chunked:
                self._chunked = False
                continue
            method, _, rest = head.partition(b" ")
            found.append((method.decode("latin-1"), rest.partition(b" ")[0].decode("latin-1")))
            length = _LENGTH.search(head)
            self.unseen = int(length.group(1)) if length else 0
            self._chunked = length is None and _CHUNKED.search(head) is not None
        return found


def logged(text: bytes) -> list[tuple[str, str]]:
    """The requests that lines of a RADOS gateway's log tell of, without those of `OWN_AGENT`."""
    return [
        (method.decode("latin-1"), target.decode("latin-1"))
        for method, target, agent in _LOGGED.findall(text)
        if not agent.startswith(OWN_AGENT.encode())
    ]


class AccessLog:
    """The growing log of a RADOS gateway."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = path.stat().st_size

    def since(self, last: bytes | None = None) -> list[tuple[str, str]] | None:
        """The requests logged since the last call that gave some; None (and nothing is taken) until *last* is in the log."""
        with self._path.open("rb") as log:
            log.seek(self._at)
            text = log.read()
        if last is not None and last not in text:
            return None
        text = text[: text.rfind(b"\n") + 1]
        self._at += len(text)
        return logged(text)
