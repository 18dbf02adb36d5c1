"""Buckets mounted at boot by a real systemd, and what is written right before the shutdown delivered by it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fs.conftest import client, delete_bucket
from tests.proxy import Proxy
from tests.systemd.container import Container, why_not
from zosfs.mount.install import HELPERS, UNIT, WRAPPER, install

pytestmark = [pytest.mark.systemd, pytest.mark.skipif(bool(why_not()), reason=f"no container: {why_not()}")]

PASSWD = "/etc/zosfs/passwd"
MOUNTPOINT, MOUNT_UNIT = "/mnt/zosfs-test", "mnt-zosfs\\x2dtest.mount"


@pytest.fixture
def s3(rgw: Any) -> Any:
    """The other hand on the server."""
    return client(rgw)


@pytest.fixture
def bucket(s3: Any) -> Iterator[str]:
    """A bucket with a dash in its name, which systemd's %I would make a slash."""
    name = f"mount-{uuid.uuid4().hex[:8]}"
    s3.create_bucket(Bucket=name)
    s3.put_object(Bucket=name, Key="hello", Body=b"hello\n")
    yield name
    delete_bucket(s3, name)


Boot = Callable[..., Container]


@pytest.fixture
def boot(tmp_path: Path, rgw: Any) -> Iterator[Boot]:
    """Boots a container with zosfs installed and the files given; ends it afterwards."""
    containers: list[Container] = []

    def start(files: dict[str, str], links: dict[str, str] | None = None) -> Container:
        config = f'url = "{rgw.url}"\npasswd_file = "{PASSWD}"\nuse_path_request_style = true\n'
        base = tmp_path / f"boot{len(containers)}"
        container = Container(base, {"etc/fstab": "", "etc/zosfs/config.toml": config, **files}, links=links)
        containers.append(container)
        passwd = container.layer / PASSWD.lstrip("/")
        passwd.write_text(f"{rgw.access_key}:{rgw.secret_key}\n")
        passwd.chmod(0o600)
        list(install(container.layer))
        (container.layer / MOUNTPOINT.lstrip("/")).mkdir(parents=True)
        assert container.boot() == "running", container.journal()
        return container

    yield start
    for container in containers:
        container.close()


def test_an_fstab_line_mounts_at_boot_and_delivers_at_shutdown(boot: Boot, bucket: str, s3: Any) -> None:
    container = boot({"etc/fstab": f"{bucket}: {MOUNTPOINT} fuse.zosfs _netdev,writeback=1h 0 0\n"})
    line = container.run("findmnt", "-n", "-o", "SOURCE,FSTYPE", MOUNTPOINT).stdout.split()
    assert line == [f"{bucket}:", "fuse.zosfs"]
    assert container.run("cat", f"{MOUNTPOINT}/hello").stdout == "hello\n"
    assert container.run("systemctl", "is-active", "remote-fs.target", MOUNT_UNIT).stdout.split() == ["active"] * 2
    assert "already mounted" in container.run("mount", "-a", "-v").stdout
    assert container.run("findmnt", "-n", MOUNTPOINT).stdout.count("\n") == 1
    after = container.run("systemctl", "show", "-p", "After,Before", MOUNT_UNIT).stdout
    assert "network-online.target" in after
    assert "local-fs.target" not in after
    container.run("sh", "-c", f"echo last words > {MOUNTPOINT}/last")
    assert not s3.list_objects(Bucket=bucket, Prefix="last").get("Contents"), "writeback should still hold it"
    assert container.shut_down() < 85, "systemd kills what does not end within 90 s"
    assert s3.get_object(Bucket=bucket, Key="last")["Body"].read() == b"last words\n"


def test_umount_by_hand_delivers_before_it_returns(boot: Boot, bucket: str, s3: Any) -> None:
    container = boot({"etc/fstab": f"{bucket}: {MOUNTPOINT} fuse.zosfs _netdev,noauto,writeback=1h 0 0\n"})
    container.run("mount", MOUNTPOINT)
    container.run("sh", "-c", f"echo last words > {MOUNTPOINT}/last")
    container.run("umount", MOUNTPOINT)
    assert s3.get_object(Bucket=bucket, Key="last")["Body"].read() == b"last words\n"
    assert container.run("mount", "-t", "zosfs", f"{bucket}:", MOUNTPOINT).returncode == 0
    assert container.run("cat", f"{MOUNTPOINT}/last").stdout == "last words\n"
    container.run("mount", "-o", "remount,ro", MOUNTPOINT)
    assert "Read-only" in container.run("touch", f"{MOUNTPOINT}/x", check=False).stderr
    container.run("umount", MOUNTPOINT)


