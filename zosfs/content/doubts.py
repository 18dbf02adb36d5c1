"""What requests of ours that got no good answer may have left in the store.

Owns: the ETags by which such an object is known for ours when it is met later, and whether a tail may have been appended already. What an
earlier run sent counts among them; its sums are asked for only when bytes are about to change, or when a stranger is met.
Must not know: requests, the journal.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from zosfs.content.append import Sent, left_by
from zosfs.content.journal_rows import Record
from zosfs.content.replay import expected_etag, leans_on_base
from zosfs.store.api import ObjectInfo

Sum = Callable[[int, int], Awaitable[str]]
"""The MD5 of the staged bytes ``[start, end)``, which do not change meanwhile."""


class Doubts:
    """One file's doubts, until a delivery gets its answer."""

    def __init__(self, md5: Sum) -> None:
        self._sum = md5
        self.etags: set[str] = set()
        """ETags that a try may have left."""
        self.doubtful = False
        """Whether the last try may have been applied."""
        self.sent = Sent()
        """What the last append sent, and where to, as long as that is in doubt."""
        self.retracted = False
        """What may have been appended changed since: this is an edit of what that try may have left, no append."""
        self._tried: tuple[int, int] | None = None  # bytes that a try may have appended
        self._untold: tuple[int, int] | None = None  # the same of an earlier run, as long as nobody asked for their sum
        self._unsettled = 0  # an earlier run may have sent so many bytes, all that there were, and nobody asked for their sum

    def inherit(self, record: Record, tail: tuple[int, int] | None) -> None:
        """An earlier run left *record*, and may have appended *tail*."""
        self.etags = {*record.suspects, expected_etag(record)} - {""}
        self.doubtful = True
        self.sent.restore(record.sent if record.appending else ())
        self._untold = tail
        self._unsettled = 0 if tail is not None or leans_on_base(record) else record.size

    @property
    def open(self) -> bool:
        """Whether a sum has to be asked for before bytes change."""
        return self._untold is not None or self._unsettled > 0

    async def before_change(self, start: int, base_etag: str) -> None:
        """Bytes from *start* on are about to change (or, with 0, a stranger was met): ask for the sums of what may have been sent."""
        if self._untold is not None and start < self._untold[1]:
            (low, high), self._untold = self._untold, None
            await self.may_have_appended(low, high, base_etag)
            await self.may_have_gone_on(low)
        if self._unsettled:
            size, self._unsettled = self._unsettled, 0
            self.etags.add(await self._sum(0, size))

    def changed(self, start: int) -> None:
        """Bytes from *start* on changed: if a try may have appended them, it is no append any more."""
        if self._tried is not None and start < self._tried[1]:
            self._tried = None
            self.retracted = True

    async def may_have_appended(self, start: int, end: int, base_etag: str) -> None:
        """The staged bytes ``[start, end)`` may have been appended to the object of *base_etag* ("": there was none)."""
        self._untold = None
        self.etags |= left_by(base_etag, await self._sum(start, end))
        self._tried = (start, end)

    async def may_have_gone_on(self, start: int) -> None:
        """Of a tail from *start* on a part had landed, and the next one may have been appended behind that: what it left then. Not where
        others' bytes are in front of it: that is no object of ours."""
        state, first = self.sent.state, start + self.sent.landed
        if state is not None and self.sent.landed and state.position == first:
            self.etags |= left_by(state.etag, await self._sum(first, first + self.sent.length))

    async def may_have_put(self, size: int) -> None:
        """The first *size* staged bytes may be the object."""
        self.etags.add(await self._sum(0, size))

    def cut_off(self, size: int, tail: tuple[int, int] | None) -> None:
        """The first *size* staged bytes may be the object, or *tail* may have been appended: nobody waited for the answer."""
        self._unsettled = size
        self._untold = tail

    def ours(self, found: ObjectInfo | None) -> bool:
        """Whether *found* is what a try of ours left."""
        return found is not None and found.etag in self.etags

    def settle(self) -> None:
        """The store has the file, and said so."""
        self.etags.clear()
        self.doubtful = self.retracted = False
        self.sent.forget()
        self._tried = self._untold = None
        self._unsettled = 0
