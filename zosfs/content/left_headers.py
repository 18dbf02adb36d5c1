"""Headers that an earlier run promised, and that objects do not have yet.

Owns: which those are, and the tries to give them. One that failed is made again and again, and at once by whoever is about to change or
move the object: it would be another one afterwards, which nothing was promised of. Must not know: attributes, names.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import trio

from zosfs.content.promised_headers import PromisedHeaders
from zosfs.errors import StoreError
from zosfs.store.api import ObjectInfo

if TYPE_CHECKING:
    from zosfs.content.content import Content

log = logging.getLogger(__name__)

RETRY_SECONDS = (1, 5, 15, 60)
AT_ONCE = 8


class LeftHeaders:
    """Those of one bucket. *given* is told of each object that has them, as a HEAD would: what was known of it is from before."""

    def __init__(self, content: Content, given: Callable[[ObjectInfo], object]) -> None:
        self._content = content
        self._given = given
        self._left: dict[str, PromisedHeaders] = {}
        self._slots = trio.CapacityLimiter(AT_ONCE)

    def take(self, promises: Iterable[PromisedHeaders]) -> None:
        """These are left."""
        self._left = {promise.key: promise for promise in promises}

    def begin(self, tried: Callable[[str], object]) -> None:
        """Give the objects what they were promised, in the background; *tried* is told each key when it was tried once."""
        for promise in self._left.values():
            self._content.nursery.start_soon(self._keep_at_last, promise, tried)

    def lacking(self) -> list[str]:
        """The keys of the objects that lack some."""
        return list(self._left)

    def forget(self, key: str) -> None:
        """Something else is promised of *key* from now on: another object has come there."""
        self._left.pop(key, None)

    async def keep(self, key: str) -> None:
        """Give the object at *key* what it was promised, if it lacks that and no other one is there by now. Raises StoreError, and it is
        still to be given it."""
        async with self._content.only_one(key), self._slots:
            promise = self._left.get(key)
            if promise is None:
                return
            found = await promise.keep(self._content.store)
            if self._left.get(key) is not promise:
                return
            self._done(key)
            if found is not None:
                self._given(found)
            else:
                log.info("%s is not the object any more that an earlier run promised other attributes", key)

    async def settle(self, key: str) -> None:
        """Before the object at *key* is changed or moved: as `keep`, but what the server refuses is given up."""
        if key not in self._left:
            return
        try:
            await self.keep(key)
        except StoreError as exc:
            if not exc.refused:
                raise
            _refused(key, exc)
            self._done(key)

    async def settle_below(self, prefix: str) -> None:
        """`settle` all whose keys begin with *prefix*. Raises the first StoreError."""
        failures: list[StoreError] = []

        async def one(key: str) -> None:
            try:
                await self.settle(key)
            except StoreError as exc:
                failures.append(exc)

        async with trio.open_nursery() as nursery:
            for key in [key for key in self._left if key.startswith(prefix)]:
                nursery.start_soon(one, key)
        if failures:
            raise failures[0]

    def _done(self, key: str) -> None:
        if self._left.pop(key, None) is not None:
            self._content.headers_done(key)

    async def _keep_at_last(self, promise: PromisedHeaders, tried: Callable[[str], object]) -> None:
        key, told = promise.key, False
        for pause in itertools.chain(RETRY_SECONDS, itertools.repeat(RETRY_SECONDS[-1])):
            try:
                await self.keep(key)
            except StoreError as exc:
                if exc.refused:
                    _refused(key, exc)
                    return
                if not told:
                    log.warning("%s has not yet the attributes that an earlier run promised: %s", key, exc)
                    told = True
            finally:
                tried(key)
            if self._left.get(key) is not promise:
                return
            await trio.sleep(pause)


def _refused(key: str, why: StoreError) -> None:
    log.error("%s: the changed attributes that an earlier run promised are refused: %s", key, why)
