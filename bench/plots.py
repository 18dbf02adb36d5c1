"""The plots of the page, as small SVG files that are the same whenever the numbers are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

from bench.bars import BARS, best_of, judge
from bench.page import WAYS, family
from bench.results import Result
from bench.tools import TOOLS, Kind
from bench.workloads import WORKLOADS

OURS, FAR, WANTED = "#0b6e99", "#e08a1e", "#303030"
SHADES = {"zosfs": OURS, "s3fs": "#8a8a8a", "rclone": "#c26a6a", "juicefs": "#b8b08a"}
_MORE = ("#7a9a6a", "#9a7aa8", "#6aa8a0")


def draw(results: Sequence[Result], directory: Path) -> list[Path]:
    """Draw all into *directory*; the files that were made."""
    mpl.rcParams.update({"svg.hashsalt": "zosfs", "svg.fonttype": "none", "font.size": 9})
    mpl.rcParams.update({"axes.spines.top": False, "axes.spines.right": False})
    made = []
    for name, picture in (("ratios", _ratios(results)), ("cpu", _cpu(results)), ("memory", _memory(results))):
        path = directory / f"bench-{name}.svg"
        picture.savefig(path, bbox_inches="tight", metadata={"Date": None})
        plt.close(picture)
        made.append(path)
    return made


def _title(text: str) -> str:
    return text.replace("`", "")


def _ratios(results: Sequence[Result]) -> Any:
    rows = [(bar, {where: judge(bar, results, where) for where in WAYS}) for bar in BARS]
    rows = [(bar, verdicts) for bar, verdicts in rows if any(verdicts.values())]
    picture, axes = plt.subplots(figsize=(8, 0.5 + 0.42 * max(len(rows), 1)))
    titles = []
    for at, (bar, verdicts) in enumerate(rows):
        same = bar.quantity == "cpu"
        titles.append(f"{_before(rows, at)}: CPU" if same else _title(bar.title))
        for n, (where, colour) in enumerate(zip(WAYS, (OURS, FAR), strict=True)):
            verdict, wanted, y = verdicts[where], bar.wanted(where), at + (n - 0.5) * 0.36
            if verdict:
                axes.barh(y, verdict.ratio - 1, height=0.34, left=1, color=colour, label=where if at == 0 else None)
                said = f"{'> ' if verdict.at_least else ''}{verdict.ratio:.2f}  {verdict.rival}"
                axes.text(max(verdict.ratio, wanted or 1, 1) * 1.05, y, said, va="center", fontsize=7)
            if wanted and verdict:
                axes.plot([wanted, wanted], [y - 0.2, y + 0.2], color=WANTED, linewidth=2, label="wanted" if at == n == 0 else None)
    axes.set_xscale("log")
    axes.set_xticks(ticks := [0.25, 0.5, 1, 2, 5, 10, 20, 50], [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    low = min([0.8, *(v.ratio * 0.8 for _, verdicts in rows for v in verdicts.values() if v)])
    axes.set_xlim(low, 3 * max([10, *(v.ratio for _, verdicts in rows for v in verdicts.values() if v)]))
    axes.axvline(1, color=WANTED, linewidth=0.8)
    axes.set_yticks(range(len(rows)), titles)
    axes.invert_yaxis()
    axes.set_xlabel("times better than the best rival (its name beside)")
    if rows:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 0.99), ncols=3, frameon=False)
    return picture


def _before(rows: Sequence[tuple[Any, Any]], at: int) -> str:
    return _title(str(rows[at - 1][0].title)) if at else "CPU"


def _families(results: Sequence[Result]) -> list[str]:
    there = {one.tool for one in results}
    return ["zosfs", *dict.fromkeys(t.name.partition("-")[0] for t in TOOLS.values() if t.kind is not Kind.OURS and t.name in there)]


def _shade(name: str) -> str:
    others = [tool.name for tool in TOOLS.values() if tool.kind is Kind.SHOWN]
    return SHADES.get(name) or _MORE[others.index(name) % len(_MORE)]


def _grouped(axes: Any, results: Sequence[Result], workloads: Sequence[str], number: Any) -> None:
    families = _families(results)
    width = 0.8 / len(families)
    for n, name in enumerate(families):
        for at, workload in enumerate(workloads):
            rows = [one for one in results if one.workload == workload and one.where == "near" and not one.cut]
            one = best_of(rows, ["zosfs"] if name == "zosfs" else family(name))
            if one is None:
                continue
            value = number(one)
            x = at + (n - (len(families) - 1) / 2) * width
            axes.bar(x, value, width=width * 0.95, color=_shade(name), label=name if at == 0 else None)
            axes.text(x, value, f"{value:.2f}" if value < 10 else f"{value:.0f}", ha="center", va="bottom", fontsize=7)
    axes.set_xticks(range(len(workloads)), workloads, rotation=25 if len(workloads) > 6 else 0)
    if workloads:
        axes.legend(frameon=False, ncols=len(families), loc="upper left", bbox_to_anchor=(0, 1.15))


def _cpu(results: Sequence[Result]) -> Any:
    moving = [w.name for w in WORKLOADS if any(one.workload == w.name and one.moved and one.where == "near" for one in results)]
    picture, axes = plt.subplots(figsize=(7, 2.6))
    _grouped(axes, results, moving, lambda one: one.cpu_per_gib or 0.0)
    axes.set_ylabel("CPU seconds for each GiB")
    return picture


def _memory(results: Sequence[Result]) -> Any:
    shown = [w.name for w in WORKLOADS if any(one.workload == w.name and one.where == "near" and one.peak for one in results)]
    picture, axes = plt.subplots(figsize=(11, 2.8))
    _grouped(axes, results, shown, lambda one: one.peak / (1 << 20))
    axes.set_ylabel("MiB at the daemon's peak")
    return picture
