"""What each action may cost in requests and bytes, counted by the daemon: the table of docs/architecture.md, a test a row.

Every test has a mount of its own, so that nothing is warm but what the row says.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fs.mounting import Mount, pages_of, wait_for
from tests.fs.running import noise, put_many, run, sync_directory

MIB = 1 << 20
Mounting = Callable[..., Mount]

pytestmark = pytest.mark.long_on("weed")


def put_large(s3: Any, bucket: str, key: str, mebibytes: int) -> None:
    """Make one object of that size; byte n of it is noise."""
    s3.put_object(Bucket=bucket, Key=key, Body=noise(MIB) * mebibytes)


def cold_read(path: Path, offset: int, size: int) -> bytes:
    """Read without the kernel reading ahead."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        return os.pread(fd, size, offset)
    finally:
        os.close(fd)


def test_ls_of_a_directory_without_posix(mount: Mounting, bucket: str, s3: Any) -> None:
    put_many(s3, bucket, {f"d/f{n:04}": b"x" for n in range(220)})
    living = mount(posix=False, patched=pages_of(200))
    os.stat(living.path / "d")
    with living.requests() as spent:
        assert run("ls", "-l", living.path / "d").count("\n") == 221
    assert spent.get("list", 0) <= 2
    assert sum(spent.values()) == spent.get("list", 0), spent


@pytest.mark.parametrize("posix", [False, True])
def test_ls_takes_no_request_of_the_kernel_for_each_file(mount: Mounting, bucket: str, s3: Any, posix: bool) -> None:
    put_many(s3, bucket, {f"d/f{n:04}": b"x" for n in range(250)})
    living = mount(posix=posix)
    os.stat(living.path / "d")
    with living.moved() as growth:
        assert run("ls", "-l", living.path / "d").count("\n") == 251
    assert growth["fuse_requests"] <= 40, "names come with their attributes, some 200 an answer"


def test_ls_with_posix_attributes_asks_each_entry_once_and_remembers(mount: Mounting, bucket: str, s3: Any) -> None:
    put_many(s3, bucket, {f"d/f{n:04}": b"x" for n in range(120)})
    living = mount()
    os.stat(living.path / "d")
    with living.requests() as spent:
        run("ls", "-l", living.path / "d")
    assert spent.get("list", 0) <= 1
    assert spent.get("head", 0) <= 120
    assert set(spent) <= {"list", "head"}
    with living.requests() as spent:
        run("ls", "-l", living.path / "d")
    assert spent == {}
    living.again()
    os.stat(living.path / "d")
    with living.requests() as spent:
        run("ls", "-l", living.path / "d")
    assert spent.get("head", 0) <= 2, "attributes are remembered across mounts"


def test_attributes_are_remembered_though_the_daemon_dies(mount: Mounting, bucket: str, s3: Any) -> None:
    put_many(s3, bucket, {f"d/f{n:04}": b"x" for n in range(60)})
    living = mount()
    run("ls", "-l", living.path / "d")

    def kept() -> int:
        (file,) = living.cache_dir.rglob("attributes.sqlite")
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
            (rows,) = db.execute("SELECT COUNT(*) FROM attributes").fetchone()
        return int(rows)

    wait_for(lambda: kept() >= 60, 20, "the attributes to be written while the mount lives")
    living.kill()
    living.start()
    os.stat(living.path / "d")
    with living.requests() as spent:
        run("ls", "-l", living.path / "d")
    assert spent.get("head", 0) <= 2


def test_find_tells_large_files_from_links_without_asking(mount: Mounting, bucket: str, s3: Any) -> None:
    put_many(s3, bucket, {f"d/f{n:02}": bytes(4096) for n in range(60)})
    put_many(s3, bucket, {f"d/g{n:02}": bytes(4095) for n in range(5)})
    living = mount()
    with living.requests() as spent:
        assert run("find", living.path / "d", "-type", "f").count("\n") == 65
    assert spent.get("head", 0) <= 5 + 2, "the small ones, which may be links, and directories"


