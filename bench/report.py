"""Results as a table for people and as JSON for machines.

A ratio is a peer's number divided by zosfs's: more than 1 means that zosfs is better. The best peer counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

OURS = "zosfs"


@dataclass
class Result:
    """One workload on one tool: wall and CPU in seconds, peak memory in bytes; *failed* says why there is no number."""

    workload: str
    tool: str
    wall: float = 0.0
    cpu: float = 0.0
    peak: int = 0
    requests: dict[str, int] = field(default_factory=dict)
    failed: str = ""


def best(results: Sequence[Result]) -> list[Result]:
    """Of repeated runs of one workload on one tool the one with the least wall time."""
    chosen: dict[tuple[str, str], Result] = {}
    for result in results:
        key = (result.workload, result.tool)
        if key not in chosen or chosen[key].failed or (not result.failed and result.wall < chosen[key].wall):
            chosen[key] = result
    return list(chosen.values())


def ratio(results: Iterable[Result], workload: str, quantity: str, peers: Sequence[str]) -> float | None:
    """Best peer's *quantity* (wall, cpu, peak) divided by zosfs's; None when either is missing."""
    numbers: Mapping[str, float] = {
        result.tool: getattr(result, quantity) for result in results if result.workload == workload and not result.failed
    }
    theirs = [numbers[peer] for peer in peers if peer in numbers]
    return min(theirs) / max(numbers[OURS], 1e-3) if theirs and OURS in numbers else None


def table(results: Sequence[Result], tools: Sequence[str]) -> Table:
    """Wall seconds, CPU seconds and peak MiB of each tool, and the ratios against the best peer."""
    shown = Table(title="zosfs and its peers (wall s / daemon CPU s / peak MiB; ratio over 1: zosfs is better)")
    shown.add_column("work")
    for tool in tools:
        shown.add_column(tool, justify="right")
    for name in ("wall ×", "CPU ×", "memory ×"):
        shown.add_column(name, justify="right")
    peers = [tool for tool in tools if not tool.startswith(OURS)]
    for workload in dict.fromkeys(result.workload for result in results):
        cells = [workload]
        for tool in tools:
            result = next((r for r in results if (r.workload, r.tool) == (workload, tool)), None)
            if result is None:
                cells.append("")
            elif result.failed:
                cells.append("failed")
            else:
                cells.append(f"{result.wall:.2f} / {result.cpu:.2f} / {result.peak >> 20}")
        for quantity in ("wall", "cpu", "peak"):
            value = ratio(results, workload, quantity, peers)
            cells.append("" if value is None else f"{value:.2f}")
        shown.add_row(*cells)
    return shown


def show(results: Sequence[Result], tools: Sequence[str]) -> None:
    """Print the table, and what failed."""
    console = Console(width=160)
    console.print(table(results, tools))
    for result in results:
        if result.failed:
            console.print(f"{result.tool} failed at {result.workload}: {result.failed}", markup=False)


def write(path: Path, results: Sequence[Result], facts: Mapping[str, Any]) -> None:
    """Write all as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**facts, "results": [asdict(result) for result in results]}, indent=1) + "\n")
