"""Tags and ACLs as `getfattr -d -m -` shows them, against what boto3 sets and sees on Ceph."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.admin.test_objects import TAGS
from tests.fs.mounting import Mount
from tests.fs.running import refused
from tests.proxy import Proxy

GROUPS = ("http://acs.amazonaws.com/groups/global/AllUsers", "http://acs.amazonaws.com/groups/global/AuthenticatedUsers")
WORDS = ("READ", "WRITE", "READ_ACP", "WRITE_ACP", "FULL_CONTROL")
GRANTS = st.sets(st.tuples(st.sampled_from(GROUPS), st.sampled_from(WORDS)), max_size=4)


def dumped(path: Path) -> dict[str, str]:
    """What getfattr -d -m - shows of *path*."""
    said = subprocess.run(["getfattr", "-d", "-m", "-", "-e", "hex", path], capture_output=True, check=True).stdout
    pairs = (line.split(b"=0x", 1) for line in said.split(b"\n") if b"=0x" in line)
    return {_unescaped(name): bytes.fromhex(value.decode()).decode() for name, value in pairs}


def _unescaped(name: bytes) -> str:
    return re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), name).decode()


def granted(acl: dict[str, Any]) -> set[tuple[str, str]]:
    return {(grant["Grantee"].get("URI") or "owner", grant["Permission"]) for grant in acl["Grants"]}


def both_ways(s3: Any, bucket: str, living: Mount, tags: dict[str, str], grants: set[tuple[str, str]]) -> None:
    """What boto3 sets, getfattr shows; what setfattr sets from that dump, boto3 sees."""
    path = living.path / "f"
    owner = s3.get_object_acl(Bucket=bucket, Key="f")["Owner"]
    rows = [{"Grantee": {"Type": "Group", "URI": uri}, "Permission": word} for uri, word in sorted(grants)]
    rows.append({"Grantee": {"Type": "CanonicalUser", "ID": owner["ID"]}, "Permission": "FULL_CONTROL"})
    s3.put_object_tagging(Bucket=bucket, Key="f", Tagging={"TagSet": [{"Key": k, "Value": v} for k, v in tags.items()]})
    s3.put_object_acl(Bucket=bucket, Key="f", AccessControlPolicy={"Owner": owner, "Grants": rows})
    os.stat(path)
    shown = dumped(path)
    assert granted(json.loads(shown.pop("user.zos.acl"))) == granted({"Grants": rows})
    assert shown == {f"user.zos.tag.{key}": value for key, value in tags.items()}
    if tags:
        assert json.loads(os.getxattr(path, "user.zos.tags")) == tags

    dump = subprocess.run(["getfattr", "--absolute-names", "-d", "-m", "-", path], capture_output=True, check=True).stdout
    s3.put_object_tagging(Bucket=bucket, Key="f", Tagging={"TagSet": []})
    s3.put_object_acl(Bucket=bucket, Key="f", ACL="private")
    subprocess.run(["setfattr", "--restore=-"], input=dump, check=True, capture_output=True)
    assert {tag["Key"]: tag["Value"] for tag in s3.get_object_tagging(Bucket=bucket, Key="f").get("TagSet", [])} == tags
    assert granted(s3.get_object_acl(Bucket=bucket, Key="f")) == granted({"Grants": rows})
    os.setxattr(path, "user.zos.tags", json.dumps({"only": "this"}).encode())
    os.setxattr(path, "user.zos.acl", json.dumps({"Owner": owner, "Grants": rows[-1:]}).encode())
    assert s3.get_object_tagging(Bucket=bucket, Key="f")["TagSet"] == [{"Key": "only", "Value": "this"}]
    assert granted(s3.get_object_acl(Bucket=bucket, Key="f")) == granted({"Grants": rows[-1:]})


@pytest.fixture
def living(s3: Any, rgw: Any, bucket: str, mount: Callable[..., Mount]) -> Mount:
    """A mount on Ceph with a file `f`."""
    if s3.meta.endpoint_url != rgw.url:
        pytest.skip("ACLs are Ceph's")
    living = mount(metadata_ttl=0)
    (living.path / "f").write_bytes(b"bytes")
    return living


def test_some_tag_sets_and_acls(s3: Any, bucket: str, living: Mount) -> None:
    _many(s3, bucket, living, 5)


@pytest.mark.long
def test_two_hundred_tag_sets_and_acls(s3: Any, bucket: str, living: Mount) -> None:
    _many(s3, bucket, living, 200)


def _many(s3: Any, bucket: str, living: Mount, examples: int) -> None:
    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(tags=TAGS, grants=GRANTS)
    def run(tags: dict[str, str], grants: set[tuple[str, str]]) -> None:
        both_ways(s3, bucket, living, tags, grants)

    run()


def test_what_is_half_written_is_shown_to_nobody_because_somebody_sees_to_tags_and_acl(s3: Any, bucket: str, living: Mount) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=b"as it was", Tagging="team=blue")
    path, made = living.path / "f", living.path / "made"
    owner = s3.get_object_acl(Bucket=bucket, Key="f")["Owner"]
    rows = [
        {"Grantee": {"Type": "Group", "URI": GROUPS[0]}, "Permission": "READ"},
        {"Grantee": {"Type": "CanonicalUser", "ID": owner["ID"]}, "Permission": "FULL_CONTROL"},
    ]
    with path.open("wb", buffering=0) as f, made.open("wb", buffering=0) as new:
        f.write(b"half ")
        new.write(b"half")
        assert json.loads(os.getxattr(path, "user.zos.tags")) == {"team": "blue"}
        refused(errno.ENODATA, os.getxattr, made, "user.zos.tags")
        os.setxattr(path, "user.zos.tag.cost", b"low")
        os.setxattr(path, "user.zos.acl", json.dumps({"Owner": owner, "Grants": rows}).encode())
        os.removexattr(path, "user.zos.tag.team")
        assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"as it was"
        assert [each["Key"] for each in s3.list_objects(Bucket=bucket)["Contents"]] == ["f"]
        f.write(b"and half")
    assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"half and half"
    assert s3.get_object_tagging(Bucket=bucket, Key="f")["TagSet"] == [{"Key": "cost", "Value": "low"}]
    assert granted(s3.get_object_acl(Bucket=bucket, Key="f")) == granted({"Grants": rows})


def test_a_dump_shows_them_and_ls_asks_for_none(s3: Any, bucket: str, living: Mount, tmp_path: Path) -> None:
    path = living.path / "f"
    s3.put_object_tagging(Bucket=bucket, Key="f", Tagging={"TagSet": [{"Key": "team", "Value": "blue"}]})
    s3.put_object_acl(Bucket=bucket, Key="f", ACL="public-read")
    living.again()
    with living.requests() as spent:
        subprocess.run(["ls", "-la", living.path], check=True, capture_output=True)
    assert not set(spent) - {"list", "head"}, spent
    shown = dumped(path)
    assert shown["user.zos.tag.team"] == "blue"
    assert (GROUPS[0], "READ") in granted(json.loads(shown["user.zos.acl"]))
    for command in (["cp", "-a", path, living.path / "g"], ["rsync", "-aX", path, living.path / "h"]):
        subprocess.run(command, check=True, capture_output=True)
    assert (GROUPS[0], "READ") in granted(s3.get_object_acl(Bucket=bucket, Key="g"))  # rsync renames, which is another matter
    for name in ("g", "h"):
        assert s3.get_object_tagging(Bucket=bucket, Key=name)["TagSet"] == [{"Key": "team", "Value": "blue"}]
    said = subprocess.run(["cp", "-a", path, tmp_path / "out"], check=True, capture_output=True, text=True)
    assert not said.stderr


@pytest.mark.parametrize("change", ["chmod", "append", "both"])
def test_tags_of_a_log_survive_what_is_done_to_it(
    s3: Any, rgw: Any, bucket: str, mount: Callable[..., Mount], change: str
) -> None:
    if s3.meta.endpoint_url != rgw.url:
        pytest.skip("append uploads are Ceph's")
    path = mount().path / "f"
    for name in ("first", "second"):
        with path.open("a") as file:
            file.write(f"{name}\n")
    head = s3.head_object(Bucket=bucket, Key="f")
    assert head["ResponseMetadata"]["HTTPHeaders"]["x-rgw-object-type"] == "Appendable"
    os.setxattr(path, "user.zos.tag.team", b"blue")
    for word in ("third", "fourth"):
        if change != "append":
            path.chmod(0o600)
        if change != "chmod":
            with path.open("a") as file:
                file.write(f"{word}\n")
    head = s3.head_object(Bucket=bucket, Key="f")
    assert head["ResponseMetadata"]["HTTPHeaders"]["x-rgw-object-type"] == "Appendable"
    assert s3.get_object_tagging(Bucket=bucket, Key="f")["TagSet"] == [{"Key": "team", "Value": "blue"}]


def test_an_empty_log_that_is_emptied_stays_one(s3: Any, rgw: Any, bucket: str, mount: Callable[..., Mount]) -> None:
    if s3.meta.endpoint_url != rgw.url:
        pytest.skip("append uploads are Ceph's")
    path = mount().path / "f"
    path.open("a").close()
    os.setxattr(path, "user.zos.tag.team", b"blue")
    path.write_bytes(b"")
    path.chmod(0o600)
    with path.open("a") as file:
        file.write("first\n")
    head = s3.head_object(Bucket=bucket, Key="f")
    assert head["ResponseMetadata"]["HTTPHeaders"]["x-rgw-object-type"] == "Appendable"
    assert int(head["Metadata"]["mode"]) & 0o7777 == 0o600
    assert s3.get_object_tagging(Bucket=bucket, Key="f")["TagSet"] == [{"Key": "team", "Value": "blue"}]
    assert path.read_text() == "first\n"


def test_who_overwrites_a_file_waits_once_for_what_it_has(proxy: Proxy, mount: Callable[..., Mount], bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="d/f", Body=b"old" * 2000)
    living = mount(url=proxy.url)
    assert os.stat(living.path / "d/f").st_size == 6000

    def until_asked_for_its_acl(target: str) -> int | None:
        return 0 if target == f"/{bucket}/d/f" and ("GET", f"/{bucket}/d/f?acl=") not in proxy.requests else None

    proxy.hold = until_asked_for_its_acl
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit((living.path / "d/f").write_bytes, b"new")
        done, _ = wait([writing], timeout=10)
        proxy.hold = lambda target: None
        writing.result()
    assert done, "the file's facts and its ACL are asked for at the same time"
    assert s3.get_object(Bucket=bucket, Key="d/f")["Body"].read() == b"new"
    assert proxy.requests.count(("GET", f"/{bucket}/d/f?acl=")) == 1


@pytest.mark.parametrize("how", ["removed", "renamed over", "replaced by another host"])
def test_what_is_set_on_a_file_without_a_name_is_not_set_on_another(mount: Callable[..., Mount], bucket: str, s3: Any, how: str) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=b"old" * 2000)
    living = mount()
    path = living.path / "f"
    with path.open("rb") as f:
        assert f.read(3) == b"old"
        if how == "removed":
            path.unlink()
            path.write_bytes(b"new")
        elif how == "renamed over":
            (living.path / "g").write_bytes(b"new")
            (living.path / "g").rename(path)
        else:
            s3.put_object(Bucket=bucket, Key="f", Body=b"new")
            assert path.read_bytes() == b"new"
        with pytest.raises(OSError, match=r"No data|Stale"):
            os.setxattr(f.fileno(), "user.zos.tag.a", b"b")
        with pytest.raises(OSError, match=r"No data|Stale"):
            os.removexattr(f.fileno(), "user.zos.tags")
    assert s3.get_object_tagging(Bucket=bucket, Key="f")["TagSet"] == []
    os.setxattr(path, "user.zos.tag.a", b"b")
    assert s3.get_object_tagging(Bucket=bucket, Key="f")["TagSet"] == [{"Key": "a", "Value": "b"}]
