"""Short waits in place: the thread of the loop sleeps until something comes, and the task that waits goes on without a turn of the loop.

Owns: the count of tasks that could go on. A turn around a wait costs some 40 us of processor time (two changes of the epoll set, a task put
to sleep and woken), which is more than most requests from the kernel take to be answered. Nobody is kept waiting by a wait in place: it is
made only while no other task can go on, and ends with whatever would wake the loop, or after `MOST`. A deadline
may be late by as many as are made in a row, `IN_A_ROW` at most. Where what is waited for usually comes at once (`zosfs.eagerness`), the
thread stays awake for it, as long as nobody else needs the processor; the loop's own waits begin in the same way.
"""

from __future__ import annotations

import ctypes
from os import sched_yield
from time import perf_counter
from typing import Any

import trio

from zosfs.eagerness import AWAKE, Eagerness

MOST = 1
"""Milliseconds that one wait takes at most."""
IN_A_ROW = 16
"""Waits in place before the loop makes a turn all the same, for those whose deadline has come."""

NEEDED = 0.00002
"""Seconds after which sched_yield(2) returns that has let others run: alone on a processor it takes less than one microsecond."""

POLLIN = 1
_LOOP, _REQUESTS, _OTHER = range(3)


class PollFd(ctypes.Structure):
    """What poll(2) takes."""

    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


class InPlace(trio.abc.Instrument):
    """The waits in place of one run of trio, whose epoll descriptor is *loop*; to be added to it as an instrument."""

    def __init__(self, loop: int) -> None:
        self._watched = (PollFd * 3)(PollFd(loop, POLLIN), PollFd(-1, POLLIN), PollFd(-1, POLLIN))
        self._poll = ctypes.CDLL(None).poll  # gives the GIL away meanwhile
        self._fell_asleep = 0.0  # when the loop began to wait
        self._ready = 1  # tasks that could go on, the running one included
        self._left = IN_A_ROW
        self.eagerness = Eagerness()
        """Of all waits of this loop: they wait for the same programs and the same store."""

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        """See `trio.abc.Instrument`."""
        self._ready += 1

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """See `trio.abc.Instrument`."""
        if self._ready:  # what was scheduled before this began was not counted
            self._ready -= 1

    def before_io_wait(self, timeout: float) -> None:
        """See `trio.abc.Instrument`."""
        self._left = IN_A_ROW
        if timeout > 0:
            self._ready = 0
            if timeout > AWAKE:
                self._look(_LOOP)
            self._fell_asleep = perf_counter()

    def after_io_wait(self, timeout: float) -> None:
        """See `trio.abc.Instrument`."""
        if timeout > 0:
            self.eagerness.slept(perf_counter() - self._fell_asleep)

    def requests(self, fd: int) -> None:
        """Requests of the kernel come from *fd*: no wait goes on when there is one."""
        self._watched[_REQUESTS].fd = fd

    def request(self) -> bool:
        """Wait for a request; False when something else is to be done, or nothing comes."""
        return self._wait(_REQUESTS)

    def readable(self, fd: int, waits: int = 1) -> bool:
        """Wait until *fd* is readable, by at most *waits* waits; False when something else is to be done, or nothing comes."""
        self._watched[_OTHER].fd = fd
        return self._wait(_OTHER, waits)

    def _wait(self, which: int, waits: int = 1) -> bool:
        while self._ready <= 1 and self._left > 0 and waits > 0:
            self._left -= 1
            waits -= 1
            if not self._look(which):
                began = perf_counter()
                found = self._poll(self._watched, which + 1, MOST)
                self.eagerness.slept(perf_counter() - began)
                if found <= 0:
                    continue
            return bool(self._watched[which].revents)
        return False

    def _look(self, which: int) -> bool:
        """Stay awake for what is to come, if that is worth it; whether it came."""
        if not self.eagerness.awake():
            return False
        now = perf_counter()
        end = now + AWAKE
        while now < end:
            if self._poll(self._watched, which + 1, 0) > 0:
                self.eagerness.came()
                return True
            asked = perf_counter()
            sched_yield()
            now = perf_counter()
            if now - asked > NEEDED:
                break  # others run here: they do what is waited for, maybe
        self.eagerness.in_vain()
        return False


_here: trio.lowlevel.RunVar[InPlace | None] = trio.lowlevel.RunVar("waits in place", None)


def install() -> InPlace | None:
    """Have the current run of trio wait in place from now on; None where its epoll descriptor cannot be found."""
    from trio._core import _run

    try:
        runner: Any = _run.GLOBAL_RUN_CONTEXT.runner
        loop = runner.io_manager._epoll.fileno()
    except AttributeError:
        return None
    here = InPlace(loop)
    trio.lowlevel.add_instrument(here)
    _here.set(here)
    return here


def readable(fd: int, waits: int = 1) -> bool:
    """As `InPlace.readable` of the current run; False where it has none."""
    here = _here.get()
    return here is not None and here.readable(fd, waits)
