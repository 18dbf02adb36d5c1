"""How passes and runs become one, how ratios are reckoned and judged, and that the page is what its numbers make it."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.bare import TOOL as IN_MEMORY
from bench.bars import BARS, Against, Bar, judge
from bench.floor import FLOORS, floors
from bench.page import BEGIN, END, KEPT, PAGE, place, render
from bench.places import Bucket, Directory
from bench.results import Result, Run, best, dump, join, load, read
from bench.tools import TOOLS, Kind, Target, cost_of
from bench.work import PROGRAMS, SMALL, Scale
from bench.workloads import WORKLOADS, Workload, describe, set_up
from tests.servers.server import Server

ALL = Bar("t", "seq-read", 1.2, 2)


def took(tool: str, seconds: float, workload: str = "seq-read", **more: object) -> Result:
    return replace(Result(workload, tool, "near", "r1", wall=seconds, delivered=seconds, cpu=seconds / 2, peak=1 << 20), **more)  # type: ignore[arg-type]  # names and values are the test's


def run_of(name: str, *results: Result, **facts: object) -> Run:
    return Run({"run": name, **facts}, [replace(one, run=name) for one in results])


def test_the_best_pass_counts_and_says_of_how_many() -> None:
    passes = [took("s3fs", 2.0), took("zosfs", 1.0), took("s3fs", 1.5), took("s3fs", 0.0, failed="gone"), took("zosfs", 60, cut=True)]
    assert [(one.tool, one.wall, one.passes) for one in best(passes)] == [("s3fs", 1.5, 3), ("zosfs", 1.0, 2)]
    assert best([took("s3fs", 0, failed="a"), took("s3fs", 60, cut=True)])[0].cut


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.floats(0.01, 100)), min_size=1, max_size=20))
def test_no_pass_is_better_than_the_best(passes: list[tuple[str, float]]) -> None:
    chosen = {one.tool: one for one in best(took(tool, seconds) for tool, seconds in passes)}
    for tool in {tool for tool, _ in passes}:
        assert chosen[tool].wall == min(seconds for name, seconds in passes if name == tool)
        assert chosen[tool].passes == sum(name == tool for name, _ in passes)


def test_later_runs_take_the_place_of_earlier_ones_and_their_facts_go() -> None:
    first = run_of("2026-01-01", took("zosfs", 2.0), took("s3fs", 3.0))
    second = run_of("2026-01-02", took("zosfs", 9.0))
    joined = join([first, second])
    assert {one.tool: (one.wall, one.run) for one in joined.results} == {"zosfs": (9.0, "2026-01-02"), "s3fs": (3.0, "2026-01-01")}
    assert set(joined.facts["runs"]) == {"2026-01-01", "2026-01-02"}
    again = join([joined, run_of("2026-01-03", took("zosfs", 1.0), took("s3fs", 1.0))])
    assert set(again.facts["runs"]) == {"2026-01-03"}


def test_of_the_memory_of_names_the_last_stays() -> None:
    names = [run_of(f"2026-01-0{n}", inodes={"`noposix`": {"names": 10, "bytes": n}}) for n in (1, 2)]
    joined = join([*names, run_of("2026-01-03", took("zosfs", 1.0))])
    assert set(joined.facts["runs"]) == {"2026-01-02", "2026-01-03"}


def test_a_join_takes_a_run_that_was_made_between_its_own() -> None:
    kept = join([run_of("2026-01-01", took("s3fs", 3.0)), run_of("2026-01-03", took("zosfs", 1.0))])
    joined = join([kept, run_of("2026-01-02", took("s3fs", 2.0), took("zosfs", 2.0))])
    assert {one.tool: one.run for one in joined.results} == {"s3fs": "2026-01-02", "zosfs": "2026-01-03"}


def test_numbers_of_another_scale_are_not_joined() -> None:
    small = run_of("2026-01-01", took("zosfs", 3.0), took("s3fs", 1.0), **{"scale near": {"large": 1}})
    large = run_of("2026-01-02", took("zosfs", 5.0), **{"scale near": {"large": 2}})
    assert [(one.tool, one.wall) for one in join([small, large]).results] == [("zosfs", 5.0)]


def test_json_goes_there_and_back_and_files_are_joined_by_time(tmp_path: Path) -> None:
    one = run_of("2026-01-01", took("zosfs", 1.25, requests={"GET": 3}, moved=7), took("s3fs", 2.0, cut=True))
    two = run_of("2026-01-02", took("zosfs", 4.0))
    assert load(dump(one)) == one
    (tmp_path / "a.json").write_text(dump(two))
    (tmp_path / "b.json").write_text(dump(one))
    joined = read([tmp_path / "a.json", tmp_path / "b.json"])
    assert {each.tool: each.wall for each in joined.results} == {"zosfs": 4.0, "s3fs": 2.0}
    assert load(dump(joined)) == joined


def test_the_best_rival_counts_and_others_do_not() -> None:
    rows = [
        took("zosfs", 1.0),
        took("s3fs", 1.6),
        took("rclone", 1.3),
        took("juicefs", 0.1),
        took("goofys", 0.1),
        took("rclone-full", 0.2, failed="x"),
    ]
    verdict = judge(ALL, rows, "near")
    assert verdict is not None
    assert (verdict.ratio, verdict.rival, verdict.met, verdict.at_least, verdict.mixed) == (1.3, "rclone", True, False, False)
    assert judge(replace(ALL, near=1.4), rows, "near").met is False  # type: ignore[union-attr]
    assert judge(replace(ALL, near=None), rows, "near").met is None  # type: ignore[union-attr]
    assert judge(ALL, rows, "far") is None
    assert judge(ALL, rows[:1], "near") is None
    assert judge(ALL, rows[1:], "near") is None


def test_who_does_other_work_is_no_rival() -> None:
    rows = [
        took("zosfs", 1.0),
        took("s3fs", 4.0),
        took("rclone", 3.0),
        took("rclone-modtime", 0.2),
        took("rclone-writes", 0.5),
        took("rclone-full", 2.0),
    ]
    found = {against: judge(replace(ALL, against=against), rows, "near") for against in Against}
    plain = judge(ALL, rows, "near", as_they_come=True)
    assert plain is not None
    assert (plain.rival, plain.ratio) == ("rclone", 3.0)
    assert {against: verdict.rival for against, verdict in found.items() if verdict} == {
        Against.ALL: "rclone-modtime", Against.ATTRIBUTES: "rclone-writes", Against.DURABLE: "rclone-modtime",
        Against.RCLONE_FULL: "rclone-full",
    }  # fmt: skip


def test_a_rival_that_was_ended_gives_a_bound_and_we_get_none() -> None:
    verdict = judge(ALL, [took("zosfs", 2.0), took("s3fs", 60.0, cut=True)], "near")
    assert verdict is not None
    assert (verdict.ratio, verdict.at_least, verdict.met) == (30.0, True, True)
    assert judge(ALL, [took("zosfs", 60.0, cut=True), took("s3fs", 60.0)], "near") is None
    assert judge(replace(ALL, quantity="cpu"), [took("zosfs", 2.0), took("s3fs", 60.0, cut=True)], "near") is None


def test_other_quantities_and_other_runs() -> None:
    rows = [took("zosfs", 1.0, cpu=0.5, wall=0.1), took("s3fs", 1.0, cpu=0.25, wall=1.0, run="r0")]
    assert judge(replace(ALL, quantity="cpu"), rows, "near").ratio == 0.5  # type: ignore[union-attr]
    verdict = judge(replace(ALL, quantity="wall"), rows, "near")
    assert verdict is not None
    assert verdict.ratio == 10
    assert verdict.mixed


def test_each_bar_can_be_measured() -> None:
    tools = {workload.name: workload.tools.split() for workload in WORKLOADS}
    assert set(tools) == set(PROGRAMS)
    assert {name for names in tools.values() for name in names} <= set(TOOLS)
    for bar in BARS:
        rows = [took(name, 1.0, bar.workload) for name in tools[bar.workload]]
        assert judge(bar, rows, "near") is not None, bar.title
        if bar.far is not None:
            assert next(workload for workload in WORKLOADS if workload.name == bar.workload).far, bar.title


@pytest.mark.parametrize("name", TOOLS)
def test_secrets_are_in_no_command(name: str, tmp_path: Path) -> None:
    target = Target("http://127.0.0.1:1", "bucket", "access", "very-secret", tmp_path)
    for command in filter(None, (TOOLS[name].command, TOOLS[name].format)):
        words, environment = command("/bin/program", target, tmp_path / "m", tmp_path)
        assert "very-secret" not in " ".join(words)
        assert "http://127.0.0.1:1" in " ".join([*words, *environment.values()])


def test_a_process_that_has_ended_costs_no_memory() -> None:
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert cost_of(child.pid).peak == 0


def test_cpu_and_memory_of_a_process_are_counted() -> None:
    before = cost_of(os.getpid())
    n = 0
    while cost_of(os.getpid()).cpu - before.cpu < 0.05:
        n += sum(range(1000))
    assert before.peak > 1 << 20


SPECK = Scale(large=6, many=3, tree=2, some=4, reads=5, created=3)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with all that the workloads read."""
    directory = tmp_path_factory.mktemp("bench")
    set_up(Directory(directory), SPECK, WORKLOADS)
    return directory


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_each_program_does_its_work_in_a_directory(workload: Workload, files: Path) -> None:
    directory = Directory(files)
    directory.clear("scratch/")
    workload.prepare(directory, SPECK)
    PROGRAMS[workload.name](files, SPECK)
    assert "{" not in describe(workload, SPECK)


