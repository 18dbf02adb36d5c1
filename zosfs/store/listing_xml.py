"""One page of ListObjects, version 1 or 2, from its XML (pure).

The trio thread waits meanwhile, so each entry is touched once. Entries as servers write them are cut out by one pass of a regular
expression, which costs a fourth of making elements of them; the parser sees what is left, and all of a page in which any entry is
written in another way.
"""

from __future__ import annotations

import contextlib
import re
import xml.etree.ElementTree as ET
from operator import attrgetter
from sys import intern
from typing import cast
from urllib.parse import unquote_to_bytes

from zosfs.errors import StoreError
from zosfs.store.answers import iso_time_ns
from zosfs.store.api import ListPage, ObjectInfo

_NAMESPACE = re.compile(rb'\sxmlns=(?:"[^"]*"|\'[^\']*\')')

_ECHO = re.compile(rb"<(Prefix|Marker|NextMarker|StartAfter)>[^<]*&#[^<]*</\1>")
"""What Ceph repeats of a request without encoding it, with a character in it that XML has no way to write."""

_FIELDS = ("Key", "LastModified", "ETag", "Size", "StorageClass", "Type")
_OWNER = r"(?:<Owner>(?:<ID>[^<]*+</ID>)?+(?:<DisplayName>[^<]*+</DisplayName>)?+</Owner>)?+"
_PLAIN = re.compile(
    r"<Contents><Key>([^<&\r]++)</Key><LastModified>([^<&\r]*+)</LastModified>"
    r"<ETag>(?:&quot;|&#34;|\")([^<&\r\"]*+)(?:&quot;|&#34;|\")</ETag><Size>([0-9]++)</Size>"
    + _OWNER + r"(?:<StorageClass>([^<&\r]*+)</StorageClass>)?+" + _OWNER + r"(?:<Type>([^<&\r]*+)</Type>)?+</Contents>"
)
"""One object as Ceph, SeaweedFS and Amazon write it: each field once and in this order, without a character that stands for another.
No piece can be cut shorter and still fit, so that none is tried again."""


Row = tuple[str, ...]
"""The texts of `_FIELDS` of one object, "" where one is missing."""


def _cut_plain(document: bytes) -> tuple[bytes, list[Row]]:
    """*document* without its plain entries, and those; all of it and none where it has entries that are not plain."""
    if b"<!" not in document and (b"encoding=" not in document[:100] or b'encoding="UTF-8"' in document[:100]):
        step = len(_FIELDS) + 1
        with contextlib.suppress(UnicodeDecodeError):
            pieces: list[str | None] = list(_PLAIN.split(document.decode()))
            rest = "".join(cast(list[str], pieces[::step]))
            if "<Contents" not in rest:
                always = [cast(list[str], pieces[n::step]) for n in range(1, 5)]
                at_times = [[text or "" for text in pieces[n::step]] for n in range(5, step)]
                return rest.encode(), list(zip(*always, *at_times, strict=True))
    return document, []


def name_of(text: str) -> str:
    """A key or prefix as ``encoding-type=url`` writes it; bytes that are no UTF-8 become surrogates."""
    if "+" in text:
        text = text.replace("+", " ")
    if "%2F" in text:
        text = text.replace("%2F", "/")  # most keys have nothing else, and what goes on is Python
    return unquote_to_bytes(text).decode("utf-8", "surrogateescape") if "%" in text else text


def order(name: str) -> bytes:
    """What names are sorted by: their bytes."""
    return name.encode("utf-8", "surrogateescape")


def parse_page(document: bytes) -> tuple[ListPage, str]:
    """The page, and version 2's token for the next one. Objects and prefixes are each in bytewise order even where the server
    (SeaweedFS) lists in another.

    Raises StoreError ``BadAnswer`` when *document* is no listing.
    """
    rest, rows = _cut_plain(document)
    # without its namespace the tags need no cutting, which is half of the time
    rest = _NAMESPACE.sub(b"", rest, count=1)
    if b"&#" in rest and b"<EncodingType>url</EncodingType>" in rest:
        rest = _ECHO.sub(b"", rest)  # nothing of it is needed: a page goes on after its last name
    try:
        root = ET.fromstring(rest)
    except ET.ParseError as exc:
        raise StoreError("BadAnswer", message=f"no XML document: {exc}", operation="list") from None
    if root.tag != "ListBucketResult":
        raise StoreError("BadAnswer", message=f"a {root.tag} instead of a listing", operation="list")
    encoded = False
    truncated = False
    last_marker = token = ""
    raw_prefixes: list[str] = []
    for element in root:
        tag = element.tag
        if tag == "Contents":
            texts = {child.tag: child.text or "" for child in element}
            if not texts.get("Key"):
                raise StoreError("BadAnswer", message="an object without a key", operation="list")
            rows.append(tuple(texts.get(name, "") for name in _FIELDS))
        elif tag == "CommonPrefixes":
            raw_prefixes.append(element[0].text or "")
        elif tag == "EncodingType":
            encoded = element.text == "url"
        elif tag == "IsTruncated":
            truncated = (element.text or "").strip().lower() == "true"
        elif tag == "NextMarker":
            last_marker = element.text or ""
        elif tag == "NextContinuationToken":
            token = element.text or ""
    decode = name_of if encoded else str
    objects = [
        ObjectInfo(decode(key), int(size or 0), etag.strip('"'), iso_time_ns(modified), intern(storage_class), intern(object_type))
        for key, modified, etag, size, storage_class, object_type in rows
    ]
    prefixes = [decode(prefix) for prefix in raw_prefixes]
    marker = ""
    if truncated:
        last = {entry.key for entry in objects[-1:]} | set(prefixes[-1:])
        # Ceph does not encode it
        marker = last_marker if last_marker in last else decode(last_marker) or max(last, key=order, default="")
        if not marker:
            raise StoreError("BadAnswer", message="a listing that goes on, but not where", operation="list")
    # among characters that are no letters of ASCII may be those that stand for bytes
    ascii_only = all(entry.key.isascii() for entry in objects)
    objects.sort(key=attrgetter("key") if ascii_only else lambda entry: order(entry.key))
    prefixes.sort(key=order)
    return ListPage(objects, prefixes, marker), token
