"""Reading through the kernel while answers are on their way: what is served early, what is given up, who waits for whom."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fs.mounting import Mount, wait_for
from tests.fs.running import noise
from tests.proxy import Proxy

KIB, MIB = 1 << 10, 1 << 20
Mounting = Callable[..., Mount]
pytestmark = pytest.mark.long_on("weed")


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
    wait_for(lambda: proxy.held >= 2, 30, "requests that run ahead")
    if leave == "closes":
        os.close(fd)
    else:
        for n in range(16):
            at = size // 2 + (n * 7 % 16) * 512 * KIB
            assert os.pread(fd, 4 * KIB, at) == data[at : at + 4 * KIB]
    wait_for(lambda: not proxy.held, 30, "the requests to be given up")
    proxy.hold = lambda target: None
    if leave == "closes":
        fd = os.open(living.path / "f", os.O_RDONLY)
    assert os.pread(fd, MIB, 0) == data[:MIB]
    os.close(fd)
    assert living.counters()["bytes_received"] < 8 * MIB


def test_a_small_reader_does_not_wait_behind_a_stream(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    stream, small = noise(MIB) * 96, noise(MIB, 1)
    s3.put_object(Bucket=bucket, Key="stream", Body=stream)
    s3.put_object(Bucket=bucket, Key="small", Body=small)
    living = mount(url=proxy.url, memory="32M", connections=8)
    with (living.path / "stream").open("rb", buffering=0) as f:
        for _ in range(24):
            assert len(f.read(MIB)) == MIB
        proxy.hold = only("stream", 0)
        reading = threading.Thread(target=lambda: [f.read(MIB) for _ in range(72)])
        reading.start()
        wait_for(lambda: proxy.held, 30, "the stream to wait for an answer")
        with (living.path / "small").open("rb", buffering=0) as other:
            for at in (700, 3, 500, 20):
                assert os.pread(other.fileno(), 4 * KIB, at * KIB) == small[at * KIB :][: 4 * KIB]
        assert reading.is_alive(), "the stream waits all the time"
        proxy.hold = lambda target: None
        reading.join()


def small_files(s3: Any, bucket: str, count: int) -> dict[str, bytes]:
    """Files of 4 KiB in `d`, made behind the mount's back."""
    files = {f"f{n:03}": noise(4 * KIB, n) for n in range(count)}
    for name, body in files.items():
        s3.put_object(Bucket=bucket, Key=f"d/{name}", Body=body)
    return files


def test_small_files_are_one_request_each(mount: Mounting, bucket: str, s3: Any) -> None:
    files = small_files(s3, bucket, 30)
    living = mount()
    for name in os.listdir(living.path / "d"):
        os.stat(living.path / "d" / name)
    with living.requests() as spent:
        for name, body in files.items():
            assert (living.path / "d" / name).read_bytes() == body
    assert spent == {"get": 30}


def read_in_turn(directory: Path, names: list[str], files: dict[str, bytes]) -> None:
    for name in names:
        assert (directory / name).read_bytes() == files[name]


def test_who_looks_before_it_opens_sees_what_was_written_in_between(mount: Mounting, bucket: str, s3: Any) -> None:
    files = small_files(s3, bucket, 12)
    living = mount()
    names = sorted(os.listdir(living.path / "d"))
    read_in_turn(living.path / "d", names[:6], files)
    new = noise(4 * KIB, 99)
    path = living.path / "d" / names[6]
    with living.requests() as spent:
        os.stat(path)
    assert spent == {"get": 1}, "taken for the beginning of an open"
    s3.put_object(Bucket=bucket, Key=f"d/{names[6]}", Body=new)
    assert path.read_bytes() == new


