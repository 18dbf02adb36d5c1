"""What a HEAD says of a file's object and what stat shows of it, packed: a million files are some 120 bytes each instead of 900 (pure).

Such a row begins as one of a listing does (listed.py). The key is left out: whoever keeps a row knows where it hangs. Names of metadata
and headers, and the content type, are few over all objects: together they are a *shape*, kept once. Values that say in the usual words
what stat shows are one character.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from zosfs.store.api import ObjectInfo
from zosfs.tree.attributes import SAID, Attributes
from zosfs.tree.listed import FORM_AT, ROW, Numbered, etag_of, kind_of, pack_plain

_MORE = struct.Struct("<HIIqqqHB")
_TOLD = 0x80
_BETWEEN, _USUAL = "\0", "\1"

_NOTHING: Mapping[str, str] = {}

_SHAPES = Numbered[tuple[str, tuple[str, ...], tuple[str, ...]]]()
"""Content type, names of metadata, names of headers."""


def is_told(row: bytes) -> bool:
    """Whether *row* is one of `pack_told`, not a listing's."""
    return row[FORM_AT] >= _TOLD


def pack_told(info: ObjectInfo, attributes: Attributes) -> bytes | None:
    """*info*, without its key, and *attributes* of its file; None for what has no room."""
    metadata, headers = info.metadata, info.headers
    if metadata is None or attributes.rdev or attributes.size != info.size:
        return None
    listed = pack_plain(info)
    shape = (info.content_type, tuple(metadata), tuple(headers))
    number = _SHAPES.numbers.get(shape)
    if number is None:
        number = _SHAPES.add(shape)
    if listed is None or number is None:
        return None
    values, usual = [info.version_id], 0
    for name, value in metadata.items():
        said = SAID.get(name)
        if said is not None and said(attributes) == value:
            value, usual = _USUAL, usual + 1
        values.append(value)
    values.extend(headers.values())
    text = _BETWEEN.join(values)
    if text.count(_BETWEEN) != len(values) - 1 or text.count(_USUAL) != usual:
        return None
    etag = listed[ROW.size :]
    try:
        more = _MORE.pack(
            attributes.mode, attributes.uid, attributes.gid, attributes.atime_ns, attributes.mtime_ns, attributes.ctime_ns, number,
            len(etag),
        )  # fmt: skip
    except struct.error:
        return None
    head = bytearray(listed[: ROW.size])
    head[FORM_AT] |= _TOLD
    return b"".join((head, more, etag, text.encode("utf-8", "surrogatepass")))


def attributes_in(row: bytes) -> Attributes:
    """What stat shows."""
    size, *_ = ROW.unpack_from(row)
    mode, uid, gid, atime_ns, mtime_ns, ctime_ns, _, _ = _MORE.unpack_from(row, ROW.size)
    return Attributes(mode, uid, gid, size, atime_ns, mtime_ns, ctime_ns)


def unpack_told(row: bytes, key: str) -> ObjectInfo:
    """What a HEAD said of the object, now *key*."""
    size, modified_ns, kind, form = ROW.unpack_from(row)
    *_, number, length = _MORE.unpack_from(row, ROW.size)
    etag, begin = ROW.size + _MORE.size, ROW.size + _MORE.size + length
    content_type, names, headers = _SHAPES.things[number]
    version_id, *values = row[begin:].decode("utf-8", "surrogatepass").split(_BETWEEN)
    if _USUAL in values:
        attributes = attributes_in(row)
        values = [SAID[name](attributes) if value == _USUAL else value for name, value in zip((*names, *headers), values, strict=True)]
    return ObjectInfo(
        key, size, etag_of(form & ~_TOLD, row[etag:begin]), modified_ns, *kind_of(kind), version_id, content_type,
        dict(zip(names, values, strict=False)), dict(zip(headers, values[len(names) :], strict=True)) if headers else _NOTHING,
    )  # fmt: skip
