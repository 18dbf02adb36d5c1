"""Files in and out while the way to the server does everything that a network and a busy server do: nothing of it is seen."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.fs.mischief import PATIENT, Mischief
from tests.fs.mounting import Mount
from tests.fs.running import noise
from tests.proxy import Proxy

MIB = 1 << 20


@pytest.mark.parametrize("files", [80, pytest.param(500, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
def test_files_go_in_and_out_over_a_bad_way(proxy: Proxy, mount: Callable[..., Mount], bucket: str, s3: Any, files: int) -> None:
    seed = os.environ.get("ZOSFS_TEST_SEED") or ("same" if files < 500 else os.urandom(4).hex())
    print(f"ZOSFS_TEST_SEED={seed}")
    mischief = Mischief(seed)
    living = mount(url=proxy.url, **PATIENT)
    other = mount(url=proxy.url, **PATIENT)
    chance = random.Random(seed)
    sizes = {f"f{n}": chance.choice((0, 1, 100, 4096, 30_000, 300_000)) for n in range(files)}
    for n in range(0, files, 20):
        sizes[f"f{n}"] = chance.choice((9, 13)) * MIB
    bodies = {name: noise(min(size, MIB), n) * max(1, size // MIB) for n, (name, size) in enumerate(sizes.items())}
    logs = {f"log{n}": [b"%d %d %s\n" % (n, line, noise(20, line).hex().encode()) for line in range(10)] for n in range(files // 20)}
    proxy.intercept = mischief

    def write(name: str) -> None:
        if name in logs:
            fd = os.open(living.path / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                for line in logs[name]:
                    assert os.write(fd, line) == len(line)
                    os.fsync(fd)
            finally:
                os.close(fd)
        else:
            (living.path / name).write_bytes(bodies[name])

    def read(name: str) -> bytes:
        return (other.path / name).read_bytes()

    names = [*bodies, *logs]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, names))
        came_out = dict(zip(names, pool.map(read, names), strict=True))
    proxy.intercept = None
    expected = bodies | {name: b"".join(lines) for name, lines in logs.items()}
    for name in names:
        assert s3.get_object(Bucket=bucket, Key=name)["Body"].read() == expected[name], f"{name} is not what was written"
        assert came_out[name] == expected[name], f"{name} is not what is there"
    there = {item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]}
    assert {key for key in there if not key.startswith(".zosfs-probe-")} == set(names)
    assert len(mischief.met) >= 5, mischief.met
    print(mischief.met)
