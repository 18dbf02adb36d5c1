"""What a close could not deliver: when it is tried again, who is told, and that nobody sees half of what is written meanwhile."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from tests.fs.mounting import Mount, wait_for
from tests.fs.running import OPENAT, RENAME, asleep, in_the_kernel, refused
from tests.proxy import Proxy, answer

Mounting = Callable[..., Mount]
pytestmark = pytest.mark.long_on("weed")


class Unwilling:
    """A server that changes no object for now. See Proxy.intercept."""

    TOLD = (errno.EIO, errno.EBUSY, errno.EAGAIN)

    def __call__(self, method: str, target: str) -> bytes | None:
        return answer(503, "ServiceUnavailable") if method in ("PUT", "POST") else None


def fail_to_close(living: Mount, name: str, content: bytes) -> None:
    """Write *name* while the server is `Unwilling`; returns when nobody has it open any more and it is to be tried again."""
    refused(Unwilling.TOLD, (living.path / name).write_bytes, content)
    wait_for(lambda: f"{name} is not delivered yet" in living.log(), 60, f"{name} to be closed")


@pytest.mark.parametrize("flags", [os.O_WRONLY | os.O_TRUNC, os.O_RDWR], ids=["truncated", "half written"])
def test_what_is_rewritten_after_a_failed_close_is_shown_when_that_program_closes_it(
    flags: int, proxy: Proxy, mount: Mounting, bucket: str, s3: Any
) -> None:
    for key in ("f", "g"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"what was there")
    living = mount(url=proxy.url, retries=0)
    living.forgive("ERROR zosfs.content.content: [fg]: ")
    proxy.intercept = Unwilling()
    fail_to_close(living, "f", b"not delivered")
    with os.fdopen(os.open(living.path / "f", flags), "wb", buffering=0) as f:
        if not flags & os.O_TRUNC:
            f.write(b"NOT ")
        fail_to_close(living, "g", b"tried after f")
        proxy.intercept = None
        wait_for(lambda: s3.get_object(Bucket=bucket, Key="g")["Body"].read() == b"tried after f", 60, "what is tried again")
        assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"what was there"
        f.write(b"DELIVERED")
    assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == (b"DELIVERED" if flags & os.O_TRUNC else b"NOT DELIVERED")


@pytest.mark.parametrize("dup", [False, True], ids=["another", "the same"])
def test_what_a_failed_close_left_is_delivered_although_somebody_has_the_file_open_to_write(
    dup: bool, proxy: Proxy, mount: Mounting, bucket: str, s3: Any
) -> None:
    """Who writes nothing is in the middle of nothing; who has written since is, and closes it."""
    for key in ("f", "g"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"what was there")
    living = mount(url=proxy.url, retries=0)
    living.forgive("ERROR zosfs.content.content: [fg]: ")
    os.listdir(living.path)
    with ExitStack() as open_still:
        proxy.intercept = Unwilling()
        for name in ("g", "f"):
            written = os.open(living.path / name, os.O_RDWR)
            kept = os.dup(written) if dup else os.open(living.path / name, os.O_RDWR)
            open_still.callback(os.close, kept)
            os.write(written, b"WHAT")
            refused(Unwilling.TOLD, os.close, written)
            if name == "g":
                os.pwrite(kept, b"half", 5)
        proxy.intercept = None
        wait_for(lambda: s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"WHAT was there", 60, "what was left to be delivered")
        assert s3.get_object(Bucket=bucket, Key="g")["Body"].read() == b"what was there"
    assert s3.get_object(Bucket=bucket, Key="g")["Body"].read() == b"WHAT halfthere"


def test_a_close_that_wrote_nothing_delivers_what_a_failed_close_left_or_says_why_not(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any
) -> None:
    living = mount(url=proxy.url, retries=0)
    living.forgive("ERROR zosfs.content.content: f: ")
    os.listdir(living.path)
    proxy.intercept = Unwilling()
    fail_to_close(living, "f", b"precious")
    refused(Unwilling.TOLD, os.close, os.open(living.path / "f", os.O_RDWR))
    fd = os.open(living.path / "f", os.O_RDWR)
    proxy.intercept = None
    os.close(fd)
    assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"precious"


FULL = """
import errno, zosfs.content.journal_entry
async def full(self):
    raise OSError(errno.ENOSPC, "the disk is full")
