"""Names: any that POSIX allows can be written and come back, and any key that a bucket holds can be reached."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.fs.mounting import Mount, wait_for
from tests.fs.running import refused
from tests.proxy import Proxy

NAMES = [
    "plain", "with space", "  leading and trailing  ", "中文文件名.txt", "日本語", "emoji 🐳🎉", "100%", "%41", "%2F", "a+b",
    "a#b", "a:b", "semi;colon", "quo'te", 'dou"ble', "new\nline", "tab\tname", "back\\slash", "?query=1&x=2", "*", "[glob]",
    "~tilde", "-dash", "...", "..a", ".hidden", "a&b=c", "a,b", "<xml>&amp;", "é", "e\u0301", "x" * 255, "长" * 85,
    "$HOME", "`id`", "@{u}", "\x01\x7f",
]  # fmt: skip


def test_names_go_to_the_store_and_come_back(place: Path, shared: Mount, shared_bucket: str, s3: Any) -> None:
    for n, name in enumerate(NAMES):
        (place / name).write_text(f"{n}")
    assert sorted(os.listdir(place)) == sorted(NAMES)
    for n, name in enumerate(NAMES):
        assert (place / name).read_text() == f"{n}", name
    keys = set()
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=shared_bucket, Prefix=place.name + "/", EncodingType="url"):
        keys |= {item["Key"] for item in page.get("Contents", [])}
    if not any("%" in key for key in keys):  # some versions of boto3 decode, some do not
        assert {f"{place.name}/{name}" for name in NAMES} <= keys
    for n, name in enumerate(NAMES):
        (place / name).rename(place / f"{name[:60]} {n}")
    for n, name in enumerate(NAMES):
        os.unlink(place / f"{name[:60]} {n}")
    assert os.listdir(place) == []


def test_directories_may_have_any_name_too(place: Path) -> None:
    for name in NAMES:
        (place / name).mkdir()
        (place / name / "inner").write_text(name)
    assert sorted(os.listdir(place)) == sorted(NAMES)
    for name in NAMES:
        assert (place / name / "inner").read_text() == name
        os.unlink(place / name / "inner")
        os.rmdir(place / name)
    assert os.listdir(place) == []


def test_names_that_are_not_utf8(place: Path) -> None:
    name = os.fsencode(place) + b"/latin\xe9\xff"
    with open(name, "wb") as f:
        f.write(b"kept")
    assert os.listdir(os.fsencode(place)) == [b"latin\xe9\xff"]
    with open(name, "rb") as f:
        assert f.read() == b"kept"
    os.unlink(name)


def test_names_too_long(place: Path) -> None:
    for call in (os.mkdir, os.stat, os.mknod):
        refused(errno.ENAMETOOLONG, call, f"{place}/{'x' * 256}")

    def dig() -> None:
        deep = place
        for _ in range(6):  # a key has at most 1024 bytes
            deep = deep / ("d" * 250)
            deep.mkdir()

    refused(errno.ENAMETOOLONG, dig)


FOREIGN = {
    "plain": b"1", "dir/inner": b"2", "a//b": b"3", "/leading": b"4", "x/./y": b"5", "x/../z": b"6", "both": b"7",
    "both/below": b"8", "tail//": b"9", "x" * 300: b"10", "deep/" + "y" * 300 + "/f": b"11", "..": b"12", ".": b"13",
}  # fmt: skip


def test_keys_that_are_no_names_are_shown_and_can_be_read_and_deleted(
    mount: Any, bucket: str, s3: Any, server: Any
) -> None:
    put = {}
    for key, body in FOREIGN.items():
        try:
            s3.put_object(Bucket=bucket, Key=key, Body=body)
        except Exception:
            continue
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        put = {item["Key"]: s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read() for item in page["Contents"]}
    if server.kind == "rgw":
        assert put == FOREIGN
    living: Mount = mount()
    contents = []
    for directory, _, files in os.walk(living.path):
        contents.extend((Path(directory) / name).read_bytes() for name in files)
    assert sorted(contents) == sorted(body for key, body in put.items() if body or not key.endswith("/"))
    for directory, directories, files in os.walk(living.path, topdown=False):
        for name in files:
            (Path(directory) / name).unlink()
        for name in directories:
            (Path(directory) / name).rmdir()
    assert os.listdir(living.path) == []
    living.stop()
    left = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]
    assert left == []


def test_a_file_beside_a_directory_of_its_name(mount: Any, bucket: str, s3: Any, server: Any) -> None:
    if server.kind != "rgw":
        pytest.skip("SeaweedFS cannot hold a key beside a prefix of its name")
    s3.put_object(Bucket=bucket, Key="foo", Body=b"file")
    s3.put_object(Bucket=bucket, Key="foo/inner", Body=b"inner")
    living: Mount = mount()
    names = os.listdir(living.path)
    assert len(names) == 2
    assert (living.path / "foo" / "inner").read_bytes() == b"inner"
    (other,) = set(names) - {"foo"}
    assert (living.path / other).read_bytes() == b"file"
    (living.path / other).write_bytes(b"edited")
    assert s3.get_object(Bucket=bucket, Key="foo")["Body"].read() == b"edited"


def test_a_mount_of_a_prefix_sees_only_what_is_below(mount: Any, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="a/b/inside", Body=b"in")
    s3.put_object(Bucket=bucket, Key="a/bc", Body=b"out")
    living: Mount = mount(f"{bucket}:/a/b")
    assert os.listdir(living.path) == ["inside"]
    (living.path / "new").write_text("new")
    assert s3.get_object(Bucket=bucket, Key="a/b/new")["Body"].read() == b"new"


def test_objects_changed_behind_the_mount(mount: Any, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="d/kept", Body=b"kept")
    s3.put_object(Bucket=bucket, Key="d/replaced", Body=b"old")
    s3.put_object(Bucket=bucket, Key="d/deleted", Body=b"gone soon")
    living: Mount = mount(metadata_ttl=1, negative_ttl=1)
    d = living.path / "d"
    assert sorted(os.listdir(d)) == ["deleted", "kept", "replaced"]
    assert not (d / "put").exists()
    assert (d / "replaced").read_bytes() == b"old"
    s3.put_object(Bucket=bucket, Key="d/put", Body=b"put")
    s3.put_object(Bucket=bucket, Key="d/replaced", Body=b"new and longer")
    s3.delete_object(Bucket=bucket, Key="d/deleted")
    # open revalidates at once, names within their time to live
    assert (d / "replaced").read_bytes() == b"new and longer"
    wait_for(lambda: sorted(os.listdir(d)) == ["kept", "put", "replaced"], 15, "the listing to show the others' changes")
    assert (d / "put").read_bytes() == b"put"
    assert (d / "replaced").stat().st_size == 14
    with pytest.raises(FileNotFoundError):
        (d / "deleted").read_bytes()


@pytest.mark.parametrize("posix", [True, False])
def test_keys_that_are_not_utf8(mount: Any, bucket: str, server: Any, posix: bool) -> None:
    """Neither server takes one, so that the listings are made up: others may have been written by other ways, and hide nothing else."""
    rows = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;{n:032x}&quot;</ETag>"
        "<Size>5</Size><StorageClass>STANDARD</StorageClass></Contents>"
        for n, key in enumerate(("d/%ED%A0%80", "d/f", "d/f%FF%2Finside", "d/f%FF", "d/latin%E9"))
    )

    def listing(method: str, target: str) -> bytes | None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(target).query, "surrogateescape").items()}
        if method == "HEAD" and urlsplit(target).path.startswith(f"/{bucket}/d/"):
            return b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"e\"\r\nConnection: close\r\n\r\n"
        prefix = query.get("prefix", "")
        if method != "GET" or not ("max-keys" in query and "d/".startswith(prefix)):
            return None
        shown = rows if "delimiter" not in query else "<CommonPrefixes><Prefix>d/</Prefix></CommonPrefixes>" if not prefix else \
            rows.replace("d/f%FF%2Finside", "d/g") + "<CommonPrefixes><Prefix>d/f%FF/</Prefix></CommonPrefixes>"  # fmt: skip
        body = (
            f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><Name>{bucket}</Name><MaxKeys>1000</MaxKeys>'
            f"<EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>{shown}</ListBucketResult>"
        ).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body

    with Proxy(server.url) as proxy:
        living: Mount = mount(url=proxy.url, posix=posix)
        proxy.intercept = listing
        directory = living.path / "d"
        names = {".zos~byte~%ED%A0%80", "f", "g", ".zos~byte~f%FF", ".zos~file~.zos~byte~f%FF", ".zos~byte~latin%E9"}
        assert set(os.listdir(directory)) == names
        for name in names:
            assert os.stat(directory / name).st_ino
            os.getxattr(directory / name, "user.zos.uri")
        assert os.getxattr(directory / ".zos~byte~latin%E9", "user.zos.uri") == f"zos://{bucket}/d/latin".encode() + b"\xe9"
        proxy.intercept = None
        living.stop()


def test_what_others_made_where_a_file_is_created_is_no_file(mount: Any, bucket: str, s3: Any) -> None:
    """The kernel was told a moment ago that there is no such name, and asks for a new file: nothing else is opened as one."""
    believed = "import zosfs.fs.operations as asked; told = asked.missing; asked.missing = lambda ttl: told(3600.0)"
    living = mount(metadata_ttl=0, negative_ttl=0, patched=believed)
    directory, link = living.path / "d", living.path / "l"
    assert not directory.exists()
    assert not os.path.lexists(link)
    s3.put_object(Bucket=bucket, Key="d/")
    s3.put_object(Bucket=bucket, Key="l", Body=b"target", Metadata={"mode": str(0o120777)})
    refused(errno.EISDIR, directory.write_bytes, b"bytes")
    link.write_bytes(b"bytes")
    assert (living.path / "target").read_bytes() == b"bytes"
    assert os.readlink(link) == "target"
    assert os.listdir(directory) == []
    living.finish()
    assert s3.get_object(Bucket=bucket, Key="l")["Body"].read() == b"target"
    assert s3.head_object(Bucket=bucket, Key="d/")["ContentLength"] == 0
