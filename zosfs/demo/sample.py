"""The files of the demonstration's bucket: text, an image, a tree, a log, a large file. The same bytes every time.

Owns: what is in the sample. May use: zosfs.store's interface. Must not know: which server it goes to, mounts.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from zosfs.store.api import Account, ObjectHeaders

BUCKET = "sample"
LARGE = 64 << 20
README = """This is a bucket, mounted as a directory by zosfs.

Everything here is an object of a real S3 server that runs on this machine just for you. Read, write, rename, delete:
any program will do. When you are done, press Ctrl-C where you started the demo, and all of it is gone.
"""


@dataclass(frozen=True)
class Sample:
    """One object of the bucket."""

    key: str
    body: bytes
    content_type: str


def large_file() -> bytes:
    """64 MiB that do not compress."""
    return hashlib.shake_256(b"zosfs demo").digest(LARGE)


def gradient(width: int = 320, height: int = 200) -> bytes:
    """A small PNG with a gradient."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(
        b"\0" + b"".join(bytes((x * 255 // width, y * 255 // height, 160)) for x in range(width)) for y in range(height)
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def log_lines(count: int = 5000) -> bytes:
    """An access log."""
    lines = (
        f"2026-03-{1 + n // 1440 % 28:02}T{n // 60 % 24:02}:{n % 60:02}:00Z GET /item/{n * 7919 % 1000} "
        f"{(200, 200, 200, 304, 404)[n % 5]} {n * 104729 % 9000}\n"
        for n in range(count)
    )
    return "".join(lines).encode()


def samples() -> Iterator[Sample]:
    """All objects of the bucket."""
    yield Sample("readme.txt", README.encode(), "text/plain")
    yield Sample("中文 文件名.txt", "对象存储里的文件,像本地文件一样读写。\n".encode(), "text/plain")
    yield Sample("pictures/gradient.png", gradient(), "image/png")
    yield Sample("logs/access.log", log_lines(), "text/plain")
    yield Sample("large/64MiB.bin", large_file(), "application/octet-stream")
    for season, months in {"spring": (3, 4, 5), "summer": (6, 7, 8), "autumn": (9, 10, 11), "winter": (12, 1, 2)}.items():
        for month in months:
            for day in (1, 11, 21):
                text = f"{season}: day {day} of month {month}\n" * day
                yield Sample(f"diary/{season}/{month:02}/{day:02}.md", text.encode(), "text/markdown")


async def fill(account: Account) -> int:
    """Make the bucket with all samples in it and return their number. Raises StoreError."""
    await account.create_bucket(BUCKET)
    store = account.bucket(BUCKET)
    count = 0
    for sample in samples():
        await store.put(sample.key, [sample.body], ObjectHeaders(content_type=sample.content_type))
        count += 1
    return count