zosfs.content.journal_entry.JournalEntry.promise = full
"""


def test_what_could_not_be_promised_is_delivered_later_where_nobody_is_writing_it(mount: Mounting, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=b"what was there")
    living = mount(writeback="1h", patched=FULL)
    living.forgive("ERROR zosfs.content.content: f: ")
    refused(errno.ENOSPC, (living.path / "f").write_bytes, b"not promised")
    wait_for(lambda: s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"not promised", 60, "the bytes to be delivered")


class Gates:
    """Each PUT of *key* has a gate that it waits at, and all else behind it; the first is refused then. See Proxy.intercept."""

    def __init__(self, key: str, gates: int) -> None:
        self._key = key
        self.reached = 0
        self.open = [threading.Event() for _ in range(gates)]

    def __call__(self, method: str, target: str) -> bytes | None:
        if method != "PUT" or not target.endswith(self._key):
            return None
        self.reached += 1
        if self.reached > len(self.open):
            return None
        self.open[self.reached - 1].wait(60)
        return answer(503, "ServiceUnavailable") if self.reached == 1 else None


def test_a_last_close_that_waits_leaves_the_file_to_who_opens_it_to_rewrite_it_meanwhile(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any
) -> None:
    """Behind a close that fails wait, in this order: a renaming, which delivers; who opens the file with O_TRUNC; and the last close."""
    s3.put_object(Bucket=bucket, Key="f", Body=b"what was there")
    living = mount(url=proxy.url, retries=0)
    living.forgive("ERROR zosfs.content.content: f: ")
    path = living.path / "f"
    closing = os.open(path, os.O_WRONLY)
    os.pwrite(closing, b"THERE", 9)
    gates = proxy.intercept = Gates("/f", 2)
    with ThreadPoolExecutor(3) as pool:
        closed = pool.submit(os.close, closing)
        wait_for(lambda: gates.reached == 1, 60, "the close to be delivering")
        threads: list[int] = []

        def told(call: Callable[..., Any], *args: Any) -> Any:
            threads.append(threading.get_native_id())
            return call(*args)

        assert not (living.path / "g").exists()  # or the kernel would ask for it first
        renamed = pool.submit(told, os.rename, path, living.path / "g")
        wait_for(lambda: threads and in_the_kernel(RENAME, threads[0]) and asleep(threads[0]), 60, "the file to be renamed")
        for _ in range(3):
            living.counters()  # behind the question of the rename
        opened = pool.submit(told, os.open, path, os.O_WRONLY | os.O_TRUNC)
        wait_for(lambda: threads[1:] and in_the_kernel(OPENAT, threads[1]), 60, "the file to be opened")
        gates.open[0].set()
        refused(Unwilling.TOLD, closed.result)
        wait_for(lambda: gates.reached == 2, 60, "what the failed close left to be delivered")
        living.counters()  # the kernel has told of the last close before it asks for these
        gates.open[1].set()
        renamed.result()
        with os.fdopen(opened.result(), "wb", buffering=0) as f:
            os.chmod(living.path / "g", 0o640)  # behind what the failed close leaves
            assert s3.get_object(Bucket=bucket, Key="g")["Body"].read() == b"what was THERE"
            assert gates.reached == 2
            f.write(b"rewritten")
    assert s3.get_object(Bucket=bucket, Key="g")["Body"].read() == b"rewritten"


def test_what_the_server_can_do_and_did_not_tell_while_it_was_mounted_is_asked_at_the_next_change(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any
) -> None:
    """Or a close would look whether others changed the object, and overwrite what comes between the look and the upload."""
    proxy.intercept = lambda method, target: "lost" if method == "PUT" and ".zosfs-probe-" in target else None
    living = mount(url=proxy.url)
    proxy.intercept = None
    (living.path / "f").write_bytes(b"new")
    (sent,) = (head for head in proxy.heads if head.startswith(f"put /{bucket}/f "))
    assert "if-none-match: *" in sent
    assert s3.list_objects(Bucket=bucket)["Contents"][0]["Key"] == "f"
