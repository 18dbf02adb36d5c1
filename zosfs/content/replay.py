"""What is to be done with a file that an earlier run promised, now that the store tells what it has (pure).

Owns: the decision. May use: the journal's value types. Must not know: requests, files, tasks.
"""

from __future__ import annotations

import enum

from zosfs.content.journal_rows import CONFLICT, Record
from zosfs.content.plan import Base, only_grown
from zosfs.content.ranges import Ranges
from zosfs.store.api import ObjectInfo
from zosfs.store.digests import multipart_etag


class Step(enum.Enum):
    """What happens to a record."""

    DELIVERED = "the store has it already; only the answer or the note of it was lost"
    CONTINUE = "an upload of it is under way: send the parts that are missing"
    UPLOAD = "send it"
    REBASE = "send it, over what an earlier try of ours left"
    REPLACED = "another file was renamed to its name: nobody wants it any more"
    CONFLICT = "somebody else changed the object: keep the bytes for a person to decide"


def needs_sum(record: Record, found: ObjectInfo | None) -> bool:
    """Whether `decide` depends on the MD5 of the record's bytes: the object differs from the base, and may be ours."""
    return (
        found is not None
        and record.state != CONFLICT
        and not _only_grown(record)
        and found.etag != (record.base.etag if record.base else "")
        and found.etag not in (expected_etag(record), *record.suspects)
        and found.size == record.size
        and "-" not in found.etag
        and not leans_on_base(record)
    )


def decide(record: Record, found: ObjectInfo | None, md5: str = "") -> Step:
    """What to do with *record* when the object at its key is *found* (None: there is none).

    *md5* is the sum of the record's bytes, where `needs_sum` asks for it.
    """
    if record.state == CONFLICT:
        return Step.CONFLICT
    etag = found.etag if found else ""
    base = record.base.etag if record.base else ""
    if found is not None and found.size == record.size and etag and etag in (expected_etag(record), record.expected, md5) and etag != base:
        return Step.DELIVERED
    if etag == base:
        return Step.CONTINUE if record.upload is not None else Step.UPLOAD
    if etag and etag == record.replaced_by:
        return Step.REPLACED
    if _only_grown(record):
        return Step.UPLOAD  # an appended tail goes behind whatever is there, and recognises itself
    if etag and etag in record.suspects:
        return Step.REBASE
    return Step.CONFLICT


def _only_grown(record: Record) -> bool:
    """Whether the file was opened to append, and did nothing else."""
    base = Base.of(record.base) if record.base else None
    return record.appending and only_grown(base, Ranges.from_list(record.dirty), record.size, record.kept) is not None


def expected_etag(record: Record) -> str:
    """The ETag that the upload under way leaves, as far as its parts are up."""
    return multipart_etag(list(record.upload.parts.values())) if record.upload is not None else record.expected


def leans_on_base(record: Record) -> bool:
    """Whether bytes of the file are in the base object and not in what the record keeps."""
    at = 0
    for start, end in sorted(record.dirty):
        if start > at and at < record.kept:
            return True
        at = max(at, end)
    return at < record.kept
