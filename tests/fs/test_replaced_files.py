"""Files that another host replaces, removes or appends to while programs here have them open, or the kernel has them in its caches."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fs.mounting import Mount, wait_for
from tests.fs.running import noise, refused

PAGE = 4096
SIZE = 64 * PAGE
OLD, NEW = b"o" * SIZE, b"n" * SIZE


@contextmanager
def page_by_page(path: Path) -> Iterator[int]:
    """A descriptor for which the kernel reads nothing ahead."""
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    try:
        yield fd
    finally:
        os.close(fd)


def rest(fd: int, at: int, version: bytes) -> bool:
    """Read from *at* on to what is told to be the end: all of it must be of *version*. False: ESTALE came before."""
    while True:
        try:
            piece = os.pread(fd, PAGE, at)
        except OSError as failure:
            if failure.errno != errno.ESTALE:
                raise
            return False
        assert piece == version[at : at + PAGE], f"at {at}: {piece[:1]!r}, {len(piece)} bytes"
        if not piece:
            return True
        at += len(piece)


@pytest.mark.parametrize("size", [SIZE, SIZE + 5000, SIZE - 5000])
def test_two_who_have_different_versions_open_read_each_its_own(mount: Any, bucket: str, s3: Any, size: int) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=OLD)
    living: Mount = mount()
    new = (NEW + NEW)[:size]
    with page_by_page(living.path / "f") as before:
        assert os.pread(before, SIZE // 2, 0) == OLD[: SIZE // 2]
        s3.put_object(Bucket=bucket, Key="f", Body=new)
        with page_by_page(living.path / "f") as after:
            for at in range(0, SIZE // 2, PAGE):
                assert os.pread(before, PAGE, at) in (OLD[:PAGE], b"")
                assert os.pread(after, PAGE, at) == NEW[:PAGE]
            assert os.fstat(after).st_size == size
            rest(before, SIZE // 2, OLD)
            assert rest(after, SIZE // 2, new)
            rest(before, SIZE // 2, OLD)
        assert (living.path / "f").read_bytes() == new
    assert (living.path / "f").stat().st_size == size


def test_who_reads_is_not_told_of_another_end_when_somebody_looks_at_the_file(mount: Any, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=OLD)
    living: Mount = mount(metadata_ttl=0.5)
    path = living.path / "f"
    with page_by_page(path) as fd:
        assert os.pread(fd, PAGE, 0) == OLD[:PAGE]
        s3.put_object(Bucket=bucket, Key="f", Body=NEW[: 8 * PAGE])
        wait_for(lambda: path.stat().st_size == 8 * PAGE, 20, "the new size to be told")
        os.fstat(fd)
        rest(fd, PAGE, OLD)
    assert path.read_bytes() == NEW[: 8 * PAGE]


@pytest.mark.parametrize("below", ["", "d/"])
def test_a_file_that_others_removed_is_made_anew_by_who_writes_it(mount: Any, bucket: str, s3: Any, server: Any, below: str) -> None:
    """The kernel knows the name still when a listing has told that it is gone: what is written then must go to the name."""
    if below and server.kind != "rgw":
        pytest.skip("goes on showing a directory when the last key in it is gone")
    key = below + "f"
    s3.put_object(Bucket=bucket, Key=key, Body=b"one")
    living: Mount = mount()
    path = living.path / key
    assert path.read_bytes() == b"one"
    s3.delete_object(Bucket=bucket, Key=key)
    os.setxattr(living.path, "user.zos.refresh", b"")
    assert os.listdir(living.path) == []
    refused(errno.ENOENT, path.chmod, 0o600)
    refused(errno.ENOENT, os.truncate, path, 1)
    if below:
        refused(errno.ENOENT, path.write_bytes, b"two")
        return
    path.write_bytes(b"two")
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"two"
    assert path.read_bytes() == b"two"


def test_what_is_changed_of_a_file_that_others_replaced_while_it_is_read_is_of_the_new_one(mount: Any, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=OLD)
    living: Mount = mount()
    path = living.path / "f"
    with page_by_page(path) as fd:
        assert os.pread(fd, PAGE, 0) == OLD[:PAGE]
        s3.put_object(Bucket=bucket, Key="f", Body=NEW)
        path.chmod(0o600)
        assert s3.head_object(Bucket=bucket, Key="f")["Metadata"]["mode"] == str(0o100600)
        s3.put_object(Bucket=bucket, Key="f", Body=NEW)
        with path.open("r+b") as writer:
            writer.write(b"written here")
        assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"written here" + NEW[12:]
        s3.put_object(Bucket=bucket, Key="f", Body=NEW)
        with path.open("ab") as writer:
            writer.write(b"behind")
        assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == NEW + b"behind"
        rest(fd, PAGE, OLD)
    assert path.read_bytes() == NEW + b"behind"


def test_who_reads_a_log_goes_on_with_what_another_host_appends(mount: Any, server: Any) -> None:
    """As `tail -f` does: at the end it looks whether the file has grown."""
    if server.kind != "rgw":
        pytest.skip("no append uploads: a log that grew is another object")
    here, there = mount(metadata_ttl=0.2), mount()
    with (there.path / "log").open("ab", buffering=0) as writer:
        writer.write(b"first\n")
    with (here.path / "log").open("rb", buffering=0) as reader:
        written = got = reader.read(100)
        assert got == b"first\n"
        for n in range(3):
            line = b"%d and so on\n" % n * 1000
            with (there.path / "log").open("ab", buffering=0) as writer:
                writer.write(line)
            written += line
            wait_for(lambda: os.fstat(reader.fileno()).st_size == len(written), 20, "the new size to be told")  # noqa: B023
            while piece := reader.read(5000):
                got += piece
            assert got == written
        (there.path / "log").unlink()
        with (there.path / "log").open("ab", buffering=0) as writer:
            writer.write(b"begun anew\n" * 10_000)
        wait_for(lambda: (here.path / "log").stat().st_size == 110_000, 20, "the new log to be told")
        assert reader.read(5000) == b""
        assert os.pread(reader.fileno(), 6, 0) == b"first\n"


def test_who_waits_at_the_end_of_a_log_is_told_soon_of_more(mount: Any, server: Any) -> None:
    if server.kind != "rgw":
        pytest.skip("no append uploads: a log that grew is another object")
    here, there = mount(metadata_ttl=600), mount()
    log = here.path / "log"
    with (there.path / "log").open("ab", buffering=0) as writer:
        writer.write(b"first\n")
    with log.open("rb", buffering=0) as reader:
        with here.requests() as spent:
            for _ in range(50):
                assert os.fstat(reader.fileno()).st_size == 6
        assert spent.get("head", 0) <= 1, "nobody has come to the end"
        assert reader.read(100) == b"first\n"
        with (there.path / "log").open("ab", buffering=0) as writer:
            writer.write(b"second\n")
        wait_for(lambda: os.fstat(reader.fileno()).st_size == 13, 20, "the new size to be told long before metadata_ttl")
        assert reader.read(100) == b"second\n"
        before = time.monotonic()
        with here.requests() as spent:
            for _ in range(500):
                os.fstat(reader.fileno())
        assert spent.get("head", 0) <= 2 + (time.monotonic() - before)
    log.stat()
    with here.requests() as spent:
        for _ in range(50):
            log.stat()
    assert spent.get("head", 0) <= 1, "nobody waits any more"


def test_who_has_a_file_open_that_others_removed_is_shown_it_still(mount: Any, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=OLD)
    living: Mount = mount(metadata_ttl=0)
    with (living.path / "f").open("rb", buffering=0) as reader:
        assert reader.read(PAGE) == OLD[:PAGE]
        s3.delete_object(Bucket=bucket, Key="f")
        for _ in range(3):
            assert os.fstat(reader.fileno()).st_size == len(OLD)
    assert not (living.path / "f").exists()


def test_a_log_is_read_while_another_host_appends_to_it(mount: Any, server: Any) -> None:
    if server.kind != "rgw":
        pytest.skip("no append uploads: a log that grew is another object")
    here, there = mount(), mount()
    begin = noise(3 * SIZE)
    with (there.path / "log").open("ab", buffering=0) as writer:
        writer.write(begin)
        os.fsync(writer.fileno())
        with page_by_page(here.path / "log") as fd:
            for at in range(0, len(begin), SIZE):
                assert os.pread(fd, PAGE, at) == begin[at : at + PAGE]
                writer.write(b"one more line\n")
                os.fsync(writer.fileno())
            assert os.pread(fd, SIZE, SIZE) == begin[SIZE : 2 * SIZE]
    assert (here.path / "log").read_bytes() == begin + b"one more line\n" * 3


@pytest.mark.parametrize("looks", [True, False])
def test_who_opens_to_write_beside_a_reader_works_on_what_another_host_has_left(mount: Any, bucket: str, s3: Any, looks: bool) -> None:
    """What was written here before is delivered, and kept for who reads it: that is no reason to lose against the other host."""
    s3.put_object(Bucket=bucket, Key="f", Body=OLD)
    living: Mount = mount()
    path = living.path / "f"
    with page_by_page(path) as fd:
        if looks:
            assert os.pread(fd, PAGE, 0) == OLD[:PAGE]
        with path.open("r+b") as writer:
            writer.write(b"mine")
        if looks:
            assert os.pread(fd, PAGE, 0) == b"mine" + OLD[4:PAGE]
        s3.put_object(Bucket=bucket, Key="f", Body=NEW)
        with path.open("r+b") as writer:
            writer.write(b"again")
        assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"again" + NEW[5:]
        rest(fd, PAGE, OLD if looks else NEW)
    assert path.read_bytes() == b"again" + NEW[5:]


@pytest.mark.parametrize("size", [10, SIZE])
def test_who_opens_a_log_reads_all_that_was_appended_before(mount: Any, server: Any, size: int) -> None:
    """What is known here of it is old, and nothing of it is cached: the bytes that are asked for are there, but they are not all."""
    if server.kind != "rgw":
        pytest.skip("no append uploads: a log that grew is another object")
    here, there = mount(), mount()
    written = noise(size)
    for n in range(2):
        with (there.path / "log").open("ab", buffering=0) as writer:
            writer.write(written[n * size // 2 : (n + 1) * size // 2])
        assert n or (here.path / "log").stat().st_size == size // 2
    with (here.path / "log").open("rb") as reader:
        assert reader.read() == written
    assert (here.path / "log").stat().st_size == size
