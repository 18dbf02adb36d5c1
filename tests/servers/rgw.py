"""A private one-node Ceph with a RADOS gateway on loopback, plain and TLS: what the servers of ZOS are made of.

Needs Debian's radosgw, ceph-mon, ceph-osd, ceph-mgr, ceph-common and openssl. Objects lie in a sparse file below the directory.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path

from tests.servers.server import Server, free_ports

ACCESS, SECRET = "zosak", "zossk"
STORE_BYTES = 24 << 30

CONF = """\
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{mon}/0]
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
mon_max_pg_per_osd = 1000
run_dir = {d}/run
admin_socket = {d}/run/$name.asok
log_file = {d}/log/$name.log
pid_file = {d}/run/$name.pid
mon_data = {d}/mon
mgr_data = {d}/mgr
osd_data = {d}/osd
osd_objectstore = bluestore
bluestore_block_create = true
bluestore_block_size = {size}
bluestore_fsck_on_mount = false
osd_memory_target = 1073741824
keyring = {d}/keyring
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
setuser_match_path =
[client.rgw]
rgw_frontends = beast endpoint=127.0.0.1:{port} ssl_endpoint=127.0.0.1:{tls} ssl_certificate={d}/both.pem tcp_nodelay=1
rgw_dns_name = localhost
rgw_lc_debug_interval = 10
rgw_gc_obj_min_wait = 5
rgw_gc_processor_period = 5
rgw_gc_processor_max_time = 30
rgw_sts_key = 0123456789abcdef
rgw_s3_auth_use_sts = {sts}
"""


class Rgw:
    """Starts on construction (about 15 s), ends with `stop`."""

    def __init__(self, directory: Path, *, sts: bool = False) -> None:
        self.directory = directory
        shutil.rmtree(directory, ignore_errors=True)
        for name in ("mon", "osd", "mgr", "run", "log"):
            (directory / name).mkdir(parents=True)
        port, tls, mon = free_ports(3)
        self._run(
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", directory / "key.pem", "-out", directory / "ca.pem",
            "-days", "3650", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
        )  # fmt: skip
        (directory / "both.pem").write_text((directory / "ca.pem").read_text() + (directory / "key.pem").read_text())
        conf = directory / "ceph.conf"
        conf.write_text(
            CONF.format(fsid=uuid.uuid4(), mon=mon, d=directory, size=STORE_BYTES, port=port, tls=tls, sts=str(sts).lower())
        )
        self.server = Server(
            f"http://127.0.0.1:{port}", ACCESS, SECRET, "rgw", f"https://127.0.0.1:{tls}", str(directory / "ca.pem"), str(conf)
        )
        try:
            self._start(mon)
        except BaseException:
            self.stop()
            raise

    def _run(self, *command: object) -> None:
        with open(self.directory / "log" / "up.log", "ab") as log:
            subprocess.run(
                [str(word) for word in command], check=True, stdout=log, stderr=log, stdin=subprocess.DEVNULL, timeout=120,
                env={**os.environ, "CEPH_CONF": str(self.directory / "ceph.conf")},
            )  # fmt: skip

    def _start(self, mon: int) -> None:
        d = self.directory
        keyring = d / "keyring"
        everything = ["--cap", "mon", "allow *", "--cap", "osd", "allow *", "--cap", "mgr", "allow *"]
        self._run("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        for name in ("client.admin", "client.rgw", "osd.0", "mgr.x"):
            self._run("ceph-authtool", keyring, "--gen-key", "-n", name, *everything)
        conf = (d / "ceph.conf").read_text()
        fsid = conf.split("fsid = ")[1].split("\n")[0]
        self._run("monmaptool", "--create", "--addv", "a", f"[v2:127.0.0.1:{mon}]", "--fsid", fsid, d / "monmap")
        self._run("ceph-mon", "-i", "a", "--mkfs", "--monmap", d / "monmap", "--keyring", keyring)
        self._run("ceph-mon", "-i", "a")
        osd = uuid.uuid4()
        self._run("ceph", "osd", "new", osd)
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._run("ceph-osd", "-i", "0")
        self._run("ceph-mgr", "-i", "x")
        self._run("radosgw", "-n", "client.rgw")
        self.admin("user", "create", "--uid=test", "--display-name=test", f"--access-key={ACCESS}", f"--secret-key={SECRET}")
        wait_for_http(self.server.url)

    def admin(self, *command: str) -> None:
        """Run radosgw-admin on this cluster."""
        self._run("radosgw-admin", *command)

    def stop(self) -> None:
        """End the daemons by their pid files and remove the data."""
        pids = []
        for file in (self.directory / "run").glob("*.pid"):
            try:
                pids.append(int(file.read_text()))
                os.kill(pids[-1], signal.SIGKILL)
            except (ValueError, ProcessLookupError):
                pass
        deadline = time.monotonic() + 20
        while any(Path(f"/proc/{pid}/exe").exists() for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.05)
        shutil.rmtree(self.directory, ignore_errors=True)


def wait_for_http(url: str, patience: float = 90.0, alive: Callable[[], bool] = lambda: True) -> None:
    """Return when *url* gives any HTTP answer; TimeoutError after *patience* seconds, or when nobody is *alive* to give one."""
    deadline = time.monotonic() + patience
    while True:
        if not alive():
            raise TimeoutError(f"the server of {url} ended")
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{url} does not answer") from None
            time.sleep(0.1)
