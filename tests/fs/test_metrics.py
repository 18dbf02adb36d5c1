"""Option `metrics`: what Prometheus is told is what the mount has counted."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.fs.mounting import Mount, is_mounted, passwd_file, zosfs
from tests.fs.running import run
from tests.servers.server import free_ports
from zosfs.counters import METRICS
from zosfs.mount.metrics import GAUGES, address
from zosfs.mount.refusal import FAILED

Mounting = Callable[..., Mount]


def told(port: int) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The samples at *port*, by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for family in families for sample in family.samples}


def test_prometheus_is_told_what_was_counted(mount: Mounting, bucket: str) -> None:
    (port,) = free_ports(1)
    living = mount(metrics=f":{port}")
    (living.path / "d").mkdir()
    (living.path / "d" / "f").write_bytes(b"12345")
    run("ls", "-l", living.path / "d")
    with (living.path / "d" / "f").open("ab") as file:
        file.write(b"6789")
        file.flush()
        numbers = told(port)
    assert numbers["zosfs_errors_total", ()] == 0, "what mounting asks a server, and it refuses, is no error"
    assert numbers["zosfs_written_bytes_total", ()] == 9
    assert numbers["zosfs_open_files", ()] == 1
    assert numbers["zosfs_undelivered_files", ()] == 1
    assert numbers["zosfs_dirty_bytes", ()] >= 4
    assert numbers["zosfs_inodes", ()] >= 3
    assert numbers["zosfs_requests_total", (("verb", "put"),)] >= 2
    assert numbers["process_resident_memory_bytes", ()] > 1 << 20
    (about,) = (dict(labels) for name, labels in numbers if name == "zosfs_mount_info")
    assert (about["source"], about["mountpoint"]) == (bucket, str(living.path))
    names = {name for name, _ in numbers}
    assert names >= {f"zosfs_{name}" for name in GAUGES}
    assert names >= {f"zosfs_{name}_total" for name in METRICS if not name.startswith("requests_")}
    counted = json.loads(run("getfattr", "--only-values", "-n", "user.zos.stats", living.path))
    assert set(counted) == set(METRICS)
    living.stop()
    with pytest.raises(urllib.error.URLError):
        told(port)


@pytest.mark.long_on("weed")
def test_an_address_that_cannot_be_is_refused_before_the_background(mount: Mounting, bucket: str, tmp_path: Path, server: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        point = tmp_path / "point"
        point.mkdir()
        common = f"url={server.url},passwd_file={passwd_file(tmp_path, server)},cache_dir={tmp_path / 'cache'}"
        for value, why in ((f":{port}", "nothing can listen there (Address already in use)"), ("here", "not of the form HOST:PORT")):
            done = zosfs(bucket, point, "-o", f"{common},metrics={value}")
            assert done.returncode == FAILED
            assert done.stderr == f"zosfs: metrics={value}: {why}\n"
            assert not is_mounted(point)


@pytest.mark.parametrize(
    ("text", "meant"),
    [("9464", ("127.0.0.1", 9464)), (":9464", ("127.0.0.1", 9464)), ("0.0.0.0:1", ("0.0.0.0", 1)), ("[::1]:80", ("::1", 80)),
     ("host:65535", ("host", 65535))],
)  # fmt: skip
def test_addresses(text: str, meant: tuple[str, int]) -> None:
    assert address(text) == meant


@pytest.mark.parametrize("text", ["", "host", "host:", "host:0", "host:65536", "host:-1", ":\u0661"])
def test_no_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        address(text)
