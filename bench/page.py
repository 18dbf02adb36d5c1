"""`python -m bench.page [RESULT…]`: makes docs/benchmarks.md and its plots of what was measured.

The results given are joined with those that the page shows already, which docs/benchmarks.json keeps: later ones take the place of earlier
ones. Only what stands between the two marks of the page is replaced; the rest is kept by hand.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.bare import TOOL as IN_MEMORY
from bench.bars import BARS, Bar, Verdict, best_of, judge
from bench.floor import TOOL as CURL
from bench.results import Result, Run, dump, read
from bench.tools import TOOLS, Kind
from bench.work import Scale
from bench.workloads import WORKLOADS, describe

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE, KEPT = DOCS / "benchmarks.md", DOCS / "benchmarks.json"
BEGIN, END = "<!-- measured: made by python -m bench.page -->", "<!-- end of what is made -->"
WAYS = ("near", "far")


def render(run: Run) -> str:
    """The measured part of the page."""
    times = [_times(run, where) for where in WAYS if any(one.where == where for one in run.results)]
    parts = [_about(run), _bars(run.results), _floors(run), *times, _settings(run), _cpu(run.results), _requests(run), _names(run)]
    return "\n\n".join(part for part in parts if part) + "\n"


def place(page: str, made: str) -> str:
    """*page* with *made* between its two marks; ValueError when it has none."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{made}\n{END}{rest.split(END)[1]}"


def scale_of(run: Run, where: str) -> Scale:
    """How much work it was, near or far."""
    said = [each[f"scale {where}"] for each in _runs(run) if f"scale {where}" in each]
    return Scale(**said[-1]) if said else Scale()


def _runs(run: Run) -> list[Mapping[str, Any]]:
    facts = run.facts["runs"] if "runs" in run.facts else {run.facts["run"]: run.facts}
    return [facts[name] for name in sorted(facts)]


def _about(run: Run) -> str:
    runs = [each for each in _runs(run) if "server" in each]
    if not runs:
        return "Nothing is measured yet."
    last = runs[-1]
    versions: dict[str, str] = {}
    for each in runs:
        versions.update({name.partition("-")[0]: version for name, version in each["versions"].items()})
    told = ", ".join(f"{name} {_bare(version)}" for name, version in sorted(versions.items()))
    when = "; ".join(f"{each['run'][:16].replace('T', ' ')}{_load(each)}" for each in runs)
    most = {way: {each["limit"][way] for each in runs if way in each["limit"]} for way in ("far", "near")}
    limits = ", ".join(f"{way} {' or '.join(f'{n:g}' for n in sorted(given))} s" for way, given in most.items() if given)
    ended = f" What took longer than a limit ({limits}) was ended." if limits else ""
    return (
        f"On a virtual machine with {last['cpus']} processors that also ran the server ({last['server']}) and the programs, Python "
        f"{last['python']}; {told}. Measured {when}.\n\n"
        f"*Near* is straight over the loopback interface. *Far* is {last['delay'] * 1000:g} ms away each way, a new connection costs a "
        f"round trip, and each connection carries {last['rate'] / 1e6:g} MB/s.{ended}"
    )


def _load(run: Mapping[str, Any]) -> str:
    return f" with a load of {run['load']:g} before" if "load" in run else ""


def _bare(version: str) -> str:
    words = [word for word in version.split() if word.lstrip("vV")[:1].isdigit()]
    return words[0].lstrip("vV").partition("+")[0] if words else version


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join([_row(head), _row("---" for _ in head), *(_row(row) for row in rows)])


def seconds(value: float) -> str:
    """With three digits that count."""
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _bars(results: Sequence[Result]) -> str:
    rows, mixed = [], False
    for bar in BARS:
        cells = [bar.title]
        for where in WAYS:
            verdict = judge(bar, results, where)
            mixed |= verdict is not None and verdict.mixed
            plain = judge(bar, results, where, as_they_come=True)
            same = verdict is not None and plain is not None and verdict.rival == plain.rival
            cells += [_wanted(bar, where), _verdict(verdict), verdict.rival if verdict else "", "" if same else _plainly(plain)]
        rows.append(cells)
    note = "\n\n(*) The two numbers are of different runs." if mixed else ""
    head = ["work", *(word for where in WAYS for word in (f"{where}: wanted", "is", "best rival", "as it comes"))]
    text = (
        "## How many times better than the best rival\n\n![ratios](bench-ratios.svg)\n\n"
        "The best rival is the best in any of its settings. Where that is none that is mounted as it comes, the last column has the best "
        "of those that are.\n\n"
    )
    return f"{text}{_table(head, rows)}{note}"


