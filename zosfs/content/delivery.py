"""Carrying a flush plan out: requests in parallel, conflicts found as late as the server allows, nothing half-done left behind.

Owns: nothing that lasts. May use: the plan, the store. Must not know: names, handles, the journal.

Where the server honours conditions, a PUT is conditional and nobody's work can be overwritten unseen. Where it does not
(completing a multipart upload on Ceph 16, any PUT on a versioned bucket there), the object is looked at right before the
request that replaces it, and a change between those two goes unnoticed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import trio

from zosfs.content.append import AppendState, append, holds, look
from zosfs.content.etags import body_md5, multipart_etag, slice_body
from zosfs.content.memory import MemoryBudget
from zosfs.content.plan import Append, Base, CopyRange, Limits, Multipart, Nothing, Part, Plan, Put, plan
from zosfs.content.ranges import Ranges
from zosfs.errors import StoreError
from zosfs.store.api import Abilities, Body, ObjectHeaders, ObjectInfo, PartInfo, Piece, Store, Written, body_length

log = logging.getLogger(__name__)

REWRITABLE = 5 << 30
"""Largest object whose headers a server is sure to change by a copy onto itself."""
PATIENT_EXTENSIONS = 200
"""How often another writer may win before an appending one gives up."""
_PERMISSIONS = ("mode", "uid", "gid")
_LOCKS = "x-amz-object-lock-"
_TIMES = {"mtime", "atime", "ctime"}
_GONE = ("NoSuchKey", "InvalidRange")

T = TypeVar("T")


class Source(Protocol):
    """The staged bytes of the file that is delivered."""

    def lend(self, start: int, end: int) -> Body:
        """Bytes ``[start, end)``, unchanged until given back."""
        ...

    def give_back(self, start: int, end: int) -> None:
        """The loan of ``[start, end)`` ended."""
        ...

    async def fetch(self, start: int, end: int) -> None:
        """Make the base's bytes ``[start, end)`` present. OSError(ENOSPC) where the disk does not take them."""
        ...


