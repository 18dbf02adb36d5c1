"""How much must have come before the kernel wakes who waits for an answer (socket(7), SO_RCVLOWAT).

Without that each packet wakes a thread that goes to sleep again: half the CPU seconds of a body that comes from far.
"""

from __future__ import annotations

import select
import socket
import ssl

SMALL = 64 << 10
LINGER = 0.02
"""Seconds."""


def portion(wanted: int, left: int) -> tuple[int, int]:
    """How many of the *left* bytes of an answer to receive with one call, of which *wanted* are wanted at most; and how many must be there
    before the kernel wakes who waits for them (pure).

    The kernel counts what it has not handed out yet, so that as many must be to come still when all but a byte of the portion has been:
    at the end of a body portions are halved.
    """
    piece = min(wanted, max(left // 2, 2 * SMALL), left)
    worth = min(piece, left - piece)
    return piece, worth if worth >= SMALL else 1


def linger(sock: socket.socket, worth: int) -> None:
    """Wait until *worth* bytes are there, or LINGER is over: of what comes in small pieces, and perhaps is less than was guessed."""
    if isinstance(sock, ssl.SSLSocket):
        return  # what it has decrypted the kernel knows nothing of
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, worth)
    ready = select.poll()
    ready.register(sock, select.POLLIN)
    ready.poll(LINGER * 1000)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
