"""Directories of which the store knows nothing, as all that lies in them is promised and not delivered: they are there like others."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.fs.mounting import Mount, wait_for
from tests.fs.running import run
from tests.fs.test_attributes_meanwhile import body

Mounting = Callable[..., Mount]


@pytest.mark.parametrize("ttl", [0, pytest.param(0.2, marks=pytest.mark.long_on("weed"))])
@pytest.mark.parametrize("options", [{}, {"posix": False}], ids=["posix", "noposix"])
@pytest.mark.parametrize("by", ["others", "us"])
def test_a_directory_that_only_a_promised_file_keeps_stays(
    mount: Mounting, bucket: str, s3: Any, ttl: float, options: dict[str, bool], by: str
) -> None:
    """The store knows nothing at its key, nor below it."""
    s3.put_object(Bucket=bucket, Key="d/e/x", Body=b"the last one there")
    living = mount(writeback="1h", metadata_ttl=ttl, negative_ttl=ttl, **options)
    top = living.path
    (top / "d/e/f").write_bytes(b"promised")
    if by == "us":
        (top / "d/e/x").unlink()
    else:
        s3.delete_object(Bucket=bucket, Key="d/e/x")
    wait_for(lambda: not (top / "d/e/x").exists(), 60, "the other file to be gone")
    assert "Contents" not in s3.list_objects_v2(Bucket=bucket)
    looks = {
        "names": lambda: (os.listdir(top), os.listdir(top / "d"), os.listdir(top / "d/e")) == (["d"], ["e"], ["f"]),
        "walk": lambda: sorted(run("find", top, "-printf", "%P ").split()) == ["d", "d/e", "d/e/f"],
        "stat": lambda: stat.S_ISDIR(os.stat(top / "d/e").st_mode) and stat.S_ISDIR(os.stat(top / "d").st_mode),
        "read": lambda: (top / "d/e/f").read_bytes() == b"promised",
        "made": lambda: (top / "d/e/g").write_bytes(b"more") and not (top / "d/e/g").unlink(),
    }
    for first in looks:
        for look in (first, *looks):
            time.sleep(ttl * 1.5)  # what is known is not believed any more
            assert looks[look](), look
    living.stop()
    assert body(s3, bucket, "d/e/f") == b"promised"


def test_a_directory_that_only_a_promised_file_keeps_is_not_taken_for_anothers_file(mount: Mounting, bucket: str, s3: Any) -> None:
    """Others may put one at the directory's name, as there is nothing in the store that forbids it."""
    s3.put_object(Bucket=bucket, Key="d/x", Body=b"the last one there")
    living = mount(writeback="1h", metadata_ttl=0, negative_ttl=0)
    (living.path / "d/f").write_bytes(b"promised")
    s3.delete_object(Bucket=bucket, Key="d/x")
    s3.put_object(Bucket=bucket, Key="d", Body=b"another's")
    for _ in range(2):
        assert (living.path / "d/f").read_bytes() == b"promised"
        assert stat.S_ISDIR(os.stat(living.path / "d").st_mode)
    assert sorted(os.listdir(living.path)) == [".zos~file~d", "d"]
    living.stop()
    assert (body(s3, bucket, "d"), body(s3, bucket, "d/f")) == (b"another's", b"promised")
