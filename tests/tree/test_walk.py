"""Walks over a tree: how many listings they cost, forwards, backwards and in turns, and that they show what is there."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.tree.bucket import Buckets, Names, by_bytes, by_names, delivered, find, new_file, read, tree_over
from tests.tree.test_tree import run
from zosfs.tree import walk as walk_module
from zosfs.tree.inodes import Inode
from zosfs.tree.siblings import MOST_AT_ONCE, MOST_PAGES, ListingPace, first_unknown, onward, pages_of, portions
from zosfs.tree.tree import Tree


def forest(directories: int, files: int, top: str = "") -> list[str]:
    """Keys of so many files in each of so many directories."""
    return [f"{top}d{d:04}/f{n:03}" for d in range(directories) for n in range(files)]


async def visits(tree: Tree, top: Inode, *, backwards: bool = False) -> AsyncIterator[Inode]:
    """Every directory below *top*, depth first, each listed before it is yielded."""
    waiting = [top]
    while waiting:
        directory = waiting.pop()
        await read(tree, directory)
        yield directory
        below = sorted((child for child in tree.known_children(directory) if child.is_dir), key=lambda child: child.name)
        waiting += below if backwards else below[::-1]


async def keys_found(tree: Tree, top: Inode, *, backwards: bool = False) -> list[str]:
    """The keys of all files that a walk meets."""
    found: list[str] = []
    async for directory in visits(tree, top, backwards=backwards):
        found += [child.key for child in tree.known_children(directory) if not child.is_dir]
    return found


@pytest.mark.parametrize("backwards", [False, True])
def test_a_walk_over_many_directories_lists_pages_not_directories(backwards: bool) -> None:
    async def test() -> None:
        store = Names(*forest(1000, 20))
        store.after = lambda: 1.0
        async with tree_over(store, posix=False) as tree:
            began = trio.current_time()
            assert sorted(await keys_found(tree, tree.root, backwards=backwards)) == sorted(store.objects)
            assert store.requests["list"] <= 20 + 8, "as many as pages, the top and the first directory, and a few"
            assert trio.current_time() - began <= 14, "several at once"

    run(test)


@pytest.mark.parametrize("files", [2, 20])
def test_a_walk_in_no_order_lists_each_page_once(files: int) -> None:
    """find, du and rm go through directories of more than 10,000 names in the order of their inode numbers."""

    async def test() -> None:
        store = Names(*forest(24_000 // files, files))
        async with tree_over(store, posix=False) as tree:
            await read(tree, tree.root)
            before, found = store.requests["list"], list[str]()
            for directory in sorted(tree.known_children(tree.root), key=lambda child: child.number):
                await read(tree, directory)
                found += [child.key for child in tree.known_children(directory)]
            assert sorted(found) == sorted(store.objects)
            assert store.requests["list"] - before <= 24 * 1.4

    run(test)


@pytest.mark.parametrize(("backwards", "lists", "waits"), [(False, 20 + 6, 12), (True, 20 + 14, 21)])
def test_large_siblings_are_listed_several_at_once_each_by_itself(backwards: bool, lists: int, waits: int) -> None:
    """What lies below one of them takes two pages, and whoever walks through it takes a while."""

    async def test() -> None:
        store = Names(*[key for d in range(10) for key in forest(100, 20, f"t/a{d}/")])
        store.after = lambda: 0.1
        async with tree_over(store, posix=False) as tree:
            began, found = trio.current_time(), list[str]()
            async for directory in visits(tree, tree.root, backwards=backwards):
                found += [child.key for child in tree.known_children(directory) if not child.is_dir]
                await trio.sleep(0.001)
            assert sorted(found) == sorted(store.objects)
            assert store.requests["list"] <= lists, "as many as pages, and the first ones of each kind"
            assert trio.current_time() - began <= 1.0 + waits * 0.1, "most of them while others are walked through"

    run(test)


@pytest.mark.parametrize("pages", [1, 2])
def test_what_is_changed_while_a_sibling_is_listed_ahead_is_as_it_was_changed(pages: int) -> None:
    """Own changes between the pages of a listing that nobody waits for."""

    async def test() -> None:
        store = Names(*[f"a{d}/f{n:04}" for d in range(10) for n in range(2000)])
        asked, changed = trio.Event(), trio.Event()

        def before() -> float:
            if store.asked.count(("list", "a6/")) == pages:
                asked.set()
            return 0.05

        store.before, store.after = before, lambda: 0.05
        async with tree_over(store, posix=False) as tree, trio.open_nursery() as nursery:

            async def change() -> None:
                await asked.wait()
                await trio.sleep(0.075)  # the page is made, and not here yet
                a6 = await find(tree, "a6")
                assert not tree.directory(a6).complete()
                for name in (b"e", b"f0005x", b"f1999x"):
                    delivered(tree, store, tree.add(a6, name, new_file()))
                for name in ("f0007", "f1500"):
                    gone = await find(tree, f"a6/{name}")
                    await store.delete(gone.key)
                    tree.remove(gone)
                changed.set()

            nursery.start_soon(change)
            async for directory in visits(tree, tree.root):
                await trio.sleep(0.3)
                if directory.key == "a6/":
                    assert changed.is_set()
                    below = {key for key in store.objects if key.startswith("a6/")}
                    assert {child.key for child in tree.known_children(directory)} == below
                    break

    run(test)


def test_what_a_walk_will_want_is_asked_for_before_it_is_there() -> None:
    async def test() -> None:
        store = Names(*forest(1000, 20))
        store.after = lambda: 0.1
        async with tree_over(store, posix=False) as tree:
            waited = list[float]()
            await read(tree, tree.root)
            for child in sorted(tree.known_children(tree.root), key=lambda child: child.name):
                began = trio.current_time()
                assert len(await read(tree, child)) == 20
                waited.append(trio.current_time() - began)
                await trio.sleep(0.001)
            assert sum(waited[200:]) < 0.1, "its pace is known by now"
            assert store.requests["list"] <= 20 + 8

    run(test)


@pytest.mark.parametrize("backwards", [False, True])
def test_directories_of_any_size_are_all_shown(backwards: bool) -> None:
    async def test() -> None:
        sizes = [(n * 7919) % 83 for n in range(300)]
        store = Names(*[f"d{d:04}/f{n:03}" for d, size in enumerate(sizes) for n in range(size)], "d0100/sub/x", "d0100/sub-a/y", "top")
        async with tree_over(store, posix=False) as tree:
            assert sorted(await keys_found(tree, tree.root, backwards=backwards)) == sorted(store.objects)
            assert store.requests["list"] <= 1.5 * sum(sizes) / 1000 + 10

    run(test)


def test_two_walks_in_turns_cost_what_each_costs_alone() -> None:
    async def test() -> None:
        store = Names(*forest(15, 700, "left/"), *forest(15, 700, "right/"))
        async with tree_over(store, posix=False) as tree:
            left, right = await find(tree, "left"), await find(tree, "right")
            store.requests.clear()
            both = 0
            other = visits(tree, right)
            async for directory in visits(tree, left):
                beside = await anext(other)
                assert [c.name for c in tree.known_children(directory)] == [c.name for c in tree.known_children(beside)]
                both += 1
            assert both == 16
            assert store.requests["list"] <= 2 * (11 + 3)

    run(test)


def test_two_walks_over_one_tree_at_once_do_not_disturb_each_other() -> None:
    async def test() -> None:
        store = Names(*forest(400, 20))
        store.after = lambda: 1.0
        async with tree_over(store, posix=False) as tree, trio.open_nursery() as nursery:
            found: list[list[str]] = []

            async def one(backwards: bool) -> None:
                found.append(sorted(await keys_found(tree, tree.root, backwards=backwards)))

            nursery.start_soon(one, False)
            nursery.start_soon(one, True)
        assert found == [sorted(store.objects)] * 2
        assert store.requests["list"] <= 2 * 8 + 8

    run(test)


def test_who_lists_two_directories_has_not_asked_for_the_bucket() -> None:
    async def test() -> None:
        store = Names(*forest(1000, 20))
        async with tree_over(store, posix=False) as tree:
            await read(tree, tree.root)
            store.requests.clear()
            for name in ("d0500", "d0501"):
                await read(tree, await find(tree, name))
            await trio.sleep(10)
            assert store.requests["list"] <= 3

    run(test)


def test_what_a_page_shows_outside_the_wanted_directory_is_not_lost() -> None:
    """The listing that goes on inside e/y/ fills e/, too."""

    async def test() -> None:
        store = Names("a/k", "d/k", "e/k", *[f"e/y/foo/k{n}" for n in range(5)], "e/z", page=4)
        async with tree_over(store, posix=False) as tree:
            await read(tree, tree.root)
            for name in ("a", "d"):
                await read(tree, await find(tree, name))
            (e,) = (child for child in tree.known_children(tree.root) if child.name == b"e")
            (y,) = (child for child in tree.known_children(e) if child.name == b"y")
            (foo,) = (child for child in tree.known_children(y) if child.name == b"foo")
            await read(tree, foo)
            assert sorted(await read(tree, e)) == [b"k", b"y", b"z"]

    run(test)


def test_a_listing_that_goes_on_remembers_what_was_made_during_its_first_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zosfs.tree.directory.MANY_CHANGES", 1)

    async def test() -> None:
        store = Names("a/k", "d/k", "e/k0", "e/k1", "e/k2", "f/k", page=3)
        async with tree_over(store, posix=False) as tree:
            await read(tree, tree.root)
            e = await find(tree, "e")
            await read(tree, await find(tree, "a"))
            store.after = lambda: 10.0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, tree, await find(tree, "d"))
                await trio.sleep(5)
                delivered(tree, store, tree.add(e, b"b", new_file()))  # its page was made before
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, tree, e)
                await trio.sleep(5)
                delivered(tree, store, tree.add(e, b"c", new_file()))
            assert sorted(await read(tree, e)) == [b"b", b"c", b"k0", b"k1", b"k2"]

    run(test)


def test_a_directory_that_the_kernel_forgets_between_two_pages_keeps_the_names_of_the_first() -> None:
    async def test() -> None:
        store = Names("a/k", "d/k", "e/s/deep/k0", "e/s/deep/k1", page=2)
        async with tree_over(store, posix=False) as tree:
            known = [await find(tree, path) for path in ("e/s/deep/k0", "e/s/deep", "e/s")]
            for inode in known:
                tree.remember(inode)
            await trio.sleep(1000)
            await read(tree, tree.root)
            for name in ("a", "d"):
                await read(tree, await find(tree, name))  # the page ends behind e/s/deep/k0
            store.after = lambda: 10.0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, tree, await find(tree, "e"))
                await trio.sleep(5)
                for inode in known:
                    tree.forget(inode.number, 1)
            assert sorted(await read(tree, await find(tree, "e/s/deep"))) == [b"k0", b"k1"]

    run(test)


@pytest.mark.parametrize("order", [by_bytes, by_names])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("page", [2, 5, 7, 1000])
def test_names_beside_a_directory_that_begins_like_another(
    order: Callable[[str], object], backwards: bool, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk_module, "PAGE", page)

    async def test() -> None:
        tops = ("0", "1", "a", "a-b", "a-b-c", "a.d", "a0", "b")
        store = Names(*[f"{top}/{n}" for top in tops for n in range(9)], *[f"{top}/a-b/{n}" for top in tops for n in range(3)], page=page)
        store.order = order
        async with tree_over(store, posix=False) as tree:
            assert sorted(await keys_found(tree, tree.root, backwards=backwards)) == sorted(store.objects)

    run(test)


def test_walks_in_buckets_of_the_same_directories_show_each_its_own() -> None:
    async def test() -> None:
        account = Buckets(
            Names(*[f"{d}/one{n}" for d in "abcdef" for n in range(5)], bucket="one", page=7),
            Names(*[f"{d}/two{n}" for d in "abcdef" for n in range(5)], bucket="two", page=7),
        )
        async with tree_over(account, posix=False) as tree:
            one, two = visits(tree, await find(tree, "one")), visits(tree, await find(tree, "two"))
            await anext(one)
            await anext(two)
            for letter in "abcdef":
                for bucket, walk in (("one", one), ("two", two)):
                    directory = await anext(walk)
                    assert directory.path() == f"{bucket}/{letter}".encode()
                    assert {child.name for child in tree.known_children(directory)} == {f"{bucket}{n}".encode() for n in range(5)}

    run(test)


def test_a_directory_that_was_forgotten_while_it_is_open_is_listed_by_itself() -> None:
    async def test() -> None:
        store = Names(*forest(5, 3))
        async with tree_over(store, posix=False) as tree:
            await read(tree, tree.root)
            open_ones = sorted((child for child in tree.known_children(tree.root)), key=lambda child: child.name)
            await trio.sleep(1000)
            await read(tree, tree.root)
            for directory in open_ones:
                assert await read(tree, directory) == [b"f000", b"f001", b"f002"]

    run(test)


def test_a_failed_listing_of_what_the_walk_will_come_to_is_no_error_until_it_is_there() -> None:
    async def test() -> None:
        store = Names(*forest(200, 20))
        async with tree_over(store, posix=False) as tree:
            await read(tree, tree.root)
            seen = 0
            async for _ in visits(tree, tree.root):
                seen += 1
                store.failing = lambda marker: marker > "d0120"
                if seen == 100:
                    break
            store.failing = None
            assert sorted(await keys_found(tree, tree.root)) == sorted(store.objects)

    run(test)


# -- decisions ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.booleans(), min_size=1, max_size=200), st.data(), st.floats(0, 5000), st.integers(1, 8))
def test_portions_hold_the_wanted_one_and_nothing_twice(complete: list[bool], data: st.DataObject, each: float, width: int) -> None:
    at = data.draw(st.integers(0, len(complete) - 1))
    complete[at] = False
    found = portions(complete, at, each, 1000, width)
    assert at in found[0]
    assert 1 <= len(found) <= width
    listed = [n for some in found for n in some]
    assert len(listed) == len(set(listed))
    assert all(0 <= n < len(complete) and not complete[n] for n in listed)
    assert all(len(some) <= (900 / max(1.0, each) if 0 < each <= 900 else 1) for some in found)


@given(st.lists(st.booleans(), min_size=1, max_size=50), st.data(), st.floats(0, 5000), st.integers(1, 8))
def test_what_is_listed_next_lies_beyond_what_is_listed_now(complete: list[bool], data: st.DataObject, each: float, width: int) -> None:
    at = data.draw(st.integers(0, len(complete) - 1))
    complete[at] = False
    found = portions(complete, at, each, 1000, width)
    then = onward(found, at, len(complete))
    listed = {n for some in found for n in some}
    if then is None:
        assert len(listed) == 1 or {min(listed), max(listed)} & {0, len(complete) - 1} or at not in (min(listed), max(listed))
        return
    half, edge = then
    assert half in listed
    assert half != at
    assert edge not in listed
    step = 1 if edge > at else -1
    assert edge - step in listed
    for n in listed:
        complete[n] = True
    first = first_unknown(complete, edge, step)
    if first is None:
        assert all(complete[edge:] if step > 0 else complete[: edge + 1])
    else:
        assert not complete[first]
        assert all(complete[n] for n in range(edge, first, step))


@given(st.integers(1, 3000), st.floats(0.1, 900), st.randoms(use_true_random=False))
def test_in_no_order_portions_leave_no_gaps(count: int, each: float, dice: random.Random) -> None:
    complete, order, lists = [False] * count, list(range(count)), 0
    dice.shuffle(order)
    for at in order:
        if not complete[at]:
            lists += 1
            for n in portions(complete, at, each, 1000, 1)[0]:
                complete[n] = True
    size = max(1, int(900 / max(1.0, each)))
    assert lists <= 1.5 * (count // size + 1) + 1


@given(st.floats(0, 10_000))
def test_pages_of_a_portion_are_mostly_full(names: float) -> None:
    pages = pages_of(names, 1000)
    assert 0 <= pages <= MOST_PAGES
    if pages:
        assert 0.7 * pages * 1000 <= names <= pages * 1000


@given(st.integers(1, 500), st.integers(1, 100), st.integers(1, 8), st.booleans())
def test_portions_reach_no_further_than_twice_what_is_known(known: int, each: int, width: int, backwards: bool) -> None:
    complete = [False] * 2000
    at = 1000
    complete[at + 1 : at + 1 + known] = [True] * known
    found = portions(complete, at, each, 1000, width) if backwards else portions(complete[::-1], len(complete) - 1 - at, each, 1000, width)
    assert sum(map(len, found)) <= max(2 * known, 1000 / each + 1)


def test_the_pace_follows_the_server() -> None:
    pace = ListingPace()
    for _ in range(10):
        pace.answered(pace.width, 0.1)
    assert pace.width == MOST_AT_ONCE
    pace.answered(8, 0.8)
    assert pace.width == 4
    pace.answered(4, 0.4)
    assert pace.width == 2
    pace.answered(2, 0.1)
    assert pace.width == 4
