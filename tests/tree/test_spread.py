"""Huge directories whose pages are asked for several at once: no name lost or doubled, and no more than a request or two in vain."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tree.bucket import Names, by_bytes, by_letters, by_names, delivered, new_file, read, tree_over
from zosfs.tree.spread import IN_VAIN, next_start


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run *test* on a clock that jumps over waits; a hang fails."""

    async def limited() -> None:
        with trio.fail_after(1_000_000):
            await test()

    trio.run(limited, clock=trio.testing.MockClock(autojump_threshold=0))


def padded(n: int) -> list[str]:
    return [f"file{i:06}" for i in range(n)]


def unpadded(n: int) -> list[str]:
    return [f"img{i}.jpg" for i in range(n)]


def hashed(n: int) -> list[str]:
    return [hashlib.md5(str(i).encode()).hexdigest() for i in range(n)]


def words(n: int) -> list[str]:
    rng = random.Random(n)
    return ["".join(rng.choices("abcdeémnö☃.-_ Z", k=rng.randint(1, 9))) + str(i % 7) for i in range(n)]


def stamped(n: int) -> list[str]:
    return [f"log-2026-{1 + i // 9000:02}-{1 + i // 300 % 30:02}T{i // 60 % 24:02}:{i % 60:02}-{i}.gz" for i in range(n)]


def gathered(n: int) -> list[str]:
    """Few far apart, then all the others close together, and a directory now and then."""
    return [*(f"{i}" for i in range(30)), *(f"9-{i:05}" + ("/below" if i % 97 == 5 else "") for i in range(n))]


def capitals(n: int) -> list[str]:
    """Small letters, and at the end some capitals."""
    return ["a" + name for name in hashed(n)] + [f"B{i:02}" for i in range(n // 20)]


KINDS = [padded, unpadded, hashed, words, stamped, gathered, capitals]


@settings(max_examples=60)
@given(
    st.sampled_from(KINDS), st.integers(0, 700), st.integers(3, 40), st.sampled_from([by_bytes, by_names, by_letters]), st.integers(0, 99),
    st.booleans(),
)
def test_no_name_is_lost_or_doubled(
    kind: Callable[[int], list[str]], n: int, page: int, order: Callable[[str], object], seed: int, changes: bool
) -> None:
    async def test() -> None:
        keys, rng = set(kind(n)), random.Random(seed)
        store = Names(*keys, page=page)
        store.order = order
        store.before = store.after = rng.random
        names = {key.partition("/")[0].encode() for key in keys}
        async with tree_over(store, posix=False) as tree, trio.open_nursery() as nursery:
            if changes:
                gone = sorted(key for key in keys if "/" not in key)[::11]
                for key in gone:
                    names.discard(key.encode())

                async def change() -> None:
                    for key in gone:
                        await trio.sleep(rng.random())
                        store.drop(key)

                nursery.start_soon(change)
            shown = await read(tree, tree.root, rng.choice([1, 7, 1000]))
            assert names <= set(shown) <= {key.partition("/")[0].encode() for key in keys}
            assert len(shown) == len(set(shown))
        pages = -(-len(names) // page)
        assert changes or store.requests["list"] <= max(1, 2 * pages) + IN_VAIN

    run(test)


@pytest.mark.parametrize("n", [270, 277, 284, 340])
def test_a_server_with_an_order_of_its_own_is_not_guessed_at(n: int) -> None:
    async def test() -> None:
        keys = capitals(n)
        store = Names(*keys, page=50)
        store.order = by_letters
        store.before = store.after = random.Random(n).random
        async with tree_over(store, posix=False) as tree:
            assert sorted(await read(tree, tree.root)) == sorted(key.encode() for key in keys)

    run(test)


@pytest.mark.parametrize("kind", [padded, hashed])
def test_a_huge_directory_is_listed_several_pages_at_once(kind: Callable[[int], list[str]]) -> None:
    async def test() -> None:
        store = Names(*kind(8000), page=400)
        store.before = store.after = lambda: 1.0
        async with tree_over(store, posix=False) as tree:
            began = trio.current_time()
            assert len(await read(tree, tree.root)) == 8000
            took = trio.current_time() - began
        one_after_the_other = 20 * 2.0
        assert took <= 0.65 * one_after_the_other
        assert store.requests["list"] <= (20 + IN_VAIN + 1 if kind is padded else 27)

    run(test)


@pytest.mark.parametrize("n", [100, 199, 200, 201, 300])
def test_a_page_or_two_are_not_guessed_at(n: int) -> None:
    async def test() -> None:
        store = Names(*padded(n), page=100)
        async with tree_over(store, posix=False) as tree:
            await read(tree, tree.root)
        assert store.requests["list"] <= -(-n // 100) + (IN_VAIN if n > 200 else 0)

    run(test)


def test_names_made_here_while_pages_are_on_their_way_are_there_once() -> None:
    async def test() -> None:
        store = Names(*padded(1000), page=100)
        store.after = lambda: 1.0
        async with tree_over(store, posix=False) as tree, trio.open_nursery() as nursery:

            async def make() -> None:
                for n in range(0, 900, 90):
                    await trio.sleep(0.7)
                    delivered(tree, store, tree.add(tree.root, b"file%06d-new" % n, new_file()))

            nursery.start_soon(make)
            shown = await read(tree, tree.root)
            assert set(map(str.encode, padded(1000))) <= set(shown)

    run(test)


def test_numbered_keys_are_met_exactly() -> None:
    keys = padded(3000)
    assert next_start(keys[:1000], keys[999]) == keys[1999]
    assert next_start([f"f{n:05}" for n in range(9000, 10000)], "f09999") == "f10999"
    assert next_start([f"f{n}" for n in range(99000, 100000)], "f99999") == "", "there is no such number with as many digits"


@given(st.lists(st.text(max_size=6), max_size=30), st.text(max_size=6))
def test_any_keys_may_be_guessed_at(keys: list[str], start: str) -> None:
    assert isinstance(next_start(sorted(keys), start), str)
