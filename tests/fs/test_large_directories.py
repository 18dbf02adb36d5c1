"""A directory of very many names gives its first ones after the first page, and is read no further than somebody reads."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.fs.mounting import Mount, wait_for
from tests.fs.running import run
from tests.proxy import Proxy

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


@pytest.fixture
def proxy(server: Any) -> Iterator[Proxy]:
    """A way to the server on which the listings are made up."""
    with Proxy(server.url) as living:
        yield living


def resident(living: Mount) -> int:
    """Bytes of memory that the daemon uses."""
    status = Path(f"/proc/{living.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) << 10


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
    assert crowd.pages == 1000
    assert resident(living) - before < 1500 << 20
    proxy.intercept = None
