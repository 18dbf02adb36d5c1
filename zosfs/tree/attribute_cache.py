"""Attributes remembered across mounts: the HEADs that need not be sent again.

Owns: ``attributes.sqlite`` in the cache directory. A row is found only with the very ETag, modification second and size that a listing
shows, and the very milliseconds where both have them; values are JSON. Everything here can be lost without harm: a damaged file is started
anew, writes are batched and not fsynced. SQLite runs in a thread of its own.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import trio

from zosfs.store.api import ObjectInfo
from zosfs.threads import ThreadPool

log = logging.getLogger(__name__)

FORMAT = 1
MOST_ROWS = 2_000_000
AT_ONCE = 500
PAUSE = 2.0
"""Seconds after which what was put is written out: a daemon that dies forgets no more than what it learnt in these."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS attributes (
    id BLOB PRIMARY KEY,        -- hash of bucket and key
    etag TEXT NOT NULL,
    modified INTEGER NOT NULL,  -- seconds since the epoch
    size INTEGER NOT NULL,
    facts TEXT NOT NULL         -- JSON: ns within that second (0: not known), metadata, content type, kept headers, object type
) WITHOUT ROWID
"""

KEPT_HEADERS = (
    "content-encoding", "content-disposition", "content-language", "cache-control", "expires", "x-amz-tagging-count",
    "x-amz-restore", "x-amz-website-redirect-location", "x-rgw-next-append-position",
)  # fmt: skip


def _identity(bucket: str, key: str) -> bytes:
    return hashlib.blake2b(f"{bucket}\n{key}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


class AttributeCache:
    """What HEADs said, by bucket, key, ETag, time of modification and size."""

    def __init__(self, directory: Path, name: str = "attributes") -> None:
        self._path = directory / f"{name}.sqlite"
        self._db: sqlite3.Connection | None = None
        self._thread = ThreadPool("attributes", 1)
        self._fresh: dict[bytes, tuple[str, int, int, str]] = {}
        self._leaving: dict[bytes, tuple[str, int, int, str]] = {}  # what is being written out
        self._filled = trio.Event()  # there is something to write out
        self._writing = trio.Lock()
        self._failing = False  # the last try to write went wrong, and was told
        self._most: int | None = None  # rows there are at most; None: not counted yet

    def _open(self) -> sqlite3.Connection:
        if self._db is None:
            try:
                self._db = self._connect()
            except sqlite3.DatabaseError as exc:
                self._throw_away(exc)
                self._db = self._connect()
        return self._db

    def _throw_away(self, why: sqlite3.Error) -> None:
        """The file is damaged: the next use starts anew. Other mounts go on with theirs, which has no name any more."""
        log.warning("%s is damaged (%s): starting anew", self._path, why)
        if self._db is not None:
            self._db.close()
            self._db = None
        self._most = None
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)

    def _connect(self) -> sqlite3.Connection:
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=5.0)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=OFF")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version not in (0, FORMAT):
            db.execute("DROP TABLE IF EXISTS attributes")
        db.execute(SCHEMA)
        db.execute(f"PRAGMA user_version={FORMAT}")
        return db

    async def get_many(self, bucket: str, listed: Sequence[ObjectInfo]) -> dict[str, ObjectInfo]:
        """Those of *listed* that are remembered, with metadata, by key."""
        wanted = {_identity(bucket, info.key): info for info in listed}
        rows = {identity: some[identity] for some in (self._leaving, self._fresh) for identity in wanted if identity in some}
        asked = [identity for identity in wanted if identity not in rows]
        if asked:
            try:
                rows.update(await self._thread.run(self._select, asked))
            except (sqlite3.Error, OSError) as exc:
                log.warning("%s cannot be read: %s", self._path, exc)
        found = {}
        for identity, (etag, modified, size, facts) in rows.items():
            info = wanted[identity]
            if (etag, modified, size) == (info.etag, info.modified_ns // 10**9, info.size):
                remembered = _with_facts(info, facts)
                if remembered is not None:
                    found[info.key] = remembered
        return found

    def _select(self, identities: list[bytes]) -> dict[bytes, tuple[str, int, int, str]]:
        try:
            return self._select_now(identities)
        except sqlite3.OperationalError:
            raise  # locked, or the disk is full: not damaged
        except sqlite3.DatabaseError as exc:
            self._throw_away(exc)
            return {}

    def _select_now(self, identities: list[bytes]) -> dict[bytes, tuple[str, int, int, str]]:
        rows: dict[bytes, tuple[str, int, int, str]] = {}
        for start in range(0, len(identities), AT_ONCE):
            some = identities[start : start + AT_ONCE]
            marks = ",".join("?" * len(some))
            query = f"SELECT id, etag, modified, size, facts FROM attributes WHERE id IN ({marks})"  # marks are only "?"
            rows.update({row[0]: (row[1], row[2], row[3], row[4]) for row in self._open().execute(query, some)})
        return rows

    def put(self, bucket: str, info: ObjectInfo) -> None:
        """Remember *info* (of a HEAD); written out in batches."""
        facts = json.dumps(
            {
                "fraction": info.modified_ns % 10**9,
                "metadata": dict(info.metadata or {}), "content_type": info.content_type, "object_type": info.object_type,
                "headers": {name: info.headers[name] for name in KEPT_HEADERS if name in info.headers},
            }
        )  # fmt: skip
        self._fresh[_identity(bucket, info.key)] = (info.etag, info.modified_ns // 10**9, info.size, facts)
        self._filled.set()

    async def keep_writing(self) -> None:
        """Write out what was put, PAUSE seconds after the first of it; never returns."""
        while True:
            await self._filled.wait()
            await trio.sleep(PAUSE)
            await self.write()

    async def write(self) -> None:
        """Write out what was put so far; where that fails, the log says so once, and it has to be asked for again some day."""
        async with self._writing:
            self._leaving, self._fresh, self._filled = self._fresh, {}, trio.Event()
            rows = iter(self._leaving.items())
            try:
                while some := dict(itertools.islice(rows, AT_ONCE)):
                    await self._thread.run(self._insert, some)
                    self._failing = False
            except (sqlite3.Error, OSError) as exc:
                if not self._failing:
                    log.warning("%s cannot be written: %s", self._path, exc)
                self._failing = True
            finally:
                self._leaving = {}

    def _insert(self, fresh: dict[bytes, tuple[str, int, int, str]]) -> None:
        try:
            self._insert_now(fresh)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as exc:
            self._throw_away(exc)
            self._insert_now(fresh)

    def _insert_now(self, fresh: dict[bytes, tuple[str, int, int, str]]) -> None:
        db = self._open()
        db.execute("BEGIN")
        try:
            rows = [(identity, *row) for identity, row in fresh.items()]
            db.executemany("INSERT OR REPLACE INTO attributes VALUES (?, ?, ?, ?, ?)", rows)
            most = MOST_ROWS if self._most is None else self._most + len(fresh)
            if most >= MOST_ROWS:
                (most,) = db.execute("SELECT COUNT(*) FROM attributes").fetchone()
            if most > MOST_ROWS:
                spare = most - MOST_ROWS + MOST_ROWS // 10
                db.execute("DELETE FROM attributes WHERE id IN (SELECT id FROM attributes LIMIT ?)", (spare,))
                most -= spare
            db.execute("COMMIT")
            self._most = most
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    async def aclose(self) -> None:
        """Write out and close: nobody may use it any more, `keep_writing` has ended."""
        await self.write()
        if self._db is not None:
            await self._thread.run(self._db.close)
            self._db = None
        self._thread.close()


def _is_texts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _with_facts(listed: ObjectInfo, facts: str) -> ObjectInfo | None:
    """*listed* with what a row remembers; None for a row that makes no sense, or speaks of another moment of that second."""
    try:
        kept = json.loads(facts)
        object_type, content_type, metadata, headers = (kept[name] for name in ("object_type", "content_type", "metadata", "headers"))
        fraction, shown = kept.get("fraction", 0), listed.modified_ns % 10**9
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if not (isinstance(object_type, str) and isinstance(content_type, str) and _is_texts(metadata) and _is_texts(headers)):
        return None
    if fraction and shown and fraction != shown:
        return None  # made anew within the same second, with other attributes as it seems
    return ObjectInfo(
        key=listed.key, size=listed.size, etag=listed.etag, modified_ns=listed.modified_ns, storage_class=listed.storage_class,
        object_type=listed.object_type or object_type, version_id=listed.version_id,
        content_type=content_type, metadata=metadata, headers=headers,
    )  # fmt: skip
