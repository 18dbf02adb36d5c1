"""How far a body is on its way into the caller's buffer, told while the rest is still coming.

Owns: the count of bytes that are there. One thread receives and counts, the trio thread judges what the answer says of itself and is
told. Must not know: sockets, S3. The receiving thread does no more than count, and enters the trio thread only when bytes
have come that somebody waits for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import trio

from zosfs.errors import StoreError
from zosfs.store.api import ObjectInfo

log = logging.getLogger(__name__)

NEVER = 1 << 62

Judge = Callable[[int, Mapping[str, str]], ObjectInfo]


class Arrival:
    """One buffer that is being filled, by one answer or, when that breaks off, by several one after the other."""

    __slots__ = ("_answer", "_base", "_have", "_info", "_judge", "_judged", "_mark", "_token", "_told")

    def __init__(self, told: Callable[[ObjectInfo, int], object]) -> None:
        """*told* gets, in the trio thread, what the answer says and how many bytes from the buffer's beginning on are there, each time
        that some were wanted and have come. When it raises StoreError, nothing more of that answer is told."""
        self._told = told
        self._token = trio.lowlevel.current_trio_token()
        self._judge: Judge | None = None
        self._answer: tuple[int, Mapping[str, str]] | None = None
        self._judged: tuple[int, Mapping[str, str]] | None = None
        self._info: ObjectInfo | None = None
        self._base = 0
        self._have = 0
        self._mark = NEVER

    # -- in the trio thread -----------------------------------------------------------------------------------------

    def expect(self, base: int, judge: Judge) -> None:
        """A request goes out whose body belongs at *base* of the buffer, where the last one broke off. *judge* makes of status and
        headers what they say, or raises StoreError when these are not the bytes that were asked for."""
        self._tell()
        self._answer = self._judged = self._info = None
        self._base, self._judge = base, judge

    def want(self, upto: int) -> None:
        """Tell as soon as the first *upto* bytes are there; at once when they are. Only the last call's wish is kept."""
        self._mark = upto
        if self._have >= upto:  # the thread may have counted just before it could see the mark
            self._mark = NEVER
            self._tell()

    def _tell(self) -> None:
        have, answer = self._have, self._answer
        if answer is None or self._judge is None:
            return
        try:
            if answer is not self._judged:
                self._judged, self._info = answer, None
                self._info = self._judge(*answer)
            if self._info is not None:
                self._told(self._info, have)
        except StoreError:
            self._info = None  # the request's end tells it to whoever waits
        except Exception:
            # nothing may escape into the loop that runs this: it would be the end of the mount
            log.exception("what an answer says of itself could not be read")
            self._info = None

    # -- in the thread that receives --------------------------------------------------------------------------------

    def begins(self, status: int, headers: Mapping[str, str]) -> None:
        """The answer's body comes from now on."""
        self._answer = (status, headers)

    @property
    def lacking(self) -> int:
        """How many more bytes somebody waits for; very many when nobody does."""
        return self._mark - self._have

    def count(self, received: int) -> None:
        """The first *received* bytes of this answer's body are in the buffer."""
        self._have = self._base + received
        if self._have >= self._mark:
            self._mark = NEVER
            try:
                self._token.run_sync_soon(self._tell)
            except trio.RunFinishedError:
                pass
