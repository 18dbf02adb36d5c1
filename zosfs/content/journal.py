"""The journal: what was promised and is not in the store yet, safe from crashes and power cuts.

Owns: ``journal.db`` in its directory (SQLite, WAL, synchronous=FULL), ``journal.log`` beside it, and the lock that keeps a second mount
out. Four tables: records (undelivered files), uploads (multipart uploads under way, to be continued or aborted by the next run), deletions
(objects that were unlinked while open), moves (directories being renamed). A record is written after the staged bytes it speaks of
were fsynced, or with the bytes inside it where they are few; it is removed after the store has them. Records carry a checksum, the
database a format version. Must not know: the store's requests, names, tasks. Its methods block, but for `begin` and `finish`, and are
called one after the other.

A change is promised by one frame of the log: one write to the disk, where a transaction of SQLite is ten calls. What the log has
gathered goes into the database when it is long, and when the journal is opened or closed; most of it is delivered and
forgotten by then. Every change says what a row is, or that it is gone: made twice it is the same as once.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import sqlite3
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from zosfs.content.multipart import UploadRecord
from zosfs.content.redo_log import RedoLog
from zosfs.content.staging import private_directory
from zosfs.store.api import ObjectHeaders, ObjectInfo

log = logging.getLogger(__name__)

FORMAT = 2
"""1 had no log."""

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
CREATE TABLE IF NOT EXISTS log (
    salt BLOB NOT NULL        -- the frames of journal.log that are not in the tables yet were made with it
);
"""

DATABASE, LOG = "journal.db", "journal.log"

LOG_MOST = 32 << 20
"""Bytes of the log from which on its changes go into the database."""
LOOKS = 100
"""How often who looks at a journal in use begins again because the log did."""

TABLES = ("record", "upload", "deletion", "move")
"""In the order of their numbers in the log. The first column of each is its primary key."""

Statement = bytes
"""One change of the journal, as it lies in the log: a row of a table as it is from now on, or the key of one that is gone."""

Row = tuple[Any, ...]
Change = tuple[str, Row]
"""A table and a row, or the key alone of a row that is gone."""

_CHANGE = struct.Struct("<BB")  # table, number of values
_VALUE = struct.Struct("<BI")  # kind, length
_REAL = struct.Struct("<d")
_VALUES: tuple[Callable[[bytes], Any], ...] = (
    lambda raw: None, int, lambda raw: _REAL.unpack(raw)[0], lambda raw: raw.decode(), lambda raw: raw,
)  # fmt: skip
"""By its kind, a value from its bytes."""


@dataclass(slots=True)
class Record:
    """One undelivered file of *size* bytes.

    *base* is the object that it changes (None: a new one), of which the bytes below *kept* still count where they are not
    *dirty*. The dirty bytes are those of the staged file *file*, or of *image*. *suspects* are ETags that an earlier try of ours may
    have left in the store although no answer came; *expected* is the one that the try under way will leave. *sent* says where the
    tail was appended without an answer, when that was elsewhere than behind *base* (Sent.to_list). *replaced_by* is the ETag of the
    object that was about to take the file's place when another one was renamed to its name.
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
    replaced_by: str = ""
    sent: list[Any] = field(default_factory=list)
    state: str = PROMISED
    cause: str = ""
    changed: float = field(default_factory=time.time)
    upload: UploadRecord | None = None  # kept in its own table

    def body(self) -> str:
        """The part of the record that is stored as JSON; what is empty is left out."""
        headers = self.headers
        said = {"metadata": headers.metadata, "content_type": headers.content_type}
        for name in _RARE_HEADERS:
            value = getattr(headers, name)
            if value != getattr(_PLAIN, name):
                said[name] = value
        facts: dict[str, Any] = {"size": self.size, "kept": self.kept, "dirty": self.dirty, "file": self.file, "headers": said}
        if self.base is not None:
            facts["base"] = {name: getattr(self.base, name) for name in _INFO_FIELDS}
        for name in ("appending", "suspects", "expected", "replaced_by", "sent"):
            if value := getattr(self, name):
                facts[name] = value
        return _encode(facts)


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


_INFO_FIELDS = tuple(each.name for each in fields(ObjectInfo))
_RARE_HEADERS = tuple(each.name for each in fields(ObjectHeaders) if each.name not in ("metadata", "content_type"))
_PLAIN = ObjectHeaders()
_encode = json.JSONEncoder(default=dict).encode  # made once; for mappings that are no dict


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


def statement(table: str, *values: Any) -> Statement:
    """The row *values* of *table* as it is from now on, or, of one value, the key of a row that is gone."""
    pieces = [_CHANGE.pack(TABLES.index(table), len(values))]
    for value in values:
        if isinstance(value, bytes):
            kind, raw = 4, value
        elif isinstance(value, str):
            kind, raw = 3, value.encode("utf-8", "backslashreplace")
        elif isinstance(value, int):
            kind, raw = 1, b"%d" % value
        elif isinstance(value, float):
            kind, raw = 2, _REAL.pack(value)
        else:
            kind, raw = 0, b""
        pieces.append(_VALUE.pack(kind, len(raw)))
        pieces.append(raw)
    return b"".join(pieces)


def changes(payload: bytes) -> Iterator[Change]:
    """The changes that a frame's payload is made of. ValueError for what is none."""
    at = 0
    try:
        while at < len(payload):
            table, count = _CHANGE.unpack_from(payload, at)
            at += _CHANGE.size
            values = []
            for _ in range(count):
                kind, length = _VALUE.unpack_from(payload, at)
                at += _VALUE.size
                values.append(_VALUES[kind](payload[at : at + length]))
                at += length
            yield TABLES[table], tuple(values)
    except (struct.error, IndexError) as exc:
        raise ValueError(f"no change of a journal: {exc}") from exc


