"""Names of directories of several pages that are asked for one by one: how many requests they take, and that the answers are right."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.tree.bucket import Names, by_bytes, by_letters, by_names, new_file, tree_over
from tests.tree.test_tree import run
from zosfs.store.api import ListPage, ObjectInfo
from zosfs.tree.by_name import EACH, just_before, reach
from zosfs.tree.hints import changed_elsewhere
from zosfs.tree.spread import bytewise
from zosfs.tree.tree import Tree

ALPHABET = st.text(st.sampled_from("ab/-.0\x01é\ud7ff\ue000\U0010ffff"), min_size=1, max_size=6)


@pytest.mark.parametrize("order", ["forward", "backward", "at random"])
def test_many_names_of_a_huge_directory_cost_few_requests(order: str) -> None:
    async def test() -> None:
        names = [f"f{n:04}" for n in range(1000)]
        store = Names(*names, page=200)
        wanted = {"forward": names, "backward": names[::-1], "at random": random.Random(1).sample(names, len(names))}[order]
        async with tree_over(store, posix=False) as tree:
            for name in wanted:
                assert await tree.lookup(tree.root, name.encode()) is not None
        alone = 2 * len(names)
        few = {"forward": 5 + 2 * EACH, "backward": alone + alone // (2 * EACH), "at random": alone // 2}[order]
        assert store.requests.total() <= few, store.requests

    run(test)


def test_missing_names_among_those_of_a_page_cost_nothing_more() -> None:
    async def test() -> None:
        store = Names(*[f"f{n:04}" for n in range(0, 5000, 2)])
        async with tree_over(store, posix=False) as tree:
            for n in range(2002, 2002 + 2 * EACH, 2):
                await tree.lookup(tree.root, f"f{n:04}".encode())
            assert await tree.lookup(tree.root, b"f2999") is None
            store.requests.clear()
            for n in range(3000, 4998, 2):
                assert await tree.lookup(tree.root, f"f{n:04}".encode()) is not None
            assert store.requests.total() <= 1

    run(test)


def numbered(step: int = 2) -> Names:
    """Every second name of a directory of several pages."""
    return Names(*[f"f{n:04}" for n in range(0, 5000, step)])


async def pass_pages(tree: Tree, names: int) -> None:
    """Read so many names of the root and pause, as `ls | head` does."""
    listing = tree.listing(tree.root)
    cookie = 0
    while cookie < names:
        batch = await listing.batch(cookie, 100, kinds=False)
        cookie = batch[-1][0]
    await trio.sleep(2)


def test_names_missing_in_what_was_listed_of_a_huge_directory_cost_nothing() -> None:
    async def test() -> None:
        store = numbered()
        async with tree_over(store, posix=False) as tree:
            await pass_pages(tree, 1500)
            assert not tree.directory(tree.root).complete()
            store.requests.clear()
            for n in range(1, 2900, 2):
                assert await tree.lookup(tree.root, f"f{n:04}".encode()) is None
            assert store.requests.total() == 0
            assert await tree.lookup(tree.root, b"f4999") is None
            assert store.requests.total() > 0, "nobody has looked there"

    run(test)


def test_names_missing_beside_those_of_a_page_that_was_asked_for_by_name_cost_nothing() -> None:
    async def test() -> None:
        store = numbered()
        async with tree_over(store, posix=False) as tree:
            for n in range(2000, 2002 + 2 * EACH, 2):
                await tree.lookup(tree.root, f"f{n:04}".encode())
            store.requests.clear()
            for n in range(2003 + 2 * EACH, 3900, 2):
                assert await tree.lookup(tree.root, f"f{n:04}".encode()) is None
            assert store.requests.total() == 0

    run(test)


@pytest.mark.parametrize("event", ["told of", "doubted", "time", "forgotten", "made here", "removed and made by others"])
def test_a_name_that_was_missing_is_there_when_it_is(event: str) -> None:
    async def test() -> None:
        store = numbered()
        async with tree_over(store, posix=False) as tree:
            await pass_pages(tree, 1500)
            assert await tree.lookup(tree.root, b"f0101") is None
            if event == "forgotten":
                assert tree.directory(tree.root).loading is None
                tree.forget_names(tree.root)
                for n in range(0, 2900, 100):
                    assert await tree.lookup(tree.root, f"f{n:04}".encode()) is not None
                return
            if event == "made here":
                made = tree.add(tree.root, b"f0101", new_file())
                assert await tree.lookup(tree.root, b"f0101") is made
                return
            if event == "removed and made by others":
                inode = await tree.lookup(tree.root, b"f0102")
                assert inode is not None
                tree.remove(inode)
                assert await tree.lookup(tree.root, b"f0102") is None
                tree.invalidate(tree.root)
                assert await tree.lookup(tree.root, b"f0102") is not None
                return
            store.set("f0101")
            assert await tree.lookup(tree.root, b"f0101") is None, "a listing is believed"
            if event == "told of":
                changed_elsewhere(tree, "f0101", "", removed=False)
            elif event == "doubted":
                tree.invalidate(tree.root)
            else:
                await trio.sleep(61)
            assert await tree.lookup(tree.root, b"f0101") is not None

    run(test)


def test_a_file_is_found_by_its_name_when_the_directory_that_had_it_is_gone() -> None:
    async def test() -> None:
        store = numbered()
        store.set("f0100/below")
        async with tree_over(store, posix=False) as tree:
            await pass_pages(tree, 1500)
            found = await tree.lookup(tree.root, b"f0100")
            assert found is not None
            assert found.is_dir
            store.drop("f0100/below")
            assert tree.vanished(tree.root, b"f0100") is None
            found = await tree.lookup(tree.root, b"f0100")
            assert found is not None
            assert not found.is_dir

    run(test)


def test_attributes_are_asked_for_of_the_name_that_was_wanted_only() -> None:
    async def test() -> None:
        store = Names(*[f"f{n:04}" for n in range(3000)])
        async with tree_over(store) as tree:
            for n in range(2000, 2001 + EACH):
                await tree.lookup(tree.root, f"f{n:04}".encode())
            await trio.sleep(5)
            store.requests.clear()
            assert await tree.lookup(tree.root, b"f2500") is not None
            assert store.requests.total() == 0, "the page had its name"
            assert ("head", "f2500") not in store.asked

    run(test)


@given(st.lists(ALPHABET, max_size=60, unique=True), st.lists(ALPHABET, min_size=3 * EACH, max_size=80), st.integers(2, 5))
def test_what_is_found_is_what_is_there(keys: list[str], wanted: list[str], page: int) -> None:
    keys = [f"d/{key}" for key in keys if "//" not in f"d/{key}"] + [f"d/a{n}" for n in range(10)]

    async def test() -> None:
        store = Names(*keys, page=page)
        async with tree_over(store, posix=False) as tree:
            directory = await tree.lookup(tree.root, b"d")
            assert directory is not None
            for name in (part for path in wanted for part in path.split("/") if part not in ("", ".", "..")):
                file, below = f"d/{name}" in store.objects, any(key.startswith(f"d/{name}/") for key in store.objects)
                found = await tree.lookup(directory, name.encode())
                assert (found is not None) == (file or below), name
                if found is not None and file != below:
                    assert found.is_dir == below, name

    run(test)


@given(
    st.lists(ALPHABET, max_size=60, unique=True), st.lists(ALPHABET, max_size=80), st.integers(2, 5), st.integers(1, 60),
    st.sampled_from([by_bytes, by_names, by_letters]),
)  # fmt: skip
def test_what_is_missing_in_a_part_that_was_listed_is_not_there(
    keys: list[str], wanted: list[str], page: int, reading: int, order: Callable[[str], Any]
) -> None:
    keys = [f"d/{key}" for key in keys if "//" not in f"d/{key}"] + [f"d/a{n}" for n in range(10)]

    async def test() -> None:
        store = Names(*keys, page=page)
        store.order = order
        async with tree_over(store, posix=False) as tree:
            directory = await tree.lookup(tree.root, b"d")
            assert directory is not None
            await tree.listing(directory).batch(0, reading, kinds=False)
            await trio.sleep(2)
            for name in {part for path in [*wanted, *keys] for part in path.split("/")} - {"", ".", ".."}:
                there = f"d/{name}" in store.objects or any(key.startswith(f"d/{name}/") for key in store.objects)
                assert (await tree.lookup(directory, name.encode()) is not None) == there, name

    run(test)


@given(ALPHABET, ALPHABET)
def test_just_before_lies_before_with_little_between(key: str, other: str) -> None:
    before = just_before(key)
    assert bytewise(before) < bytewise(key)
    between = bytewise(before) < bytewise(other) < bytewise(key)
    assert not between or other.startswith((key[:-1], before)), "names that begin alike at the most"


@given(st.lists(ALPHABET, unique=True), ALPHABET, st.integers(1, 5))
def test_a_page_tells_only_what_it_must_have(keys: list[str], key: str, most: int) -> None:
    behind = just_before(key)
    page = Names(*keys, page=most)._page("", "/", behind, most)
    if reach(page, behind).tells(key) and "/" not in key:
        assert (key in {info.key for info in page.objects}) == (key in keys)
        assert (key + "/" in page.prefixes) == any(each.startswith(key + "/") for each in keys)


def test_a_page_of_another_order_tells_nothing() -> None:
    def page(*keys: str) -> ListPage:
        return ListPage([ObjectInfo(key, 1, "", 0) for key in keys], (), "")

    assert reach(page("b", "c"), "a").tells("b")
    assert not reach(page("c", "b"), "a").tells("b")
    assert not reach(page("a", "b"), "a").tells("b")
