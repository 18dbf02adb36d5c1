"""Names and attributes as the kernel asks for them, over a bucket that can be slow, change, and fail."""

from __future__ import annotations

import errno

import pytest
import trio
import trio.testing

from tests.tree.bucket import Buckets, Names, delivered, find, new_file, read, tree_over
from tests.tree.running import run
from zosfs.errors import StoreError
from zosfs.tree import listing as listing_module
from zosfs.tree.inodes import Inode

# -- requests -----------------------------------------------------------------------------------------------------------


def test_names_of_a_listed_directory_cost_nothing() -> None:
    async def test() -> None:
        store = Names(*[f"d/f{n:03}" for n in range(200)])
        async with tree_over(store, posix=False) as tree:
            directory = await find(tree, "d")
            await find(tree, "d/f000")
            spent = store.requests.copy()
            for n in range(200):
                assert await tree.lookup(directory, f"f{n:03}".encode()) is not None
                assert await tree.lookup(directory, f"missing{n}".encode()) is None
            assert store.requests == spent
            assert spent == {"list": 2}

    run(test)


def test_the_first_file_of_a_directory_is_asked_for_without_the_others() -> None:
    async def test() -> None:
        store = Names(*[f"d/f{n:03}" for n in range(200)])
        store.set("d/large.bin", size=10**9, mode="33060")
        async with tree_over(store) as tree:
            directory = await find(tree, "d")
            store.requests.clear()
            store.before = lambda: 1.0
            since = trio.current_time()
            found = await tree.lookup(directory, b"large.bin")
            assert found is not None
            assert trio.current_time() - since == 1.0, "one round trip"
            assert found.known
            assert found.attributes.mode == 0o100444
            store.before = lambda: 0.0
            await trio.sleep(1)
            assert store.requests == {"list": 1, "head": 1}, "of the others nothing is anybody's business"
            assert await tree.lookup(directory, b"missing.bin") is None
            assert await tree.lookup(directory, b"f000") is not None
            assert store.requests == {"list": 2, "head": 1}, "who asks for more gets the names of all"

    run(test)


def test_a_small_first_file_is_asked_for_once() -> None:
    async def test() -> None:
        store = Names("d/a.txt", "d/b.txt")
        async with tree_over(store) as tree:
            directory = await find(tree, "d")
            store.requests.clear()
            found = await tree.lookup(directory, b"a.txt")
            assert found is not None
            await tree.refresh(found)
            await trio.sleep(1)
            assert store.requests == {"list": 1, "head": 1}

    run(test)


def test_a_first_name_that_is_a_directory_too_is_the_directory() -> None:
    async def test() -> None:
        store = Names("d/a.txt", "d/a.txt/below", "d/x")
        async with tree_over(store) as tree:
            directory = await find(tree, "d")
            found = await tree.lookup(directory, b"a.txt")
            assert found is not None
            assert found.is_dir
            assert found is await tree.lookup(directory, b"a.txt")

    run(test)


def test_a_first_name_that_is_missing_is_remembered_as_that() -> None:
    async def test() -> None:
        store = Names("d/x")
        async with tree_over(store) as tree:
            directory = await find(tree, "d")
            store.requests.clear()
            assert await tree.lookup(directory, b"none.txt") is None
            assert await tree.lookup(directory, b"none.txt") is None
            assert store.requests == {"list": 1, "head": 1}

    run(test)


def test_a_name_of_a_huge_directory_is_one_head_and_one_list() -> None:
    async def test() -> None:
        store = Names(*[f"f{n:04}" for n in range(500)], "f0499/below", page=100)
        async with tree_over(store) as tree:
            assert await tree.lookup(tree.root, b"f0450") is not None
            await trio.sleep(5)
            store.requests.clear()
            found = await tree.lookup(tree.root, b"f0451")
            assert found is not None
            assert not found.is_dir
            assert store.requests == {"head": 1, "list": 1}
            assert await tree.lookup(tree.root, b"f0999") is None
            assert store.requests == {"head": 2, "list": 2}
            assert await tree.lookup(tree.root, b"f0999") is None
            assert store.requests == {"head": 2, "list": 2}
            both = await tree.lookup(tree.root, b"f0499")
            assert both is not None
            assert both.is_dir

    run(test)


def test_many_who_ask_for_one_name_ask_once() -> None:
    async def test() -> None:
        store = Names("a", "b")
        store.after = lambda: 1.0
        async with tree_over(store, posix=False) as tree, trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(tree.lookup, tree.root, b"a")
                nursery.start_soon(tree.lookup, tree.root, b"missing")
        assert store.requests == {"list": 1}

    run(test)


def test_first_names_of_a_huge_directory_come_with_its_first_page() -> None:
    async def test() -> None:
        store = Names(*[f"f{n:04}" for n in range(1000)], page=10)
        store.after = lambda: 0.1
        async with tree_over(store, posix=False) as tree:
            batch = await tree.listing(tree.root).batch(0, 256)
            assert [name for _, name, _ in batch] == [f"f{n:04}".encode() for n in range(9)], "f0009/ may be on the next page"
            assert store.requests["list"] <= 2, "one page, and at most the next one ahead"

    run(test)


