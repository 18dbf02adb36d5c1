"""What an exchange of HTTP/1.1 ends with: an answer, or the reason why there is none (pure)."""

from __future__ import annotations

from dataclasses import dataclass


class WireError(Exception):
    """No good answer. *code* is one of our own codes in zosfs.errors; *answered*: a byte of the answer had come;
    *reused*: the connection had served before, so it may simply have been closed meanwhile; *received*: bytes already in the
    caller's buffer, *headers* of the answer if they had come."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.answered = False
        self.reused = False
        self.received = 0
        self.headers: dict[str, str] = {}


@dataclass(slots=True)
class Answer:
    """Status, headers (lower-case names) and the body; *received* counts the bytes that went into the caller's buffer instead."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    received: int = 0


def parse_head(head: str) -> tuple[int, dict[str, str]]:
    """Status and headers (lower-case names) of an answer, given without the empty line at its end. Raises ValueError."""
    first, *lines = head.split("\r\n")
    version, _, rest = first.partition(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError("it does not speak HTTP/1.1")
    status = int(rest[:3])
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip()
        if name == "content-length" and headers.get(name, value) != value:
            raise ValueError("it has two lengths")
        headers[name] = value
    return status, headers
