"""Directories that only others' keys make, on servers that keep them as folders of their own when the last key below is gone."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from tests.fs.mounting import Mount
from tests.fs.running import run

Mounting = Callable[..., Mount]


def test_nothing_stays_of_a_renamed_directory_without_markers(mount: Mounting, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="old/a/b/f", Body=b"x")
    living = mount()
    os.rename(living.path / "old", living.path / "new")
    living.again()
    assert os.listdir(living.path) == ["new"]
    os.rename(living.path / "new", living.path / "old")
    assert (living.path / "old/a/b/f").read_bytes() == b"x"


def test_nothing_stays_of_a_removed_directory_without_markers(mount: Mounting, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="old/a/b/f", Body=b"x")
    living = mount()
    run("rm", "-r", living.path / "old")
    living.again()
    assert os.listdir(living.path) == []