def test_a_directory_without_a_marker_that_was_just_listed_is_asked_for_once() -> None:
    async def test() -> None:
        store = Names("d/f")
        async with tree_over(store) as tree:
            directory = await find(tree, "d")
            store.requests.clear()
            await tree.refresh(directory)
            assert store.requests == {"head": 1}
            await tree.refresh(directory)
            assert store.requests == {"head": 1}

    run(test)


def test_only_what_may_be_a_link_is_asked_for_its_type() -> None:
    async def test() -> None:
        store = Names()
        for size in (0, 1, 4095, 4096, 4097, 1 << 40):
            store.set(f"f{size}", size=size)
        async with tree_over(store) as tree:
            await read(tree, tree.root)
            assert sorted(key for verb, key in store.asked if verb == "head") == ["f0", "f1", "f4095"]

    run(test)


def test_a_stat_does_not_wait_for_a_whole_directory() -> None:
    async def test() -> None:
        store = Names()
        for n in range(5000):
            store.set(f"d/f{n:04}", size=10_000)
        async with tree_over(store) as tree:
            one = await find(tree, "d/f2500")
            store.before = lambda: 1.0
            began = trio.current_time()
            await tree.refresh(one)
            assert one.known
            assert trio.current_time() - began <= 2
            await trio.sleep(1000)
            assert store.requests["head"] <= 200, "one stat is no reason to ask for thousands"

    run(test)


def test_reading_attributes_of_all_names_asks_each_once_and_many_at_a_time() -> None:
    async def test() -> None:
        store = Names()
        for n in range(2000):
            store.set(f"d/f{n:04}", size=10_000)
        async with tree_over(store) as tree:
            directory = await find(tree, "d")
            await read(tree, directory)
            store.requests.clear()
            store.before = lambda: 1.0
            began = trio.current_time()
            for child in list(tree.known_children(directory)):
                await tree.refresh(child)
            assert store.requests == {"head": 2000}
            assert trio.current_time() - began <= 2000 / 64 * 2

    run(test)


# -- listings -----------------------------------------------------------------------------------------------------------


def test_who_is_wanted_twice_is_asked_for_once_and_what_a_batch_leaves_out_alone() -> None:
    async def test() -> None:
        store = Names(*[f"d/f{n:02}" for n in range(40)])
        store.leaves = lambda key: key == "d/f07"
        async with tree_over(store) as tree:
            directory = await find(tree, "d")
            inodes = [await find(tree, f"d/f{n:02}") for n in range(40)]
            await trio.sleep(1)  # what was asked ahead is there
            store.requests.clear()
            store.drop("d/f11")
            for inode in inodes:
                inode.known = False
            with_doubles = [inode for inode in inodes for _ in range(2)]
            await tree.head_all(with_doubles)
            assert store.requests == {"head": 40}
            assert [inode.known for inode in inodes if inode.name != b"f11"] == [True] * 39
            assert await tree.lookup(directory, b"f11") is None

    run(test)


def test_a_slow_reader_sees_every_name() -> None:
    async def test() -> None:
        keys = [f"f{n:04}" for n in range(300)]
        store = Names(*keys, page=20)
        async with tree_over(store, posix=False) as tree:
            listing = tree.listing(tree.root)
            names: list[bytes] = []
            after = 0
            while batch := await listing.batch(after, 7):
                names += [name for _, name, _ in batch]
                after = batch[-1][0]
                await trio.sleep(30)
            assert names == [key.encode() for key in keys]

    run(test)


def test_a_page_asked_for_ahead_is_not_asked_for_again_when_its_reader_is_slow() -> None:
    async def test() -> None:
        store = Names(*[f"f{n:02}" for n in range(40)], page=10)
        async with tree_over(store, posix=False) as tree:
            listing = tree.listing(tree.root)
            names: list[bytes] = []
            while batch := await listing.batch(len(names), 10):
                names += [name for _, name, _ in batch]
                await trio.sleep(3)
            assert names == [f"f{n:02}".encode() for n in range(40)]
            assert store.requests == {"list": 4}

    run(test)


@pytest.mark.parametrize("event", ["changed here", "doubted", "long ago", "not to be believed"])
def test_a_page_asked_for_ahead_that_may_be_wrong_by_now_is_asked_for_again(event: str) -> None:
    async def test() -> None:
        store = Names(*[f"f{n:02}" for n in range(19)], page=10)
        async with tree_over(store, posix=False, metadata_ttl=0 if event == "not to be believed" else 60) as tree:
            listing = tree.listing(tree.root)
            await listing.batch(0, 10)
            await trio.sleep(3)
            store.drop("f15")
            store.set("f15x")
            if event == "changed here":
                delivered(tree, store, tree.add(tree.root, b"e", new_file()))
            elif event == "doubted":
                tree.invalidate(tree.root)
            elif event == "long ago":
                await trio.sleep(100)
            assert b"f15x" in [name for _, name, _ in await listing.batch(10, 100)]
            assert store.requests["list"] == 3

    run(test)


