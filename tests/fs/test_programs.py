"""Everyday programs on the mount do what they do on a local disk."""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import sys
import zipfile
from pathlib import Path

import pytest

from tests.fs.mounting import Mount
from tests.fs.running import facts, join, noise, plant, python, run, sha256


def test_cp_mv_rm(place: Path, tmp_path: Path) -> None:
    source = plant(tmp_path / "source")
    run("cp", "-a", source, place / "copy")
    assert facts(place / "copy") == facts(source)
    run("mv", place / "copy", place / "moved")
    assert facts(place / "moved") == facts(source)
    run("mv", place / "moved" / "d0", place / "moved" / "d1" / "d0-below")
    assert facts(place / "moved" / "d1" / "d0-below") == facts(source / "d0")
    run("cp", "-a", place / "moved" / "d2", tmp_path / "back")
    assert facts(tmp_path / "back") == facts(source / "d2")
    run("rm", "-r", place / "moved")
    assert os.listdir(place) == []


@pytest.mark.long_on("weed")
def test_ls_find_grep_du_df(place: Path, tmp_path: Path) -> None:
    source = plant(tmp_path / "source")
    run("cp", "-a", source, place / "t")
    there = place / "t"
    for command in (
        ["find", ".", "-printf", "%P %y %m %l %T@ %n\n"],
        ["find", ".", "-type", "f", "-size", "+20k"],
        ["find", ".", "-name", "*7*", "-newermt", "2014-01-01"],
        ["grep", "-r", "needle21", "."],
        ["grep", "-rlZ", "line 1 ", "."],
        ["du", "--apparent-size", "-b", "d3/e1/file 13.txt"],
        ["ls", "-1R"],
    ):
        want = run(*command, cwd=source, ok=(0, 1))
        got = run(*command, cwd=there, ok=(0, 1))
        if "%n" in command[-1]:
            # directories' times are those of their last change
            def without_times(text: str) -> list[str]:
                return sorted(line for line in text.splitlines() if " d " not in line)

            assert without_times(got) == without_times(want)
        elif command[0] in ("grep", "find"):
            separator = "\0" if "-rlZ" in command else "\n"
            assert sorted(got.split(separator)) == sorted(want.split(separator))
        else:
            assert got == want
    long = run("ls", "-lR", "--time-style=full-iso", cwd=there)
    assert "-> d0/e0/file 0.txt" in long
    assert "2014-05-13 16:53:20.987654322" in run("ls", "-lR", "--time-style=full-iso", cwd=there, env={"TZ": "UTC"})
    assert run("du", "-s", there).split()[0].isdigit()
    assert str(place.parent) in run("df", place)
    assert str(place.parent) in run("df", "-i", place)


@pytest.mark.long_on("weed")
def test_tar(place: Path, tmp_path: Path) -> None:
    source = plant(tmp_path / "source")
    run("tar", "--format=pax", "-cf", place / "a.tar", "-C", source, ".")
    run("tar", "xf", "a.tar", "--one-top-level=out", cwd=place)
    assert facts(place / "out") == facts(source)
    run("tar", "--format=pax", "-czf", "b.tgz", "out", cwd=place)
    run("tar", "xzf", place / "b.tgz", cwd=tmp_path)
    assert facts(tmp_path / "out") == facts(source)


@pytest.mark.long_on("weed")
def test_zip_and_unzip(place: Path, tmp_path: Path) -> None:
    source = plant(tmp_path / "source")
    run("cp", "-a", source, place / "t")
    run("zip", "-qry", "a.zip", "t", cwd=place)
    run("zip", "-q", "a.zip", "t/run.sh", cwd=place)  # rewrites the archive through a temporary file
    run("unzip", "-q", "a.zip", "-d", "out", cwd=place)
    got, want = ([line.split()[0] + line.split()[-1] for line in facts(root, times=False)] for root in (place / "out/t", source))
    assert got == want


