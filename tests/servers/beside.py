"""A server in a process beside the tests: started while they run, ended and its data removed when they end, however they end.

``python -m tests.servers.beside KIND DIRECTORY`` starts the server, prints where it is as a line of JSON, and ends it when nobody holds the
other end of its standard input any more, which the kernel sees to even when the tests are killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType

from tests.servers.rgw import running_rgw
from tests.servers.server import Server
from tests.servers.weed import running_weed

ROOT = Path(__file__).resolve().parents[2]
ENDS_WITHIN = 60.0


class Beside:
    """A server of *kind*, "rgw" or "weed", with its data below *directory*. Starts on construction, without waiting; ends with `stop`."""

    def __init__(self, kind: str, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.servers.beside", kind, str(directory)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self._server: Server | None = None

    @property
    def server(self) -> Server:
        """Where it is, once it answers; RuntimeError when it did not start, which it has told on standard error."""
        if self._server is None:
            assert self._process.stdout
            told = self._process.stdout.readline()
            if not told:
                raise RuntimeError(f"{self._process.args} did not start")
            self._server = Server(**json.loads(told))
        return self._server

    def stop(self) -> None:
        """End it, ready or not, and remove its data."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(ENDS_WITHIN)


def _run(kind: str, directory: str) -> None:
    asked = threading.Event()

    def end(signum: int, frame: FrameType | None) -> None:
        # once: what undoes a start that was broken off is not broken off itself
        if not asked.is_set():
            asked.set()
            raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)

    def watch() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    with contextlib.ExitStack() as undo:
        if kind == "rgw":
            server = undo.enter_context(running_rgw(Path(directory))).server
        else:
            server = undo.enter_context(running_weed(Path(directory)))
        print(json.dumps(dataclasses.asdict(server)), flush=True)
        asked.wait()


if __name__ == "__main__":
    _run(*sys.argv[1:3])
