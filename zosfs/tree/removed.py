"""Objects whose names were removed here, and which live on for those who have them open: nobody is shown them, nor a directory in which
nothing else is.

Owns: which objects those are. May use: the store, for listings. Must not know: who has them open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from zosfs.store.api import ListPage, ObjectInfo, Store
from zosfs.store.objects import is_folder, is_still, objects_below

MOST = 1000
"""Keys that a page of a listing has at most (S3's limit)."""

_Objects = Mapping[str, ObjectInfo | None]
"""By key; None where it is not known which one lies there."""


class Removed:
    """Those of a mount."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str], ObjectInfo | None] = {}

    def add(self, store: Store, key: str, info: ObjectInfo | None) -> None:
        """The object *info* at *key* lost its name, and is not deleted yet. Without *info*: whatever lies there."""
        self._objects[store.bucket, key] = info

    def discard(self, store: Store, key: str) -> None:
        """It is deleted, or another one may lie there by now."""
        self._objects.pop((store.bucket, key), None)

    def hiding(self, store: Store, key: str) -> Callable[[ObjectInfo], bool]:
        """Before *key* is asked for: whether the answer is one of them, though that may be deleted by the time that it comes."""
        asked = self._at(store, key)
        return lambda info: _hides(asked, info) or _hides(self._at(store, key), info)

    def any_below(self, store: Store, prefix: str) -> bool:
        """Whether there are any whose keys begin with *prefix*."""
        return bool(self._objects) and bool(self._below(store, prefix))

    async def list_page(
        self, store: Store, prefix: str, *, delimiter: str = "", marker: str = "", max_keys: int | None = None
    ) -> ListPage:
        """As Store.list_page, without them."""
        hidden = self._below(store, prefix) if self._objects else {}
        if max_keys is None:
            page = await store.list_page(prefix, delimiter=delimiter, marker=marker)
        else:
            page = await store.list_page(prefix, delimiter=delimiter, marker=marker, max_keys=min(MOST, max_keys + len(hidden)))
        if not hidden:
            return page
        objects = [info for info in page.objects if not _hides(hidden, info)]
        prefixes = [
            below for below in page.prefixes
            if not any(key.startswith(below) for key in hidden) or await _has_others(store, below, hidden)
        ]  # fmt: skip
        if page.next_marker and not objects and not prefixes:
            return await self.list_page(store, prefix, delimiter=delimiter, marker=page.next_marker, max_keys=max_keys)
        return ListPage(objects, prefixes, page.next_marker)

    def _at(self, store: Store, key: str) -> _Objects:
        return {key: self._objects[store.bucket, key]} if (store.bucket, key) in self._objects else {}

    def _below(self, store: Store, prefix: str) -> _Objects:
        return {key: info for (bucket, key), info in self._objects.items() if bucket == store.bucket and key.startswith(prefix)}


def _hides(hidden: _Objects, info: ObjectInfo) -> bool:
    if info.key not in hidden:
        return False
    removed = hidden[info.key]
    return removed is None or is_still(info, removed.etag, removed.modified_ns)


async def _has_others(store: Store, prefix: str, hidden: _Objects) -> bool:
    async for info in objects_below(store, prefix):
        if not _hides(hidden, info) and not is_folder(info):
            return True
    return False
