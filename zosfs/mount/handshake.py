"""FUSE's INIT exchange as bytes: what the kernel offers, and libfuse's answer completed.

Owns: the layout of INIT (linux/fuse.h, version 7.31 on). Pure. libfuse before 3.17 knows the flags added here but never passes
them on, and pyfuse3 cannot ask for the numbers.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

INIT = 26
PARALLEL_DIROPS = 1 << 18
"""Lookups and listings of one directory run side by side: 295 a second instead of 20 where each takes 50 ms."""
HANDLE_KILLPRIV_V2 = 1 << 28
"""zosfs clears set-user-ID bits on writes by itself: the kernel need not ask for security.capability before each."""

_IN_HEADER = struct.Struct("<IIQQIIII")
_INIT_IN = struct.Struct("<IIII")
_OUT_HEADER = struct.Struct("<IiQ")
_INIT_OUT = struct.Struct("<IIIIHHIIHH")


@dataclass(frozen=True, slots=True)
class Offer:
    """What the kernel's INIT request offers."""

    major: int
    minor: int
    flags: int


def offer_of(request: bytes) -> Offer:
    """The offer in an INIT *request*; ValueError when it is another request or cut off."""
    if len(request) < _IN_HEADER.size + _INIT_IN.size or _IN_HEADER.unpack_from(request)[1] != INIT:
        raise ValueError("the kernel did not begin with INIT")
    major, minor, _, flags = _INIT_IN.unpack_from(request, _IN_HEADER.size)
    return Offer(major, minor, flags)


def complete(reply: bytes, offer: Offer, *, max_background: int, max_readahead: int) -> bytes:
    """libfuse's *reply* to INIT with what it forgets, as far as the kernel's *offer* has it. *max_readahead* in bytes.

    A refusal, or a reply of a shape not known here, is passed on as it is.
    """
    size = _OUT_HEADER.size + _INIT_OUT.size
    if len(reply) < size or _OUT_HEADER.unpack_from(reply)[1] != 0:
        return reply
    major, minor, ahead, flags, _, _, *rest = _INIT_OUT.unpack_from(reply, _OUT_HEADER.size)
    flags |= (PARALLEL_DIROPS | HANDLE_KILLPRIV_V2) & offer.flags
    background = max(1, min(max_background, 0xFFFF))
    whole = bytearray(reply)
    _INIT_OUT.pack_into(
        whole, _OUT_HEADER.size, major, minor, max(ahead, max_readahead), flags, background, max(1, background * 3 // 4), *rest
    )
    return bytes(whole)
