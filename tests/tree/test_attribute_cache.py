"""Attributes remembered across mounts: found only for the very version, shared, bounded, and expendable."""

from __future__ import annotations

import dataclasses
import os
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.tree.bucket import Names, read, tree_over
from zosfs.store.api import ObjectInfo
from zosfs.tree import attribute_cache
from zosfs.tree.attribute_cache import AttributeCache
from zosfs.tree.tree import Tree

MS = 10**6
HEADED = ObjectInfo(
    "d/a", 5, "etag", 1_700_000_000 * 1000 * MS, object_type="Normal", content_type="text/plain", metadata={"mode": "33152"},
    headers={"content-encoding": "gzip", "x-other": "dropped"},
)  # fmt: skip
LISTED = ObjectInfo("d/a", 5, "etag", 1_700_000_000_123 * MS)


def with_cache(directory: Path, test: Callable[[AttributeCache], Awaitable[None]]) -> None:
    """Run *test* with the cache of one mount."""

    async def main() -> None:
        with trio.fail_after(120):
            cache = AttributeCache(directory)
            try:
                await test(cache)
            finally:
                await cache.aclose()

    trio.run(main)


async def remember(cache: AttributeCache) -> None:
    cache.put("bucket", HEADED)
    await cache.write()


async def is_known(cache: AttributeCache) -> None:
    found = (await cache.get_many("bucket", [LISTED]))["d/a"]
    assert found.metadata == {"mode": "33152"}
    assert found.content_type == "text/plain"
    assert found.headers == {"content-encoding": "gzip"}
    assert found.modified_ns == LISTED.modified_ns


async def is_not_known(cache: AttributeCache) -> None:
    assert await cache.get_many("bucket", [LISTED]) == {}


def test_what_was_put_is_found_at_once_and_after_a_remount(tmp_path: Path) -> None:
    async def at_once(cache: AttributeCache) -> None:
        cache.put("bucket", HEADED)
        await is_known(cache)

    with_cache(tmp_path, at_once)
    with_cache(tmp_path, is_known)
    assert os.stat(tmp_path / "attributes.sqlite").st_mode & 0o777 == 0o600


def test_another_version_is_not_found(tmp_path: Path) -> None:
    async def test(cache: AttributeCache) -> None:
        await remember(cache)
        for other in (
            dataclasses.replace(LISTED, etag="other"), dataclasses.replace(LISTED, size=6), dataclasses.replace(LISTED, key="d/b"),
            dataclasses.replace(LISTED, modified_ns=LISTED.modified_ns + 1000 * MS),
        ):  # fmt: skip
            assert await cache.get_many("bucket", [other]) == {}
        assert await cache.get_many("other", [LISTED]) == {}

    with_cache(tmp_path, test)


def test_two_mounts_share_it(tmp_path: Path) -> None:
    async def test(cache: AttributeCache) -> None:
        second = AttributeCache(tmp_path)
        await is_not_known(second)
        await remember(cache)
        await is_known(second)
        second.put("bucket", dataclasses.replace(HEADED, key="d/b"))
        await second.aclose()
        assert len(await cache.get_many("bucket", [LISTED, dataclasses.replace(LISTED, key="d/b")])) == 2

    with_cache(tmp_path, test)


@pytest.mark.parametrize("damage", [b"", b"no database at all" * 100])
def test_a_damaged_file_is_started_anew(tmp_path: Path, damage: bytes) -> None:
    with_cache(tmp_path, remember)
    (tmp_path / "attributes.sqlite").write_bytes(damage)
    with_cache(tmp_path, is_not_known)
    with_cache(tmp_path, remember)
    with_cache(tmp_path, is_known)


def test_pages_damaged_under_a_sound_head_are_found_out_and_started_anew(tmp_path: Path) -> None:
    async def many(cache: AttributeCache) -> None:
        for n in range(2000):
            cache.put("bucket", dataclasses.replace(HEADED, key=f"d/{n}"))
        await remember(cache)

    async def survive(cache: AttributeCache) -> None:
        await cache.get_many("bucket", [LISTED, *[dataclasses.replace(LISTED, key=f"d/{n}") for n in range(2000)]])
        await remember(cache)
        await is_known(cache)

    with_cache(tmp_path, many)
    path = tmp_path / "attributes.sqlite"
    data = path.read_bytes()
    path.write_bytes(data[:8192] + b"\xa5" * (len(data) - 8192))
    with_cache(tmp_path, survive)
    with_cache(tmp_path, is_known)


def test_what_is_being_written_out_is_found_meanwhile(tmp_path: Path) -> None:
    async def test(cache: AttributeCache) -> None:
        for n in range(5000):
            cache.put("bucket", dataclasses.replace(HEADED, key=f"d/{n}"))
        cache.put("bucket", HEADED)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cache.write)
            await trio.testing.wait_all_tasks_blocked()
            await is_known(cache)

    with_cache(tmp_path, test)


