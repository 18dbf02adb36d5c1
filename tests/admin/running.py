"""The commands as a person runs them, against a server; and the same in this process, where not the start of Python is tried."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from tests.fs.mounting import ROOT, clean_environment
from tests.servers.server import Server
from zosfs.cli.main import main

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def command(server: Server) -> Command:
    """Runs `zosfs WORDS…` with the connection to *server* (*at*: to another one; *plain*: with none) and checks the exit *status*."""

    def run(
        *words: str | Path, status: int = 0, stdin: str = "", at: Server = server, plain: bool = False, timeout: float = 180
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


def inside(server: Server | None = None) -> Command:
    """As `command`, but in this process."""

    def run(*words: str | Path, status: int = 0, stdin: str = "", plain: bool = False) -> subprocess.CompletedProcess[str]:
        more = {"ZOSFS_CONFIG": os.devnull, "COLUMNS": "120"}
        if server is not None:
            more |= {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
            more |= {} if plain else {"ZOSFS_URL": server.url}
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
        with (
            mock.patch.dict(os.environ, {**clean_environment(), **more}, clear=True), mock.patch("sys.stdin", io.StringIO(stdin)),
            contextlib.redirect_stdout(out), contextlib.redirect_stderr(err),
        ):  # fmt: skip
            try:
                ended = main([str(word) for word in words])
            except SystemExit as exc:
                ended = int(exc.code or 0)
        said, complained = (stream.buffer.getvalue().decode() for stream in (out, err))  # type: ignore[attr-defined]
        assert ended == status, f"{words}: {said}\n{complained}"
        return subprocess.CompletedProcess(list(map(str, words)), ended, said, complained)

    return run