@pytest.mark.long_on("weed")
def test_rsync_sends_nothing_the_second_time(place: Path, tmp_path: Path, shared: Mount) -> None:
    source = plant(tmp_path / "source")
    run("rsync", "-a", f"{source}/", place / "copy/")
    assert facts(place / "copy") == facts(source)
    with shared.requests() as spent:
        assert run("rsync", "-ai", f"{source}/", place / "copy/") == ""
    assert not {"put", "append", "copy", "create_upload", "delete", "delete_many"} & spent.keys(), spent
    (source / "d1" / "e1" / "file 1.txt").write_text("changed\n")
    assert run("rsync", "-ai", f"{source}/", place / "copy/").count("\n") == 1
    run("rsync", "-a", "--inplace", "--no-whole-file", "--delete", f"{source}/d1/", place / "copy/d1/")
    run("rsync", "-a", f"{place}/copy/", tmp_path / "back/")
    assert facts(tmp_path / "back") == facts(source)


def test_git(place: Path, tmp_path: Path) -> None:
    origin = tmp_path / "origin"
    plant(origin)
    identity = ["-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "safe.directory=*"]
    run("git", "init", "-q", origin)
    run("git", *identity, "-C", origin, "add", "-A")
    run("git", *identity, "-C", origin, "commit", "-qm", "first")
    run("git", *identity, "clone", "-q", f"file://{origin}", place / "clone")
    clone = place / "clone"
    assert run("git", *identity, "-C", clone, "status", "--porcelain") == ""
    (clone / "new").write_text("new\n")
    (clone / "d1" / "e1" / "file 1.txt").write_text("edited\n")
    run("git", *identity, "-C", clone, "add", "-A")
    run("git", *identity, "-C", clone, "commit", "-qm", "second")
    run("git", *identity, "-C", clone, "checkout", "-qb", "branch", "HEAD~1")
    run("git", *identity, "-C", clone, "merge", "-q", "--ff-only", "-")
    run("git", *identity, "-C", clone, "gc", "-q")
    run("git", *identity, "-C", clone, "fsck", "--strict")
    run("git", *identity, "-C", clone, "push", "-q", "origin", "branch")
    assert run("git", *identity, "-C", origin, "log", "--format=%s", "branch").split() == ["second", "first"]


def test_sed_in_place(place: Path) -> None:
    path = place / "words"
    path.write_text("one two three\n" * 1000)
    path.chmod(0o640)
    run("sed", "-i", "s/two/2/", path)
    assert path.read_text() == "one 2 three\n" * 1000
    assert path.stat().st_mode & 0o7777 == 0o640
    assert os.listdir(place) == ["words"]


def test_vim_saves(place: Path) -> None:
    path = place / "text"
    path.write_text("alpha\nbeta\n")
    settings = "set nocompatible backup writebackup backupdir=. backupskip="
    run("vim.tiny", "-u", "NONE", "-i", "NONE", "-es", "-c", settings, "-c", "%s/beta/gamma/", "-c", "wq", path)
    assert path.read_text() == "alpha\ngamma\n"
    assert (place / "text~").read_text() == "alpha\nbeta\n"


def test_save_by_temporary_and_rename(place: Path) -> None:
    path = place / "settings.json"
    path.write_text("old")
    with path.open() as before:
        for generation in range(5):
            temporary = place / f".settings.{generation}"
            with temporary.open("w") as f:
                f.write(f"new {generation}")
                f.flush()
                os.fsync(f.fileno())
            temporary.rename(path)
            assert path.read_text() == f"new {generation}"
        assert before.read() == "old"
    assert os.listdir(place) == ["settings.json"]


@pytest.mark.long_on("weed")
def test_dd_with_odd_block_sizes(place: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "source", place / "target"
    source.write_bytes(noise(3_000_017))
    run("dd", f"if={source}", f"of={target}", "bs=4097", "status=none")
    assert sha256(target) == sha256(source)
    for block in (511, 65537):
        run("dd", f"if={source}", f"of={target}", f"bs={block}", "skip=3", "seek=3", "count=7", "conv=notrunc", "status=none")
        assert sha256(target) == sha256(source)
    run("dd", "if=/dev/zero", f"of={source}", "bs=12345", "seek=11", "count=3", "conv=notrunc", "status=none")
    run("dd", "if=/dev/zero", f"of={target}", "bs=12345", "seek=11", "count=3", "conv=notrunc,fsync", "status=none")
    assert sha256(target) == sha256(source)
    run("dd", f"if={target}", f"of={tmp_path / 'back'}", "bs=1237", "status=none")
    assert sha256(tmp_path / "back") == sha256(source)


@pytest.mark.long_on("weed")
def test_split_and_cat(place: Path) -> None:
    data = noise(5_000_001)
    (place / "whole").write_bytes(data)
    run("split", "-b", "700001", "whole", "piece.", cwd=place)
    assert len(os.listdir(place)) == 1 + 8
    run("sh", "-c", "cat piece.* > again", cwd=place)
    assert sha256(place / "again") == hashlib.sha256(data).hexdigest()


@pytest.mark.long_on("weed")
@pytest.mark.parametrize("mebibytes", [96, pytest.param(1024, marks=pytest.mark.long)])
def test_sha256sum_of_a_large_file(mount: object, mebibytes: int) -> None:
    living: Mount = mount()  # type: ignore[operator]
    block = noise(1 << 20)
    digest = hashlib.sha256()
    with (living.path / "large").open("wb", buffering=0) as f:
        for i in range(mebibytes):
            piece = i.to_bytes(8, "big") + block[8:]
            digest.update(piece)
            assert f.write(piece) == len(piece)
    assert run("sha256sum", living.path / "large").split()[0] == digest.hexdigest()
    living.stop()
    run("rm", "-r", living.cache_dir)
    living.start()
    assert (living.path / "large").stat().st_size == mebibytes << 20
    assert run("sha256sum", living.path / "large").split()[0] == digest.hexdigest()


def test_sqlite_with_rollback_journal(place: Path) -> None:
    base = place / "base.db"

    def sql(text: str) -> str:
        return run("sqlite3", "-batch", "-cmd", ".timeout 20000", base, stdin=text).strip()

    sql("pragma journal_mode=delete; create table t(a integer primary key, b text);")
    sql("begin; " + "".join(f"insert into t values({n}, 'row {n}');" for n in range(2000)) + " commit;")
    sql("begin; delete from t; rollback;")
    assert sql("select count(*), sum(a) from t;") == "2000|1999000"
    insert = "import sqlite3,sys\nfor n in range(20):\n c=sqlite3.connect(sys.argv[1],timeout=60)\n" \
        " c.execute('insert into t(b) values(?)',(sys.argv[2],)); c.commit(); c.close()"  # fmt: skip
    join(*(python(insert, base, name) for name in "xy"))
    assert sql("select count(*) from t where b in ('x','y'); pragma integrity_check;") == "40\nok"
    sql("vacuum;")
    assert sql("pragma integrity_check;") == "ok"
    assert os.listdir(place) == ["base.db"]


@pytest.mark.long_on("weed")
def test_pip_installs_into_a_directory(place: Path, tmp_path: Path) -> None:
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny/__init__.py", "word = 'tiny'\n")
        archive.writestr("tiny/deep/__init__.py", "")
        archive.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("tiny-1.0.dist-info/RECORD", "")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--no-index", "--target", place / "site"]
    run(*pip, wheel)
    assert run(sys.executable, "-c", "import tiny; print(tiny.word)", env={"PYTHONPATH": str(place / "site")}) == "tiny\n"
    run(*pip, "--upgrade", wheel)
    assert run(sys.executable, "-c", "import tiny; print(tiny.word)", env={"PYTHONPATH": str(place / "site")}) == "tiny\n"


def test_mmap_reads_and_writes(place: Path) -> None:
    # in a process of its own: a page fault holds the interpreter, and a daemon that hung would hang the tests
    (place / "m").write_bytes(noise(1_000_000))
    script = """
import mmap, os, random, sys
want = bytearray(random.Random(0).randbytes(1_000_000))
with open(sys.argv[1], "r+b") as f, mmap.mmap(f.fileno(), 0) as m:
    assert m[:] == want
    for at in (0, 4095, 500_000, 999_990):
        m[at:at + 10] = want[at:at + 10] = b"0123456789"
    m.flush()
    m[70_000:70_003] = want[70_000:70_003] = b"end"
assert open(sys.argv[1], "rb").read() == want
"""
    join(python(script, place / "m"))
    want = bytearray(noise(1_000_000))
    for at in (0, 4095, 500_000, 999_990):
        want[at : at + 10] = b"0123456789"
    want[70_000:70_003] = b"end"
    assert (place / "m").read_bytes() == want
    with (place / "m").open("rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
        assert m.find(b"end") == 70_000


def test_what_is_mapped_through_an_appending_descriptor_stays_where_it_is(place: Path) -> None:
    script = """
import mmap, os, sys
want = bytearray(b"0123456789" * 1000)
open(sys.argv[1], "wb").write(want)
fd = os.open(sys.argv[1], os.O_RDWR | os.O_APPEND)
with mmap.mmap(fd, 0) as m:
    for at in (3, 4999, 9990):
        m[at:at + 5] = want[at:at + 5] = b"mmmmm"
    m.flush()
    os.write(fd, b"end")
    m[5:8] = want[5:8] = b"xyz"
os.pwrite(fd, b"END", 0)
os.close(fd)
found = open(sys.argv[1], "rb").read()
assert found == want + b"endEND", (len(found), found[:20], found[9980:10020])
"""
    join(python(script, place / "m"))
    assert (place / "m").stat().st_size == 10_006


@pytest.mark.long_on("weed")
def test_sixteen_processes_write_sixteen_files(place: Path) -> None:
    script = """
import random, sys
with open(sys.argv[1], "wb") as f:
    rng = random.Random(int(sys.argv[2]))
    for _ in range(40):
        f.write(rng.randbytes(50_001))
"""
    join(*(python(script, place / f"f{n}", str(n)) for n in range(16)))
    import random

    for n in range(16):
        rng = random.Random(n)
        assert (place / f"f{n}").read_bytes() == b"".join(rng.randbytes(50_001) for _ in range(40))


def test_two_processes_append_to_one_file(place: Path) -> None:
    log = place / "log"
    log.write_text("head\n")
    script = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
for n in range(300):
    line = f"{sys.argv[2]} {n:04} {'x' * (n % 50)}\\n".encode()
    assert os.write(fd, line) == len(line)
os.close(fd)
"""
    join(python(script, log, "a"), python(script, log, "b"))
    head, *lines = log.read_text().splitlines()
    assert head == "head"
    for name in "ab":
        assert [line for line in lines if line[0] == name] == [f"{name} {n:04} {'x' * (n % 50)}" for n in range(300)]
    assert len(lines) == 600


@pytest.mark.long_on("weed")
def test_locks_between_processes(place: Path) -> None:
    counter = place / "counter"
    counter.write_text("0")
    script = """
import fcntl, sys
for _ in range(25):
    with open(sys.argv[1], "r+") as f:
        getattr(fcntl, sys.argv[2])(f, fcntl.LOCK_EX)
        n = int(f.read())
        f.seek(0)
        f.write(str(n + 1))
        f.truncate()
        f.flush()
"""
    for kind in ("flock", "lockf"):
        join(*(python(script, counter, kind) for _ in range(2)))
    assert counter.read_text() == "100"
    with counter.open() as first, counter.open() as second:
        fcntl.flock(first, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
