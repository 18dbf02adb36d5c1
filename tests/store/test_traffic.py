"""When a server is taken to be silent, and what is said of it."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from zosfs.store.traffic import AGAIN, QUIET, Traffic, tell


class Clock:
    """The time, as a test has it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_silence_begins_with_the_first_request_that_has_no_answer() -> None:
    clock = Clock()
    traffic = Traffic(443, clock)
    clock.now += 60
    assert traffic.waiting() is None, "who is asked nothing says nothing"
    traffic.asked("h")
    clock.now += 5
    traffic.asked("h")
    found = traffic.waiting()
    assert found is not None
    assert (found.requests, found.host, found.seconds) == (2, "h:443", 5.0)
    traffic.moved()
    traffic.done("h")
    clock.now += 3
    found = traffic.waiting()
    assert found is not None
    assert (found.requests, found.seconds) == (1, 3.0), "of the other nothing was heard since"
    traffic.done("h")
    assert traffic.waiting() is None


def test_what_is_asked_again_waits_since_the_first_time() -> None:
    clock = Clock()
    traffic = Traffic(443, clock)
    traffic.asked("h")
    clock.now += 60
    traffic.done("h")
    clock.now += AGAIN - 1
    traffic.asked("h")
    found = traffic.waiting()
    assert found is not None
    assert found.seconds == 60 + AGAIN - 1
    traffic.done("h")
    clock.now += AGAIN + 1
    traffic.asked("h")
    found = traffic.waiting()
    assert found is not None
    assert found.seconds == 0, "nobody asked for so long"


def test_of_several_hosts_the_one_that_most_wait_for_is_named() -> None:
    traffic = Traffic(443)
    for host in ("a", "b", "b"):
        traffic.asked(host)
    found = traffic.waiting()
    assert found is not None
    assert (found.requests, found.host) == (3, "b:443")


def test_one_line_when_it_falls_silent_and_one_when_it_speaks_again(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        traffic = Traffic(443, trio.current_time)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tell, traffic)
            await trio.sleep(100)
            for _ in range(3):
                traffic.asked("h")
                await trio.sleep(QUIET - 1)
                traffic.moved()
                traffic.done("h")
            await trio.sleep(100)
            assert not caplog.messages
            for again in range(2):
                traffic.asked("h")
                traffic.asked("h")
                await trio.sleep(QUIET + 0.5)
                assert caplog.messages[again * 2 :] == ["h:443 has said nothing for 10 s; requests that wait for it: 2"]
                await trio.sleep(1000)
                traffic.done("h")
                await trio.sleep(5)
                traffic.asked("h")
                assert len(caplog.messages) == again * 2 + 1
                traffic.moved()
                traffic.done("h")
                traffic.done("h")
                await trio.sleep(2)
                assert caplog.messages[again * 2 + 1 :] == ["h:443 speaks again, after 1016 s"]
                await trio.sleep(100)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
