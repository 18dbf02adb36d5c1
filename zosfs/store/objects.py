"""All objects of a prefix, over as many pages as it takes, in which order objects may go, and whether one is still the same. Must not know:
what they are wanted for."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from itertools import groupby

from zosfs.store.api import ObjectInfo, Store


async def objects_below(store: Store, prefix: str) -> AsyncGenerator[ObjectInfo, None]:
    """Every object whose key begins with *prefix*, in key order, 1000 a request. Raises StoreError."""
    marker = ""
    while True:
        page = await store.list_page(prefix, marker=marker)
        for info in page.objects:
            yield info
        marker = page.next_marker
        if not marker:
            return


def folder(key: str) -> ObjectInfo:
    """What stands for the directory *key* (ending in a slash) where it has no object, but may be a folder of the server's (pure)."""
    return ObjectInfo(key, 0, "", 0)


def is_folder(info: ObjectInfo) -> bool:
    """Whether *info* is a `folder` (pure)."""
    return info.key.endswith("/") and not info.etag


NEAR = 2 * 10**9
"""Nanoseconds by which the time of one and the same object may differ: servers tell it in several ways."""


def is_still(found: ObjectInfo, etag: str, modified_ns: int) -> bool:
    """Whether *found* is the object that had this ETag and was made about then, and no other one with the same bytes, made since (pure).

    What is known of an object that was made here is the time of the answer, which may have come long after that.
    """
    return found.etag == etag and found.modified_ns <= modified_ns + NEAR


def waves(keys: Iterable[str]) -> list[Sequence[str]]:
    """*keys* in the order in which they may be deleted, those of one wave all at once: files, then folders, the deepest first (pure).

    A server with folders of its own (SeaweedFS) keeps one that has something in it, and tells nobody.
    """
    def turn(key: str) -> tuple[bool, int]:
        return (True, -key.count("/")) if key.endswith("/") else (False, 0)

    return [list(wave) for _, wave in groupby(sorted(keys, key=turn), turn)]