@dataclass(slots=True)
class UploadRecord:
    """A multipart upload that may be continued: its id, what it is made of (*shape*), the parts that are up, by number.

    Good only for the same staged bytes: who continues an upload vouches that they did not change.
    """

    upload_id: str
    shape: str
    parts: dict[int, PartInfo] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain values, fit for JSON."""
        parts = [[part.number, part.etag, part.size] for part in self.parts.values()]
        return {"upload_id": self.upload_id, "shape": self.shape, "parts": parts}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> UploadRecord:
        """The record that `to_json` told of."""
        return cls(values["upload_id"], values["shape"], {n: PartInfo(n, etag, size) for n, etag, size in values["parts"]})


OnPart = Callable[[UploadRecord], Awaitable[None]]


def delivered_info(key: str, size: int, written: Written, headers: ObjectHeaders, object_type: str = "Normal") -> ObjectInfo:
    """What a HEAD would say after a write that left *written*, so that none is needed.

    *modified_ns* is the answer's Date (whole seconds), else this host's clock: near the server's Last-Modified, not equal to it.
    """
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
    found = await look(store, key)
    now, expected = found.etag if found else "", base.etag if base else ""
    if now != expected:
        raise _conflict(key, f"ETag {now or 'none'}, not {expected or 'none'}")


async def deliver(
    store: Store,
    key: str,
    plan: Plan,
    size: int,
    source: Source,
    headers: ObjectHeaders,
    base: Base | None,
    concurrency: int,
    *,
    limits: Limits | None = None,
    tail: tuple[int, int] | None = None,
    doubtful: bool = False,
    resume: UploadRecord | None = None,
    on_part: OnPart | None = None,
    progress: Callable[[int], object] | None = None,
    memory: MemoryBudget | None = None,
    expect: Callable[[str], Awaitable[None]] | None = None,
) -> ObjectInfo | None:
    """Make the object at *key* the file of *size* bytes that *plan* was made for; returns its facts (None: nothing to do).

    *tail*: the file was opened with O_APPEND and grew by the staged bytes ``[start, end)`` only. Then a changed object
    is no conflict: the tail goes to its end. The result's size is larger than *size* when others' bytes came in between.
    *doubtful*: an earlier delivery of exactly these bytes may have been applied without an answer.
    *on_part* is told the upload after its creation and after each part; with it, an upload that failed for a passing
    reason is kept, to be continued by passing the record as *resume*; without it, it is aborted. *progress* is told the
    bytes that each finished request brought. With *memory* the base's bytes that are needed are not fetched into the source, whose disk
    is full, but pass through that budget; *expect* is told the ETag of an object made of such bytes in one PUT, before it is sent.

    Raises StoreError: ``Conflict``/``PreconditionFailed`` (ESTALE) when somebody else changed the object, else what the store or
    the source raised.
    """
    work = _Delivery(store, key, headers, concurrency, limits or Limits(), on_part, progress, memory, expect)
    if isinstance(plan, Nothing):
        return None
    try:
        if isinstance(plan, Append):
            return await work.append(plan, size, source, base, tail is not None, doubtful)
        return await work.replace(plan, size, source, base, resume)
    except StoreError as exc:
        if tail is None or (exc.errno != errno.ESTALE and exc.code != "ObjectNotAppendable"):
            raise
        return await work.extend(tail, source, base.size if base else 0, doubtful)


class _Delivery:
    """One file on its way."""

    def __init__(
        self,
        store: Store,
        key: str,
        headers: ObjectHeaders,
        concurrency: int,
        limits: Limits,
        on_part: OnPart | None,
        progress: Callable[[int], object] | None,
        memory: MemoryBudget | None,
        expect: Callable[[str], Awaitable[None]] | None,
    ) -> None:
        self.store, self.key, self.headers = store, key, headers
        self.concurrency, self.limits = concurrency, limits
        self.on_part = on_part
        self.memory, self.expect = memory, expect
        self.progress = progress or (lambda done: None)

    async def replace(
        self, steps: Plan, size: int, source: Source, base: Base | None, resume: UploadRecord | None = None
    ) -> ObjectInfo:
        """PUT or multipart: a new object in the place of *base*."""
        if isinstance(steps, Multipart):
            return await self._multipart(steps, size, source, base, resume)
        assert isinstance(steps, Put)
        async with self._bytes(source, 0, size, steps.downloads, base) as body:
            return await self._put(size, body, base)

    @contextlib.asynccontextmanager
    async def _bytes(self, source: Source, start: int, end: int, old: Sequence[tuple[int, int]], base: Base | None) -> AsyncIterator[Body]:
        """Bytes ``[start, end)`` of the file, which do not change within; *old* are those of the base that the source lacks."""
        if not old or self.memory is None:
            await in_parallel([_bound(self._fetch, source, low, high) for low, high in old], self.concurrency)
            body = source.lend(start, end)
            try:
                yield body
            finally:
                source.give_back(start, end)
            return
        assert base is not None
        async with self.memory.reserved(sum(high - low for low, high in old)):
            body = source.lend(start, end)
            try:
                yield await laid_over(self.store, base, body, start, old)
            finally:
                source.give_back(start, end)

    async def append(
        self, steps: Append, size: int, source: Source, base: Base | None, appending: bool, doubtful: bool
    ) -> ObjectInfo:
        """One append; where the object turns out to take none although nobody changed it, the whole object anew."""
        body = source.lend(steps.start, steps.end)
        state = AppendState(steps.position, base.etag if base else "")
        try:
            done = await append(self.store, self.key, state, body, self.headers, appending=appending, doubtful=doubtful)
            self.progress(steps.end - steps.start)
            return done.info
        except StoreError as exc:
            if exc.code != "ObjectNotAppendable" or appending:
                raise
        finally:
            source.give_back(steps.start, steps.end)
        grown = Ranges([(steps.start, steps.end)])
        normal = dataclasses.replace(base, appendable=False) if base else None
        return await self.replace(plan(normal, grown, size, self.limits, Abilities(), appending=False), size, source, normal)

    async def extend(self, tail: tuple[int, int], source: Source, position: int, doubtful: bool) -> ObjectInfo:
        """Add the staged bytes *tail* to the end of whatever object is there, and again when another writer was faster."""
        start, end = tail
        for _ in range(PATIENT_EXTENSIONS):
            found = await look(self.store, self.key)
            if found is not None and doubtful and found.size > position:
                body = source.lend(start, end)
                try:
                    landed = await holds(self.store, self.key, position, body, found)
                finally:
                    source.give_back(start, end)
                if landed == end - start:
                    return found
                start += landed  # an earlier, shorter try of a tail that has grown since
                doubtful = False
            try:
                if found is not None and found.appendable and self.store.abilities.append:
                    try:
                        return await self.append(
                            Append(found.size, start, end), found.size + end - start, source, Base.of(found), True, False
                        )
                    except StoreError as exc:
                        if exc.code != "ObjectNotAppendable":
                            raise
                old = found.size if found else 0
                base = Base(self.key, old, found.etag) if found else None
                size = old + end - start
                steps = plan(base, Ranges([(old, size)]), size, self.limits, Abilities(), appending=False)
                self.memory = None  # the old bytes pass through it anyway, see _Extended
                if isinstance(steps, Nothing) and found is not None:
                    return found
                return await self.replace(steps, size, _Extended(source, self.store, base, start), base)
            except StoreError as exc:
                if exc.errno != errno.ESTALE:
                    raise
            await trio.sleep(random.uniform(0, 0.05))
        raise _conflict(self.key, "others went on changing it")

    async def _put(self, size: int, body: Body, base: Base | None) -> ObjectInfo:
        able = self.store.abilities
        conditional = (able.put_if_match if base else able.put_if_none_match) and not able.versioned
        if self.memory is not None and self.expect is not None:
            await self.expect(await trio.to_thread.run_sync(body_md5, body))
        try:
            if not conditional:
                await check_unchanged(self.store, self.key, base)
            written = await self.store.put(
                self.key, body, self.headers,
                if_match=base.etag if base and conditional else "", if_none_match=base is None and bool(conditional),
            )  # fmt: skip
        except StoreError as exc:
            # a PUT whose answer got lost, now or in an earlier delivery, must not be a conflict with itself
            ours = await self._already_there(size, body) if exc.ambiguous or _changed(exc) else None
            if ours is not None:
                return ours
            if _changed(exc) and exc.errno != errno.ESTALE:
                raise _conflict(self.key, exc.code) from exc
            raise
        self.progress(size)
        return delivered_info(self.key, size, written, self.headers)

    async def _already_there(self, size: int, body: Body) -> ObjectInfo | None:
        """The object at the key, when it is what these bytes and headers make; None also when it cannot be looked at."""
        try:
            found = await look(self.store, self.key)
        except StoreError:
            return None
        if found is None or found.size != size or not _same_metadata(found, self.headers):
            return None
        return found if found.etag == await trio.to_thread.run_sync(body_md5, body) else None

    async def _multipart(
        self, steps: Multipart, size: int, source: Source, base: Base | None, resume: UploadRecord | None
    ) -> ObjectInfo:
        shape = _shape(steps, base)
        record = await self._continue(resume, shape, steps) if resume is not None else None
        if record is None:
            if resume is not None and (done := await self._completed_before(resume, steps, size)) is not None:
                return done
            bare = dataclasses.replace(self.headers, tags=None)
            record = UploadRecord(await self.store.create_upload(self.key, bare), shape)
            if self.on_part is not None:
                await self.on_part(record)
        keep = False
        try:
            jobs = [
                _bound(self._part, record, number, part, steps, source, base)
                for number, part in enumerate(steps.parts, 1)
                if number not in record.parts
            ]
            await in_parallel(jobs, self.concurrency)
            parts = [record.parts[number] for number in sorted(record.parts)]
            written = await self._complete(record.upload_id, parts, base)
        except BaseException as exc:
            keep = self.on_part is not None and not (isinstance(exc, StoreError) and exc.errno == errno.ESTALE)
            if not keep:
                await abort(self.store, self.key, record.upload_id)
            raise
        await put_tags(self.store, self.key, self.headers)
        return delivered_info(self.key, size, written, self.headers)

    async def _part(
        self, record: UploadRecord, number: int, part: Part, steps: Multipart, source: Source, base: Base | None
    ) -> None:
        upload = record.upload_id
        if isinstance(part, CopyRange):
            assert base is not None
            record.parts[number] = await part_of_base(self.store, self.key, upload, number, base, part.start, part.end)
        else:
            old = Ranges(steps.downloads).within(part.start, part.end)
            async with self._bytes(source, part.start, part.end, old, base) as body:
                record.parts[number] = await self.store.upload_part(self.key, upload, number, body)
            self.progress(part.end - part.start)
        if self.on_part is not None:
            await self.on_part(record)

    async def _fetch(self, source: Source, start: int, end: int) -> None:
        with _needing(self.key):
            await source.fetch(start, end)

    async def _complete(self, upload: str, parts: list[PartInfo], base: Base | None) -> Written:
        etag = multipart_etag(parts)
        try:
            # a renamed file's bytes come from another key; what lies at the new one is the caller's affair
            if base is None or base.key == self.key:
                await check_unchanged(self.store, self.key, base)
            written = await self.store.complete_upload(self.key, upload, parts)
        except StoreError as exc:
            if not (exc.ambiguous or exc.errno == errno.ESTALE or exc.code == "NoSuchUpload"):
                raise
            found = await look(self.store, self.key)
            if found is None or not etag or found.etag != etag:
                raise
            return Written(etag, found.version_id, None, found.modified_ns)
        return written if written.etag else dataclasses.replace(written, etag=etag)

    async def _continue(self, resume: UploadRecord, shape: str, steps: Multipart) -> UploadRecord | None:
        """The upload of an earlier try with the parts that the server really has; None when it is of no use."""
        try:
            there = {part.number: part for part in await self.store.list_parts(self.key, resume.upload_id)}
        except StoreError as exc:
            if exc.status != 404:
                raise
            return None
        if resume.shape != shape or any(number > len(steps.parts) for number in there):
            await abort(self.store, self.key, resume.upload_id)
            return None
        good = {number: part for number, part in resume.parts.items() if there.get(number) == part}
        return UploadRecord(resume.upload_id, shape, good)

    async def _completed_before(self, resume: UploadRecord, steps: Multipart, size: int) -> ObjectInfo | None:
        """The object, when the upload is unknown because an earlier try completed it."""
        etag = multipart_etag(list(resume.parts.values()))
        if len(resume.parts) != len(steps.parts) or not etag:
            return None
        found = await look(self.store, self.key)
        return found if found is not None and found.etag == etag and found.size == size else None


class _Extended:
    """A Source for an object that is extended: the old object's bytes, and behind them the staged ones from *start* on."""

    def __init__(self, source: Source, store: Store, base: Base | None, start: int) -> None:
        self._source, self._store, self._base = source, store, base
        self._old = base.size if base else 0
        self._shift = start - self._old
        self._fetched: dict[tuple[int, int], memoryview] = {}

    def lend(self, start: int, end: int) -> Body:
        pieces: list[Piece] = []
        at = start
        for (low, high), data in sorted(self._fetched.items()):
            first, last = max(low, at), min(high, end)
            if first < last:
                pieces.append(data[first - low : last - low])
                at = last
        if max(at, self._old) < end:
            pieces.extend(self._source.lend(max(at, self._old) + self._shift, end + self._shift))
        return pieces

    def give_back(self, start: int, end: int) -> None:
        if max(start, self._old) < end:
            self._source.give_back(max(start, self._old) + self._shift, end + self._shift)

    async def fetch(self, start: int, end: int) -> None:
        assert self._base is not None
        data = memoryview(bytearray(end - start))
        await self._store.get_range(self._base.key, start, data, if_match=self._base.etag)
        self._fetched[start, end] = data


