"""`zosfs cp`: on both servers, from and to addresses and paths on a mount; nothing that an object has is lost."""

from __future__ import annotations

import itertools
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.admin.conftest import client, fresh
from tests.admin.running import Command, inside
from tests.fs.mounting import ROOT, Mount, clean_environment
from tests.servers.server import Server
from zosfs.admin.copies import How, acl_for, copy_below, copy_object, part_ranges
from zosfs.errors import StoreError
from zosfs.store.api import ObjectHeaders

MIB = 1 << 20


def filled(s3: Any, bucket: str, key: str, body: bytes = b"content", **more: Any) -> None:
    """Put an object that has everything."""
    s3.put_object(
        Bucket=bucket, Key=key, Body=body, Metadata={"mode": "33152", "team": "blue"}, ContentType="text/x-try",
        ContentDisposition="inline", CacheControl="no-store", Tagging="a=b&c=d", **more,
    )  # fmt: skip


def all_of(s3: Any, bucket: str, key: str) -> dict[str, Any]:
    """All that an object has."""
    got = s3.get_object(Bucket=bucket, Key=key)
    tags = {tag["Key"]: tag["Value"] for tag in s3.get_object_tagging(Bucket=bucket, Key=key).get("TagSet", [])}
    names = ("Metadata", "ContentType", "ContentDisposition", "CacheControl")
    return {"body": got["Body"].read(), "tags": tags, **{name: got.get(name) for name in names}}


@pytest.fixture
def other(server: Server) -> Any:
    """A second bucket of the server."""
    yield from fresh(client(server))


def test_a_file_to_another_bucket_with_all_it_has(commands: Command, server: Server, bucket: str, other: str) -> None:
    s3 = client(server)
    filled(s3, bucket, "d/ä b+c.txt")
    commands("cp", f"zos://{bucket}/d/ä b+c.txt", f"zos://{other}/new/name")
    assert all_of(s3, other, "new/name") == all_of(s3, bucket, "d/ä b+c.txt")
    commands("cp", f"zos://{bucket}/d/ä b+c.txt", f"zos://{other}/new/")
    commands("cp", f"zos://{bucket}/d/ä b+c.txt", f"zos://{other}/new")  # a directory now
    assert all_of(s3, other, "new/ä b+c.txt")["body"] == b"content"


def test_a_public_file_stays_public(rgw: Server, rgw_bucket: str) -> None:
    s3, commands = client(rgw), inside(rgw)
    filled(s3, rgw_bucket, "k", ACL="public-read")
    commands("cp", f"zos://{rgw_bucket}/k", f"zos://{rgw_bucket}/l")
    commands("cp", "--no-acl", f"zos://{rgw_bucket}/k", f"zos://{rgw_bucket}/m")
    grants = {key: s3.get_object_acl(Bucket=rgw_bucket, Key=key)["Grants"] for key in "klm"}
    assert grants["l"] == grants["k"]
    assert len(grants["k"]) == 2
    assert len(grants["m"]) == 1


def test_directories(commands: Command, server: Server, bucket: str, other: str) -> None:
    s3 = client(server)
    keys = ["d/", "d/a", "d/e/b", "d/e/f/c", "de"]
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode() if not key.endswith("/") else b"")

    def below(name: str) -> list[str]:
        return [row["Key"] for row in s3.list_objects_v2(Bucket=name).get("Contents", [])]

    assert "-r copies it" in commands("cp", f"zos://{bucket}/d", f"zos://{other}/x", status=1).stderr
    assert below(other) == []
    said = json.loads(commands("cp", "-r", "--json", f"zos://{bucket}/d", f"zos://{other}/x").stdout)
    assert said == {"objects": 4, "bytes": 15, "left": 0, "failures": []}
    assert [key for key in below(other) if not key.endswith("/")] == ["x/a", "x/e/b", "x/e/f/c"]
    commands("cp", "-r", f"zos://{bucket}/d", f"zos://{other}/x")  # there is an x now: into it
    assert "x/d/e/f/c" in below(other)
    s3.put_object(Bucket=other, Key="x/a", Body=b"kept")
    assert json.loads(commands("cp", "-rn", "--json", f"zos://{bucket}/d/", f"zos://{other}").stdout)["objects"] == 4
    assert json.loads(commands("cp", "-rn", "--json", f"zos://{bucket}/d/", f"zos://{other}").stdout)["left"] == 4
    assert s3.get_object(Bucket=other, Key="x/a")["Body"].read() == b"kept"
    for wrong, line in (("d/in/side", "into itself"), ("d/../x", "")):
        if line:
            assert line in commands("cp", "-r", f"zos://{bucket}/d", f"zos://{bucket}/{wrong}", status=1).stderr
    assert "onto itself" in commands("cp", f"zos://{bucket}/de", f"zos://{bucket}/de", status=1).stderr
    assert "no such file" in commands("cp", "-r", f"zos://{bucket}/none", f"zos://{other}/", status=1).stderr