def test_a_directory_that_is_gone_costs_requests_and_one_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test(cache: AttributeCache) -> None:
        for _ in range(3):
            await remember(cache)
        await is_not_known(cache)

    with_cache(tmp_path / "gone", test)
    assert sum("cannot be written" in record.message for record in caplog.records) == 1


def test_a_row_that_makes_no_sense_is_as_good_as_none(tmp_path: Path) -> None:
    with_cache(tmp_path, remember)
    for facts in ("", "[]", "{}", "7", '{"metadata": 5, "content_type": null, "object_type": [], "headers": 3}'):
        with sqlite3.connect(tmp_path / "attributes.sqlite") as db:
            db.execute("UPDATE attributes SET facts = ?", (facts,))
        with_cache(tmp_path, is_not_known)


def test_it_does_not_grow_without_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attribute_cache, "MOST_ROWS", 1000)

    async def test(cache: AttributeCache) -> None:
        for n in range(3000):
            cache.put("bucket", dataclasses.replace(HEADED, key=f"d/{n}"))
            if n % 100 == 0:
                await cache.write()

    with_cache(tmp_path, test)
    with sqlite3.connect(tmp_path / "attributes.sqlite") as db:
        assert db.execute("SELECT COUNT(*) FROM attributes").fetchone()[0] <= 1200


def test_a_remount_asks_for_nothing_that_was_asked_for_before(tmp_path: Path) -> None:
    store = Names(*[f"d/f{n}" for n in range(50)])

    async def stat_all(cache: AttributeCache) -> None:
        async with tree_over(store, cache=cache) as tree:
            directory = await tree.lookup(tree.root, b"d")
            assert directory is not None
            await read(tree, directory)
            for child in list(tree.known_children(directory)):
                await tree.refresh(child)
                assert child.known

    with_cache(tmp_path, stat_all)
    assert store.requests["head"] == 50
    store.set("d/f7", b"changed")
    with_cache(tmp_path, stat_all)
    assert store.requests["head"] == 51


@pytest.mark.parametrize("seen", ["by the same mount", "by the next mount", "while it was asked for"])
def test_a_mode_changed_within_the_second_in_which_the_object_was_made_is_seen(tmp_path: Path, seen: str) -> None:
    """The copy that changed it has the ETag, the size and the second of before; listings tell it by its milliseconds."""
    store = Names("d/g")
    store.set("d/f", mode=str(0o100600))

    def change() -> None:
        before = store.objects["d/f"]
        store.objects["d/f"] = dataclasses.replace(before, modified_ns=before.modified_ns + 500 * MS, metadata={"mode": str(0o100644)})

    async def mode(tree: Tree) -> int:
        directory = await tree.lookup(tree.root, b"d")
        assert directory is not None
        await read(tree, directory)
        file = await tree.lookup(directory, b"f")
        assert file is not None
        await tree.refresh(file)
        return file.attributes.mode & 0o777

    async def first(cache: AttributeCache) -> None:
        async with tree_over(store, cache=cache, metadata_ttl=5) as tree:
            if seen == "while it was asked for":
                store.after = lambda: 0.5 if store.asked[-1][0] == "head" else 0.0
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(mode, tree)
                    await trio.testing.wait_all_tasks_blocked(0.05)
                    assert store.requests["head"]
                    change()
                    tree.invalidate(tree.root)
                store.after = lambda: 0.0
            else:
                assert await mode(tree) == 0o600
                change()
            if seen != "by the next mount":
                tree.invalidate(tree.root)
                assert await mode(tree) == 0o644

    async def second(cache: AttributeCache) -> None:
        async with tree_over(store, cache=cache) as tree:
            assert await mode(tree) == 0o644

    with_cache(tmp_path, first)
    with_cache(tmp_path, second)
    asked = store.requests["head"]
    with_cache(tmp_path, second)
    assert store.requests["head"] == asked, "what is known by its milliseconds is not asked for again"


def test_a_mode_changed_a_second_after_a_head_told_of_it_is_seen(tmp_path: Path) -> None:
    """No listing told before when the object was made: the time of the HEAD is no Date of an answer to a write."""
    store = Names("d/g")
    before = store.set("d/f", mode=str(0o100600))

    async def test(cache: AttributeCache) -> None:
        async with tree_over(store, cache=cache) as tree:
            directory = await tree.lookup(tree.root, b"d")
            assert directory is not None
            assert directory.directory is not None
            directory.directory.huge = True
            file = await tree.lookup(directory, b"f")
            assert file is not None
            assert file.attributes.mode & 0o777 == 0o600
            assert store.requests["head"] == 1
            later = before.modified_ns + 1500 * MS
            store.objects["d/f"] = dataclasses.replace(before, modified_ns=later, metadata={"mode": str(0o100644)})
            tree.invalidate(directory)
            await read(tree, directory)
            await tree.refresh(file)
            assert file.attributes.mode & 0o777 == 0o644

    with_cache(tmp_path, test)
