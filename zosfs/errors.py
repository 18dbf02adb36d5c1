"""The one vocabulary of failure: store error code -> errno, with the line a person reads.

Owns: the table of codes and the exception that carries one. May use: nothing of zosfs.
Must not know: HTTP libraries, FUSE.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """One store error code: what the caller gets (*errno*), what a person reads, whether trying again may help."""

    code: str
    errno: int
    text: str
    retry: bool = False


_ROWS = (
    ErrorRow("NoSuchKey", errno.ENOENT, "the object does not exist"),
    ErrorRow("NoSuchBucket", errno.ENOENT, "the bucket does not exist"),
    ErrorRow("AccessDenied", errno.EACCES, "the server refuses this to these credentials"),
    ErrorRow("PreconditionFailed", errno.ESTALE, "the object was changed by someone else"),
    # found out by our own checks, where the server has no condition to break
    ErrorRow("Conflict", errno.ESTALE, "the object was changed by someone else"),
    ErrorRow("EntityTooLarge", errno.EFBIG, "no object can be as large"),
    ErrorRow("InternalError", errno.EIO, "the server failed", retry=True),
)
TABLE: Mapping[str, ErrorRow] = {row.code: row for row in _ROWS}
_UNKNOWN = ErrorRow("Unknown", errno.EIO, "the server answered with an error that zosfs does not know")


class StoreError(OSError):
    """A request that the store refused or that never got an answer.

    An OSError, so that `errno` is what the caller of the filesystem gets. *code* is the store's code (or one of ours for
    failures without an answer: ``ConnectionFailed``, ``TimedOut``, ``TruncatedBody``…), *status* the HTTP status (0: none),
    *headers* the answer's headers with lower-case names.
    """

    def __init__(
        self,
        code: str,
        *,
        status: int = 0,
        message: str = "",
        operation: str = "",
        key: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.row = lookup(code, status)
        super().__init__(self.row.errno, os.strerror(self.row.errno))
        self.code = code
        self.status = status
        self.message = message
        self.operation = operation
        self.key = key
        self.headers: Mapping[str, str] = headers or {}

    @property
    def retry(self) -> bool:
        """Whether the same request may succeed later."""
        return self.row.retry

    @property
    def ambiguous(self) -> bool:
        """Whether the server may have applied the request although no good answer came."""
        return self.status == 0 or self.status >= 500

    def __str__(self) -> str:
        where = f"{self.operation} {self.key}".strip()
        said = f": {self.message}" if self.message else ""
        return f"{where}: {self.row.text} ({self.code}{', HTTP ' + str(self.status) if self.status else ''}){said}"


def lookup(code: str, status: int = 0) -> ErrorRow:
    """The row of *code*; an unknown code is judged by its HTTP *status*."""
    row = TABLE.get(code)
    if row is not None:
        return row
    return _UNKNOWN
