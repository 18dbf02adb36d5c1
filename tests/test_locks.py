"""The lock that costs nothing while it is free: exclusive, in order, and never lost by who is cancelled."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing

from zosfs.locks import Lock


def test_a_free_lock_is_taken_without_giving_way() -> None:
    async def main() -> None:
        lock = Lock()
        with trio.testing.assert_no_checkpoints():
            async with lock:
                assert lock.locked()
        assert not lock.locked()

    trio.run(main)


def test_first_come_first_served_and_one_at_a_time() -> None:
    async def main() -> None:
        lock = Lock()
        order: list[int] = []
        inside = 0

        async def one(number: int) -> None:
            nonlocal inside
            async with lock:
                inside += 1
                assert inside == 1
                order.append(number)
                await trio.lowlevel.checkpoint()
                inside -= 1

        async with trio.open_nursery() as nursery, lock:
            for number in range(10):
                nursery.start_soon(one, number)
                await trio.testing.wait_all_tasks_blocked()
        assert order == list(range(10))
        assert not lock.locked()

    trio.run(main)


@pytest.mark.parametrize("seed", range(20))
def test_whoever_is_cancelled_takes_nobodys_turn(seed: int) -> None:
    async def main() -> None:
        chance = random.Random(seed)
        lock = Lock()
        inside = done = 0

        async def one(scope: trio.CancelScope) -> None:
            nonlocal inside, done
            with scope:
                async with lock:
                    assert not inside
                    inside += 1
                    try:
                        await trio.lowlevel.checkpoint()
                    finally:
                        inside -= 1
                    done += 1

        scopes = [trio.CancelScope() for _ in range(30)]
        async with trio.open_nursery() as nursery:
            for scope in scopes:
                nursery.start_soon(one, scope)
                if chance.random() < 0.5:
                    await trio.lowlevel.checkpoint()
                if chance.random() < 0.5:
                    chance.choice(scopes).cancel()
        assert not lock.locked()
        assert done >= sum(not scope.cancel_called for scope in scopes)

    trio.run(main)
