"""`zosfs warmup PATH…`: fetch files into the chunk cache, so that reading them later does not touch the network.

Owns: which files, how many at once, the progress shown. The daemon fetches: each piece is one getxattr of user.zos.warm.START-END.
"""

from __future__ import annotations

import argparse
import errno
import os
import shlex
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from zosfs.cli.ask import ask, root_of
from zosfs.mount.daemon import say

interrupted = threading.Event()
"""Set at Ctrl-C: no further piece is asked for."""
NO_ROOM = "the cache has no room for it (mount options cache_size and free_space)"
LEAST, FIRST, MOST = 1 << 20, 2 << 20, 64 << 20
"""Bytes that the daemon is asked for at once at least, at first and at most: what the progress moves by. A question that takes minutes is
given up, and Ctrl-C waits for those under way."""
SOON, LATE = 1.0, 10.0
"""Seconds for a piece: next time it is larger when it took less, and smaller when it took more."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The paths, and whether to go below directories."""
    parser.add_argument("paths", metavar="PATH", nargs="+", help="a file on a mount; with --recursive a directory, too")
    parser.add_argument("-r", "--recursive", action="store_true", help="all files below a directory")
    parser.add_argument("--jobs", type=int, default=4, metavar="N", help="files at once [4]")


def _files(path: str, recursive: bool, refuse: Callable[[OSError], None]) -> Iterator[tuple[str, int]]:
    """The regular files that *path* means, and their sizes. What of it cannot be looked at is told to *refuse*; the rest comes."""
    if not os.path.isdir(path):
        try:
            yield path, os.stat(path).st_size
        except OSError as error:
            refuse(error)
        return
    if not recursive:
        refuse(IsADirectoryError(errno.EISDIR, "is a directory (--recursive takes all files below it)", path))
        return
    for folder, _, names in os.walk(path, onerror=refuse):
        for name in names:
            try:
                facts = os.lstat(os.path.join(folder, name))
            except OSError as error:
                refuse(error)
                continue
            if stat.S_ISREG(facts.st_mode):
                yield os.path.join(folder, name), facts.st_size


def next_piece(piece: int, seconds: float) -> int:
    """How many bytes to ask for next, where so many took so long (pure)."""
    if seconds < SOON:
        return min(2 * piece, MOST)
    return max(piece // 2, LEAST) if seconds > LATE else piece


def _told(root: str, name: str) -> dict[str, Any]:
    try:
        return ask(root, name)
    except LookupError:  # it has much to do; nothing here depends on it
        return {}


def _limit(root: str) -> int | None:
    """How many bytes the mount's caches may hold; None where it does not tell."""
    limits = [facts["cache"]["limit"] for facts in _told(root, "status").get("buckets", {}).values() if "cache" in facts]
    return sum(limits) if limits else None


def _evicted(roots: Iterable[str]) -> list[int | None]:
    """How many bytes each mount has evicted so far."""
    return [_told(root, "stats").get("cache_evicted_bytes") for root in roots]


def _whole(cached: bytes) -> bool:
    held, _, size = cached.decode().partition("/")
    return int(held or 0) >= int(size or 0)  # nothing is said of what is not delivered: it is on the disk


def run(args: argparse.Namespace) -> int:
    """Fetch them; 1 when any could not be."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    complaints: list[str] = []
    files: dict[str, int] = {}  # their sizes
    room: dict[str, int | None] = {}  # by mount: bytes that are not spoken for

    def refuse(error: OSError) -> None:
        complaints.append(f"{error.filename}: {error.strerror}")

    def find(path: str) -> None:
        root = root_of(path)
        if root not in room:
            room[root] = _limit(root)
        for file, size in _files(path, args.recursive, refuse):
            if file in files:
                continue
            left = room[root]
            if left is not None and size > left:  # what is fetched beyond would drive out what was fetched before
                complaints.append(f"{file}: {NO_ROOM}")
                continue
            room[root] = left if left is None else left - size
            files[file] = size

    columns = (TextColumn("warming up"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=None)
        for path in args.paths:
            try:
                find(path)
            except LookupError as error:
                complaints.append(str(error))
        progress.update(task, total=sum(files.values()))
        before, piece = _evicted(room), FIRST

        def one(file: str, size: int) -> str:
            nonlocal piece
            start = 0
            try:
                while start < size and not interrupted.is_set():
                    asked, began = piece, time.monotonic()
                    end = min(start + asked, size)
                    os.getxattr(file, f"user.zos.warm.{start}-{end}")
                    if end - start == asked:
                        piece = next_piece(asked, time.monotonic() - began)
                    progress.advance(task, end - start)
                    start = end
            except OSError as error:
                return f"{file}: {_why(file, error)}"
            return ""

        def driven_out(file: str, size: int) -> str:
            try:  # the end of a file, of which nothing is to be fetched
                return "" if not size or _whole(os.getxattr(file, f"user.zos.warm.{size}-{size}")) else f"{file}: {NO_ROOM}"
            except OSError as error:
                return f"{file}: {_why(file, error)}"

        with ThreadPoolExecutor(max(1, args.jobs)) as pool:
            try:
                said = list(pool.map(one, files, files.values()))
                if None in before or _evicted(room) != before:
                    said = [line or driven_out(*found) for line, found in zip(said, files.items(), strict=True)]
            except KeyboardInterrupt:
                interrupted.set()  # the pool waits for those under way
                raise
    for line in complaints + [line for line in said if line]:
        say(line)
    good = said.count("")
    if good:
        print(f"{good} files are in the cache")
    return 1 if complaints or good < len(said) else 0


def _why(file: str, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return NO_ROOM
    if error.errno == errno.EREMOTEIO:
        return f"it is archived: `zosfs restore {shlex.quote(file)}` thaws it"
    return error.strerror or str(error)
