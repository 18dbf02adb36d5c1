"""Bringing a draft into the store, over what earlier tries may have left there, and what a failure means.

Owns: what the delivery under way is about to make. Must not know: when to deliver, handles, the kernel. The caller sees to it that
deliveries of one file never overlap.

What is delivered is the file as it was when the delivery began: writes behind its end go on meanwhile, writes into it wait.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable
from functools import partial
from typing import TYPE_CHECKING

from zosfs.content.append import look
from zosfs.content.delivery import Assumed, Means, Outgoing, deliver
from zosfs.content.doubts import Doubts
from zosfs.content.draft import FOREVER, Changes, Draft
from zosfs.content.early_uploads import EarlyUploads
from zosfs.content.etags import chain_etag
from zosfs.content.finishing import correct_headers, put_tags
from zosfs.content.journal_entry import JournalEntry
from zosfs.content.journal_rows import Record
from zosfs.content.plan import Append, Base, Multipart, Nothing, Plan, Put, only_grown, plan
from zosfs.content.ranges import Ranges
from zosfs.content.replay import leans_on_base
from zosfs.content.unfinished_upload import UnfinishedUpload
from zosfs.errors import StoreError
from zosfs.store.api import ObjectHeaders, ObjectInfo
from zosfs.store.digests import multipart_etag

if TYPE_CHECKING:
    from zosfs.content.content import Content


class Sending:
    """The deliveries of one draft."""

    def __init__(
        self, content: Content, draft: Draft, doubts: Doubts, early: EarlyUploads, unfinished: UnfinishedUpload, entry: JournalEntry
    ) -> None:
        self._content = content
        self._store = content.store
        self._draft = draft
        self._doubts = doubts
        self._early = early
        self._unfinished = unfinished
        self._entry = entry
        doubts.sent.note = self._note_sent
        self._expected = ""  # the ETag of what is about to be made of bytes that are not all here
        self._bare = False  # the base lacks tags or locks that it is to have
        self.under_way = False
        """Whether the draft is being delivered."""

    async def deliver(self) -> ObjectInfo | None:
        """Bring the draft as it is now into the store; returns the object (None: the store had all of it).

        Raises StoreError or OSError, and the draft has what it had, for another try: ESTALE when somebody else changed the object.
        """
        draft, staged, doubts = self._draft, self._draft.staged, self._doubts
        # nothing is awaited before the bytes are held: the object is the file as it is now
        newer = self._entry.newer()
        changes = draft.take()
        size, generation = changes.size, changes.generation
        self.under_way = True
        try:
            try:
                if newer is not None:
                    await self._entry.renew(newer, generation)
                info = await self._send_or_rebase(changes)
            except BaseException as exc:
                # a request that got no good answer may still have been applied
                doubts.doubtful = doubts.doubtful or not isinstance(exc, StoreError) or exc.ambiguous
                staged.failed()
                draft.put_back(changes)
                raise
            if info is not None and info.size != size:
                staged.release()  # what was appended since has to move, and the record is one that recognises itself
                await draft.make_way(info.size - size, size)
            if info is not None:
                self._bare = False
                draft.rebase(info, size)
                draft.delivered = info if generation == draft.generation and info.size == size else None
                doubts.settle()
            # until the journal has noted it the next run may have to compare these bytes with the object's
            await self._entry.delivered()
        finally:
            self.under_way = False
            staged.release()
        staged.arrived()
        return info

    # -- what it stands on --------------------------------------------------------------------------------------------

    async def _send_or_rebase(self, changes: Changes) -> ObjectInfo | None:
        draft, doubts = self._draft, self._doubts
        if doubts.retracted:
            found = await look(self._store, draft.key)
            if found is not None and doubts.ours(found):
                doubts.sent.forget()
                changes.kept = draft.stand_on(found, changes.kept)
        try:
            return await self._send(changes)
        except StoreError as exc:
            if self._early.gone and (exc.errno == errno.ESTALE or exc.code == "NoSuchUpload"):
                made = await self._early.completed(draft.key)
                if made is None:
                    raise
                await self._stand_on_completed(made, changes)
                return await self._send(changes)
            if exc.errno != errno.ESTALE:
                raise
            await doubts.before_change(0, draft.base_etag)
            if not doubts.etags:
                raise
            found = await look(self._store, draft.key)
            if found is None or not doubts.ours(found):
                raise
        # an earlier try of ours arrived although it got no answer: that is the base now
        doubts.sent.forget()
        changes.kept = draft.stand_on(found, changes.kept)
        return await self._send(changes)

    async def _stand_on_completed(self, made: ObjectInfo, changes: Changes) -> None:
        """An earlier try made an object of what went up early, and got no answer: bytes that were nowhere else are the base's now."""
        gone = self._early.gone.copy()
        for start, end in gone:
            changes.dirty.remove(start, end)
        changes.kept = max(self._draft.stand_on(made, changes.kept), gone.end)
        self._draft.kept = max(self._draft.kept, gone.end)
        await self._early.forget()

    # -- what is sent -------------------------------------------------------------------------------------------------

    async def _send(self, changes: Changes) -> ObjectInfo | None:
        draft, early = self._draft, self._early
        headers = draft.headers()
        base = draft.plan_base
        if early.stream_is_good or (early.editing and early.gone):
            await self._unfinished.only_of(draft.key, -1)
        if early.stream_is_good:
            finish = early.finish_stream(draft.key, changes.size, base, headers, self._expects, exact_times=draft.exact_times)
            return await self._send_early(finish, changes)
        if early.editing and early.gone:
            finish = early.finish_edit(draft.key, changes, base, headers, self._expects, exact_times=draft.exact_times)
            return await self._send_early(finish, changes)
        await early.abandon()
        content = self._content
        appending = draft.appending and not self._doubts.retracted
        tail = only_grown(base, changes.dirty, changes.size, changes.kept) if appending else None
        think = partial(
            plan, base, changes.dirty, changes.size, content.limits, content.abilities,
            appending=appending, present=draft.staged.present, kept=changes.kept,
        )  # fmt: skip
        steps = think()
        if not self._has_room(steps):
            # bytes of the base that lie on the disk and are not needed would keep those out that are
            draft.staged.shed(changes.dirty.union(Ranges([(changes.kept, FOREVER)])), held=True)
            steps = think()
        if isinstance(steps, Nothing):
            await self._unfinished.only_of(draft.key, -1)
            return await self._send_headers(headers)
        roomy = self._has_room(steps)
        try:
            return await self._carry_out(steps, changes, base, headers, tail, through_memory=not roomy)
        except OSError as exc:
            if isinstance(exc, StoreError) or exc.errno != errno.ENOSPC or not roomy:
                raise
        # others have filled the disk meanwhile
        return await self._carry_out(steps, changes, base, headers, tail, through_memory=True)

    def _has_room(self, steps: Plan) -> bool:
        """Whether the disk takes the base's bytes that the plan needs."""
        return not isinstance(steps, Put | Multipart) or self._draft.staged.fits(sum(end - start for start, end in steps.downloads))

    async def _send_early(self, finish: Awaitable[ObjectInfo], changes: Changes) -> ObjectInfo:
        """Make the object of what went up before its time."""
        self._expected = ""
        try:
            return await finish
        except BaseException as exc:
            made, draft = self._early.made, self._draft
            if made is not None:
                # the store has the bytes, and some of them are nowhere else: what it lacks are headers, tags or locks
                changes.dirty.clear()
                draft.stand_on(made, 0)
                draft.kept = min(draft.kept_after, made.size)
                self._bare = True
            elif self._expected and (not isinstance(exc, StoreError) or exc.ambiguous):
                self._doubts.etags.add(self._expected)
            raise

    async def _send_headers(self, headers: ObjectHeaders) -> ObjectInfo | None:
        """The bytes in the store are right; the headers may not be."""
        base, bare = self._draft.base, self._bare
        if base is None or base.metadata is None:
            return None
        if dict(base.metadata) != dict(headers.metadata):
            info = await correct_headers(self._store, base, headers)
        elif bare:
            await put_tags(self._store, self._draft.key, headers)
            info = base
        else:
            return None
        return info

    async def _carry_out(
        self, steps: Plan, changes: Changes, base: Base | None, headers: ObjectHeaders, tail: tuple[int, int] | None,
        *, through_memory: bool,
    ) -> ObjectInfo | None:  # fmt: skip
        content, draft, doubts, unfinished, record = self._content, self._draft, self._doubts, self._unfinished, self._entry.record
        means = Means(content.store, content.limits, content.options.upload_concurrency, content.memory)
        parts = isinstance(steps, Multipart)
        await unfinished.only_of(draft.key, changes.generation if parts else -1)
        self._expected = ""
        if record is not None and not (through_memory and isinstance(steps, Put)):
            await self._expect(record, steps, changes.size)
        try:
            return await deliver(
                means, steps, Outgoing(draft.key, changes.size, draft, headers), Assumed(base, tail, doubts.doubtful, doubts.sent),
                resume=unfinished.upload, on_part=unfinished.notes(draft.key, changes.generation, record) if parts else None,
                through_memory=self._expects if through_memory else None,
            )  # fmt: skip
        except StoreError as exc:
            await self._after_failure(exc, steps, changes.size)
            if tail is not None and exc.ambiguous:
                await doubts.may_have_appended(*tail, draft.base_etag)
                await doubts.may_have_gone_on(tail[0])
            raise
        except BaseException:
            self._cut_off(steps, changes.size, tail)
            raise

    # -- what the next run, or the next try, has to know ------------------------------------------------------------------

    async def _expects(self, etag: str) -> None:
        """The object is about to be made, and will have this ETag."""
        self._expected = etag
        await self._entry.expect(etag)

    async def _expect(self, record: Record, steps: Plan, size: int) -> None:
        """Journal the ETag that is about to be made, where the next run could not find it out: the base goes, and its bytes with it."""
        draft = self._draft
        if isinstance(steps, Put) and leans_on_base(record):
            try:
                for start, end in steps.downloads:
                    await draft.fetch(start, end)
            except StoreError as exc:
                if exc.errno == errno.ESTALE:
                    return  # the delivery meets the same, and knows what to do with a tail
                raise
            start, end, before = 0, size, ""
        elif isinstance(steps, Append) and draft.base is not None:
            start, end, before = steps.start, steps.end, draft.base.etag
        else:
            return
        await self._entry.expect(chain_etag(before, await draft.md5(start, end)))

    async def _note_sent(self) -> None:
        """Journal where a tail is about to be appended, unless the next run looks there by itself: behind the base."""
        sent, base, record = self._doubts.sent, self._draft.base, self._entry.record
        if record is None or sent.state is None:
            return
        if sent.landed or sent.skipped or record.sent or sent.state.position != (base.size if base is not None else 0):
            await self._entry.appends()

    async def _after_failure(self, exc: StoreError, steps: Plan, size: int) -> None:
        if exc.errno == errno.ESTALE:
            await self._unfinished.aborted()
        elif exc.ambiguous:
            if self._expected:
                self._doubts.etags.add(self._expected)
            elif isinstance(steps, Put):
                await self._doubts.may_have_put(size)
            else:
                self._may_have_completed(steps)
        else:
            self._may_have_completed(steps)
            upload = self._unfinished.upload
            if not exc.retry and not (upload is not None and upload.made):  # with it the next try knows what is left to do
                await self._unfinished.drop(self._draft.key)

    def _cut_off(self, steps: Plan, size: int, tail: tuple[int, int] | None) -> None:
        """A delivery was given up in the middle of a request, which the server may carry out."""
        if self._expected:
            self._doubts.etags.add(self._expected)
        elif isinstance(steps, Put):
            self._doubts.cut_off(size, tail)
        elif isinstance(steps, Append):
            self._doubts.cut_off(0, (steps.start, steps.end))
        else:
            self._may_have_completed(steps)

    def _may_have_completed(self, steps: Plan) -> None:
        upload = self._unfinished.upload
        if isinstance(steps, Multipart) and upload is not None and len(upload.parts) == len(steps.parts):
            self._doubts.etags.add(multipart_etag(list(upload.parts.values())))
