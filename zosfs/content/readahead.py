"""What to fetch for a reader, now and ahead of it: a pure decision from what one handle read so far.

Owns: nothing outside its own `History`. May use: widening.py. Must not know: the store, memory, clocks (times are told).

A *stream* is a run of reads that go on from each other: forward, backward, or with a constant stride. A handle may have several,
interleaved. A stream's *window* is how many bytes beyond its place are wanted; it begins small with the second read in a row and
doubles only when the reader has to wait for bytes that were already fetched under the present window (a wide one: only while that makes the
reader faster, `Widening`). What fits no stream is random and costs what it asks for. All positions are bytes, all spans half-open.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from zosfs.content.widening import Widening

KIB = 1 << 10
MIB = 1 << 20

WHOLE = 1 * MIB
"""Files up to this are fetched whole by a first read at their beginning."""

GRANULE = 128 * KIB
"""The least that is fetched for a stream, the most that is fetched for a random read of less."""

TAIL = 64 * KIB
"""A read that touches the last so many bytes fetches all of them: there are the indexes of zip, parquet and logs' ends."""

FIRST = 2 * MIB
"""A stream's first window."""

RUN = 16
"""The first window is at most so many times what was read in a row: two small neighbours may be chance."""

LARGEST = 8 * MIB
"""Bytes of one request at most."""

LEAST = 1 * MIB
"""Bytes of one request ahead at least, where the file and the window have as many."""

REORDER = 4 * MIB
"""How far from its place a read may lie and still belong to a long stream: the kernel sends several requests at once. So many bytes may it
have passed over, less what it has read since: who reads little here and there is no stream any more."""

HOLE = 64 * KIB
"""Holes up to this between strided reads are fetched too: fewer requests for few bytes."""

STREAMS = 48
"""Streams that are told apart on one handle."""

SPANS = 32
"""Strided reads fetched ahead at most."""

HOT = 3
"""Random reads into one granule before the granule is fetched whole."""

GRANULES = 64
"""Granules of which such reads are remembered."""

SHARE = 8
"""Random reads that have touched one granule in so many have the rest of the file fetched, too: never more bytes than so many granules
for each that was read, and no more waiting."""

TOUCHED = 16
"""Granules touched before that, however small the file."""

Span = tuple[int, int]


class Found(Enum):
    """Where the bytes of a read were when it came."""

    READY = "here"
    COMING = "being fetched"
    ABSENT = "not asked for"


class Way(Enum):
    """How a stream moves."""

    FORWARD = 1
    BACKWARD = -1
    STRIDED = 0


