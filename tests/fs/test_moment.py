"""`-o at=TIME`: a bucket as it was, through the kernel, on a real versioned bucket."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.admin.running import inside
from tests.fs.conftest import client
from tests.fs.mounting import Mount, passwd_file, zosfs
from tests.fs.running import run

Mounting = Callable[..., Mount]
pytestmark = pytest.mark.parametrize("server", ["rgw"], indirect=True)


@pytest.fixture
def versioned(rgw: Any) -> Iterator[tuple[Any, str]]:
    """A client and a bucket with versioning."""
    s3, bucket = client(rgw), f"zosfs-fs-past-{os.getpid()}"
    s3.create_bucket(Bucket=bucket)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    yield s3, bucket
    while True:
        page = s3.list_object_versions(Bucket=bucket)
        rows = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
        if not rows:
            break
        s3.delete_objects(
            Bucket=bucket, Delete={"Objects": [{"Key": row["Key"], "VersionId": row["VersionId"]} for row in rows[:1000]], "Quiet": True}
        )
    s3.delete_bucket(Bucket=bucket)


def moment_between() -> str:
    """A time that is later than all that was done and earlier than all that will be."""
    time.sleep(0.05)  # servers tell milliseconds
    now = datetime.now(UTC).isoformat()
    time.sleep(0.05)
    return now


def test_the_bucket_as_it_was(mount: Mounting, rgw: Any, versioned: tuple[Any, str]) -> None:
    s3, bucket = versioned

    def put(key: str, body: str, **metadata: str) -> None:
        s3.put_object(Bucket=bucket, Key=key, Body=body.encode(), Metadata=metadata)

    put("changed", "old words", mode=str(0o100640))
    put("d/e/deleted", "brought back")
    put("a-b", "sorts before a/")
    put("a/f", "in a")
    for n in range(12):
        put(f"many/sub{n:02}/f", str(n))
    put("gone-and-back", "first")
    s3.delete_object(Bucket=bucket, Key="gone-and-back")
    then = moment_between()
    put("changed", "new words, longer")
    s3.delete_object(Bucket=bucket, Key="d/e/deleted")
    put("later/new", "x")
    put("gone-and-back", "second")
    s3.delete_object(Bucket=bucket, Key="many/sub07/f")

    living = mount(bucket, server=rgw, at=then)
    names = run("find", living.path, "-type", "f", "-printf", "%P\\n").split()
    assert sorted(names) == sorted(["changed", "d/e/deleted", "a-b", "a/f", *(f"many/sub{n:02}/f" for n in range(12))])
    assert sorted(os.listdir(living.path)) == ["a", "a-b", "changed", "d", "many"]
    assert (living.path / "changed").read_text() == "old words"
    assert (living.path / "changed").stat().st_mode & 0o777 == 0o640
    assert (living.path / "d" / "e" / "deleted").read_text() == "brought back"
    assert not (living.path / "later").exists()
    assert not (living.path / "gone-and-back").exists()
    for attempt in (
        lambda: (living.path / "changed").write_text("x"), lambda: (living.path / "changed").unlink(),
        lambda: (living.path / "new").mkdir(), lambda: (living.path / "changed").chmod(0o600),
    ):  # fmt: skip
        with pytest.raises(OSError, match="Read-only") as caught:
            attempt()
        assert caught.value.errno == errno.EROFS
    living.stop()
    assert not [name for name in os.listdir(living.cache_dir) if name.startswith("at-")], "nothing is left of it"

    now = mount(bucket, server=rgw)
    assert (now.path / "changed").read_text() == "new words, longer"
    run("cp", "-a", living.path, now.path / "unmounted")  # an ordinary directory again


def test_what_a_killed_view_leaves_goes_with_the_next_mount(mount: Mounting, rgw: Any, versioned: tuple[Any, str]) -> None:
    s3, bucket = versioned
    s3.put_object(Bucket=bucket, Key="f", Body=b"x")
    then = moment_between()
    killed = mount(bucket, server=rgw, at=then)
    assert (killed.path / "f").read_bytes() == b"x"
    killed.kill()

    def left() -> list[str]:
        return [name for name in os.listdir(killed.cache_dir) if name.startswith("at-")]

    assert len(left()) == 1
    view = mount(bucket, server=rgw, at=then, cache_dir=killed.cache_dir)
    assert len(left()) == 1, "its own"
    plain = mount(bucket, server=rgw, cache_dir=killed.cache_dir)
    assert len(left()) == 1, "that of a living view stays"
    assert (view.path / "f").read_bytes() == b"x"
    assert (plain.path / "f").read_bytes() == b"x"
    view.stop()
    assert left() == []


def test_versions_of_a_key_over_many_pages(mount: Mounting, rgw: Any, versioned: tuple[Any, str]) -> None:
    s3, bucket = versioned
    for n in range(5):
        s3.put_object(Bucket=bucket, Key="often", Body=str(n).encode())
    then = moment_between()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: s3.put_object(Bucket=bucket, Key="often", Body=b"later"), range(33)))
    s3.put_object(Bucket=bucket, Key="other", Body=b"later")
    living = mount(bucket, server=rgw, at=then, patched="import zosfs.admin.versions; zosfs.admin.versions.PAGE = 30")
    assert os.listdir(living.path) == ["often"]
    assert (living.path / "often").read_text() == "4"


def test_older_versions_beside_the_current_one(mount: Mounting, rgw: Any, versioned: tuple[Any, str]) -> None:
    s3, bucket = versioned
    ids = [s3.put_object(Bucket=bucket, Key="d/report.txt", Body=f"version {n}".encode())["VersionId"] for n in range(3)]
    gone = s3.put_object(Bucket=bucket, Key="d/deleted", Body=b"once")["VersionId"]
    s3.delete_object(Bucket=bucket, Key="d/deleted")
    s3.put_object(Bucket=bucket, Key="d/at@sign", Body=b"a name like any other")
    living = mount(bucket, server=rgw, versions=True)
    directory = living.path / "d"
    expected = {"report.txt", f"report.txt@{ids[0]}", f"report.txt@{ids[1]}", f"deleted@{gone}", "at@sign"}
    assert set(os.listdir(directory)) == expected
    assert (directory / "report.txt").read_text() == "version 2"
    for n in (0, 1):
        assert (directory / f"report.txt@{ids[n]}").read_text() == f"version {n}"
    assert (directory / "at@sign").read_text() == "a name like any other"
    run("cp", directory / f"deleted@{gone}", directory / "deleted")
    assert s3.get_object(Bucket=bucket, Key="d/deleted")["Body"].read() == b"once"
    with pytest.raises(OSError, match="Read-only") as caught:
        (directory / f"report.txt@{ids[0]}").chmod(0o600)
    assert caught.value.errno == errno.EROFS
    (directory / f"report.txt@{ids[0]}").unlink()
    left = [row["VersionId"] for row in s3.list_object_versions(Bucket=bucket, Prefix="d/report.txt")["Versions"]]
    assert left == [ids[2], ids[1]], "removed for good"
    assert not (directory / "report.txt@nonsense").exists()
    again = mount(bucket, server=rgw, versions=True)
    assert (again.path / "d" / f"report.txt@{ids[1]}").read_text() == "version 1", "found without a listing, too"


def test_own_changes_show_their_older_versions_at_once(mount: Mounting, rgw: Any, versioned: tuple[Any, str]) -> None:
    s3, bucket = versioned
    first = s3.put_object(Bucket=bucket, Key="d/f", Body=b"one")["VersionId"]
    gone = s3.put_object(Bucket=bucket, Key="d/gone", Body=b"gone")["VersionId"]
    s3.put_object(Bucket=bucket, Key="d/other", Body=b"")
    living = mount(bucket, server=rgw, versions=True, metadata_ttl=600)
    directory = living.path / "d"
    assert set(os.listdir(directory)) == {"f", "gone", "other"}
    (directory / "f").write_bytes(b"two")
    assert set(os.listdir(directory)) == {"f", f"f@{first}", "gone", "other"}
    assert (directory / f"f@{first}").read_bytes() == b"one"
    (directory / "other").unlink()
    (directory / "gone").unlink()  # the second of a row is promised, not sent
    assert f"gone@{gone}" in os.listdir(directory)
    run("cp", directory / f"gone@{gone}", directory / "gone")
    assert (directory / "gone").read_bytes() == b"gone"


def test_a_deleted_file_is_brought_back_by_one_command(mount: Mounting, rgw: Any, versioned: tuple[Any, str]) -> None:
    s3, bucket = versioned
    s3.put_object(Bucket=bucket, Key="d/report", Body=b"the words", Metadata={"mode": str(0o100640)}, Tagging="a=b")
    s3.put_object(Bucket=bucket, Key="d/other", Body=b"")
    living = mount(bucket, server=rgw, metadata_ttl=600)
    path = living.path / "d" / "report"
    (living.path / "d" / "other").unlink()
    path.unlink()
    assert not path.exists()
    inside(rgw)("versions", "restore", path)
    assert path.read_bytes() == b"the words"
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.getxattr(path, "user.zos.tag.a") == b"b"
    with path.open("w") as file:  # what is written and not delivered yet is a version, too, before versions are listed
        file.write("other words")
        file.flush()
        listed = json.loads(inside(rgw)("versions", path, "--json").stdout)
    assert listed[0]["size"] == len("other words")
    inside(rgw)("versions", "restore", path, listed[-1]["id"])
    assert path.read_bytes() == b"the words"


def test_refused_in_one_line(mount: Mounting, rgw: Any, bucket: str, tmp_path: Any) -> None:
    point = tmp_path / "point"
    point.mkdir()
    words = ("-o", f"url={rgw.url},passwd_file={passwd_file(tmp_path, rgw)}")
    s3 = client(rgw)
    s3.create_bucket(Bucket=f"{bucket}-plain")
    try:
        for source, at, line in (
            (f"{bucket}-plain", "1h", "keeps no versions"), ("zos:", "1h", "one bucket"), (bucket, "tomorrow", "not a time"),
            (bucket, "2999-01-01", "is not past"),
        ):  # fmt: skip
            done = zosfs(source, point, *words, "-o", f"at={at}")
            assert done.returncode == 32 or done.returncode == 1
            assert line in done.stderr
            assert done.stderr.count("\n") == 1
    finally:
        s3.delete_bucket(Bucket=f"{bucket}-plain")