@contextlib.contextmanager
def _needing(key: str) -> Iterator[None]:
    """Within, the base's bytes are needed: that they are gone is a ``Conflict``."""
    try:
        yield
    except StoreError as exc:
        if exc.code in _GONE:
            raise _conflict(key, f"its old bytes are gone ({exc.code})") from exc
        raise


async def part_of_base(store: Store, key: str, upload: str, number: int, base: Base, start: int, end: int) -> PartInfo:
    """Have the server copy the base's bytes ``[start, end)`` as a part. StoreError ``Conflict`` when others changed them."""
    with _needing(key):
        return await store.upload_part_copy(key, upload, number, base.key, start, end, if_match=base.etag)


async def laid_over(store: Store, base: Base, body: Body, start: int, old: Sequence[tuple[int, int]]) -> Body:
    """The staged *body*, which begins at byte *start* of the file, with the base's bytes *old* in their places.

    They are in memory, which the caller has reserved. StoreError ``Conflict`` when others changed the base.
    """
    pieces: list[Piece] = []
    at = start
    for low, high in old:
        pieces += slice_body(body, at - start, low - start)
        data = memoryview(bytearray(high - low))
        with _needing(base.key):
            await store.get_range(base.key, low, data, if_match=base.etag)
        pieces.append(data)
        at = high
    return [*pieces, *slice_body(body, at - start, body_length(body))]


