"""Session on the real kernel: what is mounted, what INIT negotiated, and that nothing hangs or stays."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from zosfs.mount import handshake
from zosfs.mount.mountpoint import mounted_on

ROOT = Path(__file__).resolve().parents[2]
needs_root = pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="mounts as root")
PATIENCE = 60.0
NOBODY = 65534


class Served:
    """A running served.py on *path*."""

    def __init__(self, path: Path, source: str, *words: str) -> None:
        self.path = path
        command = [sys.executable, "-m", "tests.mount.served", str(path), source, *words]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        self.lines: list[str] = []
        self._live = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.strip())
            self._live.set()
        self._live.set()

    def wait_live(self) -> None:
        assert self._live.wait(PATIENCE)
        assert self.lines, self.process.communicate()[1]
        assert self.lines[0].startswith("live")

    def counts(self) -> dict[str, int]:
        found: dict[str, int] = json.loads((self.path / "counts").read_text())
        return found

    def end(self) -> int:
        return self.process.wait(PATIENCE)


@contextlib.contextmanager
def served(path: Path, source: str = "bucket", *words: str) -> Iterator[Served]:
    mount = Served(path, source, *words)
    try:
        mount.wait_live()
        yield mount
    finally:
        if mount.process.poll() is None:
            subprocess.run(["umount", "-l", str(path)], check=False, stderr=subprocess.DEVNULL)
            try:
                mount.end()
            except subprocess.TimeoutExpired:
                mount.process.kill()
        else:
            subprocess.run(["umount", "-l", str(path)], check=False, stderr=subprocess.DEVNULL)
        assert mounted_on(str(path)) is None


def use(mount: Served) -> None:
    file = mount.path / "file"
    assert file.read_bytes() == b"hello\n"
    with open(file, "r+b") as out:
        out.seek(6)
        out.write(b"world\n")
    assert file.read_bytes() == b"hello\nworld\n"
    assert sorted(os.listdir(mount.path)) == ["counts", "file"]
    with pytest.raises(FileNotFoundError):
        os.stat(mount.path / "nothing")


@needs_root
@pytest.mark.parametrize("carry", ["1", "0"])
def test_files_work_and_unmounting_leaves_nothing(tmp_path: Path, carry: str) -> None:
    with served(tmp_path, "bucket", "carry=" + carry) as mount:
        use(mount)
        subprocess.run(["umount", str(tmp_path)], check=True)
        assert mount.end() == 0
        assert mounted_on(str(tmp_path)) is None


@needs_root
def test_the_source_is_shown_exactly(tmp_path: Path) -> None:
    source = "桶,a\\b:/päth with space"
    with served(tmp_path, source, "ro=1"):
        there = mounted_on(str(tmp_path))
        assert there is not None
        assert (there.type, there.source) == ("fuse.zosfs", source)
        with pytest.raises(OSError, match="Read-only"):
            (tmp_path / "file").write_bytes(b"x")


@needs_root
def test_lookups_in_one_directory_run_side_by_side(tmp_path: Path) -> None:
    with served(tmp_path, "bucket", "together=10"):
        clients = [subprocess.Popen(["stat", tmp_path / f"together{n}"], stdout=subprocess.DEVNULL) for n in range(10)]
        # none of them is answered before the last one was asked
        assert [client.wait(PATIENCE) for client in clients] == [0] * 10


@needs_root
def test_writes_do_not_ask_for_capabilities(tmp_path: Path) -> None:
    with served(tmp_path) as mount:
        with open(tmp_path / "file", "r+b", buffering=0) as out:
            for _ in range(20):
                out.write(b"x" * 100)
        counts = mount.counts()
        assert counts["write"] == 20
        assert counts.get("getxattr security.capability", 0) <= 1  # the kernel remembers the first answer, if it asks at all


@needs_root
def test_the_kernel_reads_ahead_as_far_as_the_option_says(tmp_path: Path) -> None:
    with served(tmp_path, "bucket", f"max_readahead={2 << 20}"):
        there = mounted_on(str(tmp_path))
        assert there is not None
        setting = Path(f"/sys/class/bdi/{there.device}/read_ahead_kb")
        deadline = time.monotonic() + PATIENCE
        while setting.read_text().strip() != "2048":
            assert time.monotonic() < deadline
            time.sleep(0.05)


@needs_root
def test_sigterm_of_a_mount_in_use_ends_it(tmp_path: Path) -> None:
    with served(tmp_path) as mount:
        used = os.open(tmp_path / "file", os.O_RDONLY)
        mount.process.send_signal(signal.SIGTERM)
        assert mount.end() == 0
        assert mounted_on(str(tmp_path)) is None
        with contextlib.suppress(OSError):
            os.close(used)


@needs_root
def test_killed_clients_do_not_stop_the_loop(tmp_path: Path) -> None:
    """Requests that vanish before they are read made stock pyfuse3 sleep with the GIL held."""
    script = (
        "import os, sys, threading\n"
        "def look(n):\n"
        "    while True:\n"
        "        try: os.stat(f'{sys.argv[1]}/none{n}')\n"
        "        except OSError: pass\n"
        "[threading.Thread(target=look, args=(n,)).start() for n in range(4)]\n"
    )
    with served(tmp_path) as mount:
        for _ in range(25):
            clients = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) for _ in range(2)]
            deadline = time.monotonic() + PATIENCE
            before = mount.counts().get("lookup", 0)
            while mount.counts()["lookup"] < before + 100:
                assert time.monotonic() < deadline
            for client in clients:
                client.kill()
                client.wait(PATIENCE)
        heard = len(mount.lines)
        deadline = time.monotonic() + PATIENCE
        while len(mount.lines) < heard + 2:  # nothing asks anything now: only an unblocked loop goes on
            assert time.monotonic() < deadline
            time.sleep(0.1)
        stood = [float(line.split()[1]) for line in mount.lines if line.startswith("stood")]
        assert stood[-1] < 20


@needs_root
def test_a_client_of_a_slow_answer_holds_up_nobody(tmp_path: Path) -> None:
    with served(tmp_path) as mount:
        client = subprocess.Popen(["stat", str(tmp_path / "stuck")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while not mount.counts().get("stuck"):
            assert time.monotonic() < deadline
        for _ in range(20):
            assert (tmp_path / "file").read_bytes() == b"hello\n"
        assert client.poll() is None, "it waits all the time"
        client.kill()
        assert not (tmp_path / "free").exists()
        client.wait(PATIENCE)


@needs_root
@pytest.mark.skipif(shutil.which("fusermount3") is None, reason="fusermount3 is not installed")
def test_an_ordinary_user_mounts_through_fusermount3() -> None:
    if os.stat("/dev/fuse").st_mode & 0o006 != 0o006:
        pytest.skip("/dev/fuse is for root only on this machine (udev makes it 0666)")
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chown(name, NOBODY, NOBODY)
        with served(Path(name), "桶,1", f"uid={NOBODY}") as mount:
            there = mounted_on(name)
            assert there is not None
            assert (there.type, there.source, there.owner) == ("fuse.zosfs", "桶,1", NOBODY)
            read = subprocess.run(["cat", f"{name}/file"], user=NOBODY, group=NOBODY, capture_output=True, check=True)
            assert read.stdout == b"hello\n"
            mount.process.send_signal(signal.SIGTERM)
            assert mount.end() == 0
            assert mounted_on(name) is None


@needs_root
def test_what_cannot_be_mounted_on_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, word in (("missing", "does not exist"), ("file", "is not a directory")):
        mount = Served(tmp_path / name, "bucket")
        _, said = mount.process.communicate(timeout=PATIENCE)
        assert mount.process.returncode == 1
        assert word in said
        assert said.count("\n") == 1


def reply_of(flags: int, error: int = 0) -> bytes:
    return struct.pack("<IiQ", 80, error, 7) + struct.pack("<IIIIHHIIHHI", 7, 31, 131072, flags, 0, 0, 1 << 20, 1, 256, 0, 0) + b"\0" * 28


def test_the_handshake_adds_what_the_kernel_offers() -> None:
    request = struct.pack("<IIQQIIII", 104, handshake.INIT, 7, 0, 0, 0, 0, 0) + struct.pack("<IIII", 7, 45, 131072, 0x73FFFFFB)
    offer = handshake.offer_of(request.ljust(104, b"\0"))
    done = handshake.complete(reply_of(0xB039), offer, max_background=64, max_readahead=4 << 20)
    assert len(done) == len(reply_of(0))
    _, _, ahead, flags, background, congestion, largest = struct.unpack_from("<IIIIHHI", done, 16)
    assert flags == 0xB039 | handshake.PARALLEL_DIROPS | handshake.HANDLE_KILLPRIV_V2
    assert (ahead, background, congestion, largest) == (4 << 20, 64, 48, 1 << 20)
    assert done[:16] == reply_of(0)[:16]


def test_the_handshake_asks_an_old_kernel_for_nothing_new() -> None:
    offer = handshake.Offer(7, 26, handshake.PARALLEL_DIROPS)
    done = handshake.complete(reply_of(0), offer, max_background=10**6, max_readahead=0)
    assert struct.unpack_from("<IIIIHH", done, 16)[3:] == (handshake.PARALLEL_DIROPS, 0xFFFF, 0xFFFF * 3 // 4)


def test_the_handshake_leaves_alone_what_it_does_not_know() -> None:
    offer = handshake.Offer(7, 45, 0xFFFFFFFF)
    for reply in (b"", b"short", reply_of(0, error=-71)):
        assert handshake.complete(reply, offer, max_background=64, max_readahead=1) == reply
    with pytest.raises(ValueError, match="INIT"):
        handshake.offer_of(b"\0" * 100)