def _plainly(verdict: Verdict | None) -> str:
    return f"{'> ' if verdict.at_least else ''}{verdict.ratio:.2f}, {verdict.rival}" if verdict else ""


def _wanted(bar: Bar, where: str) -> str:
    wanted = bar.wanted(where)
    return "" if wanted is None else f"{wanted:g}"


def _verdict(verdict: Verdict | None) -> str:
    if verdict is None:
        return ""
    number = f"{'> ' if verdict.at_least else ''}{verdict.ratio:.2f}{' (*)' if verdict.mixed else ''}"
    return f"**{number}**" if verdict.met else f"{number}, not met" if verdict.met is False else number


def cell(one: Result | None) -> str:
    """Seconds / CPU seconds / MiB of one result."""
    if one is None:
        return ""
    if one.failed:
        return "fails"
    if one.cut:
        return f"> {one.wall:g}"
    early = f"{seconds(one.wall)}, all there " if one.delivered > one.wall + max(0.05, one.wall / 5) else ""
    return f"{early}{seconds(one.delivered)} / {one.cpu:.2f} / {one.peak >> 20}"


def _of(results: Sequence[Result], workload: str, where: str) -> dict[str, Result]:
    return {one.tool: one for one in results if one.workload == workload and one.where == where}


def family(name: str) -> list[str]:
    """The settings of one filesystem other than ours."""
    return [tool.name for tool in TOOLS.values() if tool.kind is not Kind.OURS and tool.name.partition("-")[0] == name]


def _others(run: Run) -> list[str]:
    there = {one.tool for one in run.results}
    return list(dict.fromkeys(tool.name.partition("-")[0] for tool in TOOLS.values() if tool.kind is not Kind.OURS and tool.name in there))


def _times(run: Run, where: str) -> str:
    others = _others(run)
    rows = []
    for workload in WORKLOADS:
        there = _of(run.results, workload.name, where)
        if not there:
            continue
        ours = [f"{cell(there.get('zosfs'))}"]
        variant = next((there[name] for name in there if name.startswith("zosfs-")), None)
        ours.append(f"`{variant.tool.partition('-')[2]}` {cell(variant)}" if variant else "")
        for other in others:
            one = best_of(there.values(), family(other))
            setting = f" `{one.tool.partition('-')[2]}`" if one and "-" in one.tool else ""
            ours.append(f"{cell(one)}{setting}")
        rows.append([describe(workload, scale_of(run, where)), *ours])
    text = (
        f"## {where.capitalize()}: seconds until the store has it / CPU seconds of the daemon / MiB at its peak\n\n"
        "Of several settings of a tool the fastest is shown.\n\n"
    )
    return text + _table(["work", "zosfs", "zosfs with", *(name if name != "juicefs" else "juicefs (ceiling)" for name in others)], rows)


def _floors(run: Run) -> str:
    rows = []
    for workload in WORKLOADS:
        ways = [_of(run.results, workload.name, where) for where in WAYS]
        there_is = {name: None for there in ways for name in there if name.startswith(f"{CURL}: ") or name == IN_MEMORY}
        for tool in sorted(there_is, key=lambda name: name == IN_MEMORY):
            cells = []
            for there in ways:
                ours = best_of(there.values(), [name for name, each in TOOLS.items() if each.kind is Kind.OURS])
                cells += [_with_cpu(there.get(tool)), _with_cpu(ours if tool in there else None)]
            rows.append([describe(workload, scale_of(run, WAYS[0])), tool, *cells])
    if not rows:
        return ""
    text = (
        "## What the requests take without a filesystem\n\ncurl sends them over the same way and throws the answers away. pyfuse3 with "
        "everything in memory is the opposite, a filesystem that sends no requests. Seconds / CPU seconds of curl or of the daemon, and "
        "the best of zosfs in any setting beside.\n\n"
    )
    return text + _table(["work", "instead of it", "near", "zosfs", "far", "zosfs"], rows)


