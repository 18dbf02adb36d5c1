"""Copies on the server, from object to object: within a bucket, to another one, whole directories.

Owns: how one object is copied so that nothing of it gets lost (bytes, metadata, content headers, tags, ACL, storage class), and how
many are copied at a time. May use: store/. Must not know: FUSE, terminals.

An object that grows by appends is copied into one that does not: on Ceph a plain copy would share its parts, and appending to one of
the two would make the other unappendable.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import trio

from zosfs.admin.objects import KEPT
from zosfs.errors import StoreError
from zosfs.store.api import ObjectHeaders, ObjectInfo, PartInfo, Store
from zosfs.store.objects import objects_below

GIB = 1 << 30
SINGLE = 5 * GIB
"""The largest object that S3 copies in one request."""
PART = GIB // 2
PARTS = 10_000
AT_ONCE = 16
PARTS_AT_ONCE = 4

Step = Callable[[int], None]
"""Told how many more bytes are copied."""


@dataclass(frozen=True, slots=True)
class How:
    """How to copy. Objects over *single* bytes go in parts of at least *part* bytes (5 MiB or more). *acl*: take the ACL along, which
    costs a request an object. *replace* False leaves what is there already."""

    single: int = SINGLE
    part: int = PART
    acl: bool = True
    replace: bool = True


@dataclass(slots=True)
class Outcome:
    """What a copy of many came to: objects and bytes copied, keys left because they were there, and failures (source key, line)."""

    objects: int = 0
    bytes: int = 0
    left: int = 0
    failures: list[tuple[str, str]] | None = None


def part_ranges(size: int, part: int) -> list[tuple[int, int]]:
    """The half-open ranges in which *size* bytes are copied: equal parts of at least *part* bytes, at most 10,000 of them (pure)."""
    length = max(part, math.ceil(size / PARTS), 1)
    return [(start, min(start + length, size)) for start in range(0, size, length)]


async def copy_object(
    source: Store, target: Store, info: ObjectInfo, key: str, how: How = How(), step: Step = lambda _: None
) -> None:  # fmt: skip
    """Copy the object that *info* (of a HEAD or a listing of *source*) describes to *key* of *target*, with all that it has.

    Raises ESTALE when the source changed meanwhile, StoreError otherwise; what was at *key* stays then.
    """
    if info.metadata is None and info.object_type:  # Ceph's listings forget of a tagged object that it grows by appends
        info = await source.head(info.key)
    parts = info.size > how.single
    marker = info.key.endswith("/") and not info.size
    plain = not parts and not marker and not info.appendable and info.storage_class in ("", "STANDARD")
    tags: Mapping[str, str] = {}
    if not plain:
        if info.metadata is None:
            info = await source.head(info.key)
        tags = await source.get_tags(info.key) if not marker or info.headers.get("x-amz-tagging-count", "0") != "0" else {}
    acl = await source.get_acl(info.key) if how.acl and not marker else {}
    if parts:
        await _copy_parts(source, target, info, key, how, step)
    elif marker:  # not every server has an object that could be copied for a directory
        await target.put(key, (), headers_of(info))
    else:
        await target.copy(
            info.key, key, source_bucket=source.bucket, headers=None if plain else headers_of(info), if_match=info.etag, size=info.size
        )
        step(info.size)
    if tags:
        await target.put_tags(key, tags)
    if len(acl.get("Grants", ())) > 1:
        await target.put_acl(key, acl_for(acl, await target.get_acl(key)))


def headers_of(info: ObjectInfo) -> ObjectHeaders:
    """What a copy of the object that *info* (of a HEAD) describes has to be given, where it does not take all along by itself (pure)."""
    extra = {name: info.headers[name] for name in KEPT if info.headers.get(name)}
    storage_class = "" if info.storage_class == "STANDARD" else info.storage_class
    return ObjectHeaders(dict(info.metadata or {}), info.content_type, "", storage_class, None, extra)


def acl_for(acl: Mapping[str, Any], fresh: Mapping[str, Any]) -> dict[str, Any]:
    """The grants of *acl* for an object whose ACL is *fresh*: it keeps its own owner, who takes the place of the other's (pure)."""
    old, new = acl.get("Owner", {}).get("ID", ""), fresh.get("Owner", {})
    grants = [
        {**grant, "Grantee": {**grant["Grantee"], "ID": new["ID"], "DisplayName": new.get("DisplayName", "")}}
        if new.get("ID") and grant["Grantee"].get("ID") == old
        else grant
        for grant in acl.get("Grants", ())
    ]
    return {"Owner": new or acl.get("Owner", {}), "Grants": grants}


async def _copy_parts(source: Store, target: Store, info: ObjectInfo, key: str, how: How, step: Step) -> None:
    upload = await target.create_upload(key, headers_of(info))
    try:
        ranges = iter(enumerate(part_ranges(info.size, how.part), 1))
        done: list[PartInfo] = []

        async def worker() -> None:
            for number, (start, end) in ranges:
                done.append(
                    await target.upload_part_copy(
                        key, upload, number, info.key, start, end, if_match=info.etag, source_bucket=source.bucket
                    )
                )
                step(end - start)

        await _together([worker] * PARTS_AT_ONCE)
        if (await source.head(info.key)).etag != info.etag:  # not every server heeds the condition of a part's copy
            raise StoreError("PreconditionFailed", status=412, operation="copy", key=info.key)
        await target.complete_upload(key, upload, sorted(done, key=lambda part: part.number))
    except BaseException:
        with trio.CancelScope(shield=True), trio.move_on_after(30):
            await target.abort_upload(key, upload)
        raise


async def _together(workers: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Run *workers* at once; the first failure ends them all, and is raised as itself."""
    failure: list[OSError] = []

    async def guarded(worker: Callable[[], Awaitable[None]]) -> None:
        try:
            await worker()
        except OSError as exc:
            failure.append(exc)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for worker in workers:
            nursery.start_soon(guarded, worker)
    if failure:
        raise failure[0]


async def copy_below(
    source: Store, prefix: str, target: Store, into: str, how: How = How(), *,
    step: Step = lambda _: None, found: Step = lambda _: None,
) -> Outcome:  # fmt: skip
    """Copy every object under *prefix* of *source* to the same name under *into* of *target*, 16 at a time. Objects that cannot be
    copied are in the outcome's failures, and the others are copied all the same. *found* is told of bytes to come."""
    outcome = Outcome(failures=[])
    assert outcome.failures is not None
    failures = outcome.failures
    send, receive = trio.open_memory_channel[ObjectInfo](AT_ONCE)

    async def worker() -> None:
        async for info in receive:
            key = into + info.key.removeprefix(prefix)
            try:
                if not how.replace and await exists(target, key):
                    outcome.left += 1
                    step(info.size)
                    continue
                await copy_object(source, target, info, key, how, step)
            except StoreError as exc:
                failures.append((info.key, str(exc)))
            else:
                outcome.objects += 1
                outcome.bytes += info.size

    async def feed() -> None:
        async with send, aclosing(objects_below(source, prefix)) as objects:
            async for info in objects:
                found(info.size)
                await send.send(info)

    await _together([feed, *[worker] * AT_ONCE])
    return outcome


async def exists(store: Store, key: str) -> bool:
    """Whether *key* is there. Raises StoreError when that cannot be said."""
    try:
        await store.head(key)
    except StoreError as exc:
        if exc.status == 404:
            return False
        raise
    return True
