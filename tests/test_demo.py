"""`zosfs demo`: the tour goes well, Ctrl-C undoes all, and what cannot be is said in one line."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

from tests.fs.mounting import ROOT, clean_environment, is_mounted, wait_for, zosfs


def environment(tmp_path: Path) -> dict[str, str]:
    """With a home of its own, so that what is left over can be seen."""
    return {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "cache")}


def test_the_tour(tmp_path: Path) -> None:
    point = tmp_path / "new" / "demo"
    done = zosfs("demo", point, env=environment(tmp_path), timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "$ ls -l\n" in done.stdout
    assert "the tour went well" in done.stdout
    assert not is_mounted(point)
    assert not (tmp_path / "new").exists(), "directories that the demo made are gone"


def test_interrupt_undoes_all(tmp_path: Path) -> None:
    point = tmp_path / "demo"
    ours, theirs = pty.openpty()
    with (tmp_path / "out").open("wb") as out:
        demo = subprocess.Popen(
            [sys.executable, "-m", "zosfs", "demo", point, "--stay"], cwd=ROOT, stdin=theirs, stdout=out, stderr=out,
            env={**clean_environment(), **environment(tmp_path)},
        )  # fmt: skip
    try:
        wait_for(lambda: demo.poll() is not None or b"Ctrl-C" in (tmp_path / "out").read_bytes(), 90, "the demo to be up")
        assert demo.poll() is None, (tmp_path / "out").read_text()
        assert is_mounted(point)
        assert "mounted as a directory" in (point / "readme.txt").read_text()
        (point / "mine").write_text("x")
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 0, (tmp_path / "out").read_text()
    finally:
        if demo.poll() is None:
            demo.terminate()
            demo.wait()
        os.close(ours)
        os.close(theirs)
    assert not is_mounted(point)
    assert not point.exists()
    assert "undone" in (tmp_path / "out").read_text()


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = zosfs("demo", tmp_path, env=environment(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("zosfs: ")
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "file").exists()
