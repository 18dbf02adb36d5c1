"""Requests to the keys of one bucket: those that change a key one at a time, and doubts settled.

Owns: what is known of the bucket (abilities), the turns of its keys, and which of them are in doubt. Must not know: what is asked for.

After a lost answer (`put`, `complete_upload`, `copy`) the object is asked for by HEAD. It counts as written by us when its ETag is
the one that our bytes have (MD5, or MD5 of the parts' MD5s) and its metadata are those we sent; where encryption makes ETags
something else, when size and metadata are ours and it is no older than the request.
"""

from __future__ import annotations

import time
from typing import Any

import trio

from zosfs.errors import StoreError
from zosfs.store import answers
from zosfs.store.api import Abilities, ObjectHeaders, Written
from zosfs.store.exchange import Exchange, Settle
from zosfs.store.http import Answer
from zosfs.store.turns import Turns

COPIED_PER_SECOND = 10e6
"""Bytes that any server copies in a second: how long an answer may take."""


class KeyedRequests:
    """What the verbs of one bucket have in common."""

    def __init__(self, exchange: Exchange, bucket: str) -> None:
        self.bucket = bucket
        self.abilities = Abilities()
        self.exchange = exchange
        self._turns = Turns()
        self._doubtful: set[str] = set()

    async def _ask(self, verb: str, method: str, key: str, **more: Any) -> Answer:
        if not key:
            # without a key the same request would be one on the bucket: DELETE would delete it
            raise StoreError("InvalidArgument", operation=verb, message="an empty key")
        return await self.exchange.request(verb, method, self.bucket, key, **more)

    async def _change(self, verb: str, method: str, key: str, **more: Any) -> Answer:
        """A request that changes *key*; its turn is held. One whose outcome stayed in doubt is looked after before the next."""
        if key in self._doubtful:
            await self._look(key)
            self._doubtful.discard(key)
        try:
            return await self._ask(verb, method, key, **more)
        except StoreError as exc:
            if exc.ambiguous and key:
                self._doubtful.add(key)
            raise
        except trio.Cancelled:
            self._doubtful.add(key)
            raise

    async def _look(self, key: str) -> Answer | None:
        try:
            return await self._ask("head", "HEAD", key, tries=2)
        except StoreError as exc:
            if exc.status == 404:
                return None
            raise

    def _settling(self, key: str, size: int, headers: ObjectHeaders | None, etag: Any) -> Settle:
        """Whether the object of *size* bytes with *headers* (None: not compared) and the ETag that ``await etag()`` gives is there."""
        began = time.time() + self.exchange.signer.clock_offset

        async def settle() -> Answer | None:
            answer = await self._look(key)
            if answer is None:
                return None
            found = answers.info_of(key, answer.headers)
            if found.size != size:
                return None
            metadata = found.metadata or {}
            if headers is not None and any(metadata.get(n, "").strip() != v.strip() for n, v in headers.metadata.items()):
                return None
            encrypted = any(name.startswith("x-amz-server-side-encryption") for name in found.headers)
            if found.etag != await etag() and not (encrypted and found.modified_ns >= (began - 2) * 1e9):
                return None
            return answer

        return settle

    def _written(self, answer: Answer, etag: str = "", modified_ns: int = 0) -> Written:
        headers = answer.headers
        position = headers.get("x-rgw-next-append-position", "")
        version = headers.get("x-amz-version-id", "")
        if version:
            self.abilities.versioned = True
        return Written(
            etag or headers.get("etag", "").strip('"'),
            version,
            int(position) if position.isdigit() else None,
            modified_ns or answers.http_time_ns(headers.get("last-modified", "") or headers.get("date", "")),
        )
