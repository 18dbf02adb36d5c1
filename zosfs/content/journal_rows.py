"""The rows of the journal, and the changes of them as they lie in its log: bytes (pure).

Owns: what a row of each table has, its form, and the checksum of a record. Four tables: records (undelivered files), uploads (multipart
uploads under way, to be continued or aborted by the next run), deletions (objects that were unlinked while open), moves (directories
being renamed). Every change says what a row is, or that it is gone: made twice it is the same as once. Must not know: files, SQLite.
"""

from __future__ import annotations

import hashlib
import json
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from zosfs.content.multipart import UploadRecord
from zosfs.store.api import ObjectHeaders, ObjectInfo
from zosfs.store.objects import is_still

PROMISED, FAILED, PARKED, CONFLICT = "promised", "failed", "parked", "conflict"
"""States of a record: to be delivered; to be tried again; refused for good; somebody else changed the object."""

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
        facts: dict[str, Any] = {
            "size": self.size, "kept": self.kept, "dirty": self.dirty, "file": self.file, "headers": headers_said(self.headers)
        }  # fmt: skip
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
        """Whether *found* is that object."""
        return found is not None and is_still(found, self.etag, self.modified_ns)


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


def headers_said(headers: ObjectHeaders) -> dict[str, Any]:
    """*headers* as JSON has them, ``ObjectHeaders(**said)`` again; what is empty is mostly left out."""
    said: dict[str, Any] = {"metadata": headers.metadata, "content_type": headers.content_type}
    for name in _RARE_HEADERS:
        value = getattr(headers, name)
        if value != getattr(_PLAIN, name):
            said[name] = value
    return said


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


# -- from the tables ----------------------------------------------------------------------------------------------------


def with_checksum(table: str, row: Row) -> Row:
    """A whole *row* of a change as *table* has it: records have their checksum behind the rest."""
    return (*row, _checksum(row[1], row[5], row[6])) if table == "record" else row


def record_of(row: Row) -> Record:
    """The record of a row. A damaged one comes as a conflict without bytes, so that somebody sees it."""
    record_id, key, state, cause, changed, body, image, checksum = row
    try:
        if _checksum(key, body, image) != checksum:
            raise ValueError("checksum")
        record = _parse(record_id, _text(key), body)
    except (ValueError, KeyError, TypeError):
        return Record(record_id, _text(key), 0, 0, [], None, ObjectHeaders(), file=record_id, state=CONFLICT, cause="damaged record")
    record.image, record.state, record.cause, record.changed = image, state, cause, changed
    return record


def upload_of(row: Row) -> Upload:
    """The upload of a row."""
    _, key, record, body = row
    return Upload(_text(key), record, UploadRecord.from_json(json.loads(body)))


def deletion_of(row: Row) -> Deletion:
    """The deletion of a row."""
    key, etag, modified_ns = row
    return Deletion(_text(key), etag, modified_ns)


def move_of(row: Row) -> Move:
    """The move of a row."""
    old, new, began, back = row
    return Move(_text(old), _text(new), began, bool(back))


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
