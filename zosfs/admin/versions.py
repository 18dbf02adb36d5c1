"""Versions of objects: listed, and brought back. May use: store/."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from zosfs.admin.copies import headers_of
from zosfs.admin.refusal import Refusal
from zosfs.store.api import ListPage, ObjectInfo, Store

Row = Mapping[str, Any]
"""A version or a delete marker as boto3 returns it."""
LAST = "\U0010ffff"
"""Sorts behind everything that a key may have."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


PAGE = 1000
"""Versions and delete markers of one answer of the server, the most that it gives."""


async def rows_by_key(store: Store, prefix: str, after: str) -> AsyncIterator[tuple[str, list[Row]]]:
    """All versions and delete markers of each key under *prefix* behind the key *after*, the newest of each first, however they
    are spread over pages. Raises StoreError."""
    markers: dict[str, Any] = {"KeyMarker": after} if after else {}
    pending: dict[str, list[Row]] = {}
    while True:
        page = await store.call("list_object_versions", Prefix=prefix, MaxKeys=PAGE, **markers)
        for row in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
            pending.setdefault(row["Key"], []).append(row)
        more = bool(page.get("IsTruncated"))
        keys = sorted(pending, key=str.encode)
        if more and keys:
            keys.pop()  # its other versions may be on the next page
        for key in keys:
            # within a page markers and versions come apart
            yield key, sorted(pending.pop(key), key=lambda row: (bool(row.get("IsLatest")), row["LastModified"]), reverse=True)
        if not more:
            return
        markers = {"KeyMarker": page["NextKeyMarker"]}
        if page.get("NextVersionIdMarker"):
            markers["VersionIdMarker"] = page["NextVersionIdMarker"]


Shown = Callable[[str], AsyncGenerator[tuple[str, Sequence[ObjectInfo]], None]]
"""The keys behind a marker, in key order, each with the objects that a view of the bucket shows for it (at least one)."""


async def page_of(shown: Shown, prefix: str, delimiter: str, marker: str, max_keys: int) -> ListPage:
    """A page of *shown* as Store.list_page has it. Common prefixes are found in what is shown, because one that the server tells of may
    have nothing that is: once one key below is shown, the others are skipped. The objects of a key stand together, so that a page may
    be longer than *max_keys*."""
    objects: list[ObjectInfo] = []
    prefixes: list[str] = []
    after = marker + LAST if delimiter and marker.endswith(delimiter) and len(marker) > len(prefix) else marker
    last = ""
    while True:
        skip = ""
        async with aclosing(shown(after)) as keys:
            async for key, found in keys:
                if len(objects) + len(prefixes) >= max_keys:
                    return ListPage(sorted(objects, key=_order), prefixes, last)
                head, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
                last = prefix + head + cut if cut else key
                if cut:
                    prefixes.append(last)
                    skip = last + LAST
                    break
                objects += found
        if not skip:
            return ListPage(sorted(objects, key=_order), prefixes, "")
        after = skip


def _order(info: ObjectInfo) -> bytes:
    return info.key.encode()


def is_deletion(row: Row) -> bool:
    """Whether *row* is a delete marker."""
    return "ETag" not in row


def info_of_row(row: Row, key: str, object_type: str = "Normal") -> ObjectInfo:
    """The version *row* as an object listed at *key*."""
    return ObjectInfo(
        key=key, size=row["Size"], etag=row["ETag"].strip('"'), modified_ns=nanoseconds(row["LastModified"]),
        storage_class=row.get("StorageClass", ""), object_type=object_type, version_id=row["VersionId"],
    )  # fmt: skip


def nanoseconds(moment: datetime) -> int:
    """*moment* since the epoch."""
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a key; *deleted*: a delete marker. *modified* is RFC 3339, *latest* what reading the key gives."""

    key: str
    id: str
    modified: str
    size: int
    etag: str
    latest: bool
    deleted: bool


async def versions(store: Store, prefix: str, *, exact: bool) -> AsyncIterator[Version]:
    """All versions under *prefix* (*exact*: of the key *prefix* alone), key by key, the newest of each first."""
    async for key, rows in rows_by_key(store, prefix, ""):
        if exact and key != prefix:
            return
        for row in rows:
            modified = row["LastModified"].isoformat(timespec="milliseconds").replace("+00:00", "Z")
            yield Version(
                key, row["VersionId"], modified, row.get("Size", 0), row.get("ETag", "").strip('"'),
                bool(row.get("IsLatest")), is_deletion(row),
            )  # fmt: skip


async def bring_back(store: Store, key: str, version_id: str = "") -> str:
    """Make *version_id* (default: the newest that is no delete marker) the current version by a copy on the server; metadata,
    tags and ACL come along. Returns the version taken. Refusal (EINVAL) where there is nothing to bring back."""
    found = [version async for version in versions(store, key, exact=True)]
    if version_id:
        found = [version for version in found if version.id == version_id]
        if not found:
            raise Refusal(f"{key} has no version {version_id}")
        if found[0].deleted:
            raise Refusal(f"version {version_id} of {key} is a delete marker: there is nothing to bring back")
    found = [version for version in found if not version.deleted]
    if not found:
        raise Refusal(f"{key} has no version to bring back")
    taken = found[0]
    acl = await store.get_acl(key, version_id=taken.id)
    if taken.id == "null":
        # of before versioning. Ceph has kept with it that the key was deleted since; a copy that takes all along would have that,
        # too, and be missing wherever it is copied to
        info = await store.head(key, version_id=taken.id)
        tags = await store.get_tags(key, version_id=taken.id)
        await store.copy(key, key, source_version_id=taken.id, headers=headers_of(info), size=taken.size)
        if tags:
            await store.put_tags(key, tags)
    else:
        await store.copy(key, key, source_version_id=taken.id, size=taken.size)
    if len(acl.get("Grants", ())) > 1:
        await store.put_acl(key, acl)
    return taken.id