@pytest.mark.long_on  # depends on the server
def test_find_over_a_deep_tree(mount: Mounting, bucket: str, s3: Any) -> None:
    # the border of a page is in the midst of names that Ceph lists in another order than SeaweedFS
    tops = {"0": 20, "a": 40, "a-b": 15}
    put_many(s3, bucket, {f"t/{top}/b{b:02}/c/f{n}": b"x" for top, many in tops.items() for b in range(many) for n in range(3)})
    living = mount(posix=False, patched=pages_of(200))
    with living.requests() as spent:
        assert run("find", living.path, "-type", "f").count("\n") == 5 * 15 * 3
    assert spent["list"] <= 2 + 6, "a walk is recognised within a few directories"
    assert set(spent) - {"head_bucket"} == {"list"}  # find asks for the kind of the filesystem first


@pytest.mark.long_on  # depends on the server
def test_find_over_siblings_of_several_pages(mount: Mounting, bucket: str, s3: Any) -> None:
    tops = ("a", "a-b", "a.d", "a0", "b", "b-", "c", "d", "e", "f")
    keys = [f"t/{top}/d{d}/f{n}" for top in tops for d in range(9) for n in range(5)]
    put_many(s3, bucket, dict.fromkeys(keys, b"x"))
    living = mount(posix=False, patched=pages_of(25))
    with living.requests() as spent:
        found = run("find", living.path, "-type", "f", "-printf", "%P\n").split()
    assert sorted(found) == sorted(keys)
    assert spent["list"] <= 2 * len(tops) + 8, "as many as pages, and a few until the walk is known"


def test_a_missing_name_in_a_listed_directory(mount: Mounting, bucket: str, s3: Any) -> None:
    put_many(s3, bucket, {f"d/f{n}": b"x" for n in range(10)})
    living = mount()
    os.listdir(living.path / "d")
    with living.requests() as spent:
        for n in range(50):
            assert not (living.path / "d" / f"missing{n}").exists()
    assert spent == {}


def test_reading_a_small_listed_file(mount: Mounting, bucket: str, s3: Any) -> None:
    put_many(s3, bucket, {f"d/f{n}": b"small" for n in range(10)})
    living = mount()
    run("ls", "-l", living.path / "d")
    with living.requests() as spent:
        for n in range(10):
            assert (living.path / "d" / f"f{n}").read_bytes() == b"small"
    assert spent == {"get": 10}


def read_in_order(directory: Path, size: int) -> int:
    """Read all files of *directory*, each of *size* bytes, in the order of their names, without looking at them before."""
    names = sorted(os.listdir(directory))
    for name in names:
        with (directory / name).open("rb", buffering=0) as f:
            assert len(f.read(2 * size)) == size
    return len(names)


def test_reading_small_files_in_listing_order(mount: Mounting, bucket: str, s3: Any) -> None:
    put_many(s3, bucket, {f"d/f{n:03}": noise(4096) for n in range(80)})
    living = mount()
    with living.requests() as spent:
        assert read_in_order(living.path / "d", 4096) == 80
    assert spent.get("list", 0) <= 2
    assert spent["get"] == 80
    assert spent.get("head", 0) <= 3, "attributes come with the bytes"


def test_reading_small_files_in_listing_order_with_prefetch(mount: Mounting, bucket: str, s3: Any) -> None:
    put_many(s3, bucket, {f"d/f{n:03}": noise(4096) for n in range(80)})
    living = mount(prefetch="1h")
    with living.moved() as growth:
        assert read_in_order(living.path / "d", 4096) == 80
    assert growth["requests_get"] == 80
    assert growth["requests_head"] <= 3, "attributes come with the bytes"
    assert growth["readahead_wasted_bytes"] == 0