def test_a_wrong_line_fails_the_unit_with_a_line_that_helps(boot: Boot, bucket: str) -> None:
    container = boot({"etc/fstab": f"no-such-{bucket} {MOUNTPOINT} fuse.zosfs _netdev,noauto 0 0\n"})
    done = container.run("mount", MOUNTPOINT, check=False)
    assert done.returncode == 32
    assert done.stderr.count("\n") == 1
    assert "does not exist" in done.stderr
    assert container.run("systemctl", "start", MOUNT_UNIT, check=False).returncode != 0
    assert "does not exist" in container.journal("-u", MOUNT_UNIT)


@pytest.mark.skipif(not os.path.exists("/dev/autofs"), reason="the kernel has no autofs")
def test_an_automount_mounts_at_the_first_access(boot: Boot, bucket: str) -> None:
    options = "_netdev,noauto,nofail,x-systemd.automount,x-systemd.mount-timeout=120"
    container = boot({"etc/fstab": f"{bucket}: {MOUNTPOINT} fuse.zosfs {options} 0 0\n"})
    assert container.run("findmnt", "-n", "-o", "FSTYPE", MOUNTPOINT).stdout.split() == ["autofs"]
    assert container.run("cat", f"{MOUNTPOINT}/hello").stdout == "hello\n"
    assert container.run("findmnt", "-n", "-o", "FSTYPE", MOUNTPOINT).stdout.split() == ["autofs", "fuse.zosfs"]


def test_the_unit_mounts_at_boot_heals_and_delivers_at_shutdown(boot: Boot, bucket: str, s3: Any) -> None:
    unit = f"zosfs@{bucket}.service"
    container = boot(
        {f"etc/zosfs/{bucket}.env": f"ZOSFS_WRITEBACK=1h\nZOSFS_MOUNTPOINT={MOUNTPOINT}\n"},
        {f"etc/systemd/system/remote-fs.target.wants/{unit}": f"/{UNIT}"},
    )
    assert container.run("cat", f"{MOUNTPOINT}/hello").stdout == "hello\n"
    properties = container.run("systemctl", "show", unit, "-p", "ActiveState,StatusText,MainPID").stdout
    shown = dict(row.partition("=")[::2] for row in properties.splitlines())
    assert shown["ActiveState"] == "active"
    assert shown["StatusText"] == f"serving {bucket} on {MOUNTPOINT}"
    container.run("kill", "-9", shown["MainPID"])
    container.run(
        "timeout", "240", "sh", "-c", f"until [ -e {MOUNTPOINT}/hello ] && systemctl -q is-active {unit}; do sleep 0.1; done"
    )
    assert container.run("systemctl", "show", unit, "-p", "NRestarts").stdout == "NRestarts=1\n"
    container.run("systemctl", "reload", unit)
    container.run("sh", "-c", f"echo last words > {MOUNTPOINT}/last")
    assert container.shut_down() < 85, "systemd kills what does not end within 90 s"
    assert s3.get_object(Bucket=bucket, Key="last")["Body"].read() == b"last words\n"


@pytest.mark.parametrize("way", ["fstab", "unit"])
def test_a_shutdown_waits_for_a_slow_delivery(boot: Boot, bucket: str, s3: Any, rgw: Any, way: str) -> None:
    with Proxy(rgw.url, rate=1.5e6) as proxy:
        if way == "fstab":
            line = f"{bucket}: {MOUNTPOINT} fuse.zosfs _netdev,writeback=1h,url={proxy.url} 0 0\n"
            container = boot({"etc/fstab": line})
        else:
            container = boot(
                {
                    f"etc/zosfs/{bucket}.env": f"ZOSFS_WRITEBACK=1h\nZOSFS_MOUNTPOINT={MOUNTPOINT}\nZOSFS_URL={proxy.url}\n",
                    "etc/systemd/system/zosfs@.service.d/short.conf": "[Service]\nTimeoutStopSec=1\n",
                },
                {f"etc/systemd/system/remote-fs.target.wants/zosfs@{bucket}.service": f"/{UNIT}"},
            )
        container.run("dd", "if=/dev/urandom", f"of={MOUNTPOINT}/large", "bs=1M", "count=6")
        assert container.shut_down() > 3
    assert s3.head_object(Bucket=bucket, Key="large")["ContentLength"] == 6 << 20


def test_install_puts_links_where_mount8_looks(tmp_path: Path) -> None:
    list(install(tmp_path))
    assert {path.name for path in (tmp_path / "usr/sbin").iterdir()} == set(HELPERS)
    assert (tmp_path / WRAPPER).exists()