async def abort(store: Store, key: str, upload_id: str) -> None:
    """Forget an upload, even when cancelled; a failure is logged, the server's lifecycle rules have to do it then."""
    with trio.CancelScope(shield=True), trio.move_on_after(10):
        try:
            await store.abort_upload(key, upload_id)
        except StoreError as exc:
            log.warning("the upload %s of %s could not be aborted: %s", upload_id, key, exc)


async def put_tags(store: Store, key: str, headers: ObjectHeaders) -> None:
    """Tags and locks given when an upload is created are dropped by Ceph: set them on the finished object."""
    if headers.tags:
        await store.put_tags(key, headers.tags)
    await put_locks(store, key, headers)


def alike(began: ObjectHeaders, headers: ObjectHeaders) -> bool:
    """Whether an upload begun with *began* makes an object of *headers*, but for what `put_tags` puts on it afterwards."""

    def made(one: ObjectHeaders) -> ObjectHeaders:
        extra = {name: value for name, value in one.extra.items() if not name.startswith(_LOCKS)}
        return dataclasses.replace(one, tags=None, extra=extra)

    return made(began) == made(headers)


async def put_locks(store: Store, key: str, headers: ObjectHeaders) -> None:
    """The legal hold and the retention of *headers* on the finished object: Ceph heeds those headers in a plain PUT only."""
    mode = headers.extra.get("x-amz-object-lock-mode")
    if mode:
        until = headers.extra["x-amz-object-lock-retain-until-date"]
        await store.call("put_object_retention", Key=key, Retention={"Mode": mode, "RetainUntilDate": until})
    if "x-amz-object-lock-legal-hold" in headers.extra:
        await store.call("put_object_legal_hold", Key=key, LegalHold={"Status": headers.extra["x-amz-object-lock-legal-hold"]})


