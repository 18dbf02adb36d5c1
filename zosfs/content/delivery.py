"""Carrying a flush plan out: requests in parallel, conflicts found as late as the server allows, nothing half-done left behind.

Owns: nothing that lasts. May use: the plan, the store. Must not know: names, handles, the journal.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import trio

from zosfs.content.plan import Append, Base, CopyRange, Multipart, Nothing, Plan, Put
from zosfs.errors import StoreError
from zosfs.store.api import Body, ObjectHeaders, ObjectInfo, PartInfo, Store, Written

log = logging.getLogger(__name__)

REWRITABLE = 5 << 30
"""Largest object whose headers a server is sure to change by a copy onto itself."""


class Source(Protocol):
    """The staged bytes of the file that is delivered."""

    def lend(self, start: int, end: int) -> Body:
        """Bytes ``[start, end)``, unchanged until given back."""
        ...

    def give_back(self, start: int, end: int) -> None:
        """The loan of ``[start, end)`` ended."""
        ...

    async def fetch(self, start: int, end: int) -> None:
        """Make the base's bytes ``[start, end)`` present."""
        ...


def delivered_info(key: str, size: int, written: Written, headers: ObjectHeaders, object_type: str = "Normal") -> ObjectInfo:
    """What a HEAD would say after a write that left *written*, so that none is needed."""
    extra = dict(headers.extra)
    if headers.tags:
        extra["x-amz-tagging-count"] = str(len(headers.tags))
    if written.next_position is not None:
        extra["x-rgw-next-append-position"] = str(written.next_position)
    return ObjectInfo(
        key=key, size=size, etag=written.etag, modified_ns=written.modified_ns or time.time_ns() // 10**9 * 10**9,
        storage_class=headers.storage_class, object_type=object_type, version_id=written.version_id,
        content_type=headers.content_type, metadata=dict(headers.metadata), headers=extra,
    )  # fmt: skip


async def check_unchanged(store: Store, key: str, base: Base | None) -> None:
    """Raise ``Conflict`` (ESTALE) when the object at *key* is not (any more) the one of *base*."""
    try:
        now = (await store.head(key)).etag
    except StoreError as exc:
        if exc.status != 404:
            raise
        now = ""
    expected = base.etag if base else ""
    if now != expected:
        raise StoreError("Conflict", status=412, operation="write", key=key, message=f"ETag {now or 'none'}, not {expected or 'none'}")


async def deliver(
    store: Store, key: str, plan: Plan, size: int, source: Source, headers: ObjectHeaders, base: Base | None, concurrency: int
) -> ObjectInfo | None:
    """Make the object at *key* the file of *size* bytes that *plan* was made for; returns its facts (None: nothing to do).

    Raises StoreError: ``Conflict`` when somebody else changed the object, else what the server refused; an upload that was
    begun is aborted then.
    """
    if isinstance(plan, Nothing):
        return None
    if isinstance(plan, Put):
        for start, end in plan.downloads:
            await source.fetch(start, end)
        return await put(store, key, size, source, headers, base)
    if isinstance(plan, Append):
        body = source.lend(plan.start, plan.end)
        try:
            written = await store.append(key, plan.position, body, headers)
        finally:
            source.give_back(plan.start, plan.end)
        return delivered_info(key, size, written, headers, "Appendable")
    return await multipart(store, key, plan, size, source, headers, base, concurrency)


async def put(
    store: Store, key: str, size: int, source: Source, headers: ObjectHeaders, base: Base | None
) -> ObjectInfo:
    """The whole file in one request, conditional where the server can."""
    abilities = store.abilities
    if base is None:
        if not abilities.put_if_none_match:
            await check_unchanged(store, key, None)
    elif not abilities.put_if_match:
        await check_unchanged(store, key, base)
    body = source.lend(0, size)
    try:
        written = await store.put(
            key, body if size else (), headers, if_match=base.etag if base else "", if_none_match=base is None
        )
    finally:
        source.give_back(0, size)
    return delivered_info(key, size, written, headers)


async def multipart(
    store: Store, key: str, plan: Multipart, size: int, source: Source, headers: ObjectHeaders, base: Base | None, concurrency: int
) -> ObjectInfo:
    """The file as parts, some of them copied by the server from the base."""
    for start, end in plan.downloads:
        await source.fetch(start, end)
    upload = await store.create_upload(key, headers)
    try:
        jobs: list[Callable[[], Awaitable[PartInfo]]] = []
        for number, part in enumerate(plan.parts, 1):
            if isinstance(part, CopyRange):
                assert base is not None
                jobs.append(_copy_job(store, key, upload, number, base, part.start, part.end))
            else:
                jobs.append(_upload_job(store, key, upload, number, source, part.start, part.end))
        parts = await in_parallel(jobs, concurrency)
        await check_unchanged(store, key, base)
        written = await store.complete_upload(key, upload, parts)
    except BaseException:
        with trio.CancelScope(shield=True), trio.move_on_after(10):
            try:
                await store.abort_upload(key, upload)
            except StoreError as exc:
                log.warning("the upload %s of %s could not be aborted: %s", upload, key, exc)
        raise
    await put_tags(store, key, headers)
    return delivered_info(key, size, written, headers)


async def put_tags(store: Store, key: str, headers: ObjectHeaders) -> None:
    """Tags given when an upload is created are dropped by Ceph: set them on the finished object."""
    if headers.tags:
        await store.put_tags(key, headers.tags)


def _copy_job(store: Store, key: str, upload: str, number: int, base: Base, start: int, end: int) -> Callable[[], Awaitable[PartInfo]]:
    async def job() -> PartInfo:
        return await store.upload_part_copy(key, upload, number, base.key, start, end, if_match=base.etag)

    return job


def _upload_job(
    store: Store, key: str, upload: str, number: int, source: Source, start: int, end: int
) -> Callable[[], Awaitable[PartInfo]]:
    async def job() -> PartInfo:
        body = source.lend(start, end)
        try:
            return await store.upload_part(key, upload, number, body)
        finally:
            source.give_back(start, end)

    return job


async def in_parallel(jobs: Sequence[Callable[[], Awaitable[PartInfo]]], concurrency: int) -> list[PartInfo]:
    """Run *jobs*, *concurrency* at once; the first failure ends the others and is raised as it is."""
    results: list[PartInfo | None] = [None] * len(jobs)
    waiting = iter(enumerate(jobs))
    failure: StoreError | None = None

    async with trio.open_nursery() as nursery:

        async def worker() -> None:
            nonlocal failure
            for index, job in waiting:
                try:
                    results[index] = await job()
                except StoreError as exc:
                    failure = failure or exc
                    nursery.cancel_scope.cancel()
                    return

        for _ in range(min(concurrency, len(jobs))):
            nursery.start_soon(worker)
    if failure is not None:
        raise failure
    return [result for result in results if result is not None]


async def correct_headers(store: Store, info: ObjectInfo, headers: ObjectHeaders) -> ObjectInfo:
    """Give a finished multipart object the headers of now, where they are others than when its upload began."""
    if info.size > REWRITABLE:
        return info
    written = await store.copy(info.key, info.key, headers=headers, if_match=info.etag, size=info.size)
    await put_tags(store, info.key, headers)
    return dataclasses.replace(
        info, etag=written.etag or info.etag, version_id=written.version_id or info.version_id,
        modified_ns=written.modified_ns or info.modified_ns, metadata=dict(headers.metadata), content_type=headers.content_type,
    )  # fmt: skip