@pytest.mark.parametrize("new", ["a", "z"])
def test_a_directory_renamed_while_its_reader_pauses_shows_every_name(new: str) -> None:
    async def test() -> None:
        store = Names(*[f"old/f{n:02}" for n in range(60)], page=10)
        async with tree_over(store, posix=False) as tree:
            directory = await find(tree, "old")
            listing = tree.listing(directory)
            names: list[bytes] = []
            names += [name for _, name, _ in await listing.batch(0, 5)]
            await trio.sleep(3)
            for key in list(store.objects):
                store.set(key.replace("old/", f"{new}/"))
                store.drop(key)
            tree.move(directory, tree.root, new.encode())
            while batch := await listing.batch(len(names), 10):
                names += [name for _, name, _ in batch]
            assert sorted(names) == [f"f{n:02}".encode() for n in range(60)]

    run(test)


def test_seeking_back_shows_the_same_names_again() -> None:
    async def test() -> None:
        store = Names(*[f"f{n:04}" for n in range(100)], page=20)
        async with tree_over(store, posix=False) as tree:
            listing = tree.listing(tree.root)
            first = await listing.batch(0, 10)
            second = await listing.batch(first[-1][0], 10)
            assert await listing.batch(first[-1][0], 10) == second
            while batch := await listing.batch(second[-1][0], 1000):
                second = batch
            assert await listing.batch(first[4][0], 5) == first[5:10]

    run(test)


def test_a_file_still_being_written_is_listed_after_the_names_have_expired() -> None:
    async def test() -> None:
        store = Names("a")
        async with tree_over(store, posix=False) as tree:
            await read(tree, tree.root)
            tree.add(tree.root, b"new", new_file(), pending=True)
            await trio.sleep(1000)
            assert sorted(await read(tree, tree.root)) == [b"a", b"new"]

    run(test)


def test_a_name_made_while_a_listing_was_in_flight_is_in_the_next_opendir() -> None:
    async def test() -> None:
        store = Names("a", "b")
        store.after = lambda: 10.0
        async with tree_over(store, posix=False) as tree, trio.open_nursery() as nursery:
            nursery.start_soon(tree.lookup, tree.root, b"a")
            await trio.sleep(1)
            delivered(tree, store, tree.add(tree.root, b"new", new_file()))
            assert sorted(await read(tree, tree.root)) == [b"a", b"b", b"new"]

    run(test)


def test_a_renamed_file_is_not_listed_under_its_old_name() -> None:
    async def test() -> None:
        store = Names("a", "b", "c")
        async with tree_over(store, posix=False) as tree:
            listing = tree.listing(tree.root)
            first = await listing.batch(0, 1)
            tree.move(await find(tree, "b"), tree.root, b"z")
            names = [name for _, name, _ in await listing.batch(first[-1][0], 10)]
            assert b"b" not in names
            assert b"c" in names

    run(test)


def test_a_name_moved_over_another_while_attributes_are_asked_for_is_listed() -> None:
    async def test() -> None:
        store = Names("a", "b")
        async with tree_over(store) as tree:
            a = await find(tree, "a")
            tree.remember(a)
            await trio.sleep(1000)
            store.set("a", b"new")
            store.set("b", b"new")
            store.before = lambda: 10.0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, tree, tree.root)
                await trio.sleep(15)
                store.set("b", b"new")
                store.drop("a")
                tree.move(a, tree.root, b"b")
                assert await read(tree, tree.root) == [b"b"]

    run(test)


@pytest.mark.parametrize("there", ["", "other/"])
def test_a_name_that_was_shown_is_not_shown_again_for_a_file_that_is_called_so_while_attributes_are_asked_for(there: str) -> None:
    async def test() -> None:
        store = Names("a", "b", "c", "d", "other/", page=2)
        async with tree_over(store) as tree:
            other = await find(tree, "other")
            await read(tree, other)
            await trio.sleep(1000)
            store.before = lambda: 10.0
            names: list[bytes] = []

            async def reads() -> None:
                names.extend(await read(tree, tree.root))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(reads)
                await trio.sleep(35)
                assert ("head", "d") in store.asked
                d = await find(tree, "d")
                assert not d.known
                store.objects[there + "a"] = store.objects.pop("d")
                tree.move(d, other if there else tree.root, b"a")
            assert sorted(names) == [b"a", b"b", b"c", b"other"]

    run(test)


@pytest.mark.parametrize("how", ["removed", "renamed"])
def test_a_name_that_an_older_page_brought_back_while_it_was_being_removed_is_asked_for(how: str) -> None:
    async def test() -> None:
        store = Names("k", "z")
        async with tree_over(store, posix=False) as tree:
            file, before = await find(tree, "z"), store.objects["z"]
            store.drop("z")
            tree.vanished(tree.root, b"z")  # one page was made after the object went,
            tree.settle(tree.root, b"z", "z", False, before)  # another one before, and came later
            if how == "removed":
                tree.remove(file)
            else:
                store.set("a")
                tree.move(file, tree.root, b"a")
            assert await tree.lookup(tree.root, b"z") is None
            assert b"z" not in await read(tree, tree.root)

    run(test)


