"""How a changed file gets into the store: which bytes travel, and which the server copies from the old object.

Owns: the decision, as pure functions. May use: zosfs.content.ranges, zosfs.errors, the value types of zosfs.store.api.
Must not know: files, tasks, requests.

The file that is planned for has *size* bytes. Each of them is one of three:
- **dirty**: it is in the staged file and nowhere else;
- **base**: not dirty and below *kept*: equal to the base object's byte at the same offset;
- **hole**: not dirty and at or above *kept*: zero, and the sparse staged file reads as zero there.
*kept* is the least size that the file has had since it was opened on its base (0 with O_TRUNC): what was cut and grown
again is no longer the base's.

Fewest wire bytes come first, then fewest requests; with one exception: a file of moderate size goes up as one PUT, even if that
costs up to one smallest part more than a multipart upload would, because a PUT can be conditional and atomic on servers
where completing a multipart upload cannot.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from zosfs.content.ranges import Ranges
from zosfs.errors import StoreError
from zosfs.store.api import Abilities, ObjectInfo

MIB = 1 << 20
GIB = 1 << 30

EQUAL = 800
"""So many parts of a file whose length nobody knows yet are of the same size."""
COPIES_AT_ONCE = 4
LEAST_COPY = 8 * MIB
"""Copying 32 MiB on Ceph took 0.16 s in one part, 0.12 s in four at once; more parts gained nothing, smaller ones neither."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server takes and how large the pieces are that we make; all in bytes but *max_parts*.

    *part_size* is the size of an uploaded part, *copy_part* of a copied one: servers that copy by moving data are
    fastest with several at once. Both grow when an object would need more than *max_parts*.
    """

    min_part: int = 5 * MIB
    max_part: int = 5 * GIB
    max_parts: int = 10_000
    max_put: int = 5 * GIB
    copy_part: int = 64 * MIB
    part_size: int = 16 * MIB
    multipart_threshold: int = 32 * MIB
    max_object: int = 10_000 * 5 * GIB


@dataclass(frozen=True, slots=True)
class Base:
    """The object that a file was opened on: what the store has and the unchanged bytes come from.

    *next_position* is the server's next append position of an appendable object (its size, where it is not told).
    """

    key: str
    size: int
    etag: str
    appendable: bool = False
    next_position: int | None = None

    @classmethod
    def of(cls, info: ObjectInfo) -> Base:
        """The base that a HEAD, a GET or an earlier delivery told of."""
        position = info.headers.get("x-rgw-next-append-position", "")
        return cls(info.key, info.size, info.etag, info.appendable, int(position) if position.isdigit() else None)

    @property
    def position(self) -> int:
        """Where the next append goes."""
        return self.size if self.next_position is None else self.next_position


@dataclass(frozen=True, slots=True)
class UploadRange:
    """A part made of the staged file's bytes ``[start, end)``."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class CopyRange:
    """A part that the server copies from the base object's bytes ``[start, end)``."""

    start: int
    end: int


Part = UploadRange | CopyRange
Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Nothing:
    """The bytes in the store are right already."""

    wire: int = 0


@dataclass(frozen=True, slots=True)
class Put:
    """The whole file in one request; *downloads* are the base ranges that must be in the staged file first."""

    size: int
    downloads: tuple[Range, ...] = ()

    @property
    def wire(self) -> int:
        """Bytes that travel, both ways."""
        return self.size + _length(self.downloads)


