"""Files of which only a listing has told so far: no stat has been there before something is done with them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.fs.mounting import Mount

Mounting = Callable[..., Mount]
BYTES = b"x" * 5000  # no link could be so long: the listing tells that it is a file


@pytest.mark.parametrize("posix", [True, False])
def test_a_listed_file_that_is_renamed_is_all_there(mount: Mounting, bucket: str, s3: Any, posix: bool) -> None:
    s3.put_object(Bucket=bucket, Key="old", Body=BYTES, Metadata={"mode": str(0o100600), "mtime": "5"})
    living = mount(posix=posix)
    assert os.listdir(living.path) == ["old"]
    with living.requests() as spent:
        os.rename(living.path / "old", living.path / "new")
    assert spent == {"copy": 1, "delete": 1}
    assert (living.path / "new").read_bytes() == BYTES
    told = (living.path / "new").stat()
    assert told.st_size == len(BYTES)
    if posix:
        assert (told.st_mode, told.st_mtime) == (0o100600, 5)
    else:
        assert told.st_mtime > 5


@pytest.mark.parametrize("posix", [True, False])
def test_a_listed_file_below_a_renamed_directory_is_all_there(mount: Mounting, bucket: str, s3: Any, posix: bool) -> None:
    s3.put_object(Bucket=bucket, Key="old/file", Body=BYTES, Metadata={"mode": str(0o100600), "mtime": "5"})
    living = mount(posix=posix)
    assert os.listdir(living.path / "old") == ["file"]
    os.rename(living.path / "old", living.path / "new")
    os.rename(living.path / "new/file", living.path / "new/name")
    assert (living.path / "new/name").read_bytes() == BYTES
    if posix:
        assert (living.path / "new/name").stat().st_mode == 0o100600


@pytest.mark.parametrize("posix", [True, False])
def test_what_is_done_with_a_listed_file_after_its_rename_is_done_to_all_of_it(
    mount: Mounting, bucket: str, s3: Any, posix: bool
) -> None:
    for name in ("appended", "edited", "cut"):
        s3.put_object(Bucket=bucket, Key=f"old-{name}", Body=BYTES, Metadata={"mode": str(0o100600)})
    living = mount(posix=posix)
    os.listdir(living.path)
    for name in ("appended", "edited", "cut"):
        os.rename(living.path / f"old-{name}", living.path / name)
    with (living.path / "appended").open("ab") as file:
        file.write(b"tail")
    with (living.path / "edited").open("r+b") as file:
        file.seek(100)
        file.write(b"edit")
    os.truncate(living.path / "cut", 10)
    wanted = {"appended": BYTES + b"tail", "edited": BYTES[:100] + b"edit" + BYTES[104:], "cut": BYTES[:10]}
    assert {name: (living.path / name).read_bytes() for name in wanted} == wanted
    living.again()
    assert {name: (living.path / name).read_bytes() for name in wanted} == wanted
    if posix:
        assert {(living.path / name).stat().st_mode for name in wanted} == {0o100600}
