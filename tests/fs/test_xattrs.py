"""Extended attributes as the kernel and copying programs use them: probes and flags, refusals before anything is sent, and requests."""

from __future__ import annotations

import ctypes
import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.fs.mounting import Mount, wait_for
from tests.fs.running import refused, run

LIBC = ctypes.CDLL(None, use_errno=True)
WORKING = {
    "user.zos.tag.team": b"blue", "user.zos.meta.colour": b"red", "user.mine": b"\0\xff", "user.zos.tags": b'{"a": "b"}',
    "user.zos.content-type": b"text/x-try", "user.zos.storage-class": b"STANDARD", "user.zos.acl": b"private",
}  # fmt: skip
ALWAYS_THERE = ("user.zos.content-type", "user.zos.storage-class", "user.zos.acl")


@pytest.mark.long_on("weed")
@pytest.mark.parametrize("name", WORKING)
def test_flags_of_setxattr(shared: Mount, name: str, server: Any) -> None:
    path = shared.path / name
    path.write_text("text")
    if name == "user.zos.acl" and server.kind != "rgw":
        pytest.skip("this server keeps no ACLs")
    if name not in ALWAYS_THERE:
        refused(errno.ENODATA, os.setxattr, path, name, WORKING[name], os.XATTR_REPLACE)
        os.setxattr(path, name, WORKING[name], os.XATTR_CREATE)
    refused(errno.EEXIST, os.setxattr, path, name, WORKING[name], os.XATTR_CREATE)
    os.setxattr(path, name, WORKING[name], os.XATTR_REPLACE)
    if name not in ALWAYS_THERE:
        os.removexattr(path, name)
        refused(errno.ENODATA, os.getxattr, path, name)
        refused(errno.ENODATA, os.removexattr, path, name)


def test_the_size_is_asked_first(place: Path) -> None:
    path = place / "f"
    path.write_text("text")
    os.setxattr(path, "user.zos.tag.team", b"blue")
    os.setxattr(path, "user.mine", b"m" * 100)
    small = ctypes.create_string_buffer(3)
    for name, size in ((b"user.zos.tag.team", 4), (b"user.mine", 100)):
        assert LIBC.getxattr(os.fsencode(path), name, None, 0) == size
        assert LIBC.getxattr(os.fsencode(path), name, small, len(small)) == -1
        assert ctypes.get_errno() == errno.ERANGE
    names = b"".join(name.encode() + b"\0" for name in os.listxattr(path))
    assert LIBC.listxattr(os.fsencode(path), None, 0) == len(names)
    assert LIBC.listxattr(os.fsencode(path), small, len(small)) == -1
    assert ctypes.get_errno() == errno.ERANGE


REFUSED: tuple[tuple[str, bytes, int, str], ...] = (
    ("tags", b"{", errno.EINVAL, "tags: not JSON"),
    ("tags", b'{"a": 1}', errno.EINVAL, "tags: must be a JSON object of texts"),
    ("tags", json.dumps({str(n): "" for n in range(11)}).encode(), errno.E2BIG, "11 tags; 10 are allowed"),
    ("tag." + "k" * 129, b"v", errno.E2BIG, "has 129 bytes; 128 are allowed"),
    ("tag.k", b"v" * 257, errno.E2BIG, "the value of tag k has 257 bytes; 256 are allowed"),
    ("tag.k", b"\xff", errno.EINVAL, "the value is not UTF-8"),
    ("tag.k", b"a\nb", errno.EINVAL, "control characters are not allowed"),
    ("acl", b"publik", errno.EINVAL, "acl: 'publik' is none of private, public-read"),
    ("acl", b"red=id=x", errno.EINVAL, "acl: 'red' is no permission"),
    ("acl", b"read=name=x", errno.EINVAL, "acl: 'name=x' is no grantee"),
    ("acl", b'{"Owner": {"ID": "x"}, "Grants": [{"Permission": "SEE"}]}', errno.EINVAL, "acl: $.Grants[0]: lacks Grantee"),
    ("legal-hold", b"maybe", errno.EINVAL, "legal-hold: 'maybe' is neither ON nor OFF"),
    ("retention", b"mode=SOFT,days=1", errno.EINVAL, "retention: mode=GOVERNANCE or mode=COMPLIANCE is missing"),
    ("retention", b"mode=GOVERNANCE,until=soon", errno.EINVAL, "retention: 'soon' is no time"),
    ("retention", b"mode=GOVERNANCE,until=2001-01-01", errno.EINVAL, "retention: 2001-01-01 is past"),
    ("storage-class", b"COLD", errno.EINVAL, "storage-class: 'COLD' is none of STANDARD"),
    ("restore", b"days=32", errno.EINVAL, "restore: days: '32' is not between 1 and 31"),
    ("restore", b"tier=Fast", errno.EINVAL, "restore: tier 'Fast' is none of Standard"),
    ("content-type", b"text", errno.EINVAL, "content-type: 'text' is not of the form text/plain"),
    ("meta.Upper", b"v", errno.EINVAL, "meta.Upper: names have lower-case letters"),
    ("meta.k", "é".encode(), errno.EINVAL, "meta.k: a header carries printable ASCII only"),
    ("meta.k", b"v" * 2100, errno.E2BIG, "meta.k: name and value have 2101 bytes; 2048 are allowed"),
    ("meta.mode", b"33188", errno.EPERM, "meta.mode is changed by chmod"),
    ("etag", b"x", errno.EPERM, "user.zos.etag is read only"),
    ("url", b"x", errno.EPERM, "user.zos.url is read only"),
    ("colour", b"x", errno.ENOTSUP, "there is no attribute user.zos.colour"),
)


