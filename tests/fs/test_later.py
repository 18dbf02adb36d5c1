"""Deliveries to come: one entry a file, so many at once, again where that may help, and nobody is held for ever."""

from __future__ import annotations

import errno
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from zosfs.errors import StoreError
from zosfs.fs.later import AT_ONCE, FEW, GIVE_WAY, QUIET, Later, at_once


def file(name: str) -> Any:
    return SimpleNamespace(waits=False, failed=None, users=0, dirty=True, inode=SimpleNamespace(key=name, unlinked=False), tries=0)


def let_go(each: Any) -> None:
    each.users -= 1
    assert each.users >= 0


def run(main: Callable[[], Any]) -> None:
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_each_is_delivered_after_its_delay_and_only_so_many_at_once() -> None:
    async def main() -> None:
        at_once = most = 0
        times: list[float] = []

        async def deliver(each: Any) -> None:
            nonlocal at_once, most
            times.append(trio.current_time())
            at_once += 1
            most = max(most, at_once)
            await trio.sleep(0.1)
            at_once -= 1
            each.dirty = False

        async with trio.open_nursery() as nursery:
            later = Later(nursery, deliver, let_go)
            began = trio.current_time()
            files = [file(str(number)) for number in range(5 * AT_ONCE)]
            for each in files:
                later.add(each, 5.0)
                later.add(each, 5.0)
                assert each.users == 1, "one entry a file"
        assert len(times) == len(files)
        assert min(times) == began + 5
        assert most == AT_ONCE
        assert not any(each.users or each.dirty or each.waits for each in files)

    run(main)


@given(st.floats(-10, 10), st.floats(0, 10), st.booleans())
def test_who_writes_is_given_way_for_a_while_and_never_when_there_is_no_room(overdue: float, since_last: float, pressed: bool) -> None:
    most = at_once(overdue, since_last, pressed)
    assert most in (FEW, AT_ONCE)
    assert FEW >= 1, "something always goes on"
    if pressed or overdue >= GIVE_WAY or since_last >= QUIET:
        assert most == AT_ONCE
    if not pressed and since_last == 0 and overdue <= 0:
        assert most == FEW


@pytest.mark.parametrize("pressed", [False, True])
@pytest.mark.parametrize("delay", [0.0, 1.0])
def test_while_promises_come_one_after_the_other_few_go_up_but_none_waits_for_long(delay: float, pressed: bool) -> None:
    async def main() -> None:
        under_way: list[tuple[float, int]] = []
        late: list[float] = []
        promised: dict[Any, float] = {}
        last = running = 0.0

        async def deliver(each: Any) -> None:
            nonlocal running
            running += 1
            now = trio.current_time()
            under_way.append((now, int(running)))
            late.append(now - promised[each.inode.key] - delay)
            await trio.sleep(0.15)
            running -= 1
            each.dirty = False

        async with trio.open_nursery() as nursery:
            later = Later(nursery, deliver, let_go, lambda: pressed)
            began = trio.current_time()
            for number in range(500):
                promised[str(number)] = last = trio.current_time()
                later.add(file(str(number)), delay)
                await trio.sleep(0.02)
        assert len(late) == 500
        giving_way = [running for at, running in under_way if at < min(last, began + delay + GIVE_WAY)]
        assert giving_way
        assert max(giving_way) == (FEW if not pressed else max(running for _, running in under_way))
        # FEW at once keep up with 13 a second, 50 come
        assert max(late) <= (GIVE_WAY + 1 if not pressed else 0.1)
        assert max(running for _, running in under_way) > FEW

    run(main)


def test_a_trickle_is_delivered_as_it_comes() -> None:
    async def main() -> None:
        late: list[float] = []
        promised: dict[Any, float] = {}

        async def deliver(each: Any) -> None:
            late.append(trio.current_time() - promised[each.inode.key] - 5)
            await trio.sleep(0.05)
            each.dirty = False

        async with trio.open_nursery() as nursery:
            later = Later(nursery, deliver, let_go)
            for number in range(300):
                promised[str(number)] = trio.current_time()
                later.add(file(str(number)), 5.0)
                await trio.sleep(QUIET / 2)
        assert len(late) == 300
        assert max(late) < 0.1

    run(main)


