"""What there was of a file that is being removed, until it is known whether it can be.

Owns: nothing. Must not know: how files are removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zosfs.content.journal_rows import Record
from zosfs.content.writer import Writer


@dataclass(frozen=True, slots=True)
class Aside:
    """Its writers, those of an earlier run that nobody took over, by the ids of their records, and its records in the journal."""

    key: str
    writers: Sequence[Writer]
    revived: dict[str, Writer]
    records: Sequence[Record]
