"""Objects that many appends made are made whole when nobody uses them, and nothing that is written meanwhile is lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.fs.mounting import Mount, wait_for
from tests.fs.running import noise
from tests.proxy import Proxy

MIB = 1 << 20
SOON = "import zosfs.fs.compacting\nzosfs.fs.compacting.QUIET = 1.0"
NEVER = "import zosfs.fs.compacting\nzosfs.fs.compacting.QUIET = 86400.0"
Mounting = Callable[..., Mount]


@pytest.fixture(autouse=True)
def _on_ceph(server: Any) -> None:
    if server.kind != "rgw":
        pytest.skip("no append uploads")


def append(path: Path, *pieces: bytes) -> bytes:
    """Append *pieces*, each for itself; returns them all."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    try:
        for piece in pieces:
            assert os.write(fd, piece) == len(piece)
            os.fsync(fd)
    finally:
        os.close(fd)
    return b"".join(pieces)


def lines(name: str, count: int) -> list[bytes]:
    return [f"{name} {number}\n".encode() for number in range(count)]


def kind_of(s3: Any, bucket: str) -> str:
    """What the server says that the object is."""
    return str(s3.head_object(Bucket=bucket, Key="log")["ResponseMetadata"]["HTTPHeaders"].get("x-rgw-object-type", "Normal"))


def becomes_whole(s3: Any, bucket: str) -> None:
    wait_for(lambda: kind_of(s3, bucket) == "Normal", 120, "the object to be made whole")


def unfinished(s3: Any, bucket: str) -> list[Any]:
    return list(s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []))


def bytes_of(s3: Any, bucket: str) -> bytes:
    return bytes(s3.get_object(Bucket=bucket, Key="log")["Body"].read())


@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_it_is_the_same_but_whole(mount: Mounting, bucket: str, s3: Any, large: bool) -> None:
    before = mount(patched=NEVER, compact_appends=20)
    path = before.path / "log"
    written = append(path, *([noise(6 * MIB)] if large else []), *lines("first", 20))
    os.setxattr(path, "user.color", b"blue")
    os.setxattr(path, "user.zos.tags", b'{"team": "red"}')
    s3.put_object_acl(Bucket=bucket, Key="log", ACL="public-read")
    os.utime(path, ns=(10**18, 10**18))
    shown = os.stat(path)
    before.stop()
    head = s3.head_object(Bucket=bucket, Key="log")
    grants = s3.get_object_acl(Bucket=bucket, Key="log")["Grants"]
    assert kind_of(s3, bucket) == "Appendable"
    assert int(head["ETag"].strip('"').partition("-")[2]) >= 20
    assert len(grants) == 2
    tags = [{"Key": "team", "Value": "red"}]
    assert s3.get_object_tagging(Bucket=bucket, Key="log")["TagSet"] == tags

    living = mount(patched=SOON, compact_appends=20)
    assert (living.path / "log").read_bytes() == written
    becomes_whole(s3, bucket)
    wait_for(lambda: living.counters()["compactions"] == 1, 60, "the counter to say so")
    now = s3.head_object(Bucket=bucket, Key="log")
    assert bytes_of(s3, bucket) == written
    assert now["ETag"].strip('"').partition("-")[2] == ("1" if large else "")  # no pieces any more
    assert now["Metadata"] == head["Metadata"]
    assert now["ContentType"] == head["ContentType"]
    assert s3.get_object_acl(Bucket=bucket, Key="log")["Grants"] == grants
    wait_for(lambda: s3.get_object_tagging(Bucket=bucket, Key="log")["TagSet"] == tags, 60, "the tags")
    assert unfinished(s3, bucket) == []
    again = os.stat(living.path / "log")
    assert (again.st_mode, again.st_mtime_ns, again.st_size) == (shown.st_mode, shown.st_mtime_ns, shown.st_size)
    assert (living.path / "log").read_bytes() == written
    written += append(living.path / "log", b"and more\n")
    assert (living.path / "log").read_bytes() == bytes_of(s3, bucket) == written


def test_it_is_left_alone_unless_asked_for(mount: Mounting, bucket: str, s3: Any) -> None:
    plain, few = mount(patched=SOON), mount(patched=SOON, compact_appends=100)
    for living in (plain, few):
        name = living.home.name
        append(living.path / name, *lines(name, 10))
        assert "made whole" not in living.log()
    append(few.path / "log", *lines("log", 100))
    becomes_whole(s3, bucket)  # the one that is worth it came last, and is done
    wait_for(lambda: few.counters()["compactions"], 20, "the answer to be counted")
    for living in (plain, few):
        assert living.counters()["compactions"] == (living is few)
        head = s3.head_object(Bucket=bucket, Key=living.home.name)
        assert head["ResponseMetadata"]["HTTPHeaders"]["x-rgw-object-type"] == "Appendable"


