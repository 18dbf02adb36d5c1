"""Pieces of local files on their way into a digest or a socket. For worker threads.

Owns: a few buffers that are used again. Must not know: what is sent before and after.
"""

from __future__ import annotations

import mmap
import os
import select
import socket
from collections import deque
from collections.abc import Callable, Iterator

from zosfs.store.api import FileSlice
from zosfs.store.http import WireError

PIECE = 1 << 20

_spare: deque[memoryview] = deque(maxlen=8)
"""Buffers of `slices` that nobody uses now: a fresh one costs the kernel a fifth of what is copied into it."""


def slices(piece: FileSlice) -> Iterator[memoryview]:
    """The bytes of *piece* in views of at most 1 MiB over one buffer, each valid until the next is asked for.

    Raises WireError ``LocalReadFailed`` when the file is shorter than the slice, or cannot be read.
    """
    try:
        scratch = _spare.pop()
    except IndexError:
        scratch = memoryview(mmap.mmap(-1, PIECE))
    done = 0
    try:
        while (left := piece.length - done) > 0:
            try:
                n = os.preadv(piece.fd, [scratch[: min(PIECE, left)]], piece.offset + done)
            except OSError as exc:
                raise WireError("LocalReadFailed", str(exc)) from None
            if n <= 0:
                raise WireError("LocalReadFailed", "the file is shorter than it should be")
            done += n
            yield scratch[:n]
    finally:
        _spare.append(scratch)


def read_slice(piece: FileSlice) -> bytes:
    """All bytes of a small *piece*. Raises as `slices`."""
    return b"".join(bytes(part) for part in slices(piece))


def send_file(sock: socket.socket, piece: FileSlice, count: Callable[[int], None]) -> None:
    """Send *piece* by sendfile(2), within the socket's time-out for each step; *count* is told of the bytes of each. Raises WireError
    ``LocalReadFailed``, TimeoutError, OSError."""
    done = 0
    patience = sock.gettimeout()
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    while done < piece.length:
        try:
            n = os.sendfile(sock.fileno(), piece.fd, piece.offset + done, min(piece.length - done, 8 * PIECE))
        except BlockingIOError:
            if not poll.poll(None if patience is None else patience * 1000):
                raise TimeoutError from None
            continue
        if n == 0:
            raise WireError("LocalReadFailed", "the file is shorter than it should be")
        done += n
        count(n)
