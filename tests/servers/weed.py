"""A SeaweedFS with its S3 door on loopback: the second server, so that nothing is tuned to one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.servers.rgw import wait_for_http
from tests.servers.server import Server, free_ports

ACCESS, SECRET = "zosak", "zossk"


class Weed:
    """Starts on construction (a few seconds), ends with `stop`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for last in (False, False, True):
            try:
                self._start(directory)
                return
            except TimeoutError as failure:
                print(f"{failure}; its log ends:\n{(directory / 'weed.log').read_text(errors='replace')[-3000:]}", file=sys.stderr)
                self.stop()
                if last:
                    raise

    def _start(self, directory: Path) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        (directory / "data").mkdir(parents=True)
        keys = {"accessKey": ACCESS, "secretKey": SECRET}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identities = {"identities": [{"name": "test", "credentials": [keys], "actions": actions}]}
        (directory / "s3.json").write_text(json.dumps(identities))
        master, volume, filer, s3, *grpc = free_ports(8)
        self._log = open(directory / "weed.log", "wb")  # noqa: SIM115  # open as long as the server runs
        self._process = subprocess.Popen(
            [
                Path(sys.executable).with_name("weed"), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={directory}/data",
                f"-master.port={master}", f"-master.port.grpc={grpc[0]}", f"-volume.port={volume}", f"-volume.port.grpc={grpc[1]}",
                "-filer", f"-filer.port={filer}", f"-filer.port.grpc={grpc[2]}", "-s3", f"-s3.port={s3}", f"-s3.port.grpc={grpc[3]}",
                f"-s3.config={directory}/s3.json", "-volume.max=1000", "-master.volumeSizeLimitMB=1024", "-master.telemetry=false",
                "-s3.port.iceberg=0", "-s3.port.lance=0",
            ],
            stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        self.server = Server(f"http://127.0.0.1:{s3}", ACCESS, SECRET, "weed")
        wait_for_http(self.server.url, alive=lambda: self._process.poll() is None)

    def stop(self) -> None:
        """End the server and remove its data."""
        self._process.kill()
        self._process.wait()
        self._log.close()
        shutil.rmtree(self.directory, ignore_errors=True)
