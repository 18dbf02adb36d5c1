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
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import trio

from zosfs.content.append import AppendState, Sent, append, holds, look
from zosfs.content.conflicts import check_unchanged, conflict, needing_base, refused_as_changed
from zosfs.content.delivered import delivered_info
from zosfs.content.finishing import correct_headers, has_metadata, put_tags
from zosfs.content.memory import MemoryBudget
from zosfs.content.multipart import OnPart, UploadRecord, abort, completed_upload
from zosfs.content.old_bytes import laid_over, part_of_base
from zosfs.content.parallel import in_parallel
from zosfs.content.plan import Append, Base, CopyRange, Limits, Multipart, Nothing, Part, Plan, Put, plan
from zosfs.content.ranges import Ranges
from zosfs.errors import StoreError
from zosfs.store.api import Abilities, Body, ObjectHeaders, ObjectInfo, Piece, Store, Written
from zosfs.store.digests import md5_hex, multipart_etag

PATIENT_EXTENSIONS = 200
"""How often another writer may win before an appending one gives up."""

Expect = Callable[[str], Awaitable[None]]
"""Told the ETag of an object that is about to be made."""


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


@dataclass(frozen=True, slots=True)
class Means:
    """What files are delivered with: *concurrency* requests at once of sizes within *limits*; the base's bytes pass through *memory*."""

    store: Store
    limits: Limits
    concurrency: int
    memory: MemoryBudget


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What the object at *key* is to be: the file of *size* bytes in *source*, with *headers*."""

    key: str
    size: int
    source: Source
    headers: ObjectHeaders


@dataclass(frozen=True, slots=True)
class Assumed:
    """What is taken to be at the key, until the server says otherwise.

    *base*: the object that the file is a change of; None: there is none. *tail*: the file was opened with O_APPEND and grew by the staged
    bytes ``[start, end)`` only. Then a changed object is no conflict: the tail goes to its end. *doubtful*: an earlier delivery of
    exactly these bytes may have been applied without an answer; *sent* is what that appended, and what this one does.
    """

    base: Base | None
    tail: tuple[int, int] | None = None
    doubtful: bool = False
    sent: Sent = field(default_factory=Sent)


async def deliver(
    means: Means,
    plan: Plan,
    outgoing: Outgoing,
    assumed: Assumed,
    *,
    resume: UploadRecord | None = None,
    on_part: OnPart | None = None,
    through_memory: Expect | None = None,
) -> ObjectInfo | None:
    """Make the object the file that *plan* was made for; returns its facts (None: nothing to do).

    The result's size is larger than the file's when others' bytes came in front of an appended tail.
    *on_part* is told the upload after its creation and after each part; with it, an upload that failed for a passing
    reason is kept, to be continued by passing the record as *resume*; without it, it is aborted. With *through_memory* the base's bytes
    that are needed are not fetched into the source, whose disk is full, but pass through memory; it is told the ETag of an object made of
    such bytes in one PUT, before it is sent. What a changed object needs of its bytes to be extended passes through memory always.

    Raises StoreError: ``Conflict``/``PreconditionFailed`` (ESTALE) when somebody else changed the object, else what the store or
    the source raised.
    """
    if isinstance(plan, Nothing):
        return None
    work = _Delivery(means, on_part, through_memory)
    try:
        if isinstance(plan, Append):
            return await work.append(
                plan, outgoing, assumed.base, appending=assumed.tail is not None, doubtful=assumed.doubtful, sent=assumed.sent
            )
        return await work.replace(plan, outgoing, assumed.base, resume)
    except StoreError as exc:
        if assumed.tail is None or (exc.errno != errno.ESTALE and exc.code != "ObjectNotAppendable"):
            raise
        return await work.extend(outgoing, assumed)


class _Delivery:
    """One file on its way."""

    def __init__(self, means: Means, on_part: OnPart | None, through_memory: Expect | None) -> None:
        self._store, self._limits = means.store, means.limits
        self._concurrency, self._memory = means.concurrency, means.memory
        self._on_part = on_part
        self._through_memory = through_memory is not None
        self._expect = through_memory

    # -- a new object in the place of the base ----------------------------------------------------------------------

    async def replace(self, steps: Plan, outgoing: Outgoing, base: Base | None, resume: UploadRecord | None = None) -> ObjectInfo:
        """PUT or multipart: a new object in the place of *base*."""
        if isinstance(steps, Multipart):
            return await self._multipart(steps, outgoing, base, resume)
        assert isinstance(steps, Put)
        async with self._bytes(outgoing, 0, outgoing.size, steps.downloads, base) as body:
            return await self._put(outgoing, body, base)

    @contextlib.asynccontextmanager
    async def _bytes(
        self, outgoing: Outgoing, start: int, end: int, old: Sequence[tuple[int, int]], base: Base | None
    ) -> AsyncIterator[Body]:
        """Bytes ``[start, end)`` of the file, which do not change within; *old* are those of the base that the source lacks."""
        source = outgoing.source
        if not old or not self._through_memory:
            await in_parallel([partial(self._fetch, outgoing, low, high) for low, high in old], self._concurrency)
            body = source.lend(start, end)
            try:
                yield body
            finally:
                source.give_back(start, end)
            return
        assert base is not None
        async with self._memory.reserved(sum(high - low for low, high in old)):
            body = source.lend(start, end)
            try:
                yield await laid_over(self._store, base, body, start, old)
            finally:
                source.give_back(start, end)

    async def _fetch(self, outgoing: Outgoing, start: int, end: int) -> None:
        with needing_base(outgoing.key):
            await outgoing.source.fetch(start, end)

    async def _put(self, outgoing: Outgoing, body: Body, base: Base | None) -> ObjectInfo:
        able = self._store.abilities
        conditional = (able.put_if_match if base else able.put_if_none_match) and not able.versioned
        if self._expect is not None:
            await self._expect(await trio.to_thread.run_sync(md5_hex, body))
        try:
            if not conditional:
                await check_unchanged(self._store, outgoing.key, base)
            written = await self._store.put(
                outgoing.key, body, outgoing.headers,
                if_match=base.etag if base and conditional else "", if_none_match=base is None and bool(conditional),
            )  # fmt: skip
        except StoreError as exc:
            # a PUT whose answer got lost, now or in an earlier delivery, must not be a conflict with itself
            ours = await self._already_there(outgoing, body) if exc.ambiguous or refused_as_changed(exc) else None
            if ours is not None:
                return ours
            if refused_as_changed(exc) and exc.errno != errno.ESTALE:
                raise conflict(outgoing.key, exc.code) from exc
            raise
        return delivered_info(outgoing.key, outgoing.size, written, outgoing.headers)

    async def _already_there(self, outgoing: Outgoing, body: Body) -> ObjectInfo | None:
        """The object at the key, when it is what these bytes and headers make; None also when it cannot be looked at."""
        try:
            found = await look(self._store, outgoing.key)
        except StoreError:
            return None
        if found is None or found.size != outgoing.size or not has_metadata(found, outgoing.headers):
            return None
        return found if found.etag == await trio.to_thread.run_sync(md5_hex, body) else None

    async def _multipart(
        self, steps: Multipart, outgoing: Outgoing, base: Base | None, resume: UploadRecord | None
    ) -> ObjectInfo:
        key, headers = outgoing.key, outgoing.headers
        shape = _shape(steps, base)
        record = await self._continue(key, resume, shape, steps) if resume is not None else None
        if record is None:
            if resume is not None and (done := await self._completed_before(outgoing, resume, steps)) is not None:
                return done
            bare = dataclasses.replace(headers, tags=None)
            record = UploadRecord(await self._store.create_upload(key, bare), shape)
            if self._on_part is not None:
                await self._on_part(record)
        keep = False
        try:
            jobs = [
                partial(self._part, record, number, part, steps, outgoing, base)
                for number, part in enumerate(steps.parts, 1)
                if number not in record.parts
            ]
            await in_parallel(jobs, self._concurrency)
            parts = [record.parts[number] for number in sorted(record.parts)]

            async def complete() -> Written:
                # a renamed file's bytes come from another key; what lies at the new one is the caller's affair
                if base is None or base.key == key:
                    await check_unchanged(self._store, key, base)
                return await self._store.complete_upload(key, record.upload_id, parts)

            written = await completed_upload(self._store, key, multipart_etag(parts), complete)
            record.made = True
        except BaseException as exc:
            keep = self._on_part is not None and not (isinstance(exc, StoreError) and exc.errno == errno.ESTALE)
            if not keep:
                await abort(self._store, key, record.upload_id)
            raise
        await put_tags(self._store, key, headers)
        return delivered_info(key, outgoing.size, written, headers)

    async def _part(
        self, record: UploadRecord, number: int, part: Part, steps: Multipart, outgoing: Outgoing, base: Base | None
    ) -> None:
        key, upload = outgoing.key, record.upload_id
        if isinstance(part, CopyRange):
            assert base is not None
            record.parts[number] = await part_of_base(self._store, key, upload, number, base, part.start, part.end)
        else:
            old = Ranges(steps.downloads).within(part.start, part.end)
            async with self._bytes(outgoing, part.start, part.end, old, base) as body:
                record.parts[number] = await self._store.upload_part(key, upload, number, body)
        if self._on_part is not None:
            await self._on_part(record)

    async def _continue(self, key: str, resume: UploadRecord, shape: str, steps: Multipart) -> UploadRecord | None:
        """The upload of an earlier try with the parts that the server really has; None when it is of no use."""
        try:
            there = {part.number: part for part in await self._store.list_parts(key, resume.upload_id)}
        except StoreError as exc:
            if exc.status != 404:
                raise
            return None
        if resume.shape != shape or any(number > len(steps.parts) for number in there):
            await abort(self._store, key, resume.upload_id)
            return None
        good = {number: part for number, part in resume.parts.items() if there.get(number) == part}
        return UploadRecord(resume.upload_id, shape, good)

    async def _completed_before(self, outgoing: Outgoing, resume: UploadRecord, steps: Multipart) -> ObjectInfo | None:
        """The object, when the upload is unknown because an earlier try completed it."""
        etag = multipart_etag(list(resume.parts.values()))
        if len(resume.parts) != len(steps.parts) or not etag:
            return None
        found = await look(self._store, outgoing.key)
        if found is None or found.etag != etag or found.size != outgoing.size:
            return None
        resume.made = True
        await put_tags(self._store, outgoing.key, outgoing.headers)
        return found

    # -- more at the end of the object ------------------------------------------------------------------------------

    async def append(
        self, steps: Append, outgoing: Outgoing, base: Base | None, *, appending: bool, doubtful: bool, sent: Sent
    ) -> ObjectInfo:
        """One append; where the object turns out to take none although nobody changed it, the whole object anew."""
        body = outgoing.source.lend(steps.start, steps.end)
        state = AppendState(steps.position, base.etag if base else "")
        try:
            done = await append(
                self._store, outgoing.key, state, body, outgoing.headers, appending=appending, doubtful=doubtful, sent=sent
            )
            return await self._with_headers_of_now(done.info, outgoing, done.end)
        except StoreError as exc:
            if exc.code != "ObjectNotAppendable" or appending:
                raise
        finally:
            outgoing.source.give_back(steps.start, steps.end)
        grown = Ranges([(steps.start, steps.end)])
        normal = dataclasses.replace(base, appendable=False) if base else None
        return await self.replace(plan(normal, grown, outgoing.size, self._limits, Abilities(), appending=False), outgoing, normal)

    async def _with_headers_of_now(self, info: ObjectInfo, outgoing: Outgoing, end: int) -> ObjectInfo:
        """*info*, which has the tail up to *end*: with the headers of now, where an earlier try brought it there with those of before. Not
        where others have put more behind it, and their headers with that."""
        headers = outgoing.headers
        same = dict(info.metadata or {}) == dict(headers.metadata) and headers.content_type in ("", info.content_type)
        return info if same or info.size != end else await correct_headers(self._store, info, headers)

    async def extend(self, outgoing: Outgoing, assumed: Assumed) -> ObjectInfo:
        """Add the staged tail to the end of whatever object is there, and again when another writer was faster."""
        key, source = outgoing.key, outgoing.source
        position, doubtful, sent = assumed.base.size if assumed.base else 0, assumed.doubtful, assumed.sent
        assert assumed.tail is not None
        start, end = assumed.tail
        if sent.state is not None:
            position, doubtful = sent.state.position, True
            start += sent.landed
        for _ in range(PATIENT_EXTENSIONS):
            found = await look(self._store, key)
            if found is not None and doubtful and found.size > position:
                tried = end if sent.state is None else min(end, start + sent.length)
                body = source.lend(start, tried)
                try:
                    landed = await holds(self._store, key, position, body, found)
                finally:
                    source.give_back(start, tried)
                start += landed  # an earlier, shorter try of a tail that has grown since
                if start == end:
                    return await self._with_headers_of_now(found, outgoing, position + landed)
                doubtful = False
            sent.forget()
            old = found.size if found else 0
            size = old + end - start
            try:
                if found is not None and found.appendable and self._store.abilities.append:
                    sent.skipped = start - assumed.tail[0]
                    try:
                        longer = dataclasses.replace(outgoing, size=size)
                        return await self.append(
                            Append(old, start, end), longer, Base.of(found), appending=True, doubtful=False, sent=sent
                        )
                    except StoreError as exc:
                        if exc.code != "ObjectNotAppendable":
                            raise
                    finally:
                        sent.landed, sent.skipped = sent.landed + sent.skipped, 0
                base = Base(key, old, found.etag) if found else None
                steps = plan(base, Ranges([(old, size)]), size, self._limits, Abilities(), appending=False)
                # others' bytes belong neither into the staged file nor into what the next run expects to find of ours
                self._through_memory, self._expect = True, None
                if isinstance(steps, Nothing) and found is not None:
                    return found
                longer = dataclasses.replace(outgoing, size=size, source=_Extended(source, old, start))
                sent.landed = start - assumed.tail[0]
                await sent.onto(AppendState(old, base.etag if base else ""), end - start)
                return await self.replace(steps, longer, base)
            except StoreError as exc:
                if exc.errno != errno.ESTALE:
                    raise
            await trio.sleep(random.uniform(0, 0.05))
        raise conflict(key, "others went on changing it")


class _Extended:
    """A Source for an object of *old* bytes that is extended by the staged ones from *start* on; its own bytes are laid over."""

    def __init__(self, source: Source, old: int, start: int) -> None:
        self._source = source
        self._old = old
        self._shift = start - old

    def lend(self, start: int, end: int) -> Body:
        new = max(start, self._old)
        # zeros that nobody looks at take no memory
        pieces: list[Piece] = [bytes(min(end, self._old) - start)] if start < self._old else []
        if new < end:
            pieces.extend(self._source.lend(new + self._shift, end + self._shift))
        return pieces

    def give_back(self, start: int, end: int) -> None:
        if max(start, self._old) < end:
            self._source.give_back(max(start, self._old) + self._shift, end + self._shift)

    async def fetch(self, start: int, end: int) -> None:
        raise AssertionError("the old bytes pass through memory")


def _shape(steps: Multipart, base: Base | None) -> str:
    """A digest of what an upload is made of: a continued one must have the same."""
    text = f"{base.etag if base else ''} {steps.parts}"
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
