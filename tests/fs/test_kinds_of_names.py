"""What readdir tells of a name: its kind where a listing tells it or somebody wants to know, and the name alone to who reads no more."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fs.mounting import Mount, wait_for
from tests.fs.running import put_many, run
from tests.proxy import Proxy
from zosfs.tree.asked_ahead import FIRST

Mounting = Callable[..., Mount]
UNKNOWN, FIFO, DIRECTORY, REGULAR, LINK = 0, 1, 4, 8, 10
"""Of dirent's d_type (readdir(3))."""


class _Entry(ctypes.Structure):
    """struct dirent of glibc, on 64 bits."""

    _fields_ = (
        ("ino", ctypes.c_uint64), ("off", ctypes.c_int64), ("length", ctypes.c_uint16), ("type", ctypes.c_uint8),
        ("name", ctypes.c_char * 256),
    )  # fmt: skip


_libc = ctypes.CDLL(None, use_errno=True)
_libc.opendir.restype = ctypes.c_void_p
_libc.readdir.argtypes, _libc.readdir.restype = (ctypes.c_void_p,), ctypes.POINTER(_Entry)
_libc.closedir.argtypes = (ctypes.c_void_p,)


def kinds(path: Path) -> dict[str, int]:
    """What readdir(3) says of each name in *path*."""
    directory = _libc.opendir(os.fsencode(path))
    assert directory
    found = {}
    while entry := _libc.readdir(directory):
        assert entry.contents.ino, "a number of 0 hides the name"
        found[entry.contents.name.decode()] = entry.contents.type
    _libc.closedir(directory)
    del found["."], found[".."]
    return found


def link(s3: Any, bucket: str, key: str, target: bytes) -> None:
    """A symbolic link as s3fs stores it."""
    s3.put_object(Bucket=bucket, Key=key, Body=target, Metadata={"mode": str(stat.S_IFLNK | 0o777)})


def test_who_reads_names_waits_for_no_kinds(mount: Mounting, bucket: str, s3: Any) -> None:
    put_many(s3, bucket, {f"d/f{n:04}": b"x" for n in range(300)})
    put_many(s3, bucket, {"d/large": bytes(5000), "d/below/it": b"x"})
    living = mount()
    os.stat(living.path / "d")
    with living.requests() as spent:
        names = os.listdir(living.path / "d")
        found = kinds(living.path / "d")
    assert spent == {"list": 1}
    assert sorted(names) == sorted(found) == ["below", *(f"f{n:04}" for n in range(300)), "large"]
    assert {name: kind for name, kind in found.items() if kind != UNKNOWN} == {"below": DIRECTORY, "large": REGULAR}


def test_without_posix_the_listing_tells_all(mount: Mounting, bucket: str, s3: Any) -> None:
    put_many(s3, bucket, {f"d/f{n:04}": b"x" for n in range(300)})
    living = mount(posix=False)
    os.stat(living.path / "d")
    with living.requests() as spent:
        assert set(kinds(living.path / "d").values()) == {REGULAR}
    assert spent == {"list": 1}


def test_where_nothing_is_special_names_tell_their_kinds_and_attributes_are_kept(mount: Mounting, bucket: str, s3: Any) -> None:
    put_many(s3, bucket, {f"t/d{d}/f{n:02}": b"x" for d in range(3) for n in range(40)})
    s3.put_object(Bucket=bucket, Key="t/d0/private", Body=b"x", Metadata={"mode": str(stat.S_IFREG | 0o600)})
    link(s3, bucket, "t/d0/link", b"f00")
    living = mount(special=False)
    t = living.path / "t"
    with living.requests() as spent:
        assert run("find", t, "-type", "f").count("\n") == 122
    assert spent.get("head", 0) <= 6, "of directories"
    assert stat.S_IMODE((t / "d0" / "private").stat().st_mode) == 0o600
    assert (t / "d0" / "link").read_bytes() == b"f00", "what is one all the same shows as a file"
    assert stat.S_ISREG((t / "d0" / "link").lstat().st_mode)
    os.chmod(t / "d0" / "f00", 0o640)
    with pytest.raises(OSError, match=os.strerror(errno.ENOTSUP)):
        os.symlink("f00", t / "another")
    with living.requests() as spent:
        run("rm", "-r", t / "d1", t / "d2")
    assert spent.get("head", 0) <= 4
    living.again()
    assert stat.S_IMODE((t / "d0" / "f00").stat().st_mode) == 0o640
    assert os.listdir(t) == ["d0"]


def test_who_asks_is_told_right(mount: Mounting, bucket: str, s3: Any) -> None:
    put_many(s3, bucket, {f"d/f{n:02}": b"x" for n in range(40)})
    link(s3, bucket, "d/link", b"f00")
    s3.put_object(Bucket=bucket, Key="d/pipe", Body=b"", Metadata={"mode": str(stat.S_IFIFO | 0o600)})
    living = mount()
    d = living.path / "d"
    with os.scandir(d) as entries:
        found = {entry.name: (entry.is_symlink(), entry.is_file(follow_symlinks=False)) for entry in list(entries)}
    assert {name for name, (is_link, _) in found.items() if is_link} == {"link"}
    assert {name for name, (_, is_file) in found.items() if not is_file} == {"link", "pipe"}
    assert os.readlink(d / "link") == "f00"
    assert kinds(d) == {**dict.fromkeys(found, REGULAR), "link": LINK, "pipe": FIFO}, "what is known is told"
    assert run("find", d, "-type", "l").split() == [f"{d}/link"]
    assert run("find", d, "-type", "p").split() == [f"{d}/pipe"]


