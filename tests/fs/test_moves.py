"""Renamed directories: everything arrives, whatever happens on the way, and what is done below them meanwhile goes along."""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from tests.fs.mounting import Mount, wait_for
from tests.fs.running import OPENAT, PWRITE, RENAME, in_the_kernel, put_many, refused, run
from tests.proxy import Proxy, answer

Mounting = Callable[..., Mount]
pytestmark = pytest.mark.long_on("weed")
HASTY = {"retries": 1, "retry_timeout": 1}


def fill(s3: Any, bucket: str, keys: list[str]) -> None:
    put_many(s3, bucket, {key: key.encode() for key in keys})


def keys(s3: Any, bucket: str) -> set[str]:
    """All keys but those of directories."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {item["Key"] for page in pages for item in page.get("Contents", []) if not item["Key"].endswith("/")}


class Halfway:
    """Lets so many copies through and then no change any more, at the latest when the first objects are to be deleted."""

    def __init__(self, copies: int) -> None:
        self.left = copies
        self.reached = threading.Event()

    def __call__(self, method: str, target: str) -> bytes | None:
        """See Proxy.intercept: objects are copied to new/, and deleted from old/ by a POST."""
        if method == "PUT" and "/new/" in target:
            self.left -= 1
        if self.left < 0 or method == "POST":
            self.reached.set()
        return answer(503, "SlowDown") if self.reached.is_set() and method in ("PUT", "POST", "DELETE") else None


def killed_when_copied(living: Mount, proxy: Proxy, copies: int, top: Path | None = None) -> None:
    """Rename old to new in *top* (the mount), and kill the daemon when so many *copies* are made, or the first object is to be deleted."""
    halfway = proxy.intercept = Halfway(copies)
    gone = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)
    top = top or living.path
    renaming = threading.Thread(target=refused, args=(gone, os.rename, top / "old", top / "new"))
    renaming.start()
    assert halfway.reached.wait(120)
    living.kill()
    renaming.join()
    proxy.intercept = None


def test_a_file_that_is_being_rewritten_when_its_directory_is_renamed_is_not_shown_empty(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any
) -> None:
    """Who opened it with O_TRUNC is first, and the renaming, which had seen nobody, second."""
    living = mount(url=proxy.url, writeback="0s")
    (living.path / "old").mkdir()
    with (living.path / "old" / "f").open("wb") as f:
        f.write(b"promised")
        proxy.hold = lambda target: 0 if target == f"/{bucket}/old/f" else None
    wait_for(lambda: proxy.held, 60, "the promise is on its way")
    opened: list[int] = []
    opening = threading.Thread(target=lambda: opened.append(os.open(living.path / "old" / "f", os.O_WRONLY | os.O_TRUNC)))
    opening.start()
    wait_for(lambda: in_the_kernel(OPENAT, opening.native_id or 0), 60, "the program opens the file")
    renaming = threading.Thread(target=lambda: os.rename(living.path / "old", living.path / "new"))
    renaming.start()
    wait_for(lambda: in_the_kernel(RENAME, renaming.native_id or 0), 60, "the program renames the directory")
    proxy.hold = lambda target: None
    for thread in (opening, renaming):
        thread.join(300)
    assert s3.get_object(Bucket=bucket, Key="new/f")["Body"].read() == b"promised"
    os.write(opened[0], b"rewritten")
    os.close(opened[0])
    living.again()
    assert (living.path / "new" / "f").read_bytes() == b"rewritten"
    assert s3.get_object(Bucket=bucket, Key="new/f")["Body"].read() == b"rewritten"


def test_attributes_can_be_changed_after_the_directory_was_renamed(mount: Mounting, bucket: str, s3: Any) -> None:
    fill(s3, bucket, [f"old/sub/f{n}" for n in range(3)])
    living = mount()
    run("ls", "-lR", living.path)
    os.rename(living.path / "old", living.path / "new")
    os.chmod(living.path / "new/sub/f1", 0o600)
    os.utime(living.path / "new/sub/f2", (1, 2))
    with living.requests() as spent:
        assert (living.path / "new/sub/f0").read_bytes() == b"old/sub/f0"
    assert spent.get("get", 0) + spent.get("head", 0) <= 1
    living.again()
    assert os.stat(living.path / "new/sub/f1").st_mode & 0o777 == 0o600
    assert os.stat(living.path / "new/sub/f2").st_mtime == 2


@pytest.mark.parametrize("many", [pytest.param(1100, marks=pytest.mark.long), pytest.param(2500, marks=pytest.mark.long), 60])
def test_more_than_a_page_of_files(mount: Mounting, bucket: str, s3: Any, many: int) -> None:
    names = [f"{n % 7}/f{n:04}" for n in range(many)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: s3.put_object(Bucket=bucket, Key=f"old/{name}", Body=b"x"), names))
    living = mount(posix=False)
    with living.requests() as spent:
        os.rename(living.path / "old", living.path / "new")
    assert spent["copy"] == many
    assert spent["delete_many"] == -(-many // 1000)
    assert keys(s3, bucket) == {f"new/{name}" for name in names}
    assert sum(len(os.listdir(living.path / "new" / str(n))) for n in range(7)) == many
    assert not (living.path / "old").exists()


@pytest.mark.parametrize("copies", [7, 40])
def test_killed_in_the_middle(proxy: Proxy, mount: Mounting, bucket: str, s3: Any, copies: int) -> None:
    fill(s3, bucket, [f"old/{n % 3}/f{n:02}" for n in range(40)] + ["old/own"])
    living = mount(url=proxy.url)
    (living.path / "old/own").unlink()
    run("find", living.path)
    killed_when_copied(living, proxy, copies)  # with 40 all are copied, and none is deleted
    s3.put_object(Bucket=bucket, Key="old/0/f03", Body=b"changed by others since")
    s3.put_object(Bucket=bucket, Key="old/later", Body=b"made by others since")
    proxy.intercept = None
    living.start()
    there = keys(s3, bucket)
    assert {f"new/{n % 3}/f{n:02}" for n in range(40)} | {"new/later"} <= there | {"new/0/f03"}
    assert {key for key in there if key.startswith("old/")} <= {"old/0/f03"}
    assert b"changed by others since" in [
        s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in ("old/0/f03", "new/0/f03") if key in there
    ]
    assert (living.path / "new/1/f04").read_bytes() == b"old/1/f04"
    living.again()
    assert keys(s3, bucket) == there


def test_a_renaming_that_was_cut_short_does_not_wait_for_promises(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    """Whatever keeps one of them from the store: no mount shows a directory that is about to go."""
    names = [f"f{n}" for n in range(5)]
    fill(s3, bucket, [f"old/{name}" for name in names])
    living = mount(url=proxy.url, writeback="1h")
    living.forgive("promised: head promised: the server is overloaded")
    (living.path / "promised").write_bytes(b"promised")
    killed_when_copied(living, proxy, 5)
    proxy.intercept = lambda method, target: answer(503, "SlowDown") if target.startswith(f"/{bucket}/promised") else None
    proxy.latency = 0.2  # what the renaming still has to do takes longer than to mount
    living.start()
    assert sorted(os.listdir(living.path)) == ["new", "promised"]
    assert sorted(os.listdir(living.path / "new")) == names
    assert keys(s3, bucket) == {f"new/{name}" for name in names}
    proxy.intercept, proxy.latency = None, 0
    living.again()
    assert keys(s3, bucket) == {"promised", *(f"new/{name}" for name in names)}


@pytest.mark.parametrize("options", [{}, {"writeback": "1h"}], ids=["default", "writeback"])
def test_what_is_done_where_an_earlier_run_began_a_renaming_waits_for_its_end(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any, options: dict[str, str]
) -> None:
    """Else what is written to the old objects would go with them."""
    names = [f"f{n}" for n in range(5)]
    fill(s3, bucket, [f"old/{name}" for name in names])
    living = mount(url=proxy.url, retries=100, retry_timeout="10m", **options)  # it is refused until the test has seen who waits
    if options:
        open_still = os.open(living.path / "old/f3", os.O_RDWR | os.O_TRUNC)
        os.write(open_still, b"promised")
        os.close(os.dup(open_still))
    killed_when_copied(living, proxy, 5)
    proxy.intercept = lambda method, target: answer(503, "SlowDown") if method == "POST" else None
    living.start()
    (living.path / "beside").write_bytes(b"not concerned")
    with ThreadPoolExecutor(4) as pool:
        listed = pool.submit(os.listdir, living.path / "new")
        read = pool.submit((living.path / "new/f3").read_bytes)
        removed = pool.submit(os.unlink, living.path / "new/f2")
        written = pool.submit((living.path / "old/f1").write_bytes, b"changed")
        wait([listed, read, removed, written], timeout=2)  # the fault is one that is over at once
        proxy.intercept = None
        assert set(listed.result()) | {"f2"} == set(names)
        assert read.result() == (b"promised" if options else b"old/f3")
        removed.result()
        refused(errno.ENOENT, written.result)
    if options:
        refused(errno.ENOTCONN, os.close, open_still)
    assert sorted(os.listdir(living.path)) == ["beside", "new"]
    living.again()
    there = {"beside": b"not concerned", **{f"new/{name}": f"old/{name}".encode() for name in names if name != "f2"}}
    there |= {"new/f3": b"promised"} if options else {}
    assert {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys(s3, bucket)} == there


def test_a_renaming_cut_short_moves_nothing_that_is_made_at_the_old_name_before_it_can_be_ended(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any
) -> None:  # fmt: skip
    """The server refuses to end it when the next run begins: it is tried again, and who goes where it has to do with waits."""
    names = [f"f{n}" for n in range(5)]
    fill(s3, bucket, [f"old/{name}" for name in names])
    living = mount(url=proxy.url, retries=0)
    killed_when_copied(living, proxy, 5)
    refusals: list[str] = []

    def refuse(method: str, target: str) -> bytes | None:
        if method == "POST":
            refusals.append(target)
        return answer(503, "SlowDown") if method == "POST" else None

    proxy.intercept = refuse
    living.start()
    wait_for(lambda: refusals, 60, "the renaming to be refused")

    def make() -> None:
        (living.path / "old").mkdir(exist_ok=True)
        (living.path / "old/later").write_bytes(b"made since")

    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(make)
        wait([made], timeout=2)  # the fault is one that is over at once
        proxy.intercept = None
        made.result()
    living.again()
    assert keys(s3, bucket) == {"old/later", *(f"new/{name}" for name in names)}
    assert os.listdir(living.path / "old") == ["later"]


@pytest.mark.parametrize("how", ["refused", "silent"])
@pytest.mark.parametrize("account", [False, True], ids=["one bucket", "all buckets"])
def test_who_asks_where_a_renaming_cut_short_cannot_be_ended_is_told_soon(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any, how: str, account: bool
) -> None:
    """The log says why, and once the server takes it again it is ended as ever."""
    names = [f"f{n}" for n in range(5)]
    fill(s3, bucket, [*(f"old/{name}" for name in names), "beside"])
    soon = "import zosfs.content.earlier_run; zosfs.content.earlier_run.STUCK_SECONDS = 2; zosfs.content.earlier_run.RETRY_SECONDS = (1,)"
    living = mount("zos:" if account else "", url=proxy.url, retries=0, patched=soon)
    top = living.path / bucket if account else living.path
    killed_when_copied(living, proxy, 5, top)
    if how == "refused":
        proxy.intercept = lambda method, target: answer(503, "SlowDown") if method == "POST" else None
    else:
        proxy.hold = lambda target: 0 if "delete" in target.partition("?")[2] else None
    living.start()
    began = time.monotonic()
    refused(errno.EBUSY, (top / "old/f1").read_bytes)
    if not account:  # where a bucket is only looked at, nobody knows yet what its journal has
        refused(errno.EBUSY, os.listdir, top / "new")
    refused(errno.EBUSY, os.rename, top / "new", top / "newer")
    assert time.monotonic() - began < 30
    why = "SlowDown" if how == "refused" else "the server has not answered yet"
    wait_for(lambda: re.search(f"cut short in an earlier run, does not go on: .*{why}", living.log()), 10, "the log to tell why")
    assert living.log().count("does not go on") == 1
    if not account:
        assert (top / "beside").read_bytes() == b"beside"
    proxy.intercept, proxy.hold = None, lambda target: None

    def read() -> bool:
        try:
            return (top / "new/f1").read_bytes() == b"old/f1"
        except OSError as failure:
            if failure.errno != errno.EBUSY:
                raise
            return False

    wait_for(read, 60, "the renaming to be ended")
    assert sorted(os.listdir(top / "new")) == names
    assert keys(s3, bucket) == {"beside", *(f"new/{name}" for name in names)}


def test_a_failed_rename_leaves_the_old_directory_even_if_the_copies_stay_for_now(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any
) -> None:
    before = {f"old/{n % 3}/f{n:02}" for n in range(40)}
    fill(s3, bucket, sorted(before))
    living = mount(url=proxy.url, **HASTY)
    living.forgive("taking back")
    run("find", living.path)
    proxy.intercept = Halfway(5)
    refused((errno.EIO, errno.EBUSY, errno.EAGAIN, errno.ETIMEDOUT), os.rename, living.path / "old", living.path / "new")
    assert before < keys(s3, bucket), "copies are there that could not be taken back"
    proxy.intercept = None
    living.again()
    assert keys(s3, bucket) == before
    assert (living.path / "old/1/f01").read_bytes() == b"old/1/f01"
    os.rename(living.path / "old", living.path / "new")
    assert keys(s3, bucket) == {key.replace("old/", "new/") for key in before}


def test_a_file_that_is_being_written_goes_along_unseen(mount: Mounting, bucket: str, s3: Any) -> None:
    fill(s3, bucket, ["old/there"])
    living = mount()
    with (living.path / "old/there").open("r+b", buffering=0) as there, (living.path / "old/new").open("wb", buffering=0) as new:
        there.write(b"OLD")
        new.write(b"the first half, ")
        os.rename(living.path / "old", living.path / "new")
        assert keys(s3, bucket) == {"new/there"}
        assert s3.get_object(Bucket=bucket, Key="new/there")["Body"].read() == b"old/there"
        assert (living.path / "new/there").read_bytes() == b"OLD/there"
        new.write(b"the second half")
    assert s3.get_object(Bucket=bucket, Key="new/there")["Body"].read() == b"OLD/there"
    assert s3.get_object(Bucket=bucket, Key="new/new")["Body"].read() == b"the first half, the second half"
    living.again()
    assert keys(s3, bucket) == {"new/there", "new/new"}


def test_an_unlinked_file_that_is_open_does_not_go_along(mount: Mounting, bucket: str, s3: Any) -> None:
    fill(s3, bucket, ["old/unlinked", "old/other"])
    living = mount()
    with (living.path / "old/unlinked").open("rb", buffering=0) as file:
        os.unlink(living.path / "old/unlinked")
        os.rename(living.path / "old", living.path / "new")
        assert os.listdir(living.path / "new") == ["other"]
        assert file.read() == b"old/unlinked"
    living.again()
    assert keys(s3, bucket) == {"new/other"}


def test_an_unlinked_file_for_which_the_disk_has_no_room_does_not_keep_others_from_making_it(
    mount: Mounting, bucket: str, s3: Any
) -> None:
    """It is made whole here before its directory is renamed; what is written below meanwhile leaves the disk only when it may go up."""
    mib = 1 << 20
    for name, size in (("unlinked", 8), ("written", 20)):
        s3.put_object(Bucket=bucket, Key=f"old/{name}", Body=name[:1].encode() * (size * mib))
    living = mount(cache_size="24M", memory="32M", part_size="5M", multipart_threshold="8M")
    with (living.path / "old/unlinked").open("rb", buffering=0) as unlinked, (living.path / "old/written").open("r+b") as written:
        os.unlink(living.path / "old/unlinked")
        for _ in range(20):
            written.write(b"W" * mib)
        written.flush()
        pool = ThreadPoolExecutor(1)
        renaming = pool.submit(os.rename, living.path / "old", living.path / "new")
        if not wait([renaming], timeout=120).done:
            living.kill()  # or nothing here would ever end
        renaming.result()
        assert os.pread(unlinked.fileno(), 10, 5 * mib) == b"u" * 10
    living.again()
    assert keys(s3, bucket) == {"new/written"}
    assert (living.path / "new/written").read_bytes() == b"W" * (20 * mib)


def test_a_rename_below_a_renamed_directory_that_waits_for_room_gets_it(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any
) -> None:  # fmt: skip
    """The file that it replaces is open, and is made whole here; what is written below leaves the disk only when it may go up."""
    mib = 1 << 20
    for name, size in (("moved", 1), ("replaced", 16), ("written", 20)):
        s3.put_object(Bucket=bucket, Key=f"old/{name}", Body=name[:1].encode() * (size * mib))
    living = mount(
        url=proxy.url, cache_size="24M", memory="32M", part_size="5M", multipart_threshold="8M", upload_concurrency=1, prefetch=0
    )
    old = living.path / "old"
    with (old / "replaced").open("rb", buffering=0) as replaced, (old / "written").open("r+b") as written, ThreadPoolExecutor(2) as pool:
        for _ in range(20):
            written.write(b"W" * mib)
        written.flush()
        proxy.hold = lambda target: 0 if "partNumber=" in target else None
        threads: list[int] = []

        def rename(source: str, target: str) -> None:
            threads.append(threading.get_native_id())
            os.rename(living.path / source, living.path / target)

        below = pool.submit(rename, "old/moved", "old/replaced")
        wait_for(lambda: proxy.held, 60, "what is written to be on its way, for the room")
        above = pool.submit(rename, "old", "new")
        wait_for(lambda: len(threads) == 2 and in_the_kernel(RENAME, threads[1]), 60, "the directory to be renamed")
        proxy.hold = lambda target: None
        if wait([below, above], timeout=120).not_done:
            living.kill()  # or nothing here would ever end
        below.result()
        above.result()
        assert os.pread(replaced.fileno(), 10, 5 * mib) == b"r" * 10
    living.again()
    assert keys(s3, bucket) == {"new/replaced", "new/written"}
    assert (living.path / "new/written").read_bytes() == b"W" * (20 * mib)
    assert (living.path / "new/replaced").read_bytes() == b"m" * mib


def test_a_promised_file_below_a_renamed_directory_that_waits_for_room_for_its_copy_gets_it(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any
) -> None:  # fmt: skip
    """It is overwritten meanwhile; what takes the room may leave the disk when the directory has come to its new name."""
    mib = 1 << 20
    s3.put_object(Bucket=bucket, Key="old/x", Body=b"x")
    living = mount(
        url=proxy.url, cache_size="24M", memory="32M", writeback="1h", part_size="5M", multipart_threshold="8M",
        upload_concurrency=1, prefetch=0,
    )  # fmt: skip
    old = living.path / "old"
    (old / "promised").write_bytes(b"P" * (10 * mib))
    with (old / "promised").open("r+b", buffering=0) as promised, (old / "written").open("wb") as written, ThreadPoolExecutor(2) as pool:
        for _ in range(8):
            written.write(b"W" * mib)
        written.flush()
        proxy.hold = lambda target: 0 if target == f"/{bucket}/new/x" else None
        threads: list[int] = []

        def overwrite() -> None:
            threads.append(threading.get_native_id())
            os.pwrite(promised.fileno(), b"N", 5 * mib)

        above = pool.submit(os.rename, old, living.path / "new")
        wait_for(lambda: proxy.held, 60, "the directory to be on its way")
        inside = pool.submit(overwrite)
        wait_for(lambda: threads and in_the_kernel(PWRITE, threads[0]), 60, "the file to be overwritten")
        wait_for(lambda: living.counters()["disk_waits"], 60, "it to wait for room")
        proxy.hold = lambda target: None
        if wait([above, inside], timeout=60).not_done:
            living.kill()  # or nothing here would ever end
        above.result()
        inside.result()
    want = b"P" * (5 * mib) + b"N" + b"P" * (5 * mib - 1)
    assert (living.path / "new/promised").read_bytes() == want
    living.again()
    assert keys(s3, bucket) == {"new/x", "new/promised", "new/written"}
    assert (living.path / "new/promised").read_bytes() == want
    assert (living.path / "new/written").read_bytes() == b"W" * (8 * mib)


def test_a_close_beside_the_delivery_that_the_fsync_of_another_begins(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any
) -> None:  # fmt: skip
    """The delivery waits for the file's old bytes: the close meanwhile says nothing before all is in the store, and the file keeps what
    was written."""
    fill(s3, bucket, ["dir/file"])
    living = mount(url=proxy.url, prefetch=0)
    another = os.open(living.path / "dir/file", os.O_WRONLY)
    file = (living.path / "dir/file").open("r+b", buffering=0)
    file.write(b"new")
    proxy.hold = lambda target: 0 if target.startswith(f"/{bucket}/dir/file") else None
    with ThreadPoolExecutor(2) as pool:
        synced = pool.submit(os.fsync, another)
        wait_for(lambda: proxy.held, 60, "the file's old bytes to be asked for")
        closed = pool.submit(file.close)
        early = wait([closed], timeout=2).done  # the fault is one that is over at once
        proxy.hold = lambda target: None
        closed.result()
        synced.result()
    os.close(another)
    living.again()
    assert s3.get_object(Bucket=bucket, Key="dir/file")["Body"].read() == b"new/file"
    assert (living.path / "dir/file").read_bytes() == b"new/file"
    assert not early


@pytest.mark.parametrize("end", ["closed", "killed"])
def test_what_is_removed_from_a_renamed_directory_stays_removed(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any, end: str
) -> None:  # fmt: skip
    """Which object was meant is told by its time, too, and that is the copy's."""
    names = ["f0", "f1", "f2", "open"]
    fill(s3, bucket, [f"old/{name}" for name in names])
    made = s3.head_object(Bucket=bucket, Key="old/open")["LastModified"].timestamp()
    living = mount(url=proxy.url, patched="import zosfs.store.gathering; zosfs.store.gathering.DOUBTED = 0.0")
    run("ls", "-l", living.path / "old")
    wait_for(lambda: time.time() > made + 4, 60, "the objects to be older than their copies")
    os.rename(living.path / "old", living.path / "new")
    assert keys(s3, bucket) == {f"new/{name}" for name in names}
    fd = os.open(living.path / "new/open", os.O_RDONLY)
    os.unlink(living.path / "new/f0")
    proxy.intercept = lambda method, target: answer(503, "SlowDown") if method in ("POST", "DELETE") else None
    for name in ("f1", "f2", "open"):
        os.unlink(living.path / "new" / name)
    assert os.pread(fd, 100, 0) == b"old/open"
    if end == "killed":
        living.kill()
        refused(errno.ENOTCONN, os.close, fd)
    proxy.intercept = None
    if end == "killed":
        living.start()
    else:
        os.close(fd)
    living.again()
    assert keys(s3, bucket) == set()


