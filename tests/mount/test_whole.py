"""The real mount against a real server, as the command line and mount(8) start it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fs.conftest import client, delete_bucket
from tests.fs.mounting import ROOT, clean_environment, is_mounted, passwd_file, wait_for
from tests.proxy import Proxy, answer
from zosfs.mount import registry
from zosfs.mount.daemon import PATIENCE
from zosfs.mount.mount import CHECK_PATIENCE

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts as root")

Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def s3(rgw: Any) -> Any:
    """The other hand on the server."""
    return client(rgw)


@pytest.fixture
def bucket(s3: Any) -> Iterator[str]:
    name = f"mount-{uuid.uuid4().hex[:8]}"
    s3.create_bucket(Bucket=name)
    yield name
    delete_bucket(s3, name)


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Path]:
    """An empty directory, free of mounts and daemons afterwards."""
    directory = tmp_path / "mnt"
    directory.mkdir()
    yield directory
    for entry in registry.entries():
        if entry.mountpoint == str(directory):
            os.kill(entry.pid, signal.SIGKILL)
    while is_mounted(directory):
        subprocess.run(["umount", "-l", directory], check=False)


@pytest.fixture
def zosfs(rgw: Any, tmp_path: Path) -> Call:
    """Calls zosfs with the server's options in the environment."""
    environ = {
        **clean_environment(), "ZOSFS_CONFIG": os.devnull, "ZOSFS_URL": rgw.url, "ZOSFS_CACHE_DIR": str(tmp_path / "cache"),
        "ZOSFS_PASSWD_FILE": str(passwd_file(tmp_path, rgw)), "ZOSFS_LOG_FILE": str(tmp_path / "log"), "PYTHONPATH": str(ROOT),
    }  # fmt: skip

    def call(*words: str | Path, timeout: float = 180, patched: str = "") -> subprocess.CompletedProcess[str]:
        begin = ["-c", f"import sys\n{patched}\nfrom zosfs.cli.main import main\nsys.exit(main())"] if patched else ["-m", "zosfs"]
        command = [sys.executable, *begin, *map(str, words)]
        return subprocess.run(command, env=environ, cwd="/", capture_output=True, text=True, timeout=timeout, check=False)

    return call


def test_mount_status_stats_umount(zosfs: Call, bucket: str, s3: Any, point: Path) -> None:
    s3.put_object(Bucket=bucket, Key="some/prefix/hello", Body=b"hello\n")
    done = zosfs(f"{bucket}:/some/prefix", point)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (point / "hello").read_text() == "hello\n"
    facts = [fact for fact in json.loads(zosfs("status", point, "--json").stdout) if fact["mountpoint"] == str(point)]
    assert facts[0]["source"] == f"{bucket}:/some/prefix"
    assert json.loads(zosfs("stats", point, "--json").stdout)["requests_get"] == 1
    assert f"{bucket}:/some/prefix" in zosfs("status", point / "hello").stdout
    again = zosfs(bucket, point)
    assert (again.returncode, again.stderr.count("\n")) == (32, 1)
    assert "already mounted" in again.stderr
    (point / "new").write_text("new\n")
    done = zosfs("umount", point)
    assert (done.returncode, done.stderr) == (0, "")
    assert s3.get_object(Bucket=bucket, Key="some/prefix/new")["Body"].read() == b"new\n"


def test_the_account_and_non_ascii_sources(zosfs: Call, bucket: str, s3: Any, point: Path) -> None:
    s3.put_object(Bucket=bucket, Key="目录, 一/hello", Body=b"hello\n")
    assert zosfs("zos:", point).stderr == ""
    assert bucket in os.listdir(point)
    assert zosfs("umount", point).returncode == 0
    assert zosfs(f"{bucket}:/目录, 一", point).stderr == ""
    assert (point / "hello").read_text() == "hello\n"
    source = subprocess.run(["findmnt", "-n", "-o", "SOURCE", point], capture_output=True, text=True, check=True).stdout
    assert source == f"{bucket}:/目录, 一\n"
    assert zosfs("umount", point).returncode == 0