class Copying:
    """A mount that is making `log` whole, as far as *step*: the server has answered that request, and the answer is on its way.

    That is the copy of the first part ("copy"), the last look before the exchange ("look"), or the exchange itself ("exchange").
    """

    def __init__(self, mount: Mounting, proxy: Proxy, step: str = "copy") -> None:
        self.held = True

        def hold(target: str) -> int | None:
            if step == "look":
                asked = sum("/log?acl" in asked for _, asked in proxy.requests)
                there = asked >= 2 and target.endswith("/log")
            else:
                there = ("/log?partNumber=1&" if step == "copy" else "/log?uploadId=") in target
            return 0 if self.held and there else None

        proxy.hold = hold
        first = mount()
        self.written = append(first.path / "log", noise(6 * MIB), *lines("first", 10))
        first.stop()
        self.living = mount(url=proxy.url, patched=SOON, compact_appends=10)
        self.path = self.living.path / "log"
        assert self.path.read_bytes() == self.written
        wait_for(lambda: proxy.held, 120, f"{step} to be under way")

    def give_up(self) -> None:
        """Let the answer come, and wait until it is of no use."""
        self.held = False
        wait_for(lambda: "not made whole" in self.living.log(), 60, "the exchange to be left out")


def test_what_is_appended_here_meanwhile_wins(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    copying = Copying(mount, proxy)
    written = copying.written + append(copying.path, *lines("second", 3))
    assert bytes_of(s3, bucket) == written
    copying.give_up()
    assert bytes_of(s3, bucket) == copying.path.read_bytes() == written
    becomes_whole(s3, bucket)  # it is quiet again
    assert bytes_of(s3, bucket) == copying.path.read_bytes() == written
    wait_for(lambda: not unfinished(s3, bucket), 60, "the upload to be gone")


def test_who_has_it_open_for_writing_is_not_disturbed(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    copying = Copying(mount, proxy)
    with copying.path.open("ab", buffering=0) as file:
        copying.give_up()
        assert kind_of(s3, bucket) == "Appendable"
        file.write(b"more\n")
        os.fsync(file.fileno())
        assert bytes_of(s3, bucket) == copying.written + b"more\n"
        assert kind_of(s3, bucket) == "Appendable"
    becomes_whole(s3, bucket)
    assert bytes_of(s3, bucket) == copying.written + b"more\n"


def test_what_another_host_appends_meanwhile_stays(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    copying = Copying(mount, proxy)
    other = mount()
    written = copying.written + append(other.path / "log", *lines("other", 3))
    copying.give_up()
    wait_for(lambda: not unfinished(s3, bucket), 60, "the upload to be gone")
    assert bytes_of(s3, bucket) == written
    assert kind_of(s3, bucket) == "Appendable"
    assert copying.living.counters()["compactions"] == 0


def test_what_is_removed_meanwhile_does_not_come_back(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    copying = Copying(mount, proxy)
    copying.path.unlink()
    copying.give_up()
    wait_for(lambda: not unfinished(s3, bucket), 60, "the upload to be gone")
    copying.living.stop()
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


@pytest.mark.parametrize("step", [pytest.param("look", marks=pytest.mark.long), "exchange"])
@pytest.mark.parametrize("what", ["append", "unlink", "rename"])
def test_what_is_done_during_the_exchange_waits(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any, what: str, step: str
) -> None:
    copying = Copying(mount, proxy, step)
    path, other = copying.path, copying.path.with_name("other")
    doing: Callable[[], object]
    if what == "append":
        doing, expected = partial(append, path, b"more\n"), copying.written + b"more\n"
    elif what == "rename":
        other.write_bytes(b"other")
        doing, expected = partial(other.rename, path), b"other"
    else:
        doing, expected = path.unlink, b""
    with ThreadPoolExecutor() as threads:
        done = threads.submit(doing)
        with pytest.raises(TimeoutError):
            done.result(1)
        copying.held = False
        done.result(60)
    assert copying.living.counters()["compactions"] == 1
    copying.living.stop()
    if expected:
        assert bytes_of(s3, bucket) == expected
    else:
        assert "Contents" not in s3.list_objects_v2(Bucket=bucket)


def test_an_upload_cut_short_by_a_crash_is_aborted_by_the_next_run(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    copying = Copying(mount, proxy)
    copying.living.kill()
    assert len(unfinished(s3, bucket)) == 1
    copying.held = False
    copying.living.start()
    wait_for(lambda: not unfinished(s3, bucket), 60, "the upload to be aborted")
    assert copying.path.read_bytes() == bytes_of(s3, bucket) == copying.written
