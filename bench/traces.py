"""Replays traces of reads against the read-ahead decision alone: ``python -m bench.traces``.

Owns: a model of a store (a round trip, a rate per connection, some connections) and the traces. Nothing here touches a network or a
clock, so its numbers are the same everywhere; they compare decisions, and say nothing of what a real mount takes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from zosfs.content.readahead import KIB, MIB, Found, History

ROUND_TRIP = 0.02
RATE = 50e6
SLOTS = 16
MOST = 128 * MIB
KERNEL = 128 * KIB

Read = tuple[int, int]


@dataclass(frozen=True)
class Replayed:
    """What a trace cost: requests, bytes fetched, distinct bytes read, reads that waited, and modelled seconds."""

    requests: int
    fetched: int
    used: int
    waits: int
    seconds: float

    @property
    def factor(self) -> float:
        """Bytes fetched for each byte used."""
        return self.fetched / self.used


def replay(size: int, reads: list[Read]) -> Replayed:
    """Replay *reads* ``(offset, bytes)``, one after another on one handle, of a file of *size* bytes, whose bytes are never dropped."""
    history = History(size, MOST)
    blocks: list[tuple[int, int, float]] = []  # disjoint, in order: start, end, when the last byte is here
    now, fetched, waits = 0.0, 0, 0

    def gaps(start: int, end: int) -> list[Read]:
        found = []
        for low, high, _ in blocks:
            if high > start and low < end:
                if low > start:
                    found.append((start, low))
                start = max(start, high)
        return [*found, (start, end)] if start < end else found

    def fetch(start: int, end: int) -> None:
        nonlocal fetched
        blocks.append((start, end, now + ROUND_TRIP + (end - start) / RATE))
        blocks.sort()
        fetched += end - start

    for offset, wanted in reads:
        end = min(offset + wanted, size)
        due = max((ready for low, high, ready in blocks if high > offset and low < end), default=now)
        found = Found.ABSENT if gaps(offset, end) else Found.COMING if due > now else Found.READY
        waits += found is not Found.READY
        advice = history.observe(offset, end - offset, found, now)
        for start, stop in gaps(*advice.demand):
            if start < end and stop > offset:
                fetch(start, stop)
        for at, span in enumerate(advice.ahead):
            if sum(ready > now for _, _, ready in blocks) >= SLOTS:
                assert advice.stream is not None
                for refused in reversed(advice.ahead[at:]):
                    advice.stream.refuse(refused)
                break
            for start, stop in gaps(*span):
                fetch(start, stop)
        now = max(now, max(ready for low, high, ready in blocks if high > offset and low < end))
    return Replayed(len(blocks), fetched, _distinct(size, reads), waits, now)


def _distinct(size: int, reads: list[Read]) -> int:
    total = at = 0
    for start, length in sorted(reads):
        end = min(start + length, size)
        total += max(0, end - max(start, at))
        at = max(at, end)
    return total


def run_of(start: int, end: int, step: int = KERNEL) -> Iterator[Read]:
    """``[start, end)`` read in order, as the kernel asks for it."""
    return ((at, min(step, end - at)) for at in range(start, end, step))


def _parquet() -> tuple[int, list[Read]]:
    size = 256 * MIB
    return size, [(size - 8, 8), (size - 40 * KIB, 40 * KIB), *(r for g in range(8) for r in run_of(g * 32 * MIB, g * 32 * MIB + 2 * MIB))]


def _zip() -> tuple[int, list[Read]]:
    size = 64 * MIB
    return size, [(size - 22, 22), (size - 48 * KIB, 48 * KIB), *(((n * 9 + 1) * MIB, 20 * KIB) for n in (3, 0, 5, 1))]


def _video() -> tuple[int, list[Read]]:
    size = 1024 * MIB
    return size, [*run_of(0, 16 * MIB), *run_of(600 * MIB, 632 * MIB)]


def _tail() -> tuple[int, list[Read]]:
    size = 512 * MIB
    return size, [(size - 4 * KIB, 4 * KIB), (size - 8 * KIB, 4 * KIB), (size - 12 * KIB, 4 * KIB)]


def _sqlite() -> tuple[int, list[Read]]:
    dice = random.Random(1)
    size = 256 * MIB
    return size, [(0, 4 * KIB), *((dice.randrange(1, size // (4 * KIB)) * 4 * KIB, 4 * KIB) for _ in range(200))]


def _index() -> tuple[int, list[Read]]:
    dice = random.Random(1)
    size = 32 * MIB
    return size, [(0, 4 * KIB), *((dice.randrange(1, size // (4 * KIB)) * 4 * KIB, 4 * KIB) for _ in range(400))]


def _model() -> tuple[int, list[Read]]:
    size = 256 * MIB
    return size, [(0, 64 * KIB), *run_of(64 * KIB, size)]


def _skim() -> tuple[int, list[Read]]:
    size = 1024 * MIB
    return size, [*run_of(0, 16 * MIB), *((at * MIB, 4 * KIB) for at in range(17, 317, 3))]


TRACES: dict[str, Callable[[], tuple[int, list[Read]]]] = {
    "parquet": _parquet, "zip": _zip, "video": _video, "tail": _tail, "sqlite": _sqlite, "index": _index, "model": _model,
    "skim": _skim,
}  # fmt: skip
"""Each gives the file's size and the reads."""


def main() -> None:
    """Print a line for each trace."""
    print(f"{'trace':<10}{'reads':>7}{'requests':>10}{'MiB':>9}{'fetched/used':>14}{'waits':>7}{'seconds':>9}")
    for name, trace in TRACES.items():
        size, reads = trace()
        got = replay(size, reads)
        print(f"{name:<10}{len(reads):>7}{got.requests:>10}{got.fetched / MIB:>9.1f}{got.factor:>14.2f}{got.waits:>7}{got.seconds:>9.2f}")


if __name__ == "__main__":
    main()