def test_a_name_removed_and_made_again_during_a_listing_is_in_the_next_opendir() -> None:
    async def test() -> None:
        store = Names("a", "b", "c", page=2)
        async with tree_over(store) as tree:
            b = await find(tree, "b")
            tree.remember(b)
            await trio.sleep(1000)
            store.set("a", b"new")
            store.before = lambda: 10.0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, tree, tree.root)
                await trio.sleep(15)
                store.drop("b")
                tree.remove(b)
                await trio.sleep(10)
                delivered(tree, store, tree.add(tree.root, b"b", new_file()))
                assert sorted(await read(tree, tree.root)) == [b"a", b"b", b"c"]

    run(test)


def test_a_file_replaced_by_a_directory_during_a_listing_is_not_shown_beside_it() -> None:
    async def test() -> None:
        store = Names("foo", "z")
        async with tree_over(store, posix=False) as tree:
            foo = await find(tree, "foo")
            await trio.sleep(1000)
            store.after = lambda: 10.0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, tree, tree.root)
                await trio.sleep(1)
                store.drop("foo")
                tree.remove(foo)
                directory = tree.add(tree.root, b"foo", new_file(), is_dir=True)
                store.set("foo/", b"")
                tree.delivered(directory, store.objects["foo/"])
            assert sorted(await read(tree, tree.root)) == [b"foo", b"z"]

    run(test)


def test_a_directory_renamed_during_its_listing_keeps_its_names() -> None:
    async def test() -> None:
        store = Names(*[f"d/f{n:02}" for n in range(50)], page=10)
        async with tree_over(store, posix=False) as tree:
            directory = await find(tree, "d")
            store.after = lambda: 10.0
            seen: list[bytes] = []

            async def reader() -> None:
                seen.extend(await read(tree, directory))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(reader)
                await trio.sleep(15)
                for n in range(50):
                    store.drop(f"d/f{n:02}")
                    store.set(f"e/f{n:02}")
                tree.move(directory, tree.root, b"e")
            assert seen == [f"f{n:02}".encode() for n in range(50)]
            store.after = lambda: 0.0
            assert await read(tree, directory) == seen

    run(test)


def test_a_directory_renamed_while_attributes_are_asked_for_is_not_what_was_left_of_it_at_its_old_place() -> None:
    async def test() -> None:
        store = Names("d/x", "d/y")
        async with tree_over(store, posix=True) as tree:
            directory = await find(tree, "d")
            tree.remember(directory)
            await trio.sleep(1000)
            tree.directory(directory).counted_at = trio.current_time()
            for name in "xy":
                store.set(f"e/{name}")
            store.drop("d/y")
            store.requests.clear()
            store.after = lambda: 10.0 if store.requests["head"] else 0.0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, tree, directory)
                await trio.sleep(5)  # the page is there, d/x is asked for
                store.drop("d/x")
                tree.move(directory, tree.root, b"e")
            store.after = lambda: 0.0
            assert sorted(await read(tree, directory)) == [b"x", b"y"]

    run(test)


@pytest.mark.parametrize("posix", [False, True])
@pytest.mark.parametrize("asks", ["lookup", "listing", "attributes", "emptiness"])
def test_what_is_asked_of_a_directory_while_it_is_renamed_there_and_back_is_not_lost(asks: str, posix: bool) -> None:
    async def test() -> None:
        store = Names("d/sub.d/x.txt")
        async with tree_over(store, posix=posix) as tree:
            sub = await find(tree, "d/sub.d")
            directory = sub.parent
            assert directory is not None
            await trio.sleep(1000)
            store.before, store.after = (lambda: 1.0), (lambda: 10.0)
            found: list[object] = []

            async def ask() -> None:
                match asks:
                    case "lookup":
                        found.append(await tree.lookup(sub, b"x.txt"))
                    case "listing":
                        found.extend(await read(tree, sub))
                    case "attributes":
                        await tree.refresh(sub)
                        found.append(not sub.unlinked)
                    case "emptiness":
                        found.append(not await tree.is_empty(sub))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                await trio.sleep(0.5)
                for new in ("e", "d"):
                    tree.directory(directory).counted_at = trio.current_time()
                    for key in list(store.objects):
                        store.objects[new + key[1:]] = store.objects.pop(key)
                    tree.move(directory, tree.root, new.encode())
                    await trio.sleep(2)  # the answer is made while it is called e
                store.before = store.after = lambda: 0.0
            assert found
            assert all(found)
            assert await read(tree, sub) == [b"x.txt"]
            assert (await find(tree, "d/sub.d/x.txt")).key == "d/sub.d/x.txt"

    run(test)


def test_a_directory_larger_than_all_that_is_kept_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_module, "KEPT_ENTRIES", 50)

    async def test() -> None:
        store = Names(*[f"f{n:03}" for n in range(200)], page=20)
        async with tree_over(store, posix=False) as tree:
            assert len(await read(tree, tree.root)) == 200
            assert len(await read(tree, tree.root)) == 200

    run(test)


