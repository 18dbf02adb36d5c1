"""The lines that mount(8) and umount(8) hand to the helpers, and what `zosfs install` puts into place."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from zosfs.config import Options
from zosfs.config_values import OptionError
from zosfs.mount import mount8
from zosfs.mount.install import HELPERS, install, uninstall, unit_text, wrapper_text

ROOT = Path(__file__).resolve().parents[2]


class Started:
    """Stands for `zosfs.mount.start.start` and remembers the call."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, str, Options, dict[str, Any]]] = []

    def __call__(self, source: Any, directory: str, options: Options, **more: Any) -> int:
        self.calls.append((source, directory, options, more))
        return 0


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    started = Started()
    monkeypatch.setattr("zosfs.mount.start.start", started)
    monkeypatch.setenv("ZOSFS_CONFIG", os.devnull)
    monkeypatch.delenv("INVOCATION_ID", raising=False)
    return started


def mount(*argv: str) -> int:
    return mount8.main(["/sbin/mount.fuse.zosfs", *argv])


def test_a_line_as_mount8_makes_it(started: Started) -> None:
    assert mount("b:/p", "/mnt/x", "-n", "-o", "rw,noexec,nosuid,_netdev,nofail,url=http://h,uid=5", "-t", "fuse.zosfs") == 0
    ((source, directory, options, more),) = started.calls
    assert (source.bucket, source.prefix, source.text, directory) == ("b", "p/", "b:/p", "/mnt/x")
    assert (options.url, options.uid, options.kernel_flags) == ("http://h", 5, "noexec,nosuid")
    assert more == {"program": "mount.fuse.zosfs"}


def test_flags_may_come_first_and_last(started: Started) -> None:
    assert mount("-v", "b", "/m", "-o", "rw", "-r") == 0
    assert started.calls[0][2].ro
    assert mount("-o", "rw", "b", "/m") == 0


def test_fake_mounts_nothing_but_checks(started: Started, capsys: pytest.CaptureFixture[str]) -> None:
    assert mount("b", "/m", "-f", "-o", "rw") == 0
    assert not started.calls
    assert mount("b", "/m", "-f", "-o", "regoin=x") == 1
    assert capsys.readouterr().err == "mount.fuse.zosfs: unknown option regoin; did you mean region?\n"


def test_sloppy_forgives_unknown_options(started: Started, capsys: pytest.CaptureFixture[str]) -> None:
    assert mount("b", "/m", "-s", "-o", "rw,regoin=x,region=y") == 0
    assert started.calls[0][2].region == "y"
    assert "ignored: unknown option regoin" in capsys.readouterr().err


def test_a_bucket_that_mount8_took_for_a_directory(
    started: Started, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir("/")
    assert mount("/root", "/m", "-o", "rw") == 0
    assert started.calls[0][0].text == "root"
    assert "write root:" in capsys.readouterr().err


def test_under_systemd_a_missing_netdev_is_warned_of(
    started: Started, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("INVOCATION_ID", "1")
    assert mount("b", "/m", "-o", "rw,_netdev") == 0
    assert capsys.readouterr().err == ""
    assert mount("b", "/m", "-o", "rw") == 0
    assert "_netdev" in capsys.readouterr().err


def test_remount_is_left_to_the_kernel(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Sequence[str]] = []

    def execv(path: str, argv: Sequence[str]) -> None:
        called.append(argv)
        raise SystemExit(0)

    monkeypatch.setattr(os, "execv", execv)
    with pytest.raises(SystemExit):
        mount("b", "/m", "-o", "ro,relatime,remount,user_id=0,group_id=0")
    assert called == [["mount", "-i", "-o", "ro,relatime,remount,user_id=0,group_id=0", "/m"]]


@pytest.mark.parametrize("argv", [(), ("b",), ("b", "/m", "/n"), ("b", "/m", "-q"), ("a b", "/m")])
def test_wrong_lines_exit_1(started: Started, argv: tuple[str, ...]) -> None:
    assert mount(*argv) == 1


def test_umounts_line() -> None:
    line = mount8.parse(["/mnt/x", "-n", "-l", "-f", "-v"])
    assert (line.operands, line.flags) == (["/mnt/x"], {"n", "l", "f", "v"})
    with pytest.raises(OptionError):
        mount8.parse(["-q"])
    assert mount8.main(["/sbin/umount.zosfs", "/proc/nothing-here"]) == 32
    assert mount8.main(["/sbin/umount.zosfs"]) == 1
    assert mount8.main(["other"]) == 1


def test_install_and_uninstall_below_a_root(tmp_path: Path) -> None:
    (tmp_path / "usr/sbin").mkdir(parents=True)
    (tmp_path / "sbin").symlink_to("usr/sbin")
    list(install(tmp_path, interpreter="/opt/z o/python3"))
    list(install(tmp_path, interpreter="/opt/z o/python3"))
    for name in HELPERS:
        assert os.readlink(tmp_path / "sbin" / name) == "/usr/lib/zosfs/zosfs"
    wrapper = tmp_path / "usr/lib/zosfs/zosfs"
    assert "'/opt/z o/python3'" in wrapper.read_text()
    assert os.access(wrapper, os.X_OK)
    assert (tmp_path / "etc/systemd/system/zosfs@.service").read_text() == unit_text()
    removed = list(uninstall(tmp_path))
    assert len(removed) == len(HELPERS) + 2
    assert not [path for path in tmp_path.rglob("*") if not path.is_dir()]


def test_install_refuses_to_replace_what_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "usr/sbin").mkdir(parents=True)
    (tmp_path / "usr/sbin/mount.zosfs").write_text("someone's")
    with pytest.raises(FileExistsError):
        list(install(tmp_path))
    list(uninstall(tmp_path))
    assert (tmp_path / "usr/sbin/mount.zosfs").read_text() == "someone's"


def test_the_wrapper_works_without_home_and_path(tmp_path: Path) -> None:
    wrapper = tmp_path / "zosfs"
    wrapper.write_text(wrapper_text(sys.executable, str(ROOT)))
    wrapper.chmod(0o755)
    (tmp_path / "mount.fuse.zosfs").symlink_to(wrapper)
    (tmp_path / "umount.zosfs").symlink_to(wrapper)

    def call(name: str, *argv: str) -> tuple[int, str]:
        done = subprocess.run([tmp_path / name, *argv], env={}, cwd="/", capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    assert call("zosfs", "--version") == (0, "zosfs 0.1.0\n")
    assert call("mount.fuse.zosfs", "b", "/m", "-f", "-o", "rw,nope=1")[0] == 1
    assert call("mount.fuse.zosfs", "b", "/m", "-f", "-o", "rw,_netdev,url=http://h") == (0, "")
    code, said = call("umount.zosfs", str(tmp_path))
    assert (code, said) == (32, f"umount.zosfs: {tmp_path} is not mounted\n")


def test_the_unit_is_well_formed(tmp_path: Path) -> None:
    if not os.access("/usr/bin/systemd-analyze", os.X_OK):
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "zosfs@b.service"
    unit.write_text(unit_text().replace("/usr/lib/zosfs/zosfs", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "zosfs@" not in done.stderr
    assert "mount namespace" in unit_text()
    for hides in ("PrivateTmp", "ProtectHome", "PrivateMounts", "ProtectKernel"):
        assert f"\n{hides}" not in unit_text()
