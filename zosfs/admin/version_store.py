"""A bucket with its older versions as files beside the current ones: `name@VERSION-ID`, to be read, copied, or removed for good.

Owns: which names are versions. May use: store/. Must not know: inodes, the kernel. A key that really ends like that goes first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from typing import Any

import cachetools

from zosfs.admin.versions import Row, info_of_row, is_deletion, page_of, rows_by_key
from zosfs.errors import StoreError
from zosfs.store.api import BucketUsage, ListPage, ObjectInfo, Store, StoreFailure
from zosfs.store.arrival import Arrival

VERSION = "Version"
"""The object type of an older version."""
SHOWN = 100_000
_OF_A_KEY = frozenset({"put", "append", "create_upload", "complete_upload", "put_tags", "put_acl"})
_REPLACES = frozenset({"put", "complete_upload"})


class VersionStore:
    """*store* with its older versions. They are never changed: what tries gets StoreError ``ReadOnly`` (EROFS)."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.on_older: Callable[[str], object] = lambda key: None  # told of a key whose current version has just become an older one
        self._shown: cachetools.LRUCache[str, tuple[str, str]] = cachetools.LRUCache(SHOWN)

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._store, name)
        if name not in _OF_A_KEY:
            return verb

        async def guarded(key: str, *args: Any, **more: Any) -> Any:
            if key in self._shown:
                raise StoreError("ReadOnly", operation=name, key=key, message="an older version")
            result = await verb(key, *args, **more)
            if name in _REPLACES:
                self.on_older(key)
            return result

        return guarded

    def _of(self, key: str, version_id: str) -> tuple[str, str]:
        """Key and version id that *key* stands for."""
        if version_id and key.endswith("@" + version_id):
            return key[: -len(version_id) - 1], version_id
        return self._shown.get(key, (key, version_id))

    async def usage(self) -> BucketUsage:
        """See Store.usage."""
        return await self._store.usage()

    async def list_page(self, prefix: str, *, delimiter: str = "", marker: str = "", max_keys: int = 1000) -> ListPage:
        """See Store.list_page. The versions of a key stand with it, so that a page may be longer than *max_keys*."""

        async def shown(after: str) -> AsyncGenerator[tuple[str, Sequence[ObjectInfo]], None]:
            async for key, rows in rows_by_key(self._store, prefix, after):
                found = list(self._named(key, rows))
                if found:
                    yield key, found

        return await page_of(shown, prefix, delimiter, marker, max_keys)

    def _named(self, key: str, rows: Sequence[Row]) -> Iterator[ObjectInfo]:
        """The versions of *key* as objects: the current one, and older ones under names of their own."""
        for row in rows:
            if is_deletion(row):
                continue
            if row.get("IsLatest"):
                yield info_of_row(row, key)
            elif not key.endswith("/"):
                name = f"{key}@{row['VersionId']}"
                self._shown[name] = (key, row["VersionId"])
                yield info_of_row(row, name, VERSION)

    async def head(self, key: str, *, version_id: str = "") -> ObjectInfo:
        """See Store.head."""
        if not version_id and key not in self._shown:
            try:
                return await self._store.head(key)
            except StoreError as exc:
                name, at, version = key.rpartition("@")
                if exc.status != 404 or not at or not name or "/" in version:
                    raise
                try:
                    found = await self._store.head(name, version_id=version)
                except StoreError:
                    raise exc from None  # no such version, or no version at all
                self._shown[key] = (name, version)
                return _as_version(found, key)
        name, version = self._of(key, version_id)
        found = await self._store.head(name, version_id=version)
        return _as_version(found, key) if key in self._shown else found

    async def head_many(self, keys: Sequence[str]) -> Sequence[ObjectInfo | None]:
        """See Store.head_many: what may be an older version is asked for alone."""
        if any(key in self._shown for key in keys):
            return [None] * len(keys)
        return [info if isinstance(info, ObjectInfo) else None for info in await self._store.head_many(keys)]

    async def get_range(
        self, key: str, start: int, into: memoryview, *, if_match: str = "", version_id: str = "", arrival: Arrival | None = None
    ) -> ObjectInfo:
        """See Store.get_range."""
        name, version = self._of(key, version_id)
        return await self._store.get_range(name, start, into, if_match=if_match, version_id=version, arrival=arrival)

    async def copy(self, source_key: str, key: str, *, source_version_id: str = "", **more: Any) -> Any:
        """See Store.copy."""
        if key in self._shown:
            raise StoreError("ReadOnly", operation="copy", key=key, message="an older version")
        name, version = self._of(source_key, source_version_id)
        result = await self._store.copy(name, key, source_version_id=version, **more)
        self.on_older(key)
        return result

    async def delete(self, key: str, *, version_id: str = "", bypass_governance: bool = False) -> None:
        """See Store.delete. An older version is removed for good."""
        name, version = self._of(key, version_id)
        await self._store.delete(name, version_id=version, bypass_governance=bypass_governance)
        self._shown.pop(key, None)
        if not version:
            self.on_older(key)

    def delete_soon(self, info: ObjectInfo, done: Callable[[StoreFailure | None], object]) -> None:
        """See Store.delete_soon."""
        self._store.delete_soon(info, done)
        self.on_older(info.key)

    async def delete_many(self, keys: Sequence[str]) -> Mapping[str, StoreFailure]:
        """See Store.delete_many."""
        failures = await self._store.delete_many(keys)
        for key in keys:
            self.on_older(key)
        return failures

    async def get_tags(self, key: str, *, version_id: str = "") -> Mapping[str, str]:
        """See Store.get_tags."""
        name, version = self._of(key, version_id)
        return await self._store.get_tags(name, version_id=version)

    async def get_acl(self, key: str, *, version_id: str = "") -> Mapping[str, Any]:
        """See Store.get_acl."""
        name, version = self._of(key, version_id)
        return await self._store.get_acl(name, version_id=version)


def _as_version(found: ObjectInfo, key: str) -> ObjectInfo:
    return dataclasses.replace(found, key=key, object_type=VERSION)