@pytest.mark.parametrize(("name", "value", "number", "line"), REFUSED, ids=[f"{row[0][:12]}-{n}" for n, row in enumerate(REFUSED)])
def test_refused_before_anything_is_sent(shared: Mount, name: str, value: bytes, number: int, line: str) -> None:
    path = shared.path / "refused"
    if not path.exists():
        path.write_text("text")
    path.stat()
    before = shared.log_size()
    with shared.requests() as spent:
        refused(number, os.setxattr, path, f"user.zos.{name}", value)
    assert not set(spent) - {"head", "list"}, spent
    wait_for(lambda: line in shared.log(before), 30, f"{line!r} in the log:\n{shared.log(before)}")


def test_more_attributes_than_a_request_carries(place: Path, shared: Mount) -> None:
    path = place / "f"
    path.write_text("text")
    os.setxattr(path, "user.large", b"x" * 4000)
    with shared.requests() as spent:
        refused(errno.E2BIG, os.setxattr, path, "user.second", b"x" * 4000)
    assert not set(spent) - {"head", "list"}, spent
    assert os.getxattr(path, "user.large") == b"x" * 4000
    with path.open("w") as file:  # nothing of it is left to make the close fail
        refused(errno.E2BIG, os.setxattr, path, "user.second", b"x" * 60_000)
        file.write("more")
    assert path.read_text() == "more"


def test_what_listing_and_copying_cost(mount: Any, bucket: str, s3: Any, server: Any, tmp_path: Path) -> None:
    for n in range(20):
        s3.put_object(Bucket=bucket, Key=f"d/{n:02}", Body=b"x", Tagging="a=b" if n == 7 else "")
    living: Mount = mount()
    with living.requests() as spent:
        run("ls", "-laR", "--color=always", living.path)
        run("find", living.path, "-printf", "%p %s %m %t\n")
        run("du", "-a", living.path)
    assert not set(spent) - {"list", "head"}, spent
    with living.requests() as spent:
        for path in sorted((living.path / "d").iterdir()):
            os.listxattr(path)
    assert {verb: n for verb, n in spent.items() if verb not in ("list", "head")} == {"tagging": 1}, spent
    with living.requests() as spent:
        run("cp", "-r", living.path / "d", tmp_path / "plain")
        run("rsync", "-a", f"{living.path}/d/", tmp_path / "synced")
    assert not set(spent) - {"list", "head", "get"}, spent


def test_copying_programs_carry_them_and_complain_of_nothing(place: Path, shared_bucket: str, s3: Any, server: Any, tmp_path: Path) -> None:
    path = place / "f"
    path.write_text("text")
    wanted = {"user.zos.tag.team": b"blue", "user.zos.tag.\u57ce \u5e02": "市".encode(), "user.zos.meta.colour": b"red", "user.mine": b"\0"}
    for name, value in wanted.items():
        os.setxattr(path, name, value)
    out = place / "out"
    out.mkdir()
    tar = ("tar", "--xattrs", "--xattrs-include=*", "-C")
    for command in (
        ("cp", "-a", path, out / "by-cp"), ("cp", "--preserve=all", path, out / "by-cp-all"), ("rsync", "-aX", path, out / "by-rsync"),
        (*tar, place, "-cf", tmp_path / "t.tar", "f"), (*tar, out, "-xf", tmp_path / "t.tar"),
        ("rsync", "-aX", path, tmp_path / "away"), ("rsync", "-aX", tmp_path / "away", out / "and-back"),
    ):  # fmt: skip
        run("sh", "-c", '"$@" 2>&1 | grep . && exit 1; true', "sh", *command)  # not a word of complaint
    for copy in ("by-cp", "by-cp-all", "by-rsync", "f", "and-back"):
        for name, value in wanted.items():
            assert os.getxattr(out / copy, name) == value, (copy, name)
    tags = s3.get_object_tagging(Bucket=shared_bucket, Key=f"{place.name}/out/by-cp")["TagSet"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {"team": "blue", "城 市": "市"}
