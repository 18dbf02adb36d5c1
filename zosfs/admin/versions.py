"""Versions of objects: listed, and brought back. May use: store/."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from zosfs.admin.refusal import Refusal
from zosfs.store.api import Store


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
    markers: dict[str, Any] = {}
    while True:
        page = await store.call("list_object_versions", Prefix=prefix, **markers)
        rows = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
        found = [
            Version(
                row["Key"], row["VersionId"], row["LastModified"].isoformat(), row.get("Size", 0), row.get("ETag", "").strip('"'),
                bool(row.get("IsLatest")), "ETag" not in row,
            )
            for row in rows
        ]  # fmt: skip
        # within a page markers and versions come apart; the server's order is by key, newest first
        for version in sorted(sorted(found, key=lambda one: (one.latest, one.modified), reverse=True), key=lambda one: one.key.encode()):
            if not exact or version.key == prefix:
                yield version
        if not page.get("IsTruncated") or (exact and found and max(one.key for one in found) > prefix):
            return
        markers = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page.get("NextVersionIdMarker", "")}


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
    await store.copy(key, key, source_version_id=taken.id, size=taken.size)
    if len(acl.get("Grants", ())) > 1:
        await store.put_acl(key, acl)
    return taken.id
