"""Unlinks that were answered and are not in the store yet, on local disk.

Owns: one file of lines, appended to and never rewritten but when nothing is left. A line reaches the kernel before the unlink is
answered, so that the death of the daemon loses none; it is not forced to the disk, as no file system does for an unlink
without fsync of the directory. Must not know: the store.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path

from zosfs.content.journal_rows import Deletion


class RemovalLog:
    """The file *path*; `open` first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._open: set[str] = set()

    def open(self) -> list[Deletion]:
        """Open or make the file; what an earlier run promised and did not finish. A torn last line was never answered."""
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        left: dict[str, Deletion] = {}
        for line in self._path.read_bytes().split(b"\n"):
            with contextlib.suppress(ValueError, TypeError):
                key, *facts = json.loads(line)
                left.pop(key, None)
                if facts:
                    left[key] = Deletion(key, *facts)
        return list(left.values())

    def clear(self) -> None:
        """Nothing of an earlier run is owed any more."""
        os.ftruncate(self._fd, 0)

    def add(self, deletion: Deletion) -> None:
        """Promise a deletion. OSError when the disk is full."""
        self._write([deletion.key, deletion.etag, deletion.modified_ns])
        self._open.add(deletion.key)

    def done(self, key: str) -> None:
        """It was made or refused. Never raises: at worst the next run looks for the object once more."""
        self._open.discard(key)
        with contextlib.suppress(OSError):
            if self._open:
                self._write([key])
            else:
                os.ftruncate(self._fd, 0)

    def _write(self, facts: list[str | int]) -> None:
        line = json.dumps(facts).encode() + b"\n"
        written = os.write(self._fd, line)
        if written != len(line):
            os.write(self._fd, b"\n")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """What is not done stays for the next run."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
