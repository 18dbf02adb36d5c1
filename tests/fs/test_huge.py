"""A file larger than one PUT may carry (5 GiB): written in parts, read back, edited in place, gone again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from tests.fs.mounting import Mount
from tests.fs.running import noise, run

MIB = 1 << 20
GIB = 1 << 30


@pytest.mark.long
def test_six_gibibytes_by_multipart(mount: Callable[..., Mount], bucket: str, s3: Any, server: Any) -> None:
    if server.kind != "rgw":
        pytest.skip("once is enough")
    living = mount()
    block, digest = noise(4 * MIB), hashlib.sha256()
    path = living.path / "huge"
    with path.open("wb", buffering=0) as f:
        for n in range(6 * GIB // len(block)):
            piece = n.to_bytes(8, "big") + block[8:]
            digest.update(piece)
            assert f.write(piece) == len(piece)
    head = s3.head_object(Bucket=bucket, Key="huge")
    assert head["ContentLength"] == 6 * GIB
    assert "-" in head["ETag"], "an upload in parts"
    living.stop()
    run("rm", "-r", living.cache_dir)
    living.start()
    assert path.stat().st_size == 6 * GIB
    assert run("sha256sum", path, timeout=1800).split()[0] == digest.hexdigest()
    with living.moved() as growth, path.open("r+b") as f:
        f.seek(5 * GIB + 12345)
        f.write(b"edited")
    assert growth["bytes_sent"] + growth["bytes_received"] <= 16 * MIB
    with path.open("rb") as f:
        f.seek(5 * GIB + 12340)
        assert f.read(16)[5:11] == b"edited"
    path.unlink()