def test_large_objects_go_in_parts(account: Callable[..., Any], server: Server, bucket: str, other: str) -> None:
    s3 = client(server)
    body = os.urandom(13 * MIB + 5)
    filled(s3, bucket, "big", body)
    steps: list[int] = []

    async def work(account: Any) -> None:
        source, target = account.bucket(bucket), account.bucket(other)
        await copy_object(source, target, await source.head("big"), "big", How(single=5 * MIB, part=5 * MIB), steps.append)
        info = await source.head("big")
        await source.put("big", [b"x" * 6 * MIB], ObjectHeaders())
        with pytest.raises(StoreError):  # what was listed is no more what is there
            await copy_object(source, target, info, "torn", How(single=5 * MIB, part=5 * MIB))

    before = all_of(s3, bucket, "big")
    account(work)
    assert all_of(s3, other, "big") == before
    assert sorted(steps) == [3 * MIB + 5, 5 * MIB, 5 * MIB]
    assert s3.head_object(Bucket=other, Key="big")["ETag"].endswith('-3"')
    assert [row["Key"] for row in s3.list_objects_v2(Bucket=other)["Contents"]] == ["big"]
    assert not s3.list_multipart_uploads(Bucket=other).get("Uploads")


def test_both_logs_go_on_growing_after_a_copy(on_rgw: Callable[..., Any], rgw: Server, rgw_bucket: str) -> None:
    async def work(account: Any) -> None:
        store = account.bucket(rgw_bucket)
        await store.append("log", 0, [b"one\n"], ObjectHeaders({"mode": "33188"}))
        await store.put_tags("log", {"a": "b"})
        outcome = await copy_below(store, "log", store, "copy")
        assert (outcome.objects, outcome.failures) == (1, [])
        assert (await store.append("log", 4, [b"two\n"], ObjectHeaders())).next_position == 8
        assert not (await store.head("copy")).appendable
        assert (await store.head("copy")).metadata == {"mode": "33188"}
        assert await store.get_tags("copy") == {"a": "b"}

    on_rgw(work)
    assert client(rgw).get_object(Bucket=rgw_bucket, Key="copy")["Body"].read() == b"one\n"


def test_paths_on_a_mount(commands: Command, server: Server, bucket: str, other: str, tmp_path: Path) -> None:
    s3 = client(server)
    filled(s3, bucket, "given", b"by others")
    mount = Mount(tmp_path, bucket, server, {})
    try:
        (mount.path / "d").mkdir()
        (mount.path / "d" / "written").write_bytes(b"here")
        os.chmod(mount.path / "d" / "written", 0o640)
        os.symlink("written", mount.path / "d" / "link")
        assert not (mount.path / "new").exists()
        commands("cp", mount.path / "given", mount.path / "new", plain=True)
        assert (mount.path / "new").read_bytes() == b"by others"  # at once
        assert os.getxattr(mount.path / "new", "user.zos.tag.a") == b"b"
        commands("cp", "-r", mount.path / "d", f"zos://{other}/", plain=True)  # the mount's connection holds for the address
        assert sorted(row["Key"] for row in s3.list_objects_v2(Bucket=other, Prefix="d/w")["Contents"]) == ["d/written"]
        commands("cp", "-r", f"zos://{other}/d", mount.path / "e", plain=True)
        assert os.readlink(mount.path / "e" / "link") == "written"
        assert (mount.path / "e" / "written").stat().st_mode & 0o777 == 0o640
        s3.put_object(Bucket=other, Key="given", Body=b"newer")
        (mount.path / "new").unlink()
        commands("cp", f"zos://{other}/given", mount.path / "new")  # the deletion does not come afterwards
        commands("cp", f"zos://{other}/given", mount.path)
        assert (mount.path / "given").read_bytes() == b"newer"
        mount.again()
        assert (mount.path / "new").read_bytes() == b"newer"
    finally:
        mount.finish()


