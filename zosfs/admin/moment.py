"""A bucket as it was at one moment: a Store that answers from the versions of then, and changes nothing.

Owns: which version of each key was the current one at that moment. May use: store/. Must not know: names, the kernel.

A key's object of then is its newest version that is not younger than the moment; a delete marker in that place means that there was
none. Directories are found by going through versions without a delimiter (`page_of`), because a common prefix may have only what
came later.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import cachetools

from zosfs.admin.versions import info_of_row, is_deletion, nanoseconds, page_of, rows_by_key
from zosfs.errors import StoreError
from zosfs.store.api import Abilities, BucketUsage, ListPage, ObjectInfo, Store
from zosfs.store.arrival import Arrival

log = logging.getLogger(__name__)

KNOWN = 100_000
"""Keys whose version of then is remembered, so that reading one does not list it again."""
_CHANGES = frozenset({
    "put", "append", "create_upload", "upload_part", "upload_part_copy", "complete_upload", "abort_upload", "copy", "delete",
    "delete_folder", "delete_many", "delete_soon", "put_tags", "put_acl",
})  # fmt: skip


class MomentStore:
    """*store*, a versioned bucket, as it was at *moment* (nanoseconds since the epoch).

    What changes something raises StoreError ``ReadOnly`` (EROFS).
    """

    def __init__(self, store: Store, moment: int) -> None:
        self._store = store
        self._moment = moment
        self.bucket = store.bucket
        self.abilities = Abilities(versioned=True)
        self.promised_deletions = 0
        self._known: cachetools.LRUCache[str, str] = cachetools.LRUCache(KNOWN)

    def __getattr__(self, name: str) -> Any:
        if name in _CHANGES:
            raise StoreError("ReadOnly", operation=name, message="a view of the past")
        return getattr(self._store, name)

    async def settle_deletions(self, *, full: bool = False) -> None:
        """Nothing is ever deleted here."""

    async def usage(self) -> BucketUsage:
        """The bucket's of today: nobody counted then."""
        return await self._store.usage()

    async def list_page(self, prefix: str, *, delimiter: str = "", marker: str = "", max_keys: int = 1000) -> ListPage:
        """See Store.list_page."""

        async def shown(after: str) -> AsyncGenerator[tuple[str, Sequence[ObjectInfo]], None]:
            async for info in self._alive(prefix, after):
                yield info.key, (info,)

        return await page_of(shown, prefix, delimiter, marker, max_keys)

    async def head(self, key: str, *, version_id: str = "") -> ObjectInfo:
        """See Store.head."""
        return await self._store.head(key, version_id=version_id or await self._version(key))

    async def head_many(self, keys: Sequence[str]) -> Sequence[None]:
        """See Store.head_many: versions are asked for one by one."""
        return [None] * len(keys)

    async def get_range(
        self, key: str, start: int, into: memoryview, *, if_match: str = "", version_id: str = "", arrival: Arrival | None = None
    ) -> ObjectInfo:
        """See Store.get_range."""
        version = version_id or await self._version(key)
        return await self._store.get_range(key, start, into, if_match=if_match, version_id=version, arrival=arrival)

    async def get_tags(self, key: str, *, version_id: str = "") -> Any:
        """See Store.get_tags."""
        return await self._store.get_tags(key, version_id=version_id or await self._version(key))

    async def get_acl(self, key: str, *, version_id: str = "") -> Any:
        """See Store.get_acl."""
        return await self._store.get_acl(key, version_id=version_id or await self._version(key))

    async def _version(self, key: str) -> str:
        known: str | None = self._known.get(key)
        if known is None:
            async for info in self._alive(key, ""):
                if info.key == key:
                    return info.version_id
                break
            raise StoreError("NoSuchKey", status=404, operation="head", key=key)
        return known

    async def _alive(self, prefix: str, after: str) -> AsyncIterator[ObjectInfo]:
        """What was there under *prefix* behind the key *after*, in key order."""
        async for key, rows in rows_by_key(self._store, prefix, after):
            current = next((row for row in rows if nanoseconds(row["LastModified"]) <= self._moment), None)
            if current is None or is_deletion(current):
                continue
            self._known[key] = current["VersionId"]
            yield info_of_row(current, key)
