"""An append of which no answer came: wherever the file is moved then and whatever becomes of it, its bytes are there once."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.fs.mounting import Mount
from tests.fs.running import refused
from tests.fs.test_attributes_meanwhile import body
from tests.proxy import Proxy, answer

Mounting = Callable[..., Mount]
TOLD = (errno.EIO, errno.ETIMEDOUT, errno.EAGAIN, errno.EBUSY)


class LostAppend:
    """The server appends to *key* at *position*, the answer is lost, and then nothing is heard of it. See Proxy.intercept."""

    def __init__(self, key: str, position: int) -> None:
        self._key = key
        self._position = f"position={position}"
        self.lost = False

    def __call__(self, method: str, target: str) -> bytes | str | None:
        path, _, query = target.partition("?")
        if not path.endswith(self._key):
            return None
        if self.lost:
            return answer(503, "ServiceUnavailable")
        if method == "PUT" and self._position in query.split("&"):
            self.lost = True
            return "lost"
        return None


@pytest.fixture
def on_ceph(server: Any) -> None:
    """Append uploads are Ceph's."""
    if server.kind != "rgw":
        pytest.skip("append uploads are Ceph's")


def moved_away(living: Mount, moved: str) -> str:
    """Rename old/log, or its directory, or nothing; returns where it is."""
    if moved == "the file":
        os.rename(living.path / "old/log", living.path / "old/g")
        return "old/g"
    if moved == "its directory":
        os.rename(living.path / "old", living.path / "new")
        return "new/log"
    return "old/log"


@pytest.mark.parametrize("then", ["the tail is edited", "what was there is edited", "more is appended", "nothing more"])
@pytest.mark.parametrize("moved", ["the file", "its directory", "nothing"])
@pytest.mark.parametrize("tries", [1, 2])
@pytest.mark.parametrize("half", [b"", b"half a "])
def test_what_is_moved_and_changed_after_it(
    on_ceph: None, proxy: Proxy, mount: Mounting, bucket: str, s3: Any, half: bytes, tries: int, moved: str, then: str
) -> None:
    """*half* is written after the last fsync, before it is moved."""
    living = mount(url=proxy.url, retries=0)
    living.forgive("ERROR zosfs.content.content: old/log: ")
    (living.path / "old").mkdir()
    with (living.path / "old/log").open("ab") as log:
        log.write(b"first\n")
    there = b"first\n"
    with (living.path / "old/log").open("ab", buffering=0) as log:
        for line in (b"second\n", b"the third\n")[:tries]:
            log.write(line)
            lost = proxy.intercept = LostAppend("old/log", len(there))
            refused(TOLD, os.fsync, log.fileno())
            assert lost.lost
            proxy.intercept = None
            there += line
            assert body(s3, bucket, "old/log") == there
        expected = there + half
        if half:
            log.write(half)
        key = moved_away(living, moved)
        if half:
            assert body(s3, bucket, key) == there
        if then == "more is appended":
            log.write(b"more\n")
            expected += b"more\n"
        elif "edited" in then:
            offset = 6 if "tail" in then else 0
            with (living.path / key).open("r+b", buffering=0) as editor:
                editor.seek(offset)
                editor.write(b"EDIT")
            expected = expected[:offset] + b"EDIT" + expected[offset + 4 :]
    assert body(s3, bucket, key) == expected
    assert (living.path / key).read_bytes() == expected
    living.again()
    assert [each["Key"] for each in s3.list_objects(Bucket=bucket)["Contents"] if not each["Key"].endswith("/")] == [key]
