"""What a HEAD says of an object, packed and unpacked, and that inodes show the same either way."""

from __future__ import annotations

import dataclasses

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.tree.bucket import DEFAULTS, Names, find, read, tree_over
from tests.tree.test_listed import LISTED
from tests.tree.test_tree import run
from zosfs.store.api import ObjectInfo
from zosfs.tree.attributes import Attributes, from_object, to_metadata
from zosfs.tree.listed import pack, size_and_time
from zosfs.tree.told import attributes_in, is_told, pack_told, unpack_told

TEXTS = st.text(st.characters(exclude_categories=()), max_size=12)
NAMES = st.one_of(st.sampled_from(["mode", "uid", "gid", "mtime", "atime", "ctime", "xattr"]), TEXTS)
NUMBERS = st.integers(-(10**12), 1 << 33).map(str)
METADATA = st.dictionaries(NAMES, st.one_of(NUMBERS, TEXTS, st.sampled_from(["\0", "\1", "1.5", "33188", "0100644"])), max_size=8)
TOLD = st.builds(
    lambda listed, version, kind, metadata, headers: dataclasses.replace(
        listed, version_id=version, content_type=kind, metadata=metadata, headers=headers
    ),
    LISTED, st.sampled_from(["", "null", "v" * 32, "\1"]), st.sampled_from(["", "text/plain"]), METADATA, METADATA,
)  # fmt: skip
PLAIN = Attributes(0o100640, 1000, 100, 5, 1_700_000_000_123_456_789, 1_700_000_001_000_000_000, 1_700_000_002_500_000_000)


@given(TOLD)
def test_nothing_is_lost(info: ObjectInfo) -> None:
    attributes = from_object(info, False, DEFAULTS)
    row = pack_told(info, attributes)
    texts = [info.version_id, *(info.metadata or {}).values(), *info.headers.values()]
    if row is None:
        assert attributes.rdev or any("\0" in text or "\1" in text for text in texts)
        return
    assert unpack_told(row, info.key) == info
    assert list(unpack_told(row, info.key).metadata or {}) == list(info.metadata or {})
    assert attributes_in(row) == attributes
    assert is_told(row)
    assert size_and_time(row) == (info.size, info.modified_ns)


@given(LISTED)
def test_a_listed_row_is_not_taken_for_one(info: ObjectInfo) -> None:
    row = pack(info)
    assert row is not None
    assert not is_told(row)


def test_what_is_usual_is_small() -> None:
    info = ObjectInfo("k", 5, "0123456789abcdef" * 2, 1_700_000_000 * 10**9, "", "Normal", "", "text/plain", to_metadata(PLAIN, {}))
    row = pack_told(info, PLAIN)
    assert row is not None
    assert row.__sizeof__() <= 128
    assert unpack_told(row, "k") == info


def test_what_has_no_room_is_not_packed() -> None:
    info = ObjectInfo("k", 5, "e", 0, metadata={})
    assert pack_told(info, PLAIN) is not None
    assert pack_told(ObjectInfo("k", 5, "e", 0), PLAIN) is None
    for change in ({"mode": 1 << 16}, {"uid": 1 << 32}, {"mtime_ns": 1 << 63}, {"rdev": 1}, {"size": 6}):
        assert pack_told(info, dataclasses.replace(PLAIN, **change)) is None


def test_an_inode_is_packed_when_its_head_came_and_listed_again_and_shows_the_same() -> None:
    async def test() -> None:
        store = Names()
        told = store.set("d/k", b"12345", mode="33152", uid="12", gid="13", mtime="1700000000.5", other="x")
        async with tree_over(store, metadata_ttl=1.0) as tree:
            for _ in range(2):
                inode = await find(tree, "d/k")
                await tree.refresh(inode)
                for _ in range(2):
                    assert inode._attributes is None
                    assert inode.info is not None
                    assert (inode.info.etag, inode.info.metadata, inode.info.content_type) == (told.etag, told.metadata, "text/plain")
                    assert inode.listed is None
                    assert inode.size == 5
                    shown = inode.shown()
                    assert (shown.mode, shown.uid, shown.gid, shown.mtime_ns) == (33152, 12, 13, 1_700_000_000_500_000_000)
                    await trio.sleep(2)
                    await read(tree, await find(tree, "d"))
            inode.attributes.mode = 0o100777
            tree.changed(inode)
            await read(tree, await find(tree, "d"))
            assert inode.shown().mode == 0o100777, "changed here, and on its way to the store"

    run(test)


@pytest.mark.parametrize("posix", [True, False])
def test_what_a_listing_told_is_shown_when_a_file_is_moved_by_a_copy_of_its_object(posix: bool) -> None:
    async def test() -> None:
        store = Names()
        store.set("d/k", size=5000)  # no link could be so long: nobody asks for more than the listing
        async with tree_over(store, posix=posix) as tree:
            directory = await find(tree, "d")
            await read(tree, directory)
            inode = tree.directory(directory).children[b"k"]
            before, info = inode.shown(), inode.info
            assert info is not None
            tree.move(inode, directory, b"new")
            assert inode.shown() == before
            tree.delivered(inode, dataclasses.replace(info, key="d/new", modified_ns=info.modified_ns + 10**9))
            assert inode.shown() == before
            assert inode.known is not posix, "the object's attributes are still to be asked for"

    run(test)


def test_what_is_told_of_a_file_is_told_of_its_key_of_now() -> None:
    """It is unpacked once for those who ask several times, not for those who ask after a rename of any kind."""
    async def test() -> None:
        store = Names("d/e/k")
        async with tree_over(store, posix=False) as tree:
            above, directory = await find(tree, "d"), await find(tree, "d/e")
            await read(tree, directory)
            inode = tree.directory(directory).children[b"k"]

            def key() -> str:
                info = inode.info
                assert info is not None
                assert info is inode.info
                return info.key

            assert key() == "d/e/k"
            tree.move(directory, above, b"f")
            assert key() == "d/f/k"
            tree.move(above, tree.root, b"x")
            assert key() == "x/f/k"

    run(test)


def test_what_a_listing_told_is_shown_when_another_tells_more_of_its_time() -> None:
    async def test() -> None:
        store = Names("d/k")
        store.objects["d/k"] = dataclasses.replace(store.objects["d/k"], size=5, modified_ns=1_700_000_000 * 10**9)
        async with tree_over(store, posix=False, metadata_ttl=1.0) as tree:
            await read(tree, await find(tree, "d"))
            store.objects["d/k"] = dataclasses.replace(store.objects["d/k"], modified_ns=1_700_000_000 * 10**9 + 5 * 10**8)
            await trio.sleep(2)
            await read(tree, await find(tree, "d"))
            assert (await find(tree, "d/k")).shown().size == 5

    run(test)
