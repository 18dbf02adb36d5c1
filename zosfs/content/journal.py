"""The journal: what was promised and is not in the store yet, safe from crashes and power cuts.

Owns: ``journal.db`` in its directory (SQLite, WAL, synchronous=FULL) and the lock that keeps a second mount out. Four tables:
records (undelivered files), uploads (multipart uploads under way, to be continued or aborted by the next run), deletions
(objects that were unlinked while open), moves (directories being renamed). A record is written after the staged bytes it speaks of
were fsynced, or with the bytes inside it where they are few; it is removed after the store has them. Records carry a checksum, the
file a format version. Must not know: the store's requests, names, tasks; its methods block and are run in one thread.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from zosfs.content.delivery import UploadRecord
from zosfs.content.staging import private_directory
from zosfs.store.api import ObjectHeaders, ObjectInfo

FORMAT = 1

PROMISED, FAILED, PARKED, CONFLICT = "promised", "failed", "parked", "conflict"
"""States of a record: to be delivered; to be tried again; refused for good; somebody else changed the object."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS record (
    id TEXT PRIMARY KEY,
    key BLOB NOT NULL,        -- UTF-8
    state TEXT NOT NULL,      -- promised | failed | parked | conflict
    cause TEXT NOT NULL,      -- why it is not in the store, for people
    changed REAL NOT NULL,    -- seconds since the epoch
    body TEXT NOT NULL,       -- JSON of the rest of Record
    image BLOB,               -- all bytes of a small file
    checksum TEXT NOT NULL    -- SHA-256 of key, body and image, each with its length in front
);
CREATE TABLE IF NOT EXISTS upload (
    id TEXT PRIMARY KEY,
    key BLOB NOT NULL,
    record TEXT NOT NULL,     -- id of the record that it delivers, or ''
    body TEXT NOT NULL        -- JSON of UploadRecord
);
CREATE TABLE IF NOT EXISTS deletion (
    key BLOB PRIMARY KEY,
    etag TEXT NOT NULL,
    modified INTEGER NOT NULL -- ns since the epoch
);
CREATE TABLE IF NOT EXISTS move (
    old BLOB PRIMARY KEY,
    new BLOB NOT NULL,
    began REAL NOT NULL,      -- seconds since the epoch
    back INTEGER NOT NULL     -- whether it is being taken back
);
"""

DATABASE = "journal.db"

Statement = tuple[str, tuple[Any, ...]]
"""One change of the journal: SQL and its values."""


@dataclass(slots=True)
class Record:
    """One undelivered file of *size* bytes.

    *base* is the object that it changes (None: a new one), of which the bytes below *kept* still count where they are not
    *dirty*. The dirty bytes are those of the staged file *file*, or of *image*. *suspects* are ETags that an earlier try of ours may
    have left in the store although no answer came; *expected* is the one that the try under way will leave.
    """

    id: str
    key: str
    size: int
    kept: int
    dirty: list[list[int]]
    base: ObjectInfo | None
    headers: ObjectHeaders
    appending: bool = False
    file: str = ""
    image: bytes | None = None
    suspects: list[str] = field(default_factory=list)
    expected: str = ""
    state: str = PROMISED
    cause: str = ""
    changed: float = field(default_factory=time.time)
    upload: UploadRecord | None = None  # kept in its own table

    def body(self) -> str:
        """The part of the record that is stored as JSON."""
        return json.dumps(
            {
                "size": self.size, "kept": self.kept, "dirty": self.dirty, "appending": self.appending, "file": self.file,
                "suspects": self.suspects, "expected": self.expected,
                "base": asdict(self.base) if self.base else None, "headers": asdict(self.headers),
            },
            default=dict,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Upload:
    """A multipart upload that an earlier run began: aborted, unless it belongs to the record *record*."""

    key: str
    record: str
    upload: UploadRecord


@dataclass(frozen=True, slots=True)
class Deletion:
    """An object that was unlinked and is to go, unless it was replaced since: its ETag, and about when it was modified."""

    key: str
    etag: str
    modified_ns: int

    def still(self, found: ObjectInfo | None) -> bool:
        """Whether *found* is that object. Another with the same bytes is not, so the time counts, too (seconds, as servers tell it)."""
        return found is not None and found.etag == self.etag and abs(found.modified_ns - self.modified_ns) <= 2 * 10**9


@dataclass(frozen=True, slots=True)
class Move:
    """All objects below prefix *old* are on their way to *new*, since *began* (seconds since the epoch); *back*: some could not go."""

    old: str
    new: str
    began: float
    back: bool = False


def _bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def _text(key: bytes) -> str:
    return bytes(key).decode("utf-8", "surrogateescape")


def _checksum(key: bytes, body: str, image: bytes | None) -> str:
    digest = hashlib.sha256()
    for piece in (key, body.encode(), image or b""):
        digest.update(len(piece).to_bytes(8, "big"))
        digest.update(piece)
    return digest.hexdigest()


def put_record(record: Record) -> Statement:
    """Write *record*, in the place of the one with the same id."""
    key, body = _bytes(record.key), record.body()
    return (
        "INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (record.id, key, record.state, record.cause, record.changed, body, record.image, _checksum(key, body, record.image)),
    )


def remove_record(record_id: str) -> Statement:
    """Forget a record: the store has the file, or nobody wants it."""
    return "DELETE FROM record WHERE id = ?", (record_id,)


def put_upload(upload: Upload) -> Statement:
    """Note an upload, or how far it is."""
    return (
        "INSERT OR REPLACE INTO upload VALUES (?, ?, ?, ?)",
        (upload.upload.upload_id, _bytes(upload.key), upload.record, json.dumps(upload.upload.to_json())),
    )


def remove_upload(upload_id: str) -> Statement:
    """Forget an upload: it was completed or aborted."""
    return "DELETE FROM upload WHERE id = ?", (upload_id,)


def put_deletion(deletion: Deletion) -> Statement:
    """Note that an object is to be deleted."""
    return "INSERT OR REPLACE INTO deletion VALUES (?, ?, ?)", (_bytes(deletion.key), deletion.etag, deletion.modified_ns)


def remove_deletion(key: str) -> Statement:
    """Forget a deletion: it was done, or the object is not the one any more."""
    return "DELETE FROM deletion WHERE key = ?", (_bytes(key),)


def put_move(move: Move) -> Statement:
    """Note that a move begins, or turns back."""
    return "INSERT OR REPLACE INTO move VALUES (?, ?, ?, ?)", (_bytes(move.old), _bytes(move.new), move.began, int(move.back))


def remove_move(old: str) -> Statement:
    """Forget a move: it is at its end."""
    return "DELETE FROM move WHERE old = ?", (_bytes(old),)


class Journal:
    """What is undelivered of one bucket on this host."""

    def __init__(self, directory: Path) -> None:
        self.directory = private_directory(directory)
        self._lock = -1
        self._db: sqlite3.Connection | None = None

    def open(self) -> None:
        """Take the lock and open the database. OSError(EBUSY) when another mount holds it, EINVAL when it cannot be read."""
        self._lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OSError(
                    errno.EBUSY,
                    f"the journal {self.directory} is in use by another mount: give this one its own with -o cache_dir=DIR",
                ) from None
            self._open_database()
        except sqlite3.Error as exc:
            self.close()
            raise OSError(errno.EINVAL, f"the journal {self.directory} cannot be read ({exc}); move it away to go on") from exc
        except BaseException:
            self.close()
            raise

    def look(self) -> None:
        """Open for reading only, without the lock: also while a mount uses the journal. OSError(EINVAL) when it cannot be read."""
        try:
            self._db = sqlite3.connect(f"file:{self.directory / DATABASE}?mode=ro", uri=True, isolation_level=None)
        except sqlite3.Error as exc:
            raise OSError(errno.EINVAL, f"the journal {self.directory} cannot be read ({exc})") from exc

    def _open_database(self) -> None:
        path = self.directory / DATABASE
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        db = self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > FORMAT:
            raise OSError(errno.EINVAL, f"the journal {self.directory} was written by a newer zosfs (format {version})")
        db.executescript(SCHEMA)
        db.execute(f"PRAGMA user_version={FORMAT}")

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            raise OSError(errno.EBADF, "the journal is closed")
        return self._db

    def apply(self, statements: Iterable[Statement]) -> None:
        """Make all these changes, or none; they are on the disk when this returns. OSError(EIO) when the disk refuses."""
        db = self._opened()
        try:
            db.execute("BEGIN IMMEDIATE")
            try:
                for sql, values in statements:
                    db.execute(sql, values)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        except sqlite3.Error as exc:
            full = "full" in str(exc)
            raise OSError(errno.ENOSPC if full else errno.EIO, f"the journal cannot be written: {exc}") from exc

    def records(self) -> list[Record]:
        """Every record, oldest first, with its upload. Damaged ones come as conflicts without bytes, so that somebody sees them."""
        uploads = {upload.record: upload.upload for upload in self.uploads() if upload.record}
        rows = self._opened().execute("SELECT id, key, state, cause, changed, body, image, checksum FROM record ORDER BY changed")
        found = []
        for record_id, key, state, cause, changed, body, image, checksum in rows:
            try:
                if _checksum(key, body, image) != checksum:
                    raise ValueError("checksum")
                record = _parse(record_id, _text(key), body)
            except (ValueError, KeyError, TypeError):
                found.append(
                    Record(record_id, _text(key), 0, 0, [], None, ObjectHeaders(), file=record_id, state=CONFLICT, cause="damaged record")
                )
                continue
            record.image, record.state, record.cause, record.changed = image, state, cause, changed
            record.upload = uploads.get(record_id)
            found.append(record)
        return found

    def uploads(self) -> list[Upload]:
        """The uploads that were under way."""
        rows = self._opened().execute("SELECT key, record, body FROM upload")
        return [Upload(_text(key), record, UploadRecord.from_json(json.loads(body))) for key, record, body in rows]

    def deletions(self) -> list[Deletion]:
        """The objects that are to be deleted."""
        rows = self._opened().execute("SELECT key, etag, modified FROM deletion")
        return [Deletion(_text(key), etag, modified) for key, etag, modified in rows]

    def moves(self) -> list[Move]:
        """The moves that were under way, in the order in which they began."""
        rows = self._opened().execute("SELECT old, new, began, back FROM move ORDER BY began")
        return [Move(_text(old), _text(new), began, bool(back)) for old, new, began, back in rows]

    def close(self) -> None:
        """Close the database and give the lock back."""
        if self._db is not None:
            self._db.close()
            self._db = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _parse(record_id: str, key: str, body: str) -> Record:
    rest: dict[str, Any] = json.loads(body)
    return Record(
        record_id, key, rest["size"], rest["kept"], rest["dirty"],
        ObjectInfo(**rest["base"]) if rest["base"] else None, ObjectHeaders(**rest["headers"]),
        rest["appending"], rest["file"], suspects=rest["suspects"], expected=rest["expected"],
    )  # fmt: skip
