"""A bucket of names in memory that lists as Ceph lists, answers as slowly as it is told, and counts what it was asked.

An answer is made at one moment of a request's life; *before* and *after* are the seconds on either side of it.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import trio

from zosfs.config import Options
from zosfs.counters import Counters
from zosfs.errors import StoreError
from zosfs.store.api import HEADS_TOGETHER, Abilities, Account, ListPage, ObjectInfo, Store
from zosfs.tree.attribute_cache import AttributeCache
from zosfs.tree.attributes import Attributes, Defaults
from zosfs.tree.inodes import Inode, Volume
from zosfs.tree.tree import Tree

DEFAULTS = Defaults(uid=7, gid=8, file_mode=0o644, dir_mode=0o755)


def no_time() -> float:
    return 0.0


def by_bytes(key: str) -> bytes:
    """The order in which Ceph lists, and S3 says to."""
    return key.encode()


def by_names(key: str) -> tuple[bytes, ...]:
    """The order in which SeaweedFS lists: that of a tree of directories."""
    return tuple(part.encode() for part in key.split("/"))


def by_letters(key: str) -> str:
    """An order of no server that we know: capitals among the small letters."""
    return "".join(letter.lower() + letter for letter in key)


class Names:
    """The listing half of a Store."""

    def __init__(self, *keys: str, page: int = 1000, bucket: str = "memory") -> None:
        self.bucket = bucket
        self.abilities = Abilities()
        self.page = page
        self.objects: dict[str, ObjectInfo] = {}
        self.requests: Counter[str] = Counter()
        self.asked: list[tuple[str, str]] = []
        self.order: Callable[[str], Any] = by_bytes
        self.before: Callable[[], float] = no_time
        self.after: Callable[[], float] = no_time
        self.failure: StoreError | None = None  # what every request meets from now on
        self.failing: Callable[[str], bool] | None = None  # listings from which markers on are refused
        self.refusing: Callable[[str], bool] = lambda key: False  # keys whose HEADs are refused
        self.leaves: Callable[[str], bool] = lambda key: False  # whether a batch of HEADs comes back without an answer for a key
        self._clock = 1_700_000_000 * 10**9
        for key in keys:
            self.set(key)

    def set(self, key: str, data: bytes = b"x", size: int | None = None, **metadata: str) -> ObjectInfo:
        """Anybody's PUT; *size* instead of that many bytes."""
        self._clock += 10**9 + 10**6
        etag = hashlib.md5(data).hexdigest()
        info = ObjectInfo(key, len(data) if size is None else size, etag, self._clock, metadata=metadata, content_type="text/plain")
        self.objects[key] = info
        return info

    def drop(self, key: str) -> None:
        """Anybody's DELETE."""
        self.objects.pop(key, None)

    async def _ask(self, verb: str, key: str) -> None:
        self.requests[verb] += 1
        self.asked.append((verb, key))
        await trio.sleep(self.before())
        if self.failure is not None:
            raise self.failure

    async def head(self, key: str, *, version_id: str = "") -> ObjectInfo:
        await self._ask("head", key)
        info = self.objects.get(key)
        await trio.sleep(self.after())
        if self.refusing(key):
            raise StoreError("AccessDenied", status=403, operation="head", key=key)
        if info is None:
            raise StoreError("NoSuchKey", status=404, operation="head", key=key)
        second = 10**9
        return ObjectInfo(
            key, info.size, info.etag, info.modified_ns // second * second, content_type=info.content_type, metadata=info.metadata
        )

    async def head_many(self, keys: Sequence[str]) -> Sequence[ObjectInfo | StoreError | None]:
        assert 2 <= len(set(keys)) == len(keys) <= HEADS_TOGETHER
        if self.failure is not None:
            return [None] * len(keys)
        found: list[ObjectInfo | StoreError | None] = [None] * len(keys)

        async def ask(n: int, key: str) -> None:
            try:
                found[n] = await self.head(key)
            except StoreError as exc:
                found[n] = exc

        async with trio.open_nursery() as nursery:
            for n, key in enumerate(keys):
                if not self.leaves(key) and not self.refusing(key):
                    nursery.start_soon(ask, n, key)
        return found

    async def list_page(self, prefix: str, *, delimiter: str = "", marker: str = "", max_keys: int = 1000) -> ListPage:
        await self._ask("list", prefix)
        if self.failing is not None and self.failing(marker):
            raise StoreError("InternalError", status=500, operation="list", key=prefix)
        page = self._page(prefix, delimiter, marker, min(self.page, max_keys))
        await trio.sleep(self.after())
        return page

    def _page(self, prefix: str, delimiter: str, marker: str, most: int) -> ListPage:
        objects: list[ObjectInfo] = []
        prefixes: list[str] = []
        last = ""
        skipped = marker if delimiter and delimiter in marker[len(prefix) :] else None
        for key in sorted(self.objects, key=self.order):
            if not key.startswith(prefix) or (marker and self.order(key) <= self.order(marker)):
                continue
            head, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            below = prefix + head + cut
            if cut and (below == last or (skipped is not None and skipped.startswith(below))):
                continue
            if len(objects) + len(prefixes) == most:
                return ListPage(sorted(objects, key=lambda info: info.key.encode()), sorted(prefixes, key=str.encode), last)
            if cut:
                prefixes.append(below)
                last = below
            else:
                info = self.objects[key]
                objects.append(ObjectInfo(key, info.size, info.etag, info.modified_ns))
                last = key
        return ListPage(sorted(objects, key=lambda info: info.key.encode()), sorted(prefixes, key=str.encode), "")

    async def delete(self, key: str, **_: Any) -> None:
        await self._ask("delete", key)
        self.drop(key)
        await trio.sleep(self.after())


