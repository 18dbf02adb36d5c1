"""Writes that the disk makes by itself: no thread waits for them, and an eventfd tells of their end (Linux AIO with O_DIRECT and O_DSYNC).

Owns: a second descriptor of the file, one aligned buffer, the kernel's queue. One write at a time, over bytes that are there already: only
such go to the disk without waiting for anything. Handing one over and hearing of its end costs half of what a thread costs, and the
page cache is left out. Whatever is in the way, the caller writes as it would without this. Must not know: what is written.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import platform
import resource
import time
from pathlib import Path

from zosfs.content.disk_budget import WritePace

LARGEST = 64 << 10
"""Bytes of one write at most: larger ones are worth a thread."""

_NUMBERS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
"""By machine, the system calls io_setup, io_destroy, io_getevents, io_submit (asm/unistd.h): the C library has no functions for them."""
_PWRITE, _RESFD = 1, 1


class _Request(ctypes.Structure):
    """struct iocb of linux/aio_abi.h."""

    _fields_ = (
        ("data", ctypes.c_uint64), ("key", ctypes.c_uint32), ("rw_flags", ctypes.c_int32), ("opcode", ctypes.c_uint16),
        ("priority", ctypes.c_int16), ("fd", ctypes.c_uint32), ("buffer", ctypes.c_uint64), ("length", ctypes.c_uint64),
        ("offset", ctypes.c_int64), ("reserved", ctypes.c_uint64), ("flags", ctypes.c_uint32), ("eventfd", ctypes.c_uint32),
    )  # fmt: skip


class _Event(ctypes.Structure):
    """struct io_event of linux/aio_abi.h."""

    _fields_ = (("data", ctypes.c_uint64), ("request", ctypes.c_uint64), ("result", ctypes.c_int64), ("more", ctypes.c_int64))


class DirectWrites:
    """Writes to the file *path*, which exists. OSError where this kernel or file system cannot do it."""

    def __init__(self, path: Path) -> None:
        numbers = _NUMBERS.get(platform.machine())
        if numbers is None:
            raise OSError(f"the system calls of {platform.machine()} are not known")
        self._setup, self._destroy, self._getevents, self._submit = map(ctypes.c_long, numbers)
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long
        self._context = ctypes.c_ulong(0)
        self._pace = WritePace()
        self._fd = os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_DSYNC | os.O_CLOEXEC | os.O_NOFOLLOW)
        self.ended = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._buffer = mmap.mmap(-1, LARGEST)
        self._request = _Request(
            opcode=_PWRITE, fd=self._fd, buffer=ctypes.addressof(ctypes.c_char.from_buffer(self._buffer)), flags=_RESFD, eventfd=self.ended
        )
        self._requests = (ctypes.c_void_p * 1)(ctypes.addressof(self._request))
        self._event = _Event()
        if self._syscall(self._setup, ctypes.c_long(1), ctypes.byref(self._context)) != 0:
            number = ctypes.get_errno()
            self.close()
            raise OSError(number, os.strerror(number))

    def begin(self, data: bytes, at: int) -> bool:
        """Have the disk write *data* at *at*; `ended` becomes readable once it has, or has failed. False: nothing was begun.

        Both are multiples of the disk's block, and the file has bytes there.
        """
        began = time.monotonic()
        if len(data) > LARGEST or not self._pace.prompt(began):
            return False
        self._buffer[: len(data)] = data
        self._request.length, self._request.offset = len(data), at
        waits = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        done: int = self._syscall(self._submit, self._context, ctypes.c_long(1), ctypes.byref(self._requests))
        waited = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw > waits
        self._pace.took(began, time.monotonic(), waited=waited)  # some file systems make the whole write here
        return done == 1

    def finish(self) -> bool:
        """Whether all of the write, which has ended, is on the disk."""
        os.eventfd_read(self.ended)
        found: int = self._syscall(
            self._getevents, self._context, ctypes.c_long(1), ctypes.c_long(1), ctypes.byref(self._event), ctypes.c_void_p(None)
        )
        return found == 1 and self._event.result == self._request.length

    def close(self) -> None:
        """Give everything back; nothing may be under way."""
        if self._context.value:
            self._syscall(self._destroy, self._context)
            self._context.value = 0
        for fd in (self._fd, self.ended):
            with contextlib.suppress(OSError):
                os.close(fd)
        self._fd = self.ended = -1