@dataclass(slots=True)
class Stream:
    """One run of reads. *place*: where the next read is expected (backward: its end). *fetched*: how far ahead was asked for
    (strided: the next offset to ask for). *mark*: where *fetched* was when the reader last had to wait beyond it. *skipped*: bytes
    passed over, less those read since."""

    way: Way
    place: int
    run: int
    reads: int
    size: int
    stride: int = 0
    window: int = 0
    fetched: int = 0
    mark: int = 0
    skipped: int = 0
    last: int = 0
    widening: Widening = field(default_factory=Widening)

    def refuse(self, span: Span) -> None:
        """*span*, advised to be fetched ahead, was not: it is advised again later."""
        if self.way is Way.FORWARD:
            self.fetched = min(self.fetched, span[0])
        elif self.way is Way.BACKWARD:
            self.fetched = max(self.fetched, span[1])
        else:
            ahead = min(self.fetched, span[0]) if self.stride > 0 else max(self.fetched, span[0])
            self.fetched = self.place if (ahead < self.place) == (self.stride > 0) else ahead


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do for one read. *demand* contains the read and is to be fetched as far as it is not here or coming; *ahead* is
    wanted next, most urgent first, and may be refused (`Stream.refuse`); *forget* was wanted ahead and is not any more."""

    demand: Span
    ahead: tuple[Span, ...] = ()
    forget: tuple[Span, ...] = ()
    stream: Stream | None = None


@dataclass(slots=True)
class History:
    """What one handle read of a file of *size* bytes; *most* is the largest sum of its windows, *around* what a random read has fetched
    around itself."""

    size: int
    most: int
    around: int = 0
    _streams: list[Stream] = field(default_factory=list)  # proved by two reads in a row, the one used last at the end
    _singles: deque[Stream] = field(default_factory=lambda: deque(maxlen=STREAMS))  # reads that may become a stream
    _granules: OrderedDict[int, int] = field(default_factory=OrderedDict)
    _touched: set[int] = field(default_factory=set)  # granules with random reads, of a file that may be fetched whole
    _rest: Stream | None = None  # the whole file, when it is being fetched because of them
    _count: int = 0
    _proved: int = 0  # the largest window that was worth it

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The streams that are known, the one used last at the end."""
        return tuple(self._streams)

    def observe(self, offset: int, size: int, found: Found, now: float = 0.0, files: Callable[[], int] = lambda: 1) -> Advice:
        """Note a read of ``[offset, offset + size)``, not empty and inside the file, whose bytes were *found*; what to do.

        *now* are seconds of a clock that never goes back; without one a window does not grow beyond `widening.FREELY`. *files* tells
        how many are read ahead at the moment, this one included; it is asked when a window may grow, which few reads bring about.
        """
        self._count += 1
        end = offset + size
        stream = self._match(offset, end)
        if stream is None:
            return self._random(offset, end, found)
        stream.last = self._count
        stream.reads += 1
        self._advance(stream, offset, end)
        if stream.reads < 2:
            return self._random(offset, end, found)
        forget = self._retire()
        demand = self._stream_demand(stream, offset, end, found)
        self._grow(stream, offset, end, found, now, files)
        return Advice(demand, self._ahead(stream) if stream.window else (), forget, stream)

    def inside(self, start: int, end: int) -> bool:
        """Whether a stream is in the middle of ``[start, end)``: it has read some of it and goes on to the rest."""
        return any(
            start < stream.place <= end if stream.way is Way.BACKWARD else start <= stream.place < end for stream in self._streams
        )

    # -- which stream a read belongs to -----------------------------------------------------------------------------

    def _match(self, offset: int, end: int) -> Stream | None:
        known = self._known(offset, end, strided=False)
        if known is not None:
            return known
        for single in self._singles:
            gap = offset - single.place
            if 0 <= gap <= single.run and gap <= GRANULE:
                way = Way.FORWARD
            elif end == single.place - single.run:
                way = Way.BACKWARD
            else:
                continue
            self._singles.remove(single)
            return self._prove(
                Stream(way, single.place if way is Way.FORWARD else end, single.run, 1, end - offset), offset, end
            )
        # Several streams read in turn look strided at first, so the reads of a stride may still become streams of their own.
        stream = self._known(offset, end, strided=True) or self._strided(offset, end)
        self._singles.append(Stream(Way.FORWARD, end, end - offset, 1, end - offset))
        return stream

    def _known(self, offset: int, end: int, *, strided: bool) -> Stream | None:
        for at in range(len(self._streams) - 1, -1, -1):
            stream = self._streams[at]
            if (stream.way is Way.STRIDED) == strided and _belongs(stream, offset, end):
                if at != len(self._streams) - 1:
                    self._streams.append(self._streams.pop(at))
                return stream
        return None

    def _prove(self, stream: Stream, offset: int, end: int) -> Stream:
        if stream.way is Way.FORWARD:
            stream.fetched = stream.mark = end
        elif stream.way is Way.BACKWARD:
            stream.place = end
            stream.fetched = stream.mark = offset
        return self._add(stream)

    def _add(self, stream: Stream) -> Stream:
        self._streams.append(stream)
        for other in self._streams:
            other.window = min(other.window, self.most // len(self._streams))
        return stream

    def _strided(self, offset: int, end: int) -> Stream | None:
        if len(self._singles) < 2:
            return None
        first, second = self._singles[-2], self._singles[-1]
        stride = offset - (second.place - second.run)
        if not stride or stride != (second.place - second.run) - (first.place - first.run):
            return None
        if not first.run == second.run == end - offset or abs(stride) < end - offset:
            return None
        return self._add(Stream(Way.STRIDED, offset, 2 * second.run, 2, end - offset, stride=stride, fetched=offset + stride, mark=offset))

    def _advance(self, stream: Stream, offset: int, end: int) -> None:
        stream.run += end - offset
        stream.size = end - offset
        stream.skipped = max(0, stream.skipped + max(0, _hole(stream, offset, end)) - stream.size)
        if stream.way is Way.FORWARD:
            stream.place = max(stream.place, end)
        elif stream.way is Way.BACKWARD:
            stream.place = min(stream.place, offset)
        else:
            stream.place = offset + stream.stride

    # -- what it is worth -------------------------------------------------------------------------------------------

    def _random(self, offset: int, end: int, found: Found) -> Advice:
        alone, forget = self._alone(offset, end), self._retire()
        if self.around and found is Found.ABSENT and (offset or self._count > 1):
            return self._with_surroundings(alone, forget)
        return Advice(alone, self._everything(offset, end, found), forget, self._rest)

    def _with_surroundings(self, alone: Span, forget: tuple[Span, ...]) -> Advice:
        """What lies behind the read in its stretch of *around* bytes comes with the same answer, which begins with what is waited for."""
        low, high = alone
        start = low // self.around * self.around
        stop = min(self.size, start + self.around)
        before = tuple((at, min(at + LARGEST, low)) for at in range(start, low, LARGEST))
        behind = tuple((at, min(at + LARGEST, stop)) for at in range(max(high, low + LARGEST), stop, LARGEST))
        stream = Stream(Way.FORWARD, stop, 0, 0, 0)
        return Advice((low, max(high, min(stop, low + LARGEST))), behind + before, forget, stream)

    def _everything(self, offset: int, end: int, found: Found) -> tuple[Span, ...]:
        """The whole file, once random reads are so dense in it that what they will still wait for costs more."""
        if self.size > self.most or found is Found.READY:
            return ()
        if self._rest is None:
            self._touched.update(range(offset // GRANULE, (end - 1) // GRANULE + 1))
            if len(self._touched) < max(TOUCHED, -(-self.size // GRANULE) // SHARE):
                return ()
            self._touched.clear()
            self._rest = Stream(Way.FORWARD, 0, self.size, 2, end - offset)
        at, self._rest.fetched = self._rest.fetched, self.size
        return tuple((start, min(start + LARGEST, self.size)) for start in range(at, self.size, LARGEST))

    def _alone(self, offset: int, end: int) -> Span:
        """What is fetched for a read that belongs to no stream."""
        if offset == 0 and self._count == 1:
            return (0, self.size if self.size <= WHOLE else min(self.size, max(end, GRANULE)))
        if self.size <= GRANULE:
            return (0, self.size)
        if end > self.size - TAIL:
            return (min(offset, self.size - TAIL), self.size)
        if end - offset >= GRANULE:
            return (offset, end)
        granule = offset // GRANULE
        seen = self._granules.pop(granule, 0) + 1
        self._granules[granule] = seen
        if len(self._granules) > GRANULES:
            self._granules.popitem(last=False)
        if seen >= HOT:
            return (granule * GRANULE, min(self.size, max(end, (granule + 1) * GRANULE)))
        return (offset, end)

    def _stream_demand(self, stream: Stream, offset: int, end: int, found: Found) -> Span:
        if found is not Found.ABSENT:
            return (offset, end)
        if stream.way is Way.FORWARD:
            high = min(self.size, max(end, offset + GRANULE))
            stream.fetched = high if stream.place == end else max(stream.fetched, high)
            return (offset, high)
        if stream.way is Way.BACKWARD:
            low = max(0, min(offset, end - GRANULE))
            stream.fetched = low if stream.place == offset else min(stream.fetched, low)
            return (low, end)
        stream.fetched = stream.place
        return (offset, end)

    def _grow(self, stream: Stream, offset: int, end: int, found: Found, now: float, files: Callable[[], int]) -> None:
        room = self.most // len(self._streams)
        if stream.window == 0:
            if found is Found.READY and stream.run < GRANULE // 2:
                return  # a look at the first lines
            first = min(max(FIRST, self._proved // 4), RUN * stream.run)
            if stream.way is Way.STRIDED:
                first = 4 * stream.size
            stream.window = min(first, room)
            return
        if stream.way is Way.FORWARD:
            beyond = end > stream.mark
        elif stream.way is Way.BACKWARD:
            beyond = offset < stream.mark
        else:
            beyond = (offset - stream.mark) * stream.stride >= 0
        stream.window = min(stream.window, room)
        if found is Found.READY or not beyond:
            return
        stream.mark = stream.fetched
        stream.window = stream.widening.passed(stream.window, room, stream.place, now, files())
        self._proved = max(self._proved, stream.window)

    def _ahead(self, stream: Stream) -> tuple[Span, ...]:
        if stream.way is Way.FORWARD:
            return self._ahead_forward(stream)
        if stream.way is Way.BACKWARD:
            return self._ahead_backward(stream)
        return self._ahead_strided(stream)

    def _piece(self, stream: Stream) -> int:
        quarter = max(stream.window // 4, 1)
        return max(LEAST, min(LARGEST, 1 << (quarter.bit_length() - 1)))

    def _ahead_forward(self, stream: Stream) -> tuple[Span, ...]:
        piece = self._piece(stream)
        at = stream.fetched = max(stream.fetched, stream.place)
        goal = min(stream.place + stream.window, self.size)
        spans = []
        while at < goal:
            end = (at // piece + 1) * piece
            if end - at < piece // 2 and end + piece - at <= LARGEST:
                end += piece
            end = min(end, self.size)
            if end > goal and at > stream.place:
                break  # wait until a whole piece fits in the window
            end = min(end, max(goal, at + 1))
            spans.append((at, end))
            at = end
        stream.fetched = at
        return tuple(spans)

    def _ahead_backward(self, stream: Stream) -> tuple[Span, ...]:
        piece = self._piece(stream)
        at = stream.fetched = min(stream.fetched, stream.place)
        goal = max(stream.place - stream.window, 0)
        spans = []
        while at > goal:
            start = (at - 1) // piece * piece
            if at - start < piece // 2 and at - start + piece <= LARGEST:
                start -= piece
            start = max(start, 0)
            if start < goal and at < stream.place:
                break
            start = max(start, min(goal, at - 1))
            spans.append((start, at))
            at = start
        stream.fetched = at
        return tuple(spans)

    def _ahead_strided(self, stream: Stream) -> tuple[Span, ...]:
        stride, size = stream.stride, stream.size
        if (stream.fetched - stream.place) * stride < 0:
            stream.fetched = stream.place
        unit = abs(stride) if abs(stride) - size <= HOLE else size
        count = max(1, min(SPANS * max(1, LARGEST // unit) if unit != size else SPANS, stream.window // unit))
        goal = stream.place + count * stride
        spans: list[Span] = []
        at = stream.fetched
        if abs(goal - at) * 2 < count * abs(stride):
            return ()
        while (at < goal if stride > 0 else at > goal) and 0 <= at < self.size:
            span = (at, min(at + size, self.size))
            joined = (min(spans[-1][0], span[0]), max(spans[-1][1], span[1])) if spans else span
            if spans and abs(stride) - size <= HOLE and joined[1] - joined[0] <= LARGEST:
                spans[-1] = joined
            else:
                spans.append(span)
            at += stride
        stream.fetched = at
        return tuple(spans)

    # -- streams that ended -----------------------------------------------------------------------------------------

    def _retire(self) -> tuple[Span, ...]:
        """Let go of streams that others have overtaken for long, and say what was fetched ahead for them."""
        if not self._streams:
            return ()
        patience = max(8, 4 * len(self._streams))
        forget = []
        while len(self._streams) > STREAMS or (
            self._streams and self._streams[0].window and self._count - self._streams[0].last > patience
        ):
            stream = self._streams.pop(0)
            forget.append((min(stream.place, stream.fetched), max(stream.place, stream.fetched)))
        return tuple((low, high) for low, high in forget if high > low)


def _hole(stream: Stream, offset: int, end: int) -> int:
    """How many bytes a read of a forward or backward stream passes over; less than 0: it goes back."""
    return offset - stream.place if stream.way is Way.FORWARD else stream.place - end


def _belongs(stream: Stream, offset: int, end: int) -> bool:
    if stream.way is Way.STRIDED:
        return offset == stream.place or offset == stream.place + stream.stride
    slack = min(REORDER, stream.run)
    return -slack <= _hole(stream, offset, end) <= max(0, slack - stream.skipped)
