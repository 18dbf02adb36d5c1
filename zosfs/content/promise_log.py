"""What was answered and is not in the store yet, and costs a line of the local disk: unlinks, changed attributes.

Owns: one file of lines for one kind of promise, at most one promise a key. It is appended to, emptied when nothing is left, and written
anew when most of it is of no use any more. A line reaches the kernel before the promise is answered, so that the death of the daemon loses
none; what is to survive a power cut, too, waits for `syncing`. What is done is written over its line, which a full disk has room for: a
promise that outlived what it speaks of might be kept on what came after that. Must not know: the store.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Awaitable, Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Generic, TypeVar

from zosfs.content.staging import sync_directory
from zosfs.locks import Lock

Promise = TypeVar("Promise")

REMOVALS, HEADERS = "removals", "headers"
"""What the logs are called that lie beside the journal."""

REWRITTEN = 1 << 20
"""Bytes from which on a log is written anew when those of the promises that still hold are less than half of it."""

UNSYNCED = 10_000
"""Promises done since the disk was last told so of which it is known which they are; beyond, any may be one."""


class PromiseLog(Generic[Promise]):
    """The file *path*, `open` first. *of* makes a promise of its key and its facts; ValueError or TypeError where they are none."""

    def __init__(self, path: Path, of: Callable[..., Promise]) -> None:
        self._path = path
        self._of = of
        self._fd = -1
        self._open: dict[str, tuple[int, bytes]] = {}  # the line of each promise that the file has, and where it begins
        self._over: set[str] = set()  # those of them that hold no more, though the disk refused to be told so
        self._length = self._needed = 0  # bytes of the file, and of those lines
        self._unsynced: dict[str, int] = {}  # promises that hold no more, of which a power cut might bring the lines back: the how manieth
        self._written_off = 0  # so many were
        self._synced = self._unnamed = 0  # of which the first so many are on the disk, and the last one that `_unsynced` has no more
        self._settling = Lock()

    def look(self) -> list[Promise]:
        """What the file promises, be it in use: it is not opened."""
        with contextlib.suppress(FileNotFoundError):
            return list(self._read(self._path.read_bytes()).values())
        return []

    def open(self) -> list[Promise]:
        """Open or make the file; what an earlier run promised and did not finish, which holds on. A torn last line was never answered."""
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        sync_directory(self._path.parent)  # what is brought to the disk of a file without a name is not found there
        content = self._path.read_bytes()
        self._length = content.rfind(b"\n") + 1
        if self._length < len(content):
            os.ftruncate(self._fd, self._length)  # or what is promised next would be a part of the torn line
        left = self._read(content)
        self._needed = sum(len(line) for _, line in self._open.values())
        return list(left.values())

    def _read(self, content: bytes) -> dict[str, Promise]:
        left: dict[str, Promise] = {}
        *lines, _ = content.split(b"\n")
        at = 0
        for line in lines:
            with contextlib.suppress(ValueError, TypeError):
                key, *facts = json.loads(line)
                left.pop(key, None)
                self._open.pop(key, None)
                if facts:
                    left[key] = self._of(key, *facts)
                    self._open[key] = at, line + b"\n"
            at += len(line) + 1
        return left

    def clear(self) -> None:
        """Nothing is owed any more."""
        os.ftruncate(self._fd, 0)
        self._have_written_off(*self._open)
        self._over.clear()
        self._length = self._needed = 0

    def add(self, key: str, facts: Sequence[Any]) -> None:
        """Promise what *facts* (JSON's values, at least one) say of *key*, in the place of what was promised of it. OSError when the disk
        is full: what was promised before holds then."""
        line, at = _line(key, *facts), self._length
        if os.pwrite(self._fd, line, at) != len(line):
            os.ftruncate(self._fd, at)  # which needs no room
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._length += len(line)
        _, before = self._open.pop(key, (0, b""))
        self._needed += len(line) - len(before)
        self._open[key] = at, line
        self._over.discard(key)
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

    async def settle(self, key: str, in_thread: Callable[[Callable[[], None]], Awaitable[None]]) -> None:
        """Return once the disk knows that what was promised of *key*, and is done, holds no more; *in_thread* runs what blocks.
        OSError where that cannot be."""
        if not (self._may_come_back(key) or key in self._over):
            return
        async with self._settling:
            if key in self._over:
                self._write_off(key)
            if self._may_come_back(key):
                written_off = self._written_off
                await in_thread(self.syncing())
                self._are_synced(written_off)

    def done(self, key: str) -> None:
        """It was made or refused. Never raises: where the disk refuses to be told so, `settle` or the next run comes back to it."""
        if key in self._open:
            self._over.add(key)
            with contextlib.suppress(OSError):
                self._write_off(key)

    def _write_off(self, key: str) -> None:
        if len(self._over) == len(self._open):
            self.clear()
            return
        at, line = self._open[key]
        # not blanks: an earlier promise of the key, which this one took the place of, may stand before it
        if os.pwrite(self._fd, _line(key)[:-1].ljust(len(line) - 1) + b"\n", at) != len(line):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._over.remove(key)
        self._needed -= len(line)
        self._have_written_off(key)

    def _have_written_off(self, *keys: str) -> None:
        for key in keys:
            del self._open[key]
            self._written_off += 1
            self._unsynced[key] = self._written_off
        if len(self._unsynced) > UNSYNCED:
            self._unsynced.clear()
            self._unnamed = self._written_off

    def _may_come_back(self, key: str) -> bool:
        """Whether a power cut might bring back a line about *key* that holds no more."""
        return key in self._unsynced or self._unnamed > self._synced

    def _are_synced(self, written_off: int) -> None:
        self._synced = max(self._synced, written_off)
        self._unsynced = {key: number for key, number in self._unsynced.items() if number > written_off}

    def _rewrite(self) -> None:
        path = self._path.with_name(self._path.name + ".new")
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            lines = {key: line for key, (_, line) in self._open.items() if key not in self._over}
            whole = b"".join(lines.values())
            if os.write(fd, whole) != len(whole):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fdatasync(fd)
            path.replace(self._path)
        except BaseException:
            os.close(fd)
            raise
        os.close(self._fd)
        self._fd, self._length, self._needed = fd, len(whole), len(whole)
        begins = accumulate(map(len, lines.values()), initial=0)
        self._open = {key: (at, line) for at, (key, line) in zip(begins, lines.items(), strict=False)}
        self._over.clear()
        sync_directory(self._path.parent)
        self._are_synced(self._written_off)

    def close(self) -> None:
        """What is not done stays for the next run."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _line(key: str, *facts: Any) -> bytes:
    return json.dumps([key, *facts]).encode() + b"\n"