@pytest.mark.parametrize("way", ["umount", "SIGTERM", "SIGINT"])
def test_what_writeback_promised_is_delivered_at_the_end(zosfs: Call, bucket: str, s3: Any, point: Path, way: str) -> None:
    assert zosfs(bucket, point, "-o", "writeback=1h").stderr == ""
    for number in range(20):
        (point / f"file{number}").write_text(f"{number}\n")
    assert not s3.list_objects(Bucket=bucket).get("Contents")
    if way == "umount":
        assert zosfs("umount", point).returncode == 0
    else:
        (entry,) = registry.find(str(point))
        os.kill(entry.pid, signal.Signals[way])
        wait_for(lambda: not entry.alive, 30, "the daemon's end")
        assert not is_mounted(point)
    assert len(s3.list_objects(Bucket=bucket)["Contents"]) == 20


def test_a_server_that_is_gone_at_umount_is_told_and_made_up_for(
    zosfs: Call, bucket: str, s3: Any, rgw: Any, point: Path
) -> None:
    options = "writeback=1h,retries=0,retry_timeout=2"
    with Proxy(rgw.url) as proxy:
        assert zosfs(bucket, point, "--url", proxy.url, "-o", options).stderr == ""
        (point / "kept").write_text("kept\n")
        proxy.gone = True
        proxy.reset_all()
        done = zosfs("umount", point)
        assert done.returncode == 1
        assert "not everything was delivered" in done.stderr
        assert not is_mounted(point)
        proxy.gone = False
        assert zosfs(bucket, point, "--url", proxy.url, "-o", options).stderr == ""
        wait_for(lambda: s3.list_objects(Bucket=bucket).get("Contents"), 20, "the journal's delivery")
        assert (point / "kept").read_text() == "kept\n"
        assert zosfs("umount", point).returncode == 0


@pytest.mark.parametrize("trouble", ["gone", "stalled"])
def test_many_files_and_a_server_that_is_away_do_not_hold_up_umount(
    zosfs: Call, bucket: str, s3: Any, rgw: Any, point: Path, trouble: str
) -> None:
    options = "writeback=1h,retries=1,retry_timeout=2,read_timeout=1"
    hasty = "from zosfs.mount import drain; drain.ONCE_MORE = 2.0"
    with Proxy(rgw.url) as proxy:
        assert zosfs(bucket, point, "--url", proxy.url, "-o", options, patched=hasty).stderr == ""
        for n in range(120):
            (point / f"f{n}").write_text(f"{n}\n")
        setattr(proxy, trouble, True)
        proxy.reset_all()
        done = zosfs("umount", point, timeout=110)  # a second for each file would be too long
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "not everything was delivered" in done.stderr
        assert "stay in the journal" in done.stderr
        assert not is_mounted(point)
        assert zosfs("journal", "list").stdout.count("\n") >= 120
        setattr(proxy, trouble, False)
        assert zosfs(bucket, point, "--url", proxy.url, "-o", options).stderr == ""
        wait_for(lambda: len(s3.list_objects(Bucket=bucket).get("Contents", [])) == 120, 30, "the journal's delivery")
        assert zosfs("umount", point).returncode == 0


def test_an_endpoint_that_says_nothing_is_given_up_within_15_seconds(zosfs: Call, bucket: str, point: Path) -> None:
    assert CHECK_PATIENCE < PATIENCE < 15
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = zosfs(bucket, point, "--url", url, patched="from zosfs.mount import mount; mount.CHECK_PATIENCE = 1.0")
    # read_timeout alone would be 60 s, the tries many
    assert (done.returncode, done.stderr.count("\n")) == (32, 1)
    assert "no usable answer within 1 s" in done.stderr
    assert not is_mounted(point)


