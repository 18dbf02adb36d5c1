"""Attributes that are set while a program writes the file: nobody sees half of it, and they go along with it."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.fs.mounting import Mount
from tests.fs.running import refused
from tests.fs.test_tags_and_acls import GROUPS, granted
from tests.proxy import Proxy, answer
from tests.servers.server import Server

Mounting = Callable[..., Mount]
SECOND_CLASS = "STANDARD_IA"


def tags_of(s3: Any, bucket: str, key: str) -> dict[str, str]:
    """The tags that the object has."""
    return {tag["Key"]: tag["Value"] for tag in s3.get_object_tagging(Bucket=bucket, Key=key).get("TagSet", [])}


def body(s3: Any, bucket: str, key: str) -> bytes:
    """What another client reads; b"" where there is nothing."""
    try:
        read: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError:
        return b""
    return read


@pytest.fixture
def on_ceph(server: Any) -> None:
    """Storage classes, ACLs and locks are Ceph's."""
    if server.kind != "rgw":
        pytest.skip("storage classes, ACLs and locks are Ceph's")


def test_tags_of_a_new_file(mount: Mounting, bucket: str, s3: Any) -> None:
    path = mount().path / "f"
    with path.open("wb", buffering=0) as f:
        f.write(b"half")
        os.setxattr(path, "user.zos.tags", b'{"team": "blue", "cost": "low"}')
        os.setxattr(path, "user.zos.tag.stage", b"one")
        os.removexattr(path, "user.zos.tag.cost")
        assert json.loads(os.getxattr(path, "user.zos.tags")) == {"team": "blue", "stage": "one"}
        assert set(os.listxattr(path)) >= {"user.zos.tag.team", "user.zos.tag.stage"}
        refused(errno.ENODATA, os.getxattr, path, "user.zos.tag.cost")
        refused(errno.ENODATA, os.removexattr, path, "user.zos.tag.cost")
        refused(errno.EINVAL, os.setxattr, path, "user.zos.tags", b"{")
        assert body(s3, bucket, "f") == b""
        f.write(b" and half")
    assert body(s3, bucket, "f") == b"half and half"
    assert tags_of(s3, bucket, "f") == {"team": "blue", "stage": "one"}


def test_the_storage_class_of_what_replaces_an_object_and_of_a_new_one(on_ceph: None, mount: Mounting, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=b"as it was")
    living = mount()
    for name, before in (("f", b"as it was"), ("new", b"")):
        path = living.path / name
        with path.open("wb", buffering=0) as f:
            f.write(b"half")
            os.setxattr(path, "user.zos.storage-class", SECOND_CLASS.encode())
            assert os.getxattr(path, "user.zos.storage-class") == SECOND_CLASS.encode()
            refused(errno.EINVAL, os.setxattr, path, "user.zos.storage-class", b"COLD")
            assert body(s3, bucket, name) == before
            f.write(b" and half")
        found = s3.get_object(Bucket=bucket, Key=name)
        assert (found["Body"].read(), found["StorageClass"]) == (b"half and half", SECOND_CLASS)


def test_the_storage_class_of_a_log_that_is_appended_to(on_ceph: None, mount: Mounting, bucket: str, s3: Any) -> None:
    """An append leaves the class of what is there: that moves at once, without what is being written."""
    path = mount().path / "log"
    with path.open("ab", buffering=0) as f:
        f.write(b"one\n")
    with path.open("ab", buffering=0) as f:
        f.write(b"tw")
        os.setxattr(path, "user.zos.storage-class", SECOND_CLASS.encode())
        assert body(s3, bucket, "log") == b"one\n"
        f.write(b"o\n")
    found = s3.get_object(Bucket=bucket, Key="log")
    assert (found["Body"].read(), found["StorageClass"]) == (b"one\ntwo\n", SECOND_CLASS)


