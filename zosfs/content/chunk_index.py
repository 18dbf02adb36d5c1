"""The index of the chunk cache: what is known, over remounts, of what the files have.

Owns: the index (diskcache, JSON only), one record for each file, and which of them may be believed. Must not know: what of it is worth
keeping.

A record says of what key, ETag and size a file is, which spans of it are there, when it was used last (seconds since the epoch), and
in which boot of the machine it was written if it was not synced ("": it was).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diskcache

from zosfs.content.chunk_files import ChunkFiles
from zosfs.content.disk import JsonDisk
from zosfs.threads import ThreadPool

log = logging.getLogger(__name__)

FORMAT = 1

Found = tuple[str, dict[str, Any]]
"""A file's name and its record."""


def name_of(key: str, etag: str, size: int) -> str:
    """The name of the file of a version."""
    return hashlib.sha256(f"{etag}\0{size}\0{key}".encode("utf-8", "surrogateescape")).hexdigest()[:32]


class ChunkIndex:
    """The index below *directory*, of *files* beside it."""

    def __init__(self, directory: Path, files: ChunkFiles) -> None:
        """Nothing is touched before `load`."""
        self._directory = directory
        self._files = files
        self._thread = ThreadPool("index", 1)
        self._index: Any = None
        self.boot = ""
        """What this boot of the machine is called."""

    @property
    def opened(self) -> bool:
        """Whether there is something to close."""
        return self._index is not None

    async def load(self) -> list[Found]:
        """The records of an earlier run, the one used last at the end; nothing, when the index is damaged. Other files are removed.

        OSError when the directory cannot be used or belongs to somebody else.
        """
        return await self._thread.run(self._load)

    def _load(self) -> list[Found]:
        try:
            self.boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            self.boot = str(time.time())
        directory = self._directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = os.stat(directory)
        if found.st_uid != os.geteuid():
            raise PermissionError(f"{directory} belongs to somebody else")
        if stat.S_IMODE(found.st_mode) != 0o700:
            directory.chmod(0o700)
        try:
            return self._records()
        except (sqlite3.Error, diskcache.Timeout, ValueError, KeyError, TypeError) as exc:
            log.warning("the chunk cache's index is damaged (%s): starting anew", exc)
            if self._index is not None:
                with contextlib.suppress(Exception):
                    self._index.close()
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                return self._records()
            except (sqlite3.Error, diskcache.Timeout, ValueError) as again:
                raise OSError(f"{directory}: {again}") from again

    def _records(self) -> list[Found]:
        self._index = diskcache.Cache(
            str(self._directory / "index"), disk=JsonDisk, eviction_policy="none", size_limit=1 << 62, cull_limit=0
        )
        if self._index.get("format") != FORMAT:
            if len(self._index):
                raise ValueError("another format")
            self._index.set("format", FORMAT)
        records = []
        for name in list(self._index):
            if name == "format":
                continue
            record = self._index.get(name)
            if self._usable(name, record):
                records.append((name, record))
            else:
                self._index.delete(name)
        records.sort(key=lambda found: float(found[1]["used"]))
        known = {name for name, _ in records}
        for folder, _, names in os.walk(self._directory / "files"):
            for name in names:
                if name not in known:
                    os.unlink(os.path.join(folder, name))
        return records

    def _usable(self, name: str, record: dict[str, Any]) -> bool:
        if record["boot"] not in ("", self.boot):
            return False  # written, but not synced, before the machine went down
        if name_of(record["key"], record["etag"], record["size"]) != name:
            raise ValueError("a record under a wrong name")
        try:
            length = os.stat(self._files.path(name)).st_size
        except FileNotFoundError:
            return False
        return all(0 <= a < b <= min(length, record["size"]) for a, b in record["present"])

    async def save(self, changed: Sequence[Found], gone: Sequence[str], sync: Sequence[int]) -> None:
        """Write the *changed* records down, and that those of the names *gone* are no more, once the descriptors *sync* are synced."""
        await self._thread.run(self._save, changed, gone, sync)

    def _save(self, changed: Sequence[Found], gone: Sequence[str], sync: Sequence[int]) -> None:
        for fd in sync:
            os.fdatasync(fd)
        with self._index.transact():
            for name in gone:
                self._index.delete(name)
            for name, record in changed:
                self._index.set(name, record)

    async def close(self) -> None:
        """Close what `load` opened."""
        await self._thread.run(self._index.close)

    def end(self) -> None:
        """Nothing is asked of it any more."""
        self._index = None
        self._thread.close()