def test_the_page_is_made_of_its_numbers() -> None:
    page = PAGE.read_text()
    assert place(page, render(load(KEPT.read_text()))) == page


def test_the_page_shows_what_was_measured() -> None:
    rows = [
        took("zosfs", 1.0, moved=1 << 30, requests={"GET": 9}), took("s3fs", 2.5, moved=1 << 30), took("rclone-streams", 60.0, cut=True),
        took("zosfs-noposix", 0.5, "ls"), took("rclone-modtime", 1.0, "ls", failed="gone"), took("rclone", 4.0, "ls"),
        took("juicefs", 0.1, "ls"),
    ]  # fmt: skip
    facts = {
        "load": 0.5, "cpus": 2, "python": "3.11", "server": "a server", "delay": 0.01, "rate": 5e7, "limit": {"near": 60},
        "versions": {"zosfs": "0.1", "rclone-full": "rclone v1.75.2"}, "scale near": vars(SMALL),
    }  # fmt: skip
    made = render(run_of("2026-01-01T10:00:00Z", *rows, **facts))
    for expected in (
        "| sequential read | 1.2 | **2.50** | s3fs |  |", "| `ls -l`, `noposix` | 3 | **8.00** | rclone |  |", "GET 9", "rclone 1.75.2",
        "| sequential read of 64 MiB | 1.00 / 0.50 / 1 |  | 2.50 / 1.25 / 1 | > 60 `streams` |", "| `ls` | 4.00 \\| – | fails \\| – |",
    ):  # fmt: skip
        assert expected in made
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert place(page, made) == f"before\n{BEGIN}\n\n{made}\n{END}\nafter\n"
    assert place(place(page, made), made) == place(page, made)