def test_a_directory_read_again_shows_those_whose_own_names_have_to_go_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_module, "KEPT_ENTRIES", 10)

    async def test() -> None:
        store = Names("d/sub/f1", "d/sub/f2", "d/f")
        async with tree_over(store, posix=False, metadata_ttl=600) as tree:
            directory = await find(tree, "d")
            tree.remember(directory)
            await read(tree, directory)
            await read(tree, await find(tree, "d/sub"))
            for n in range(6):
                delivered(tree, store, tree.add(directory, f"own{n}".encode(), new_file()))
            shown = [b"f", *[f"own{n}".encode() for n in range(6)], b"sub"]
            assert sorted(await read(tree, directory)) == shown
            assert sorted(await read(tree, await find(tree, "d/sub"))) == [b"f1", b"f2"]

    run(test)


def test_a_failing_listing_is_an_error_and_not_an_empty_directory() -> None:
    async def test() -> None:
        store = Names("a")
        async with tree_over(store, posix=False) as tree:
            store.failure = StoreError("AccessDenied", status=403)
            with pytest.raises(StoreError, match="AccessDenied"):
                await read(tree, tree.root)
            with pytest.raises(StoreError, match="AccessDenied"):
                await tree.lookup(tree.root, b"a")
            store.failure = None
            assert await read(tree, tree.root) == [b"a"]

    run(test)


def test_file_and_directory_of_one_name_are_both_shown_over_page_borders() -> None:
    async def test() -> None:
        for page in (1, 2, 3, 1000):
            store = Names("foo", "foo-a", "foo-b", "foo/x", "foo0", page=page)
            async with tree_over(store, posix=False) as tree:
                shown = [b".zos~file~foo", b"foo", b"foo-a", b"foo-b", b"foo0"]
                assert sorted(await read(tree, tree.root)) == shown, page
                assert sorted(await read(tree, tree.root)) == shown, page
                file = await find(tree, ".zos~file~foo")
                assert (file.is_dir, file.key) == (False, "foo")
                assert (await find(tree, "foo")).key == "foo/"
                await trio.sleep(1000)
                assert sorted(await read(tree, tree.root)) == shown, page
                assert sorted(await read(tree, tree.root)) == shown, page

    run(test)


@pytest.mark.parametrize("change", ["nothing", "elsewhere", "removed", "made"])
@pytest.mark.parametrize("pause", [0.0, 0.5, 3.0])
def test_a_file_is_not_shown_before_it_is_known_whether_a_directory_has_its_name(pause: float, change: str) -> None:
    """There may be pages between `foo` and `foo/`: `foo-0`, `foo.txt`; or none, and the page ends between them."""

    async def test() -> None:
        store = Names("bar", "bar-0", "bar-1", "bar0", "foo", *[f"foo-{n}" for n in range(20)], "foo/x", "foo0", page=3)
        shown = {key.encode() for key in store.objects if "/" not in key} | {b".zos~file~foo"}
        async with tree_over(store, posix=False, metadata_ttl=600) as tree:
            listing, after, names = tree.listing(tree.root), 0, list[bytes]()
            while batch := await listing.batch(after, 2):
                after = batch[-1][0]
                for _, name, inode in batch:
                    assert name != b"foo" or inode.is_dir
                    names.append(name)
                if len(names) == 8:
                    foo = await find(tree, "foo")
                    assert foo.is_dir
                    match change:
                        case "elsewhere":
                            delivered(tree, store, tree.add(foo, b"y", new_file()))
                        case "removed":
                            file = await find(tree, ".zos~file~foo")
                            store.drop("foo")
                            tree.remove(file)
                            shown.remove(b".zos~file~foo")
                        case "made":
                            delivered(tree, store, tree.add(tree.root, b"z", new_file()))
                            shown.add(b"z")
                await trio.sleep(pause)
            assert sorted(names) == sorted(shown)
            assert sorted(await read(tree, tree.root)) == sorted(shown)

    run(test)


def test_the_file_beside_a_directory_is_found_in_a_huge_directory() -> None:
    async def test() -> None:
        store = Names(*[f"a{n:03}" for n in range(100)], "foo", "foo/x", "plain", page=10)
        async with tree_over(store, posix=False) as tree:
            await tree.lookup(tree.root, b"a000")
            await trio.sleep(5)
            file = await find(tree, ".zos~file~foo")
            assert (file.is_dir, file.key) == (False, "foo")
            assert await tree.lookup(tree.root, b".zos~file~plain") is None

    run(test)


# -- freshness ----------------------------------------------------------------------------------------------------------


def test_what_others_change_shows_when_names_have_expired_and_inodes_stay_themselves() -> None:
    async def test() -> None:
        store = Names("a", "b", "d/x")
        async with tree_over(store, posix=False) as tree:
            a, b = await find(tree, "a"), await find(tree, "b")
            stamp = a.stamp
            store.set("a", b"longer")
            store.drop("b")
            store.set("c")
            assert sorted(await read(tree, tree.root)) == [b"a", b"b", b"d"]
            await trio.sleep(61)
            assert sorted(await read(tree, tree.root)) == [b"a", b"c", b"d"]
            assert await find(tree, "a") is a
            assert a.attributes.size == 6
            assert a.stamp > stamp
            assert b.unlinked

    run(test)