def test_links_pipes_and_names_that_are_no_text_on_a_mount(rgw: Server, rgw_bucket: str, tmp_path: Path) -> None:
    commands = inside(rgw)
    mount = Mount(tmp_path, rgw_bucket, rgw, {})
    odd = mount.path / os.fsdecode(b"caf\xe9")
    try:
        (mount.path / "d").mkdir()
        os.symlink("nowhere", mount.path / "d" / "link")
        os.mkfifo(mount.path / "d" / "pipe")
        odd.write_bytes(b"odd")
        commands("cp", mount.path / "d" / "link", mount.path / "link", plain=True)
        assert os.readlink(mount.path / "link") == "nowhere"
        commands("cp", mount.path / "d" / "pipe", mount.path / "pipe", plain=True)
        assert stat.S_ISFIFO(os.lstat(mount.path / "pipe").st_mode)
        assert f"/{rgw_bucket}/d/link?" in commands("presign", mount.path / "d" / "link", plain=True).stdout
        commands("cp", odd, mount.path / "d", plain=True)
        assert (mount.path / "d" / odd.name).read_bytes() == b"odd"
        commands("cp", odd, mount.path / os.fsdecode(b"th\xe9"), plain=True)  # a name that is not there yet
        assert (mount.path / os.fsdecode(b"th\xe9")).read_bytes() == b"odd"
        commands("cp", "-r", mount.path / "d", mount.path / os.fsdecode(b"d\xe9"), plain=True)
        assert (mount.path / os.fsdecode(b"d\xe9") / odd.name).read_bytes() == b"odd"
        said = commands("cp", mount.path / os.fsdecode(b"no\xe9"), mount.path / "x", plain=True, status=1).stderr
        assert "there is no such file or directory" in said
    finally:
        mount.finish()


def test_what_cannot_be_copied_is_said_and_the_rest_is_copied(rgw: Server, rgw_bucket: str) -> None:
    s3, commands = client(rgw), inside(rgw)
    for key in ("d/a", "d/b"):
        s3.put_object(Bucket=rgw_bucket, Key=key, Body=b"x")
    refused = commands("cp", "-r", f"zos://{rgw_bucket}/d", "zos://no-such-bucket-at-all/x", status=1)
    assert "the bucket does not exist" in refused.stderr
    assert "--part-size" in commands("cp", f"zos://{rgw_bucket}/d/a", "zos://b/c", "--part-size", "1M", status=1).stderr


def test_progress_is_shown_on_a_terminal(rgw: Server, rgw_bucket: str) -> None:
    import pty

    s3 = client(rgw)
    s3.put_object(Bucket=rgw_bucket, Key="d/k", Body=b"x" * 2000)
    ours, theirs = pty.openpty()
    keys = {"AWS_ACCESS_KEY_ID": rgw.access_key, "AWS_SECRET_ACCESS_KEY": rgw.secret_key, "ZOSFS_URL": rgw.url, "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-m", "zosfs", "cp", "-r", f"zos://{rgw_bucket}/d", f"zos://{rgw_bucket}/e"], cwd=ROOT, stdout=subprocess.PIPE,
        stderr=theirs, env={**clean_environment(), **keys},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert process.wait(60) == 0
    assert b"2.0/2.0 kB" in shown
    assert process.stdout is not None
    assert process.stdout.read() == b""


@given(st.integers(1, 50 << 40), st.integers(5 << 20, 5 << 30))
def test_parts_cover_all_and_are_not_too_many(size: int, part: int) -> None:
    ranges = part_ranges(size, part)
    assert len(ranges) <= 10_000
    assert ranges[0][0] == 0
    assert ranges[-1][1] == size
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(ranges))
    assert all(end - start >= part for start, end in ranges[:-1])


def test_grants_of_another_owner() -> None:
    def grant(who: str, what: str) -> dict[str, Any]:
        return {"Grantee": {"ID": who, "DisplayName": who, "Type": "CanonicalUser"}, "Permission": what}

    old = {"Owner": {"ID": "a"}, "Grants": [grant("a", "FULL_CONTROL"), grant("c", "READ")]}
    new = {"Owner": {"ID": "b", "DisplayName": "b"}, "Grants": [grant("b", "FULL_CONTROL")]}
    assert acl_for(old, new) == {"Owner": new["Owner"], "Grants": [grant("b", "FULL_CONTROL"), grant("c", "READ")]}
