"""The journal: what was promised and is not in the store yet, safe from crashes and power cuts.

Owns: ``journal/journal.sqlite`` in the cache directory (WAL, synchronous=FULL) and the lock that keeps a second mount out. A record
is written after the staged bytes it speaks of were fsynced, and removed after the store has them. Records carry a format
version and a checksum. Must not know: the store, names, tasks; its methods block and are run in a thread.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import sqlite3
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from zosfs.content.staging import private_directory
from zosfs.store.api import ObjectHeaders, ObjectInfo

FORMAT = 1

PROMISED, FAILED, CONFLICT = "promised", "failed", "conflict"

SCHEMA = """
CREATE TABLE IF NOT EXISTS record (
    id TEXT PRIMARY KEY,      -- name of the staged file, too
    key TEXT NOT NULL,
    state TEXT NOT NULL,      -- promised | failed | conflict
    cause TEXT NOT NULL,      -- why it is not in the store, for people
    changed REAL NOT NULL,    -- seconds since the epoch
    body TEXT NOT NULL,       -- JSON of the rest of Record
    checksum TEXT NOT NULL    -- SHA-256 of key, a newline and body
)
"""


@dataclass(slots=True)
class Record:
    """One undelivered file. *base* is what it changes (None: new), *dirty* the ranges of the staged file that are newer."""

    id: str
    key: str
    size: int
    kept: int
    dirty: list[list[int]]
    base: ObjectInfo | None
    headers: ObjectHeaders
    appending: bool = False
    state: str = PROMISED
    cause: str = ""
    changed: float = field(default_factory=time.time)

    def body(self) -> str:
        """The part of the record that is stored as JSON."""
        return json.dumps(
            {
                "size": self.size, "kept": self.kept, "dirty": self.dirty, "appending": self.appending,
                "base": asdict(self.base) if self.base else None, "headers": asdict(self.headers),
            },
            default=dict,
        )  # fmt: skip


def _checksum(key: str, body: str) -> str:
    return hashlib.sha256(f"{key}\n{body}".encode("utf-8", "surrogateescape")).hexdigest()


class Journal:
    """The records of one bucket on this host."""

    def __init__(self, directory: Path) -> None:
        self.directory = private_directory(directory)
        self._lock = -1
        self._db: sqlite3.Connection | None = None

    def open(self) -> None:
        """Take the lock and open the database. OSError(EBUSY) when another mount holds it, EINVAL for a newer format."""
        self._lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise OSError(
                errno.EBUSY,
                f"the journal {self.directory} is in use by another mount: give this one its own with -o cache_dir=DIR",
            ) from None
        db = sqlite3.connect(self.directory / "journal.sqlite", isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > FORMAT:
            raise OSError(errno.EINVAL, f"the journal {self.directory} was written by a newer zosfs (format {version})")
        db.execute(SCHEMA)
        db.execute(f"PRAGMA user_version={FORMAT}")
        self._db = db

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            raise OSError(errno.EBADF, "the journal is closed")
        return self._db

    def put(self, record: Record) -> None:
        """The record is on the disk when this returns."""
        body = record.body()
        self._open().execute(
            "INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?, ?, ?, ?)",
            (record.id, record.key, record.state, record.cause, record.changed, body, _checksum(record.key, body)),
        )

    def remove(self, record_id: str) -> None:
        """Forget a record: the store has the file, or nobody wants it."""
        self._open().execute("DELETE FROM record WHERE id = ?", (record_id,))

    def all(self) -> list[Record]:
        """Every record, oldest first. Damaged ones are skipped and reported as records in state conflict without a base."""
        found = []
        rows = self._open().execute("SELECT id, key, state, cause, changed, body, checksum FROM record ORDER BY changed")
        for record_id, key, state, cause, changed, body, checksum in rows:
            if _checksum(key, body) != checksum:
                found.append(Record(record_id, key, 0, 0, [], None, ObjectHeaders(), state=CONFLICT, cause="damaged record"))
                continue
            rest: dict[str, Any] = json.loads(body)
            found.append(
                Record(
                    record_id, key, rest["size"], rest["kept"], rest["dirty"],
                    ObjectInfo(**rest["base"]) if rest["base"] else None, ObjectHeaders(**rest["headers"]),
                    rest["appending"], state, cause, changed,
                )
            )  # fmt: skip
        return found

    def close(self) -> None:
        """Close the database and give the lock back."""
        if self._db is not None:
            self._db.close()
            self._db = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