def test_a_listing_that_was_under_way_when_names_were_doubted_is_not_believed_to_be_whole() -> None:
    async def test() -> None:
        store = Names("a", "b")
        store.after = lambda: 10.0
        async with tree_over(store, posix=False) as tree:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, tree, tree.root)
                await trio.sleep(5)
                store.set("c")
                tree.invalidate(tree.root)
            store.after = lambda: 0.0
            assert await tree.lookup(tree.root, b"c") is not None
            assert sorted(await read(tree, tree.root)) == [b"a", b"b", b"c"]

    run(test)


def test_a_forced_refresh_tells_what_was_true_after_it_was_asked() -> None:
    async def test() -> None:
        store = Names("a")
        async with tree_over(store) as tree:
            a = await find(tree, "a")
            store.before, store.after = (lambda: 0.0), (lambda: 10.0)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: tree.refresh(a, force=True))
                await trio.sleep(1)
                store.set("a", b"written elsewhere meanwhile")
                await tree.refresh(a, force=True)
                assert a.attributes.size == len(b"written elsewhere meanwhile")

    run(test)


def test_a_refresh_whose_asker_gave_up_is_asked_again_by_who_waited() -> None:
    async def test() -> None:
        store = Names()
        store.set("a", size=10_000, mode="33152")
        async with tree_over(store) as tree:
            a = await find(tree, "a")
            assert not a.known
            store.after = lambda: 10.0

            async def impatient() -> None:
                with trio.move_on_after(2):
                    await tree.refresh(a)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(impatient)
                await trio.sleep(1)
                await tree.refresh(a)
                assert a.known
                assert a.attributes.mode == 0o100600

    run(test)


def test_nothing_is_believed_with_a_ttl_of_nothing() -> None:
    async def test() -> None:
        store = Names("a")
        async with tree_over(store, posix=False, metadata_ttl=0.0, negative_ttl=0.0) as tree:
            assert await tree.lookup(tree.root, b"b") is None
            store.set("b")
            assert await tree.lookup(tree.root, b"b") is not None
            store.drop("b")
            assert await tree.lookup(tree.root, b"b") is None

    run(test)


def test_dirty_files_are_never_overwritten_by_what_the_store_says() -> None:
    async def test() -> None:
        store = Names("a")
        async with tree_over(store, posix=False) as tree:
            new = tree.add(tree.root, b"new", new_file(), pending=True)
            new.attributes.size = 1234
            store.set("new", b"somebody else's")
            await trio.sleep(1000)
            await read(tree, tree.root)
            await tree.refresh(new, force=True)
            assert new.attributes.size == 1234
            assert await find(tree, "new") is new

    run(test)


def test_an_empty_directory_is_empty_only_when_nothing_is_left() -> None:
    async def test() -> None:
        store = Names(*[f"d/f{n}" for n in range(8)])
        store.set("d/", b"")
        async with tree_over(store, posix=False) as tree:
            directory = await find(tree, "d")
            await find(tree, "d/f0")
            for child in tree.known_children(directory):
                tree.remember(child)
            assert not await tree.is_empty(directory)
            await trio.sleep(1000)
            store.after = lambda: 10.0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, tree, directory)
                await trio.sleep(1)
                for n in range(4):
                    tree.remove(directory.directory.children[f"f{n}".encode()])  # type: ignore[union-attr]
                store.after = lambda: 0.0
                assert not await tree.is_empty(directory), "f4 to f7 are there"

    run(test)


# -- inodes -------------------------------------------------------------------------------------------------------------


def test_vanished_and_removed_trees_leave_nothing_in_memory() -> None:
    async def test() -> None:
        store = Names("keep", *[f"d/e/f{n}" for n in range(100)])
        async with tree_over(store, posix=False) as tree:
            for _ in range(5):
                await read(tree, await find(tree, "d/e"))
                for n in range(100):
                    store.drop(f"d/e/f{n}")
                await trio.sleep(1000)
                assert await read(tree, tree.root) == [b"keep"]
                assert len(tree) == 2, "the root and one file"
                for n in range(100):
                    store.set(f"d/e/f{n}")
                await trio.sleep(1000)

    run(test)


def test_directories_that_are_not_kept_leave_nothing_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_module, "KEPT_ENTRIES", 500)

    async def test() -> None:
        store = Names(*[f"d{d:02}/f{n:02}" for d in range(50) for n in range(50)])
        async with tree_over(store, posix=False) as tree:
            for d in range(50):
                await read(tree, await find(tree, f"d{d:02}"))
            assert len(tree) <= 700
            assert len(await read(tree, await find(tree, "d00"))) == 50

    run(test)


