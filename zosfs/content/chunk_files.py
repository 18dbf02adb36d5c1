"""The files of the chunk cache, sparse ones, their descriptors, and how bytes get to the disk and back.

Owns: the open descriptors, at most OPEN_FILES. Must not know: what of a file is there, nor what it is worth (chunks.py).
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

SECTOR = 4096
DIRECT_FROM = 256 << 10
"""Bytes from which a write past the page cache is worth a descriptor of its own."""
ROW = 1024
"""Views that one pwritev takes: IOV_MAX."""
OPEN_FILES = 128
AHEAD = 4 << 20
"""Bytes asked of the disk beyond a read that had to wait for it."""

_PUNCH = 3  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long)


class ChunkFile:
    """The file *name*, which no other file ever has. *pins*: threads that use the descriptor *fd*; *made*: it was there once, and is
    not made again; *dead*: it is not wanted any more."""

    __slots__ = ("dead", "fd", "made", "name", "pins")

    def __init__(self, name: str = "", *, made: bool = False) -> None:
        """A file of a new name where none is given."""
        self.name = name or os.urandom(16).hex()
        self.fd = -1
        self.pins = 0
        self.made = made
        self.dead = False


class ChunkFiles:
    """The files below *directory* / files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "files"
        self._open: OrderedDict[str, ChunkFile] = OrderedDict()
        self._nowait = hasattr(os, "RWF_NOWAIT")

    def path(self, name: str) -> Path:
        """Where the file *name* lies."""
        return self.directory / name[:2] / name

    def pin(self, file: ChunkFile) -> int:
        """The descriptor of *file*, not to be closed before `unpin`. OSError when it cannot be opened, or is not there any more."""
        fd = self.descriptor(file)
        file.pins += 1
        return fd

    def unpin(self, file: ChunkFile) -> None:
        """A thread is done with the descriptor."""
        file.pins -= 1
        if file.dead and not file.pins:
            self.close(file)

    def descriptor(self, file: ChunkFile) -> int:
        """The descriptor of *file*, made when there is none; good until the next call. OSError as `pin`."""
        if file.fd < 0:
            path = self.path(file.name)
            flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (0 if file.made else os.O_CREAT | os.O_EXCL)
            try:
                file.fd = os.open(path, flags, 0o600)
            except FileNotFoundError:
                if file.made:
                    raise
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                file.fd = os.open(path, flags, 0o600)
            file.made = True
            self._open[file.name] = file
            while len(self._open) > OPEN_FILES:
                victim = next((f for f in self._open.values() if not f.pins and f is not file), None)
                if victim is None:
                    break
                self.close(victim)
        elif self._open:
            self._open.move_to_end(file.name)
        return file.fd

    def close(self, file: ChunkFile) -> None:
        """Give the descriptor back."""
        if self._open.get(file.name) is file:
            del self._open[file.name]
        if file.fd >= 0:
            os.close(file.fd)
            file.fd = -1

    def close_all(self) -> None:
        """Give all descriptors back that no thread uses."""
        for file in list(self._open.values()):
            if not file.pins:
                self.close(file)

    def adopt(self, path: Path, name: str, size: int) -> None:
        """Make the local file *path* (same file system) the file *name*, *size* bytes long at least. For worker threads."""
        target = self.path(name)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.stat(path).st_size < size:
            os.truncate(path, size)
        os.rename(path, target)

    def read_cached(self, fd: int, view: memoryview, start: int) -> int:
        """As many bytes from *start* on as the page cache has at once; 0 where that cannot be told. Never waits for the disk."""
        if not self._nowait:
            return 0
        try:
            return os.preadv(fd, [view], start, os.RWF_NOWAIT)
        except BlockingIOError:
            return 0
        except OSError:
            self._nowait = False
            return 0


def punch(fd: int, spans: Sequence[tuple[int, int]]) -> bool:
    """Give the bytes of the *spans* back to the disk; False where it cannot. For worker threads."""
    return all(not _libc.fallocate(fd, _PUNCH, low, high - low) for low, high in spans)


def is_there(fd: int, low: int, high: int) -> bool:
    """Whether the file has all of ``[low, high)``, and no hole in it where the file system tells of holes."""
    try:
        return os.lseek(fd, low, os.SEEK_HOLE) >= high
    except OSError as exc:
        return exc.errno != errno.ENXIO and os.fstat(fd).st_size >= high


def has_data(fd: int, low: int, high: int) -> bool:
    """Whether ``[low, high)`` of the file takes space on the disk, or may."""
    try:
        return os.lseek(fd, low, os.SEEK_DATA) < high
    except OSError as exc:
        return exc.errno != errno.ENXIO


def write_all(jobs: Sequence[tuple[int, int, memoryview]]) -> None:
    """Write each view at its offset through its descriptor, little ones that follow each other at once. For worker threads."""
    to = begin = end = -1
    row: list[memoryview] = []  # for [begin, end) of *to*
    for fd, start, view in jobs:
        done = 0
        if (fd, start) != (to, end) or len(view) >= DIRECT_FROM or len(row) == ROW:
            _write(to, begin, row)
            done = _write_directly(fd, start, view)
            row, to, begin = [], fd, start + done
        row.append(view[done:])
        end = start + len(view)
    _write(to, begin, row)


def _write(fd: int, start: int, row: list[memoryview]) -> None:
    left = sum(map(len, row))
    while left:
        n = os.pwritev(fd, row, start)
        start += n
        left -= n
        while row and n >= len(row[0]):
            n -= len(row.pop(0))
        if n:
            row[0] = row[0][n:]


def _write_directly(fd: int, start: int, view: memoryview) -> int:
    """Write as much of *view* as can go to the disk past the page cache; returns how many bytes did.

    The kernel has these pages already, as those of the mounted file: a second copy costs more CPU than all the rest of a read.
    """
    whole = len(view) // SECTOR * SECTOR
    if whole < DIRECT_FROM or start % SECTOR:
        return 0
    try:
        direct = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return 0  # a file system without it (tmpfs)
    try:
        done = 0
        while done < whole:
            n = os.pwrite(direct, view[done:whole], start + done)
            done += n
            if n % SECTOR:
                break
        return done
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise
        return 0  # memory or place are not as the file system wants them
    finally:
        os.close(direct)


def read_all(fd: int, view: memoryview, start: int, beyond: int) -> int:
    """Fill *view* from *start* on; returns how many bytes there were. Has the disk read on in the *beyond* bytes. For worker threads."""
    os.posix_fadvise(fd, start, len(view) + min(beyond, AHEAD), os.POSIX_FADV_WILLNEED)
    done = 0
    while done < len(view):
        n = os.preadv(fd, [view[done:]], start + done)
        if n == 0:
            break
        done += n
    return done
