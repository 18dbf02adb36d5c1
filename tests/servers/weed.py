"""A SeaweedFS with its S3 door on loopback, that of the demonstration: the second server, so that nothing is tuned to one."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.servers.server import Server
from zosfs.demo.server import ServerFailed, Weed

ACCESS, SECRET = "zosak", "zossk"
TRIES = 3


@contextlib.contextmanager
def running_weed(directory: Path) -> Iterator[Server]:
    """A server with its data below *directory*, which is gone afterwards. One that does not start is tried again."""
    with contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, directory, ignore_errors=True)
        for left in reversed(range(TRIES)):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
            weed = Weed(directory, access_key=ACCESS, secret_key=SECRET, volume_mb=1024, volumes=1000)
            try:
                undo.enter_context(weed)
                break
            except ServerFailed as failure:
                print(failure, file=sys.stderr)
                if not left:
                    raise
        yield Server(weed.url, ACCESS, SECRET, "weed")
