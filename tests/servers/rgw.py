"""A private one-node Ceph with a RADOS gateway on loopback, plain and TLS: what the servers of ZOS are made of.

Needs Debian's radosgw, ceph-mon, ceph-osd, ceph-mgr, ceph-common and openssl. Objects lie in a sparse file below the directory.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.servers.server import Server, free_ports

ACCESS, SECRET = "zosak", "zossk"
SECOND_CLASS = "STANDARD_IA"
"""A storage class besides STANDARD, so that objects can be moved."""
STORE_BYTES = 24 << 30
TRIES = 3
DIES = ("setpriv", "--pdeathsig", "KILL")
"""In front of a command: it is killed when the thread that started it ends, however that ends."""
STEP_WITHIN = 150.0
"""Seconds for one of the programs that make and start a cluster."""

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
osd_memory_target = {memory}
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
    """Starts on construction (about 15 s), ends with `stop`. *memory* is what the OSD may take for its cache, in bytes."""

    def __init__(self, directory: Path, *, sts: bool = False, memory: int = 1 << 30) -> None:
        self.directory = directory
        self._daemons: list[subprocess.Popen[bytes]] = []
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
            CONF.format(
                fsid=uuid.uuid4(), mon=mon, d=directory, size=STORE_BYTES, port=port, tls=tls, sts=str(sts).lower(), memory=memory
            )
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
                [*DIES, *map(str, command)], check=True, stdout=log, stderr=log, stdin=subprocess.DEVNULL, timeout=STEP_WITHIN,
                env={**os.environ, "CEPH_CONF": str(self.directory / "ceph.conf")},
            )  # fmt: skip

    def _daemon(self, *command: str) -> subprocess.Popen[bytes]:
        """Start one of the cluster's own: in the foreground, so that one that finds its ports taken is seen to end."""
        with open(self.directory / "log" / "up.log", "ab") as log:
            daemon = subprocess.Popen(
                [*DIES, *command, "-f"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, env={**os.environ, "CEPH_CONF": str(self.directory / "ceph.conf")},
            )  # fmt: skip
        self._daemons.append(daemon)
        return daemon

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
        monitor = self._daemon("ceph-mon", "-i", "a")
        wait_for_port(mon, alive=lambda: monitor.poll() is None)  # who asks before that asks again seconds later
        osd = uuid.uuid4()
        self._run("ceph", "osd", "new", osd)
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._daemon("ceph-osd", "-i", "0")
        self._daemon("ceph-mgr", "-i", "x")
        self.admin("user", "create", "--uid=test", "--display-name=test", f"--access-key={ACCESS}", f"--secret-key={SECRET}")
        place = ("placement", "add", "--placement-id", "default-placement", "--storage-class", SECOND_CLASS)
        self.admin("zonegroup", *place, "--rgw-zonegroup", "default")
        self.admin("zone", *place, "--rgw-zone", "default", "--data-pool", "default.rgw.buckets.data")
        gateway = self._daemon("radosgw", "-n", "client.rgw")
        wait_for_http(self.server.url, alive=lambda: gateway.poll() is None)
        self._first_requests()

    def _first_requests(self) -> None:
        """Ceph makes the pools of buckets, objects and uploads when they are first needed, which takes it seconds: not in a test."""
        s3 = boto3.client(
            "s3", endpoint_url=self.server.url, aws_access_key_id=ACCESS, aws_secret_access_key=SECRET, region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}, read_timeout=STEP_WITHIN, retries={"total_max_attempts": 5}),
        )  # fmt: skip
        where = {"Bucket": "first", "Key": "k"}
        s3.create_bucket(Bucket=where["Bucket"])
        s3.put_object(**where, Body=b"x")
        upload = s3.create_multipart_upload(**where)["UploadId"]
        s3.upload_part(**where, UploadId=upload, PartNumber=1, Body=b"x")
        s3.abort_multipart_upload(**where, UploadId=upload)
        s3.delete_object(**where)
        s3.delete_bucket(Bucket=where["Bucket"])

    def admin(self, *command: str) -> None:
        """Run radosgw-admin on this cluster."""
        self._run("radosgw-admin", *command)

    def stop(self) -> None:
        """End the daemons and remove the data."""
        for daemon in self._daemons:
            daemon.kill()
        for daemon in self._daemons:
            daemon.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


@contextmanager
def running_rgw(directory: Path, *, sts: bool = False) -> Iterator[Rgw]:
    """A gateway with its data below *directory*, which is gone afterwards. One that does not start is tried again, on other ports."""
    for left in reversed(range(TRIES)):
        try:
            running = Rgw(directory, sts=sts)
            break
        except (subprocess.SubprocessError, TimeoutError, BotoCoreError, ClientError) as failure:
            print(f"Ceph did not start: {failure}", file=sys.stderr)
            if not left:
                raise
    try:
        yield running
    finally:
        running.stop()


def wait_for_port(port: int, patience: float = 120.0, alive: Callable[[], bool] = lambda: True) -> None:
    """Return when somebody listens on *port*; TimeoutError after *patience* seconds, or when nobody is *alive* to."""
    deadline = time.monotonic() + patience
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
            return
        except OSError:
            if not alive() or time.monotonic() > deadline:
                raise TimeoutError(f"nobody listens on port {port}") from None
            time.sleep(0.02)


def wait_for_http(url: str, patience: float = 120.0, alive: Callable[[], bool] = lambda: True) -> None:
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
