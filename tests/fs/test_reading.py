"""Reading through the kernel while answers are on their way: what is served early, what is given up, who waits for whom."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.fs.mounting import Mount, wait_for
from tests.fs.running import noise
from tests.proxy import Proxy

KIB, MIB = 1 << 10, 1 << 20
Mounting = Callable[..., Mount]


@pytest.fixture
def proxy(server: Any) -> Iterator[Proxy]:
    """A way to the server that holds answers back. Tests name it before `mount`, so that it outlives the mount."""
    with Proxy(server.url) as living:
        yield living


def only(key: str, n: int) -> Callable[[str], int | None]:
    """Hold answers about *key* after *n* bytes."""
    return lambda target: n if target.partition("?")[0].endswith("/" + key) else None


def test_the_first_bytes_of_a_range_are_served_while_the_rest_is_on_its_way(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any
) -> None:
    data = noise(MIB)
    s3.put_object(Bucket=bucket, Key="f", Body=data)
    living = mount(url=proxy.url, max_readahead="128K")
    fd = os.open(living.path / "f", os.O_RDONLY)
    with living.requests() as spent:
        proxy.hold = only("f", 512 * KIB)
        assert os.pread(fd, 64 * KIB, 0) == data[: 64 * KIB]
        proxy.hold = lambda target: None
        assert os.pread(fd, MIB, 0) == data
    assert spent == {"get": 1}, "one range of 1 MiB"
    os.close(fd)


@pytest.mark.parametrize("leave", ["closes", "seeks away"])
def test_who_leaves_ends_the_requests_that_run_ahead(proxy: Proxy, mount: Mounting, bucket: str, s3: Any, leave: str) -> None:
    size = 32 * MIB
    data = noise(MIB) * 32
    s3.put_object(Bucket=bucket, Key="f", Body=data)
    living = mount(url=proxy.url, max_readahead="128K")
    os.stat(living.path / "f")
    proxy.hold = only("f", 160 * KIB)
    fd = os.open(living.path / "f", os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # the kernel asks for what is read, and no more
    for at in range(3):
        assert os.pread(fd, 64 * KIB, at * 64 * KIB) == data[at * 64 * KIB :][: 64 * KIB]
    wait_for(lambda: sum(target.endswith("/f") for _, target in proxy.requests) >= 3, 30, "requests that run ahead")
    held = proxy.connections
    if leave == "closes":
        os.close(fd)
    else:
        for n in range(16):
            at = size // 2 + (n * 7 % 16) * 512 * KIB
            assert os.pread(fd, 4 * KIB, at) == data[at : at + 4 * KIB]
    wait_for(lambda: proxy.connections < held, 30, "the requests to be given up")
    proxy.hold = lambda target: None
    if leave == "closes":
        fd = os.open(living.path / "f", os.O_RDONLY)
    assert os.pread(fd, MIB, 0) == data[:MIB]
    os.close(fd)
    assert living.counters()["bytes_received"] < 8 * MIB


def test_a_small_reader_does_not_wait_behind_a_stream(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    stream, small = noise(MIB) * 200, noise(MIB, 1)
    s3.put_object(Bucket=bucket, Key="stream", Body=stream)
    s3.put_object(Bucket=bucket, Key="small", Body=small)
    living = mount(url=proxy.url, memory="64M", connections=8)
    with (living.path / "stream").open("rb", buffering=0) as f:
        for _ in range(100):
            assert len(f.read(MIB)) == MIB
        asked = len(proxy.requests)
        proxy.hold = only("stream", 0)
        reading = threading.Thread(target=lambda: [f.read(MIB) for _ in range(100)])
        reading.start()
        wait_for(lambda: len(proxy.requests) >= asked + 1, 30, "the stream to wait for an answer")
        with (living.path / "small").open("rb", buffering=0) as other:
            for at in (700, 3, 500, 20):
                assert os.pread(other.fileno(), 4 * KIB, at * KIB) == small[at * KIB :][: 4 * KIB]
        assert reading.is_alive(), "the stream waits all the time"
        proxy.hold = lambda target: None
        reading.join()