def put_record(record: Record) -> Statement:
    """Write *record*, in the place of the one with the same id."""
    return statement(
        "record", record.id, _bytes(record.key), record.state, record.cause, record.changed, record.body(), record.image
    )


def remove_record(record_id: str) -> Statement:
    """Forget a record: the store has the file, or nobody wants it."""
    return statement("record", record_id)


def put_upload(upload: Upload) -> Statement:
    """Note an upload, or how far it is."""
    return statement("upload", upload.upload.upload_id, _bytes(upload.key), upload.record, json.dumps(upload.upload.to_json()))


def remove_upload(upload_id: str) -> Statement:
    """Forget an upload: it was completed or aborted."""
    return statement("upload", upload_id)


def put_deletion(deletion: Deletion) -> Statement:
    """Note that an object is to be deleted."""
    return statement("deletion", _bytes(deletion.key), deletion.etag, deletion.modified_ns)


def remove_deletion(key: str) -> Statement:
    """Forget a deletion: it was done, or the object is not the one any more."""
    return statement("deletion", _bytes(key))


def put_move(move: Move) -> Statement:
    """Note that a move begins, or turns back."""
    return statement("move", _bytes(move.old), _bytes(move.new), move.began, int(move.back))


def remove_move(old: str) -> Statement:
    """Forget a move: it is at its end."""
    return statement("move", _bytes(old))


Later = dict[str, dict[Any, Row]]
"""What a log changes: by table and primary key the row as it is last, or the key alone where it is gone."""


def later(payloads: Iterable[bytes]) -> Later:
    """What the frames of a log come to, the last word of each row."""
    found: Later = {table: {} for table in TABLES}
    for payload in payloads:
        for table, row in changes(payload):
            found[table].pop(row[0], None)
            found[table][row[0]] = row
    return found


DISK_REFUSES = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
"""SQLite's codes that say nothing of what is in its files."""


