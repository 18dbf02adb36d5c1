"""What the ETag of an appended object says of the bytes behind it, and bodies as bytes.

Owns: the formula; those of whole and of multipart objects are zosfs.store.digests. May use: the value types of zosfs.store.api. Must not
know: requests, plans. An answer that got lost is recognised by them: an object with the ETag that our bytes must have is ours.
"""

from __future__ import annotations

import hashlib
import os

from zosfs.store.api import Body, FileSlice, Piece, appends_of


def chain_etag(before: str, chunk: str) -> str:
    """The ETag of an appendable object of ETag *before* ("": it did not exist) after an append of bytes with the MD5 *chunk*.

    Not the multipart formula: each append hashes the ETag before it together with its own. Empty appends count too.
    """
    if not before:
        return chunk
    raw = bytes.fromhex(before.partition("-")[0]) + bytes.fromhex(chunk)
    return f"{hashlib.md5(raw, usedforsecurity=False).hexdigest()}-{appends_of(before) + 1}"


def body_bytes(body: Body) -> bytes:
    """All bytes of a small body; what lies past the end of a file reads as zeros. Blocks."""
    whole = bytearray()
    for piece in body:
        if isinstance(piece, FileSlice):
            end = len(whole) + piece.length
            at = piece.offset
            while len(whole) < end and (got := os.pread(piece.fd, end - len(whole), at)):
                whole += got
                at += len(got)
            whole += bytes(end - len(whole))
        else:
            whole += piece
    return bytes(whole)


def slice_body(body: Body, start: int, end: int) -> Body:
    """The bytes ``[start, end)`` of a body as a body, without copying."""
    pieces: list[Piece] = []
    at = 0
    for piece in body:
        length = piece.length if isinstance(piece, FileSlice) else len(piece)
        first, last = max(start - at, 0), min(end - at, length)
        if first < last:
            pieces.append(slice_piece(piece, first, last))
        at += length
    return pieces


def slice_piece(piece: Piece, start: int, end: int) -> Piece:
    """The bytes ``[start, end)`` of one piece, without copying."""
    if isinstance(piece, FileSlice):
        return FileSlice(piece.fd, piece.offset + start, end - start)
    return memoryview(piece)[start:end]
