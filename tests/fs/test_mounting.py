"""Mounting and unmounting: in the background, by signals, and every way it can fail, each with one readable line."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fs.mounting import Mount, Server, clean_environment, is_mounted, passwd_file, wait_for, zosfs
from tests.proxy import Proxy, answer


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Path]:
    """A mount point that is free again afterwards."""
    path = tmp_path / "m"
    path.mkdir()
    yield path
    if is_mounted(path):
        subprocess.run(["umount", str(path)], check=True)


def options(tmp_path: Path, server: Server, **more: str) -> str:
    """The -o value for the server."""
    words = {"url": server.url, "passwd_file": str(passwd_file(tmp_path, server)), "cache_dir": str(tmp_path / "cache"), **more}
    return ",".join(f"{name}={value}" if value else name for name, value in words.items())


def fails(source: str, point: Path, words: str, *, says: str, prefix: tuple[str, ...] = ()) -> str:
    """Check that mounting fails soon, with one line that contains *says*, and leaves nothing mounted.

    Soon is 15 s for zosfs; what is measured here has the time that a busy machine takes to start it in it.
    """
    start = time.monotonic()
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "zosfs", source, str(point), "-o", words],
        env=clean_environment(), capture_output=True, text=True, timeout=180, check=False,
        cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    assert time.monotonic() - start < 45
    assert done.returncode != 0
    assert done.stdout == ""
    line = done.stderr
    assert line.startswith("zosfs: "), line
    assert line.count("\n") == 1, line
    assert says.lower() in line.lower(), line
    assert not is_mounted(point)
    return line


@pytest.mark.long_on("weed")
def test_background_is_the_default(point: Path, tmp_path: Path, server: Any, bucket: str, s3: Any) -> None:
    done = zosfs(bucket, point, "-o", options(tmp_path, server, log_file=str(tmp_path / "log")))
    assert (done.returncode, done.stderr) == (0, "")
    assert is_mounted(point)
    (point / "f").write_text("written")
    done = zosfs("umount", point)
    assert done.returncode == 0, done.stderr
    assert not is_mounted(point)
    assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"written"
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log
    assert server.secret_key not in log


@pytest.mark.long_on("weed")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_deliver_and_end(mount: Callable[..., Mount], bucket: str, s3: Any, number: signal.Signals) -> None:
    living = mount()
    (living.path / "f").write_bytes(b"x" * 100_000)
    living.process.send_signal(number)
    assert living.process.wait(180) == 0
    wait_for(lambda: not is_mounted(living.path), 5, "the mount to go")
    assert s3.head_object(Bucket=bucket, Key="f")["ContentLength"] == 100_000


def test_an_unknown_option_names_the_nearest(point: Path, tmp_path: Path, rgw: Any) -> None:
    fails("any", point, options(tmp_path, rgw, metadata_tl="1"), says="metadata_ttl")


def test_no_such_bucket(point: Path, tmp_path: Path, server: Any) -> None:
    fails("zosfs-no-such-bucket", point, options(tmp_path, server), says="bucket")


def test_credentials_refused(point: Path, tmp_path: Path, server: Any, bucket: str) -> None:
    words = options(tmp_path, server)
    for pair in (f"{server.access_key}:wrong-secret", f"nobody:{server.secret_key}"):
        (tmp_path / "passwd").write_text(pair)
        line = fails(bucket, point, words, says="")
        assert server.secret_key not in line
        assert "wrong-secret" not in line


def test_credentials_that_others_can_read(point: Path, tmp_path: Path, rgw: Any) -> None:
    words = options(tmp_path, rgw)
    (tmp_path / "passwd").chmod(0o644)
    fails("any", point, words, says="passwd")


def test_credentials_missing(point: Path, tmp_path: Path, rgw: Any) -> None:
    fails("any", point, f"url={rgw.url},passwd_file={tmp_path}/none", says="none")


def test_endpoint_unreachable(point: Path, tmp_path: Path, rgw: Any) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        fails("any", point, options(tmp_path, rgw, url=url), says=url.removeprefix("http://"))
    fails("any", point, options(tmp_path, rgw, url="http://zosfs.invalid"), says="zosfs.invalid")


def test_clock_skew(point: Path, tmp_path: Path, rgw: Any) -> None:
    with Proxy(rgw.url) as proxy:
        proxy.intercept = lambda method, target: answer(403, "RequestTimeTooSkewed", "Forbidden")
        fails("any", point, options(tmp_path, rgw, url=proxy.url), says="clock")


def test_mount_point_missing_or_no_directory(tmp_path: Path, rgw: Any) -> None:
    fails("any", tmp_path / "none", options(tmp_path, rgw), says="none")
    (tmp_path / "file").touch()
    fails("any", tmp_path / "file", options(tmp_path, rgw), says="directory")


@pytest.mark.long_on("weed")
def test_mount_point_busy(mount: Callable[..., Mount], bucket: str, tmp_path: Path, rgw: Any, server: Any) -> None:
    living = mount()
    done = zosfs(bucket, living.path, "-o", options(tmp_path, server))
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert str(living.path) in done.stderr
    assert os.listdir(living.path) == []


def test_fuse_missing(point: Path, tmp_path: Path, rgw: Any) -> None:
    devices = tmp_path / "dev"
    devices.mkdir()
    hide = f'cp -a /dev/null /dev/zero /dev/urandom {devices} && mount --bind {devices} /dev && exec "$@"'
    prefix = ("unshare", "-m", "sh", "-c", hide, "sh")
    fails("any", point, options(tmp_path, rgw), says="fuse", prefix=prefix)


def test_no_arguments_and_help() -> None:
    assert zosfs().returncode == 1
    done = zosfs("--help")
    assert done.returncode == 0
    assert "SOURCE" in done.stdout
