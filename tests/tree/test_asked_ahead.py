"""How many attributes are asked for ahead: doubled for who goes on in order, in proportion to what was missed for who does not."""

from __future__ import annotations

import random

import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.tree.bucket import Names, find, read, tree_over
from tests.tree.running import run
from zosfs.tree.asked_ahead import FIRST, LATE, AskedAhead
from zosfs.tree.inodes import Inode


def inodes(n: int) -> list[Inode]:
    """Some files, of no directory."""
    return [Inode(number, None, b"", False, None, None) for number in range(n)]


def test_in_order_it_doubles() -> None:
    files = inodes(1000)
    ahead = AskedAhead()
    at, asked, missed = 0, [], 0
    while at < len(files):
        asked.append(ahead.missed(files[at], 0.0))
        at += 1 + asked[-1]
        ahead.next = files[at : at + FIRST]
        missed += 1
    assert asked[:4] == [0, FIRST, 2 * FIRST, 4 * FIRST]
    assert missed <= 7


def test_who_begins_is_a_name_ahead() -> None:
    files = inodes(200)
    ahead = AskedAhead()
    assert ahead.missed(files[0], 0.0, begins=True) == FIRST
    ahead.next = files[FIRST + 1 : 2 * FIRST + 1]
    assert ahead.missed(files[FIRST + 1], 0.0) == 2 * FIRST


@given(st.integers(1, 60))
def test_out_of_order_it_stays_in_proportion(missed: int) -> None:
    ahead = AskedAhead()
    asked = sum(ahead.missed(inode, 0.0) for inode in inodes(missed))
    assert asked == FIRST * missed * (missed - 1) // 2


def test_what_is_missed_long_after_begins_anew() -> None:
    ahead = AskedAhead()
    for inode in inodes(5):
        ahead.missed(inode, 0.0)
    assert ahead.missed(inodes(1)[0], LATE + 1) == 0


def test_a_directory_gone_through_in_any_order_is_asked_for_in_few_round_trips() -> None:
    async def test() -> None:
        for shuffled in (False, True):
            store = Names(*[f"d/f{n:05}" for n in range(3000)])
            async with tree_over(store) as tree:
                directory = await find(tree, "d")
                await read(tree, directory, kinds=False)
                children = list(tree.known_children(directory))
                assert not any(child.known for child in children)
                if shuffled:
                    random.Random(1).shuffle(children)
                store.requests.clear()
                store.before = lambda: 1.0
                since = trio.current_time()
                for child in children:
                    await tree.refresh(child)
                assert store.requests == {"head": 3000}
                assert trio.current_time() - since <= (60 if shuffled else 25), "seconds of round trips, as many at once as a sweep has"

    run(test)


def test_a_few_names_of_many_cost_little() -> None:
    async def test() -> None:
        store = Names(*[f"d/f{n:05}" for n in range(3000)])
        async with tree_over(store) as tree:
            directory = await find(tree, "d")
            await read(tree, directory, kinds=False)
            children = list(tree.known_children(directory))
            store.requests.clear()
            for n in (100, 2000, 700, 1500):
                await tree.refresh(children[n])
            assert store.requests["head"] <= 4 + FIRST * 6

    run(test)