class Buckets:
    """An Account in memory."""

    def __init__(self, *stores: Names) -> None:
        self.stores = {store.bucket: store for store in stores}
        self.lists = 0
        self.after: Callable[[], float] = no_time

    async def list_buckets(self) -> list[tuple[str, int]]:
        self.lists += 1
        found = [(name, 1) for name in self.stores]
        await trio.sleep(self.after())
        return found

    def bucket(self, name: str) -> Store:
        return cast(Store, self.stores[name])

    async def create_bucket(self, name: str, **_: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.stores[name] = Names(bucket=name)

    async def delete_bucket(self, name: str) -> None:
        await trio.lowlevel.checkpoint()
        del self.stores[name]

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def tree_over(
    store: Names | Buckets, *, prefix: str = "", cache: AttributeCache | None = None, **options: Any
) -> AsyncIterator[Tree]:
    """A Tree over *store*; its tasks end with the block."""
    async with trio.open_nursery() as nursery:
        over: dict[str, Any] = {"volume": None, "account": cast(Account, store)}
        if isinstance(store, Names):
            over = {"volume": Volume(cast(Store, store), prefix, store.bucket, DEFAULTS)}
        yield Tree(Options(**options), Counters(), nursery, DEFAULTS, cache, **over)
        nursery.cancel_scope.cancel()


async def read(tree: Tree, directory: Inode, limit: int = 1000, *, kinds: bool = True) -> list[bytes]:
    """The names that one opendir shows, none of them twice."""
    listing = tree.listing(directory)
    names: list[bytes] = []
    after = 0
    while batch := await listing.batch(after, limit, kinds=kinds):
        assert batch[0][0] > after
        names += [name for _, name, _ in batch]
        after = batch[-1][0]
    assert len(names) == len(set(names)), names
    return names


async def find(tree: Tree, path: str) -> Inode:
    """The inode of *path*, looked up from the root; a missing one fails the test."""
    inode = tree.root
    for name in path.split("/"):
        found = await tree.lookup(inode, name.encode())
        assert found is not None, f"{name} of {path} is missing"
        inode = found
    return inode


def new_file() -> Attributes:
    """What create() gives a file."""
    now = time.time_ns()
    return Attributes(0o100644, 7, 8, 0, now, now, now)


def delivered(tree: Tree, store: Names, inode: Inode, data: bytes = b"own") -> None:
    """This mount's PUT of *inode* was answered."""
    tree.delivered(inode, store.set(inode.key, data))