def test_what_is_written_meanwhile_goes_along(mount: Mounting, bucket: str, s3: Any) -> None:
    fill(s3, bucket, [f"old/f{n:03}" for n in range(200)])
    living = mount()
    run("ls", "-l", living.path / "old")
    files = [(living.path / f"old/f{n:03}").open("r+b", buffering=0) for n in range(0, 200, 5)]
    reading = [os.open(living.path / f"old/f{n:03}", os.O_RDONLY) for n in range(1, 200, 5)]
    renaming = threading.Thread(target=os.rename, args=(living.path / "old", living.path / "new"))
    renaming.start()
    for n, file in enumerate(files):
        file.write(b"new %d" % n)
        if n % 3 == 0:
            os.fchmod(file.fileno(), 0o600)
        file.close()
    for n, fd in enumerate(reading):
        assert os.pread(fd, 100, 0) == b"old/f%03d" % (1 + 5 * n)
        os.fchmod(fd, 0o640)
        os.close(fd)
    renaming.join()
    living.again()
    assert keys(s3, bucket) == {f"new/f{n:03}" for n in range(200)}
    for n in range(40):
        assert (living.path / f"new/f{5 * n:03}").read_bytes().startswith(b"new %d" % n)
        assert os.stat(living.path / f"new/f{1 + 5 * n:03}").st_mode & 0o777 == 0o640
        if n % 3 == 0:
            assert os.stat(living.path / f"new/f{5 * n:03}").st_mode & 0o777 == 0o600


