"""The filesystem that has everything in memory: it has the files that the workloads want, and is measured at each like a tool."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import handlers
from bench.__main__ import Server, Setting, measure
from bench.bare import TOOL, Node, in_memory, sizes, tree_of
from bench.bare import WORKLOADS as IN_MEMORY
from bench.places import Bucket, Directory
from bench.tools import Mounted, Target
from bench.work import NOISE, Scale
from bench.workloads import WORKLOADS, Workload, set_up

SPECK = Scale(large=6, many=3, tree=2, some=400, reads=5, created=3)
DOES = [workload for workload in WORKLOADS if workload.name in IN_MEMORY]

needs_root = pytest.mark.skipif(os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="mounts as root")


def below(node: Node, prefix: str = "") -> Iterator[tuple[str, Node]]:
    for name, each in (node.names or {}).items():
        yield prefix + name.decode(), each
        yield from below(each, f"{prefix}{name.decode()}/")


FILES = st.dictionaries(
    st.builds(lambda above, name: "/".join([*above, name]), st.lists(st.sampled_from("AB")), st.sampled_from("cd")), st.integers(0, 1 << 40)
)


@given(FILES)
def test_a_tree_is_that_of_its_files_and_each_node_has_a_number(files: dict[str, int]) -> None:
    nodes = tree_of(files.items())
    there = dict(below(nodes[1]))
    assert {key: node.shown.st_size for key, node in there.items() if node.names is None} == files
    assert all(any(key.startswith(f"{path}/") for key in files) for path, node in there.items() if node.names is not None)
    assert [node.shown.st_ino for node in nodes[1:]] == list(range(1, len(nodes)))
    assert {id(node) for node in there.values()} == {id(node) for node in nodes[2:]}


def test_it_has_the_files_that_are_prepared_for_its_workloads(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    set_up(directory, SPECK, DOES)
    for workload in DOES:
        workload.prepare(directory, SPECK)
    directory.clear("ready/")
    there = {str(path.relative_to(tmp_path)): path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()}
    assert dict(sizes(SPECK)) == there


def nowhere(state: Path) -> Target:
    return Target("http://127.0.0.1:1", "no-bucket", "access", "secret", state)


@needs_root
@pytest.mark.parametrize("workload", DOES, ids=lambda workload: workload.name)
def test_it_is_measured_at_its_workloads_without_a_server(tmp_path: Path, workload: Workload) -> None:
    target = nowhere(tmp_path)
    server = Server("none", target, Bucket(target.url, target.bucket, target.access_key, target.secret_key), None)
    setting = Setting("near", SPECK, server, None, tmp_path, 60.0, "r1")
    (one,) = measure(setting, workload, [in_memory(SPECK)], 1, 8.0)
    assert (one.tool, one.failed, one.cut, dict(one.requests)) == (TOOL, "", False, {})
    assert one.delivered == one.wall > 0
    assert one.cpu > 0


@needs_root
def test_it_says_what_is_there_and_what_is_not(tmp_path: Path) -> None:
    with Mounted(in_memory(SPECK), nowhere(tmp_path), tmp_path) as mounted:
        point = mounted.path
        assert sorted(os.listdir(point / "some")) == [f"file{n:05}" for n in range(SPECK.some)]
        assert (point / "quarter1.bin").read_bytes() == NOISE * SPECK.quarter
        with pytest.raises(FileNotFoundError):
            (point / "some" / "none").stat()
        with pytest.raises(OSError, match="not empty"):
            (point / "some").rmdir()
        for path in (point / "some").iterdir():
            path.unlink()
        assert os.listdir(point / "some") == []
        (point / "some").rmdir()
        assert not (point / "some").exists()


@needs_root
def test_requests_that_are_answered_from_memory_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # all mounts of this machine would forget their names, those of tests beside this one, too
    monkeypatch.setattr(handlers, "_forget_names", lambda: None)
    spent = handlers.measure(in_memory(SPECK), nowhere(tmp_path), SPECK)
    assert spent.keys() == handlers.KINDS.keys()
    assert all(spent[kind] > 0 for kind in handlers.KINDS if kind != "LOOKUP"), "that one the kernel answers while it knows the names"