def test_a_sequential_read_starts_small_and_wastes_nothing(mount: Mounting, bucket: str, s3: Any) -> None:
    put_large(s3, bucket, "large", 64)
    living = mount()
    (living.path / "large").stat()
    with living.moved() as growth:
        cold_read(living.path / "large", 0, 4096)
    assert growth["requests_get"] == 1
    assert growth["bytes_received"] <= MIB + 65536
    with living.moved() as growth, (living.path / "large").open("rb", buffering=0) as f:
        while f.read(MIB):
            pass
    assert growth["requests_get"] <= 64
    assert growth["bytes_received"] <= 66 * MIB
    assert growth["requests_head"] <= 1, "what is read from a cache is asked for at open"


def read_at_random(living: Mount, mebibytes: int, reads: int) -> dict[str, int]:
    """Read *reads* pages of the file `large`, each somewhere else; what the mount's counters grew by."""
    (living.path / "large").stat()
    rng = random.Random(1)
    block = noise(MIB)
    with living.moved() as growth:
        fd = os.open(living.path / "large", os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        for _ in range(reads):
            at = rng.randrange(mebibytes * MIB // 4096) * 4096
            assert os.pread(fd, 4096, at) == block[at % MIB : at % MIB + 4096]
        os.close(fd)
    return growth


def test_random_reads_fetch_what_is_needed(mount: Mounting, bucket: str, s3: Any) -> None:
    put_large(s3, bucket, "large", 128)
    growth = read_at_random(mount(), 128, 30)
    assert growth["requests_get"] <= 30
    assert growth["bytes_received"] <= 30 * 128 * 1024


def test_random_reads_fetch_what_lies_around_them_if_asked_to(mount: Mounting, bucket: str, s3: Any) -> None:
    put_large(s3, bucket, "large", 8)  # as much as stays in memory: the disk is late at times, and what it lacks is fetched again
    growth = read_at_random(mount(random_ahead="2M"), 8, 60)
    assert growth["requests_get"] <= 2 * 4
    assert growth["bytes_received"] <= 9 * MIB


def test_a_small_new_file_is_one_put(mount: Mounting, bucket: str) -> None:
    living = mount()
    os.listdir(living.path)
    with living.requests() as spent:
        (living.path / "new").write_bytes(b"content")
    assert spent == {"put": 1}


def test_reading_a_small_file_that_was_written_here(mount: Mounting) -> None:
    """The kernel keeps whole pages of what is written: of less it has nothing, and the GET tells whether the object is still the same."""
    living = mount()
    for n in range(5):
        (living.path / f"f{n}").write_bytes(b"%d" % n * 100)
    with living.requests() as spent:
        assert [(living.path / f"f{n}").read_bytes() for n in range(5)] == [b"%d" % n * 100 for n in range(5)]
    assert spent == {"get": 5}
    with living.requests() as spent:
        assert [(living.path / f"f{n}").read_bytes() for n in range(5)] == [b"%d" % n * 100 for n in range(5)]
    assert spent == {"head": 5}


def test_attributes_of_a_fresh_file_ride_on_its_put(mount: Mounting, bucket: str) -> None:
    living = mount()
    os.listdir(living.path)
    with living.requests() as spent, (living.path / "new").open("wb") as f:
        f.write(b"content")
        os.fchmod(f.fileno(), 0o600)
        os.fchown(f.fileno(), 1, 2)
        os.utime(f.fileno(), (1, 2))
    assert spent == {"put": 1}


UNHURRIED_ATTRIBUTES = "import zosfs.fs.promised_attributes as soon; soon.QUIET = soon.LONGEST = soon.LATELY = 60.0"


def test_attributes_changed_right_after_the_close_are_one_copy(mount: Mounting, bucket: str) -> None:
    living = mount(patched=UNHURRIED_ATTRIBUTES)
    os.listdir(living.path)
    path = living.path / "new"
    with living.requests() as spent:
        path.write_bytes(b"content")
        os.chown(path, 1, 2)
        os.utime(path, (1, 2))
        path.chmod(0o600)
        with path.open("rb") as f:
            os.fchmod(f.fileno(), 0o640)
            os.fsync(f.fileno())
    assert spent == {"put": 1, "copy": 1}


@pytest.mark.parametrize("option", ["-a", "-rt"])
def test_rsync_of_small_files(mount: Mounting, bucket: str, tmp_path: Path, option: str) -> None:
    (tmp_path / "from").mkdir()
    for n in range(30):
        path = tmp_path / "from" / f"f{n:02}"
        path.write_bytes(noise(1000, n))
        os.utime(path, (1_000_000_000 + n, 1_100_000_000 + n))
        path.chmod(0o640)
        os.chown(path, 5, 6)
    living = mount(patched=UNHURRIED_ATTRIBUTES)
    os.listdir(living.path)
    with living.requests() as spent:
        run("rsync", option, f"{tmp_path}/from/", living.path / "to")
    put, copied, deleted = spent.pop("put"), spent.pop("copy"), spent.pop("delete", 0) + spent.pop("delete_many", 0)
    assert (copied, deleted) == (30, 30), "the renaming brings times, mode and owner"
    assert put <= 30 + 3, "the directory is made, and gets its times, mode and owner"
    assert sum(spent.values()) <= 1, spent
    living.again()
    files = run("rsync", option, "-in", f"{tmp_path}/from/", living.path / "to").splitlines()
    assert not [line for line in files if not line.startswith(".d")], "nothing is lacking"


@pytest.mark.long_on  # depends on the server
def test_cp_with_all_attributes(mount: Mounting, bucket: str, tmp_path: Path, s3: Any, server: Any) -> None:
    """`cp -a` asks for the size of the ACL, for the ACL, and sets it on the copy."""
    if server.kind != "rgw":
        pytest.skip("keeps no ACLs of objects")
    put_many(s3, bucket, {f"d/f{n:02}": b"x" * 100 for n in range(20)})
    living = mount()
    run("cp", "-r", living.path / "d", tmp_path / "warm")
    run("cp", "-a", living.path / "d" / "f00", living.path / "f")
    with living.requests() as spent:
        run("cp", "-a", living.path / "d", living.path / "e")
    assert spent["put"] <= 20 + 4, "the files, and their directory with its attributes"
    assert spent["head"] <= 20 + 1
    assert spent["acl"] <= 20 + 2, spent
    assert not spent.keys() - {"put", "head", "acl", "list", "copy"}, spent
    for n in (0, 19):
        grants = [s3.get_object_acl(Bucket=bucket, Key=f"{folder}/f{n:02}")["Grants"] for folder in "de"]
        assert grants[0] == grants[1]


def test_appending_sends_only_the_new_bytes(mount: Mounting, bucket: str, server: Any) -> None:
    living = mount()
    os.listdir(living.path)
    path = living.path / "log"
    for n in range(3):
        with path.open("ab") as f:
            f.write(noise(200_000, n))
    with living.moved() as growth, path.open("ab") as f:
        f.write(b"one more line\n")
    living.again()
    assert path.read_bytes() == b"".join(noise(200_000, n) for n in range(3)) + b"one more line\n"
    if server.kind == "rgw":
        assert growth["requests_append"] <= 1
        assert sum(n for name, n in growth.items() if name.startswith("requests_")) <= 2
        assert growth["bytes_sent"] <= 1000


def test_appending_with_changed_attributes_costs_nothing_extra(mount: Mounting, bucket: str, server: Any) -> None:
    if server.kind != "rgw":
        pytest.skip("SeaweedFS has no append")
    living = mount()
    os.listdir(living.path)
    path = living.path / "log"
    with path.open("ab") as f:
        f.write(b"first\n")
    with living.requests() as spent, path.open("ab") as f:
        f.write(b"second\n")
        os.fchmod(f.fileno(), 0o600)
    living.again()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes() == b"first\nsecond\n"
    assert spent == {"append": 1}


def test_appending_to_a_large_file_does_not_send_it_again(mount: Mounting, bucket: str, s3: Any) -> None:
    put_large(s3, bucket, "large", 24)
    living = mount()
    (living.path / "large").stat()
    with living.moved() as growth, (living.path / "large").open("ab") as f:
        f.write(b"tail")
    assert growth["bytes_sent"] + growth["bytes_received"] <= 6 * MIB
    got = s3.get_object(Bucket=bucket, Key="large")["Body"].read()
    assert got == noise(MIB) * 24 + b"tail"


@pytest.mark.long_on  # depends on the server
def test_an_edit_inside_a_large_file_sends_little(mount: Mounting, bucket: str, s3: Any) -> None:
    put_large(s3, bucket, "large", 96)
    living = mount()
    (living.path / "large").stat()
    with living.moved() as growth, (living.path / "large").open("r+b") as f:
        f.seek(41 * MIB + 12345)
        f.write(bytes(MIB))
    assert growth["bytes_sent"] + growth["bytes_received"] <= 16 * MIB
    want = bytearray(noise(MIB) * 96)
    want[41 * MIB + 12345 : 42 * MIB + 12345] = bytes(MIB)
    assert s3.get_object(Bucket=bucket, Key="large")["Body"].read() == want


def test_renaming_a_file(mount: Mounting, bucket: str, s3: Any) -> None:
    put_large(s3, bucket, "old", 20)
    living = mount()
    run("ls", "-l", living.path)
    with living.requests() as spent:
        os.rename(living.path / "old", living.path / "new")
    assert spent.get("copy") == 1
    assert spent.get("delete", 0) + spent.get("delete_many", 0) == 1
    assert sum(spent.values()) <= 3, spent


def test_renaming_a_directory(mount: Mounting, bucket: str, s3: Any) -> None:
    put_many(s3, bucket, {f"old/{n % 3}/f{n}": b"x" for n in range(90)})
    living = mount()
    run("find", living.path)
    with living.requests() as spent:
        os.rename(living.path / "old", living.path / "new")
    assert 90 <= spent["copy"] <= 95
    assert spent.get("delete", 0) + spent.get("delete_many", 0) <= 2
    assert sum(n for verb, n in spent.items() if verb not in ("copy", "delete", "delete_many")) <= 3, spent
    assert run("find", living.path / "new", "-type", "f").count("\n") == 90


def test_removing_a_tree(mount: Mounting, bucket: str, s3: Any) -> None:
    put_many(s3, bucket, {f"d/f{n:03}": b"x" for n in range(150)})
    living = mount()
    run("ls", "-l", living.path / "d")
    with living.requests() as spent:
        run("rm", "-r", living.path / "d")
    living.stop()
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    assert spent.get("delete", 0) + spent.get("delete_many", 0) <= 150 + 1


def test_closing_a_file_that_was_removed_with_its_directories(mount: Mounting, bucket: str, s3: Any, server: Any) -> None:
    s3.put_object(Bucket=bucket, Key="d/e/f", Body=b"x" * 5000)
    living = mount()
    with (living.path / "d/e/f").open("rb") as holder:
        run("rm", "-r", living.path / "d")
        sync_directory(living.path)
        with living.requests() as spent:
            holder.close()
            wait_for(lambda: "CommonPrefixes" not in s3.list_objects(Bucket=bucket, Delimiter="/"), 10, "the deletion")
    folders = 2 if server.kind == "weed" else 0
    assert set(spent) <= {"head", "list", "delete"}
    assert spent.get("head", 0) <= 1, "is it still that object?"
    assert spent.get("list", 0) <= folders
    assert spent.get("delete", 0) <= 1 + folders


UNHURRIED = "import zosfs.fs.gathering_pace as pace, zosfs.fs.removals as removals; pace.QUIET = pace.LONGEST = removals.ROW = 60.0"


def test_removing_a_tree_begins_while_the_program_is_at_work(mount: Mounting, bucket: str, s3: Any) -> None:
    put_many(s3, bucket, {f"d/{n % 5}/f{n:03}": b"x" for n in range(500)})
    living = mount(posix=False, patched=UNHURRIED)
    run("find", living.path / "d")
    with living.moved() as growth:
        run("rm", "-r", living.path / "d")
        wait_for(lambda: living.counters()["requests_delete_many"] >= 2, 60, "what is enough for a request to be sent")
    living.stop()
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    assert growth["gathered_deletes"] >= 500 - 2
    assert growth["requests_delete"] <= 2
