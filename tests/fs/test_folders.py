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


def test_nothing_stays_of_a_directory_renamed_in_a_row_of_removals(mount: Mounting, bucket: str) -> None:
    """What was removed below it is gathered: the server keeps a folder that is to go before that has gone."""
    living = mount()
    old = living.path / "old"
    old.mkdir()
    for name in "abcd":
        (old / name).write_bytes(b"x")
    for name in "abc":
        (old / name).unlink()
    assert living.counters()["gathered_deletes"] == 2
    os.rename(old, living.path / "new")
    old.write_bytes(b"a file in its place")
    assert old.read_bytes() == b"a file in its place"
    old.unlink()
    living.again()
    assert os.listdir(living.path) == ["new"]
    assert os.listdir(living.path / "new") == ["d"]


def test_nothing_stays_of_directories_removed_in_a_row(mount: Mounting, bucket: str) -> None:
    living = mount()
    for name in "abc":
        (living.path / name).mkdir()
    for name in "abc":
        (living.path / name).rmdir()
    living.again()
    assert os.listdir(living.path) == []


def test_nothing_stays_of_a_renamed_directory_that_has_names_no_document_can_carry(mount: Mounting, bucket: str) -> None:
    """They are deleted one by one, and the folder that they lie in after them."""
    living = mount()
    (living.path / "old/z\x01z").mkdir(parents=True)
    (living.path / "old/z\x01z/file").write_bytes(b"x")
    os.rename(living.path / "old", living.path / "new")
    (living.path / "old").write_bytes(b"a file in its place")
    assert (living.path / "old").read_bytes() == b"a file in its place"
    living.again()
    assert sorted(os.listdir(living.path)) == ["new", "old"]
    run("rm", "-r", living.path / "new")
    living.again()
    assert os.listdir(living.path) == ["old"]