def test_attributes_that_came_with_the_bytes_are_those_of_the_object(mount: Mounting, bucket: str, s3: Any) -> None:
    for n in range(12):
        stored = {"mode": str(0o100640 + n % 2), "uid": str(1000 + n), "gid": "7", "mtime": str(1_500_000_000 + n)}
        s3.put_object(Bucket=bucket, Key=f"d/f{n:02}", Body=noise(4 * KIB, n), Metadata=stored, ContentType="text/x-odd")
    first, second = mount(), mount()
    names = sorted(os.listdir(first.path / "d"))
    read_in_turn(first.path / "d", names, {f"f{n:02}": noise(4 * KIB, n) for n in range(12)})

    def told(directory: Path) -> list[Any]:
        facts = [(directory / name).stat() for name in names]
        xattrs = [{key: os.getxattr(directory / name, key) for key in os.listxattr(directory / name)} for name in names]
        return [(f.st_mode, f.st_uid, f.st_gid, f.st_size, f.st_mtime_ns, f.st_ctime_ns, x) for f, x in zip(facts, xattrs, strict=True)]

    with first.requests() as spent:
        got = told(first.path / "d")
    assert spent.get("head", 0) == 0, spent
    assert got == told(second.path / "d"), "as a HEAD tells them"
    assert [facts[1] for facts in got] == [1000 + n for n in range(12)]


def test_prefetched_files_are_fetched_once(mount: Mounting, bucket: str, s3: Any) -> None:
    files = small_files(s3, bucket, 40)
    living = mount(prefetch="1h", posix=False)
    os.listdir(living.path / "d")
    with living.moved() as growth:
        for name, body in files.items():
            assert (living.path / "d" / name).read_bytes() == body
    assert growth["requests_get"] == 40
    assert growth["requests_head"] == 0
    assert growth["readahead_bytes"] >= 30 * 4 * KIB
    assert growth["readahead_wasted_bytes"] == 0


def test_prefetched_files_are_there_when_they_are_opened(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    files = small_files(s3, bucket, 12)
    living = mount(url=proxy.url, prefetch="1h", posix=False)
    living.forgive("")
    names = sorted(os.listdir(living.path / "d"))
    before = living.counters()["bytes_received"]

    def all_here() -> bool:
        now = living.counters()
        return now["requests_get"] >= 5 and now["bytes_received"] - before == now["requests_get"] * 4 * KIB

    for name in names[:3]:
        assert (living.path / "d" / name).read_bytes() == files[name]
    wait_for(all_here, 30, "what is fetched ahead")
    proxy.gone = True
    proxy.reset_all()
    assert (living.path / "d" / names[3]).read_bytes() == files[names[3]], "without the server"
    proxy.gone = False


def test_what_is_prefetched_is_believed_only_so_long(mount: Mounting, bucket: str, s3: Any) -> None:
    files = small_files(s3, bucket, 12)
    living = mount(prefetch="1s", posix=False)
    names = sorted(os.listdir(living.path / "d"))
    for name in names[:3]:
        assert (living.path / "d" / name).read_bytes() == files[name]
    new = noise(4 * KIB, 99)
    s3.put_object(Bucket=bucket, Key=f"d/{names[4]}", Body=new)
    path = living.path / "d" / names[4]
    assert path.read_bytes() in (files[names[4]], new), "one of the two, and no mixture"
    wait_for(lambda: path.read_bytes() == new, 30, "the new file")
    assert path.read_bytes() == new
    wait_for(lambda: living.counters()["readahead_wasted_bytes"] > 0, 30, "what nobody opens to be given up")


def test_a_prefetch_that_finds_another_version_is_not_used(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    files = small_files(s3, bucket, 12)
    living = mount(url=proxy.url, prefetch="1h", posix=False)
    names = sorted(os.listdir(living.path / "d"))
    new = noise(4 * KIB, 99)
    s3.put_object(Bucket=bucket, Key=f"d/{names[4]}", Body=new)  # before anything is asked ahead
    for name in names[:4]:
        assert (living.path / "d" / name).read_bytes() == files[name]
    wait_for(lambda: any(target.endswith(names[4]) for _, target in proxy.requests), 30, "it to be asked for")
    assert (living.path / "d" / names[4]).read_bytes() == new


def test_without_the_option_nothing_is_asked_for_before_its_open(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    files = small_files(s3, bucket, 12)
    living = mount(url=proxy.url)
    names = sorted(os.listdir(living.path / "d"))
    for name in names[:6]:
        assert (living.path / "d" / name).read_bytes() == files[name]
        new = noise(4 * KIB, 99)
        s3.put_object(Bucket=bucket, Key=f"d/{name}", Body=new)
        assert (living.path / "d" / name).read_bytes() == new
    got = {target.partition("?")[0].rpartition("/")[2] for method, target in proxy.requests if method == "GET"}
    assert got.isdisjoint(names[6:])