@pytest.mark.parametrize("form", ["json", "words", "canned"])
def test_the_acl_of_a_new_file(on_ceph: None, mount: Mounting, bucket: str, s3: Any, form: str) -> None:
    path = mount().path / "f"
    owner = s3.get_bucket_acl(Bucket=bucket)["Owner"]
    rows = [
        {"Grantee": {"Type": "Group", "URI": GROUPS[1]}, "Permission": "READ"},
        {"Grantee": {"Type": "CanonicalUser", "ID": "another"}, "Permission": "FULL_CONTROL"},
    ]
    words = f"read=uri={GROUPS[1]} full-control=id={owner['ID']}"
    value = {"json": json.dumps({"Owner": {"ID": "another"}, "Grants": rows}), "words": words, "canned": "authenticated-read"}[form]
    with path.open("wb", buffering=0) as f:
        f.write(b"half")
        os.setxattr(path, "user.zos.acl", value.encode())
        refused(errno.EINVAL, os.setxattr, path, "user.zos.acl", b"publik")
        assert body(s3, bucket, "f") == b""
    acl = s3.get_object_acl(Bucket=bucket, Key="f")
    assert granted(acl) == {(GROUPS[1], "READ"), ("owner", "FULL_CONTROL")}
    assert [grant["Grantee"]["ID"] for grant in acl["Grants"] if "ID" in grant["Grantee"]] == [owner["ID"]]


@pytest.mark.parametrize("there", [False, True], ids=["new", "there"])
def test_a_storage_class_that_the_server_has_not_is_refused_when_it_is_set(
    on_ceph: None, mount: Mounting, bucket: str, s3: Any, there: bool
) -> None:
    """Which there are it tells nobody; one of S3's own may be missing."""
    if there:
        s3.put_object(Bucket=bucket, Key="f", Body=b"as it was")
    path = mount().path / "f"
    with path.open("wb", buffering=0) as f:
        f.write(b"half")
        refused(errno.EINVAL, os.setxattr, path, "user.zos.storage-class", b"DEEP_ARCHIVE")
        assert os.getxattr(path, "user.zos.storage-class") == b"STANDARD"
        os.setxattr(path, "user.zos.storage-class", SECOND_CLASS.encode())
        assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)
        f.write(b" and half")
    assert (body(s3, bucket, "f"), s3.head_object(Bucket=bucket, Key="f")["StorageClass"]) == (b"half and half", SECOND_CLASS)


@pytest.fixture
def guest(on_ceph: None, server: Any, s3: Any, bucket: str) -> Server:
    """The server with the keys of another user, who may write into the bucket."""
    name = f"guest{os.urandom(6).hex()}"
    subprocess.run(
        ["radosgw-admin", "user", "create", f"--uid={name}", "--display-name=guest", f"--access-key={name}", "--secret-key=secretsecret"],
        env={**os.environ, "CEPH_CONF": server.conf}, check=True, capture_output=True,
    )  # fmt: skip
    allowed = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [allowed]}))
    return dataclasses.replace(server, access_key=name, secret_key="secretsecret")


def test_the_acl_of_a_new_file_in_anothers_bucket_is_its_writers(guest: Any, mount: Mounting, bucket: str, s3: Any) -> None:
    """Which is whose the object will be, and not the bucket's owner."""
    rows = [
        {"Grantee": {"Type": "CanonicalUser", "ID": "another"}, "Permission": "FULL_CONTROL"},
        {"Grantee": {"Type": "Group", "URI": GROUPS[1]}, "Permission": "READ"},
    ]
    path = mount(server=guest).path / "f"
    with path.open("wb", buffering=0) as f:
        f.write(b"half")
        os.setxattr(path, "user.zos.acl", json.dumps({"Owner": {"ID": "another"}, "Grants": rows}).encode())
    acl = s3.get_object_acl(Bucket=bucket, Key="f")
    assert acl["Owner"]["ID"] == guest.access_key
    assert granted(acl) == {(GROUPS[1], "READ"), ("owner", "FULL_CONTROL")}
    assert [grant["Grantee"]["ID"] for grant in acl["Grants"] if "ID" in grant["Grantee"]] == [guest.access_key]
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=bucket)


