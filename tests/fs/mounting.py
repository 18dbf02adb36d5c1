"""A zosfs daemon as a test sees it: started in the foreground, waited for, asked for its counters, and ended with checks.

Owns: the process, its mount point, its cache directory and its log. The daemon is always what `python -m zosfs` is
(tests.fs.daemons), and the mount a real one.
"""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from tests.fs.daemons import Daemon

ROOT = Path(__file__).resolve().parents[2]
WITHDRAWN = r"pyfuse3: fuse_\w+\(\): fuse_reply_\* failed with No such file"
"""What pyfuse3 says of an answer to a request that the kernel took back, as it does when a mount is taken away."""
READY_WITHIN, GONE_WITHIN = 120.0, 240.0
PATIENCE = 60.0
"""Seconds that anything is waited for at least: what comes at all comes at once on a quiet machine, and others are busy."""


class Server(Protocol):
    """What is needed of a server to mount one of its buckets."""

    url: str
    access_key: str
    secret_key: str
    kind: str
    ca_file: str


def pages_of(names: int) -> str:
    """For *patched* of a mount: its listings come in pages of so many *names*, so that fewer objects make several pages."""
    return (
        f"import zosfs.tree.walk, zosfs.store.gathering; zosfs.tree.walk.PAGE = {names}; "
        f"zosfs.store.gathering.GatheringStore.list_page.__kwdefaults__['max_keys'] = {names}"
    )


def wait_for(condition: Callable[[], Any], within: float, what: str) -> Any:
    """Poll *condition* until it is true and return its value; fail with *what* after *within* seconds, and not before PATIENCE."""
    within = max(within, PATIENCE)
    deadline = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:g} s: {what}")
        time.sleep(0.02)
    return value


def works_again(call: Callable[..., Any], *args: Any) -> Any:
    """Call until the server, which is there again, is found to be: what failed meanwhile may fail once more."""
    worked: list[Any] = []

    def works() -> bool:
        try:
            worked.append(call(*args))
        except OSError as error:
            if error.errno not in (errno.EIO, errno.ETIMEDOUT):
                raise
        return bool(worked)

    wait_for(works, 60, f"{call} to work again")
    return worked[0]


def is_mounted(path: Path) -> bool:
    """Whether the kernel's table of mounts has *path*; never blocks on a daemon that hangs."""
    escaped = str(path).replace("\\", "\\134").replace(" ", "\\040")
    return any(line.split()[4] == escaped for line in Path("/proc/self/mountinfo").read_text().splitlines())


def clean_environment() -> dict[str, str]:
    """The process's environment without anything that would configure a mount."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "ZOSFS_", "zos"))}


def option_words(options: dict[str, Any]) -> str:
    """*options* as one -o value: True is the bare name, False the name with `no` in front."""
    words = []
    for name, value in options.items():
        if value is True or value is False:
            words.append(name if value else f"no{name}")
        else:
            words.append(f"{name}={value}")
    return ",".join(words)


def passwd_file(directory: Path, server: Server) -> Path:
    """A file with the server's credentials, mode 0600."""
    path = directory / "passwd"
    path.touch(mode=0o600)
    path.write_text(f"{server.access_key}:{server.secret_key}\n")
    return path


def zosfs(*words: str | Path, env: dict[str, str] | None = None, timeout: float = 180) -> subprocess.CompletedProcess[str]:
    """Run `zosfs` with *words* to its end."""
    return subprocess.run(
        [sys.executable, "-m", "zosfs", *map(str, words)],
        cwd=ROOT, env={**clean_environment(), **(env or {})}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
        check=False,
    )  # fmt: skip


