"""Daemon, life, registry and umount around a real kernel mount that has no store behind it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from zosfs.mount import registry
from zosfs.mount.mountpoint import mounted_on

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0
"""Seconds that anything is waited for: what comes at all comes at once on a quiet machine, and others are busy."""
STUB = str(Path(__file__).with_name("stub.py"))


def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait for *condition*; fail when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def waits_for_a_process(pid: int) -> bool:
    """Whether *pid* holds a pidfd."""
    links = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(fd))
    return "anon_inode:[pidfd]" in links


class Stub:
    """Runs stub mounts on one directory."""

    def __init__(self, base: Path) -> None:
        self.directory = str(base / "mnt")
        self.runtime = base / "run"
        self.gate = base / "gate"
        os.mkdir(self.directory)
        self.environ = {**os.environ, "PYTHONPATH": str(ROOT), "ZOSFS_RUNTIME_DIR": str(self.runtime)}

    def behind(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Start one in the background; the answer of its parent."""
        command = [sys.executable, STUB, self.directory, *words]
        return subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=180, check=False)

    def front(self, *words: str, **environ: str) -> subprocess.Popen[str]:
        """Start one in front and wait until it is live."""
        command = [sys.executable, STUB, self.directory, "front", *words]
        process = subprocess.Popen(command, env={**self.environ, **environ}, stderr=subprocess.PIPE, text=True)
        until(lambda: self.pids() or process.poll() is not None)
        return process

    def zosfs(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A zosfs command that looks at the same runtime directory."""
        command = [sys.executable, "-m", "zosfs", *words]
        return subprocess.run(command, env=self.environ, cwd="/", capture_output=True, text=True, timeout=180, check=False)

    def pids(self) -> list[int]:
        """The processes that the registry tells of."""
        return [int(path.stem) for path in self.runtime.glob("*.json") if registry.born(int(path.stem))]

    @property
    def mounted(self) -> bool:
        """Whether the kernel has a mount on the directory."""
        return mounted_on(self.directory) is not None


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Stub]:
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        pytest.skip("needs root and /dev/fuse")
    stub = Stub(tmp_path)
    yield stub
    stub.gate.touch()
    while stub.mounted:
        subprocess.run(["umount", "-l", stub.directory], check=False)
    for pid in stub.pids():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_the_parent_returns_when_the_mount_is_live_and_lets_go_of_the_terminal(stub: Stub) -> None:
    answer = stub.behind()  # capture_output would wait for a daemon that kept stdout
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    assert os.path.isfile(f"{stub.directory}/file")
    (pid,) = stub.pids()
    assert os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)} == {"/dev/null"}
    done = stub.zosfs("umount", stub.directory)
    assert (done.returncode, done.stderr) == (0, "")
    assert not stub.mounted
    assert not registry.born(pid)
    assert not list(stub.runtime.glob("*"))


def test_no_descriptor_of_the_caller_stays_open(stub: Stub, tmp_path: Path) -> None:
    with open(tmp_path / "leak", "w") as leak:
        command = [sys.executable, STUB, stub.directory]
        assert subprocess.run(command, env=stub.environ, pass_fds=[leak.fileno()], check=False, timeout=180).returncode == 0
    (pid,) = stub.pids()
    assert not [fd for fd in os.listdir(f"/proc/{pid}/fd") if "leak" in os.readlink(f"/proc/{pid}/fd/{fd}")]


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("fail=the bucket does not exist", "zosfs: the bucket does not exist\n"),
        ("die", "zosfs: the background process ended by SIGKILL before the mount was live; the log says more\n"),
    ],
)
def test_a_mount_that_cannot_be_is_one_line(stub: Stub, word: str, line: str) -> None:
    answer = stub.behind(word)
    assert (answer.returncode, answer.stdout, answer.stderr) == (32, "", line)
    assert not stub.mounted


def test_a_mount_that_hangs_is_given_up_and_taken_back(stub: Stub) -> None:
    answer = stub.behind("hang", "patience=2")  # it hangs for longer than the answer is waited for here
    assert answer.returncode == 32
    assert "not live after 2 s" in answer.stderr
    assert not stub.mounted


def test_umount_waits_for_delivery(stub: Stub) -> None:
    assert stub.behind(f"drain={stub.gate}").returncode == 0
    umount = subprocess.Popen([sys.executable, "-m", "zosfs", "umount", stub.directory], env=stub.environ, cwd=ROOT)
    until(lambda: not stub.mounted)
    (pid,) = stub.pids()
    until(lambda: registry._load(stub.runtime / f"{pid}.json").delivering == (1, 1 << 20))  # type: ignore[union-attr]
    facts = json.loads(stub.zosfs("status", "--json").stdout)
    assert [fact["delivering"] for fact in facts if fact["mountpoint"] == stub.directory] == [[1, 1 << 20]]
    assert umount.poll() is None
    stub.gate.touch()
    assert umount.wait(PATIENCE) == 0
    assert Path(f"{stub.gate}.delivered").exists()
    assert not registry.born(pid)


def test_umount_again_waits_for_one_that_still_delivers(stub: Stub) -> None:
    assert stub.behind(f"drain={stub.gate}").returncode == 0
    assert stub.zosfs("umount", "--no-wait", stub.directory).returncode == 0
    again = subprocess.Popen([sys.executable, "-m", "zosfs", "umount", stub.directory], env=stub.environ, cwd=ROOT)
    (pid,) = stub.pids()
    until(lambda: waits_for_a_process(again.pid))
    stub.gate.touch()
    assert again.wait(PATIENCE) == 0
    assert not registry.born(pid)


def test_what_stays_undelivered_is_told(stub: Stub) -> None:
    assert stub.behind("keep=the server is gone").returncode == 0
    done = stub.zosfs("umount", stub.directory)
    assert done.returncode == 1
    assert "the server is gone" in done.stderr
    assert os.path.dirname(stub.directory) in done.stderr
    assert stub.zosfs("umount", stub.directory).returncode == 32


def test_sigterm_delivers_while_serving_and_a_second_one_does_not_kill(stub: Stub) -> None:
    process = stub.front(f"drain={stub.gate}")
    process.send_signal(signal.SIGTERM)
    until(lambda: registry._load(stub.runtime / f"{process.pid}.json").delivering)  # type: ignore[union-attr]
    assert os.path.isfile(f"{stub.directory}/file")
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGHUP)
    assert os.path.isfile(f"{stub.directory}/file")
    assert process.poll() is None
    stub.gate.touch()
    assert process.wait(PATIENCE) == 0
    assert not stub.mounted


def test_sigterm_ends_a_mount_in_use(stub: Stub) -> None:
    process = stub.front()
    held = os.open(f"{stub.directory}/file", os.O_RDONLY)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    assert not stub.mounted
    with pytest.raises(OSError, match="not connected"):
        os.close(held)


def test_umount_of_a_mount_in_use_says_so(stub: Stub) -> None:
    process = stub.front()
    with open(f"{stub.directory}/file"):
        done = stub.zosfs("umount", stub.directory)
        assert done.returncode == 32
        assert "in use" in done.stderr
        assert stub.mounted
        assert stub.zosfs("umount", "--lazy", "--no-wait", stub.directory).returncode == 0
        assert not stub.mounted
    assert process.wait(PATIENCE) == 0


def test_a_lazy_umount_says_whom_it_waits_for(stub: Stub) -> None:
    assert stub.behind().returncode == 0
    command = [sys.executable, "-m", "zosfs", "umount", "--lazy", stub.directory]
    with open(f"{stub.directory}/file"):
        waiting = subprocess.Popen(command, env=stub.environ, cwd="/", stderr=subprocess.PIPE, text=True)
        assert waiting.stderr is not None
        said = waiting.stderr.readline()
        assert not stub.mounted
        assert waiting.poll() is None
    assert said == (
        "zosfs: stub: detached; waiting until programs have closed what they have open there, and it is delivered "
        "(that goes on if this is interrupted)\n"
    )
    assert waiting.wait(PATIENCE) == 0
    waiting.stderr.close()


def test_the_next_mount_is_not_taken_away_by_the_one_still_delivering(stub: Stub) -> None:
    first = stub.front(f"drain={stub.gate}")
    subprocess.run(["umount", "-i", stub.directory], check=True)
    assert stub.behind().returncode == 0
    stub.gate.touch()
    assert first.wait(PATIENCE) == 0
    assert os.path.isfile(f"{stub.directory}/file")
    assert stub.zosfs("umount", stub.directory).returncode == 0


def test_systemd_is_told(stub: Stub, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.bind(str(tmp_path / "notify"))
        said: list[str] = []

        def listen() -> None:  # all the time: what a full socket does not take is not said again
            while word := link.recv(4096):
                said.extend(word.decode().splitlines())

        threading.Thread(target=listen, daemon=True).start()
        process = stub.front(f"drain={stub.gate}", NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="200000")

        def hear(text: str, since: int = 0) -> None:
            until(lambda: any(text in line for line in said[since:]))

        hear("READY=1")
        hear("STATUS=serving stub on")
        hear("WATCHDOG=1", since=len(said))
        process.send_signal(signal.SIGTERM)
        hear("STOPPING=1")
        hear("EXTEND_TIMEOUT_USEC=5000000")
        hear("STATUS=delivering 1 files")
        stub.gate.touch()
        assert process.wait(PATIENCE) == 0
        link.shutdown(socket.SHUT_RDWR)


def test_status_and_stats_ask_the_mount(stub: Stub) -> None:
    assert stub.behind().returncode == 0
    status = stub.zosfs("status", stub.directory)
    assert status.returncode == 0
    assert f"stub on {stub.directory}" in status.stdout
    assert "open files: 1" in status.stdout
    stats = stub.zosfs("stats", f"{stub.directory}/file")
    assert stats.returncode == 0
    assert stats.stdout.split()[:2] == ["requests_get", "3"]
    assert json.loads(stub.zosfs("stats", "--json", stub.directory).stdout)["requests_get"] == 3
    for interval in ("-1", "0", "nan"):
        never = stub.zosfs("stats", stub.directory, "--watch", interval)
        assert (never.returncode, never.stderr) == (1, f"zosfs: --watch {interval}: must be more than 0 seconds\n")
    elsewhere = stub.zosfs("stats", "/")
    assert (elsewhere.returncode, elsewhere.stderr) == (1, "zosfs: / does not lie in a mount of zosfs\n")


def test_a_killed_mount_is_cleaned_before_the_next(stub: Stub) -> None:
    from zosfs.mount.mountpoint import prepare

    process = stub.front()
    process.kill()
    process.wait()
    with pytest.raises(OSError, match="not connected"):
        os.statvfs(stub.directory)
    assert prepare(stub.directory) == stub.directory
    assert not stub.mounted
    assert stub.behind().returncode == 0


def test_a_signal_that_means_something_to_other_tools_ends_nothing(stub: Stub) -> None:
    process = stub.front()
    process.send_signal(signal.SIGUSR1)  # s3fs looks through its cache then
    process.send_signal(signal.SIGHUP)
    with open(f"{stub.directory}/file"):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0


def test_status_tells_of_a_dead_mount_and_of_one_that_was_detached(stub: Stub) -> None:
    process = stub.front()
    with open(f"{stub.directory}/file"):
        subprocess.run(["umount", "-l", "-i", stub.directory], check=True)
        said = stub.zosfs("status")
        assert f"stub on {stub.directory}" in said.stdout
        assert "detached: programs that have files open there go on with them" in said.stdout
    assert process.wait(PATIENCE) == 0
    process = stub.front()
    process.kill()
    process.wait()
    line = f"stub on {stub.directory}: dead, its process has ended; mount it again, or `zosfs umount {stub.directory}`\n"
    assert line in stub.zosfs("status").stdout
    said = stub.zosfs("status", stub.directory)
    assert (said.returncode, said.stdout) == (1, line)
    (fact,) = json.loads(stub.zosfs("status", stub.directory, "--json").stdout)
    assert (fact["mountpoint"], fact["status"]) == (stub.directory, {"error": "its process has ended"})
    assert stub.zosfs("umount", stub.directory).returncode == 0
    assert stub.directory not in stub.zosfs("status").stdout


def test_a_signal_while_it_comes_up_leaves_no_dead_mount(stub: Stub) -> None:
    for _ in range(3):
        process = subprocess.Popen([sys.executable, STUB, stub.directory, "front"], env=stub.environ, stderr=subprocess.PIPE)
        until(lambda: stub.mounted)
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
        assert not stub.mounted


def test_status_tells_of_what_was_left_until_the_next_mount(stub: Stub) -> None:
    process = stub.front("keep=the server is gone")
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 1
    assert "not everything was delivered (the server is gone)" in stub.zosfs("status").stdout  # no [Errno 5] in front
    assert stub.behind().returncode == 0
    assert "the server is gone" not in stub.zosfs("status").stdout
