"""When bytes of a draft go up before its delivery: a new file while it is written, others when the disk is short.

Owns: the decision. Must not know: how parts are made and sent, who is short of disk space.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from zosfs.content.draft import FOREVER, Draft
from zosfs.content.early_uploads import EarlyUploads
from zosfs.content.journal_entry import JournalEntry
from zosfs.content.ranges import Ranges
from zosfs.errors import StoreError
from zosfs.locks import Lock

if TYPE_CHECKING:
    from zosfs.content.content import Content

log = logging.getLogger(__name__)


class GoingUpEarly:
    """Whether and when one draft does."""

    def __init__(
        self, content: Content, draft: Draft, uploads: EarlyUploads, entry: JournalEntry,
        delivering: Lock, deliver: Callable[[], Awaitable[object]],
    ) -> None:  # fmt: skip
        """*delivering* is held while the draft is delivered, by *deliver*."""
        self._content = content
        self._draft = draft
        self._uploads = uploads
        self._entry = entry
        self._delivering = delivering
        self._deliver = deliver
        self._stuck = -1  # the generation of which no part could go up early
        self.pressed = False
        """Whether it is going up before its time, because the disk is short."""
        self.precious = False
        """Whether all bytes are to stay on the disk, because the object may go."""

    # -- a new file, while it is written ------------------------------------------------------------------------------

    async def stream_on(self) -> None:
        """A new file that is written from its beginning goes up while it grows."""
        draft, uploads = self._draft, self._uploads
        if uploads.editing:
            return
        frontier = draft.staged.dirty.run_end(0)
        if not uploads.streaming:
            if frontier < self.stream_from or self._delivering.locked():
                return
            await uploads.begin_stream(draft)
            frontier = draft.staged.dirty.run_end(0)
        uploads.advance(frontier)

    @property
    def stream_from(self) -> int:
        """How much of a new file has to be there before it goes up while it grows."""
        limits = self._content.limits
        return limits.part_size if self.pressed else limits.multipart_threshold + limits.part_size

    # -- when the disk is short ---------------------------------------------------------------------------------------

    def shed(self, n: int) -> int:
        """Drop from the disk what the store has, of a file that goes up while it is written about *n* bytes; returns how many.

        A new file that could go up begins to.
        """
        draft, uploads = self._draft, self._uploads
        if self._delivering.locked() or self.precious or draft.unlinked:
            return 0
        new = not draft.kept and not draft.appending and self._entry.record is None and not uploads.editing
        if uploads.streaming:
            return uploads.shed(n, draft.landing()) if new and not draft.moving() else 0
        if new and not self.pressed and draft.staged.dirty.run_end(0) >= self._content.limits.part_size:
            self.pressed = True
            self._content.nursery.start_soon(self._stream_early)
            return 0
        if draft.base is None:
            return 0
        return draft.staged.shed(Ranges([(draft.kept, FOREVER)]))

    async def _stream_early(self) -> None:
        try:
            await self.stream_on()
        finally:
            self.pressed = False

    def press(self) -> bool:
        """The disk is short, and nothing else helps: have some of what changed go up before its time. False where that cannot be."""
        draft = self._draft
        able = draft.changed and not (
            draft.appending or draft.unlinked or self.precious or self.pressed or self._uploads.arriving
            or self._entry.record is not None or self._delivering.locked() or self._stuck == draft.generation or draft.moving()
        )  # fmt: skip
        if able:
            self.pressed = True
            self._content.nursery.start_soon(self._edit_early)
        return able

    async def _edit_early(self) -> None:
        try:
            try:
                await self._edit_more()
            except StoreError as exc:
                if exc.code != "NoSuchUpload":
                    raise
                await self._deliver()  # an object may have been made of it without an answer: then there is nothing to add to
        except OSError as exc:
            log.warning("the disk is short, and changes of %s cannot go up: %s", self._draft.key, exc)
            self._draft.staged.failed()
        finally:
            self.pressed = False

    async def _edit_more(self) -> None:
        draft = self._draft
        async with self._delivering:
            if self._entry.record is None and draft.changed and not self._uploads.arriving and not draft.moving():
                if await self._uploads.edit_more(draft):
                    draft.staged.arrived()
                else:
                    self._stuck = draft.generation
                    draft.staged.failed()