def test_one_that_is_written_again_while_it_goes_up_waits_anew() -> None:
    async def main() -> None:
        tries = 0
        one = file("k")

        async def deliver(each: Any) -> None:
            nonlocal tries
            tries += 1
            if tries == 1:
                later.add(each, 5.0)
            each.dirty = tries == 1

        async with trio.open_nursery() as nursery:
            later = Later(nursery, deliver, let_go)
            later.add(one, 5.0)
        assert tries == 2
        assert one.users == 0

    run(main)


def test_what_fails_is_tried_again_and_what_is_refused_is_not() -> None:
    async def main() -> None:
        busy, refused, gone = file("busy"), file("refused"), file("gone")
        times: list[float] = []

        async def deliver(each: Any) -> None:
            each.tries += 1
            if each is refused:
                raise StoreError("AccessDenied", status=403, operation="write", key="refused")
            assert each is busy
            times.append(trio.current_time())
            if each.tries < 4:
                raise OSError(errno.EIO, "not yet")
            each.dirty = False

        async with trio.open_nursery() as nursery:
            later = Later(nursery, deliver, let_go)
            began = trio.current_time()
            for each in (busy, refused, gone):
                later.add(each, 2.0)
            gone.inode.unlinked = True
        assert [round(at - began, 3) for at in times] == [2, 3, 8, 23]
        assert (refused.tries, gone.tries) == (1, 0)
        assert (busy.users, refused.users, gone.users) == (0, 0, 0)

    run(main)


@pytest.mark.parametrize("closes", [1, 3, 50])
def test_one_that_fails_at_each_close_is_tried_again_once(closes: int) -> None:
    """And after the last of them as soon as one that failed only then."""

    async def main() -> None:
        one = file("k")
        times: list[float] = []

        async def deliver(each: Any) -> None:
            times.append(trio.current_time() - began)
            await trio.sleep(0.25)
            if len(times) < 6:
                raise OSError(errno.EIO, "not yet")
            each.dirty = False

        async with trio.open_nursery() as nursery:
            later = Later(nursery, deliver, let_go)
            began = trio.current_time()
            for _ in range(closes):
                later.again(one)
                assert one.users == 1, "one task a file"
            await trio.sleep(10)
            later.again(one)
            await trio.sleep(1.1)
            later.again(one)  # while it is being tried
        assert [round(at, 3) for at in times] == [1, 6.25, 11, 12.25, 17.5, 32.75]
        assert (one.users, one.failed) == (0, None)

    run(main)


def test_one_that_fails_at_a_close_beside_its_last_try_is_tried_again() -> None:
    async def main() -> None:
        one = file("k")
        tries = 0

        async def deliver(each: Any) -> None:
            nonlocal tries
            tries += 1
            if tries == 1:
                later.again(each)  # a close that waited for this try meets what may help to try again
                raise StoreError("AccessDenied", status=403, operation="write", key="k")
            each.dirty = False

        async with trio.open_nursery() as nursery:
            later = Later(nursery, deliver, let_go)
            later.again(one)
        assert (tries, one.users) == (2, 0)

    run(main)


def test_the_end_of_the_mount_lets_go_of_all() -> None:
    async def main() -> None:
        async def deliver(each: Any) -> None:
            raise AssertionError

        files = [file(str(number)) for number in range(5)]
        async with trio.open_nursery() as nursery:
            later = Later(nursery, deliver, let_go)
            for each in files:
                later.add(each, 3600.0)
                later.again(each)
            await trio.sleep(0.5)
            nursery.cancel_scope.cancel()
        assert not any(each.users for each in files)

    run(main)
