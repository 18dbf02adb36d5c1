"""How many bytes travel for a small change of a large file, and that the file is right afterwards."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.fs.mounting import Mount
from tests.fs.running import noise

MIB = 1 << 20
Mounting = Callable[..., Mount]
LONG = [pytest.mark.long, pytest.mark.timeout(900)]


@functools.cache
def block() -> bytes:
    """What the large files are made of: 8 MiB."""
    return noise(8 * MIB)


def travelled(growth: dict[str, int]) -> int:
    """Body bytes in both directions."""
    return growth["bytes_sent"] + growth["bytes_received"]


def put_by_copies(s3: Any, bucket: str, key: str, mebibytes: int) -> None:
    """An object of so many MiB (a multiple of 8), each 8 the same, that the server copies together itself."""
    s3.put_object(Bucket=bucket, Key="seed", Body=block())
    upload = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    source = {"Bucket": bucket, "Key": "seed"}
    words = {"Bucket": bucket, "Key": key, "UploadId": upload}

    def part(number: int) -> dict[str, Any]:
        done = s3.upload_part_copy(**words, PartNumber=number, CopySource=source, CopySourceRange=f"bytes=0-{8 * MIB - 1}")
        return {"PartNumber": number, "ETag": done["CopyPartResult"]["ETag"]}

    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(part, range(1, mebibytes // 8 + 1)))
    s3.complete_multipart_upload(**words, MultipartUpload={"Parts": parts})
    s3.delete_object(Bucket=bucket, Key="seed")


def pieces(s3: Any, bucket: str, key: str, size: int) -> Iterator[bytes]:
    """The object's bytes, 8 MiB at a time."""
    for at in range(0, size, 8 * MIB):
        yield s3.get_object(Bucket=bucket, Key=key, Range=f"bytes={at}-{at + 8 * MIB - 1}")["Body"].read()


@pytest.mark.parametrize(("mebibytes", "appends"), [(64, 100), pytest.param(1024, 1000, marks=LONG)])
def test_small_appends_to_a_large_log(mount: Mounting, bucket: str, s3: Any, server: Any, mebibytes: int, appends: int) -> None:
    if server.kind != "rgw":
        pytest.skip("no append uploads")
    living = mount()
    path = living.path / "log"
    with path.open("ab", buffering=0) as log:
        for _ in range(mebibytes // 8):
            log.write(block())
    lines = [noise(1024, n) for n in range(appends)]
    with living.moved() as growth, path.open("ab", buffering=0) as log:
        for line in lines:
            log.write(line)
            os.fsync(log.fileno())
    assert travelled(growth) <= 2 * appends * 1024
    assert growth["requests_append"] == appends
    assert s3.head_object(Bucket=bucket, Key="log")["ContentLength"] == mebibytes * MIB + appends * 1024
    tail = s3.get_object(Bucket=bucket, Key="log", Range=f"bytes={mebibytes * MIB - 100}-")["Body"].read()
    assert tail == block()[-100:] + b"".join(lines)


@pytest.mark.parametrize("mebibytes", [64, pytest.param(1024, marks=LONG)])
def test_a_mebibyte_changed_in_the_middle_of_a_large_file(
    mount: Mounting, bucket: str, s3: Any, server: Any, mebibytes: int
) -> None:
    if server.kind != "rgw" and mebibytes > 64:
        pytest.skip("SeaweedFS copies ranges too slowly")
    put_by_copies(s3, bucket, "f", mebibytes)
    living = mount()
    middle = mebibytes // 2 * MIB + 12345
    with living.moved() as growth, (living.path / "f").open("r+b", buffering=0) as f:
        f.seek(middle)
        f.write(noise(MIB, 9))
        os.fsync(f.fileno())
    assert travelled(growth) <= 16 * MIB
    assert growth["requests_upload_part_copy"] > 0
    for number, piece in enumerate(pieces(s3, bucket, "f", mebibytes * MIB)):
        right = block()
        if number == middle // (8 * MIB):
            at = middle % (8 * MIB)
            right = right[:at] + noise(MIB, 9) + right[at + MIB :]
        assert piece == right, f"the piece at {number * 8} MiB is wrong"
