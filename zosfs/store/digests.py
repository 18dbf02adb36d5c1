"""Digests of bodies, run in worker threads: hashing of large pieces releases the GIL."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from zosfs.store.api import Body, FileSlice, PartInfo
from zosfs.store.wire import slices


def sha256_hex(body: Body) -> str:
    """The SHA-256 of *body*, as signatures want it."""
    return _digest("sha256", body)


def md5_hex(body: Body) -> str:
    """The MD5 of *body*: the ETag of an object put whole."""
    return _digest("md5", body)


def _digest(name: str, body: Body) -> str:
    digest = hashlib.new(name, usedforsecurity=False)
    for piece in body:
        if isinstance(piece, FileSlice):
            for part in slices(piece):
                digest.update(part)
        else:
            digest.update(piece)
    return digest.hexdigest()


def multipart_etag(parts: Sequence[PartInfo]) -> str:
    """The ETag of an object completed from *parts* (in order of their numbers); "" where a part's ETag is no MD5."""
    try:
        raw = b"".join(bytes.fromhex(part.etag) for part in sorted(parts, key=lambda part: part.number))
    except ValueError:
        return ""
    if len(raw) != 16 * len(parts):
        return ""
    return f"{hashlib.md5(raw, usedforsecurity=False).hexdigest()}-{len(parts)}"
