"""A directory of very many names gives its first ones after the first page, and is read no further than somebody reads."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.fs.mounting import Mount, pages_of, wait_for
from tests.fs.running import put_many, run
from tests.proxy import Proxy
from zosfs.tree.by_name import EACH
from zosfs.tree.spread import IN_VAIN

Mounting = Callable[..., Mount]


class Crowd:
    """The answers of a bucket in which *count* objects lie under ``d/``; pages behind the first wait for `more`."""

    def __init__(self, bucket: str, count: int) -> None:
        self.count = count
        self.pages = 0
        self.more = threading.Event()
        self.overtaken = False
        self._bucket = bucket

    def answer(self, method: str, target: str) -> bytes | None:
        """What a Proxy's `intercept` is to return."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(target).query, keep_blank_values=True).items()}
        if method != "GET" or query.get("prefix") != "d/" or query.get("max-keys") != "1000":
            return None
        marker = query.get("marker", "")
        if marker and not self.more.wait(60):
            self.overtaken = True
        self.pages += 1
        first = int(marker.removeprefix("d/f")) + 1 if marker else 0
        last = min(first + 1000, self.count)
        rows = "".join(
            f"<Contents><Key>d/f{n:07}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;{n:032x}&quot;</ETag>"
            "<Size>3</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for n in range(first, last)
        )
        onward = f"<IsTruncated>true</IsTruncated><NextMarker>d/f{last - 1:07}</NextMarker>" if last < self.count \
            else "<IsTruncated>false</IsTruncated>"  # fmt: skip
        body = (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{self._bucket}</Name><Prefix>d/</Prefix><Marker>{marker}</Marker><MaxKeys>1000</MaxKeys>"
            f"<EncodingType>url</EncodingType>{onward}{rows}</ListBucketResult>"
        ).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        return head.encode() + body


