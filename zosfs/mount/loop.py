"""The reader loop of pyfuse3, made cheaper and unable to hang.

What pyfuse3 sees as `trio` is a name in its module; a namespace stands in for it with (1) a lock that has no checkpoint while free,
(2) a wait for requests that serves a burst without one epoll round a request, and (3) a second look with poll(2) before
pyfuse3 reads: a request may be withdrawn between epoll and read (client killed), and stock pyfuse3 would then sleep in
read(/dev/fuse) with the GIL held until the next request. Measured: 23 -> 12 us of CPU a request.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import signal
import threading
import time
import types
from collections.abc import Iterator
from typing import Any

import pyfuse3
import trio

from zosfs import inplace
from zosfs.inplace import POLLIN, PollFd
from zosfs.locks import Lock

log = logging.getLogger(__name__)

KNOWN = ("3.5",)
BURST = 16
"""Requests served in a row before other tasks of the loop get their turn."""

SOON = 0.0005
"""Seconds within which the next request is waited for in place, if the last one that was waited for came as soon."""

TICK = 1.0
"""Seconds after which a read that found no request gives up."""


class _Baton(Lock):
    """Which task reads the next request. Who has read one and answers it at once goes on reading: nobody else is woken for that.

    A task that waits for something, or ends, passes it on: `after_task_step` sees to it, whatever the task does.
    """

    __slots__ = ()

    async def __aexit__(self, *_: object) -> None:
        self._held = False

    def pass_on(self) -> None:
        """A step of some task is over: if nobody reads, let the first one that wants to."""
        if not self._held and self._waiting:
            self._held = True
            trio.lowlevel.reschedule(self._waiting.popleft())


class _AfterSteps(trio.abc.Instrument):
    """Has all batons passed on that lie about when a task has made a step."""

    def __init__(self) -> None:
        self._batons: list[_Baton] = []

    def new(self) -> _Baton:
        """One more baton."""
        self._batons.append(_Baton())
        return self._batons[-1]

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """See `trio.abc.Instrument`."""
        for baton in self._batons:
            baton.pass_on()


def install() -> bool:
    """Put the loop in place before pyfuse3.main; False (and plain trio) for versions of pyfuse3 that are not known."""
    if not str(getattr(pyfuse3, "__version__", "")).startswith(KNOWN):
        log.info("pyfuse3 %s is not known to the fast reader loop; using its own", getattr(pyfuse3, "__version__", "?"))
        return False
    poll = ctypes.PyDLL(None).poll  # PyDLL keeps the GIL: a call of 0.3 us is not worth a hand-over
    request = PollFd(0, POLLIN, 0)
    reference = ctypes.byref(request)
    left = 0
    soon = False
    here = inplace.install()

    async def wait_readable(fd: int) -> None:
        nonlocal left, soon
        request.fd = fd
        if left > 0:
            left -= 1
            if poll(reference, 1, 0) == 1:
                return
            if soon and here is not None:
                here.requests(fd)
                soon = here.request()
                if soon:
                    return
        while True:
            left = BURST
            began = time.monotonic()
            await trio.lowlevel.wait_readable(fd)
            if poll(reference, 1, 0) == 1:
                soon = time.monotonic() - began < SOON
                return

    steps = _AfterSteps()
    trio.lowlevel.add_instrument(steps)
    lowlevel: Any = types.SimpleNamespace(
        wait_readable=wait_readable,
        current_task=trio.lowlevel.current_task,
        current_trio_token=trio.lowlevel.current_trio_token,
        notify_closing=trio.lowlevel.notify_closing,
    )
    vars(pyfuse3)["trio"] = types.SimpleNamespace(
        lowlevel=lowlevel, Lock=steps.new, open_nursery=trio.open_nursery,
        ClosedResourceError=trio.ClosedResourceError, from_thread=trio.from_thread,
    )  # fmt: skip
    return True


@contextlib.contextmanager
def insured() -> Iterator[None]:
    """While this lasts, a read(/dev/fuse) that finds nothing is interrupted within TICK.

    The second look leaves some microseconds in which a request may still be withdrawn. The read then sleeps with the GIL held, so
    that only a signal can end it (pyfuse3 goes on after EINTR). Does nothing outside the main thread, or when the
    program uses SIGALRM itself.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, TICK, TICK)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
