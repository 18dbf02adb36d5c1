"""Whose changes lost against another host's goes on with what he has, and whoever opens the file afterwards has the other host's: neither
is shown the other's bytes, by the kernel's pages either."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fs.mounting import Mount
from tests.fs.running import refused

PAGE = 4096
SIZE = 16 * PAGE
LOSER, WINNER = b"l" * SIZE, b"w" * SIZE

Mounting = Callable[..., Mount]
By = Callable[[int, int], bytes]


def by_read(fd: int, at: int) -> bytes:
    """A page as pread has it."""
    return os.pread(fd, PAGE, at)


def by_mapping(fd: int, at: int) -> bytes:
    """A page as a mapping has it."""
    with mmap.mmap(fd, at + PAGE, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as mapping:
        return mapping[at : at + PAGE]


def page_by_page(fd: int) -> int:
    """*fd*, for which the kernel reads nothing ahead."""
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    return fd


@contextmanager
def lost(path: Path, bucket: str, s3: Any, *, size: int = SIZE) -> Iterator[int]:
    """A descriptor that has written `LOSER`, and was told that another host's `WINNER` of *size* bytes was before it."""
    fd = page_by_page(os.open(path, os.O_RDWR))
    os.pwrite(fd, LOSER, 0)
    s3.put_object(Bucket=bucket, Key="f", Body=(WINNER + WINNER)[:size])
    refused(errno.ESTALE, os.fsync, fd)
    try:
        yield fd
    finally:
        refused(errno.ESTALE, os.close, fd)


@pytest.mark.parametrize("by", [by_read, by_mapping])
@pytest.mark.parametrize("size", [SIZE, SIZE // 2, SIZE + SIZE // 2])
def test_the_two_are_shown_each_its_own(mount: Mounting, bucket: str, s3: Any, by: By, size: int) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=b"before" * 1000)
    living = mount()
    living.forgive("f: ")
    path = living.path / "f"
    path.read_bytes()
    with lost(path, bucket, s3, size=size) as loser:
        assert path.read_bytes() == (WINNER + WINNER)[:size]
        reader = page_by_page(os.open(path, os.O_RDONLY))
        assert os.fstat(reader).st_size == size
        for at in range(0, min(size, SIZE), 2 * PAGE):
            assert by(loser, at) == LOSER[:PAGE], at
            assert by(reader, at) == WINNER[:PAGE], at
            assert by(reader, at + PAGE) == WINNER[:PAGE], at
            assert by(loser, at + PAGE) == LOSER[:PAGE], at
        os.pwrite(loser, b"more", 0)
        assert by(reader, 0) == WINNER[:PAGE]
        assert by(loser, 0) == b"more" + LOSER[4:PAGE]
        assert path.read_bytes() == (WINNER + WINNER)[:size]
        os.close(reader)
    assert path.read_bytes() == (WINNER + WINNER)[:size]


def test_what_the_loser_does_with_the_file_is_not_done_to_the_winners(mount: Mounting, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=b"before")
    living = mount()
    living.forgive("f: ")
    path = living.path / "f"
    with lost(path, bucket, s3) as loser:
        assert path.read_bytes() == WINNER
        with mmap.mmap(loser, SIZE) as mapping:
            assert mapping[:PAGE] == LOSER[:PAGE]
            mapping[:4] = b"more"
            refused(errno.ESTALE, mapping.flush)
        os.pwrite(loser, b"behind", SIZE)
        assert os.fstat(loser).st_size == SIZE + 6
        assert os.pread(loser, 2 * SIZE, 0) == b"more" + LOSER[4:] + b"behind"
        refused(errno.ESTALE, os.ftruncate, loser, 1)
        refused(errno.ESTALE, os.fchmod, loser, 0o600)
        refused(errno.ESTALE, os.fsync, loser)
        assert path.stat().st_size == SIZE
        path.chmod(0o640)
        assert os.stat(path).st_mode & 0o777 == 0o640
    assert path.read_bytes() == WINNER
    assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == WINNER


@pytest.mark.parametrize("by", [by_read, by_mapping])
def test_a_file_that_both_have_made_is_two(mount: Mounting, bucket: str, s3: Any, by: By) -> None:
    living = mount()
    living.forgive("f: ")
    path = living.path / "f"
    path.touch()
    path.unlink()
    fd = page_by_page(os.open(path, os.O_RDWR | os.O_CREAT))
    os.pwrite(fd, LOSER, 0)
    s3.put_object(Bucket=bucket, Key="f", Body=WINNER)
    refused(errno.ESTALE, os.fsync, fd)
    for _ in range(2):
        reader = page_by_page(os.open(path, os.O_RDONLY))
        assert by(reader, 0) == WINNER[:PAGE]
        assert by(fd, 0) == LOSER[:PAGE]
        assert by(fd, PAGE) == LOSER[:PAGE]
        assert by(reader, PAGE) == WINNER[:PAGE]
        os.close(reader)
    refused(errno.ESTALE, os.close, fd)
    assert path.read_bytes() == WINNER


def test_who_read_the_file_before_goes_on_with_what_the_loser_made_of_it(mount: Mounting, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=b"b" * SIZE)
    living = mount()
    living.forgive("f: ")
    path = living.path / "f"
    before = page_by_page(os.open(path, os.O_RDONLY))
    assert os.pread(before, PAGE, 0) == b"b" * PAGE
    with lost(path, bucket, s3) as loser:
        with path.open("r+b") as other:
            other.write(b"on top")
        assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"on top" + WINNER[6:]
        assert os.pread(before, SIZE, 0) == LOSER
        assert os.pread(loser, SIZE, 0) == LOSER
    os.close(before)
    assert path.read_bytes() == b"on top" + WINNER[6:]


def test_a_log_that_the_winner_only_made_longer_is_another_file(mount: Mounting, bucket: str, s3: Any, server: Any) -> None:
    if server.kind != "rgw":
        pytest.skip("needs append uploads")
    living, elsewhere = mount(), mount()
    living.forgive("f: ")
    with (elsewhere.path / "f").open("ab") as log:
        log.write(WINNER[:PAGE])
    path = living.path / "f"
    loser = page_by_page(os.open(path, os.O_RDWR))
    os.pwrite(loser, LOSER[:PAGE], 0)
    with (elsewhere.path / "f").open("ab") as log:
        log.write(WINNER[PAGE:])
    refused(errno.ESTALE, os.fsync, loser)
    reader = page_by_page(os.open(path, os.O_RDONLY))
    assert os.pread(loser, 2 * PAGE, 0) == LOSER[:PAGE]
    assert os.pread(reader, 2 * PAGE, 0) == WINNER[: 2 * PAGE]
    assert path.read_bytes() == WINNER
    os.close(reader)
    refused(errno.ESTALE, os.close, loser)
