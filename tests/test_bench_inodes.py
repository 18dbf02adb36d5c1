"""`python -m bench.inodes` runs, and names take no more memory than a million of them may: 600 MiB."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.results import load

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("words", [[], ["--posix"]])
def test_a_name_takes_its_share_of_memory(words: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.inodes", "--directories", "50", "--files", "1000", "--output", tmp_path, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (written,) = tmp_path.glob("*.json")
    (told,) = load(written.read_text()).facts["inodes"].values()
    assert told["names"] == 50_050
    assert told["bytes"] / told["names"] <= 600 * (1 << 20) / 1_000_000
