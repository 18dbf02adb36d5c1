"""Results, how several passes and several runs become one, and their JSON.

A run is one start of the program; only numbers of one run are compared without saying so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Result:
    """One workload by one tool, near or far.

    *wall* is seconds until the program ended, *delivered* until the store had all, *cpu* seconds of the daemon, *peak* bytes of its
    memory, *moved* bytes of content, *requests* by verb. *cut*: the work was ended after *wall* seconds, undone. *failed* says why there is
    no number. *passes* is of how many this is the best.
    """

    workload: str
    tool: str
    where: str
    run: str = ""
    wall: float = 0.0
    delivered: float = 0.0
    cpu: float = 0.0
    peak: int = 0
    moved: int = 0
    requests: Mapping[str, int] = field(default_factory=dict)
    cut: bool = False
    failed: str = ""
    passes: int = 1

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is a result of."""
        return self.where, self.workload, self.tool

    @property
    def cpu_per_gib(self) -> float | None:
        """CPU seconds for each GiB of content, where the work is to move content."""
        return self.cpu / (self.moved / (1 << 30)) if self.moved else None


@dataclass(frozen=True)
class Run:
    """One start of the program: its facts (time, machine, scale, versions), and the best pass of each."""

    facts: Mapping[str, Any]
    results: Sequence[Result]


def best(passes: Iterable[Result]) -> list[Result]:
    """Of several passes of the same the one that was delivered first; a pass that was cut or failed only when there is no other."""
    chosen: dict[tuple[str, str, str], Result] = {}
    count: dict[tuple[str, str, str], int] = {}
    for one in passes:
        count[one.key] = count.get(one.key, 0) + one.passes
        there = chosen.get(one.key)
        if there is None or _rank(one) < _rank(there):
            chosen[one.key] = one
    return [replace(one, passes=count[one.key]) for one in chosen.values()]


def _rank(result: Result) -> tuple[bool, bool, float]:
    return bool(result.failed), result.cut, result.delivered


def join(runs: Iterable[Run]) -> Run:
    """Several runs, or joins of some, as one: of what more than one has, the last counts, not the best.

    Numbers of another scale than the last run's are dropped. Facts are kept by run, under ``runs``. A run that nothing is left of is
    forgotten; those that measured the memory of names ("inodes") stay until it is measured again.
    """
    facts: dict[str, Any] = {}
    rows: list[Result] = []
    for run in runs:
        facts.update(run.facts["runs"] if "runs" in run.facts else {run.facts["run"]: run.facts})
        rows += run.results
    rows.sort(key=lambda one: one.run)
    scales = {one.where: _scale(facts, one) for one in rows}
    results = {one.key: one for one in rows if _scale(facts, one) == scales[one.where]}
    used = {one.run for one in results.values()} | {name for name in facts if "inodes" in facts[name]} - _outdone(facts)
    return Run({"runs": {name: facts[name] for name in sorted(used & facts.keys())}}, list(results.values()))


def _scale(facts: Mapping[str, Any], one: Result) -> Any:
    return facts.get(one.run, {}).get(f"scale {one.where}")


def _outdone(facts: Mapping[str, Any]) -> set[str]:
    """Runs whose memory of names was all measured again by later ones."""
    seen: set[str] = set()
    found = set()
    for name in sorted((name for name, each in facts.items() if "inodes" in each), reverse=True):
        if set(facts[name]["inodes"]) <= seen:
            found.add(name)
        seen |= set(facts[name]["inodes"])
    return found


def dump(run: Run) -> str:
    """As JSON, a line for each result."""
    rows = ",\n  ".join(json.dumps(_short(one)) for one in run.results)
    return f'{{"facts": {json.dumps(run.facts, indent=1)},\n "results": [\n  {rows}\n ]}}\n'


def _short(one: Result) -> dict[str, Any]:
    default = asdict(Result("", "", ""))
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(one).items() if value != default[name]}


def load(text: str) -> Run:
    """What `dump` wrote."""
    read = json.loads(text)
    return Run(read["facts"], [Result(**row) for row in read["results"]])


def read(paths: Iterable[Path]) -> Run:
    """The runs of several files, joined."""
    return join(load(path.read_text()) for path in paths)