def _with_cpu(one: Result | None) -> str:
    return f"{_plain(one)} / {one.cpu:.2f}" if one and not one.failed and not one.cut else _plain(one)


def _settings(run: Run) -> str:
    names = [name for name in family("rclone") if any(one.tool == name for one in run.results)]
    if not names:
        return ""
    rows = []
    for workload in WORKLOADS:
        cells = []
        for name in names:
            pair = [_of(run.results, workload.name, where).get(name) for where in WAYS]
            cells.append(" \\| ".join(_plain(one) for one in pair) if any(pair) else "")
        if any(cells):
            rows.append([f"`{workload.name}`", *cells])
    told = "\n".join(f"- `{name}`: {TOOLS[name].settings}" for name in names)
    return f"## The settings of rclone: seconds near \\| far\n\n{told}\n\n{_table(['work', *names], rows)}"


def _plain(one: Result | None) -> str:
    return "–" if one is None else "fails" if one.failed else f"> {one.wall:g}" if one.cut else seconds(one.delivered)


def _cpu(results: Sequence[Result]) -> str:
    tools = [name for name in TOOLS if any(one.tool == name and one.moved and one.where == "near" for one in results)]
    rows = []
    for workload in WORKLOADS:
        there = _of(results, workload.name, "near")
        numbers = [there[name].cpu_per_gib if name in there and _whole(there[name]) else None for name in tools]
        if any(number is not None for number in numbers):
            rows.append([f"`{workload.name}`", *("" if number is None else f"{number:.2f}" for number in numbers)])
    if not rows:
        return ""
    return (
        "## CPU seconds of the daemon for each GiB, near\n\n![CPU seconds per GiB](bench-cpu.svg)\n\n"
        f"{_table(['work', *tools], rows)}\n\n![peak memory](bench-memory.svg)"
    )


def _whole(one: Result) -> bool:
    return not one.failed and not one.cut


def _requests(run: Run) -> str:
    others = _others(run)
    rows = []
    for workload in WORKLOADS:
        for where in WAYS:
            there = {name: one for name, one in _of(run.results, workload.name, where).items() if _whole(one)}
            chosen = [there.get("zosfs"), there.get("zosfs-noposix"), *(best_of(there.values(), family(other)) for other in others)]
            if any(one and one.requests for one in chosen):
                rows.append([f"`{workload.name}`", *(_verbs(one) for one in chosen)])
                break
    if not rows:
        return ""
    text = "## Requests that arrived at the server\n\nA copy on the server is a PUT; `upload` begins or completes one in parts.\n\n"
    return text + _table(["work", "zosfs", "`noposix`", *others], rows)


def _verbs(one: Result | None) -> str:
    return ", ".join(f"{verb} {count}" for verb, count in one.requests.items()) if one else ""


def _names(run: Run) -> str:
    said: dict[str, Mapping[str, int]] = {}
    for each in _runs(run):
        said.update(each.get("inodes", {}))
    if not said:
        return ""
    lines = "; ".join(
        f"{how} {one['bytes'] / (1 << 20):,.0f} MiB, {one['bytes'] / one['names']:,.0f} bytes each" for how, one in said.items()
    )
    count = next(iter(said.values()))["names"]
    return f"## Memory for {count:,} names that the kernel knows (`python -m bench.inodes`)\n\n{lines}."


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.page", description=__doc__)
    parser.add_argument("results", nargs="*", type=Path, help="files that python -m bench kept")
    parser.add_argument("--afresh", action="store_true", help="forget what the page shows")
    given = parser.parse_args()
    kept = [KEPT] if KEPT.exists() and not given.afresh else []
    run = read([*kept, *given.results])
    KEPT.write_text(dump(run))
    PAGE.write_text(place(PAGE.read_text(), render(run)))
    from bench.plots import draw

    for path in draw(run.results, DOCS):
        print(f"{path.relative_to(DOCS.parent)}: {path.stat().st_size >> 10} KiB")


if __name__ == "__main__":
    main()
