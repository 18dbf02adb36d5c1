"""Files written by zosfs are what s3fs-fuse reads, and the other way round: attributes, links, directories, xattrs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fs.mounting import Mount, is_mounted, passwd_file, wait_for
from tests.fs.running import facts, plant, run

pytestmark = pytest.mark.skipif(not shutil.which("s3fs"), reason="Debian's s3fs is not installed")


@pytest.fixture
def s3fs(tmp_path: Path, bucket: str, server: Any) -> Iterator[Callable[[], Path]]:
    """A function that mounts the test's bucket with s3fs and returns the directory; unmounted at the end."""
    home = tmp_path / "s3fs"
    home.mkdir()
    started: list[tuple[Path, subprocess.Popen[bytes]]] = []

    def start() -> Path:
        path = home / f"m{len(started)}"
        path.mkdir()
        words = f"url={server.url},passwd_file={passwd_file(home, server)},use_path_request_style,use_xattr,complement_stat"
        log = (home / "log").open("ab")
        daemon = subprocess.Popen(["s3fs", bucket, path, "-f", "-o", words], stdout=log, stderr=log)
        log.close()
        started.append((path, daemon))
        wait_for(lambda: is_mounted(path), 20, "the s3fs mount")
        return path

    yield start
    for path, daemon in started:
        subprocess.run(["umount", str(path)], check=False)
        daemon.wait(30)


def test_s3fs_reads_what_zosfs_wrote(mount: Callable[..., Mount], s3fs: Callable[[], Path], tmp_path: Path) -> None:
    source = plant(tmp_path / "source", 15)
    living = mount()
    run("cp", "-a", source, living.path / "t")
    os.chown(living.path / "t" / "empty", 1000, 1001)
    os.setxattr(living.path / "t" / "empty", "user.word", b"value")
    os.mkfifo(living.path / "t" / "fifo")
    living.again()  # that a directory's entries changed is not stored with it
    want = facts(living.path)
    living.stop()
    there = s3fs()
    assert facts(there) == want
    assert os.getxattr(there / "t" / "empty", "user.word") == b"value"


def test_zosfs_reads_what_s3fs_wrote(
    mount: Callable[..., Mount], s3fs: Callable[[], Path], tmp_path: Path, server: Any
) -> None:
    source = plant(tmp_path / "source", 15)
    there = s3fs()
    # s3fs cannot set times of directories on SeaweedFS and says so
    run("cp", "-a", source, there / "t", ok=(0,) if server.kind == "rgw" else (0, 1))
    os.chown(there / "t" / "empty", 1000, 1001)
    os.setxattr(there / "t" / "empty", "user.word", b"value")
    want = facts(there)
    living = mount()
    assert facts(living.path) == want
    assert os.getxattr(living.path / "t" / "empty", "user.word") == b"value"
