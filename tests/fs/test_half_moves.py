"""A half-written file that is renamed and of which the journal has something: nobody sees the half, and what was promised goes along."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from tests.fs.mounting import Mount
from tests.fs.running import refused
from tests.fs.test_attributes_meanwhile import body
from tests.proxy import Proxy, answer

Mounting = Callable[..., Mount]


def half_written(living: Mount, by: str) -> FileIO:
    """The file `f`, of which "promised." is in the journal, and "half" in front of that nowhere."""
    path = living.path / "f"
    f = path.open("r+b", buffering=0)
    f.write(b"promised.")
    if by == "close":
        f.close()
        f = path.open("r+b", buffering=0)
    else:
        os.fsync(f.fileno())
        f.seek(0)
    f.write(b"half")
    return f


def come_to(end: str, living: Mount, f: FileIO) -> None:
    """The daemon is killed and started again, or the program goes on with *f* and closes it."""
    if end == "killed":
        living.kill()
        refused((errno.ENOTCONN, errno.ECONNABORTED), f.close)
        living.start()
    else:
        f.write(b" way")
        f.close()


@pytest.mark.parametrize("over", [False, True], ids=["new name", "over another"])
@pytest.mark.parametrize("end", ["closed", "killed"])
@pytest.mark.parametrize("by", ["close", "fsync"])
def test_what_is_promised_goes_along(mount: Mounting, bucket: str, s3: Any, by: str, end: str, over: bool) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=b"as it was")
    living = mount(writeback="1h", fsync="journal" if by == "fsync" else "store")
    if over:
        s3.put_object(Bucket=bucket, Key="g", Body=b"another")
        (living.path / "g").write_bytes(b"another's promise")
    with half_written(living, by) as f:
        os.rename(living.path / "f", living.path / "g")
        assert body(s3, bucket, "g") == b"as it was"
        assert body(s3, bucket, "f") == b""
        assert (living.path / "g").read_bytes() == b"halfised."
        come_to(end, living, f)
    living.stop()
    assert body(s3, bucket, "g") == (b"promised." if end == "killed" else b"half way.")
    assert [each["Key"] for each in s3.list_objects(Bucket=bucket)["Contents"]] == ["g"]


@pytest.mark.parametrize("end", ["closed", "killed"])
def test_what_is_promised_stays_where_the_renaming_is_refused(proxy: Proxy, mount: Mounting, bucket: str, s3: Any, end: str) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=b"as it was")
    living = mount(url=proxy.url, writeback="1h")
    with half_written(living, "close") as f:
        proxy.intercept = lambda method, target: answer(403, "AccessDenied") if method == "DELETE" and target.endswith("/f") else None
        refused(errno.EACCES, os.rename, living.path / "f", living.path / "g")
        assert body(s3, bucket, "f") == b"as it was"
        assert body(s3, bucket, "g") == b""
        proxy.intercept = None
        come_to(end, living, f)
    living.stop()
    assert body(s3, bucket, "f") == (b"promised." if end == "killed" else b"half way.")
    assert body(s3, bucket, "g") == b""


@pytest.mark.parametrize("over", [False, True], ids=["new name", "over another"])
def test_a_daemon_killed_when_the_old_name_is_about_to_go_has_what_was_promised_at_the_new_one(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any, over: bool
) -> None:
    """What the store answers to the removal is lost with the daemon."""
    s3.put_object(Bucket=bucket, Key="f", Body=b"as it was")
    living = mount(url=proxy.url, writeback="1h")
    if over:
        s3.put_object(Bucket=bucket, Key="g", Body=b"another")
        (living.path / "g").write_bytes(b"another's promise")
    with half_written(living, "close") as f:
        reached, dead = threading.Event(), threading.Event()

        def last(method: str, target: str) -> str | None:
            if method != "DELETE" or not target.endswith("/f"):
                return None
            reached.set()
            dead.wait(120)
            return "reset"

        proxy.intercept = last
        gone = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)
        with ThreadPoolExecutor(1) as pool:
            renamed = pool.submit(refused, gone, os.rename, living.path / "f", living.path / "g")
            assert reached.wait(120)
            s3.delete_object(Bucket=bucket, Key="f")
            living.kill()
            dead.set()
            renamed.result()
        proxy.intercept = None
        refused(gone, f.close)
    living.start()
    living.stop()
    assert body(s3, bucket, "g") == b"promised."
    assert body(s3, bucket, "f") == b""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own for the journal, which can be filled."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path, living: Mount) -> None:
    """Leave no byte of *disk* free, nor room for anything in the journal's log, which is longer than what it says."""
    with (disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(bytes(1 << 16)):
            pass
    for size in (60_000, 1):
        promised = True
        while promised:
            try:
                (living.path / "other").write_bytes(bytes(size))
            except OSError as failure:
                if failure.errno != errno.ENOSPC:
                    raise
                promised = False


@pytest.mark.parametrize("over", [False, True], ids=["new name", "over another"])
@pytest.mark.parametrize("end", ["closed", "killed"])
@pytest.mark.parametrize("by", ["close", "fsync"])
def test_a_renaming_while_the_disk_has_no_room_for_the_journal(
    small_disk: Path, proxy: Proxy, mount: Mounting, bucket: str, s3: Any, by: str, end: str, over: bool
) -> None:
    """It fails and both files are as they were, or is done; what was promised is delivered in either case."""
    s3.put_object(Bucket=bucket, Key="f", Body=b"as it was")
    if over:
        s3.put_object(Bucket=bucket, Key="g", Body=b"another")
    options = {"writeback": "1h", "fsync": "journal" if by == "fsync" else "store"}
    living = mount(url=proxy.url, retries=0, cache_dir=small_disk, free_space=0, **options)
    living.forgive("ERROR")
    proxy.intercept = lambda method, target: answer(503, "SlowDown") if method == "PUT" and target.endswith("/other") else None
    with half_written(living, by) as f:
        fill(small_disk, living)
        failure: OSError | None = None
        try:
            os.rename(living.path / "f", living.path / "g")
        except OSError as exc:
            failure = exc
        assert (living.path / ("f" if failure else "g")).read_bytes() == b"halfised."
        if failure:
            assert failure.errno == errno.ENOSPC
            assert (body(s3, bucket, "f"), body(s3, bucket, "g")) == (b"as it was", b"another" if over else b"")
            if over:
                assert (living.path / "g").read_bytes() == b"another"
        (small_disk / "filler").unlink()
        proxy.intercept = None
        come_to(end, living, f)
    living.stop()
    there = b"promised." if end == "killed" else b"half way."
    if failure:
        assert (body(s3, bucket, "f"), body(s3, bucket, "g")) == (there, b"another" if over else b"")
    else:
        assert (body(s3, bucket, "f"), body(s3, bucket, "g")) == (b"", there)