@pytest.mark.parametrize("kind", ["l", "f"])
def test_find_tells_links_from_files(mount: Mounting, bucket: str, s3: Any, kind: str) -> None:
    put_many(s3, bucket, {f"t/d{d}/f{n:02}": b"x" for d in range(4) for n in range(20)})
    for d in range(4):
        link(s3, bucket, f"t/d{d}/link", b"f00")
    living = mount()
    found = run("find", living.path / "t", "-type", kind).split()
    assert len(found) == {"l": 4, "f": 80}[kind]
    assert all((Path(path).name == "link") == (kind == "l") for path in found)


def test_who_asks_for_the_first_name_that_he_read_has_the_next_ones_asked_for(mount: Mounting, bucket: str, s3: Any) -> None:
    put_many(s3, bucket, {f"{d}/f{n:03}": b"x" for d in "ab" for n in range(100)})
    living = mount()
    by_another, by_himself = (sorted(map(str, (living.path / d).iterdir())) for d in "ab")
    with living.requests() as spent:
        run("stat", by_another[0])
    assert spent == {"head": 1}
    before = living.counters()["requests_head"]
    with living.requests() as spent:
        os.stat(by_himself[0])
        wait_for(lambda: living.counters()["requests_head"] >= before + 1 + FIRST, 10, "the next ones were asked for")
        for name in by_himself[: 1 + FIRST]:
            os.stat(name)
    assert spent == {"head": 1 + FIRST}


def test_who_asked_before_is_told_the_kinds_with_the_names(mount: Mounting, bucket: str, s3: Any) -> None:
    put_many(s3, bucket, {f"t{d}/d/f{n:02}": b"x" for d in range(2) for n in range(100)})
    living = mount()
    first, second = (living.path / f"t{d}" / "d" for d in range(2))
    for name in os.listdir(first):
        assert stat.S_ISREG((first / name).lstat().st_mode)
    os.stat(second)
    with living.moved() as growth:
        found = kinds(second)
        for name in found:
            assert stat.S_ISREG((second / name).lstat().st_mode)
    assert set(found.values()) == {REGULAR}
    assert growth["requests_head"] == 100
    assert growth["fuse_requests"] <= 10, "nobody has to ask for each"


def test_a_name_that_was_missing_can_be_opened_when_it_is_listed(mount: Mounting, bucket: str, s3: Any) -> None:
    put_many(s3, bucket, {f"d/f{n:02}": b"x" for n in range(40)})
    living = mount(metadata_ttl=1, negative_ttl=600)
    d = living.path / "d"
    assert len(os.listdir(d)) == 40
    assert not (d / "new").exists()
    s3.put_object(Bucket=bucket, Key="d/new", Body=b"new")
    wait_for(lambda: "new" in os.listdir(d), 15, "the listing to show what another host made")
    assert (d / "new").read_bytes() == b"new"


def test_what_a_listing_shows_to_be_changed_is_told_anew(mount: Mounting, bucket: str, s3: Any) -> None:
    """The kernel has attributes of its own, and trusts them for as long."""
    put_many(s3, bucket, {f"d/f{n:02}": b"x" for n in range(40)})
    living = mount(metadata_ttl=4)
    d = living.path / "d"
    began = time.monotonic()
    os.listdir(d)
    wait_for(lambda: time.monotonic() > began + 2, 20, "half of metadata_ttl to be over")
    assert (d / "f20").stat().st_size == 1
    asked = time.monotonic()
    s3.put_object(Bucket=bucket, Key="d/f20", Body=b"changed")
    s3.put_object(Bucket=bucket, Key="d/new", Body=b"new")
    wait_for(lambda: "new" in os.listdir(d), 15, "the listing to show what another host did")
    size = (d / "f20").stat().st_size
    assert time.monotonic() < asked + 4, "too slow to tell anything"
    assert size == len(b"changed")


def test_a_name_of_which_the_server_says_nothing_is_left_open(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    put_many(s3, bucket, {f"d/f{n:02}": b"x" for n in range(40)})
    link(s3, bucket, "d/link", b"f00")
    living = mount(url=proxy.url, pipeline=False)
    living.forgive("AccessDenied|HTTP 403")
    d = living.path / "d"
    refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    proxy.intercept = lambda method, target: refusal if method == "HEAD" and target.partition("?")[0].endswith("/d/link") else None
    for name in sorted(kinds(d)):
        if name != "link":
            assert stat.S_ISREG((d / name).lstat().st_mode)
    with pytest.raises(PermissionError):
        (d / "link").lstat()
    assert {name: kind for name, kind in kinds(d).items() if kind != REGULAR} == {"link": UNKNOWN}
    proxy.intercept = None
    assert os.readlink(d / "link") == "f00", "nothing wrong was believed meanwhile"


def test_who_opens_what_he_listed_pays_one_request_a_file(mount: Mounting, bucket: str, s3: Any) -> None:
    put_many(s3, bucket, {f"d/f{n:02}": b"%d" % n for n in range(60)})
    living = mount()
    names = os.listdir(living.path / "d")
    with living.requests() as spent:
        for name in names:
            assert (living.path / "d" / name).read_bytes() == b"%d" % int(name[1:])
    assert spent["get"] == 60
    assert spent["head"] <= 60
