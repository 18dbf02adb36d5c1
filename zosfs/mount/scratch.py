"""Directories in the cache for mounts that keep nothing (views of the past): gone with the mount, those of killed mounts with the next.

Owns: the folders ``at-*`` of the cache directory. A living mount holds a lock on its own (flock(2)), which ends with the process.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_log = logging.getLogger(__name__)

PREFIX = "at-"


@contextlib.contextmanager
def scratch(cache_dir: Path) -> Iterator[Path]:
    """An empty directory below *cache_dir* for as long as the block lasts. Blocks for a few file operations; raises OSError."""
    with _alone(cache_dir):
        directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=cache_dir))
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(handle)


def sweep(cache_dir: Path) -> None:
    """Remove what killed mounts left. A directory that cannot be removed stays."""
    if not any(cache_dir.glob(f"{PREFIX}*")):
        return
    with _alone(cache_dir):
        for directory in cache_dir.glob(f"{PREFIX}*"):
            try:
                handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:
                continue
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue  # its mount lives
            else:
                shutil.rmtree(directory, ignore_errors=True)
                _log.info("%s, left by a mount that was killed, is removed", directory)
            finally:
                os.close(handle)


@contextlib.contextmanager
def _alone(cache_dir: Path) -> Iterator[None]:
    """Nobody else makes or sweeps meanwhile: a fresh directory is not locked yet."""
    handle = os.open(cache_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