class Journal:
    """What is undelivered of one bucket on this host."""

    def __init__(self, directory: Path) -> None:
        self.directory = private_directory(directory)
        self._lock = -1
        self._db: sqlite3.Connection | None = None
        self._log = RedoLog(self.directory / LOG)
        self._later: Later = {table: {} for table in TABLES}  # who only looks: what the log has
        self._logging = False

    def open(self) -> None:
        """Take the lock and open the database. OSError(EBUSY) when another mount holds it, EINVAL when it cannot be read, ENOSPC when the
        disk does not let it be opened."""
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
        except (sqlite3.Error, ValueError) as exc:
            self._logging = False
            self.close()
            if getattr(exc, "sqlite_errorcode", 0) & 0xFF in DISK_REFUSES:
                raise OSError(
                    errno.ENOSPC,
                    f"the journal {self.directory} cannot be opened ({exc}): see that its disk has room; what it has promised stays",
                ) from exc
            raise OSError(errno.EINVAL, f"the journal {self.directory} cannot be read ({exc}); move it away to go on") from exc
        except BaseException:
            self.close()
            raise

    def look(self) -> None:
        """Open for reading only, without the lock: also while a mount uses the journal. OSError(EINVAL) when it cannot be read."""
        try:
            db = self._db = sqlite3.connect(f"file:{self.directory / DATABASE}?mode=ro", uri=True, isolation_level=None)
            for _ in range(LOOKS):
                salt = _salt(db)
                found = self._log.read(salt)
                db.execute("BEGIN")  # the tables stay as they are now for who reads them
                if _salt(db) == salt:
                    self._later = later(found.payloads)
                    return
                db.execute("COMMIT")  # the log went into the tables meanwhile, and began anew
            raise OSError(errno.EAGAIN, f"the journal {self.directory} is changing too fast to be read; try again")
        except (sqlite3.Error, ValueError) as exc:
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
        if version < FORMAT:
            db.executescript(f"BEGIN IMMEDIATE; {SCHEMA}")
            db.execute("INSERT INTO log VALUES (?)", (os.urandom(16),))
            db.execute(f"PRAGMA user_version={FORMAT}")
            db.execute("COMMIT")
        self._log.open(_salt(db))
        self._logging = True
        self.settle()

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            raise OSError(errno.EBADF, "the journal is closed")
        return self._db

    def apply(self, statements: Iterable[Statement]) -> None:
        """Make all these changes, or none; they are on the disk when this returns. OSError(ENOSPC, EIO) when the disk refuses."""
        self._opened()
        payload = b"".join(statements)
        try:
            if self._log.end + len(payload) > LOG_MOST and self._log.end:
                self.settle()
            self._log.append(payload)
        except (sqlite3.Error, OSError) as exc:
            full = getattr(exc, "errno", 0) in (errno.ENOSPC, errno.EDQUOT) or "full" in str(exc)
            raise OSError(errno.ENOSPC if full else errno.EIO, f"the journal cannot be written: {exc}") from exc

    def begin(self, statements: Iterable[Statement]) -> int:
        """As `apply`, without waiting: the descriptor that becomes readable when it is time to `finish`. -1, and nothing happened, where
        only `apply` can do it."""
        payload = b"".join(statements)
        if self._db is None or self._log.end + len(payload) > LOG_MOST:
            return -1
        return self._log.begin(payload)

    def finish(self) -> bool:
        """The changes are on the disk; False where they count as not made, and `apply` is to try again and to tell why."""
        return self._log.finish()

    def settle(self) -> None:
        """Bring what the log has into the database, and begin the log anew."""
        if not (self._logging and self._log.end):
            return
        found = self._log.gathered()
        if found.damaged:
            log.error("the disk has damaged %d of what the journal %s was told: it is lost", found.damaged, self.directory)
        # one transaction, with a new salt: from then on the frames in the log are none
        db, salt = self._opened(), os.urandom(16)
        db.execute("BEGIN IMMEDIATE")
        try:
            for table, rows in later(found.payloads).items():
                for key, row in rows.items():
                    if len(row) == 1:
                        (column,) = db.execute(f"SELECT name FROM pragma_table_info('{table}') WHERE pk = 1").fetchone()
                        db.execute(f"DELETE FROM {table} WHERE {column} = ?", (key,))
                        continue
                    values = (*row, _checksum(row[1], row[5], row[6])) if table == "record" else row
                    db.execute(f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * len(values))})", values)
            db.execute("UPDATE log SET salt = ?", (salt,))
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self._log.restart(salt)

    def _rows(self, table: str) -> Iterator[Row]:
        """All rows of *table* as they are now."""
        self.settle()
        newer = self._later[table]
        for row in self._opened().execute(f"SELECT * FROM {table}"):
            if row[0] not in newer:
                yield row
        for row in newer.values():
            if len(row) > 1:
                yield (*row, _checksum(row[1], row[5], row[6])) if table == "record" else row

    def records(self) -> list[Record]:
        """Every record, oldest first, with its upload. Damaged ones come as conflicts without bytes, so that somebody sees them."""
        uploads = {upload.record: upload.upload for upload in self.uploads() if upload.record}
        found = []
        for record_id, key, state, cause, changed, body, image, checksum in sorted(self._rows("record"), key=lambda row: row[4]):
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
        return [Upload(_text(key), record, UploadRecord.from_json(json.loads(body))) for _, key, record, body in self._rows("upload")]

    def deletions(self) -> list[Deletion]:
        """The objects that are to be deleted."""
        return [Deletion(_text(key), etag, modified) for key, etag, modified in self._rows("deletion")]

    def moves(self) -> list[Move]:
        """The moves that were under way, in the order in which they began."""
        rows = sorted(self._rows("move"), key=lambda row: row[2])
        return [Move(_text(old), _text(new), began, bool(back)) for old, new, began, back in rows]

    def close(self) -> None:
        """Close the database and give the lock back."""
        if self._db is not None:
            try:
                self.settle()
            except (sqlite3.Error, OSError) as exc:
                log.warning("the journal's log stays as it is until the next mount: %s", exc)
            self._db.close()
            self._db = None
        self._logging = False
        self._log.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _salt(db: sqlite3.Connection) -> bytes:
    """The log's salt; none in a journal of format 1."""
    if not db.execute("SELECT name FROM sqlite_master WHERE name = 'log'").fetchone():
        return b""
    row = db.execute("SELECT salt FROM log").fetchone()
    return bytes(row[0]) if row is not None else b""


def _parse(record_id: str, key: str, body: str) -> Record:
    rest: dict[str, Any] = {
        "base": None, "appending": False, "suspects": [], "expected": "", "replaced_by": "", "sent": [], **json.loads(body)
    }  # fmt: skip
    return Record(
        record_id, key, rest["size"], rest["kept"], rest["dirty"],
        ObjectInfo(**rest["base"]) if rest["base"] else None, ObjectHeaders(**rest["headers"]),
        rest["appending"], rest["file"], suspects=rest["suspects"], expected=rest["expected"], replaced_by=rest["replaced_by"],
        sent=rest["sent"],
    )  # fmt: skip
