"""What was measured, as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from bench.bars import BARS, judge
from bench.page import WAYS, seconds
from bench.results import Result


def bars(results: Sequence[Result]) -> Table:
    """Each bar with the ratio that was measured, near and far."""
    shown = Table(title="how many times better than the best rival")
    shown.add_column("work")
    for where in WAYS:
        for name in (where, "wanted", "against"):
            shown.add_column(name, justify="right")
    for bar in BARS:
        cells = [bar.title]
        for where in WAYS:
            verdict, wanted = judge(bar, results, where), bar.wanted(where)
            colour = "" if verdict is None or verdict.met is None else "[green]" if verdict.met else "[red]"
            ratio = f"{colour}{'> ' if verdict.at_least else ''}{verdict.ratio:.2f}" if verdict else ""
            cells += [ratio, "" if wanted is None else f"{wanted:g}", verdict.rival if verdict else ""]
        if any(cells[1::3]):
            shown.add_row(*cells)
    return shown


def show(results: Sequence[Result]) -> None:
    """Print the bars, and what failed or was ended."""
    console = Console(width=150)
    console.print(bars(results))
    for one in results:
        if one.failed or one.cut:
            why = one.failed or f"ended after {seconds(one.wall)} s"
            console.print(f"{one.where} {one.workload} on {one.tool}: {why}", markup=False)
