"""A bucket whose deletions may be gathered: many become one request, and nobody can see that they were not made yet.

Owns: the deletions that were promised and not sent. Must not know: why they are gathered, nor where the promise is kept.

What could tell that an object is still there, or would be undone by a late deletion, is held back until the gathered ones are
delivered: every request that names one of their keys. A listing need not wait: their objects are taken out of its pages. Only where
it shows a common prefix below which one of them lies, nobody can tell whether anything else is there, and it waits. So their order
with all else is that of a single delete.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import trio

from zosfs.errors import StoreError
from zosfs.store.api import Body, ListPage, ObjectHeaders, ObjectInfo, PartInfo, StoreFailure, Written
from zosfs.store.arrival import Arrival
from zosfs.store.objects import is_folder, is_still, waves
from zosfs.store.s3 import S3Store

AT_ONCE = 1000
"""Keys in one DeleteObjects (S3's limit)."""

DOUBTED = 3.0
"""Seconds after which somebody else may well have put another object in the place of one that is to be deleted."""
LOOKS_AT_ONCE = 64

Done = Callable[[StoreFailure | None], object]
Send = Callable[[Sequence[str]], Awaitable[Mapping[str, StoreFailure]]]


class Gathered:
    """Keys promised to be deleted. *send* deletes up to 1000 and returns which of them are refused."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: dict[str, Done] = {}
        self._sent: dict[str, Done] = {}
        self._sending = trio.Lock()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._sent)

    def __contains__(self, key: str) -> bool:
        return key in self._waiting or key in self._sent

    def below(self, prefix: str) -> set[str]:
        """The keys that begin with *prefix*."""
        return {key for keys in (self._waiting, self._sent) for key in keys if key.startswith(prefix)}

    def has_in_the_way_of(self, key: str) -> bool:
        """Whether an object of *key* has to wait where folders are real: *key* is promised, or, for a file, a folder of its name or what
        lies in it, or a file that has the name of a folder which *key* lies in."""
        if key in self or (not key.endswith("/") and any(other.startswith(key + "/") for other in (*self._waiting, *self._sent))):
            return True
        end = key.find("/")
        while end >= 0:
            if key[:end] in self:
                return True
            end = key.find("/", end + 1)
        return False

    def add(self, key: str, done: Done) -> None:
        """Promise the deletion of *key*; *done* is told what became of it, once."""
        self._waiting[key] = done

    async def settle(self, *, full: bool = False) -> None:
        """Return when all that were promised so far are deleted or refused; *full*: those that fill whole requests. Raises StoreError,
        and keeps them, when that cannot be told. What is promised meanwhile is gathered on: each time a handful, and nobody would
        ever return while somebody removes."""
        async with self._sending:
            promised = list(self._waiting)
            if full:
                del promised[len(promised) // AT_ONCE * AT_ONCE :]
            for at in range(0, len(promised), AT_ONCE):
                batch = promised[at : at + AT_ONCE]
                self._sent = {key: self._waiting.pop(key) for key in batch}
                try:
                    failures = await self._send(batch)
                except BaseException:
                    self._waiting = self._sent | self._waiting
                    raise
                else:
                    for key, done in self._sent.items():
                        done(failures.get(key))
                finally:
                    self._sent = {}


class GatheringStore(S3Store):
    """An S3Store with `delete_soon`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._gathered = Gathered(self._delete_gathered)
        self._meant: dict[str, tuple[float, ObjectInfo]] = {}  # by key: when its deletion was promised, and of which object
        self._hidden: list[set[str]] = []  # from each listing under way
        self._told_before_making: Callable[[str], Awaitable[None]] | None = None

    @property
    def promised_deletions(self) -> int:
        """How many deletions are gathered."""
        return len(self._gathered)

    def delete_soon(self, info: ObjectInfo, done: Done) -> None:
        """See Store.delete_soon."""
        def told(failure: StoreFailure | None) -> None:
            if failure is not None:
                for hidden in self._hidden:
                    hidden.discard(info.key)
            done(failure)

        self._meant[info.key] = trio.current_time(), info
        self._gathered.add(info.key, told)

    def tell_before_making(self, told: Callable[[str], Awaitable[None]]) -> None:
        """See Store.tell_before_making."""
        self._told_before_making = told

    async def settle_deletions(self, *, full: bool = False) -> None:
        """See Store.settle_deletions."""
        await self._gathered.settle(full=full)

    async def _delete_gathered(self, keys: Sequence[str]) -> Mapping[str, StoreFailure]:
        late = trio.current_time() - DOUBTED
        doubted = [info for at, info in map(self._meant.__getitem__, keys) if at < late]
        folders = [info.key for info in doubted if is_folder(info)]
        replaced = await self._replaced([info for info in doubted if not is_folder(info)])
        failures = await super().delete_many([key for key in keys if key not in replaced and key not in folders])
        for key in (key for wave in waves(folders) for key in wave):
            await S3Store.delete_folder(self, key)
        for key in keys:
            del self._meant[key]
        return failures

    async def _replaced(self, promised: Sequence[ObjectInfo]) -> set[str]:
        """Keys of those objects that are no more what was seen: there is another one, or none."""
        replaced: set[str] = set()
        waiting = iter(promised)
        failures: list[OSError] = []

        async def look() -> None:
            for info in waiting:
                try:
                    found = await super(GatheringStore, self).head(info.key)
                    if is_folder(found):
                        continue  # and no object
                    if not is_still(found, info.etag, info.modified_ns):
                        replaced.add(info.key)
                except StoreError as exc:
                    if exc.errno != errno.ENOENT:
                        failures.append(exc)
                        return
                    if not info.key.endswith("/"):  # a server may know the marker of a directory by listings alone
                        replaced.add(info.key)

        async with trio.open_nursery() as nursery:
            for _ in range(min(LOOKS_AT_ONCE, len(promised))):
                nursery.start_soon(look)
        if failures:
            raise failures[0]
        return replaced

    async def _before(self, *keys: str) -> None:
        if self._gathered and any(key in self._gathered for key in keys):
            await self._gathered.settle()

    async def _before_making(self, key: str) -> None:
        # SeaweedFS takes no file in the place of a folder, nor the other way round
        if self._gathered and self._gathered.has_in_the_way_of(key):
            await self._gathered.settle()
        if self._told_before_making is not None:
            await self._told_before_making(key)

    async def _before_folders(self, *keys: str) -> None:
        # where they are the server's own, one that still has something in it stays
        if self._gathered and self.abilities.keeps_folders and any(key.endswith("/") and self._gathered.below(key) for key in keys):
            await self._gathered.settle()

    # whatever could tell the difference

    async def head(self, key: str, *, version_id: str = "") -> ObjectInfo:
        """See Store.head."""
        await self._before(key)
        return await super().head(key, version_id=version_id)

    async def head_many(self, keys: Sequence[str]) -> Sequence[ObjectInfo | StoreError | None]:
        """See Store.head_many."""
        await self._before(*keys)
        return await super().head_many(keys)

    async def list_page(self, prefix: str, *, delimiter: str = "", marker: str = "", max_keys: int = 1000) -> ListPage:
        """See Store.list_page."""
        hidden = self._gathered.below(prefix) if self._gathered else set()
        if hidden and max_keys < AT_ONCE:
            await self._gathered.settle()  # who asks for a few means to see whether there is any
            hidden = set()
        if not hidden:
            return await super().list_page(prefix, delimiter=delimiter, marker=marker, max_keys=max_keys)
        self._hidden.append(hidden)
        try:
            page = await super().list_page(prefix, delimiter=delimiter, marker=marker, max_keys=max_keys)
            if any(key.startswith(below) for below in page.prefixes for key in hidden):
                await self._gathered.settle()
                page = await super().list_page(prefix, delimiter=delimiter, marker=marker, max_keys=max_keys)
            return ListPage([info for info in page.objects if info.key not in hidden], page.prefixes, page.next_marker)
        finally:
            self._hidden = [other for other in self._hidden if other is not hidden]

    async def get_range(
        self, key: str, start: int, into: memoryview, *, if_match: str = "", version_id: str = "", arrival: Arrival | None = None
    ) -> ObjectInfo:
        """See Store.get_range."""
        await self._before(key)
        return await super().get_range(key, start, into, if_match=if_match, version_id=version_id, arrival=arrival)

    async def put(
        self, key: str, body: Body, headers: ObjectHeaders, *, if_match: str = "", if_none_match: bool = False
    ) -> Written:
        """See Store.put."""
        await self._before_making(key)
        return await super().put(key, body, headers, if_match=if_match, if_none_match=if_none_match)

    async def append(self, key: str, position: int, body: Body, headers: ObjectHeaders) -> Written:
        """See Store.append."""
        await self._before_making(key)
        return await super().append(key, position, body, headers)

    async def complete_upload(self, key: str, upload_id: str, parts: Sequence[PartInfo]) -> Written:
        """See Store.complete_upload."""
        await self._before_making(key)
        return await super().complete_upload(key, upload_id, parts)

    async def copy(
        self, source_key: str, key: str, *, source_bucket: str = "", source_version_id: str = "",
        headers: ObjectHeaders | None = None, acl: str | Mapping[str, str] = "", if_match: str = "", size: int = 0,
    ) -> Written:  # fmt: skip
        """See Store.copy."""
        await self._before(source_key)
        await self._before_making(key)
        return await super().copy(
            source_key, key, source_bucket=source_bucket, source_version_id=source_version_id, headers=headers, acl=acl,
            if_match=if_match, size=size,
        )  # fmt: skip

    async def delete(self, key: str, *, version_id: str = "", bypass_governance: bool = False) -> None:
        """See Store.delete."""
        if not version_id:
            await self._before_folders(key)
        await super().delete(key, version_id=version_id, bypass_governance=bypass_governance)

    async def delete_folder(self, key: str) -> bool:
        """See Store.delete_folder."""
        await self._before_folders(key)
        return await super().delete_folder(key)

    async def delete_many(self, keys: Sequence[str]) -> Mapping[str, StoreFailure]:
        """See Store.delete_many."""
        await self._before_folders(*keys)
        return await super().delete_many(keys)

    async def put_tags(self, key: str, tags: Mapping[str, str], *, version_id: str = "") -> None:
        """See Store.put_tags."""
        await self._before(key)
        await super().put_tags(key, tags, version_id=version_id)

    async def put_acl(self, key: str, acl: str | Mapping[str, Any], *, version_id: str = "") -> None:
        """See Store.put_acl."""
        await self._before(key)
        await super().put_acl(key, acl, version_id=version_id)

    async def call(self, operation: str, **members: Any) -> Mapping[str, Any]:
        """See Store.call."""
        if self._gathered:
            await self._gathered.settle()
        return await super().call(operation, **members)
