"""No server outlives the tests that started it, whatever ends them."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fs.mounting import ROOT, wait_for

DIRECTLY = """
import sys, pathlib
from tests.servers.rgw import running_rgw
with running_rgw(pathlib.Path(sys.argv[1])):
    input()
"""
BESIDE = """
import sys, pathlib
from tests.servers.beside import Beside
beside = Beside("KIND", pathlib.Path(sys.argv[1]))
input()
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A short path that is in the command line or the environment of every program of a server."""
    directory = Path("/tmp") / f"zosfs-life-{uuid.uuid4().hex[:8]}"
    yield directory
    for pid, _ in programs(directory):
        subprocess.run(["kill", "-KILL", pid], check=False)
    subprocess.run(["rm", "-rf", directory], check=True)


def programs(home: Path) -> list[tuple[str, str]]:
    """Process id and name of whatever runs for the server of *home*."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(home).encode() in (process / "cmdline").read_bytes() + (process / "environ").read_bytes():
                found.append((process.name, (process / "comm").read_text().strip()))
        except OSError:  # it has ended meanwhile
            pass
    return found


@pytest.mark.parametrize(
    ("script", "daemons", "data"),
    [
        pytest.param(DIRECTLY, {"ceph-mon", "ceph-osd"}, True, marks=pytest.mark.long),
        (BESIDE.replace("KIND", "rgw"), {"ceph-mon", "ceph-osd"}, False),
        (BESIDE.replace("KIND", "weed"), {"weed"}, False),
    ],
    ids=["daemons", "beside-rgw", "beside-weed"],
)
def test_servers_end_with_who_started_them(home: Path, script: str, daemons: set[str], data: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", script, str(home)], cwd=ROOT, stdin=subprocess.PIPE) as starter:
        wait_for(lambda: starter.poll() is not None or daemons <= {name for _, name in programs(home)}, 120, "the first daemons")
        assert starter.poll() is None
        starter.kill()
    wait_for(lambda: not programs(home), 60, "the end of all of its programs")
    assert home.exists() == data