@pytest.fixture
def locked(on_ceph: None, s3: Any) -> Iterator[str]:
    """A bucket with object lock."""
    name = f"zosfs-fs-{os.urandom(8).hex()}"
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    yield name
    for item in s3.list_object_versions(Bucket=name).get("Versions", []):
        version = {"Bucket": name, "Key": item["Key"], "VersionId": item["VersionId"]}
        s3.put_object_legal_hold(**version, LegalHold={"Status": "OFF"})
        s3.delete_object(**version, BypassGovernanceRetention=True)
    s3.delete_bucket(Bucket=name)


def test_locks_are_of_the_version_that_the_program_makes(locked: str, mount: Mounting, s3: Any) -> None:
    s3.put_object(Bucket=locked, Key="f", Body=b"as it was")
    living = mount(locked)
    for name, before in (("f", b"as it was"), ("new", b"")):
        path = living.path / name
        with path.open("wb", buffering=0) as f:
            f.write(b"half")
            os.setxattr(path, "user.zos.legal-hold", b"ON")
            os.setxattr(path, "user.zos.retention", b"mode=GOVERNANCE,until=2040-01-01T00:00:00Z")
            assert os.getxattr(path, "user.zos.legal-hold") == b"ON"
            assert json.loads(os.getxattr(path, "user.zos.retention"))["Mode"] == "GOVERNANCE"
            assert body(s3, locked, name) == before
        path.write_bytes(b"the next")
        versions = s3.list_object_versions(Bucket=locked, Prefix=name)["Versions"]
        holds = []
        for version in versions[:2]:
            head = s3.head_object(Bucket=locked, Key=name, VersionId=version["VersionId"])
            holds.append((version["Size"], head.get("ObjectLockLegalHoldStatus"), head.get("ObjectLockMode")))
        assert holds == [(8, None, None), (4, "ON", "GOVERNANCE")]


def test_what_cannot_be_is_said_at_once(on_ceph: None, mount: Mounting, bucket: str, s3: Any) -> None:
    path = mount().path / "f"
    with path.open("wb", buffering=0) as f:
        f.write(b"half")
        refused(errno.EINVAL, os.setxattr, path, "user.zos.legal-hold", b"ON")  # the bucket has no object lock
        refused(errno.EINVAL, os.setxattr, path, "user.zos.retention", b"mode=GOVERNANCE,days=1")
        refused(errno.ENODATA, os.setxattr, path, "user.zos.restore", b"days=1")  # there is nothing to thaw yet
        assert body(s3, bucket, "f") == b""
    assert body(s3, bucket, "f") == b"half"


def test_what_was_kept_outlives_a_killed_daemon(mount: Mounting, bucket: str, s3: Any) -> None:
    living = mount(writeback="1h")
    path = living.path / "f"
    with path.open("wb", buffering=0) as f:
        f.write(b"promised")
        os.setxattr(path, "user.zos.tag.team", b"blue")
    assert body(s3, bucket, "f") == b""
    living.kill()
    living.start()
    living.stop()
    assert body(s3, bucket, "f") == b"promised"
    assert tags_of(s3, bucket, "f") == {"team": "blue"}


def test_a_storage_class_that_the_server_refuses_is_told_by_the_close_and_can_be_taken_back(
    on_ceph: None, proxy: Proxy, mount: Mounting, bucket: str, s3: Any
) -> None:
    living = mount(url=proxy.url)
    living.forgive("ERROR zosfs.*: f")
    path: Path = living.path / "f"

    def no_such_class(method: str, target: str) -> bytes | None:
        head = proxy.heads[-1]
        return answer(400, "InvalidStorageClass") if method == "PUT" and f"x-amz-storage-class: {SECOND_CLASS.lower()}" in head else None

    proxy.intercept = no_such_class
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"whole")
    os.setxattr(path, "user.zos.storage-class", SECOND_CLASS.encode())
    refused(errno.EINVAL, os.close, fd)
    assert path.read_bytes() == b"whole"
    os.setxattr(path, "user.zos.storage-class", b"STANDARD")
    assert body(s3, bucket, "f") == b"whole"
