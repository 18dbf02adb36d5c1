"""`zosfs warmup` and `zosfs cache`: reads without the network, also after a remount, and what is not delivered stays."""

from __future__ import annotations

import errno
import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.fs.mounting import ROOT, Mount, zosfs
from tests.fs.running import noise
from tests.proxy import Proxy, answer
from zosfs.cli.warmup import FIRST, MOST, next_piece

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
        os.getxattr(living.path / "d" / "large", "user.zos.warm.everything")
    assert caught.value.errno == errno.EINVAL


def held(*paths: Any) -> list[int]:
    """Of each file, how many bytes are in the cache."""
    return [row["bytes"] for row in json.loads(zosfs("cache", "stat", "--json", *paths).stdout)]


def test_what_does_not_fit_drives_nothing_out(mount: Mounting, bucket: str, s3: Any) -> None:
    for n in range(6):
        s3.put_object(Bucket=bucket, Key=f"d/f{n}", Body=noise(MIB, n) * 16)
    s3.put_object(Bucket=bucket, Key="large", Body=noise(MIB) * 65)
    living = mount(cache_size="64M")
    files = [living.path / "d" / f"f{n}" for n in range(6)]
    with living.moved() as growth:
        done = zosfs("warmup", files[0], *files)
    why = "the cache has no room for it (mount options cache_size and free_space)"
    assert (done.returncode, done.stdout) == (1, "4 files are in the cache\n")
    assert done.stderr == "".join(f"zosfs: {file}: {why}\n" for file in files[4:])
    assert held(*files) == [16 * MIB] * 4 + [0] * 2
    assert growth["bytes_received"] < 65 * MIB, "what does not fit is not fetched"
    with living.moved() as growth:
        done = zosfs("warmup", living.path / "large")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"zosfs: {living.path}/large: {why}\n")
    assert growth["bytes_received"] < MIB
    assert held(*files[:4]) == [16 * MIB] * 4


def test_what_others_drive_out_is_not_said_to_be_there(mount: Mounting, bucket: str, s3: Any) -> None:
    for n in range(3):
        s3.put_object(Bucket=bucket, Key=f"d/f{n}", Body=noise(MIB, n) * 16)
    living = mount(cache_size="64M", writeback="1h")
    (living.path / "promised").write_bytes(noise(MIB) * 40)
    files = [living.path / "d" / f"f{n}" for n in range(3)]
    done = zosfs("warmup", "--jobs", "1", *files)
    assert done.returncode == 1
    whole = [size == 16 * MIB for size in held(*files)]
    assert done.stdout == f"{sum(whole)} files are in the cache\n"
    assert [str(file) in done.stderr for file in files] == [not there for there in whole]


def test_a_mount_that_is_read_only_is_warmed_up_and_evicted(mount: Mounting, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="d/f", Body=noise(3 * MIB))
    living = mount(ro=True)
    done = zosfs("warmup", living.path / "d" / "f")
    assert (done.returncode, done.stdout) == (0, "1 files are in the cache\n"), done.stderr
    assert held(living.path / "d" / "f") == [3 * MIB]
    with living.requests() as spent:
        assert (living.path / "d" / "f").read_bytes() == noise(3 * MIB)
    assert set(spent) <= {"head"}
    assert zosfs("cache", "evict", living.path / "d").returncode == 0
    assert held(living.path / "d" / "f") == [0]


def test_a_warmup_goes_on_past_what_cannot_be_reached(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    for key in ("a/1", "a/2", "b/1", "c/1", "c/2"):
        s3.put_object(Bucket=bucket, Key=f"d/{key}", Body=b"some bytes")
    living = mount(url=proxy.url)

    def refuse(method: str, target: str) -> bytes | None:
        if "d%2Fb%2F" in target or target.partition("?")[0].endswith("/d/c/1"):
            return answer(403, "AccessDenied", "Forbidden")
        return None

    proxy.intercept = refuse
    done = zosfs("warmup", "--recursive", living.path / "d")
    proxy.intercept = None
    assert (done.returncode, done.stdout) == (1, "3 files are in the cache\n"), done.stderr
    complaints = sorted(done.stderr.splitlines())
    assert [line.split(": ")[1] for line in complaints] == [f"{living.path}/d/b", f"{living.path}/d/c/1"]
    assert held(*(living.path / "d" / name for name in ("a/1", "a/2", "c/2"))) == [10] * 3


def test_an_interrupted_warmup_ends_with_the_piece_under_way(mount: Mounting, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="large", Body=noise(MIB) * 40)
    living = mount()
    # the first piece interrupts, as Ctrl-C would; it is let through when the command has noticed
    patched = (
        "import os, signal, sys, time\n"
        "from zosfs.cli import main, warmup\n"
        "warmup.FIRST = 1 << 20\n"
        "real = os.getxattr\n"
        "def once(path, name):\n"
        "    if '.warm.' not in name:\n"
        "        return real(path, name)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    warmup.interrupted.wait(60)\n"
        "    real(path, name)\n"
        "    print(name.rpartition('.')[2])\n"
        "os.getxattr = once\n"
        "sys.exit(main.main(['warmup', sys.argv[1]]))\n"
    )
    words = [sys.executable, "-c", patched, living.path / "large"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "0-1048576\n", "zosfs: interrupted\n")


def test_on_a_terminal_the_progress_is_shown(mount: Mounting, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="large", Body=noise(MIB) * 40)
    living = mount()
    shown, terminal = pty.openpty()
    said = bytearray()

    def look() -> None:
        try:
            while piece := os.read(shown, 65536):
                said.extend(piece)
        except OSError:
            pass  # the other end is closed

    looking = threading.Thread(target=look)
    looking.start()
    words = [sys.executable, "-m", "zosfs", "warmup", living.path / "large"]
    done = subprocess.run(
        words, cwd=ROOT, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
        stdout=subprocess.PIPE, stderr=terminal, timeout=180, check=False,
    )  # fmt: skip
    os.close(terminal)
    looking.join()
    os.close(shown)
    assert (done.returncode, done.stdout) == (0, b"1 files are in the cache\n")
    assert b"warming up" in said
    assert b"41.9/41.9 MB" in said


@pytest.mark.parametrize("rate", [30_000, 300_000, 3_000_000, 3_000_000_000])
def test_pieces_fit_the_way_to_the_server(rate: float) -> None:
    """Four files at once share the way: no piece takes so long that it would be given up, nor does Ctrl-C wait long for one."""
    piece, seconds = FIRST, []
    for _ in range(20):
        seconds.append(4 * piece / rate)
        piece = next_piece(piece, seconds[-1])
    assert max(seconds) < 300
    assert max(seconds[5:]) < 150
    assert piece == MOST or seconds[-1] > 0.5


def test_the_cache_commands_without_a_mount(tmp_path: Any) -> None:
    done = zosfs("cache", "evict", tmp_path)
    assert done.returncode == 1
    assert "does not lie in a mount of zosfs" in done.stderr
