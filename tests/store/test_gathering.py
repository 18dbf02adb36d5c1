"""Gathered deletions: each is made or refused once, and kept while that cannot be told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from zosfs.errors import StoreError
from zosfs.store.api import ListPage, ObjectInfo, StoreFailure
from zosfs.store.gathering import AT_ONCE, Gathered, GatheringStore
from zosfs.store.s3 import S3Store


@given(st.lists(st.sampled_from(["add", "settle", "fail"]), max_size=30), st.sets(st.integers(0, 40)))
def test_every_promise_is_told_once(script: list[str], refused: set[int]) -> None:
    async def test() -> None:
        failing = False
        told: dict[str, StoreFailure | None] = {}
        added: list[str] = []

        async def send(keys: Sequence[str]) -> Mapping[str, StoreFailure]:
            await trio.lowlevel.checkpoint()
            if failing:
                raise StoreError("EndpointUnreachable", operation="delete_many")
            return {key: StoreFailure("AccessDenied") for key in keys if int(key) in refused}

        gathered = Gathered(send)

        def promise(key: str) -> None:
            def done(failure: StoreFailure | None) -> None:
                assert key not in told
                told[key] = failure

            gathered.add(key, done)

        for word in [*script, "settle"]:
            failing = word == "fail"
            if word == "add":
                added.append(str(len(added)))
                promise(added[-1])
            elif failing and len(gathered):
                with pytest.raises(StoreError):
                    await gathered.settle()
            else:
                await gathered.settle()
            assert all((key in gathered) == (key not in told) for key in added)
        assert set(told) == set(added)
        assert {int(key) for key, failure in told.items() if failure} == refused & {int(key) for key in added}

    trio.run(test)


def test_not_more_at_once_than_a_server_takes() -> None:
    async def test() -> None:
        sent: list[int] = []

        async def send(keys: Sequence[str]) -> Mapping[str, StoreFailure]:
            sent.append(len(keys))
            return {}

        gathered = Gathered(send)
        for n in range(2 * AT_ONCE + 1):
            gathered.add(str(n), lambda failure: None)
        await gathered.settle()
        assert sent == [AT_ONCE, AT_ONCE, 1]

    trio.run(test)


def test_who_settles_waits_for_what_was_promised_before_and_the_rest_is_gathered() -> None:
    async def test() -> None:
        sent: list[list[str]] = []

        async def send(keys: Sequence[str]) -> Mapping[str, StoreFailure]:
            sent.append(list(keys))
            gathered.add(f"new{len(sent)}", lambda failure: None)  # somebody goes on removing
            await trio.lowlevel.checkpoint()
            return {}

        gathered = Gathered(send)
        gathered.add("a", lambda failure: None)
        gathered.add("b", lambda failure: None)
        with trio.fail_after(60):
            await gathered.settle()
        assert sent == [["a", "b"]]
        assert "new1" in gathered
        gathered.add("c", lambda failure: None)
        with trio.fail_after(60):
            await gathered.settle()
        assert sent == [["a", "b"], ["new1", "c"]]

    trio.run(test)


class _Server:
    """What a bucket with *keys* answers to listings, and to multi-deletes when it is let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *keys: str) -> None:
        self.keys = set(keys)
        self.asked: list[str] = []
        self.may_delete = trio.Event()
        self.refused: set[str] = set()
        self.during: Callable[[], Awaitable[None]] | None = None  # between a listing's answer and its arrival

        async def list_page(
            store: Any, prefix: str, *, delimiter: str = "", marker: str = "", max_keys: int = 1000
        ) -> ListPage:
            self.asked.append(f"list {prefix}")
            await trio.lowlevel.checkpoint()
            below = sorted(key for key in self.keys if key.startswith(prefix))
            plain = [key for key in below if not delimiter or delimiter not in key[len(prefix) :]]
            deep = {prefix + key[len(prefix) :].partition(delimiter)[0] + delimiter for key in below if key not in plain}
            if self.during is not None:
                await self.during()
            return ListPage([ObjectInfo(key, 1, "e", 1) for key in plain], sorted(deep), "")

        async def delete_many(store: Any, keys: Sequence[str]) -> Mapping[str, StoreFailure]:
            self.asked.append(f"delete {len(keys)}")
            await self.may_delete.wait()
            self.keys -= set(keys) - self.refused
            return {key: StoreFailure("AccessDenied") for key in keys if key in self.refused}

        monkeypatch.setattr(S3Store, "__init__", lambda store: None)
        monkeypatch.setattr(S3Store, "list_page", list_page)
        monkeypatch.setattr(S3Store, "delete_many", delete_many)
        self.store = GatheringStore()
        self.told: list[StoreFailure | None] = []

    def remove(self, *keys: str) -> None:
        """Promise that these are deleted."""
        for key in keys:
            self.store.delete_soon(ObjectInfo(key, 1, "e", 1), self.told.append)

    async def names(self, prefix: str, delimiter: str = "/") -> list[str]:
        """What a listing shows."""
        page = await self.store.list_page(prefix, delimiter=delimiter)
        return [info.key for info in page.objects] + list(page.prefixes)


def test_a_listing_does_not_wait_for_deletions_and_does_not_show_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        server = _Server(monkeypatch, "a/1", "a/2", "b/1", "b/2")
        server.remove("a/1", "a/2", "b/1")
        with trio.fail_after(30):
            assert await server.names("b/") == ["b/2"]
            assert await server.names("", "") == ["b/2"]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.store.settle_deletions)
                await trio.testing.wait_all_tasks_blocked()
                assert await server.names("b/") == ["b/2"], "while they are being deleted, too"
                server.may_delete.set()
        assert server.asked == ["list b/", "list ", "delete 3", "list b/"]

    trio.run(test)


def test_a_directory_of_which_all_may_be_gone_is_asked_for_when_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        server = _Server(monkeypatch, "a/1", "a/2", "b/1")
        server.may_delete.set()
        server.remove("a/1", "a/2")
        assert await server.names("") == ["b/"]
        assert server.asked == ["list ", "delete 2", "list "]

    trio.run(test)


def test_what_is_deleted_or_refused_while_a_listing_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        server = _Server(monkeypatch, "a/1", "a/2", "a/3")
        server.may_delete.set()
        server.refused = {"a/2"}
        server.remove("a/1", "a/2")
        server.during = server.store.settle_deletions
        assert await server.names("a/") == ["a/2", "a/3"]
        assert sorted(failure.code if failure else "" for failure in server.told) == ["", "AccessDenied"]

    trio.run(test)


def test_whole_requests_go_while_the_rest_is_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        server = _Server(monkeypatch)
        server.may_delete.set()
        server.remove(*[f"k{n}" for n in range(2 * AT_ONCE + 10)])
        await server.store.settle_deletions(full=True)
        assert server.asked == ["delete 1000", "delete 1000"]
        assert server.store.promised_deletions == 10

    trio.run(test)
