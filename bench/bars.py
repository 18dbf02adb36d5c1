"""What is to be reached, as a table, and whether it is.

A ratio is the best rival's number divided by ours: more than 1 means that zosfs is better.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from bench.results import Result
from bench.tools import TOOLS, Kind, Tool


class Against(Enum):
    """Which of the rivals are asked to do the same."""

    ALL = "every rival"
    ATTRIBUTES = "those that keep attributes with each file"
    DURABLE = "those whose close returns when the store has the file"
    RCLONE_FULL = "rclone with its full cache"


@dataclass(frozen=True)
class Bar:
    """*ours* shall be *near* and *far* times as good at *quantity* ("delivered", "wall" or "cpu") of *workload* as the best rival."""

    title: str
    workload: str
    near: float | None
    far: float | None
    ours: str = "zosfs"
    quantity: str = "delivered"
    against: Against = Against.ALL

    def wanted(self, where: str) -> float | None:
        """The ratio to reach near or far; None when there is none to reach."""
        return self.near if where == "near" else self.far


BARS = (
    Bar("first byte of a large file", "first-byte", 1.5, 1.5),
    Bar("sequential read", "seq-read", 1.2, 2),
    Bar("the same, CPU seconds of the daemon", "seq-read", 1, None, quantity="cpu"),
    Bar("4 parallel sequential reads", "par-read", 1.2, 2),
    Bar("random 4 KiB reads", "rand-read", 2, 2),
    Bar("the same, `random_ahead=16M`", "rand-read", None, 2, ours="zosfs-random"),
    Bar("read again after a remount, from the disk cache", "reread", 1, None, against=Against.RCLONE_FULL),
    Bar("`ls -l`, `noposix`", "ls", 3, 10, ours="zosfs-noposix"),
    Bar("`ls -l`, stored attributes", "ls", 1.5, 3, against=Against.ATTRIBUTES),
    Bar("the names alone (`ls`, a shell's `*`)", "names", None, None),
    Bar("`find`, `noposix`", "find", 3, 20, ours="zosfs-noposix"),
    Bar("`find`, stored attributes, `nospecial`", "find", 3, 20, ours="zosfs-nospecial"),
    Bar("`find`, stored attributes", "find", 3, 20),
    Bar("read small files in listing order", "read-small", 1.5, 3),
    Bar("the same, `prefetch=5s`", "read-small", 1.5, 3, ours="zosfs-prefetch"),
    Bar("`rm -r`", "rm", 3, 10),
    Bar("`rm -r`, `nospecial`", "rm", 3, 10, ours="zosfs-nospecial"),
    Bar("`rm -r`, `noposix`", "rm", 3, 10, ours="zosfs-noposix"),
    Bar("rename of a directory", "rename", 1.2, 3),
    Bar("sequential write", "seq-write", 1, 1),
    Bar("the same, CPU seconds of the daemon", "seq-write", 1, None, quantity="cpu"),
    Bar("create small files", "create", 1, 1, against=Against.DURABLE),
    Bar("create small files, `writeback`", "create", 10, 10, ours="zosfs-writeback", quantity="wall", against=Against.DURABLE),
)  # fmt: skip
"""In the order of the page."""


@dataclass(frozen=True)
class Verdict:
    """How a bar stands: *ratio* against *rival*. *at_least*: the rival was stopped, undone, and would have taken longer.

    *met* is None where there is nothing to reach. *mixed*: the two numbers are of different runs.
    """

    ratio: float
    rival: str
    at_least: bool
    met: bool | None
    mixed: bool


def _same_work(tool: Tool, against: Against) -> bool:
    if tool.kind is not Kind.RIVAL:
        return False
    match against:
        case Against.ATTRIBUTES:
            return tool.attributes
        case Against.DURABLE:
            return tool.durable
        case Against.RCLONE_FULL:
            return tool.name == "rclone-full"
        case Against.ALL:
            return True


def quantity(result: Result, name: str) -> float:
    """A result's seconds: "delivered", "wall" or "cpu"."""
    return float(getattr(result, name))


def judge(bar: Bar, results: Iterable[Result], where: str, *, as_they_come: bool = False) -> Verdict | None:
    """How *bar* stands in *results*; None when ours or every rival's number is missing.

    *as_they_come*: only of the rivals without settings.
    """
    rows = [one for one in results if one.workload == bar.workload and one.where == where and not one.failed and one.tool in TOOLS]
    ours = next((one for one in rows if one.tool == bar.ours), None)
    rivals = [one for one in rows if _same_work(TOOLS[one.tool], bar.against) and not (as_they_come and "-" in one.tool)]
    # the CPU of a rival that was stopped says nothing, and neither do we when we were stopped
    rivals = [one for one in rivals if not (one.cut and bar.quantity == "cpu")]
    if ours is None or ours.cut or not rivals:
        return None
    rival = min(rivals, key=lambda one: quantity(one, bar.quantity))
    ratio = quantity(rival, bar.quantity) / max(quantity(ours, bar.quantity), 1e-4)
    wanted = bar.wanted(where)
    return Verdict(ratio, rival.tool, rival.cut, None if wanted is None else round(ratio, 2) >= wanted, rival.run != ours.run)


def best_of(results: Iterable[Result], tools: Sequence[str]) -> Result | None:
    """Of the results of one workload the one of *tools* that was delivered first; None when none has a number."""
    rows = [one for one in results if one.tool in tools and not one.failed]
    return min(rows, key=lambda one: (one.cut, one.delivered), default=None)
