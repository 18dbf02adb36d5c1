"""Several writers append lines to one file through two mounts: every line is there once, whole."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.fs.mounting import Mount
from tests.fs.running import join, python

WRITER = """
import os, sys
path, name, lines = sys.argv[1], sys.argv[2], int(sys.argv[3])
fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
for n in range(lines):
    line = f"{name} {n} {'x' * (n % 50)}\\n".encode()
    assert os.write(fd, line) == len(line)
    if n % 10 == 9:
        os.fsync(fd)
os.close(fd)
"""


@pytest.mark.parametrize("lines", [150, pytest.param(1000, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
def test_lines_of_four_writers_on_two_mounts(mount: Callable[..., Mount], bucket: str, s3: Any, server: Any, lines: int) -> None:
    if server.kind != "rgw":
        pytest.skip("no append uploads, no conditions: writers on two hosts cannot exclude each other")
    mounts = [mount(), mount()]
    writers: list[subprocess.Popen[str]] = [
        python(WRITER, mounts[number % 2].path / "log", f"writer{number}", str(lines)) for number in range(4)
    ]
    join(*writers, timeout=600)
    found = Counter(s3.get_object(Bucket=bucket, Key="log")["Body"].read().decode().splitlines())
    expected = {f"writer{number} {n} {'x' * (n % 50)}" for number in range(4) for n in range(lines)}
    assert set(found) - expected == set(), "lines that nobody wrote"
    assert expected - set(found) == set(), "lines are lost"
    assert {line for line, times in found.items() if times > 1} == set(), "lines are there twice"
    for living in mounts:
        with (living.path / "log").open() as log:
            assert Counter(log.read().splitlines()) == found


def test_records_of_a_page_from_two_mounts(mount: Callable[..., Mount], bucket: str, s3: Any, server: Any) -> None:
    """By their offsets alone, such records could be pages of a mapping that was made of the file before it grew."""
    if server.kind != "rgw":
        pytest.skip("no append uploads, no conditions: writers on two hosts cannot exclude each other")
    mounts = [mount(), mount()]
    (mounts[0].path / "log").open("ab").close()
    logs = [os.open(living.path / "log", os.O_RDWR | os.O_APPEND) for living in mounts]
    records = [bytes([letter]) * 4096 for letter in b"aAbBcCdDeE"]
    for number, record in enumerate(records):
        os.write(logs[number % 2], record)
        os.fsync(logs[number % 2])
    for log in logs:
        os.close(log)
    assert s3.get_object(Bucket=bucket, Key="log")["Body"].read() == b"".join(records)


def test_who_opens_beside_an_idle_writer_reads_what_another_host_has_written(mount: Callable[..., Mount]) -> None:
    here, there = mount(), mount()
    log = here.path / "log"
    with log.open("a") as writer:
        writer.write("mine\n")
        writer.flush()
        os.fsync(writer.fileno())
        with (there.path / "log").open("a") as other:
            other.write("another's, which is longer\n")
        assert log.read_text() == "mine\nanother's, which is longer\n"
        with log.open() as reader:
            assert reader.readline() == "mine\n"
            writer.write("mine again\n")
            writer.flush()
            assert log.read_text().endswith("mine again\n"), "a write is seen by everybody here at once"
            os.fsync(writer.fileno())
        assert log.read_text() == "mine\nanother's, which is longer\nmine again\n"


def test_a_promised_line_is_delivered_behind_another_hosts_when_the_mount_is_gone_already(
    mount: Callable[..., Mount], bucket: str, s3: Any, server: Any
) -> None:
    """The kernel has no file any more whose size it could be told to forget."""
    if server.kind != "rgw":
        pytest.skip("no append uploads, no conditions: writers on two hosts cannot exclude each other")
    here, there = mount(writeback="1h"), mount()
    with (here.path / "log").open("a") as log:
        log.write("mine\n")
        log.flush()
        os.fsync(log.fileno())
        log.write("promised\n")
    with (there.path / "log").open("a") as log:
        log.write("another's\n")
    here.stop()
    assert s3.get_object(Bucket=bucket, Key="log")["Body"].read() == b"mine\nanother's\npromised\n"
