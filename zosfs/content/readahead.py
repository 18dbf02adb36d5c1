"""What to fetch ahead of a reader: a pure decision from what it read so far.

Owns: nothing. A stream is a run of reads that go forward without large gaps; a handle may have several (interleaved readers of one
descriptor). The window of a stream is what is wanted beyond the place it has reached; it doubles each time the reader
catches up with what was fetched, and a stream that has not proved itself sequential gets none.
"""

from __future__ import annotations

from dataclasses import dataclass, field

KIB = 1 << 10
MIB = 1 << 20

GRANULE = 128 * KIB
"""What the kernel's own read-ahead asks for at once; requests of one stream may arrive out of order within a few of these."""

FIRST = 1 * MIB
"""The first window: small, so that the first bytes come soon and a file that is only looked at costs little."""

REORDER = 4 * MIB
"""How far back or forth of its place a read still belongs to a stream."""

STREAMS = 8
"""Streams that are told apart on one handle."""


@dataclass(slots=True)
class Stream:
    """One forward run: *place* is where the next read is expected, *run* how many bytes were read in order."""

    place: int
    run: int = 0
    window: int = 0
    reads: int = 0


@dataclass(slots=True)
class History:
    """The streams of one handle, the one used last at the end."""

    streams: list[Stream] = field(default_factory=list)


def observe(history: History, offset: int, size: int) -> Stream:
    """Note a read of ``[offset, offset + size)`` and return its stream."""
    found = None
    for stream in reversed(history.streams):
        if stream.place - REORDER <= offset <= stream.place + REORDER and (stream.reads > 1 or offset == stream.place):
            found = stream
            break
    if found is None:
        found = Stream(offset)
        history.streams.append(found)
        if len(history.streams) > STREAMS:
            history.streams.pop(0)
    else:
        history.streams.remove(found)
        history.streams.append(found)
    found.reads += 1
    found.run += size
    found.place = max(found.place, offset + size)
    return found


def grow(stream: Stream, waited: bool, most: int) -> int:
    """The stream's window in bytes after a read that had to wait for the network, or had not; at most *most*.

    A single read is no stream yet, except that one from the start of a file usually becomes one.
    """
    if stream.reads < 2 and stream.place > GRANULE and stream.run != stream.place:
        return 0
    if stream.window == 0:
        stream.window = min(FIRST, most)
    elif waited and stream.reads > 1:
        stream.window = min(stream.window * 2, most)
    return stream.window
