"""What was answered and is not in the store yet, and costs a line of the local disk: unlinks, changed attributes.

Owns: one file of lines for one kind of promise, at most one promise a key. It is appended to, emptied when nothing is left, and written
anew when most of it is of no use any more. A line reaches the kernel before the promise is answered, so that the death of the daemon loses
none; what is to survive a power cut, too, waits for `syncing`. Must not know: the store.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

Promise = TypeVar("Promise")

REMOVALS, HEADERS = "removals", "headers"
"""What the logs are called that lie beside the journal."""

REWRITTEN = 1 << 20
"""Bytes from which on a log is written anew when those of the promises that still hold are less than half of it."""


class PromiseLog(Generic[Promise]):
    """The file *path*, `open` first. *of* makes a promise of its key and its facts; ValueError or TypeError where they are none."""

    def __init__(self, path: Path, of: Callable[..., Promise]) -> None:
        self._path = path
        self._of = of
        self._fd = -1
        self._open: dict[str, bytes] = {}  # the line of each promise that holds
        self._length = self._needed = 0  # bytes of the file, and of those lines

    def look(self) -> list[Promise]:
        """What the file promises, be it in use: it is not opened."""
        with contextlib.suppress(FileNotFoundError):
            return list(self._read(self._path.read_bytes()).values())
        return []

    def open(self) -> list[Promise]:
        """Open or make the file; what an earlier run promised and did not finish, which holds on. A torn last line was never answered."""
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        content = self._path.read_bytes()
        self._length = content.rfind(b"\n") + 1
        if self._length < len(content):
            os.ftruncate(self._fd, self._length)  # or what is promised next would be a part of the torn line
        left = self._read(content)
        self._needed = sum(map(len, self._open.values()))
        return list(left.values())

    def _read(self, content: bytes) -> dict[str, Promise]:
        left: dict[str, Promise] = {}
        *lines, _ = content.split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError, TypeError):
                key, *facts = json.loads(line)
                left.pop(key, None)
                self._open.pop(key, None)
                if facts:
                    left[key] = self._of(key, *facts)
                    self._open[key] = line + b"\n"
        return left

    def clear(self) -> None:
        """Nothing is owed any more."""
        os.ftruncate(self._fd, 0)
        self._open.clear()
        self._length = self._needed = 0

    def add(self, key: str, facts: Sequence[Any]) -> None:
        """Promise what *facts* (JSON's values, at least one) say of *key*, in the place of what was promised of it. OSError when the disk
        is full: what was promised before holds then."""
        line = _line(key, *facts)
        self._write(line)
        self._needed += len(line) - len(self._open.pop(key, b""))
        self._open[key] = line
        if self._length > max(REWRITTEN, 2 * self._needed):
            with contextlib.suppress(OSError):
                self._rewrite()

    def syncing(self) -> Callable[[], None]:
        """What brings all that is promised by now to the disk, for a thread to call. OSError where that fails."""
        fd = os.dup(self._fd)

        def sync() -> None:
            try:
                os.fdatasync(fd)
            finally:
                os.close(fd)

        return sync

    def done(self, key: str) -> None:
        """It was made or refused. Never raises: at worst the next run looks at the object once more."""
        self._needed -= len(self._open.pop(key, b""))
        with contextlib.suppress(OSError):
            if self._open:
                self._write(_line(key))
            else:
                self.clear()

    def _write(self, line: bytes) -> None:
        if os.write(self._fd, line) != len(line):
            os.ftruncate(self._fd, self._length)  # which needs no room
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._length += len(line)

    def _rewrite(self) -> None:
        path = self._path.with_name(self._path.name + ".new")
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            whole = b"".join(self._open.values())
            if os.write(fd, whole) != len(whole):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fdatasync(fd)
            path.replace(self._path)
        except BaseException:
            os.close(fd)
            raise
        os.close(self._fd)
        self._fd, self._length = fd, len(whole)

    def close(self) -> None:
        """What is not done stays for the next run."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _line(key: str, *facts: Any) -> bytes:
    return json.dumps([key, *facts]).encode() + b"\n"