def test_forgotten_names_are_given_back_when_their_listing_is_stale() -> None:
    async def test() -> None:
        store = Names(*[f"d{d}/f{n:03}" for d in range(3) for n in range(100)])
        async with tree_over(store, posix=False) as tree:
            held = await find(tree, "d1/f007")
            tree.remember(held)
            for d in range(3):
                directory = await find(tree, f"d{d}")
                await read(tree, directory)
                for child in list(tree.known_children(directory)):
                    tree.remember(child)
            assert len(tree) == 1 + 3 + 300
            await trio.sleep(1000)
            assert len(tree) == 1 + 3 + 300, "the kernel refers to them"
            for d in range(3):
                for child in list(tree.known_children(await find(tree, f"d{d}"))):
                    tree.forget(child.number, 1)
            await trio.sleep(1000)
            assert len(tree) == 1 + 1 + 1, "the root, the file that is held, and its directory"
            assert await find(tree, "d1/f007") is held
            assert len(await read(tree, await find(tree, "d2"))) == 100

    run(test)


@pytest.mark.parametrize("how", ["removed", "removed and open", "renamed", "listed again"])
def test_a_name_that_went_while_it_was_forgotten_does_not_come_back_with_an_old_opendir(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_module, "KEPT_ENTRIES", 20)

    async def test() -> None:
        store = Names(*[f"d/f{n}" for n in range(10)], *[f"e/g{n}" for n in range(30)])
        async with tree_over(store, posix=False, metadata_ttl=600) as tree:
            directory = await find(tree, "d")
            tree.remember(directory)
            listing = tree.listing(directory)
            names = [name for _, name, _ in await listing.batch(0, 3)]
            await read(tree, await find(tree, "e"))
            assert not tree.known_children(directory)
            file = await find(tree, "d/f5")
            if how == "removed and open":
                tree.remember(file)
            store.drop("d/f5")
            if how == "renamed":
                store.set("d/z5")
                tree.move(file, directory, b"z5")
            elif how == "listed again":
                await trio.sleep(1000)
                await read(tree, directory)
            else:
                tree.remove(file)
            names += [name for _, name, _ in await listing.batch(3, 100)]
            assert names == [b"f0", b"f1", b"f2", b"f3", b"f4", b"f6", b"f7", b"f8", b"f9"]
            assert await tree.lookup(directory, b"f5") is None

    run(test)


def test_what_the_kernel_refers_to_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_module, "KEPT_ENTRIES", 200)

    async def test() -> None:
        store = Names(*[f"d{d:02}/f{n:02}" for d in range(30) for n in range(50)])
        async with tree_over(store, posix=False) as tree:
            held: list[Inode] = []
            for d in range(30):
                await read(tree, await find(tree, f"d{d:02}"))
                inode = await find(tree, f"d{d:02}/f07")
                tree.remember(inode)
                held.append(inode)
            for d, inode in enumerate(held):
                assert tree.get(inode.number) is inode
                assert await find(tree, f"d{d:02}/f07") is inode

    run(test)


def test_numbers_are_the_same_after_a_remount() -> None:
    async def test() -> None:
        store = Names("a", "d/e/f")
        numbers = []
        for _ in range(2):
            async with tree_over(store, posix=False) as tree:
                numbers.append([(await find(tree, path)).number for path in ("a", "d", "d/e", "d/e/f")])
        assert numbers[0] == numbers[1]

    run(test)


# -- buckets ------------------------------------------------------------------------------------------------------------


def test_buckets_are_the_directories_of_the_root() -> None:
    async def test() -> None:
        account = Buckets(Names("x", bucket="one"), Names("y/z", bucket="two"))
        async with tree_over(account, posix=False) as tree:
            assert sorted(await read(tree, tree.root)) == [b"one", b"two"]
            assert (await find(tree, "two/y/z")).key == "y/z"
            assert await tree.lookup(tree.root, b"three") is None
            assert account.lists == 1
            with pytest.raises(OSError, match="not empty") as caught:
                await tree.delete_bucket(await find(tree, "one"))
            assert caught.value.errno == errno.ENOTEMPTY

    run(test)


def test_a_bucket_made_while_buckets_are_listed_is_not_hidden() -> None:
    async def test() -> None:
        account = Buckets(Names("x", bucket="one"))
        account.after = lambda: 10.0
        async with tree_over(account, posix=False) as tree:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, tree, tree.root)
                await trio.sleep(1)
                await tree.create_bucket(b"two", new_file())
            assert sorted(await read(tree, tree.root)) == [b"one", b"two"]

    run(test)


# -- attributes -----------------------------------------------------------------------------------------------------------


def test_a_mode_on_its_way_to_the_store_is_not_taken_back_by_an_answer_without_it() -> None:
    async def test() -> None:
        store = Names()
        store.set("a", mode="33188")
        async with tree_over(store) as tree:
            a = await find(tree, "a")
            await tree.refresh(a)
            a.attributes.mode = 0o100600
            tree.changed(a)
            await tree.refresh(a, force=True)
            assert a.attributes.mode == 0o100600

    run(test)


