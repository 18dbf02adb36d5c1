"""This machine's own root under a real systemd, on a throw-away overlay: booted, asked, shut down in order.

Only what the test lays over the root differs; nothing of it reaches the machine. The network is the machine's.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = """[Unit]
Requires=basic.target
Wants=remote-fs.target network-online.target dbus.service
After=basic.target remote-fs.target
AllowIsolate=yes
"""
_SETUP = """
mount -t tmpfs -o mode=755 tmpfs "$0"
mkdir "$0/upper" "$0/work" "$0/root"
cp -a "$LAYER/." "$0/upper/"
mount -t overlay overlay -o "lowerdir=/,upperdir=$0/upper,workdir=$0/work" "$0/root"
exec systemd-nspawn -q -D "$0/root" "$@"
"""


def why_not() -> str:
    """Why no container can be booted here, "" when one can."""
    if os.geteuid() != 0:
        return "needs root"
    if shutil.which("systemd-nspawn") is None:
        return "systemd-nspawn is not installed (apt-get install systemd-container)"
    if not os.path.exists("/dev/fuse"):
        return "/dev/fuse is missing"
    done = subprocess.run(["unshare", "-m", "true"], capture_output=True, text=True, check=False)
    return f"no mount namespaces here: {done.stderr.strip()}" if done.returncode else ""


class Container:
    """One boot. *files* are laid over the root before it: path to text; *links* path to target."""

    def __init__(self, base: Path, files: Mapping[str, str], *, links: Mapping[str, str] | None = None) -> None:
        self.name = f"zosfs-{uuid.uuid4().hex[:8]}"
        self._base = base
        self._layer = base / "layer"
        self._console = base / "console"
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0
        groups = [Path("/sys/fs/cgroup") / name for name in ("systemd", "unified")]
        self._groups = [group for group in groups if (group / "cgroup.procs").exists()] or [Path("/sys/fs/cgroup")]
        self._fuse_mode = stat.S_IMODE(os.stat("/dev/fuse").st_mode)
        for path, text in {**files, "etc/systemd/system/zosfs-test.target": TARGET}.items():
            target = self._layer / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        for path, aim in (links or {}).items():
            link = self._layer / path.lstrip("/")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(aim)

    @property
    def layer(self) -> Path:
        """What is laid over the root; to be filled before `boot`."""
        return self._layer

    def boot(self, seconds: float = 300) -> str:
        """Boot and return systemd's word for its state (running, degraded); fails with the console's text."""
        scratch = self._base / "scratch"
        scratch.mkdir()
        for group in self._groups:
            (group / self.name).mkdir()
        command = ["unshare", "-m", "--propagation", "private", "sh", "-ec", _SETUP, str(scratch), "--boot", "--register=no"]
        command += ["--keep-unit", f"--machine={self.name}", "--link-journal=no", "--bind=/dev/fuse", "--console=pipe"]
        command += ["--bind=/dev/autofs"] if os.path.exists("/dev/autofs") else []
        # the container has a /tmp of its own
        command += [f"--bind-ro={path}" for path in {str(ROOT), sys.prefix} if path.startswith("/tmp/")]
        command += ["systemd.unit=zosfs-test.target"]
        inside = "; ".join(f"echo $$ > {group / self.name / 'cgroup.procs'}" for group in self._groups)
        with open(self._console, "wb") as console:
            self._process = subprocess.Popen(
                ["sh", "-ec", inside + '; exec "$@"', "sh", *command], env={**os.environ, "LAYER": str(self._layer)},
                stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + seconds
        state = ""
        while time.monotonic() < deadline and self._process.poll() is None:
            self._leader = self._leader or self._find_leader()
            if self._leader:
                state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
                if state in ("running", "degraded"):
                    return state
            time.sleep(0.1)
        raise AssertionError(f"not booted ({state}):\n{self.console()}")

    def _find_leader(self) -> int:
        """The container's first process; 0 while there are only those that prepare it."""
        assert self._process is not None
        path = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        for child in path.read_text().split():
            try:
                status = Path(f"/proc/{child}/status").read_text()
            except OSError:
                continue  # it ended meanwhile
            inside = status.partition("NSpid:")[2].partition("\n")[0].split()
            if len(inside) > 1 and inside[-1] == "1":
                return int(child)
        return 0

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run *command* inside, with an empty environment."""
        entry = ["nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-n", "-p", "-C", "--", "env", "-i"]
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        done = subprocess.run(
            [*entry, "HOME=/root", "LANG=C.UTF-8", path, *command], capture_output=True, text=True, check=False, timeout=300
        )
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}\n{self.console()}"
        return done

    def shut_down(self, seconds: float = 300) -> float:
        """Power off as systemd does it and return how many seconds that took."""
        assert self._process is not None
        began = time.monotonic()
        self.run("systemctl", "--no-block", "poweroff", check=False)
        self._process.wait(seconds)
        return time.monotonic() - began

    def console(self) -> str:
        """What the boot has said so far."""
        return self._console.read_text("utf-8", "replace") if self._console.exists() else ""

    def journal(self, *words: str) -> str:
        """The journal's lines inside."""
        return self.run("journalctl", "-b", "--no-pager", *words, check=False).stdout

    def close(self) -> None:
        """End it whatever state it is in, and leave nothing behind."""
        if self._process is not None and self._process.poll() is None:
            if self._leader:
                self.run("systemctl", "--force", "--force", "--no-block", "poweroff", check=False)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                leader = self._leader or self._find_leader()
                if leader:
                    os.kill(leader, signal.SIGKILL)  # it would outlive what started it
                self._process.kill()
                self._process.wait()
                deadline = time.monotonic() + 30
                while leader and Path(f"/proc/{leader}").exists() and time.monotonic() < deadline:
                    time.sleep(0.05)
        for group in self._groups:
            self._remove_group(group / self.name)
        os.chmod("/dev/fuse", self._fuse_mode)  # the container's systemd-tmpfiles opens the shared node to everybody

    def _remove_group(self, group: Path) -> None:
        folders: Sequence[Path] = sorted((path for path in group.rglob("*") if path.is_dir()), reverse=True)
        for folder in [*folders, group]:
            try:
                folder.rmdir()
            except OSError:
                pass
