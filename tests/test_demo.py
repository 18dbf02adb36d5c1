"""`zosfs demo`: the tour goes well, Ctrl-C undoes all, and what cannot be is said in one line."""

from __future__ import annotations

import os
import pty
import select
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.fs.mounting import ROOT, clean_environment, is_mounted, wait_for, zosfs
from zosfs.demo import server


def environment(tmp_path: Path) -> dict[str, str]:
    """With a home of its own, so that what is left over can be seen."""
    return {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "cache")}


def test_the_tour(tmp_path: Path) -> None:
    point = tmp_path / "new" / "demo"
    done = zosfs("demo", point, env=environment(tmp_path), timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "$ ls -l\n" in done.stdout
    assert "the tour went well" in done.stdout
    assert not is_mounted(point)
    assert not (tmp_path / "new").exists(), "directories that the demo made are gone"


def test_interrupt_undoes_all(tmp_path: Path) -> None:
    """On a terminal it stays until somebody types Ctrl-C, which every process of the foreground gets."""
    point = tmp_path / "demo"
    child, terminal = pty.fork()
    if not child:
        os.chdir(ROOT)
        os.execve(
            sys.executable, [sys.executable, "-m", "zosfs", "demo", str(point)], {**clean_environment(), **environment(tmp_path)}
        )
    said = bytearray()

    def hears(words: bytes) -> bool:
        while select.select([terminal], [], [], 0)[0]:
            try:
                said.extend(os.read(terminal, 65536))
            except OSError:  # the other end is closed
                break
        return words in said

    status = None
    try:
        wait_for(lambda: hears(b"Ctrl-C"), 180, "the demo to be up")
        assert is_mounted(point)
        assert "mounted as a directory" in (point / "readme.txt").read_text()
        (point / "mine").write_text("x")
        os.write(terminal, b"\x03")
        wait_for(lambda: hears(b"undone"), 60, "the demo to undo all")
        _, status = os.waitpid(child, 0)
    finally:
        if status is None:
            os.kill(child, signal.SIGTERM)
            os.waitpid(child, 0)
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0, said.decode()
    assert not is_mounted(point)
    assert not point.exists()


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = zosfs("demo", tmp_path, env=environment(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("zosfs: ")
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "file").exists()


def test_the_server_takes_other_ports_when_one_is_taken_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = server.free_ports
        tries: list[list[int]] = []

        def ports(count: int) -> list[int]:
            tries.append(free(count))
            if len(tries) == 1:
                tries[0][-1] = taken.getsockname()[1]
            return tries[-1]

        monkeypatch.setattr(server, "free_ports", ports)
        with server.Weed(tmp_path) as weed:
            assert weed.url == f"http://127.0.0.1:{tries[1][-1]}"
    assert len(tries) == 2


def test_the_server_leaves_nothing_behind(tmp_path: Path) -> None:
    def sockets() -> list[Path]:
        return [path for port in weed.ports for path in server.SOCKETS.glob(f"seaweedfs-*-{port + 10_000}.sock")]

    with server.Weed(tmp_path) as weed:
        assert sockets(), "SeaweedFS makes them elsewhere by now: who removes them there?"
        assert list(tmp_path.glob("weed*.log*"))
    assert not sockets()
