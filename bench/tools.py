"""The filesystems that are compared: how each is mounted in which settings, and what its daemon costs.

Owns: the daemon processes and their mount points. Every mount is afresh, with a cache directory of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
MOUNTED_WITHIN, GONE_WITHIN = 60.0, 300.0


@dataclass(frozen=True)
class Target:
    """The bucket that a tool mounts. *state* is a directory that outlives the mounts of one run."""

    url: str
    bucket: str
    access_key: str
    secret_key: str
    state: Path


class Kind(Enum):
    """What a tool is to the bars: ours, one of those to beat, one that is shown beside, one of another format that sees no objects,
    or one without a server, which shows what nobody undercuts."""

    OURS = "ours"
    RIVAL = "rival"
    SHOWN = "shown"
    CEILING = "ceiling"
    FLOOR = "floor"


Command = Callable[[str, Target, Path, Path], tuple[list[str], Mapping[str, str]]]
"""Of program, target, mount point and cache directory: argv for mounting in the foreground, and environment."""


@dataclass(frozen=True)
class Tool:
    """One filesystem in one setting.

    *attributes*: an attribute of a file that is no part of a listing is asked for when the file is looked at (all of them by s3fs, the
    time of last change by rclone). *durable*: close returns when the store has the file.
    """

    name: str
    program: str
    settings: str
    command: Command
    kind: Kind = Kind.RIVAL
    attributes: bool = False
    durable: bool = False
    format: Command | None = None


def _passwd(home: Path, target: Target) -> Path:
    path = home / "passwd"
    path.touch(mode=0o600)
    path.write_text(f"{target.access_key}:{target.secret_key}\n")
    return path


def _zosfs(*extra: str) -> Command:
    def command(program: str, target: Target, point: Path, home: Path) -> tuple[list[str], Mapping[str, str]]:
        words = [f"url={target.url}", f"passwd_file={_passwd(home, target)}", f"cache_dir={home / 'cache'}", *extra]
        return [program, "-m", "zosfs", target.bucket, str(point), "-f", "-o", ",".join(words)], {}

    return command


def _s3fs(program: str, target: Target, point: Path, home: Path) -> tuple[list[str], Mapping[str, str]]:
    words = f"url={target.url},passwd_file={_passwd(home, target)},use_path_request_style,tmpdir={home}"
    return [program, target.bucket, str(point), "-f", "-o", words], {}


def _rclone(*extra: str) -> Command:
    def command(program: str, target: Target, point: Path, home: Path) -> tuple[list[str], Mapping[str, str]]:
        environment = {
            "RCLONE_CONFIG": str(home / "none.conf"), "RCLONE_CONFIG_S_TYPE": "s3", "RCLONE_CONFIG_S_PROVIDER": "Ceph",
            "RCLONE_CONFIG_S_ENDPOINT": target.url, "RCLONE_CONFIG_S_ACCESS_KEY_ID": target.access_key,
            "RCLONE_CONFIG_S_SECRET_ACCESS_KEY": target.secret_key, "RCLONE_CONFIG_S_REGION": "us-east-1",
        }  # fmt: skip
        return [program, "mount", f"S:{target.bucket}", str(point), "--cache-dir", str(home / "cache"), *extra], environment

    return command


def _metadata(target: Target) -> str:
    return f"sqlite3://{target.state / 'juicefs.db'}"


def _juicefs_format(program: str, target: Target, point: Path, home: Path) -> tuple[list[str], Mapping[str, str]]:
    words = [program, "format", "--storage", "s3", "--bucket", f"{target.url}/{target.bucket}-juicefs", "--trash-days", "0"]
    return [*words, _metadata(target), "bench"], {"ACCESS_KEY": target.access_key, "SECRET_KEY": target.secret_key}


def _juicefs(program: str, target: Target, point: Path, home: Path) -> tuple[list[str], Mapping[str, str]]:
    words = ["--bucket", f"{target.url}/{target.bucket}-juicefs", "--cache-dir", str(home / "cache"), "--metrics", "127.0.0.1:0"]
    quiet = ["--no-usage-report", "--no-syslog", "--backup-meta", "0"]
    return [program, "mount", *words, *quiet, _metadata(target), str(point)], {}


def _keys(target: Target) -> Mapping[str, str]:
    return {"AWS_ACCESS_KEY_ID": target.access_key, "AWS_SECRET_ACCESS_KEY": target.secret_key}


def _goofys(program: str, target: Target, point: Path, home: Path) -> tuple[list[str], Mapping[str, str]]:
    return [program, "-f", "--endpoint", target.url, "--region", "us-east-1", target.bucket, str(point)], _keys(target)


def _mountpoint(program: str, target: Target, point: Path, home: Path) -> tuple[list[str], Mapping[str, str]]:
    words = ["--endpoint-url", target.url, "--region", "us-east-1", "--force-path-style", "--allow-delete", "--allow-overwrite"]
    return [program, target.bucket, str(point), "--foreground", *words], _keys(target)


# uploads start at close instead of 5 s later: delivery is part of what is timed
_AT_ONCE = ("--vfs-write-back", "0s")
_STREAMS = ("--vfs-read-chunk-streams", "4", "--vfs-read-chunk-size", "16M")

TOOLS = {
    tool.name: tool
    for tool in (
        Tool("zosfs", "", "as it comes", _zosfs(), Kind.OURS, attributes=True, durable=True),
        Tool("zosfs-noposix", "", "`-o noposix`", _zosfs("noposix"), Kind.OURS, durable=True),
        Tool("zosfs-nospecial", "", "`-o nospecial`", _zosfs("nospecial"), Kind.OURS, attributes=True, durable=True),
        Tool("zosfs-prefetch", "", "`-o prefetch=5s`", _zosfs("prefetch=5s"), Kind.OURS, attributes=True, durable=True),
        Tool("zosfs-random", "", "`-o random_ahead=16M`", _zosfs("random_ahead=16M"), Kind.OURS, attributes=True, durable=True),
        Tool("zosfs-writeback", "", "`-o writeback`", _zosfs("writeback"), Kind.OURS, attributes=True),
        Tool("s3fs", "s3fs", "as it comes", _s3fs, attributes=True, durable=True),
        Tool("rclone", "rclone", "as it comes, without cache", _rclone(), attributes=True, durable=True),
        Tool("rclone-writes", "rclone", "`--vfs-cache-mode writes --vfs-write-back 0s`",
             _rclone("--vfs-cache-mode", "writes", *_AT_ONCE), attributes=True),
        Tool("rclone-full", "rclone", "`--vfs-cache-mode full --vfs-write-back 0s`",
             _rclone("--vfs-cache-mode", "full", *_AT_ONCE), attributes=True),
        Tool("rclone-modtime", "rclone", "`--use-server-modtime`", _rclone("--use-server-modtime"), durable=True),
        Tool("rclone-streams", "rclone", "`--vfs-read-chunk-streams 4 --vfs-read-chunk-size 16M`", _rclone(*_STREAMS),
             attributes=True, durable=True),
        Tool("juicefs", "juicefs", "as it comes, metadata in SQLite beside it", _juicefs, Kind.CEILING, durable=True,
             format=_juicefs_format),
        Tool("geesefs", "", "as it comes", _goofys, Kind.SHOWN),
        Tool("goofys", "", "as it comes", _goofys, Kind.SHOWN),
        Tool("mountpoint", "", "`--allow-delete --allow-overwrite`", _mountpoint, Kind.SHOWN, durable=True),
    )
}  # fmt: skip
"""Every setting of every filesystem, by the name under which its numbers are kept."""


@dataclass(frozen=True)
class Installed:
    """A tool, its program on this machine, and what that says of its version."""

    tool: Tool
    program: str
    version: str


def _version(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return ((done.stdout or done.stderr).splitlines() or ["?"])[0].strip()


def _found(program: str) -> str | None:
    beside = Path(sys.executable).parent / program
    return str(beside) if beside.exists() else shutil.which(program)


def installed(paths: Mapping[str, str]) -> dict[str, Installed]:
    """The tools on this machine, by name; *paths* gives the programs of GeeseFS, goofys and Mountpoint by the tool's name."""
    from zosfs import __version__

    found: dict[str, Installed] = {}
    versions: dict[str, str] = {}
    for tool in TOOLS.values():
        program = sys.executable if tool.kind is Kind.OURS else paths.get(tool.name) or (_found(tool.program) if tool.program else None)
        if program is None:
            continue
        if program not in versions:
            option = "version" if tool.program in ("rclone", "juicefs") else "--version"
            versions[program] = __version__ if tool.kind is Kind.OURS else _version(program, option)
        found[tool.name] = Installed(tool, program, versions[program])
    return found


