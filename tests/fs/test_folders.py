"""Directories that only others' keys make, on servers that keep them as folders of their own when the last key below is gone."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.fs.mounting import Mount, wait_for
from tests.fs.running import run
from tests.proxy import Proxy, answer
from zosfs.fs.removals import ROW

Mounting = Callable[..., Mount]


def directories(s3: Any, bucket: str, prefix: str = "") -> set[str]:
    """The directories that anybody is shown who lists one after the other."""
    page = s3.list_objects(Bucket=bucket, Prefix=prefix, Delimiter="/")
    here = {below["Prefix"] for below in page.get("CommonPrefixes", [])}
    return here.union(*(directories(s3, bucket, below) for below in here))


def test_nothing_stays_of_a_renamed_directory_without_markers(mount: Mounting, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="old/a/b/f", Body=b"x")
    living = mount()
    os.rename(living.path / "old", living.path / "new")
    living.again()
    assert os.listdir(living.path) == ["new"]
    os.rename(living.path / "new", living.path / "old")
    assert (living.path / "old/a/b/f").read_bytes() == b"x"


def test_nothing_stays_of_a_removed_directory_without_markers(mount: Mounting, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="old/a/b/f", Body=b"x")
    living = mount()
    run("rm", "-r", living.path / "old")
    living.again()
    assert os.listdir(living.path) == []


def test_nothing_stays_of_a_directory_renamed_in_a_row_of_removals(mount: Mounting, bucket: str) -> None:
    """What was removed below it is gathered: the server keeps a folder that is to go before that has gone."""
    living = mount()
    old = living.path / "old"
    old.mkdir()
    for name in "abcd":
        (old / name).write_bytes(b"x")
    for name in "abc":
        (old / name).unlink()
    assert living.counters()["gathered_deletes"] == 2
    os.rename(old, living.path / "new")
    old.write_bytes(b"a file in its place")
    assert old.read_bytes() == b"a file in its place"
    old.unlink()
    living.again()
    assert os.listdir(living.path) == ["new"]
    assert os.listdir(living.path / "new") == ["d"]


def test_nothing_stays_of_directories_removed_in_a_row(mount: Mounting, bucket: str) -> None:
    living = mount()
    for name in "abc":
        (living.path / name).mkdir()
    for name in "abc":
        (living.path / name).rmdir()
    living.again()
    assert os.listdir(living.path) == []


def test_nothing_stays_of_a_renamed_directory_that_has_names_no_document_can_carry(mount: Mounting, bucket: str) -> None:
    """They are deleted one by one, and the folder that they lie in after them."""
    living = mount()
    (living.path / "old/z\x01z").mkdir(parents=True)
    (living.path / "old/z\x01z/file").write_bytes(b"x")
    os.rename(living.path / "old", living.path / "new")
    (living.path / "old").write_bytes(b"a file in its place")
    assert (living.path / "old").read_bytes() == b"a file in its place"
    living.again()
    assert sorted(os.listdir(living.path)) == ["new", "old"]
    run("rm", "-r", living.path / "new")
    living.again()
    assert os.listdir(living.path) == ["old"]


def test_a_file_takes_the_name_of_a_directory_that_was_removed_in_a_row(mount: Mounting, bucket: str) -> None:
    living = mount()
    for marked in (True, False):
        top = living.path / f"name{marked:d}"
        (top / "below").mkdir(parents=True)
        if not marked:
            (top / "file").touch()
        shutil.rmtree(top)
        assert living.counters()["gathered_deletes"]
        top.write_bytes(b"a file in its place")
        assert top.read_bytes() == b"a file in its place"
        (living.path / "other").touch()
        (living.path / "other").unlink()
        top.unlink()
        (top / "below").mkdir(parents=True)
        assert os.listdir(top) == ["below"]
    living.again()
    assert sorted(os.listdir(living.path)) == ["name0", "name1"]
    assert os.listdir(living.path / "name0") == os.listdir(living.path / "name1") == ["below"]


def test_nothing_stays_of_a_directory_whose_files_were_open_when_it_was_removed(mount: Mounting, bucket: str, s3: Any) -> None:
    """Their objects, which their holders read, lay in it until they were closed."""
    s3.put_object(Bucket=bucket, Key="a/b/file", Body=b"x" * 5000)
    s3.put_object(Bucket=bucket, Key="c/b/file", Body=b"x" * 5000)
    living = mount()
    with (living.path / "a/b/file").open("rb") as one, (living.path / "c/b/file").open("rb") as other:
        shutil.rmtree(living.path / "a")
        shutil.rmtree(living.path / "c")
        (living.path / "a").write_bytes(b"a file in its place")
        assert one.read() == other.read() == b"x" * 5000
    assert (living.path / "a").read_bytes() == b"a file in its place"
    living.again()
    assert os.listdir(living.path) == ["a"]


def test_a_directory_made_again_while_a_file_of_the_removed_one_is_open_stays(mount: Mounting, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="a/file", Body=b"x" * 5000)
    living = mount()
    with (living.path / "a/file").open("rb") as holder:
        shutil.rmtree(living.path / "a")
        (living.path / "a").mkdir()
        assert holder.read() == b"x" * 5000
    assert os.listdir(living.path / "a") == []
    living.again()
    assert os.listdir(living.path) == ["a"]
    assert os.listdir(living.path / "a") == []


def test_a_directory_takes_the_name_of_an_unlinked_file_that_is_open(mount: Mounting, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="name", Body=b"x" * 5000)
    living = mount()
    with (living.path / "name").open("rb") as holder:
        (living.path / "name").unlink()
        (living.path / "name/below").mkdir(parents=True)
        assert holder.read() == b"x" * 5000
    living.again()
    assert os.listdir(living.path / "name") == ["below"]


@pytest.mark.parametrize("posix", [True, False])
def test_nothing_is_shown_of_removed_directories_without_markers(mount: Mounting, bucket: str, s3: Any, posix: bool) -> None:
    for key in ("one/file", "many/a", "many/b", "many/c", "deep/er/a", "deep/er/b", "deep/c"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    living = mount(posix=posix)
    for name in ("one", "many", "deep"):
        assert os.listdir(living.path / name)
        shutil.rmtree(living.path / name)
    (living.path / "one").write_bytes(b"a file in its place")
    assert (living.path / "one").read_bytes() == b"a file in its place"
    living.stop()
    assert directories(s3, bucket) == set()


def test_a_directory_goes_after_the_removals_below_it(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    """They are gathered, and on their way for longer than the row of removals lasts."""
    living = mount(url=proxy.url)
    directory = living.path / "d"
    directory.mkdir()
    for name in "abcde":
        (directory / name).write_bytes(b"x")
    proxy.intercept = lambda method, target: answer(503, "SlowDown") if method == "POST" else None
    for name in "abcde":
        (directory / name).unlink()
    ended = time.monotonic() + ROW
    wait_for(lambda: time.monotonic() > ended, ROW, "the end of the row")
    assert living.counters()["gathered_deletes"]
    with ThreadPoolExecutor() as threads:
        going = threads.submit(directory.rmdir)
        asked = len(proxy.requests)
        wait_for(lambda: going.done() or len(proxy.requests) > asked + 1, 10, "the removal to be at work")
        proxy.intercept = None
        going.result()
    living.stop()
    assert directories(s3, bucket) == set()


@pytest.mark.parametrize("posix", [True, False])
def test_a_removed_directory_stays_away_while_a_file_in_it_is_open(mount: Mounting, bucket: str, s3: Any, posix: bool) -> None:
    """The object is there until it is closed, and listings of the server show it."""
    for name in ("gone/deep", "again", "others"):
        s3.put_object(Bucket=bucket, Key=f"{name}/file.txt", Body=b"x" * 5000)
    living = mount(metadata_ttl=0, negative_ttl=0, posix=posix)
    top = living.path
    with (top / "gone/deep/file.txt").open("rb"), (top / "again/file.txt").open("rb") as holder, (top / "others/file.txt").open("rb"):
        for name in ("gone", "again", "others"):
            shutil.rmtree(top / name)
        (top / "again").mkdir()
        s3.put_object(Bucket=bucket, Key="others/new", Body=b"by somebody else")
        assert sorted(os.listdir(top)) == ["again", "others"]
        assert not (top / "gone").exists()
        assert os.listdir(top / "again") == []
        assert not (top / "again/file.txt").exists()
        assert os.listdir(top / "others") == ["new"]
        assert run("find", top, "-type", "f").split() == [str(top / "others/new")]
        assert holder.read() == b"x" * 5000
        (top / "again").rmdir()
        assert os.listdir(top) == ["others"]
    assert os.listdir(top) == ["others"]
    living.stop()
    assert directories(s3, bucket) == {"others/"}


@pytest.mark.parametrize("asked", ["listed", "by name"])
def test_an_empty_directory_that_others_make_in_a_removed_one_is_shown(mount: Mounting, bucket: str, s3: Any, asked: str) -> None:
    s3.put_object(Bucket=bucket, Key="gone/deep/file.txt", Body=b"x" * 5000)
    living = mount(metadata_ttl=0, negative_ttl=0)
    top = living.path
    with (top / "gone/deep/file.txt").open("rb"):
        shutil.rmtree(top / "gone")
        assert os.listdir(top) == []
        assert not (top / "gone").exists()
        s3.put_object(Bucket=bucket, Key="gone/theirs/", Body=b"")
        if asked == "listed":
            assert os.listdir(top) == ["gone"]
        assert (top / "gone/theirs").is_dir()
        assert os.listdir(top / "gone") == ["theirs"]
        assert os.listdir(top) == ["gone"]
    assert os.listdir(top) == ["gone"]
    assert os.listdir(top / "gone") == ["theirs"]
    living.stop()
    assert directories(s3, bucket) - {"gone/"} == {"gone/theirs/"}


def test_a_new_file_is_shown_beside_an_open_one_that_had_its_name_and_bytes(mount: Mounting, bucket: str) -> None:
    living = mount(metadata_ttl=0, negative_ttl=0, posix=False)
    lock = living.path / "lock"
    lock.touch()
    with lock.open("rb"):
        lock.unlink()
        lock.touch()
        assert os.listdir(living.path) == ["lock"]
        assert lock.exists()
    assert os.listdir(living.path) == ["lock"]


def test_after_a_crash_the_directories_of_an_open_file_go_with_it(mount: Mounting, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="a/b/file", Body=b"x" * 5000)
    s3.put_object(Bucket=bucket, Key="c/file", Body=b"x" * 5000)
    living = mount()
    (living.path / "made").mkdir()
    (living.path / "made/file").write_bytes(b"x" * 5000)
    with contextlib.ExitStack() as holders:
        for name in ("a/b/file", "c/file", "made/file"):
            holders.enter_context(contextlib.suppress(OSError))  # of a close without a daemon
            holders.callback(os.close, os.open(living.path / name, os.O_RDONLY))
        for name in ("a", "c", "made"):
            shutil.rmtree(living.path / name)
        s3.put_object(Bucket=bucket, Key="c/new", Body=b"by somebody else")
        living.kill()
    assert directories(s3, bucket) >= {"a/", "a/b/", "c/", "made/"}
    living.start()
    wait_for(lambda: directories(s3, bucket) == {"c/"}, 20, "the deletions of the earlier run")
    assert os.listdir(living.path / "c") == ["new"]


@pytest.mark.parametrize("end", ["late", "killed"])
def test_nothing_is_shown_of_directories_whose_gathered_removals_are_late(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any, end: str
) -> None:  # fmt: skip
    for key in ("a/b/1", "a/b/2", "a/c/1", "a/2", "stays/1", "stays/2"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    living = mount(url=proxy.url, posix=False, patched="import zosfs.store.gathering; zosfs.store.gathering.DOUBTED = 0.0")
    run("find", living.path)
    proxy.intercept = lambda method, target: answer(503, "SlowDown") if method == "POST" else None
    for name in ("1", "2"):
        (living.path / "stays" / name).unlink()
    (living.path / "stays").rmdir()
    s3.put_object(Bucket=bucket, Key="stays/new", Body=b"by somebody else")
    with ThreadPoolExecutor() as threads:
        going = threads.submit(shutil.rmtree, living.path / "a")
        wait_for(lambda: going.done() or ("POST", f"/{bucket}?delete=") in proxy.requests, 10, "a delivery to be tried")
        if end == "killed":
            living.kill()
        proxy.intercept = None
        with contextlib.suppress(OSError):
            going.result()
    if end == "killed":
        living.start()
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(living.path / "a")
    living.stop()
    assert directories(s3, bucket) == {"stays/"}


def test_a_directory_that_is_removed_while_it_gets_its_marker_stays_away(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    """It was emptied a moment ago, and its marker is on its way to the server."""
    s3.put_object(Bucket=bucket, Key="d/file", Body=b"x")
    living = mount(url=proxy.url)
    os.listdir(living.path / "d")
    proxy.hold = lambda target: 0 if target.partition("?")[0].endswith("/d/") else None
    (living.path / "d/file").unlink()
    wait_for(lambda: proxy.held, 10, "the marker to be at the server")
    with ThreadPoolExecutor() as threads:
        going = threads.submit((living.path / "d").rmdir)
        concurrent.futures.wait([going], 1)  # it must not be done before the marker is
        proxy.hold = lambda target: None
        going.result()
    living.again()
    assert os.listdir(living.path) == []
    assert directories(s3, bucket) == set()


def test_a_removed_directory_does_not_come_back_with_an_attribute(mount: Mounting, bucket: str, s3: Any) -> None:
    living = mount()
    (living.path / "d").mkdir()
    fd = os.open(living.path / "d", os.O_RDONLY)
    (living.path / "d").rmdir()
    with contextlib.suppress(OSError):
        os.setxattr(fd, "user.mine", b"value")
    with contextlib.suppress(OSError):
        os.fchmod(fd, 0o700)
    os.close(fd)
    assert directories(s3, bucket) == set()
