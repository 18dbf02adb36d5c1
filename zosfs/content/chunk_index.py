"""The index of the chunk cache: what is known, over remounts, of what the files have.

Owns: the index (diskcache, JSON only), one record for each version, and which of them may be believed. Must not know: what of it is
worth keeping.

A record says of what key, ETag and size a version is, in which file and from which offset on it lies, which spans of it are there, when
it was used last (seconds since the epoch), and in which boot of the machine it was written if it was not synced ("": it was).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import shutil
import sqlite3
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diskcache

from zosfs.content.chunk_files import SECTOR, ChunkFiles, has_data, is_there, punch
from zosfs.content.chunk_packs import PACK, PREFIX, gaps, room
from zosfs.content.disk import JsonDisk
from zosfs.threads import ThreadPool

log = logging.getLogger(__name__)

FORMAT = 2

FILE = re.compile(PREFIX + "[0-9a-f]{28}|[0-9a-f]{32}")
"""What files are called."""

Found = tuple[str, dict[str, Any]]
"""A version's name and its record."""


def name_of(key: str, etag: str, size: int) -> str:
    """The name of the record of a version."""
    return hashlib.sha256(f"{etag}\0{size}\0{key}".encode("utf-8", "surrogateescape")).hexdigest()[:32]


def places(found: Sequence[Found]) -> list[tuple[int, int]]:
    """Where in their file the versions lie."""
    return [(record["base"], record["base"] + room(record["size"])) for _, record in found]


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
        """The records of an earlier run, the one used last at the end; nothing, when the index is damaged. Other files are removed, and
        the disk takes back what of packs no record knows.

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
        files: dict[str, list[Found]] = {}
        for name in list(self._index):
            if name != "format":
                record = self._index.get(name)
                self._check(name, record)
                files.setdefault(record["file"], []).append((name, record))
        records = []
        for file, claims in files.items():
            good = self._usable(file, claims)
            records += good
            for name in {name for name, _ in claims} - {name for name, _ in good}:
                self._index.delete(name)
        records.sort(key=lambda found: float(found[1]["used"]))
        known = {record["file"] for _, record in records}
        for folder, _, names in os.walk(self._files.directory):
            for name in names:
                if name not in known:
                    os.unlink(os.path.join(folder, name))
        return records

    def _check(self, name: str, record: dict[str, Any]) -> None:
        """ValueError when the record *name* cannot be one of ours."""
        size, base = record["size"], record["base"]
        if name_of(record["key"], record["etag"], size) != name:
            raise ValueError("a record under a wrong name")
        if not FILE.fullmatch(record["file"]):
            raise ValueError("not a file of the cache")
        if base and not record["file"].startswith(PREFIX):
            raise ValueError("a file that is not shared")
        if base < 0 or base % SECTOR or (base and base + room(size) > PACK):
            raise ValueError("no place in a pack")

    def _usable(self, file: str, claims: list[Found]) -> list[Found]:
        """Those of the records *claims* that their *file* bears out. Of a pack, the disk takes back what is not theirs."""
        gaps(places(claims), 0)
        try:
            fd = os.open(self._files.path(file), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return []
        try:
            good = [(name, record) for name, record in claims if self._is_borne_out(fd, record)]
            if good and file.startswith(PREFIX):
                unknown = [gap for gap in gaps(places(good), room(os.fstat(fd).st_size)) if has_data(fd, *gap)]
                if not punch(fd, unknown):
                    return []  # better nothing than more than may be
            return good
        finally:
            os.close(fd)

    def _is_borne_out(self, fd: int, record: dict[str, Any]) -> bool:
        if record["boot"] not in ("", self.boot):
            return False  # written, but not synced, before the machine went down
        base = record["base"]
        return all(0 <= a < b <= record["size"] and is_there(fd, base + a, base + b) for a, b in record["present"])

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
