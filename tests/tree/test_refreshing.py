"""Sweeps of HEADs in batches, and what becomes of names meanwhile."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.tree.bucket import Names, find, read, tree_over
from tests.tree.running import run
from zosfs.errors import StoreError
from zosfs.store.api import HEADS_TOGETHER
from zosfs.tree.inodes import Inode
from zosfs.tree.refreshing import SWEEP_WIDTH
from zosfs.tree.tree import Tree


def many(n: int) -> Names:
    """A bucket with *n* large files in d/, which a listing says enough of but for their modes."""
    store = Names()
    for number in range(n):
        store.set(f"d/f{number:04}", size=10_000, mode="33152")
    return store


async def listed(tree: Tree) -> list[Inode]:
    """The files in d/, of which nothing but the listing is known."""
    directory = await find(tree, "d")
    await read(tree, directory)
    inodes = list(tree.known_children(directory))
    assert not any(inode.known for inode in inodes)
    return inodes


@pytest.mark.parametrize("n", [1, HEADS_TOGETHER])
def test_a_file_whose_directory_is_renamed_while_it_is_answered_for_does_not_stay_guessed(n: int) -> None:
    async def test() -> None:
        store = many(n)
        async with tree_over(store) as tree:
            inodes = await listed(tree)
            directory = await find(tree, "d")
            store.after = lambda: 10.0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tree.head_all, inodes)
                await trio.sleep(1)
                for key in list(store.objects):
                    store.objects["e" + key[1:]] = store.objects.pop(key)
                tree.move(directory, tree.root, b"e")
            assert {inode.key for inode in inodes} == set(store.objects)
            assert [(inode.known, inode.attributes.mode) for inode in inodes] == [(True, 0o100600)] * n

    run(test)


def test_files_that_a_batch_asks_for_at_their_old_places_are_asked_for_at_once_at_the_new_ones() -> None:
    async def test() -> None:
        store = many(HEADS_TOGETHER)
        async with tree_over(store) as tree:
            inodes = await listed(tree)
            directory = await find(tree, "d")
            store.before = lambda: 10.0
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tree.head_all, inodes)
                await trio.sleep(1)
                for key in list(store.objects):
                    store.objects["e" + key[1:]] = store.objects.pop(key)
                tree.move(directory, tree.root, b"e")
            assert all(inode.known for inode in inodes)
            assert trio.current_time() - began <= 20

    run(test)


def test_who_is_told_while_a_batch_is_under_way_is_not_asked_for_after_it() -> None:
    async def test() -> None:
        store = many(HEADS_TOGETHER)
        async with tree_over(store) as tree:
            inodes = await listed(tree)
            store.requests.clear()
            async with trio.open_nursery() as nursery:
                store.before = lambda: 1.0
                nursery.start_soon(tree.refresh, inodes[3])
                await trio.testing.wait_all_tasks_blocked()
                store.before = lambda: 10.0
                nursery.start_soon(tree.head_all, inodes)
            assert all(inode.known for inode in inodes)
            assert store.requests == {"head": HEADS_TOGETHER}

    run(test)


def test_whom_the_server_refuses_stays_guessed_alone() -> None:
    async def test() -> None:
        store = many(5000)
        store.before = lambda: 0.1
        refused = {f"d/f{number:04}" for number in (5, 7, 700)}
        store.refusing = refused.__contains__
        async with tree_over(store) as tree:
            inodes = await listed(tree)
            with pytest.raises(StoreError, match="AccessDenied"):
                await tree.head_all(inodes)
            assert {inode.key for inode in inodes if not inode.known} == refused

    run(test)


def test_a_server_that_refuses_all_is_not_asked_for_each() -> None:
    async def test() -> None:
        store = many(5000)
        async with tree_over(store) as tree:
            inodes = await listed(tree)
            store.refusing = lambda key: True
            store.before = lambda: 1.0
            store.requests.clear()
            with pytest.raises(StoreError, match="AccessDenied"):
                await tree.head_all(inodes)
            assert store.requests["head"] <= SWEEP_WIDTH * HEADS_TOGETHER

    run(test)


@pytest.mark.parametrize("how", ["removed", "vanished", "made again", "dirty", "forgotten"])
def test_what_becomes_of_a_name_while_its_batch_is_under_way_holds(how: str) -> None:
    async def test() -> None:
        store = many(HEADS_TOGETHER)
        async with tree_over(store) as tree:
            inodes = await listed(tree)
            directory, one = await find(tree, "d"), inodes[5]
            store.after = lambda: 10.0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tree.head_all, inodes)
                await trio.sleep(1)
                match how:
                    case "removed":
                        store.drop(one.key)
                        tree.remove(one)
                    case "vanished":
                        store.drop(one.key)
                        tree.vanished(directory, one.name)
                    case "made again":
                        tree.remove(one)
                        again = tree.add(directory, one.name, one.attributes, pending=True)
                    case "dirty":
                        one.pending = True
                        one.attributes.size = 77
                    case "forgotten":
                        tree.remember(one)
                        tree.forget(one.number, 1)
            assert all(inode.known for inode in inodes if inode is not one)
            assert all(inode.pins == 0 for inode in inodes)
            match how:
                case "removed" | "vanished":
                    assert one.unlinked
                    assert await tree.lookup(directory, one.name) is None
                case "made again":
                    assert await tree.lookup(directory, one.name) is again
                case "dirty":
                    assert one.attributes.size == 77
                case "forgotten":
                    assert await tree.lookup(directory, one.name) is one

    run(test)


def test_who_waits_for_a_batch_that_is_given_up_asks_himself() -> None:
    async def test() -> None:
        store = many(HEADS_TOGETHER)
        async with tree_over(store) as tree:
            inodes = await listed(tree)
            store.before = lambda: 10.0
            sweep = trio.CancelScope()

            async def sweeps() -> None:
                with sweep:
                    await tree.head_all(inodes)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(sweeps)
                await trio.sleep(1)
                for inode in inodes[:4]:
                    nursery.start_soon(tree.refresh, inode)
                await trio.sleep(1)
                sweep.cancel()
            assert all(inode.known for inode in inodes[:4])
            assert not any(inode.pins for inode in inodes)
            await tree.head_all(inodes)
            assert all(inode.known for inode in inodes)

    run(test)


def test_one_who_came_in_the_place_of_a_forgotten_one_is_told_himself() -> None:
    async def test() -> None:
        store = many(HEADS_TOGETHER)
        async with tree_over(store) as tree:
            inodes = await listed(tree)
            directory = await find(tree, "d")
            tree._loader.discard(directory)
            tree.forget_names(directory)
            again = await listed(tree)
            assert {inode.number for inode in again} == {inode.number for inode in inodes}
            assert again[0] is not inodes[0]
            store.before = lambda: 10.0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tree.head_all, inodes)
                await trio.sleep(1)
                await tree.refresh(again[3])
                assert again[3].known

    run(test)


def test_what_is_found_missing_leaves_nothing_in_memory() -> None:
    async def test() -> None:
        store = many(2 * HEADS_TOGETHER)
        async with tree_over(store) as tree:
            inodes = await listed(tree)
            for inode in inodes[::2]:
                store.drop(inode.key)
            with pytest.raises(FileNotFoundError):
                await tree.refresh(inodes[0])
            await tree.head_all(inodes)
            assert [inode.unlinked for inode in inodes] == [True, False] * HEADS_TOGETHER
            assert len(tree) == 2 + HEADS_TOGETHER, "the root, d and what is there"

    run(test)
