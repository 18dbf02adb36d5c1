"""What an object that is made must still be given: headers, tags and locks that did not come with its bytes.

Owns: nothing. May use: store/. Must not know: where its bytes come from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from zosfs.content.append import AppendState, set_headers_by_empty_append
from zosfs.store.api import ObjectHeaders, ObjectInfo, Store

REWRITABLE = 5 << 30
"""Largest object whose headers a server is sure to change by a copy onto itself."""
_PERMISSIONS = ("mode", "uid", "gid")
_LOCKS = "x-amz-object-lock-"
_TIMES = {"mtime", "atime", "ctime"}


def attributes_said(metadata: Mapping[str, str]) -> dict[str, str]:
    """What an object's *metadata* say of mode, owner and times."""
    return {name: metadata[name] for name in (*_PERMISSIONS, *sorted(_TIMES)) if name in metadata}


def same_attributes(one: Mapping[str, str] | None, other: Mapping[str, str] | None) -> bool:
    """Whether the metadata of two objects say the same mode, owner and times. Of the same bytes, they hardly do by chance: ctime tells when
    the attributes were changed last, to the nanosecond."""
    return attributes_said(one or {}) == attributes_said(other or {})


def has_metadata(found: ObjectInfo, headers: ObjectHeaders) -> bool:
    """Whether *found* has the metadata of *headers*, if perhaps more."""
    theirs = found.metadata or {}
    return all(theirs.get(name) == value for name, value in headers.metadata.items())


def alike(began: ObjectHeaders, headers: ObjectHeaders) -> bool:
    """Whether an upload begun with *began* makes an object of *headers*, but for what `put_tags` puts on it afterwards."""

    def made(one: ObjectHeaders) -> ObjectHeaders:
        extra = {name: value for name, value in one.extra.items() if not name.startswith(_LOCKS)}
        return dataclasses.replace(one, tags=None, extra=extra)

    return made(began) == made(headers)


def with_times_of(headers: ObjectHeaders, began: ObjectHeaders) -> ObjectHeaders:
    """*headers* with the times that an upload was begun with."""
    times = {name: value for name, value in began.metadata.items() if name in _TIMES}
    rest = {name: value for name, value in headers.metadata.items() if name not in _TIMES}
    return dataclasses.replace(headers, metadata={**rest, **times})


async def correct_headers(store: Store, info: ObjectInfo, headers: ObjectHeaders) -> ObjectInfo:
    """Give a finished object the headers of now, where they are others than when its upload began.

    Costs a copy onto itself: a matter of references on Ceph. Left out where it would cost more than it is worth: objects
    above 5 GiB whose permissions are right, and versioned buckets where only times differ (the copy would be a version). An object that
    grows by appends would be copied to one that does not: it gets them by an append of nothing.
    """
    if info.appendable and store.abilities.append:
        changed = (await set_headers_by_empty_append(store, info.key, AppendState.of(info), headers)).info
        await put_tags(store, info.key, headers)
        return changed
    old, new = info.metadata or {}, headers.metadata
    differing = {name for name in {*old, *new} if old.get(name) != new.get(name)}
    only_metadata = info.content_type == headers.content_type
    too_large = info.size > REWRITABLE and not differing.intersection(_PERMISSIONS)
    if too_large or (store.abilities.versioned and only_metadata and differing and differing <= _TIMES):
        await put_tags(store, info.key, headers)
        return info
    written = await store.copy(info.key, info.key, headers=headers, acl=headers.acl, if_match=info.etag, size=info.size)
    await put_tags(store, info.key, headers)
    return dataclasses.replace(
        info, etag=written.etag or info.etag, version_id=written.version_id or info.version_id,
        modified_ns=written.modified_ns or info.modified_ns, metadata=dict(headers.metadata), content_type=headers.content_type,
    )  # fmt: skip


async def rewrite(store: Store, info: ObjectInfo, wanted: ObjectHeaders) -> tuple[str, int]:
    """Give the object *info* the headers *wanted* in place; returns its ETag ("" unknown) and new modification time in ns.

    Keeps tags; the ACL is what *wanted* says. Raises ESTALE when the object is no longer the one of *info*.
    """
    key = info.key
    tags: Mapping[str, str] | None = None
    if int(info.headers.get("x-amz-tagging-count", "0") or 0):
        tags = await store.get_tags(key)
    written = await store.copy(key, key, headers=wanted, acl=wanted.acl, if_match=info.etag, size=info.size)
    if tags:
        await store.put_tags(key, tags)
    await put_locks(store, key, wanted)
    return written.etag, written.modified_ns


async def put_tags(store: Store, key: str, headers: ObjectHeaders) -> None:
    """Tags and locks given when an upload is created are dropped by Ceph: set them on the finished object."""
    if headers.tags:
        await store.put_tags(key, headers.tags)
    await put_locks(store, key, headers)


async def put_locks(store: Store, key: str, headers: ObjectHeaders) -> None:
    """The legal hold and the retention of *headers* on the finished object: Ceph heeds those headers in a plain PUT only."""
    mode = headers.extra.get("x-amz-object-lock-mode")
    if mode:
        until = headers.extra["x-amz-object-lock-retain-until-date"]
        await store.call("put_object_retention", Key=key, Retention={"Mode": mode, "RetainUntilDate": until})
    if "x-amz-object-lock-legal-hold" in headers.extra:
        await store.call("put_object_legal_hold", Key=key, LegalHold={"Status": headers.extra["x-amz-object-lock-legal-hold"]})
