"""What is mounted: SOURCE as users write it, taken apart.

Owns: the grammar of SOURCE. May use: nothing of zosfs but errors of its own. Must not know: mounts, stores.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")


class SourceError(ValueError):
    """A SOURCE that means nothing; the text is the line to print."""


@dataclass(frozen=True, slots=True)
class Source:
    """A bucket, a prefix of one, or (*bucket* "") all buckets of the account.

    *text* is SOURCE exactly as given: /proc/mounts must show it so, or systemd and `mount -a` forget what fstab said.
    *prefix* is "" or ends with one "/" and does not begin with one.
    """

    text: str
    bucket: str
    prefix: str = ""

    @property
    def account(self) -> bool:
        """Whether this is the whole account."""
        return not self.bucket

    @property
    def names(self) -> tuple[str, ...]:
        """Names under which a configuration file may speak of this source, the weakest first."""
        return tuple(dict.fromkeys(filter(None, (self.bucket, self.text))))


def parse_source(text: str) -> Source:
    """Take SOURCE apart: ``bucket``, ``bucket:``, ``bucket:/prefix``, ``s3://bucket/prefix``, ``zos://bucket/prefix``, ``zos:``.

    Raises SourceError.
    """
    if text in ("zos:", "zos://", "s3:", "s3://"):
        return Source(text, "")
    scheme, mark, rest = text.partition("://")
    if mark:
        if scheme not in ("s3", "zos"):
            raise SourceError(f"source {text}: {scheme}:// is nothing zosfs knows; write BUCKET:/PREFIX or zos://BUCKET/PREFIX")
        bucket, _, prefix = rest.partition("/")
    else:
        bucket, colon, prefix = text.partition(":")
        if colon and prefix and not prefix.startswith("/"):
            raise SourceError(f"source {text}: a prefix begins with a slash, as in {bucket}:/{prefix}")
        prefix = prefix[1:]
    if not _BUCKET.fullmatch(bucket) or bucket in (".", ".."):
        raise SourceError(
            f"source {text!r}: not a bucket's name; write BUCKET, BUCKET:/PREFIX, zos://BUCKET/PREFIX, or zos: for all buckets"
        )
    if prefix and not prefix.endswith("/"):
        prefix += "/"
    return Source(text, bucket, prefix)


def undo_rewriting(text: str, cwd: str) -> tuple[str, bool]:
    """The SOURCE that mount(8) was given, and whether that differs from *text*, the one it hands on.

    mount(8) makes the absolute path of it when a directory of that name is in *cwd*; a bucket's name never begins with a slash.
    """
    if not text.startswith("/"):
        return text, False
    relative = os.path.relpath(text, cwd)
    if "/" in relative or relative in (".", ".."):
        relative = os.path.basename(text)
    return relative, True
