"""`zosfs warmup` and `zosfs cache`: reads without the network, also after a remount, and what is not delivered stays."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.fs.mounting import ROOT, Mount, zosfs
from tests.fs.running import noise

MIB = 1 << 20
Mounting = Callable[..., Mount]
pytestmark = pytest.mark.long_on("weed")


def drop_pages(living: Mount) -> None:
    """Make the kernel forget the mount's pages, so that reads reach the daemon."""
    for folder, _, names in os.walk(living.path):
        for name in names:
            fd = os.open(os.path.join(folder, name), os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def test_a_warm_file_is_read_without_the_network_even_after_a_remount(mount: Mounting, bucket: str, s3: Any) -> None:
    large = noise(MIB) * 40 + b"tail"
    s3.put_object(Bucket=bucket, Key="d/large", Body=large)
    for n in range(5):
        s3.put_object(Bucket=bucket, Key=f"d/e/small{n}", Body=b"small")
    living = mount()
    done = zosfs("warmup", "--recursive", living.path / "d")
    assert (done.returncode, done.stdout) == (0, "6 files are in the cache\n"), done.stderr
    shown = zosfs("cache", "stat", living.path / "d" / "large").stdout
    assert shown == f"{living.path}/d/large: {len(large)} of {len(large)} bytes\n"
    living.again()
    with living.requests() as spent:
        assert (living.path / "d" / "large").read_bytes() == large
        assert (living.path / "d" / "e" / "small3").read_bytes() == b"small"
    assert set(spent) <= {"head", "list"}
    with living.requests() as spent:
        assert zosfs("warmup", living.path / "d" / "large").returncode == 0
    assert set(spent) <= {"head"}, "what is there is not fetched again"


def test_evicted_is_fetched_again_and_the_undelivered_stays(mount: Mounting, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="d/f", Body=noise(3 * MIB))
    living = mount(writeback="1h")
    assert zosfs("warmup", living.path / "d" / "f").returncode == 0
    (living.path / "d" / "promised").write_bytes(b"not in the store yet")
    rows = json.loads(zosfs("cache", "stat", "--json", living.path).stdout)
    assert [(row["bucket"], row["files"], row["bytes"]) for row in rows] == [(bucket, 1, 3 * MIB)]
    assert zosfs("cache", "evict", living.path).returncode == 0
    rows = json.loads(zosfs("cache", "stat", "--json", living.path).stdout)
    assert [(row["files"], row["bytes"]) for row in rows] == [(0, 0)]
    drop_pages(living)
    with living.requests() as spent:
        assert (living.path / "d" / "f").read_bytes() == noise(3 * MIB)
    assert spent["get"] >= 1
    assert (living.path / "d" / "promised").read_bytes() == b"not in the store yet"
    living.stop()
    assert s3.get_object(Bucket=bucket, Key="d/promised")["Body"].read() == b"not in the store yet"


def test_small_files_share_one_on_the_local_disk_and_give_it_back(mount: Mounting, bucket: str, s3: Any) -> None:
    bodies = {f"f{n:02}": f"{n}".encode() * (n * 100 + 1) for n in range(60)}
    for name, body in bodies.items():
        s3.put_object(Bucket=bucket, Key=f"d/{name}", Body=body)
    living = mount()
    assert {name: (living.path / "d" / name).read_bytes() for name in bodies} == bodies
    assert zosfs("warmup", "--recursive", living.path / "d").returncode == 0
    (row,) = json.loads(zosfs("cache", "stat", "--json", living.path).stdout)
    assert (row["files"], row["bytes"]) == (60, sum(map(len, bodies.values())))
    (pack,) = living.cache_dir.glob("**/chunks/files/*/*")
    living.again()
    with living.requests() as spent:
        assert {name: (living.path / "d" / name).read_bytes() for name in bodies} == bodies
    assert set(spent) <= {"head", "list"}
    (living.path / "d" / "f30").write_bytes(b"another")
    drop_pages(living)
    assert {name: (living.path / "d" / name).read_bytes() for name in bodies} == bodies | {"f30": b"another"}
    assert pack.stat().st_blocks
    assert zosfs("cache", "evict", living.path).returncode == 0
    assert not pack.exists(), "it is of the last run, and nothing is left of it"
    drop_pages(living)
    assert {name: (living.path / "d" / name).read_bytes() for name in bodies} == bodies | {"f30": b"another"}


def test_what_cannot_be_warmed_up_says_why(mount: Mounting, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="d/large", Body=noise(MIB) * 80)
    living = mount(cache_size="64M")
    living.forgive("chunk cache")
    done = zosfs("warmup", living.path / "d" / "large")
    assert done.returncode == 1
    assert done.stderr == f"zosfs: {living.path}/d/large: the cache has no room for it (mount options cache_size and free_space)\n"
    done = zosfs("warmup", living.path / "d", living.path / "missing", "/etc/passwd")
    assert done.returncode == 1
    assert "is a directory (--recursive takes all files below it)" in done.stderr
    assert "missing: No such file or directory" in done.stderr
    assert "/etc/passwd does not lie in a mount of zosfs" in done.stderr
    with pytest.raises(OSError, match="Invalid") as caught:
        os.setxattr(living.path / "d" / "large", "user.zos.warm", b"everything")
    assert caught.value.errno == errno.EINVAL


def test_an_interrupted_warmup_ends_with_the_piece_under_way(mount: Mounting, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="large", Body=noise(MIB) * 40)
    living = mount()
    # the first piece interrupts, as Ctrl-C would; it is let through when the command has noticed
    patched = (
        "import os, signal, sys, time\n"
        "from zosfs.cli import main, warmup\n"
        "warmup.PIECE = 1 << 20\n"
        "real = os.setxattr\n"
        "def once(path, name, value):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    warmup.interrupted.wait(60)\n"
        "    real(path, name, value)\n"
        "    print(value.decode())\n"
        "os.setxattr = once\n"
        "sys.exit(main.main(['warmup', sys.argv[1]]))\n"
    )
    words = [sys.executable, "-c", patched, living.path / "large"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "0-1048576\n", "zosfs: interrupted\n")


def test_the_cache_commands_without_a_mount(tmp_path: Any) -> None:
    done = zosfs("cache", "evict", tmp_path)
    assert done.returncode == 1
    assert "does not lie in a mount of zosfs" in done.stderr
