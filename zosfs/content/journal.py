"""The journal: what was promised and is not in the store yet, safe from crashes and power cuts.

Owns: ``journal.db`` in its directory (SQLite, WAL, synchronous=FULL), ``journal.log`` beside it, and the lock that keeps a second mount
out. What a row of it has is in journal_rows.py. A record is written after the staged bytes it speaks of were fsynced, or with the bytes
inside it where they are few; it is removed after the store has them. Records carry a checksum, the database a format version. Must not
know: the store's requests, names, tasks. Its methods block, but for `begin` and `finish`, and are called one after the other.

A change is promised by one frame of the log: one write to the disk, where a transaction of SQLite is ten calls. What the log has
gathered goes into the database when it is long, and when the journal is opened or closed; most of it is delivered and
forgotten by then.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from zosfs.content.journal_rows import (
    TABLES,
    Deletion,
    Later,
    Move,
    Record,
    Row,
    Statement,
    Upload,
    deletion_of,
    later,
    move_of,
    record_of,
    upload_of,
    with_checksum,
)
from zosfs.content.redo_log import RedoLog
from zosfs.content.staging import private_directory

log = logging.getLogger(__name__)

FORMAT = 2
"""1 had no log."""

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

DISK_REFUSES = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
"""SQLite's codes that say nothing of what is in its files."""

PID = 20
"""Bytes of the lock that tell who has it."""


class InUse(OSError):
    """Another mount has the journal; *pid* is its process, 0 where that is not known."""

    def __init__(self, line: str, pid: int) -> None:
        super().__init__(errno.EBUSY, line)
        self.pid = pid


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
        """Take the lock and open the database. InUse when another mount holds it, OSError(EINVAL) when it cannot be read, ENOSPC when the
        disk does not let it be opened."""
        self._lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = os.pread(self._lock, PID, 0).strip()
                raise InUse(
                    f"the journal {self.directory} is in use by another mount (process {pid.decode() or 'unknown'}): "
                    "give this one its own with -o cache_dir=DIR",
                    int(pid) if pid.isdigit() else 0,
                ) from None
            with contextlib.suppress(OSError):  # a full disk, of which the database tells more
                os.pwrite(self._lock, b"%-*d" % (PID, os.getpid()), 0)
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
        payload = b"".join(statements)
        with self._written(len(payload)):
            self._log.append(payload)

    def reserve(self, length: int) -> None:
        """Have room on the disk for changes of *length* bytes, unless others come in between. OSError(ENOSPC) where there is none."""
        with self._written(length):
            self._log.reserve(length)

    @contextlib.contextmanager
    def _written(self, length: int) -> Iterator[None]:
        """Within, so many bytes of changes are written to the log, which is made short before where it is too long for them."""
        self._opened()
        try:
            if self._log.end + length > LOG_MOST and self._log.end:
                self.settle()
            yield
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
                    values = with_checksum(table, row)
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
                yield with_checksum(table, row)

    def records(self) -> list[Record]:
        """Every record, oldest first, with its upload. Damaged ones come as conflicts without bytes, so that somebody sees them."""
        uploads = {upload.record: upload.upload for upload in self.uploads() if upload.record}
        found = [record_of(row) for row in sorted(self._rows("record"), key=lambda row: row[4])]
        for record in found:
            record.upload = uploads.get(record.id)
        return found

    def uploads(self) -> list[Upload]:
        """The uploads that were under way."""
        return [upload_of(row) for row in self._rows("upload")]

    def deletions(self) -> list[Deletion]:
        """The objects that are to be deleted."""
        return [deletion_of(row) for row in self._rows("deletion")]

    def moves(self) -> list[Move]:
        """The moves that were under way, in the order in which they began."""
        return sorted(map(move_of, self._rows("move")), key=lambda move: move.began)

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