def resident(living: Mount) -> int:
    """Bytes of memory that the daemon uses."""
    status = Path(f"/proc/{living.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) << 10


@pytest.mark.long_on("weed")
def test_the_first_names_of_a_million_need_one_page(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="d/", Body=b"")
    living = mount(url=proxy.url, posix=False)
    os.stat(living.path / "d")
    crowd = Crowd(bucket, 1_000_000)
    proxy.intercept = crowd.answer
    with os.scandir(living.path / "d") as names:
        assert next(names).name == "f0000000"
        assert crowd.pages == 1
        crowd.more.set()
        for _ in range(5000):
            next(names)
    assert not crowd.overtaken, "the first name waited for the second page"
    wait_for(lambda: living.counters()["requests_list"] >= crowd.pages, 10, "the pages to be counted")
    read, began = crowd.pages, time.monotonic()
    wait_for(lambda: crowd.pages > read + 8 or time.monotonic() - began > 1.5, 10, "nobody to ask for more")
    assert crowd.pages <= 16, "pages are fetched for readers only, and a few ahead"
    proxy.intercept = None


SMALL_PAGES = pages_of(50)


def put_all(s3: Any, bucket: str, keys: list[str]) -> None:
    put_many(s3, bucket, dict.fromkeys(keys, b"x"))


def test_several_pages_at_once_are_what_one_after_the_other_would_be(mount: Mounting, bucket: str, s3: Any) -> None:
    names = {
        "numbered": [f"file{n:04}" for n in range(300)], "unpadded": [f"{n}.jpg" for n in range(225)],
        "hashed": [hashlib.md5(b"%d" % n).hexdigest() for n in range(225)],
        "mixed": [f"{n:03}-dir/f" if n > 150 and n % 25 == 0 else f"{n:03}.txt" for n in range(225)],
    }  # fmt: skip
    put_all(s3, bucket, [f"{top}/{name}" for top in names for name in names[top]])
    living = mount(posix=False, patched=SMALL_PAGES)
    for top, inside in names.items():
        os.stat(living.path / top)
        with living.requests() as spent:
            shown = os.listdir(living.path / top)
        assert sorted(shown) == sorted(name.partition("/")[0] for name in inside)
        pages = -(-len(inside) // 50)
        assert spent["list"] <= (pages if top == "numbered" else 2 * pages) + IN_VAIN, top


def test_names_of_a_large_directory_asked_for_one_by_one(mount: Mounting, bucket: str, s3: Any) -> None:
    names = sorted(f"{n:03}-dir" if n % 25 == 7 else f"{n:03}ä.txt" if n % 10 == 3 else f"{n:03}.txt" for n in range(300))
    put_all(s3, bucket, [f"d/{name}" + ("/f" if name.endswith("dir") else "") for name in names])
    living = mount(posix=False, patched=SMALL_PAGES)
    with living.requests() as spent:
        for name in names:
            assert (living.path / "d" / name).is_dir() == name.endswith("dir")
    assert sum(spent.values()) <= 2 * EACH + len(names) / 50 + 5, spent
    with living.requests() as spent:
        for name in names[100:200]:
            assert not (living.path / "d" / f"{name}0").exists()
            assert not (living.path / "d" / f"{name[:3]}").exists()
    assert sum(spent.values()) <= 10, spent


@pytest.mark.long_on("weed")
@pytest.mark.parametrize("new", ["a", "z"])
def test_a_directory_renamed_while_its_reader_pauses_shows_every_name(mount: Mounting, bucket: str, s3: Any, new: str) -> None:
    names = [f"f{n:03}" for n in range(175)]
    put_all(s3, bucket, [f"old/{name}" for name in names])
    few = "import zosfs.fs.directories as d; d.BATCH = 10"
    living = mount(posix=False, patched=f"{SMALL_PAGES}; {few}")
    os.stat(living.path / "old")
    with os.scandir(living.path / "old") as entries:
        shown = [next(entries).name]
        spent = living.counters()["requests_list"]
        began = time.monotonic()
        wait_for(lambda: time.monotonic() - began > 1.5, 10, "the listing to pause")
        os.rename(living.path / "old", living.path / new)
        assert living.counters()["requests_list"] - spent < 12, "it was not read to its end meanwhile"
        shown += [entry.name for entry in entries]
    assert sorted(shown) == names


@pytest.mark.long_on("weed")
def test_who_lists_after_a_hint_sees_what_it_told_of(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    put_all(s3, bucket, [f"d/f{n:02}" for n in range(20)])
    living = mount(url=proxy.url, posix=False)
    os.stat(living.path / "d")
    lists: list[str] = []

    def slow(target: str) -> int | None:
        if "prefix=d%2F" not in target or "max-keys=1000" not in target:
            return None
        lists.append(target)
        return 0 if not released.is_set() else None

    released = threading.Event()
    proxy.hold = slow
    first = threading.Thread(target=os.listdir, args=(living.path / "d",))
    first.start()
    wait_for(lambda: lists, 30, "the first listing")
    s3.put_object(Bucket=bucket, Key="d/new", Body=b"x")
    os.setxattr(living.path, "user.zos.refresh", b"d")  # the directory itself is locked by its reader
    found: list[str] = []
    second = threading.Thread(target=lambda: found.extend(os.listdir(living.path / "d")))
    second.start()
    wait_for(lambda: living.counters()["requests_list"] >= 1, 30, "both to be under way")
    began = time.monotonic()
    wait_for(lambda: time.monotonic() - began > 0.5, 10, "the second listing to be asked for, or to join the first")
    released.set()
    first.join(60)
    second.join(60)
    assert "new" in found
    assert sorted(os.listdir(living.path / "d")) == sorted([*(f"f{n:02}" for n in range(20)), "new"])


@pytest.mark.long
def test_a_million_names_are_listed_within_bounds(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="d/", Body=b"")
    living = mount(url=proxy.url, posix=False)
    os.stat(living.path / "d")
    before = resident(living)
    crowd = Crowd(bucket, 1_000_000)
    crowd.more.set()
    proxy.intercept = crowd.answer
    assert run("sh", "-c", 'ls -U "$0" | wc -l', living.path / "d", timeout=1800).strip() == "1000000"
    assert crowd.pages <= 1000 + IN_VAIN
    assert resident(living) - before < 1500 << 20
    proxy.intercept = None
