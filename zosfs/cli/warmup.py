"""`zosfs warmup PATH…`: fetch files into the chunk cache, so that reading them later does not touch the network.

Owns: which files, how many at once, the progress shown. The daemon fetches: each piece is one setxattr of user.zos.warm.
"""

from __future__ import annotations

import argparse
import errno
import os
import shlex
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from zosfs.cli.ask import root_of
from zosfs.mount.daemon import say

interrupted = threading.Event()
"""Set at Ctrl-C: no further piece is asked for."""
PIECE = 64 << 20
"""Bytes that the daemon is asked for at once: what the progress moves by, at least."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The paths, and whether to go below directories."""
    parser.add_argument("paths", metavar="PATH", nargs="+", help="a file on a mount; with --recursive a directory, too")
    parser.add_argument("-r", "--recursive", action="store_true", help="all files below a directory")
    parser.add_argument("--jobs", type=int, default=4, metavar="N", help="files at once [4]")


def _files(path: str, recursive: bool) -> Iterator[str]:
    """The regular files that *path* means. Raises OSError."""
    if not os.path.isdir(path):
        yield path
        return
    if not recursive:
        raise IsADirectoryError(errno.EISDIR, "is a directory (--recursive takes all files below it)", path)

    def refuse(error: OSError) -> None:
        raise error

    for folder, _, names in os.walk(path, onerror=refuse):
        for name in names:
            full = os.path.join(folder, name)
            if os.path.isfile(full) and not os.path.islink(full):
                yield full


def run(args: argparse.Namespace) -> int:
    """Fetch them; 1 when any could not be."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    files: list[tuple[str, int]] = []
    failures = 0
    for path in args.paths:
        try:
            root_of(path)
            files += [(file, os.stat(file).st_size) for file in _files(path, args.recursive)]
        except LookupError as error:
            say(str(error))
            failures += 1
        except OSError as error:
            say(f"{error.filename or path}: {error.strerror}")
            failures += 1
    columns = (TextColumn("warming up"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=sum(size for _, size in files))

        def one(file: str, size: int) -> str:
            try:
                for start in range(0, size, PIECE):
                    if interrupted.is_set():
                        return ""
                    end = min(start + PIECE, size)
                    os.setxattr(file, "user.zos.warm", f"{start}-{end}".encode())
                    progress.advance(task, end - start)
                held, _, whole = os.getxattr(file, "user.zos.cached").decode().partition("/")
                if int(held) < int(whole):  # its end drove its beginning out
                    raise OSError(errno.ENOSPC, "")
            except OSError as error:
                return f"{file}: {_why(file, error)}"
            return ""

        with ThreadPoolExecutor(max(1, args.jobs)) as pool:
            try:
                complaints = [line for line in pool.map(lambda found: one(*found), files) if line]
            except KeyboardInterrupt:
                interrupted.set()  # the pool waits for those under way
                raise
    for line in complaints:
        say(line)
    good = len(files) - len(complaints)
    if good:
        print(f"{good} files are in the cache")
    return 1 if failures or complaints else 0


def _why(file: str, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return "the cache has no room for it (mount options cache_size and free_space)"
    if error.errno == errno.EREMOTEIO:
        return f"it is archived: `zosfs restore {shlex.quote(file)}` thaws it"
    return error.strerror or str(error)
