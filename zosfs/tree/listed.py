"""What a listing says of an object, packed: a million objects that were only listed are 80 bytes each instead of some 350 (pure).

The key is left out: whoever keeps a packed row knows where it hangs.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Hashable
from typing import Generic, TypeVar

from zosfs.store.api import ObjectInfo

T = TypeVar("T", bound=Hashable)

ROW = struct.Struct("<qqHB")
"""Size, modification time, kind, and which form what follows has: how every row begins."""
FORM_AT = ROW.size - 1
_PARTED = re.compile(r"([0-9a-f]{32})-([1-9][0-9]{0,4})")
_TEXT, _DIGEST, _PARTS = 0, 1, 2
_DIGEST_LENGTH = 16


class Numbered(Generic[T]):
    """Things of which there are few over all objects: each is kept once, and called by its number, of 16 bits, in packed rows."""

    def __init__(self) -> None:
        self.things: list[T] = []
        self.numbers: dict[T, int] = {}

    def add(self, thing: T) -> int | None:
        """The number of one that has none yet; None when there are too many."""
        number = len(self.things)
        if number >= 1 << 16:
            return None
        self.things.append(thing)
        self.numbers[thing] = number
        return number


_KINDS = Numbered[tuple[str, str]]()
"""Storage class and object type."""


def pack(info: ObjectInfo) -> bytes | None:
    """*info* without its key; None when it says more than a plain listing does, or what has no room."""
    if info.metadata is not None or info.version_id or info.content_type or info.headers:
        return None
    return pack_plain(info)


def pack_plain(info: ObjectInfo) -> bytes | None:
    """What a plain listing says of *info*, without its key; None for what has no room."""
    kind = (info.storage_class, info.object_type)
    number = _KINDS.numbers.get(kind)
    if number is None:
        number = _KINDS.add(kind)
        if number is None:
            return None
    try:
        form, etag = _DIGEST, bytes.fromhex(info.etag)
    except ValueError:
        etag = b""
    if len(etag) != _DIGEST_LENGTH or etag.hex() != info.etag:
        form, etag = _other(info.etag)
    try:
        return ROW.pack(info.size, info.modified_ns, number, form) + etag
    except struct.error:
        return None


def _other(etag: str) -> tuple[int, bytes]:
    found = _PARTED.fullmatch(etag)
    if found:
        return _PARTS, bytes.fromhex(found[1]) + int(found[2]).to_bytes(4, "little")
    return _TEXT, etag.encode("utf-8", "surrogatepass")


def unpack(row: bytes, key: str) -> ObjectInfo:
    """What was packed, of the object *key*."""
    size, modified_ns, kind, form = ROW.unpack_from(row)
    return ObjectInfo(key, size, etag_of(form, row[ROW.size :]), modified_ns, *kind_of(kind))


def kind_of(number: int) -> tuple[str, str]:
    """Storage class and object type of a row with this *number*."""
    return _KINDS.things[number]


def etag_of(form: int, packed: bytes) -> str:
    """The ETag that a row of this *form* ends in."""
    if form == _DIGEST:
        return packed.hex()
    if form == _PARTS:
        return f"{packed[:16].hex()}-{int.from_bytes(packed[16:], 'little')}"
    return packed.decode("utf-8", "surrogatepass")


def size_and_time(row: bytes) -> tuple[int, int]:
    """Bytes, and the modification time in nanoseconds."""
    size, modified_ns, _, _ = ROW.unpack_from(row)
    return size, modified_ns