@dataclass(frozen=True, slots=True)
class Append:
    """The staged file's bytes ``[start, end)`` added to an appendable object that must be *position* long (0 creates it)."""

    position: int
    start: int
    end: int

    @property
    def wire(self) -> int:
        """Bytes that travel, both ways."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Multipart:
    """The file as parts in order, without gaps; *downloads* are the base ranges that must be in the staged file first."""

    parts: tuple[Part, ...]
    downloads: tuple[Range, ...] = ()

    @property
    def wire(self) -> int:
        """Bytes that travel, both ways."""
        sent = sum(part.end - part.start for part in self.parts if isinstance(part, UploadRange))
        return sent + _length(self.downloads)


Plan = Nothing | Put | Append | Multipart


def plan(
    base: Base | None,
    dirty: Ranges,
    size: int,
    limits: Limits,
    abilities: Abilities,
    *,
    appending: bool,
    present: Ranges | None = None,
    kept: int | None = None,
) -> Plan:
    """Decide how a file of *size* bytes with these *dirty* ranges gets into the store (the module says what a byte is).

    *base* is None for a new file. *appending* says that the file was opened with O_APPEND: a new one then becomes an
    appendable object where the server can. *present* are base ranges that the staged file has already and that need no
    download. *kept* is min(size, base.size) unless given. Nothing is planned for an unchanged file: attributes are the
    caller's business.
    Raises StoreError ``EntityTooLarge`` (EFBIG) when no object can be as large.
    """
    if size > limits.max_object:
        raise StoreError("EntityTooLarge", operation="write", key=base.key if base else "")
    kept = min(base.size if base else 0, size, size if kept is None else kept)
    runs = _uploads(dirty, kept, size)
    if base is not None and size == base.size and not runs:
        return Nothing()
    added = _append(base, runs, size, limits, abilities, appending)
    if added is not None:
        return added
    have = dirty if present is None else dirty.union(present)
    whole = Put(size, tuple(have.missing(0, kept)))
    if size == 0 or (size <= limits.max_put and not kept and size <= limits.multipart_threshold):
        return whole
    copies = _choose_copies(runs, kept, size, limits.min_part)
    parts = _parts(copies, size, limits)
    downloads = [
        gap for part in parts if isinstance(part, UploadRange) for gap in have.missing(part.start, min(part.end, kept))
    ]
    pieces = Multipart(parts, tuple(Ranges(downloads)))
    small = size <= min(limits.multipart_threshold, limits.max_put)
    if small and whole.wire <= pieces.wire + limits.min_part:
        return whole
    if len(parts) == 1 and isinstance(parts[0], UploadRange) and size <= limits.max_put:
        return whole
    return pieces


def only_grown(base: Base | None, dirty: Ranges, size: int, kept: int) -> tuple[int, int] | None:
    """The staged bytes ``[start, end)`` by which a file grew at its end, changed nowhere else; None when it did change."""
    old = base.size if base else 0
    if size <= old or kept != old or (dirty and dirty.start < old):
        return None
    return old, size


def part_size_for(number: int, limits: Limits) -> int:
    """The size of part *number* (from 1) of a file whose length nobody knows yet.

    Doubles every `EQUAL` parts, so that even with the smallest first part 10,000 of them reach 5 TiB, while a file of
    a dozen GiB goes up in parts that are soon full.
    """
    return min(limits.max_part, max(limits.min_part, limits.part_size) << ((number - 1) // EQUAL))


def part_bounds(number: int, limits: Limits) -> Range:
    """The bytes ``[start, end)`` of part *number* under the schedule of `part_size_for`."""
    start = 0
    first = 1
    while number - first >= EQUAL:
        start += EQUAL * part_size_for(first, limits)
        first += EQUAL
    length = part_size_for(number, limits)
    start += (number - first) * length
    return start, start + length


def _length(ranges: tuple[Range, ...]) -> int:
    return sum(end - start for start, end in ranges)


def _uploads(dirty: Ranges, kept: int, size: int) -> Ranges:
    """What no server has: the dirty bytes, and the holes above what is kept of the base."""
    runs = dirty.copy()
    runs.truncate(size)
    runs.add(kept, size)
    return runs


def _append(
    base: Base | None, runs: Ranges, size: int, limits: Limits, abilities: Abilities, appending: bool
) -> Append | None:
    if not abilities.append:
        return None
    if base is None:
        return Append(0, 0, size) if appending and size <= limits.max_put else None
    grown = size - base.size
    # a server position that is not the size would put the tail elsewhere than the file has it
    if base.appendable and base.position == base.size and 0 < grown <= limits.max_put and runs.start >= base.size:
        return Append(base.size, base.size, size)
    return None


@dataclass(frozen=True, slots=True)
class _Run:
    """A chain of copied runs, the last one first; a list that many states share."""

    before: _Run | None
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _State:
    """One way to deal with the file so far: the clean bytes it uploads, the upload since the last copied run, the copied runs."""

    cost: int
    group: int
    copied: _Run | None

    def slack(self, smallest: int) -> int:
        """How many bytes the last copied run can give away at its end."""
        return self.copied.end - self.copied.start - smallest if self.copied else 0


def _choose_copies(runs: Ranges, kept: int, size: int, smallest: int) -> list[Range]:
    """Which base ranges the server copies so that the fewest other bytes travel.

    Every maximal copied and every maximal uploaded run has at least *smallest* bytes, but for the one at the end of the file.
    A clean gap shorter than that is uploaded with its neighbours, unless it ends the file; an uploaded run that is
    too short borrows from the copied runs beside it. Which of the gaps in between to give up is found by dynamic
    programming over the gaps: all that matters of the past is how long the uploaded group is, and how much the copied
    run before it can lend.
    """
    groups = _merge_close(runs, kept, size, smallest)
    if not groups:
        return [(0, size)] if size else []
    first = groups[0][0]
    states = [_State(first, first, None)]
    if first >= smallest:
        states.append(_State(0, 0, _Run(None, 0, first)))
    for (start, end), (following, _) in zip(groups, [*groups[1:], (size, size)], strict=True):
        gap = following - end
        states = [_State(state.cost, state.group + end - start, state.copied) for state in states]
        if following == size and gap == 0:
            break
        least = smallest if following < size else 1
        branches = [_State(state.cost + gap, state.group + gap, state.copied) for state in states]
        for state in states:
            short = max(0, smallest - state.group)
            left = min(short, state.slack(smallest))
            right = short - left
            if gap - right < least:
                continue
            copied = state.copied
            if left and copied is not None:
                copied = _Run(copied.before, copied.start, copied.end - left)
            branches.append(_State(state.cost + short, 0, _Run(copied, end + right, following)))
        states = _prune(branches, smallest)
    best = min(states, key=lambda state: state.cost)
    copies = []
    run = best.copied
    while run is not None:
        copies.append((run.start, run.end))
        run = run.before
    return copies[::-1]


def _merge_close(runs: Ranges, kept: int, size: int, smallest: int) -> list[Range]:
    """The runs to upload, joined over gaps (and the file's beginning) that are too short to be copied."""
    groups: list[Range] = []
    for start, end in runs:
        if groups and start - groups[-1][1] < smallest:
            groups[-1] = (groups[-1][0], end)
        elif not groups and start < smallest:
            groups.append((0, end))
        else:
            groups.append((start, end))
    return groups


def _prune(states: list[_State], smallest: int) -> list[_State]:
    """The states that no other one beats in cost, in the length of the group and in what can be lent, the cheapest few."""
    kept: list[_State] = []
    for state in sorted(states, key=lambda state: (state.cost, -min(state.group, smallest), -state.slack(smallest))):
        full = state.group >= smallest
        if not any(
            other.group >= smallest
            or (not full and other.group >= state.group and other.slack(smallest) >= state.slack(smallest))
            for other in kept
        ):
            kept.append(state)
    # the last one kept is the one that can always go on: all uploaded since long enough
    return kept if len(kept) <= 16 else [*kept[:15], kept[-1]]


def _parts(copies: list[Range], size: int, limits: Limits) -> tuple[Part, ...]:
    """The whole file as parts; larger parts, and then fewer copied runs, where it would need too many."""
    few = sum(end - start for start, end in copies) // COPIES_AT_ONCE
    upload, copy = max(limits.part_size, limits.min_part), max(limits.min_part, min(limits.copy_part, max(LEAST_COPY, few)))
    while True:
        count = _count(copies, size, upload, copy, limits)
        if count <= limits.max_parts:
            break
        if upload < limits.max_part or copy < limits.max_part:
            upload, copy = min(upload * 2, limits.max_part), min(copy * 2, limits.max_part)
        else:
            # giving up a copied run saves at most two parts
            spare = max(1, (count - limits.max_parts) // 2)
            doomed = set(sorted(copies, key=lambda run: run[1] - run[0])[:spare])
            copies = [run for run in copies if run not in doomed]
    parts: list[Part] = []
    at = 0
    for start, end in [*copies, (size, size)]:
        parts.extend(UploadRange(a, b) for a, b in _split(at, start, upload, limits))
        parts.extend(CopyRange(a, b) for a, b in _split(start, end, copy, limits))
        at = end
    return tuple(parts)


def _count(copies: list[Range], size: int, upload: int, copy: int, limits: Limits) -> int:
    count, at = 0, 0
    for start, end in [*copies, (size, size)]:
        count += _pieces(start - at, upload, limits) + _pieces(end - start, copy, limits)
        at = end
    return count


def _pieces(length: int, wanted: int, limits: Limits) -> int:
    """Into how many parts a run is cut: near *wanted*, none below the smallest nor above the largest part."""
    if length <= 0:
        return 0
    most = max(1, length // limits.min_part)
    return max(-(-length // limits.max_part), min(-(-length // wanted), most))


def _split(start: int, end: int, wanted: int, limits: Limits) -> list[Range]:
    count = _pieces(end - start, wanted, limits)
    edges = [start + (end - start) * step // count for step in range(count + 1)] if count else []
    return list(pairwise(edges))
