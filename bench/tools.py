"""The filesystems that are compared: how each is mounted, and what its daemon costs.

Owns: the daemon processes and their mount points. Every mount is afresh, with an empty cache directory of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
MOUNTED_WITHIN, GONE_WITHIN = 30.0, 300.0


@dataclass(frozen=True)
class Target:
    """The bucket that a tool mounts."""

    url: str
    bucket: str
    access_key: str
    secret_key: str


@dataclass(frozen=True)
class Tool:
    """One filesystem. *command* gives argv and environment for mounting in the foreground."""

    name: str
    version: str
    command: Callable[[Target, Path, Path], tuple[list[str], Mapping[str, str]]]


@dataclass
class Cost:
    """What a daemon used: CPU seconds and peak resident bytes of its whole process tree, and requests where it tells."""

    cpu: float = 0.0
    peak: int = 0
    requests: dict[str, int] = field(default_factory=dict)


def _passwd(home: Path, target: Target) -> Path:
    path = home / "passwd"
    path.touch(mode=0o600)
    path.write_text(f"{target.access_key}:{target.secret_key}\n")
    return path


def _zosfs(*extra: str) -> Callable[[Target, Path, Path], tuple[list[str], Mapping[str, str]]]:
    def command(target: Target, point: Path, home: Path) -> tuple[list[str], Mapping[str, str]]:
        words = [f"url={target.url}", f"passwd_file={_passwd(home, target)}", f"cache_dir={home / 'cache'}", *extra]
        return [sys.executable, "-m", "zosfs", target.bucket, str(point), "-f", "-o", ",".join(words)], {}

    return command


def _s3fs(target: Target, point: Path, home: Path) -> tuple[list[str], Mapping[str, str]]:
    words = f"url={target.url},passwd_file={_passwd(home, target)},use_path_request_style,tmpdir={home}"
    return ["s3fs", target.bucket, str(point), "-f", "-o", words], {}


def _rclone(program: str) -> Callable[[Target, Path, Path], tuple[list[str], Mapping[str, str]]]:
    def command(target: Target, point: Path, home: Path) -> tuple[list[str], Mapping[str, str]]:
        environment = {
            "RCLONE_CONFIG": str(home / "none.conf"), "RCLONE_CONFIG_S_TYPE": "s3", "RCLONE_CONFIG_S_PROVIDER": "Ceph",
            "RCLONE_CONFIG_S_ENDPOINT": target.url, "RCLONE_CONFIG_S_ACCESS_KEY_ID": target.access_key,
            "RCLONE_CONFIG_S_SECRET_ACCESS_KEY": target.secret_key, "RCLONE_CONFIG_S_REGION": "us-east-1",
        }  # fmt: skip
        # uploads start at close instead of 5 s later, because delivery is part of what is timed
        words = ["--vfs-cache-mode", "writes", "--vfs-write-back", "0s", "--cache-dir", str(home / "cache")]
        return [program, "mount", f"S:{target.bucket}", str(point), *words], environment

    return command


def _version(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).splitlines()[0].strip()


def available() -> dict[str, Tool]:
    """The tools on this machine, by name; zosfs comes first and twice: as it is, and without POSIX attributes."""
    from zosfs import __version__

    tools = {
        "zosfs": Tool("zosfs", __version__, _zosfs()),
        "zosfs-noposix": Tool("zosfs-noposix", __version__, _zosfs("noposix")),
    }
    if shutil.which("s3fs"):
        tools["s3fs"] = Tool("s3fs", _version("s3fs", "--version"), _s3fs)
    beside = Path(sys.executable).parent / "rclone"
    rclone = str(beside) if beside.exists() else shutil.which("rclone")
    if rclone:
        tools["rclone"] = Tool("rclone", _version(rclone, "version"), _rclone(rclone))
    return tools


def _is_mounted(point: Path) -> bool:
    return any(line.split()[4] == str(point) for line in Path("/proc/self/mountinfo").read_text().splitlines())


def _tree(pid: int) -> list[int]:
    found = [pid]
    for child in Path(f"/proc/{pid}/task").glob("*/children"):
        for word in child.read_text().split():
            found += _tree(int(word))
    return found


def cost_of(pid: int) -> Cost:
    """CPU and peak memory of a process and all below it, so far."""
    total = Cost()
    for each in _tree(pid):
        try:
            stat = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            status = Path(f"/proc/{each}/status").read_text()
        except OSError:
            continue
        total.cpu += sum(int(stat[n]) for n in (11, 12, 13, 14)) / _TICKS
        total.peak += int(status.partition("VmHWM:")[2].split()[0]) * 1024
    return total


class Mounted:
    """A tool's mount of *target* below *home*; a context manager that unmounts and waits for the daemon."""

    def __init__(self, tool: Tool, target: Target, home: Path) -> None:
        self.tool, self.home = tool, home
        self.path = home / "m"
        self.path.mkdir()
        self._command, more = tool.command(target, self.path, home)
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "ZOSFS_", "RCLONE_"))} | dict(more)
        self._at_start = Cost()

    def __enter__(self) -> Mounted:
        with (self.home / "log").open("wb") as log:
            self._daemon = subprocess.Popen(
                self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + MOUNTED_WITHIN
        while not _is_mounted(self.path):
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                self._daemon.kill()
                raise RuntimeError(f"{self.tool.name} does not mount: {(self.home / 'log').read_text()[-2000:]}")
            time.sleep(0.01)
        os.stat(self.path)
        self._at_start = cost_of(self._daemon.pid)
        self._at_start.requests = self._requests()
        return self

    def _requests(self) -> dict[str, int]:
        if not self.tool.name.startswith("zosfs"):
            return {}
        numbers = json.loads(os.getxattr(self.path, "user.zos.stats"))
        return {name.removeprefix("requests_"): n for name, n in numbers.items() if name.startswith("requests_")}

    def cost(self) -> Cost:
        """What the daemon used since the mount became live; the peak of memory is since its start."""
        now = cost_of(self._daemon.pid)
        now.cpu -= self._at_start.cpu
        now.requests = {name: n - self._at_start.requests.get(name, 0) for name, n in self._requests().items()}
        now.requests = {name: n for name, n in now.requests.items() if n}
        return now

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", str(self.path)], check=False, capture_output=True)
        try:
            self._daemon.wait(GONE_WITHIN)
        except subprocess.TimeoutExpired:
            self._daemon.kill()
            self._daemon.wait()
        if _is_mounted(self.path):
            subprocess.run(["umount", "-l", str(self.path)], check=False)
