"""One page of ListObjects, version 1 or 2, from its XML (pure).

About 4 ms a page of 1000 on the trio thread: the parser is C, and each entry is touched once.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from urllib.parse import unquote_to_bytes

from zosfs.errors import StoreError
from zosfs.store.answers import iso_time_ns
from zosfs.store.api import ListPage, ObjectInfo


def name_of(text: str) -> str:
    """A key or prefix as ``encoding-type=url`` writes it; bytes that are no UTF-8 become surrogates."""
    if "+" in text:
        text = text.replace("+", " ")
    return unquote_to_bytes(text).decode("utf-8", "surrogateescape") if "%" in text else text


def order(name: str) -> bytes:
    """What names are sorted by: their bytes."""
    return name.encode("utf-8", "surrogateescape")


def parse_page(document: bytes) -> tuple[ListPage, str]:
    """The page, and version 2's token for the next one. Objects and prefixes are each in bytewise order even where the server
    (SeaweedFS) lists in another.

    Raises StoreError ``BadAnswer`` when *document* is no listing.
    """
    try:
        root = ET.fromstring(document)
    except ET.ParseError as exc:
        raise StoreError("BadAnswer", message=f"no XML document: {exc}", operation="list") from None
    skip = len(root.tag.partition("}")[0]) + 1 if root.tag.startswith("{") else 0
    if root.tag[skip:] != "ListBucketResult":
        raise StoreError("BadAnswer", message=f"a {root.tag[skip:]} instead of a listing", operation="list")
    encoded = False
    truncated = False
    last_marker = token = ""
    raw_objects: list[dict[str, str]] = []
    raw_prefixes: list[str] = []
    for element in root:
        tag = element.tag[skip:]
        if tag == "Contents":
            raw_objects.append({child.tag[skip:]: child.text or "" for child in element})
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
        ObjectInfo(
            key=decode(row["Key"]),
            size=int(row.get("Size") or 0),
            etag=row.get("ETag", "").strip('"'),
            modified_ns=iso_time_ns(row.get("LastModified", "")),
            storage_class=row.get("StorageClass", ""),
            object_type=row.get("Type", ""),
        )
        for row in raw_objects
    ]
    prefixes = [decode(prefix) for prefix in raw_prefixes]
    marker = ""
    if truncated:
        last = {entry.key for entry in objects[-1:]} | set(prefixes[-1:])
        if last_marker in last:
            marker = last_marker  # Ceph does not encode it
        else:
            marker = decode(last_marker) or max(last, key=order, default="")
        if not marker:
            raise StoreError("BadAnswer", message="a listing that goes on, but not where", operation="list")
    objects.sort(key=lambda entry: order(entry.key))
    prefixes.sort(key=order)
    return ListPage(objects, prefixes, marker), token
