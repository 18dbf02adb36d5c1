"""Gathered deletions: each is made or refused once, and kept while that cannot be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from zosfs.errors import StoreError
from zosfs.store.api import StoreFailure
from zosfs.store.gathering import AT_ONCE, Gathered


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