def test_the_page_shows_what_the_requests_take_without_a_filesystem() -> None:
    floors = took(IN_MEMORY, 0.5), took("curl: GETs, 16 at once", 1.5)
    made = render(run_of("2026-01-01T10:00:00Z", took("zosfs", 2.0), took("s3fs", 3.0), *floors))
    assert (
        "| sequential read of 1024 MiB | curl: GETs, 16 at once | 1.50 / 0.75 | 2.00 / 1.00 | – | – |\n"
        "| sequential read of 1024 MiB | pyfuse3 with everything in memory | 0.500 / 0.25 | 2.00 / 1.00 | – | – |\n"
    ) in made
    assert "**1.50**" in made, "no bar is judged against them"
    assert made.count("pyfuse3") == 2, "it is in no other table"


@pytest.mark.parametrize("workload", FLOORS)
def test_curl_does_the_requests_of_a_workload(workload: str, weed: Server, tmp_path: Path) -> None:
    target = Target(weed.url, "zosfs-floor", weed.access_key, weed.secret_key, tmp_path)
    bucket = Bucket(target.url, target.bucket, target.access_key, target.secret_key)
    bucket.create()
    work = next(each for each in WORKLOADS if each.name == workload)

    def make_ready() -> None:
        bucket.clear("scratch/")
        work.prepare(bucket, SPECK)

    try:
        set_up(bucket, SPECK, [work])
        found = floors(workload, target, SPECK, "near", "r1", tmp_path, make_ready)
        assert len(list(bucket.keys("scratch/tree/"))) == (SPECK.some if workload == "rename" else 0)
        assert len(list(bucket.keys("scratch/renamed/"))) == (SPECK.some if workload == "rename" else 0)
    finally:
        bucket.delete()
    assert [one.tool for one in found] == [f"curl: {floor.what}" for floor in FLOORS[workload]]
    assert all(one.wall > 0 for one in found)
    assert weed.secret_key not in (tmp_path / "curl").read_text()
    with pytest.raises(RuntimeError, match="curl"):
        floors(workload, target, SPECK, "near", "r1", tmp_path, lambda: None)  # there is nothing any more


def test_ceilings_and_shown_tools_keep_out_of_the_bars() -> None:
    assert {name for name, tool in TOOLS.items() if tool.kind is Kind.CEILING} == {"juicefs"}
    assert {name for name, tool in TOOLS.items() if tool.kind is Kind.SHOWN} == {"geesefs", "goofys", "mountpoint"}
    assert json.loads(dump(run_of("r", took("zosfs", 1.0))))["results"][0]["tool"] == "zosfs"
