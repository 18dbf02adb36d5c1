"""Digests of bodies, run in worker threads: hashing of large pieces releases the GIL.

All raise StoreError ``LocalReadFailed`` where the staged bytes cannot be read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from zosfs.errors import StoreError
from zosfs.store.api import Body, FileSlice, PartInfo
from zosfs.store.http import WireError
from zosfs.store.outgoing import slices


def sha256_hex(body: Body) -> str:
    """The SHA-256 of *body*, as signatures want it."""
    return _digest("sha256", body)


def md5_hex(body: Body) -> str:
    """The MD5 of *body*: the ETag of an object put whole."""
    return _digest("md5", body)


def _digest(name: str, body: Body) -> str:
    digest = hashlib.new(name, usedforsecurity=False)
    try:
        for piece in body:
            if isinstance(piece, FileSlice):
                for part in slices(piece):
                    digest.update(part)
            else:
                digest.update(piece)
    except WireError as exc:
        raise StoreError(exc.code, message=str(exc)) from None
    return digest.hexdigest()


def multipart_etag(parts: Sequence[PartInfo]) -> str:
    """The ETag of an object completed from *parts* (in order of their numbers); "" where a part's ETag is no MD5."""
    if any(len(part.etag) != 32 for part in parts):
        return ""
    try:
        raw = b"".join(bytes.fromhex(part.etag) for part in sorted(parts, key=lambda part: part.number))
    except ValueError:
        return ""
    return f"{hashlib.md5(raw, usedforsecurity=False).hexdigest()}-{len(parts)}"
