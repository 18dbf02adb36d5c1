"""What read-ahead makes of whole traces, as the simulator of bench/ counts it. The model has no clock: the numbers are exact."""

from __future__ import annotations

import pytest

from bench.traces import KERNEL, TRACES, replay, run_of
from zosfs.content.readahead import KIB, MIB

BOUNDS = {  # requests, bytes fetched for each used, reads that waited
    "parquet": (70, 3.1, 36),
    "zip": (6, 1.2, 6),
    "video": (40, 2.1, 22),
    "tail": (1, 5.4, 1),
    "sqlite": (201, 1.4, 201),
    "index": (80, 21.0, 42),
    "model": (48, 1.0, 22),
    "skim": (150, 3.2, 26),
}


@pytest.mark.parametrize("name", TRACES)
def test_trace_stays_within_its_bounds(name: str) -> None:
    size, reads = TRACES[name]()
    got = replay(size, reads)
    requests, factor, waits = BOUNDS[name]
    assert got.requests <= requests, got
    assert got.factor <= factor, got
    assert got.waits <= waits, got


def test_a_random_small_read_costs_only_itself() -> None:
    reads = [(at * 7 * MIB + 12 * KIB, 4 * KIB) for at in (3, 1, 8, 5, 11)]
    assert replay(128 * MIB, reads).fetched == len(reads) * 4 * KIB


def test_after_a_seek_few_reads_wait() -> None:
    before = list(run_of(0, 32 * MIB))
    after = list(run_of(600 * MIB, 632 * MIB))
    waited = replay(1024 * MIB, before + after).waits - replay(1024 * MIB, before).waits
    assert waited <= 12, waited


def test_bytes_used_are_counted_once() -> None:
    got = replay(MIB, [(0, KERNEL), (0, KERNEL), (KERNEL // 2, KERNEL)])
    assert got.used == KERNEL + KERNEL // 2