def test_an_answer_older_than_a_delivery_is_not_believed() -> None:
    async def test() -> None:
        store = Names("a")
        async with tree_over(store) as tree:
            a = await find(tree, "a")
            store.after = lambda: 10.0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: tree.refresh(a, force=True))
                await trio.sleep(1)
                a.attributes.size = 3
                delivered(tree, store, a, b"new")
            assert a.info is not None
            assert (a.info.etag, a.attributes.size) == (store.objects["a"].etag, 3)

    run(test)


def test_an_unlinked_file_that_is_open_does_not_come_back() -> None:
    async def test() -> None:
        store = Names("d/a")
        store.set("d/", b"")
        async with tree_over(store, posix=False) as tree:
            directory, a = await find(tree, "d"), await find(tree, "d/a")
            tree.removed.add(directory.store, "d/a", a.info)  # it is deleted when the last handle closes
            tree.remove(a)
            await trio.sleep(1000)
            assert await read(tree, directory) == []
            assert await tree.lookup(directory, b"a") is None
            directory.directory.huge = True  # type: ignore[union-attr]
            await trio.sleep(1000)
            assert await tree.lookup(directory, b"a") is None
            assert await tree.is_empty(directory)
            store.set("d/a", b"somebody's new one")
            await trio.sleep(1000)
            assert await read(tree, directory) == [b"a"]

    run(test)


@pytest.mark.parametrize("listed", [True, False])
def test_an_unlinked_file_that_is_closed_while_it_is_asked_for_does_not_come_back(listed: bool) -> None:
    """The answer was made before its object went, and comes after that."""

    async def test() -> None:
        store = Names("d/f", "d/g")
        async with tree_over(store, posix=False) as tree:
            directory = await find(tree, "d")
            inode = await find(tree, "d/f")
            tree.removed.add(directory.store, "d/f", inode.info)
            tree.remove(inode)
            await trio.sleep(1000)
            store.after = lambda: 2.0
            assert directory.directory is not None
            directory.directory.huge = not listed

            async def close() -> None:
                await trio.sleep(1)
                store.drop("d/f")
                tree.removed.discard(directory.store, "d/f")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(close)
                if listed:
                    assert await read(tree, directory) == [b"g"]
                else:
                    assert await tree.lookup(directory, b"f") is None
            assert await tree.lookup(directory, b"f") is None

    run(test)


def test_a_listing_goes_on_behind_removed_objects_that_live_on() -> None:
    async def test() -> None:
        store = Names(*[f"d/{n}" for n in range(5)], "e/f", "g")
        async with tree_over(store, posix=False) as tree:
            for n in range(5):
                tree.removed.add(tree.root.store, f"d/{n}", None)
            tree.removed.add(tree.root.store, "e/f", (await store.list_page("e/")).objects[0])
            page = await tree.removed.list_page(tree.root.store, "", max_keys=1)
            assert next(info.key for info in page.objects) == "g"
            assert await read(tree, tree.root) == [b"g"]
            tree.removed.discard(tree.root.store, "d/4")
            await trio.sleep(1000)
            assert await read(tree, tree.root) == [b"d", b"g"]
            assert await read(tree, await find(tree, "d")) == [b"4"]

    run(test)


def test_a_forgotten_file_keeps_its_number_and_a_new_one_of_its_name_gets_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_module, "KEPT_ENTRIES", 30)

    async def test() -> None:
        store = Names(*[f"d{d}/f{n}" for d in range(10) for n in range(10)])
        async with tree_over(store, posix=False) as tree:
            first = await find(tree, "d0/f0")
            for d in range(10):
                await read(tree, await find(tree, f"d{d}"))
            again = await find(tree, "d0/f0")
            assert again is not first, "it was forgotten"
            assert again.number == first.number
            tree.remember(again)
            parent = again.parent
            assert parent is not None
            tree.remove(again)
            assert tree.add(parent, b"f0", new_file()).number != again.number
            tree.forget(again.number, 1)
            assert (await find(tree, "d0/f0")).number != again.number

    run(test)


@pytest.mark.parametrize("known", [True, False])
def test_who_lists_after_a_hint_does_not_see_what_was_asked_for_before_it(known: bool) -> None:
    async def test() -> None:
        store = Names(*[f"f{n:02}" for n in range(30)], page=10)
        async with tree_over(store, posix=False) as tree, trio.open_nursery() as nursery:
            if known:
                await read(tree, tree.root)
                await trio.sleep(1000)
            store.after = lambda: 1.0
            nursery.start_soon(read, tree, tree.root)
            await trio.sleep(1.5)
            store.set("a")
            changed = store.set("f15", b"other, and longer")
            store.drop("f05")
            tree.invalidate(tree.root)
            after = [*[f"f{n:02}".encode() for n in range(30) if n != 5], b"a"]
            assert sorted(await read(tree, tree.root)) == sorted(after)
            await trio.sleep(10)  # the older listing has come to its end, too
            assert sorted(await read(tree, tree.root)) == sorted(after)
            found = await tree.lookup(tree.root, b"f15")
            assert found is not None
            assert found.info is not None
            assert found.info.etag == changed.etag

    run(test)
