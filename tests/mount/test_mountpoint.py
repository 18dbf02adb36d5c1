"""The checks before a mount, each with its line, and the reading of mountinfo."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from zosfs.mount.mountpoint import Mounted, mounted_on, parse_mountinfo, prepare, real_path
from zosfs.mount.refusal import Refusal, line_of, root_cause


def test_mountinfo_is_read_with_its_escapes() -> None:
    text = (
        "21 28 0:19 / /sys rw,nosuid - sysfs sysfs rw\n"
        "36 35 0:58 / /mnt/a\\040b\\134 rw,nosuid shared:1 master:2 - fuse.zosfs b\\040c:/\u65e5 rw,user_id=7,group_id=0\n"
        "broken\n"
    )
    assert parse_mountinfo(text) == [
        Mounted("/sys", "sysfs", "sysfs", "0:19"),
        Mounted("/mnt/a b\\", "fuse.zosfs", "b c:/\u65e5", "0:58", 7),
    ]
    assert mounted_on("/proc") is not None


def test_real_path_follows_links_but_not_into_what_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "link").symlink_to("dir")
    assert real_path(str(tmp_path / "link")) == str(tmp_path / "dir")
    assert real_path(str(tmp_path / "link" / ".." / "dir")) == str(tmp_path / "dir")
    assert real_path("/") == "/"


@pytest.mark.parametrize(("what", "line"), [("missing", "does not exist"), ("file", "not a directory"), ("full", "not empty")])
def test_each_refusal_is_a_line(tmp_path: Path, what: str, line: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(Refusal, match=line) as caught:
        prepare(str(tmp_path / what))
    assert caught.value.exit_code == 1
    assert prepare(str(tmp_path / "full"), nonempty=True) == str(tmp_path / "full")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a tmpfs")
def test_another_mount_is_mounted_over_when_it_is_empty(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "none", str(tmp_path)], check=True)
    try:
        assert prepare(str(tmp_path)) == str(tmp_path)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_the_line_is_that_of_the_refusal_in_a_group() -> None:
    group = BaseExceptionGroup("", [ValueError("x"), ExceptionGroup("", [OSError(5, "a"), Refusal("the way out", 1)])])
    assert line_of(group) == ("the way out", 1)
    assert isinstance(root_cause(ExceptionGroup("", [ValueError("x")])), ValueError)
    assert line_of(OSError(2, "No such file", "/x")) == ("/x: No such file", 32)
    assert line_of(ValueError("two\nlines")) == ("internal error: ValueError: two lines", 32)