def test_names_made_and_removed_meanwhile_go_along(mount: Mounting, bucket: str, s3: Any) -> None:
    fill(s3, bucket, [f"old/s{n % 4}/f{n:03}" for n in range(200)])
    living = mount()
    run("find", living.path)
    fds = [os.open(living.path / f"old/s{n}", os.O_RDONLY | os.O_DIRECTORY) for n in range(4)]
    renaming = threading.Thread(target=os.rename, args=(living.path / "old", living.path / "new"))
    renaming.start()
    for n, fd in enumerate(fds):
        os.unlink(f"f{n:03}", dir_fd=fd)
        os.mkdir("made", dir_fd=fd)
        os.symlink("anywhere", "link", dir_fd=fd)
        os.rename(f"f{n + 4:03}", "moved", src_dir_fd=fd, dst_dir_fd=fd)
        made = os.open("created", os.O_WRONLY | os.O_CREAT, dir_fd=fd)
        os.write(made, b"here")
        os.close(made)
        os.close(fd)
    renaming.join()
    living.again()
    assert {key for key in keys(s3, bucket) if not key.startswith("new/s")} == set()
    for n in range(4):
        new = living.path / f"new/s{n}"
        expected = {f"f{i:03}" for i in range(n, 200, 4)} - {f"f{n:03}", f"f{n + 4:03}"} | {"made", "link", "moved", "created"}
        assert set(os.listdir(new)) == expected
        assert (new / "created").read_bytes() == b"here"
        assert (new / "moved").read_bytes() == b"old/s%d/f%03d" % (n, n + 4)
