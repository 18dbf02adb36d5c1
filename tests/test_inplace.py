"""Waits in place: they end with what they wait for, and keep nobody else waiting."""

from __future__ import annotations

import os
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest
import trio
import trio.testing

from zosfs import eagerness, inplace

Main = Callable[[inplace.InPlace], Awaitable[None]]


class Turns(trio.abc.Instrument):
    """Counts the turns of the loop."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


def run(main: Main) -> None:
    async def whole() -> None:
        here = inplace.install()
        assert here is not None, "this trio keeps its epoll descriptor elsewhere"
        await trio.testing.wait_all_tasks_blocked()  # what was scheduled before it counted is over
        await main(here)

    trio.run(whole)


@pytest.fixture
def bell() -> Iterator[int]:
    fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    yield fd
    os.close(fd)


def test_what_a_thread_does_is_waited_for_without_a_turn(bell: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main(here: inplace.InPlace) -> None:
        turns = Turns()
        trio.lowlevel.add_instrument(turns)
        os.eventfd_write(bell, 1)
        assert inplace.readable(bell)
        os.eventfd_read(bell)
        assert not inplace.readable(bell), "nothing came"
        monkeypatch.setattr(inplace, "MOST", 60_000)  # however busy the machine is
        ringing = threading.Thread(target=lambda: os.eventfd_write(bell, 1))
        ringing.start()
        assert inplace.readable(bell)
        ringing.join()
        assert turns.count == 0

    run(main)


def test_nobody_who_could_go_on_is_kept_waiting(bell: int) -> None:
    async def main(here: inplace.InPlace) -> None:
        os.eventfd_write(bell, 1)
        ended: list[bool] = []

        async def other() -> None:
            ended.append(inplace.readable(bell))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            assert not inplace.readable(bell), "the other has not begun"
            nursery.start_soon(other)
        assert ended == [False, True], "the one that ran first had the other behind it"
        await trio.testing.wait_all_tasks_blocked()
        assert inplace.readable(bell)

    run(main)


def test_what_wakes_the_loop_ends_the_wait(bell: int) -> None:
    async def main(here: inplace.InPlace) -> None:
        called = trio.Event()
        token = trio.lowlevel.current_trio_token()
        token.run_sync_soon(called.set)
        assert not inplace.readable(bell)
        assert not called.is_set(), "that takes a turn"
        await called.wait()

    run(main)


def test_a_request_of_the_kernel_ends_the_wait_for_something_else(bell: int) -> None:
    async def main(here: inplace.InPlace) -> None:
        reader, writer = os.pipe()
        try:
            here.requests(reader)
            os.write(writer, b"x")
            assert not here.readable(bell)
            assert here.request()
            os.eventfd_write(bell, 1)
            assert here.readable(bell), "what is waited for is there, too"
        finally:
            os.close(reader)
            os.close(writer)

    run(main)


def test_after_some_waits_the_loop_makes_a_turn(bell: int) -> None:
    async def main(here: inplace.InPlace) -> None:
        os.eventfd_write(bell, 1)
        assert [inplace.readable(bell) for _ in range(inplace.IN_A_ROW + 2)] == [True] * inplace.IN_A_ROW + [False] * 2
        await trio.testing.wait_all_tasks_blocked()
        assert inplace.readable(bell)

    run(main)


def test_who_waits_long_sleeps(bell: int) -> None:
    async def main(here: inplace.InPlace) -> None:
        for _ in range(2):
            await trio.sleep(4 * eagerness.SHORT)  # both longer than it stays awake
        assert not here.eagerness.awake()
        for _ in range(3):
            assert not inplace.readable(bell), "nothing came"  # for a millisecond
            assert not here.eagerness.awake()

    run(main)


def test_who_finds_what_it_waits_for_stays_awake(bell: int) -> None:
    async def main(here: inplace.InPlace) -> None:
        await trio.sleep(4 * eagerness.SHORT)
        os.eventfd_write(bell, 1)
        for _ in range(inplace.IN_A_ROW):
            assert inplace.readable(bell)  # comes at once: what it slept for was short
        assert here.eagerness.awake()

    run(main)


def test_where_nothing_is_installed_nothing_is_waited_for(bell: int) -> None:
    async def main() -> None:
        os.eventfd_write(bell, 1)
        assert not inplace.readable(bell)

    trio.run(main)
