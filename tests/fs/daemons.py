"""Daemons that start at once: forked, as `python -m zosfs` would start them, by a process that has read Python's files already.

Those of a mount are half a second of a processor to read, for each of some five hundred mounts. ``python -m tests.fs.daemons`` is that
process: it has no threads, does nothing but fork, and ends when nobody holds the other end of its socket any more.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("zosfs.cli.mount", "zosfs.mount.mount", "zosfs.mount.notify")
_LARGEST = 1 << 18
_CHILD = {signal.SIGCHLD}


class Daemon:
    """A process as subprocess.Popen has one; *words* are those of `zosfs`, *log* gets what it prints."""

    def __init__(self, words: Sequence[str], env: dict[str, str], log: int) -> None:
        self.returncode: int | None = None
        self._ended, writing = os.pipe()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            socket.send_fds(_starter(), [json.dumps([list(words), env]).encode()], [log, writing, theirs.fileno()])
            os.close(writing)
            theirs.close()
            self.pid = int(ours.recv(20))

    def poll(self) -> int | None:
        """Its status if it has ended, the negative number of the signal that ended it, or None."""
        if self.returncode is None and select.select([self._ended], [], [], 0)[0]:
            self._take()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its status once it ends; subprocess.TimeoutExpired after *timeout* seconds."""
        if self.returncode is None:
            if not select.select([self._ended], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("zosfs", timeout or 0)
            self._take()
        assert self.returncode is not None
        return self.returncode

    def _take(self) -> None:
        self.returncode = int(os.read(self._ended, 20))
        os.close(self._ended)

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


@cache
def _starter() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _LARGEST)
    subprocess.Popen([sys.executable, "-m", "tests.fs.daemons"], cwd=ROOT, stdin=theirs, stdout=subprocess.DEVNULL, start_new_session=True)
    theirs.close()
    return ours


def _serve(requests: socket.socket) -> list[str]:
    """Fork for each of *requests*, until nobody can make one; returns in each child, with the words that it is to run."""
    living: dict[int, int] = {}  # where the end of each is told, by its number

    def ended(*_: object) -> None:
        while living:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            os.write(living[pid], b"%d" % os.waitstatus_to_exitcode(status))
            os.close(living.pop(pid))

    usual = signal.signal(signal.SIGCHLD, ended)
    while True:
        message, files, _, _ = socket.recv_fds(requests, _LARGEST, 3)
        if not message:
            os._exit(0)
        log, tell, answer = files
        words, env = json.loads(message)
        signal.pthread_sigmask(signal.SIG_BLOCK, _CHILD)
        pid = os.fork()
        if not pid:
            break
        living[pid] = tell
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _CHILD)
        os.write(answer, b"%d" % pid)
        os.close(answer)
        os.close(log)
    signal.signal(signal.SIGCHLD, usual)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _CHILD)
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for end in (*living.values(), tell, answer, requests.detach()):
        os.close(end)
    for file, name in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(file, name)
    os.close(nothing)
    os.close(log)
    os.environ.clear()
    os.environ.update(env)
    assert isinstance(words, list)
    return words


if __name__ == "__main__":
    for module in MODULES:
        importlib.import_module(module)
    with socket.socket(fileno=os.dup(0)) as _requests:
        _words = _serve(_requests)
    from zosfs.cli.main import main

    sys.argv[0] = "zosfs"
    sys.exit(main(_words))
