"""Removals in a row: few requests, and nobody can tell but by their number."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fs.mounting import GONE_WITHIN, Mount, wait_for, works_again, zosfs
from tests.fs.running import put_many, refused, run, sync_directory
from tests.proxy import Proxy, answer
from zosfs.fs.gathering_pace import LONGEST
from zosfs.fs.removals import ROW
from zosfs.store.gathering import DOUBTED

Mounting = Callable[..., Mount]
pytestmark = pytest.mark.long_on("weed")


def fill(s3: Any, bucket: str, keys: list[str]) -> None:
    put_many(s3, bucket, dict.fromkeys(keys, b"old"))


def keys(s3: Any, bucket: str) -> set[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {item["Key"] for page in pages for item in page.get("Contents", [])}


def deleted_alone(proxy: Proxy) -> set[str]:
    """Names in d/ that were not gathered: the first one, and on a busy machine those that came too late for the row."""
    return {target.rpartition("/")[2] for method, target in proxy.requests if method == "DELETE" and "/d/f" in target}


def remove_all(directory: Path) -> None:
    for name in sorted(os.listdir(directory)):
        (directory / name).unlink()


@pytest.mark.parametrize("posix", [True, False])
def test_a_tree_goes_with_a_few_requests(mount: Mounting, bucket: str, s3: Any, posix: bool) -> None:
    fill(s3, bucket, [f"t/d{n % 3}/f{n:03}" for n in range(240)] + ["kept"])
    living = mount(posix=posix)
    run("find", living.path)
    begun = time.monotonic()
    with living.requests() as spent:
        run("rm", "-r", living.path / "t")
        took = time.monotonic() - begun
        os.sync()
        wait_for(lambda: keys(s3, bucket) == {"kept"}, 10, "the delivery of the removals")
        delivered = time.monotonic() - begun
    # on a busy machine rows end, and are delivered, while rm is still at work: not more of them than there is time for
    assert spent.pop("delete", 0) <= 1 + 1 + took // ROW, "the first one, and the directory above"
    assert spent.pop("delete_many") <= 2 + 4 + took // LONGEST, "an early one, and what comes after a moment's silence"
    if delivered < DOUBTED:  # what is older is looked at
        assert sum(spent.values()) <= 3, spent
    assert os.listdir(living.path) == ["kept"]


def test_a_name_removed_in_a_row_may_be_used_again_at_once(mount: Mounting, bucket: str, s3: Any) -> None:
    fill(s3, bucket, [f"d/f{n:02}" for n in range(30)])
    living = mount()
    directory = living.path / "d"
    remove_all(directory)
    assert os.listdir(directory) == []
    (directory / "f07").write_text("new")
    (directory / "f08").mkdir()
    (directory / "other").write_text("moved")
    (directory / "other").rename(directory / "f09")
    os.symlink("f07", directory / "f10")
    assert sorted(os.listdir(directory)) == ["f07", "f08", "f09", "f10"]
    living.again()
    assert sorted(os.listdir(directory)) == ["f07", "f08", "f09", "f10"]
    assert (directory / "f10").read_text() == "new"
    assert (directory / "f09").read_text() == "moved"


def test_removed_names_are_gone_for_every_question(mount: Mounting, bucket: str, s3: Any) -> None:
    fill(s3, bucket, [f"d/f{n:02}" for n in range(21)])
    living = mount(negative_ttl=0, metadata_ttl=0)
    for n in range(20):
        (living.path / "d" / f"f{n:02}").unlink()
        assert not (living.path / "d" / f"f{n:02}").exists()
        assert len(os.listdir(living.path / "d")) == 20 - n


def test_fsync_of_the_directory_delivers(mount: Mounting, bucket: str, s3: Any) -> None:
    fill(s3, bucket, [f"d/f{n:02}" for n in range(40)])
    living = mount()
    os.listdir(living.path / "d")
    remove_all(living.path / "d")
    sync_directory(living.path / "d")
    assert keys(s3, bucket) <= {"d/"}


def test_umount_delivers(mount: Mounting, bucket: str, s3: Any) -> None:
    fill(s3, bucket, [f"d/f{n:02}" for n in range(40)])
    living = mount()
    remove_all(living.path / "d")
    living.stop()
    assert keys(s3, bucket) <= {"d/"}


def test_an_umount_that_cannot_deliver_says_so_and_the_next_mount_does(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    fill(s3, bucket, [f"d/f{n:02}" for n in range(40)])
    living = mount(url=proxy.url, retries=1, retry_timeout=1)
    living.forgive("delivered")
    os.listdir(living.path / "d")
    proxy.intercept = lambda method, target: answer(503, "SlowDown") if method == "POST" else None
    remove_all(living.path / "d")
    ended = zosfs("umount", living.path)
    assert ended.returncode == 1
    assert "not everything was delivered" in ended.stderr
    assert living.process.wait(GONE_WITHIN) == 1
    assert len(keys(s3, bucket) - {"d/"}) == 40 - len(deleted_alone(proxy)) > 0
    proxy.intercept = None
    living.start()
    wait_for(lambda: keys(s3, bucket) <= {"d/"}, 20, "the removals of the run before")
    assert not any(name.startswith("f") for name in os.listdir(living.path / "d"))


def test_a_killed_daemon_loses_no_removal(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    fill(s3, bucket, [f"d/f{n:02}" for n in range(60)])
    living = mount(url=proxy.url)
    os.listdir(living.path / "d")
    proxy.intercept = lambda method, target: answer(503, "SlowDown") if method == "POST" else None
    remove_all(living.path / "d")
    living.kill()
    left = len(keys(s3, bucket) - {"d/"})
    assert left == 60 - len(deleted_alone(proxy)) > 0, "nothing was delivered: what follows is the next run's work"
    s3.put_object(Bucket=bucket, Key="d/f30", Body=b"made by somebody else since")
    proxy.intercept = None
    living.start()
    wait_for(lambda: keys(s3, bucket) <= {"d/", "d/f30"}, 20, "the removals of the earlier run")
    assert os.listdir(living.path / "d") == ["f30"]
    assert (living.path / "d" / "f30").read_text() == "made by somebody else since"


@pytest.mark.parametrize("made", ["file", "directory"])
def test_what_is_made_anew_at_once_outlives_the_promise_to_remove_the_old_one(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any, made: str
) -> None:  # fmt: skip
    """The disk is full when the server has removed the old one, the daemon is killed, and the next run cannot tell the two apart."""
    fill(s3, bucket, [f"d/f{n:02}" for n in range(60)])
    living = mount(url=proxy.url, retries=0)
    living.forgive("removals are not delivered yet")
    directory = living.path / "d"
    os.listdir(directory)

    def make() -> None:
        if made == "file":
            (directory / "again").write_text("the same")
        else:
            (directory / "again").mkdir()

    make()
    proxy.hold = lambda target: 0 if "?delete" in target else None
    (directory / "f00").unlink()
    (directory / "again").unlink() if made == "file" else (directory / "again").rmdir()
    for n in range(1, 59):
        (directory / f"f{n:02}").unlink()
    wait_for(lambda: proxy.held, 10, "the first delivery")
    size = (next(living.cache_dir.glob("**/journal/removals"))).stat().st_size
    resource.prlimit(living.process.pid, resource.RLIMIT_FSIZE, (size, size))
    posts = sum(method == "POST" for method, _ in proxy.requests)
    proxy.intercept = lambda method, target: answer(503, "SlowDown") if method == "POST" else None
    proxy.hold = lambda target: None
    wait_for(lambda: sum(method == "POST" for method, _ in proxy.requests) > posts, 10, "the second delivery")
    make()
    key = "d/again" if made == "file" else "d/again/"
    assert key in keys(s3, bucket)
    living.kill()
    proxy.intercept = None
    living.start()
    wait_for(lambda: keys(s3, bucket) <= {"d/", "d/f59", key}, 20, "the removals of the earlier run")
    assert sorted(os.listdir(directory)) == ["again", "f59"]


@pytest.mark.parametrize("how", ["renamed", "linked"])
def test_what_takes_the_place_of_a_file_whose_removal_the_journal_still_has_stays(
    mount: Mounting, bucket: str, s3: Any, how: str
) -> None:  # fmt: skip
    """The disk is full when the last who had it open closes it: the journal goes on having its object deleted by the next run."""
    living = mount(negative_ttl=0, metadata_ttl=0)
    s3.put_object(Bucket=bucket, Key="other", Body=b"target")
    other, name = living.path / "other", living.path / "f"
    other.stat()
    s3.put_object(Bucket=bucket, Key="f", Body=b"target")
    with name.open("rb"):
        name.unlink()
        resource.prlimit(living.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    wait_for(lambda: "f" not in keys(s3, bucket), 10, "the removal of the object")
    take = functools.partial(other.rename, name) if how == "renamed" else functools.partial(name.symlink_to, "target")
    with contextlib.suppress(OSError):  # where the journal cannot be told, nothing may be promised anew
        take()
    if not os.path.lexists(name):
        resource.prlimit(living.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        take()
    living.kill()
    assert "f" in keys(s3, bucket)
    living.start()
    assert os.path.lexists(name)
    assert "f" in keys(s3, bucket)


def test_a_server_away_for_a_while_gets_the_removals_later(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    fill(s3, bucket, [f"d/f{n:02}" for n in range(30)])
    living = mount(url=proxy.url, retries=1, retry_timeout=1)
    living.forgive("removals are not delivered yet")
    os.listdir(living.path / "d")
    proxy.intercept = lambda method, target: answer(503, "SlowDown") if method == "POST" else None
    remove_all(living.path / "d")
    wait_for(lambda: "removals are not delivered yet" in living.log(), 20, "a warning")
    assert len(keys(s3, bucket) - {"d/"}) == 30 - len(deleted_alone(proxy)) > 0
    proxy.intercept = None
    wait_for(lambda: keys(s3, bucket) <= {"d/"}, 20, "the delivery of the removals")


def test_what_the_server_refuses_to_delete_comes_back(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    fill(s3, bucket, [f"d/f{n:02}" for n in range(10)])
    errors = "".join(f"<Error><Key>d/f{n:02}</Key><Code>AccessDenied</Code><Message>no</Message></Error>" for n in range(10))
    body = f"<DeleteResult>{errors}</DeleteResult>".encode()
    refusal = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nContent-Type: application/xml\r\n\r\n" % len(body) + body
    living = mount(url=proxy.url)
    living.forgive("was removed, but the server refuses to delete it")
    first, *others = os.listdir(living.path / "d")

    def refuse(method: str, target: str) -> bytes | None:
        if method == "DELETE" and "/d/f" in target and not target.endswith(first):
            return answer(403, "AccessDenied")  # a single one is no row
        return refusal if method == "POST" else None

    proxy.intercept = refuse
    (living.path / "d" / first).unlink()
    gathered = []
    for name in others:
        try:
            (living.path / "d" / name).unlink()
            gathered.append(name)
        except PermissionError:  # on a busy machine it came too late for the row: it was told at once
            pass
    assert gathered
    told = "was removed, but the server refuses to delete it (AccessDenied "
    wait_for(lambda: living.log().count(told) == len(gathered), 10, "the refusals")
    assert os.listdir(living.path / "d") == others
    assert (living.path / "d" / gathered[0]).read_text() == "old"
    proxy.intercept = None


def test_ungathered(mount: Mounting, bucket: str, s3: Any) -> None:
    fill(s3, bucket, [f"d/f{n:02}" for n in range(10)])
    living = mount(gather_deletes=False)
    os.listdir(living.path / "d")
    with living.requests() as spent:
        remove_all(living.path / "d")
        assert keys(s3, bucket) <= {"d/"}
    assert spent["delete"] == 10


def test_after_a_failed_delivery_the_caller_is_told_again(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    fill(s3, bucket, [f"d/f{n:02}" for n in range(30)])
    living = mount(url=proxy.url, retries=1, retry_timeout=1)
    living.forgive("")
    directory = living.path / "d"
    os.listdir(directory)
    proxy.intercept = lambda method, target: answer(503, "SlowDown") if method == "POST" else None
    for n in range(10):
        (directory / f"f{n:02}").unlink()
    begun = time.monotonic()
    proxy.gone = True
    proxy.reset_all()
    refused((errno.EIO, errno.ETIMEDOUT), sync_directory, directory)
    refused((errno.EIO, errno.ETIMEDOUT), (directory / "f20").unlink)
    wait_for(lambda: time.monotonic() - begun > DOUBTED + 0.5, 5, "the removals to be so old that they are looked at again")
    s3.put_object(Bucket=bucket, Key="d/f07", Body=b"made by somebody else since")
    proxy.gone, proxy.intercept = False, None
    works_again(sync_directory, directory)
    assert keys(s3, bucket) - {"d/"} == {"d/f07", *(f"d/f{n}" for n in range(10, 30))}
    assert (directory / "f20").exists()


def test_fsync_of_the_directory_tells_what_came_back(mount: Mounting, bucket: str, s3: Any, server: Any) -> None:
    if server.kind != "rgw":
        pytest.skip("needs bucket policies")
    fill(s3, bucket, [f"d/f{n:02}" for n in range(10)] + [f"d/locked/k{n}" for n in range(3)] + ["e/f"])
    denied = {"Effect": "Deny", "Principal": "*", "Action": "s3:DeleteObject", "Resource": f"arn:aws:s3:::{bucket}/d/locked/*"}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [denied]}))
    try:
        living = mount()
        living.forgive("was removed, but the server refuses to delete it")
        directory = living.path / "d"
        for n in range(10):
            (directory / f"f{n:02}").unlink()
        remove_all(directory / "locked")
        sync_directory(living.path / "e")
        refused(errno.EACCES, sync_directory, directory)
        sync_directory(directory)
        assert sorted(os.listdir(directory / "locked")) == ["k0", "k1", "k2"]
        refused(errno.EACCES, (directory / "locked" / "k0").unlink)
    finally:
        s3.delete_bucket_policy(Bucket=bucket)
    run("rm", "-r", directory)
    living.stop()
    assert keys(s3, bucket) == {"e/f"}


def test_what_is_being_written_is_not_lost_with_a_removal_that_is_refused(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    fill(s3, bucket, [f"d/f{n:02}" for n in range(10)] + ["d/locked"])
    living = mount(url=proxy.url)
    living.forgive("locked")
    directory = living.path / "d"
    os.listdir(directory)
    errors = b"<Error><Key>d/locked</Key><Code>AccessDenied</Code><Message>no</Message></Error>"
    partly = b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n" % (len(errors) + 31)

    def refuse(method: str, target: str) -> bytes | None:
        if method == "DELETE" and target.endswith("/d/locked"):
            return answer(403, "AccessDenied")
        return partly + b"<DeleteResult>" + errors + b"</DeleteResult>  " if method == "POST" else None

    with (directory / "locked").open("r+b", buffering=0) as file:
        file.truncate(0)
        file.write(b"being written")
        proxy.intercept = refuse
        for n in range(10):
            (directory / f"f{n:02}").unlink()
        refused(errno.EACCES, (directory / "locked").unlink)
        proxy.intercept = None
        file.write(b", and more")
    assert s3.get_object(Bucket=bucket, Key="d/locked")["Body"].read() == b"being written, and more"
    assert (directory / "locked").read_bytes() == b"being written, and more"
