"""Things go wrong between the mount and the server, or on the local disk: what the caller gets, and that the mount lives on."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from tests.fs.mounting import Mount, wait_for, works_again, zosfs
from tests.fs.running import noise, refused
from tests.proxy import Proxy, answer

MIB = 1 << 20
HASTY = {"read_timeout": 2, "retries": 1, "retry_timeout": 3}
"""Some 6 s until a server that says nothing is given up; one that answers must have that long on a busy machine."""
Mounting = Callable[..., Mount]


def within(seconds: float, call: Callable[..., Any], *args: Any) -> Any:
    """Call and check that it took no longer."""
    start = time.monotonic()
    try:
        return call(*args)
    finally:
        assert time.monotonic() - start < seconds


def read_all(path: Path) -> bytes:
    """The whole file through a fresh handle."""
    return path.read_bytes()


def test_an_object_replaced_while_it_is_read(mount: Mounting, bucket: str, s3: Any) -> None:
    old, new = b"old!" * (12 * MIB), b"new!" * (12 * MIB)
    s3.put_object(Bucket=bucket, Key="f", Body=old)
    living = mount(read_ahead="1M")
    stale = False
    with (living.path / "f").open("rb", buffering=0) as f:
        assert f.read(4096) == old[:4096]
        s3.put_object(Bucket=bucket, Key="f", Body=new)
        at = 40 * MIB
        while at < len(old):
            try:
                piece = os.pread(f.fileno(), 64 * 1024, at)
            except OSError as error:
                stale = error.errno == errno.ESTALE
                break
            assert piece == old[at : at + len(piece)]
            at += len(piece)
    assert stale
    assert read_all(living.path / "f") == new


@pytest.mark.long_on("weed")
def test_who_waits_for_a_silent_server_is_told_once(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    for n in range(3):
        s3.put_object(Bucket=bucket, Key=f"f{n}", Body=noise(MIB, n))
    living = mount(url=proxy.url, patched="import zosfs.store.traffic; zosfs.store.traffic.QUIET = 2.0")
    host = proxy.url.partition("://")[2]
    assert os.listdir(living.path)
    proxy.stalled = True
    with ThreadPoolExecutor(3) as pool:
        reading = [pool.submit(read_all, living.path / f"f{n}") for n in range(3)]
        wait_for(lambda: "requests that wait for it" in living.log(), 60, "it is said")
        said = zosfs("status", living.path).stdout
        assert re.search(rf"^  requests that wait for {host}: [1-9], it has said nothing for \d+ s$", said, re.MULTILINE), said
        assert "speaks again" not in living.log()
        proxy.stalled = False
        proxy.reset_all()
        assert [done.result(120) for done in reading] == [noise(MIB, n) for n in range(3)]
    wait_for(lambda: f"{host} speaks again, after " in living.log(), 60, "it is said")
    assert living.log().count(f"{host} has said nothing for ") == 1
    assert "requests that wait" not in zosfs("status", living.path).stdout


@pytest.mark.long_on("weed")
def test_a_server_with_too_much_to_do_gets_fewer_heads_at_once(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(
            lambda n: s3.put_object(Bucket=bucket, Key=f"d/f{n:03}", Body=b"x", Metadata={"mode": str(0o100600 + n % 8)}), range(150)
        ))  # fmt: skip
    living = mount(url=proxy.url, retries=10)
    os.stat(living.path / "d")
    heads = 0

    def busy(method: str, target: str) -> bytes | None:
        nonlocal heads
        if method != "HEAD" or "/d/f" not in target:
            return None
        heads += 1
        # not the first ones: who asks for one name has no more than his own tries
        return b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" if 3 < heads <= 12 else None

    proxy.intercept = busy
    modes = {entry.name: entry.stat().st_mode for entry in os.scandir(living.path / "d")}
    assert modes == {f"f{n:03}": 0o100600 + n % 8 for n in range(150)}
    assert living.counters()["slowdowns"] >= 1
    proxy.intercept = None


@pytest.mark.long_on("weed")
def test_the_server_goes_away_while_a_file_is_read(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=noise(MIB) * 48)
    living = mount(url=proxy.url, read_ahead="1M", **HASTY)
    living.forgive("")
    with (living.path / "f").open("rb", buffering=0) as f:
        assert len(f.read(4096)) == 4096
        for trouble in ("gone", "stalled"):
            setattr(proxy, trouble, True)
            proxy.reset_all()
            far = (40 if trouble == "gone" else 44) * MIB
            within(100, refused, (errno.EIO, errno.ETIMEDOUT), os.pread, f.fileno(), 4096, far)
            setattr(proxy, trouble, False)
            assert works_again(os.pread, f.fileno(), 4096, 20 * MIB) == noise(MIB)[:4096]
    assert read_all(living.path / "f") == noise(MIB) * 48
    assert "Traceback" not in living.log()


@pytest.mark.long_on("weed")
def test_the_server_goes_away_while_a_file_is_written(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    living = mount(url=proxy.url, **HASTY)
    living.forgive("")
    os.listdir(living.path)
    for n, trouble in enumerate(("gone", "stalled")):
        path = living.path / f"f{n}"
        fd = os.open(path, os.O_CREAT | os.O_RDWR)
        os.write(fd, noise(300_000, n))
        setattr(proxy, trouble, True)
        proxy.reset_all()
        within(100, refused, (errno.EIO, errno.ETIMEDOUT), os.fsync, fd)
        assert os.pread(fd, 300_000, 0) == noise(300_000, n), "what was written is still there"
        setattr(proxy, trouble, False)
        works_again(os.fsync, fd)
        os.close(fd)
        assert s3.get_object(Bucket=bucket, Key=f"f{n}")["Body"].read() == noise(300_000, n)
    (living.path / "after").write_text("alive")
    assert s3.get_object(Bucket=bucket, Key="after")["Body"].read() == b"alive"
    assert "Traceback" not in living.log()


@pytest.mark.long_on("weed")
def test_close_tells_that_the_upload_failed_and_a_later_fsync_delivers(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any
) -> None:
    living = mount(url=proxy.url, **HASTY)
    living.forgive("")
    os.listdir(living.path)
    fd = os.open(living.path / "f", os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"precious")
    proxy.gone = True
    proxy.reset_all()
    refused((errno.EIO, errno.ETIMEDOUT), os.close, fd)
    proxy.gone = False
    with (living.path / "f").open("r+b") as f:
        assert f.read() == b"precious"
        works_again(os.fsync, f.fileno())
    assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"precious"


@pytest.mark.long_on("weed")
def test_a_close_beside_a_delivery_that_fails_fails_too(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    living = mount(url=proxy.url, **HASTY)
    living.forgive("ERROR zosfs.content.content: f: ")
    syncing, closing = ((living.path / "f").open("r+b" if n else "w+b", buffering=0) for n in range(2))
    closing.write(b"what both wrote")
    proxy.hold = lambda target: 0 if target.startswith(f"/{bucket}/f") else None
    with ThreadPoolExecutor(2) as pool:
        synced = pool.submit(os.fsync, syncing.fileno())
        wait_for(lambda: proxy.held, 60, "the delivery to be under way")
        closed = pool.submit(closing.close)
        wait([closed], timeout=2)  # the fault is one that is over at once
        proxy.intercept = lambda method, target: answer(503, "ServiceUnavailable")
        proxy.hold = lambda target: None
        proxy.reset_all()
        assert isinstance(synced.exception(), OSError)
        assert isinstance(closed.exception(), OSError)
    proxy.intercept = None
    os.fsync(syncing.fileno())
    syncing.close()
    assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"what both wrote"


@pytest.mark.long_on("weed")
def test_a_file_that_grows_while_it_is_delivered_has_its_size(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    living = mount(url=proxy.url)
    with (living.path / "f").open("w+b", buffering=0) as file:
        file.write(b"delivered ")
        other = (living.path / "f").open("r+b", buffering=0)
        proxy.hold = lambda target: 0 if target.startswith(f"/{bucket}/f") else None
        with ThreadPoolExecutor(1) as pool:
            closed = pool.submit(other.close)
            wait_for(lambda: proxy.held, 60, "the delivery to be under way")
            file.write(b"meanwhile")
            proxy.hold = lambda target: None
            closed.result()
        assert os.fstat(file.fileno()).st_size == 19
        assert (living.path / "f").read_bytes() == b"delivered meanwhile"
    assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"delivered meanwhile"


@pytest.mark.long_on("weed")
def test_answers_cut_in_the_middle_are_continued(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=noise(MIB) * 24)
    living = mount(url=proxy.url, retries=20)
    (living.path / "f").stat()
    proxy.cut_after = 3 * MIB
    with living.moved() as growth:
        assert read_all(living.path / "f") == noise(MIB) * 24
    assert growth["retries"] > 0


@pytest.mark.long_on("weed")
def test_a_busy_server_is_asked_again(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    living = mount(url=proxy.url)
    os.listdir(living.path)
    refusals = iter([answer(503, "SlowDown"), answer(500, "InternalError"), answer(503, "ServiceUnavailable")])
    proxy.intercept = lambda method, target: next(refusals, None) if method == "PUT" else None
    with living.moved() as growth:
        (living.path / "f").write_text("arrived")
    assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"arrived"
    assert growth["retries"] >= 3


def test_one_forbidden_key(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    for name in ("allowed", "forbidden"):
        s3.put_object(Bucket=bucket, Key=name, Body=name.encode())

    def forbid(method: str, target: str) -> bytes | None:
        return answer(403, "AccessDenied", "Forbidden") if "/forbidden" in target and method in ("GET", "PUT") else None

    proxy.intercept = forbid
    living = mount(url=proxy.url)
    living.forgive("forbidden")
    assert sorted(os.listdir(living.path)) == ["allowed", "forbidden"]
    refused(errno.EACCES, read_all, living.path / "forbidden")
    assert read_all(living.path / "allowed") == b"allowed"

    def write() -> None:
        with (living.path / "forbidden").open("wb", buffering=0) as f:
            f.write(b"x")
            os.fsync(f.fileno())

    refused(errno.EACCES, write)
    assert s3.get_object(Bucket=bucket, Key="forbidden")["Body"].read() == b"forbidden"
    proxy.intercept = None  # what was kept is tried again, so that nothing is pending at the end


def test_the_cache_disk_is_full(proxy: Proxy, mount: Mounting, bucket: str, s3: Any, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "tmpfs", str(disk)], check=True)
    try:
        living = mount(url=proxy.url, cache_dir=disk, cache_size="64M", free_space=0)
        living.forgive("")
        (living.path / "before").write_bytes(noise(MIB) * 3)

        def backwards() -> None:
            # from the end to the beginning, so that nothing can leave the disk before the file is whole
            with (living.path / "large").open("wb", buffering=0) as f:
                for n in reversed(range(40)):
                    f.seek(n * MIB)
                    f.write(noise(MIB))

        refused(errno.ENOSPC, backwards)
        (living.path / "large").unlink()
        assert read_all(living.path / "before") == noise(MIB) * 3
        (living.path / "after").write_bytes(noise(MIB, 2))
        assert s3.get_object(Bucket=bucket, Key="after")["Body"].read() == noise(MIB, 2)
        assert s3.get_object(Bucket=bucket, Key="before")["Body"].read() == noise(MIB) * 3
        living.finish()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_killed_after_fsync(mount: Mounting, bucket: str, s3: Any) -> None:
    living = mount()
    with (living.path / "closed").open("wb") as f:
        f.write(b"closed")
    with (living.path / "synced").open("wb", buffering=0) as f:
        f.write(noise(200_000))
        os.fsync(f.fileno())
        f.write(b"not promised")
        living.kill()
        with pytest.raises(OSError, match=r"connected|aborted"):
            os.fsync(f.fileno())
        refused((errno.ENOTCONN, errno.ECONNABORTED, errno.EIO), os.write, f.fileno(), b"x")
        try:
            f.close()
        except OSError:
            pass
    living.start()
    assert read_all(living.path / "closed") == b"closed"
    assert read_all(living.path / "synced")[:200_000] == noise(200_000)


@pytest.mark.parametrize("closed", [False, True])
def test_who_opens_a_file_beside_a_loser_works_on_what_is_there_now(
    mount: Mounting, bucket: str, s3: Any, tmp_path: Path, closed: bool
) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=b"base, and longer")
    living = mount()
    living.forgive("")
    path = living.path / "f"
    loser = os.open(path, os.O_RDWR)
    os.pwrite(loser, b"mine", 0)
    s3.put_object(Bucket=bucket, Key="f", Body=b"theirs")
    refused(errno.ESTALE, os.fsync, loser)
    os.pwrite(loser, b"more", 4)
    other = os.open(path, os.O_RDWR)
    assert os.pread(other, 100, 0) == b"theirs"
    os.pwrite(other, b"THE", 0)
    if not closed:
        refused(errno.ESTALE, os.fsync, loser)
    refused(errno.ESTALE, os.close, loser)
    os.close(other)
    assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"THEirs"
    assert path.read_bytes() == b"THEirs"
    path.write_bytes(b"and on")
    assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"and on"
    (entry,) = json.loads(zosfs("journal", "list", "--json", f"--cache-dir={living.cache_dir}").stdout)
    assert entry["state"] == "conflict"
    kept = tmp_path / "kept"
    zosfs("journal", "export", entry["id"], kept, f"--cache-dir={living.cache_dir}")
    assert kept.read_bytes()[:8] == b"minemore"
    assert "Traceback" not in living.log()


def test_a_file_whose_removal_was_refused_is_written_on(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=b"what was there")
    living = mount(url=proxy.url)
    living.forgive("/f|f:|refus|AccessDenied")
    fd = os.open(living.path / "f", os.O_RDWR)
    os.pwrite(fd, b"WHAT", 0)
    os.fsync(fd)
    os.pread(fd, 100, 0)
    proxy.intercept = lambda method, target: answer(403, "AccessDenied", "Forbidden") if method == "DELETE" else None
    refused(errno.EACCES, os.unlink, living.path / "f")
    proxy.intercept = None
    os.pwrite(fd, b"AND", 5)
    os.close(fd)
    assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"WHAT AND there"
    os.unlink(living.path / "f")


@pytest.mark.long_on("weed")
@pytest.mark.parametrize("copy_goes", [True, False])
def test_a_file_whose_rename_ends_in_a_refused_removal(copy_goes: bool, proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="d/old", Body=b"what was there")
    living = mount(url=proxy.url)
    living.forgive("/old|old:|/new|new:|refus|AccessDenied|both names")
    keys = ("/old", "/new") if not copy_goes else ("/old",)
    proxy.intercept = lambda method, target: (
        answer(403, "AccessDenied", "Forbidden") if method == "DELETE" and target.partition("?")[0].endswith(keys) else None
    )
    assert not (living.path / "d" / "new").exists()
    refused(errno.EACCES, os.rename, living.path / "d" / "old", living.path / "d" / "new")
    there = ["old"] if copy_goes else ["new", "old"]
    assert sorted(os.listdir(living.path / "d")) == there
    assert [found["Key"] for found in s3.list_objects(Bucket=bucket)["Contents"]] == [f"d/{name}" for name in there]
    for name in there:
        assert (living.path / "d" / name).read_bytes() == b"what was there"
    proxy.intercept = None
    os.rename(living.path / "d" / "old", living.path / "d" / "new")
    assert (living.path / "d" / "new").read_bytes() == b"what was there"
    assert os.listdir(living.path / "d") == ["new"]


@pytest.mark.long_on("weed")
def test_a_rename_whose_delete_was_made_without_an_answer_and_then_refused_loses_nothing(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any
) -> None:
    s3.put_object(Bucket=bucket, Key="old", Body=b"all there is")
    living = mount(url=proxy.url)
    living.forgive("old|refus|AccessDenied")
    sent: list[str] = []

    def once(method: str, target: str) -> bytes | str | None:
        if method != "DELETE" or not target.partition("?")[0].endswith("/old"):
            return None
        sent.append(target)
        return "lost" if len(sent) == 1 else answer(403, "AccessDenied", "Forbidden")

    proxy.intercept = once
    refused(errno.EACCES, os.rename, living.path / "old", living.path / "new")
    proxy.intercept = None
    assert len(sent) > 1
    assert s3.get_object(Bucket=bucket, Key="new")["Body"].read() == b"all there is"
    assert os.listdir(living.path) == ["new"]
    assert (living.path / "new").read_bytes() == b"all there is"


@pytest.mark.long_on("weed")
def test_what_an_earlier_run_left_and_nobody_saw_yet_stays_when_its_removal_is_refused(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any
) -> None:
    s3.put_object(Bucket=bucket, Key="d/f", Body=b"what was there")
    living = mount(url=proxy.url, writeback="1h")
    living.forgive("")
    path = living.path / "d/f"
    with path.open("r+b") as f:
        f.write(b"WHAT")
    living.kill()
    forbidden = {"HEAD", "GET", "PUT"}

    def forbid(method: str, target: str) -> bytes | None:
        about = "/d/" in target or "delimiter" in target  # the file, or the directory that it is in
        return answer(403, "AccessDenied", "Forbidden") if about and method in forbidden else None

    proxy.intercept = forbid
    living.start()
    assert "is not shown until it is delivered" in living.log()
    forbidden = {"PUT", "DELETE"}
    refused(errno.EACCES, os.unlink, path)
    assert s3.get_object(Bucket=bucket, Key="d/f")["Body"].read() == b"what was there"
    living.kill()
    proxy.intercept = None
    living.start()
    wait_for(lambda: path.read_bytes() == b"WHAT was there", 30, "what was written to be there")
    assert s3.get_object(Bucket=bucket, Key="d/f")["Body"].read() == b"WHAT was there"


def test_a_replaced_object_is_not_overwritten(mount: Mounting, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=b"base")
    living = mount()
    living.forgive("")
    fd = os.open(living.path / "f", os.O_RDWR)
    os.pwrite(fd, b"mine", 0)
    s3.put_object(Bucket=bucket, Key="f", Body=b"theirs")
    refused(errno.ESTALE, os.fsync, fd)
    assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"theirs"
    refused(errno.ESTALE, os.close, fd)
    assert "Traceback" not in living.log()


def test_who_opens_a_file_after_its_conflict_reads_all_of_the_other_one(mount: Mounting, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=b"base")
    living = mount()
    living.forgive("")
    path = living.path / "f"
    fd = os.open(path, os.O_RDWR)
    os.pwrite(fd, b"mine", 0)
    s3.put_object(Bucket=bucket, Key="f", Body=b"theirs, which is longer")
    refused(errno.ESTALE, os.fsync, fd)
    assert path.stat().st_size == 4, "the kernel knows the size of what is here"
    other = os.open(path, os.O_RDONLY)
    found = os.pread(other, 100, 0)
    os.close(other)
    refused(errno.ESTALE, os.close, fd)
    assert found == b"theirs, which is longer"


def test_attributes_that_were_refused_do_not_show(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=b"content")
    path = mount(url=proxy.url).path / "f"
    before = path.stat()
    proxy.intercept = lambda method, target: answer(403, "AccessDenied") if method == "PUT" else None
    refused(errno.EACCES, path.chmod, 0o604)
    refused(errno.EACCES, os.utime, path, ns=(1, 2))
    proxy.intercept = None
    assert path.stat() == before
    path.chmod(0o640)
    assert path.stat().st_mtime_ns == before.st_mtime_ns
