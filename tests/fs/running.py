"""Programs run on a mount, and material for them to work on."""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

OPENAT, PWRITE, RENAME = 257, 18, 82
"""Numbers of system calls on x86-64."""


def run(
    *argv: str | Path, cwd: Path | None = None, ok: Sequence[int] = (0,), timeout: float = 240, stdin: str = "",
    env: dict[str, str] | None = None,
) -> str:  # fmt: skip
    """Run a program, check that its status is one of *ok*, and return what it wrote to stdout."""
    done = subprocess.run(
        [str(word) for word in argv], cwd=cwd, capture_output=True, timeout=timeout, check=False,
        input=stdin.encode(), env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
    )  # fmt: skip
    out, err = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
    assert done.returncode in ok, f"{argv} ended with {done.returncode}\n{out[-3000:]}\n{err[-3000:]}"
    return out


def python(script: str, *argv: str | Path) -> subprocess.Popen[str]:
    """Start a Python process that runs *script* with *argv*."""
    return subprocess.Popen([sys.executable, "-c", script, *map(str, argv)], stderr=subprocess.PIPE, text=True)


def in_the_kernel(number: int, thread: int) -> bool:
    """Whether *thread* of this process is in the system call *number*."""
    with open(f"/proc/self/task/{thread}/syscall") as told:
        return told.read().split()[0] == str(number)


def asleep(thread: int) -> bool:
    """Whether *thread* of this process waits for something (proc(5), the state in stat)."""
    with open(f"/proc/self/task/{thread}/stat") as told:
        return told.read().rpartition(")")[2].split()[0] in "SD"


def join(*processes: subprocess.Popen[str], timeout: float = 120) -> None:
    """Wait for processes and check that each ended well."""
    for process in processes:
        _, err = process.communicate(timeout=timeout)
        assert process.returncode == 0, err


def noise(size: int, seed: int = 0) -> bytes:
    """*size* bytes that no compression shrinks, the same for the same *seed*."""
    return random.Random(seed).randbytes(size)


def sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as f:
        while piece := f.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def plant(root: Path, files: int = 40) -> Path:
    """A small varied tree under *root*: text, noise, empty files, an empty directory, links, modes and times; returns *root*."""
    rng = random.Random(files)
    root.mkdir(parents=True, exist_ok=True)
    (root / "empty-dir").mkdir()
    for i in range(files):
        directory = root / f"d{i % 5}" / f"e{i % 3}"
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"file {i}.txt"
        if i % 4 == 0:
            path.write_bytes(rng.randbytes(rng.randrange(200_000)))
        else:
            path.write_text("".join(f"line {n} of {i} needle{n * i}\n" for n in range(rng.randrange(50))))
        os.utime(path, ns=(1_500_000_000_123_456_789 + i, 1_400_000_000_987_654_321 + i))
        path.chmod(0o600 + i % 8)
    (root / "empty").touch()
    (root / "run.sh").write_text("#!/bin/sh\necho planted\n")
    (root / "run.sh").chmod(0o755)
    (root / "link").symlink_to("d0/e0/file 0.txt")
    (root / "dangling").symlink_to("nowhere/at all")
    for directory in (*(path for path in root.rglob("*") if path.is_dir() and not path.is_symlink()), root):
        os.utime(directory, ns=(1_300_000_000_000_000_000, 1_300_000_000_500_000_000))
    return root


def facts(root: Path, *, times: bool = True) -> list[str]:
    """Everything that `cp -a` promises to keep, of each name below *root*: type, mode, owner, size, target, mtime, content."""
    lines = []
    for path in sorted(root.rglob("*")):
        info = path.lstat()
        content = sha256(path) if path.is_file() and not path.is_symlink() else ""
        target = os.readlink(path) if path.is_symlink() else ""
        size = info.st_size if not path.is_dir() else 0
        mtime = info.st_mtime_ns if times and not path.is_symlink() else 0
        lines.append(f"{path.relative_to(root)} {info.st_mode:o} {info.st_uid}:{info.st_gid} {size} {mtime} {target} {content}")
    return lines


def put_many(s3: Any, bucket: str, bodies: Mapping[str, bytes]) -> None:
    """Make an object of each key, eight at a time; *s3* signs only, which costs a quarter of what putting them with it does."""
    where = urlsplit(s3.meta.endpoint_url)

    def put(some: Iterable[tuple[str, bytes]]) -> None:
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=120)
        for key, body in some:
            connection.request("PUT", s3.generate_presigned_url("put_object", {"Bucket": bucket, "Key": key}), body)
            with connection.getresponse() as answer:
                assert answer.status == 200, (key, answer.status, answer.read())
                answer.read()
        connection.close()

    rows = list(bodies.items())
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, (rows[n::8] for n in range(8))))


def refused(number: int | tuple[int, ...], call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Check that *call* fails with errno *number* (or one of them)."""
    allowed = number if isinstance(number, tuple) else (number,)
    names = "/".join(errno.errorcode[one] for one in allowed)
    failure = None
    try:
        call(*args, **kwargs)
    except OSError as error:
        failure = error
    assert failure is not None, f"no error instead of {names}"
    assert failure.errno in allowed, f"{failure} instead of {names}"


def sync_directory(path: Path) -> None:
    """fsync(2) of a directory."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
