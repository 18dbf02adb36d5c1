"""The journal's log: changes appended to a file that is written over and over, each frame of them whole or absent.

Owns: the file's bytes and their form. A frame lies at a multiple of `BLOCK` bytes, so that writing the next one never touches a block
that holds a promise. Its sum is made with the log's salt, a secret number that changes whenever the log begins anew: what is
left of frames from before, and bytes of a user's file that look like a frame, are none. Must not know: what the changes mean.

A frame: magic, length of the payload, number of the frame since the log began (from 0), SHA-256 of the salt, these three and the
payload; then the payload, and zeros up to the next block.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from zosfs.content.direct import DirectWrites
from zosfs.content.staging import sync_directory

BLOCK = 4096
"""Bytes that a disk writes at once, or at least without harm to those beside them."""
GROW = 4 << 20
"""The file grows by up to so many zeros at a time: writing over what is there costs no metadata, which is half of an fdatasync."""
MAGIC = b"zosF"

_FACTS = struct.Struct("<4sIQ")
_HEAD = _FACTS.size + 32
_ZEROS = bytes(BLOCK)


def _sum(salt: bytes, facts: bytes, payload: bytes) -> bytes:
    digest = hashlib.sha256(salt + facts)
    digest.update(payload)
    return digest.digest()


def frame(salt: bytes, number: int, payload: bytes) -> bytes:
    """The bytes of a frame, a multiple of `BLOCK`."""
    facts = _FACTS.pack(MAGIC, len(payload), number)
    return b"".join((facts, _sum(salt, facts, payload), payload, _ZEROS[: -(_HEAD + len(payload)) % BLOCK]))


@dataclass(frozen=True, slots=True)
class Found:
    """What a log has: the *payloads* in their order, the *end* of the last one in the file, and how many before it are *damaged*."""

    payloads: list[bytes]
    end: int
    next_number: int
    damaged: int


def frames(salt: bytes, data: bytes) -> Found:
    """The frames of *salt* in the bytes of a log (pure).

    What is torn at the end was never answered. One that is damaged before others was; the others are good all the same.
    """
    payloads: list[bytes] = []
    at = end = expected = 0
    while at + _HEAD <= len(data):
        facts = data[at : at + _FACTS.size]
        magic, length, number = _FACTS.unpack(facts)
        start = at + _HEAD
        if magic == MAGIC and number >= expected and start + length <= len(data):
            payload = data[start : start + length]
            if data[at + _FACTS.size : start] == _sum(salt, facts, payload):
                payloads.append(payload)
                expected = number + 1
                at = end = start + length + (-(start + length) % BLOCK)
                continue
        at += BLOCK
    return Found(payloads, end, expected, expected - len(payloads))


class RedoLog:
    """The file *path*; its methods are called one after the other, and block but for `begin` and `finish`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._size = 0
        self._salt = b""
        self._number = 0
        self._direct: DirectWrites | None = None
        self._begun = 0  # where the frame ends that is on its way to the disk
        self.end = 0
        """Where the next frame goes: bytes that are in use."""

    def open(self, salt: bytes) -> None:
        """Open or make the file; `append` goes on behind what it has of *salt*."""
        new = not self._path.exists()
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DSYNC, 0o600)
        if new:
            for directory in (self._path.parent, *self._path.parent.parents[:2]):
                sync_directory(directory)  # a promise is worth no more than the way to it
        found = self.read(salt)
        self._size = os.fstat(self._fd).st_size
        self._salt, self._number, self.end = salt, found.next_number, found.end
        with contextlib.suppress(OSError):
            self._direct = DirectWrites(self._path)

    def read(self, salt: bytes) -> Found:
        """What the file has of *salt*; it need not be open."""
        try:
            return frames(salt, self._path.read_bytes())
        except FileNotFoundError:
            return frames(salt, b"")

    def gathered(self) -> Found:
        """What was appended, or found, since the log began."""
        found = self.read(self._salt)
        return dataclasses.replace(found, damaged=self._number - len(found.payloads))

    def append(self, payload: bytes) -> None:
        """Add a frame; it is on the disk when this returns. OSError when the disk refuses: then it counts as not written."""
        made = frame(self._salt, self._number, payload)
        end = self.end + len(made)
        if end > self._size:
            self._grow(end)
        at = self.end
        while at < end:
            written = os.pwrite(self._fd, made[at - self.end :], at)
            if written <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            at += written
        self._size = max(self._size, end)
        self.end = end
        self._number += 1

    def reserve(self, length: int) -> None:
        """Have room for a frame of *length* bytes of payload. OSError(ENOSPC) where the disk has none."""
        end = self.end + _HEAD + length + BLOCK
        if end > self._size:
            self._grow(end)
        if end > self._size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def begin(self, payload: bytes) -> int:
        """As `append`, without waiting: the descriptor that becomes readable when it is time to `finish`. -1, and nothing happened, where
        only `append` can do it."""
        direct = self._direct
        if direct is None or self.end + _HEAD + len(payload) + BLOCK > self._size:
            return -1
        made = frame(self._salt, self._number, payload)
        self._begun = self.end + len(made)
        return direct.ended if direct.begin(made, self.end) else -1

    def finish(self) -> bool:
        """The frame is on the disk; False where it counts as not written, and `append` is to try again and to tell why."""
        assert self._direct is not None
        if not self._direct.finish():
            return False
        self.end = self._begun
        self._number += 1
        return True

    def _grow(self, end: int) -> None:
        with contextlib.suppress(OSError):  # the frame may fit all the same
            os.pwrite(self._fd, bytes(max(min(GROW, max(GROW // 4, self._size)), end - self._size)), self._size)
        self._size = os.fstat(self._fd).st_size

    def restart(self, salt: bytes) -> None:
        """Begin anew with *salt*: all that was written is kept elsewhere now."""
        self._salt, self._number, self.end = salt, 0, 0

    def close(self) -> None:
        """Close the file; it stays as it is."""
        if self._direct is not None:
            self._direct.close()
            self._direct = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
