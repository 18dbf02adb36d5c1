"""Files that a listing tells of are settled in one loop where that is simple: nothing may come out in another way than one by one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.tree.bucket import Names, delivered, read, tree_over
from zosfs.store.api import ListPage, ObjectInfo
from zosfs.tree.attributes import Attributes
from zosfs.tree.facts import Facts
from zosfs.tree.inodes import Inode
from zosfs.tree.tree import Tree

PARTS = ["a", "b", "a-", "é", ".git", ".", "..", ".zos~x", ".zos~file~a", ".zos~empty", ".zos~bytes~%FF", "x" * 256, "z\0"]
TOPS = ["", "d/", "d/e/", "a/", "/"]
KEYS = st.builds(str.__add__, st.sampled_from(TOPS), st.sampled_from([*PARTS, ""])).filter(bool)
OBJECTS = st.builds(
    ObjectInfo, KEYS, st.sampled_from([0, 1, 4096, 1 << 70]), st.sampled_from(["0" * 32, "f" * 32, "F" * 32, "0" * 32 + "-2", "e"]),
    st.sampled_from([0, 10**9, 10**9 + 10**6, 2 * 10**9]), st.sampled_from(["", "GLACIER"]), st.sampled_from(["", "Normal"]),
    metadata=st.just({}),
)  # fmt: skip
PLACES = st.sampled_from(TOPS[:4])
NAMES = st.sampled_from([b"a", b"b", b"c", b".zos~file~a", "é".encode()])
STEPS = st.one_of(
    st.tuples(st.just("put"), OBJECTS),
    st.tuples(st.just("drop"), KEYS),
    st.tuples(st.just("read"), PLACES),
    st.tuples(st.just("walk")),
    st.tuples(st.just("look"), PLACES, NAMES),
    st.tuples(st.just("make"), PLACES, NAMES),
    st.tuples(st.just("remove"), PLACES, NAMES),
    st.tuples(st.just("hold"), PLACES, NAMES),
    st.tuples(st.just("forget"), PLACES),
    st.tuples(st.just("wait"), st.sampled_from([0.3, 1.0, 70.0])),
)
HISTORIES = st.tuples(st.lists(OBJECTS, max_size=12), st.lists(STEPS, max_size=14), st.integers(1, 6), st.booleans())


class Bucket(Names):
    """Each request takes nearly a second, but one of its own, so that what happens meanwhile happens in the same order each time."""

    def __init__(self, page: int) -> None:
        super().__init__(page=page)
        self.before = self.after = lambda: 0.5 + self.requests.total() * 1e-7

    def _page(self, prefix: str, delimiter: str, marker: str, most: int) -> ListPage:
        page = super()._page(prefix, delimiter, marker, most)
        return ListPage(
            [dataclasses.replace(self.objects[info.key], metadata=None) for info in page.objects], page.prefixes, page.next_marker
        )


async def find(tree: Tree, path: str) -> Inode | None:
    """The directory *path* as far as it is known."""
    inode = tree.root
    for part in path.split("/")[:-1]:
        child = inode.directory.children.get(part.encode()) if inode.directory is not None else None
        if child is None or child.directory is None:
            return None
        inode = child
    return inode


async def walk(tree: Tree, top: Inode, told: list[Any]) -> None:
    told.append(await read(tree, top, 3))
    for child in [child for child in tree.known_children(top) if child.is_dir]:
        await walk(tree, child, told)


async def step(tree: Tree, store: Names, what: str, given: Sequence[Any], told: list[Any]) -> None:
    """One thing that somebody does; what comes of it is added to *told*."""
    if what == "put":
        store.objects[given[0].key] = given[0]
    elif what == "drop":
        store.drop(given[0])
    elif what == "wait":
        await trio.sleep(given[0])
    elif what == "walk":
        await walk(tree, tree.root, told)
    else:
        directory = await find(tree, given[0])
        if directory is None or directory.unlinked:
            return
        child = tree.known_children(directory) and tree.directory(directory).children.get(given[1] if len(given) > 1 else b"")
        if what == "read":
            told.append(await read(tree, directory, 3))
        elif what == "look":
            told.append(repr(await tree.lookup(directory, given[1])))
        elif what == "forget":
            tree.forget_names(directory)
        elif what == "make" and not child:
            inode = tree.add(directory, given[1], Attributes(0o100644, 7, 8, 0, 1, 1, 1), pending=True)
            tree.remember(inode)
            await trio.sleep(0.7)
            if not inode.unlinked:
                delivered(tree, store, inode)
        elif what == "remove" and child and not child.is_dir:
            store.drop(child.key)
            tree.remove(child)
        elif what == "hold" and child:
            tree.remember(child)
            child.pins += 1


def moment(time: float) -> float:
    """*time* without what the order of requests that were sent at once makes of it."""
    return round(time, 3) if math.isfinite(time) else time


def state(tree: Tree, top: Inode) -> list[Any]:
    """All that is known of *top* and what lies below it, in order."""
    directory = tree.directory(top)
    found: list[Any] = [
        top.path(), moment(directory.complete_until), moment(directory.listed_at), sorted(directory.negative), directory.changes,
        directory.huge, top.marker,
    ]  # fmt: skip
    for name, inode in directory.children.items():
        found += [
            name, inode.name, inode.number, inode.is_dir, inode.part, inode.key, inode.known, inode.info, inode.stamp,
            moment(inode.fresh_until), moment(inode.checked_at), inode.lookups, inode.pins, inode.pending, inode.unlinked,
            tree.find(inode.number) is inode, inode.hangs,
        ]  # fmt: skip
        found += state(tree, inode) if inode.is_dir else [inode.shown()]
    return found


def play(history: tuple[Sequence[ObjectInfo], Sequence[tuple[Any, ...]], int, bool]) -> list[Any]:
    """What is known after each step, half of which begin while others are under way."""
    objects, steps, page, posix = history
    told: list[Any] = []
    by_step: list[list[Any]] = [[] for _ in steps]

    async def main() -> None:
        store = Bucket(page)
        for info in objects:
            store.objects[info.key] = info
        async with tree_over(store, posix=posix) as tree:
            async with trio.open_nursery() as nursery:
                for n, (what, *given) in enumerate(steps):
                    if n % 2 and what in ("read", "walk", "make"):
                        nursery.start_soon(step, tree, store, what, given, by_step[n])
                        await trio.sleep(0.2 + n * 1e-3)
                    else:
                        await step(tree, store, what, given, by_step[n])
                    await trio.testing.wait_all_tasks_blocked()  # who is woken first when two wait for the same is anybody's guess
                    told.append(state(tree, tree.root))
            await walk(tree, tree.root, told)
            told.append(state(tree, tree.root))

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return told + by_step


@given(HISTORIES)
def test_as_one_by_one(history: tuple[Sequence[ObjectInfo], Sequence[tuple[Any, ...]], int, bool]) -> None:
    together = play(history)
    with patch.object(Facts, "settle_plain", lambda self, parent, objects, start, *rest: start):
        assert together == play(history)


def test_most_names_take_the_short_way() -> None:
    taken: list[int] = []
    real = Facts.settle_plain

    def counted(self: Facts, parent: Inode, objects: Sequence[ObjectInfo], start: int, *rest: Any) -> int:
        at = real(self, parent, objects, start, *rest)
        taken.append(at - start)
        return at

    objects = [ObjectInfo(f"{top}{n}", n, "0" * 32, n, metadata={}) for top in ("", "d/", "d/e/", "f/") for n in range(20)]
    with patch.object(Facts, "settle_plain", counted):
        play((objects, [], 1000, False))
    assert sum(taken) >= len(objects)
