"""The runtime files: whom they may speak of, and what a stranger's file cannot do."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from zosfs.mount import registry


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "run"
    monkeypatch.setenv("ZOSFS_RUNTIME_DIR", str(directory))
    monkeypatch.setattr("zosfs.places.runtime_dirs", lambda: (directory,))
    return directory


def test_an_entry_is_found_until_it_is_removed(runtime: Path) -> None:
    entry = registry.entry_for("b:/p", "/mnt/x", options={"ro": True})
    registry.write(entry)
    assert (runtime.stat().st_mode & 0o777, Path(entry.path).stat().st_mode & 0o777) == (0o700, 0o600)
    (found,) = registry.find("/mnt/x")
    assert (found.pid, found.source, found.options, found.alive, found.owner) == (
        os.getpid(), "b:/p", {"ro": True}, True, os.geteuid(),
    )  # fmt: skip
    assert not registry.find("/mnt/y")
    registry.remove(found)
    assert not registry.entries()


def test_a_pid_used_again_is_no_mount(runtime: Path) -> None:
    entry = registry.entry_for("b", "/mnt/x")
    entry.born -= 1
    registry.write(entry)
    assert not registry.entries()
    assert not list(runtime.iterdir())


def test_what_was_left_is_kept_until_the_next_mount_of_the_source(runtime: Path) -> None:
    entry = registry.entry_for("b", "/mnt/x")
    entry.born, entry.undelivered = 1, "why"
    registry.write(entry)
    assert not registry.entries()
    assert [left.undelivered for left in registry.ended()] == ["why"]
    registry.forget_ended("other")
    assert registry.ended()
    registry.forget_ended("b")
    assert not registry.ended()


def test_nothing_is_left_where_the_cache_directory_is_gone(runtime: Path, tmp_path: Path) -> None:
    entry = registry.entry_for("b", "/mnt/x", cache_dir=str(tmp_path / "cache"))
    entry.born, entry.undelivered = 1, "why"
    registry.write(entry)
    assert registry.ended() == []
    (tmp_path / "cache").mkdir()
    assert [left.undelivered for left in registry.ended()] == ["why"]


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"pid": "x"}', "\xff", '{"pid": 1, "born": 2}'])
def test_what_is_no_entry_is_passed_over(runtime: Path, text: str) -> None:
    runtime.mkdir()
    (runtime / "1.json").write_text(text, "latin-1")
    assert registry.entries() == []
    assert registry.ended() == []


def test_strange_files_neither_hang_nor_lead_elsewhere(runtime: Path, tmp_path: Path) -> None:
    runtime.mkdir()
    os.mkfifo(runtime / "1.json")
    (tmp_path / "victim.json").write_text("{}")
    (runtime / "2.json").symlink_to(tmp_path / "victim.json")
    (runtime / "3.json").write_text("[" * (1 << 17))
    (runtime / "4.json").mkdir()
    assert registry.entries() == []
    assert (tmp_path / "victim.json").exists()


def test_a_linked_directory_is_not_looked_into(runtime: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    registry.write(registry.entry_for("b", "/mnt/x"), elsewhere)
    runtime.symlink_to(elsewhere)
    assert registry.entries() == []
    assert list(elsewhere.iterdir())
    with pytest.raises(OSError, match=r"exists|someone else"):
        registry.write(registry.entry_for("b", "/mnt/x"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_a_strangers_file_cannot_name_our_processes_nor_be_removed(runtime: Path) -> None:
    entry = registry.entry_for("b", "/mnt/x\x1b[31m")
    registry.write(entry)
    os.chown(entry.path, 12345, 12345)
    assert registry.entries() == []
    raw = json.loads(Path(entry.path).read_text())
    raw["undelivered"], raw["born"], raw["pid"] = "text\x1b]0;x", 1, 1 << 22
    Path(entry.path).write_text(json.dumps(raw))
    (left,) = registry.ended()
    assert (left.undelivered, left.mountpoint) == ("text]0;x", "/mnt/x[31m")
    registry.remove(left)
    assert Path(entry.path).exists()
