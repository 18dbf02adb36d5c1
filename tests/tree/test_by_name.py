"""Names of directories of several pages that are asked for one by one: how many requests they take, and that the answers are right."""

from __future__ import annotations

import random

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.tree.bucket import Names, tree_over
from tests.tree.test_tree import run
from zosfs.store.api import ListPage, ObjectInfo
from zosfs.tree.by_name import EACH, just_before, reach
from zosfs.tree.spread import bytewise

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
            for name in (part for path in wanted for part in path.split("/") if part):
                file, below = f"d/{name}" in store.objects, any(key.startswith(f"d/{name}/") for key in store.objects)
                found = await tree.lookup(directory, name.encode())
                assert (found is not None) == (file or below), name
                if found is not None and file != below:
                    assert found.is_dir == below, name

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
