"""Files written by zosfs are what s3fs-fuse reads, and the other way round: attributes, links, directories, xattrs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fs.mounting import Mount, is_mounted, passwd_file, wait_for
from tests.fs.running import facts, plant, run

DIRECTORY = re.compile(r" 4\d{4} \d+:\d+ ")

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


def traded(root: Path, server: Any) -> list[str]:
    """What both tools must agree about; on SeaweedFS not directories, with whose objects it keeps no metadata."""
    lines = facts(root)
    return lines if server.kind == "rgw" else [line for line in lines if not DIRECTORY.search(line)]


def test_s3fs_reads_what_zosfs_wrote(
    mount: Callable[..., Mount], s3fs: Callable[[], Path], tmp_path: Path, server: Any
) -> None:
    source = plant(tmp_path / "source", 15)
    living = mount()
    run("cp", "-a", source, living.path / "t")
    os.chown(living.path / "t" / "empty", 1000, 1001)
    os.setxattr(living.path / "t" / "empty", "user.word", b"value")
    os.mkfifo(living.path / "t" / "fifo")
    living.again()  # that a directory's entries changed is not stored with it
    want = traded(living.path, server)
    living.stop()
    there = s3fs()
    assert traded(there, server) == want
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
    want = traded(there, server)
    living = mount()
    assert traded(living.path, server) == want
    assert os.getxattr(living.path / "t" / "empty", "user.word") == b"value"