def test_the_log_changes_with_signals_and_holds_no_secret(
    zosfs: Call, bucket: str, rgw: Any, point: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    assert zosfs(bucket, point, "-d").returncode == 0
    (entry,) = registry.find(str(point))
    (point / "file").write_text("text")
    log.rename(tmp_path / "old")
    os.kill(entry.pid, signal.SIGHUP)
    wait_for(lambda: log.exists(), 10, "a new log")
    os.kill(entry.pid, signal.SIGUSR2)
    wait_for(lambda: "log level is now error" in log.read_text(), 10, "the level")
    assert (point / "file").read_text() == "text"
    assert zosfs("umount", point).returncode == 0
    assert rgw.secret_key not in log.read_text() + (tmp_path / "old").read_text()


def test_hup_forgets_listings(zosfs: Call, bucket: str, s3: Any, point: Path) -> None:
    assert zosfs(bucket, point, "-o", "metadata_ttl=1h").returncode == 0
    assert os.listdir(point) == []
    s3.put_object(Bucket=bucket, Key="behind", Body=b"x")
    (entry,) = registry.find(str(point))
    os.kill(entry.pid, signal.SIGHUP)
    wait_for(lambda: os.listdir(point) == ["behind"], 10, "the new name")
    assert zosfs("umount", point).returncode == 0


def test_the_kernel_sees_what_fstab_asked_for(zosfs: Call, bucket: str, point: Path) -> None:
    assert zosfs(bucket, point, "-o", "ro,_netdev,nofail").stderr == ""
    assert {"ro", "nosuid", "nodev"} <= _flags(point)
    assert zosfs("umount", point).returncode == 0


def test_the_kernel_gets_the_flags_that_restrict(zosfs: Call, bucket: str, point: Path) -> None:
    assert zosfs(bucket, point, "-o", "noexec,noatime").stderr == ""
    flags = _flags(point)
    assert zosfs("umount", point).returncode == 0
    assert {"noexec", "noatime"} <= flags


def _flags(point: Path) -> set[str]:
    found = subprocess.run(["findmnt", "-n", "-o", "OPTIONS", point], capture_output=True, text=True, check=True).stdout
    return set(found.strip().split(","))


def test_doctor_tells_what_the_server_can_do_and_leaves_nothing(zosfs: Call, bucket: str, s3: Any) -> None:
    def told(*words: str) -> dict[str, tuple[bool | None, str]]:
        done = zosfs("doctor", *words, "--json")
        return {row["what"]: (row["well"], row["says"]) for row in json.loads(done.stdout)}

    rows = told(f"{bucket}:/some/where")
    assert (rows["append uploads"][0], rows["conditional PUT"][0], rows["versions"][0]) == (True, True, None)
    assert "Contents" not in s3.list_objects(Bucket=bucket)
    assert told(bucket, "--ro")["append uploads"] == (None, "not asked, for nothing is written with `ro`")
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    rows = told(bucket)
    assert (rows["append uploads"][0], rows["conditional PUT"][0], rows["versions"][0]) == (None, None, True)
    assert "copies the object on the server" in rows["append uploads"][1]
    assert "no   append uploads" in zosfs("doctor", bucket).stdout
    assert "append uploads" not in told("zos:")


def test_doctor_looks_where_a_mount_of_the_same_source_would(zosfs: Call, bucket: str, rgw: Any) -> None:
    with Proxy(rgw.url) as proxy:
        # keys that are good for one directory
        proxy.intercept = lambda method, target: None if "mine" in target or "versioning" in target else answer(403, "AccessDenied")
        done = zosfs("doctor", f"{bucket}:/mine", "--url", proxy.url)
    assert f"ok   {bucket}:/mine" in done.stdout
    assert "ok   append uploads" in done.stdout


def test_doctor_knows_a_good_bucket_from_a_missing_one(zosfs: Call, bucket: str) -> None:
    done = zosfs("doctor", bucket)
    assert f"ok   {bucket}" in done.stdout
    done = zosfs("doctor", f"no-such-{bucket}")
    assert done.returncode == 1
    assert "BAD" in done.stdout
