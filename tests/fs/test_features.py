"""What an object has besides bytes, through the kernel on both servers, and the mount's defaults for new objects."""

from __future__ import annotations

import errno
import json
import os
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.admin.conftest import fresh as of_admin
from tests.fs.conftest import client
from tests.fs.mounting import Mount
from tests.fs.running import refused
from tests.servers.archive import Archive
from zosfs.config import Options
from zosfs.fs.headers import fresh


def test_tags_acl_and_class_of_a_file(place: Path, shared_bucket: str, s3: Any) -> None:
    path, key = place / "f", f"{place.name}/f"
    path.write_text("text")
    os.setxattr(path, "user.zos.tag.team", b"blue")
    os.setxattr(path, "user.zos.tags", '{"team": "red", "城": "市"}'.encode())
    assert {tag["Key"]: tag["Value"] for tag in s3.get_object_tagging(Bucket=shared_bucket, Key=key)["TagSet"]} == {
        "team": "red", "城": "市",
    }  # fmt: skip
    assert os.getxattr(path, "user.zos.tag.team") == b"red"
    os.removexattr(path, "user.zos.tag.team")
    assert json.loads(os.getxattr(path, "user.zos.tags")) == {"城": "市"}
    os.removexattr(path, "user.zos.tags")
    for value, number in ((b"{", errno.EINVAL), (json.dumps({str(n): "" for n in range(11)}).encode(), errno.E2BIG)):
        with pytest.raises(OSError) as caught:  # noqa: PT011  # the errno is looked at
            os.setxattr(path, "user.zos.tags", value)
        assert caught.value.errno == number
    assert "Grants" in json.loads(os.getxattr(path, "user.zos.acl"))
    assert os.getxattr(path, "user.zos.storage-class") == b"STANDARD"
    assert os.getxattr(path, "user.zos.restore") == b"not archived"
    assert os.getxattr(path, "user.zos.uri").decode() == f"zos://{shared_bucket}/{key}"
    with urllib.request.urlopen(os.getxattr(path, "user.zos.url").decode()) as answer:
        assert answer.read() == b"text"


def test_others_changes_show_when_it_is_asked_for(place: Path, shared_bucket: str, s3: Any) -> None:
    (place / "old").write_text("old")
    assert os.listdir(place) == ["old"]
    assert not (place / "new").exists()
    s3.put_object(Bucket=shared_bucket, Key=f"{place.name}/new", Body=b"new")
    assert not (place / "new").exists()  # as negative_ttl says
    os.setxattr(place, "user.zos.refresh", b"new")
    assert sorted(os.listdir(place)) == ["new", "old"]
    with pytest.raises(OSError) as caught:  # noqa: PT011
        os.setxattr(place, "user.zos.refresh", b"a/b")
    assert caught.value.errno == errno.EINVAL


def test_defaults_of_new_objects(mount: Any, bucket: str, s3: Any, server: Any) -> None:
    living: Mount = mount(acl="public-read" if server.kind == "rgw" else "", tags='"a=b&c=d e"', storage_class="STANDARD")
    (living.path / "page.html").write_text("<p>")
    (living.path / "large").write_bytes(b"x" * (40 << 20))
    for key, kind in (("page.html", "text/html"), ("large", "application/octet-stream")):
        assert s3.head_object(Bucket=bucket, Key=key)["ContentType"] == kind
        tags = s3.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
        assert {tag["Key"]: tag["Value"] for tag in tags} == {"a": "b", "c": "d e"}
        if server.kind == "rgw":
            assert len(s3.get_object_acl(Bucket=bucket, Key=key)["Grants"]) == 2


def test_encryption_asked_for_by_option() -> None:
    key = {"x-amz-server-side-encryption": "aws:kms", "x-amz-server-side-encryption-aws-kms-key-id": "k"}
    assert fresh(b"f", False, Options(sse="AES256")).extra == {"x-amz-server-side-encryption": "AES256"}
    assert fresh(b"f", False, Options(sse="aws:kms:k")).extra == key
    assert fresh(b"f", False, Options()).extra == {}


def test_encryption_is_asked_of_the_server(mount: Any, bucket: str, rgw: Any, server: Any) -> None:
    if server is not rgw:
        pytest.skip("one server says enough")
    standing = Archive(rgw)
    living: Mount = mount(server=standing.server, sse="aws:kms:the-key")
    living.forgive("its bytes are kept")
    try:
        handle = os.open(living.path / "f", os.O_WRONLY | os.O_CREAT)
        os.write(handle, b"secret")
        refused(errno.EINVAL, os.close, handle)  # this gateway has no keys, and takes none over plain HTTP
        sent = standing.headers[standing.requests.index(("PUT", f"/{bucket}/f"))]
        assert sent["x-amz-server-side-encryption"] == "aws:kms"
        assert sent["x-amz-server-side-encryption-aws-kms-key-id"] == "the-key"
        assert "x-amz-server-side-encryption" in sent["authorization"], "it is signed"
        (living.path / "f").unlink()
    finally:
        living.finish()
        standing.stop()


def test_versions_and_kinds_of_objects(rgw: Any, tmp_path: Path) -> None:
    s3 = client(rgw)
    for name in of_admin(s3):
        living = Mount(tmp_path, name, rgw, {})
        with open(living.path / "log", "ab") as log:
            log.write(b"line\n")
        (living.path / "plain").write_bytes(b"x")
        assert os.getxattr(living.path / "log", "user.zos.object-type") == b"Appendable"
        assert os.getxattr(living.path / "plain", "user.zos.object-type") == b"Normal"
        with pytest.raises(OSError) as caught:  # noqa: PT011
            os.getxattr(living.path / "plain", "user.zos.version-id")
        assert caught.value.errno == errno.ENODATA
        living.stop()
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        living.start()
        (living.path / "versioned").write_bytes(b"y")
        told = s3.head_object(Bucket=name, Key="versioned")["VersionId"]
        assert os.getxattr(living.path / "versioned", "user.zos.version-id").decode() == told
        living.finish()