class Mount:
    """One living mount."""

    def __init__(self, home: Path, source: str, server: Server, options: dict[str, Any]) -> None:
        """Mount *source* on ``home/m`` and wait until it lives. *options* are -o options; those of the server are added.

        *patched* among them is Python that the daemon runs before it begins, so as to have other constants.
        """
        self.home = home
        self.path = home / "m"
        self.path.mkdir(exist_ok=True)
        self.cache_dir = Path(options.pop("cache_dir", home / "cache"))
        self.log_file = home / "log"
        self.server = server
        self.source = source
        self._forgiven: list[str] = [WITHDRAWN]
        everything = {
            "url": server.url, "passwd_file": passwd_file(home, server), "cache_dir": self.cache_dir, **options,
        }  # fmt: skip
        if server.url.startswith("https"):
            everything["ca_file"] = server.ca_file
        patched = everything.pop("patched", "")
        # what is patched has to be before anything else is read
        self._begin = ["-c", f"import sys\n{patched}\nfrom zosfs.cli.main import main\nsys.exit(main())"] if patched else []
        self.words = [source, str(self.path), "-f", "-o", option_words(everything)]
        self.process: Daemon | subprocess.Popen[bytes]
        self.start()

    def start(self) -> None:
        """Run the daemon and wait until the mount lives."""
        with self.log_file.open("ab") as log:
            if self._begin:
                self.process = subprocess.Popen(
                    [sys.executable, *self._begin, *self.words], cwd=ROOT, env=clean_environment(),
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
            else:
                self.process = Daemon(self.words, clean_environment(), log.fileno())

        def alive() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"the daemon ended with {self.process.returncode} before the mount lived:\n{self.log()}")
            return is_mounted(self.path)

        try:
            wait_for(alive, READY_WITHIN, f"the mount of {self.source}; log:\n{self.log()}")
            os.stat(self.path)
        except BaseException:
            self.kill()
            raise

    def log(self, since: int = 0) -> str:
        """What the daemon logged so far, from byte *since* on."""
        return self.log_file.read_bytes()[since:].decode("utf-8", "replace")

    def log_size(self) -> int:
        """Bytes logged so far."""
        return self.log_file.stat().st_size

    def forgive(self, pattern: str) -> None:
        """Lines of the log that match *pattern* are what the test is about, and no reason to fail."""
        self._forgiven.append(pattern)

    def complaints(self, since: int = 0) -> list[str]:
        """Lines of the log that no good run has: errors and tracebacks that were not forgiven."""
        lines = self.log(since).splitlines()
        bad = (line for line in lines if re.search(r"Traceback|\b(ERROR|CRITICAL)\b", line))
        return [line for line in bad if not any(re.search(pattern, line) for pattern in self._forgiven)]

    def counters(self) -> dict[str, int]:
        """The daemon's counters."""
        numbers: dict[str, int] = json.loads(os.getxattr(self.path, "user.zos.stats"))
        return numbers

    @contextmanager
    def requests(self) -> Iterator[dict[str, int]]:
        """The requests that the store got within the block, by verb; filled when the block ends. Verbs not sent are absent."""
        spent: dict[str, int] = {}
        before = self.counters()
        yield spent
        after = self.counters()
        prefix = "requests_"
        for name, value in after.items():
            if name.startswith(prefix) and value != before.get(name, 0):
                spent[name.removeprefix(prefix)] = value - before.get(name, 0)

    @contextmanager
    def moved(self) -> Iterator[dict[str, int]]:
        """The growth of all counters within the block; filled when the block ends."""
        growth: dict[str, int] = {}
        before = self.counters()
        yield growth
        growth.update({name: value - before.get(name, 0) for name, value in self.counters().items()})

    def stop(self) -> None:
        """Unmount, wait for the daemon, and check that it ended well and left nothing."""
        if self.process.poll() is None or is_mounted(self.path):
            ended = subprocess.run(["umount", str(self.path)], capture_output=True, text=True, timeout=GONE_WITHIN, check=False)
            if ended.returncode:
                self.kill()
                raise AssertionError(f"umount failed: {ended.stderr}\n{self.log()}")
        try:
            status = self.process.wait(GONE_WITHIN)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the daemon did not end after umount:\n{self.log()}") from None
        assert status == 0, f"the daemon ended with {status}:\n{self.log()}"
        assert not is_mounted(self.path), "something is left mounted"

    def kill(self) -> None:
        """kill -9, and take the dead mount away."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        if is_mounted(self.path):
            subprocess.run(["umount", "-l", str(self.path)], check=False, capture_output=True)

    def again(self) -> None:
        """Unmount and mount again with the same options and cache directory."""
        self.stop()
        self.start()

    def finish(self) -> None:
        """What every test ends with: `stop` if it still runs, and a log without complaints."""
        if self.process.poll() is None:
            self.stop()
        elif is_mounted(self.path):
            self.kill()
            raise AssertionError(f"the daemon died and left its mount:\n{self.log()}")
        complaints = self.complaints()
        assert not complaints, "the log complains:\n" + "\n".join(complaints) + f"\n\n{self.log()[-3000:]}"