async def in_parallel(jobs: Sequence[Callable[[], Awaitable[T]]], concurrency: int) -> list[T]:
    """Run *jobs*, *concurrency* at once, and return their results in order; the first failure ends the others and is raised."""
    results: dict[int, T] = {}
    waiting = iter(enumerate(jobs))
    failure: Exception | None = None

    async with trio.open_nursery() as nursery:

        async def worker() -> None:
            nonlocal failure
            for index, job in waiting:
                try:
                    results[index] = await job()
                except Exception as exc:
                    failure = failure or exc
                    nursery.cancel_scope.cancel()
                    return

        for _ in range(min(concurrency, len(jobs))):
            nursery.start_soon(worker)
    if failure is not None:
        raise failure
    return [results[index] for index in range(len(jobs))]


async def correct_headers(store: Store, info: ObjectInfo, headers: ObjectHeaders) -> ObjectInfo:
    """Give a finished multipart object the headers of now, where they are others than when its upload began.

    Costs a copy onto itself: a matter of references on Ceph. Left out where it would cost more than it is worth: objects
    above 5 GiB whose permissions are right, and versioned buckets where only times differ (the copy would be a version).
    """
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


def with_times_of(headers: ObjectHeaders, began: ObjectHeaders) -> ObjectHeaders:
    """*headers* with the times that an upload was begun with."""
    times = {name: value for name, value in began.metadata.items() if name in _TIMES}
    rest = {name: value for name, value in headers.metadata.items() if name not in _TIMES}
    return dataclasses.replace(headers, metadata={**rest, **times})


def _bound(fn: Callable[..., Awaitable[T]], *args: Any) -> Callable[[], Awaitable[T]]:
    return lambda: fn(*args)


def _changed(exc: StoreError) -> bool:
    """Whether a conditional request failed because of its condition."""
    return exc.errno == errno.ESTALE or exc.status == 412 or (exc.status == 404 and exc.code == "NoSuchKey")


def _conflict(key: str, message: str) -> StoreError:
    return StoreError("Conflict", status=412, operation="write", key=key, message=message)


def _same_metadata(found: ObjectInfo, headers: ObjectHeaders) -> bool:
    theirs = found.metadata or {}
    return all(theirs.get(name) == value for name, value in headers.metadata.items())


def _shape(steps: Multipart, base: Base | None) -> str:
    """A digest of what an upload is made of: a continued one must have the same."""
    text = f"{base.etag if base else ''} {steps.parts}"
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
