"""What the CI does with tests that fail: a few may be tried again, those that guard data never."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fs.mounting import ROOT

PATTERNS = [line for line in (ROOT / ".ci" / "never-excused").read_text().splitlines() if not line.startswith("#")]


@pytest.mark.parametrize(
    ("failed", "excused"),
    [
        (["tests/fs/test_reading.py::test_a[rgw]"], True),
        (["tests/fs/test_reading.py::test_a[rgw]", "tests/mount/test_whole.py::test_hup_forgets_listings", "tests/test_demo.py::t"], True),
        ([f"tests/fs/test_reading.py::test_a[{n}]" for n in range(4)], False),
        (["tests/fs/test_reading.py::test_a[rgw]", "tests/fs/test_faults.py::test_killed_after_fsync[weed]"], False),
        (["tests/content/test_crash.py::test_killed_at_any_moment[2-store]"], False),
        (["tests/mount/test_whole.py::test_what_writeback_promised_is_delivered_at_the_end[SIGINT]"], False),
        (["tests/fs/test_faults.py"], False),
        ([], False),
    ],
)
def test_who_is_tried_again(tmp_path: Path, failed: list[str], excused: bool) -> None:
    record = tmp_path / "lastfailed"
    record.write_text(json.dumps(dict.fromkeys(failed, True)))
    done = subprocess.run([sys.executable, ROOT / ".ci" / "excusable", record], capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == excused
    assert bool(done.stderr) != excused


def test_nothing_is_excused_when_nothing_is_known(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, ROOT / ".ci" / "excusable", tmp_path / "none"], capture_output=True, check=False)
    assert done.returncode == 1


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_names_tests_that_are(pattern: str) -> None:
    path, _, name = pattern.partition("::")
    files = list(ROOT.glob(path.removesuffix("*") + ("*" if path.endswith("/*") else "")))
    assert files
    assert any(f"def {name.removesuffix('*')}" in file.read_text() for file in files if file.suffix == ".py")
