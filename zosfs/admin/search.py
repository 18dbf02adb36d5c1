"""Searching objects by their metadata, where the server has an index of them. May use: store/. Must not know: terminals."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from zosfs.admin.refusal import Refusal
from zosfs.store.api import Store

MODES = ("term", "fuzzy", "wild", "regex")
ORDERS = ("asc", "desc")
PAGE = 1000


@dataclass(frozen=True, slots=True)
class Hit:
    """An object that was found. *modified* as the server writes it, *version* "" or "null" without versions."""

    key: str
    version: str
    modified: str
    size: int
    etag: str
    content_type: str
    storage_class: str
    metadata: Mapping[str, str]


async def search(
    store: Store, query: str, *, mode: str = "", order: str = "", order_key: str = "", most: int = 0
) -> AsyncIterator[Hit]:
    """The objects that match *query*, at most *most* (0: all), page by page.

    Refusal: EINVAL for an empty query, an unknown mode or order; ENOTSUP where the server takes the search for a listing.
    """
    if not query.strip():
        raise Refusal("search: the query is empty")
    if mode and mode not in MODES:
        raise Refusal(f"search: mode {mode!r} is none of {', '.join(MODES)}")
    if order and order not in ORDERS:
        raise Refusal(f"search: order {order!r} is none of {', '.join(ORDERS)}")
    wanted = {"Mode": mode, "Order": order, "OrderKey": order_key}
    members: dict[str, Any] = {name: value for name, value in wanted.items() if value}
    found, marker = 0, ""
    while True:
        page_size = min(PAGE, most - found) if most else PAGE
        answer = await store.call(
            "md_search", Query=query, MaxKeys=page_size, **members, **({"Marker": marker} if marker else {})
        )
        if "Name" in answer or "MaxKeys" in answer:
            raise Refusal(f"the server of {store.bucket} does not search metadata: it answered with a plain listing", errno.ENOTSUP)
        for row in answer.get("Contents", ()):
            yield _hit(row)
            found += 1
            if found == most:
                return
        before, marker = marker, str(answer.get("Marker", ""))
        if str(answer.get("IsTruncated", "")).lower() != "true" or not marker or marker == before:
            return


def _hit(row: Mapping[str, Any]) -> Hit:
    metadata = {entry.get("Name", ""): entry.get("Value", "") for entry in row.get("CustomMetadata", {}).get("Entry", ())}
    size = str(row.get("Size", ""))
    return Hit(
        row.get("Key", ""), row.get("Instance", ""), row.get("LastModified", ""), int(size) if size.isdigit() else 0,
        row.get("ETag", "").strip('"'), row.get("ContentType", ""), row.get("StorageClass", ""), metadata,
    )  # fmt: skip
