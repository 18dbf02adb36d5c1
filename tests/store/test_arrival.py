"""Bytes on their way, counted by one thread and told to another: told when wanted, in order, and never of a wrong answer."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Mapping

import pytest
import trio

from zosfs.errors import StoreError
from zosfs.store.api import ObjectInfo
from zosfs.store.arrival import Arrival

INFO = ObjectInfo("k", 100, "e", 0)


def good(status: int, headers: Mapping[str, str]) -> ObjectInfo:
    return INFO


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        with trio.fail_after(60):
            await test()

    trio.run(limited)


def in_a_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


async def settled() -> None:
    """What a thread has handed over so far has run."""
    done = trio.Event()
    trio.lowlevel.current_trio_token().run_sync_soon(done.set)
    await done.wait()


def test_what_is_wanted_is_told_once_it_is_there() -> None:
    async def test() -> None:
        told: list[int] = []
        arrival = Arrival(lambda info, n: told.append(n))
        arrival.expect(0, good)
        arrival.want(50)

        def receive() -> None:
            arrival.begins(206, {})
            for n in (10, 40, 60, 80):
                arrival.count(n)

        in_a_thread(receive)
        await settled()
        assert told == [80], "nobody waited for the others"
        arrival.want(70)
        assert told == [80, 80], "they are here already"
        arrival.want(81)
        assert told == [80, 80]

    run(test)


def test_an_answer_that_breaks_off_is_gone_on_with() -> None:
    async def test() -> None:
        told: list[int] = []
        arrival = Arrival(lambda info, n: told.append(n))
        arrival.want(30)
        arrival.expect(0, good)
        arrival.begins(206, {})
        in_a_thread(lambda: arrival.count(20))
        arrival.expect(20, good)
        assert told == [20], "what came of it is good, whatever comes of the rest"
        arrival.begins(206, {})
        in_a_thread(lambda: arrival.count(15))
        await settled()
        assert told == [20, 35]

    run(test)


@pytest.mark.parametrize("failure", [StoreError("BadAnswer"), ValueError("a number that is none")])
def test_nothing_is_told_of_a_wrong_answer(failure: Exception) -> None:
    async def test() -> None:
        def bad(status: int, headers: Mapping[str, str]) -> ObjectInfo:
            judged.append(status)
            raise failure

        judged: list[int] = []
        told: list[int] = []
        arrival = Arrival(lambda info, n: told.append(n))
        arrival.want(1)
        arrival.expect(0, bad)
        arrival.begins(206, {})
        in_a_thread(lambda: arrival.count(20))
        await settled()
        arrival.want(10)
        assert told == []
        assert judged == [206], "an answer is judged once"

    run(test)


def test_the_receiver_outlives_the_loop() -> None:
    arrivals: list[Arrival] = []

    async def test() -> None:
        arrival = Arrival(lambda info, n: None)
        arrival.expect(0, good)
        arrival.want(1)
        arrivals.append(arrival)
        await trio.lowlevel.checkpoint()

    run(test)
    arrivals[0].begins(206, {})
    arrivals[0].count(20)
