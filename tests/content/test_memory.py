"""The byte budget: fair, exact after cancellation, buffers never reused under somebody's eyes."""

from __future__ import annotations

import trio
import trio.testing

from zosfs.content.memory import KEPT, MemoryBudget, Slab, slab_size
from zosfs.counters import Counters

KIB = 1 << 10


def test_reservations_are_granted_in_order() -> None:
    async def main() -> list[str]:
        budget = MemoryBudget(100, Counters())
        await budget.reserve(90)
        order: list[str] = []

        async def want(name: str, n: int) -> None:
            await budget.reserve(n)
            order.append(name)
            budget.release(n)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(want, "large", 80)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(want, "small", 30)
            await trio.testing.wait_all_tasks_blocked()
            assert not budget.try_reserve(1), "whoever only would like to have bytes does not overtake"
            assert order == []
            budget.release(90)
        assert budget.used == 0
        return order

    assert trio.run(main) == ["large", "small"]


def test_cancelled_reservation_takes_nothing() -> None:
    async def main() -> None:
        budget = MemoryBudget(10, Counters())
        await budget.reserve(10)
        with trio.move_on_after(0.01):
            await budget.reserve(5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(budget.reserve, 6)
            await trio.testing.wait_all_tasks_blocked()
            budget.release(10)  # granted and cancelled before it runs
            nursery.cancel_scope.cancel()
        assert budget.used in (0, 6)
        budget.release(budget.used)
        assert budget.try_reserve(10)

    trio.run(main)


def test_more_than_everything_is_granted_alone() -> None:
    async def main() -> None:
        budget = MemoryBudget(10, Counters())
        await budget.reserve(50)
        assert not budget.try_reserve(1)
        budget.release(50)
        assert budget.try_reserve(10)

    trio.run(main)


def test_holders_are_asked_before_anybody_waits() -> None:
    async def main() -> None:
        budget = MemoryBudget(10, Counters())
        await budget.reserve(10)
        asked: list[int] = []

        def shrink(n: int) -> None:
            asked.append(n)
            budget.release(10)

        budget.shrink.append(shrink)
        with trio.fail_after(60):
            await budget.reserve(4)
        assert asked == [4]
        assert budget.used == 4

    trio.run(main)


def test_a_buffer_that_somebody_sees_is_not_reused() -> None:
    budget = MemoryBudget(1 << 30, Counters())
    slab = budget.slab(256 * KIB)
    slab.view[:4] = b"mine"
    seen = slab.view[:4]
    budget.give_back(slab)
    other = budget.slab(256 * KIB)
    other.view[:4] = b"your"
    assert bytes(seen) == b"mine"


def test_an_unseen_buffer_is_reused() -> None:
    budget = MemoryBudget(1 << 30, Counters())
    slab = budget.slab(200 * KIB)
    assert len(slab.view) == 200 * KIB
    assert slab.size == slab_size(200 * KIB) == 256 * KIB
    budget.give_back(slab)
    again = budget.slab(130 * KIB)
    assert again is slab
    assert len(again.view) == 130 * KIB


def test_small_buffers_are_exact() -> None:
    assert slab_size(4096) == 4096
    assert len(Slab(4096).view) == 4096


def test_a_buffer_that_was_still_seen_when_given_back_is_used_again_later() -> None:
    budget = MemoryBudget(64 << 20, Counters())
    slab = budget.slab(4 << 20)
    reply = slab.view[10:20]
    budget.give_back(slab)
    other = budget.slab(4 << 20)
    assert other is not slab, "somebody still reads the bytes of the first"
    reply.release()
    assert budget.slab(4 << 20) is slab


def test_buffers_of_a_size_that_is_not_wanted_any_more_make_room_for_others() -> None:
    budget = MemoryBudget(1 << 30, Counters())
    small = [budget.slab(1 << 20) for _ in range(KEPT >> 20)]
    seen = small[1].view[:1]
    for slab in small:
        budget.give_back(slab)
    large = budget.slab(8 << 20)
    budget.give_back(large)
    assert budget.slab(8 << 20) is large, "what was given back last is worth more than what nobody wanted since"
    left = [budget.slab(1 << 20) for _ in range(KEPT >> 20)]
    assert len(set(small) & set(left)) == (KEPT >> 20) - 8
    assert small[1] not in left
    assert bytes(seen) == b"\0"
    for slab in (large, *left):
        budget.give_back(slab)
    assert sum(slab.size for slab in budget._returned) == KEPT  # what is kept is bounded, whatever is given back
