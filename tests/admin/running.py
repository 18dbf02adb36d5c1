"""The commands as a person runs them, against a server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.fs.mounting import ROOT, clean_environment
from tests.servers.server import Server

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def command(server: Server) -> Command:
    """Runs `zosfs WORDS…` with the connection to *server* (*at*: to another one; *plain*: with none) and checks the exit *status*."""

    def run(
        *words: str | Path, status: int = 0, stdin: str = "", at: Server = server, plain: bool = False, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        keys = {"AWS_ACCESS_KEY_ID": at.access_key, "AWS_SECRET_ACCESS_KEY": at.secret_key}
        where = {} if plain else {"ZOSFS_URL": at.url}
        done = subprocess.run(
            [sys.executable, "-m", "zosfs", *map(str, words)], cwd=ROOT, input=stdin, capture_output=True, text=True,
            env={**clean_environment(), **keys, **where, "ZOSFS_CONFIG": os.devnull}, timeout=timeout, check=False,
        )  # fmt: skip
        assert done.returncode == status, f"{words}: {done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return run
