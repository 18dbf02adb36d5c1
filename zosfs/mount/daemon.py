"""Into the background, and back only with the truth: the parent exits 0 when the mount is live, else with one line.

Owns: the fork and the pipe that tells of readiness. Must not import trio, pyfuse3 or boto3: no thread, epoll or socket may
cross the fork. The child leaves the caller's session only when the kernel has the mount, because systemd lets a mount helper
through its automount point by its process group; leaving earlier deadlocks the automount.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from zosfs.mount.refusal import FAILED, line_of

Live = Callable[[], None]
Body = Callable[[Live], int]
"""Mounts and serves until the end: calls *live* once the mount answers, returns the exit status, raises what went wrong."""

PATIENCE = 14.0
"""Seconds until a mount that is not live is given up; the rest of 15 is for taking it back."""


def say(line: str, program: str = "zosfs") -> None:
    """One line on stderr; a closed stderr is no error."""
    try:
        print(f"{program}: {line}", file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass


def run_in_front(body: Body, program: str = "zosfs") -> int:
    """Run *body* here. Returns its status, or says one line and returns the status that belongs to it."""
    try:
        return body(lambda: None)
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        line, code = line_of(error)
        say(line, program)
        return code


def run_behind(body: Body, take_back: Callable[[], None], *, program: str = "zosfs", patience: float = PATIENCE) -> int:
    """Run *body* in a background process and return 0 as soon as it is live; it goes on without us.

    Otherwise says one line and returns its status; after *patience* seconds the process is ended and *take_back*
    removes what it may have left mounted.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _child(body, writing)
    os.close(writing)
    answer, late = _read(reading, time.monotonic() + patience)
    os.close(reading)
    if late:
        _end(child)
        take_back()
        say(f"the mount was not live after {patience:.0f} s; the log says more", program)
        return FAILED
    if answer == b"OK":
        return 0
    code, line = FAILED, ""
    try:
        code, line = json.loads(answer)
    except ValueError:
        _, status = os.waitpid(child, 0)
        how = f"by {signal.Signals(os.WTERMSIG(status)).name}" if os.WIFSIGNALED(status) else f"with status {status >> 8}"
        line = f"the background process ended {how} before the mount was live; the log says more"
        take_back()
    else:
        _end(child, grace=2.0, ask=False)
    say(line, program)
    return code


def _read(reading: int, deadline: float) -> tuple[bytes, bool]:
    answer = b""
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([reading], [], [], left)[0]:
            break
        piece = os.read(reading, 65536)
        if not piece:
            return answer, False
        answer += piece
        if answer == b"OK":
            return answer, False
    return answer, True


def _end(child: int, grace: float = 0.7, *, ask: bool = True) -> None:
    """End *child* within about *grace* seconds, asking first."""
    if ask:
        os.kill(child, signal.SIGTERM)
    deadline = time.monotonic() + grace
    handle = os.pidfd_open(child)
    try:
        if not select.select([handle], [], [], max(0.0, deadline - time.monotonic()))[0]:
            os.kill(child, signal.SIGKILL)
    finally:
        os.close(handle)
    os.waitpid(child, 0)


def _child(body: Body, writing: int) -> NoReturn:
    os.closerange(3, writing)
    os.closerange(writing + 1, os.sysconf("SC_OPEN_MAX") if os.sysconf("SC_OPEN_MAX") > 0 else 65536)
    open_pipe = True

    def tell(text: bytes) -> None:
        nonlocal open_pipe
        if open_pipe:
            open_pipe = False
            try:
                os.write(writing, text)
            except OSError as error:  # the parent gave up or was killed
                if error.errno != errno.EPIPE:
                    raise
            os.close(writing)

    def live() -> None:
        leave_session()
        tell(b"OK")

    code = FAILED
    try:
        code = body(live)
        tell(json.dumps([code or FAILED, "unmounted before it was live"]).encode())
    except BaseException as error:
        line, code = line_of(error)
        tell(json.dumps([code, line]).encode())
    finally:
        os._exit(code)


def leave_session() -> None:
    """Become a daemon for good: own session, root directory, no terminal. Call it when the kernel has the mount."""
    try:
        os.setsid()
    except OSError:
        pass  # already a leader
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    if null > 2:
        os.close(null)