def _is_mounted(point: Path) -> bool:
    return any(line.split()[4] == str(point) for line in Path("/proc/self/mountinfo").read_text().splitlines())


@dataclass
class Cost:
    """What a daemon used: CPU seconds and peak resident bytes of its whole process tree."""

    cpu: float = 0.0
    peak: int = 0
    by_process: dict[int, float] = field(default_factory=dict)


def _tree(pid: int) -> list[int]:
    found = [pid]
    for child in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            below = child.read_text().split()
        except OSError:
            continue
        for word in below:
            found += _tree(int(word))
    return found


def cost_of(pid: int) -> Cost:
    """CPU and peak memory of a process and all below it, so far."""
    total = Cost()
    for each in _tree(pid):
        try:
            # clock_getcpuclockid(3): nanoseconds, where /proc counts hundredths of a second
            cpu = time.clock_gettime(~each << 3 | 2)
            ended = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[13:15]
            status = Path(f"/proc/{each}/status").read_text()
        except OSError:
            continue
        total.cpu += cpu + sum(map(int, ended)) / _TICKS
        words = status.partition("VmHWM:")[2].split()  # a process that has just ended has no memory any more
        total.peak += int(words[0]) * 1024 if words else 0
    return total


class Mounted:
    """A tool's mount of *target* with what it keeps below *home*; a context manager that unmounts and waits for the daemon."""

    def __init__(self, what: Installed, target: Target, home: Path) -> None:
        self._what, self._home = what, home
        self.path = home / "m"
        self.path.mkdir(exist_ok=True)
        self._command, more = what.tool.command(what.program, target, self.path, home)
        self._environment = environment(more)
        self._before = Cost()

    def __enter__(self) -> Mounted:
        with (self._home / "log").open("ab") as log:
            self._daemon = subprocess.Popen(
                self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + MOUNTED_WITHIN
        while not _is_mounted(self.path):
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                self._daemon.kill()
                self._daemon.wait()
                said = (self._home / "log").read_text("utf-8", "replace")[-2000:]
                raise RuntimeError(f"{self._what.tool.name} does not mount: {said}")
            time.sleep(0.01)
        os.stat(self.path)
        self._before = cost_of(self._daemon.pid)
        return self

    def cost(self) -> Cost:
        """What the daemon used since the mount became live; the peak of memory is since its start."""
        now = cost_of(self._daemon.pid)
        now.cpu -= self._before.cpu
        return now

    def kill(self) -> None:
        """End the daemon at once: whoever waits for the mount gets an error."""
        for pid in reversed(_tree(self._daemon.pid)):
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                pass
        subprocess.run(["umount", "-l", str(self.path)], check=False, capture_output=True)

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", str(self.path)], check=False, capture_output=True)
        try:
            self._daemon.wait(GONE_WITHIN)
        except subprocess.TimeoutExpired:
            self._daemon.kill()
            self._daemon.wait()
        if _is_mounted(self.path):
            subprocess.run(["umount", "-l", str(self.path)], check=False)


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Ours with *more*, without what would tell a tool of another server."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "ZOSFS_", "RCLONE_"))} | dict(more)
