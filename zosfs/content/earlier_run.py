"""What an earlier run left to be done: files and headers that it promised, objects that it unlinked, uploads that it began, names that it
moved.

Owns: the writers of such files, until they are delivered or somebody takes them over. Must not know: names, the kernel.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from zosfs.content.append import look
from zosfs.content.aside import Aside
from zosfs.content.journal_rows import CONFLICT, FAILED, Deletion, Move, Record, Upload
from zosfs.content.multipart import abort
from zosfs.content.promised_headers import PromisedHeaders
from zosfs.content.writer import Writer
from zosfs.store.api import ObjectHeaders, ObjectInfo
from zosfs.store.objects import is_folder, waves

if TYPE_CHECKING:
    from zosfs.content.content import Content

log = logging.getLogger(__name__)

REPLAY_PATIENCE = 5.0
"""Seconds that a start waits at most for what an earlier run left to be compared with the store; what takes longer goes on beside it."""
DELIVERY_PATIENCE = 1.0
"""Seconds of these that it waits for deliveries once all is compared: what is delivered by then nobody has to look for."""
RETRY_SECONDS = (1, 5, 15, 60)
STUCK_SECONDS = 30.0
"""Nothing of a renaming was done for so long: who asks for a name at either of its places is refused from then on, until something is."""
LOOK_SECONDS = 1.0
"""How often who waits for the end of a renaming looks whether it is stuck."""
PARALLEL = 8


@dataclass(frozen=True, slots=True)
class Pending:
    """A file that was promised and is not in the store (yet): the tree shows it with these facts."""

    key: str
    size: int
    headers: ObjectHeaders
    state: str
    cause: str


class EarlierRun:
    """What the runs before this one left of one bucket."""

    on_replayed: Callable[[ObjectInfo], None] | None = None
    """Told of every object that was made of what was promised, as a HEAD would tell of it."""

    on_moved: Callable[[], object] | None = None
    """Told when names changed because a renaming was ended."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._revived: dict[str, Writer] = {}  # by record id: files that nobody took over yet
        self.moving: list[Move] = []
        """The renamings that are to be ended: what lies at both of their places is on its way from one to the other."""
        self._moved = trio.Event()
        self._went_on = 0.0  # when something of them was done last (trio's clock)
        self._hindrance = "the server has not answered yet"  # why the last try to end one failed
        self._stuck_told = False
        self._uncompared: set[str] = set()  # record ids, and keys of headers: the store was not asked yet what it has of them
        self._compared = trio.Event()
        self._comparing = trio.CapacityLimiter(PARALLEL)

    async def see_to(
        self, uploads: list[Upload], deletions: list[Deletion], headers: list[PromisedHeaders], patience: float = REPLAY_PATIENCE
    ) -> None:
        """Deliver and end what was left: *uploads* that belong to no record, *deletions* that were owed, *headers* that objects were
        promised, and what the journal has.

        Waits *patience* seconds at most until names that are to go are gone, and it is known what the store has of what was promised: what
        another host has changed meanwhile is not shown. Deliveries go on in the background, and `pending` tells what is still to come.
        """
        promises = self._content.promises
        for record in sorted(promises.records.values(), key=lambda record: record.changed):
            if record.state != CONFLICT:
                self._revived[record.id] = self._content.revive(record)
        self.moving = await promises.open_moves()
        self._goes_on()
        if not (uploads or deletions or headers or self.moving or self._revived):
            return
        left = self._content.left_headers
        left.take(self._not_of_what_goes(headers, deletions))
        self._uncompared = {*self._revived, *map(_headers_of, left.lacking())}
        done = trio.Event()
        self._content.nursery.start_soon(self._replay_all, uploads, deletions, done)
        with trio.move_on_after(patience):
            await self._compared.wait()
            with trio.move_on_after(DELIVERY_PATIENCE):
                await done.wait()
        if not self._compared.is_set():
            log.warning(
                "%s has not told within %.1f s of what an earlier run left: the mount does not wait for that", self._content.store.bucket,
                patience,
            )  # fmt: skip

    async def moved(self) -> None:
        """Wait until none is `moving` any more; see `check_moving`."""
        while self.moving:
            self.check_moving()
            with trio.move_on_after(LOOK_SECONDS):
                await self._moved.wait()

    async def moved_at_last(self) -> None:
        """As `moved`, however long that takes."""
        if self.moving:
            await self._moved.wait()

    def check_moving(self) -> None:
        """OSError(EBUSY) while renamings are to be ended and nothing of them was done for STUCK_SECONDS; the log tells why, once."""
        if not self.moving or trio.current_time() < self._went_on + STUCK_SECONDS:
            return
        if not self._stuck_told:
            self._stuck_told = True
            log.warning(
                "the renaming of %s to %s, cut short in an earlier run, does not go on: names at both places are refused (EBUSY): %s",
                self.moving[0].old, self.moving[0].new, self._hindrance,
            )  # fmt: skip
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    def _goes_on(self) -> None:
        self._went_on = trio.current_time()
        self._stuck_told = False

    def _not_of_what_goes(self, headers: list[PromisedHeaders], deletions: list[Deletion]) -> Iterator[PromisedHeaders]:
        """Those of *headers* whose objects are not to go: a copy onto itself would bring such an object back, or make it another one."""
        going = {(deletion.key, deletion.etag) for deletion in deletions}
        for promise in headers:
            if (promise.key, promise.etag) in going:
                self._content.headers_done(promise.key)
            else:
                yield promise

    async def _replay_all(self, uploads: list[Upload], deletions: list[Deletion], done: trio.Event) -> None:
        slots = trio.CapacityLimiter(PARALLEL)
        async with trio.open_nursery() as nursery:
            for upload in uploads:
                nursery.start_soon(self._abort_stray, upload, slots)
        removed = {deletion.key: deletion for deletion in deletions}
        for wave in waves(removed):
            async with trio.open_nursery() as nursery:
                for key in wave:
                    nursery.start_soon(self._delete_unlinked, removed[key], slots)
        self._content.left_headers.begin(lambda key: self._is_compared(_headers_of(key)))  # the start waits for the removals, too
        # before what was promised, which a server may keep waiting: nobody is to meet names that are about to go
        while self.moving:
            for pause in itertools.chain(RETRY_SECONDS, itertools.repeat(RETRY_SECONDS[-1])):
                if await self._finish_move(self.moving[0]):
                    break
                await trio.sleep(pause)
            del self.moving[0]
            self._goes_on()
        self._moved.set()
        self._is_compared()  # where nothing is to be
        again: list[Record] = []
        # an object that another one has replaced is known by that one, which what was promised for it may replace in its turn
        for replaced in (True, False):
            left = [writer for writer in self._revived.values() if _is_replaced(writer) is replaced]
            await self._replay_at_once(left, slots, again)
        done.set()
        for pause in itertools.chain(RETRY_SECONDS, itertools.repeat(RETRY_SECONDS[-1])):
            if not again:
                return
            await trio.sleep(pause)
            records, again = again, []
            for record in records:
                revived = self._revived.get(record.id)
                if revived is not None:
                    await self._replay_once(revived, slots, again)

    async def _replay_at_once(self, writers: Sequence[Writer], slots: trio.CapacityLimiter, again: list[Record]) -> None:
        async with trio.open_nursery() as nursery:
            for writer in writers:
                nursery.start_soon(self._replay_once, writer, slots, again)

    async def _finish_move(self, move: Move) -> bool:
        """Whether it is at its end. Until then nobody meets either place: what was made there would move along when it goes on."""
        try:
            await self._content.moves.finish(move, self._goes_on)
            for writer in list(self._revived.values()):
                record = writer.entry.record
                if record is not None and record.key != writer.draft.key:
                    await writer.renamed(record.key, record.base.modified_ns if record.base is not None else 0)
            if self.on_moved is not None:
                self.on_moved()
        except OSError as exc:
            self._hindrance = str(exc)
            log.warning("the renaming of %s to %s, cut short in an earlier run, is tried again: %s", move.old, move.new, exc)
            return False
        return True

    def replayed(self, info: ObjectInfo) -> None:
        """Its object is *info* now, as was promised."""
        if self.on_replayed is not None:
            self.on_replayed(info)

    async def _abort_stray(self, upload: Upload, slots: trio.CapacityLimiter) -> None:
        async with slots:
            await abort(self._content.store, upload.key, upload.upload.upload_id)
            await self._content.upload_ended(upload.upload.upload_id)

    async def _delete_unlinked(self, deletion: Deletion, slots: trio.CapacityLimiter) -> None:
        content = self._content
        async with slots, content.only_one(deletion.key):
            try:
                if content.promises.owed.get(deletion.key) is not deletion:
                    return  # another one has taken its place in the meantime
                found = await look(content.store, deletion.key)
                undecided = self._undecided(deletion)
                if undecided and found is None:
                    await self._forget_removed(deletion.key, undecided)
                    return
                if not undecided and deletion.still(found):
                    await content.store.delete(deletion.key)
                elif found is not None and is_folder(found) and not await content.store.delete_folder(deletion.key):
                    owed = content.promises.owed
                    if any(key.startswith(deletion.key) and key != deletion.key for key in owed):
                        return  # what lies in it has to go first
                await content.promises.deletion_done(deletion.key)
            except OSError as exc:
                log.warning("%s, unlinked in an earlier run, is not deleted yet: %s", deletion.key, exc)

    def _undecided(self, deletion: Deletion) -> list[Record]:
        """Changes of the very object that was to go: its removal was cut short, and nobody was told that it is gone."""
        records = [writer.entry.record for writer in self._revived.values() if writer.draft.key == deletion.key]
        return [record for record in records if record is not None and record.base is not None and record.base.etag == deletion.etag]

    async def _forget_removed(self, key: str, records: list[Record]) -> None:
        await self._content.throw_away(Aside(key, [], {record.id: self._revived.pop(record.id) for record in records}, records))

    async def _replay_once(self, writer: Writer, slots: trio.CapacityLimiter, again: list[Record]) -> None:
        record = writer.entry.record
        if record is None:
            return
        try:
            await self._replay_record(writer, record, slots, again)
        finally:
            self._is_compared(record.id)

    async def _replay_record(self, writer: Writer, record: Record, slots: trio.CapacityLimiter, again: list[Record]) -> None:
        entry = writer.entry
        try:
            info = await self._replay(writer, record, slots)
        except OSError as exc:
            if record.id not in self._revived:
                return  # whoever took it over meets the same
            state = await self._content.failed(writer, exc)
            if record.id not in self._revived:
                return
            if entry.record is not None and state == FAILED:
                self._revived[entry.record.id] = self._revived.pop(record.id)
                again.append(entry.record)
            elif state == CONFLICT:
                del self._revived[record.id]
                await writer.aclose()
            return
        if self._revived.pop(record.id, None) is None:
            return  # somebody took it over meanwhile, and was told by on_delivered
        self._content.counters.add("journal_replayed")
        log.info("%s, left by an earlier run, is delivered", writer.draft.key)
        await writer.aclose()
        if info is not None:
            self.replayed(info)

    async def _replay(self, writer: Writer, record: Record, slots: trio.CapacityLimiter) -> ObjectInfo | None:
        async with self._comparing:  # not one of the slots, which deliveries may keep for long
            info = await writer.inherited()
        if info is None:
            self._is_compared(record.id)
            async with slots:
                if record.id in self._revived:
                    info = await writer.deliver(only_promised=True)
        return info

    def _is_compared(self, *record_ids: str) -> None:
        self._uncompared.difference_update(record_ids)
        if not self._uncompared:
            self._compared.set()

    def pending(self) -> list[Pending]:
        """Files of an earlier run that are not in the store yet and that nobody took over; conflicts are not among them."""
        drafts = [(writer.draft, writer.entry.record) for writer in self._revived.values()]
        return [
            Pending(draft.key, draft.size, draft.headers(), record.state, record.cause) for draft, record in drafts if record is not None
        ]

    def take(self, key: str) -> Writer | None:
        """The writer of a pending file, the caller's from now on (set *headers* and *on_delivered*); None when there is none.

        What was promised for it counts as promised: deliver it. It may be on its way already, for as long as the server likes; the caller
        is told of that delivery as of any other.
        """
        for record_id, writer in list(self._revived.items()):
            if writer.draft.key == key:
                del self._revived[record_id]
                return writer
        return None

    def set_aside(self, key: str) -> dict[str, Writer]:
        """The file at *key* is being removed: hand its writers out, by record id."""
        return {record_id: self._revived.pop(record_id) for record_id, writer in list(self._revived.items()) if writer.draft.key == key}

    def put_back(self, revived: Mapping[str, Writer]) -> None:
        """They are to be delivered as before."""
        self._revived.update(revived)


def _headers_of(key: str) -> str:
    return f"headers of {key}"  # no record's id


def _is_replaced(writer: Writer) -> bool:
    """Whether another object was about to take the place of the one that it is a change of."""
    return writer.entry.record is not None and bool(writer.entry.record.replaced_by)
