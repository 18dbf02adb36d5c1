"""An append of which no answer came: wherever the file is moved then and whatever becomes of it, its bytes are there once."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.fs.mounting import Mount, wait_for
from tests.fs.running import refused
from tests.fs.test_attributes_meanwhile import SECOND_CLASS, body, tags_of
from tests.fs.test_tags_and_acls import GROUPS, granted
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


class AppendInTheEnd:
    """The server appends to *key* at *position*; the answer is lost, and what is asked then waits for the daemon's death. See
    Proxy.intercept."""

    def __init__(self, key: str, position: int) -> None:
        self._key = key
        self._position = f"position={position}"
        self._reached = False
        self.dead = threading.Event()

    def __call__(self, method: str, target: str) -> str | None:
        path, _, query = target.partition("?")
        if not path.endswith(self._key):
            return None
        if self._reached:
            self.dead.wait(120)
            return "reset"
        self._reached = method == "PUT" and self._position in query.split("&")
        return "lost" if self._reached else None


def killed_when_appended(living: Mount, proxy: Proxy, log: Any, append: AppendInTheEnd, done: Callable[[], bool]) -> None:
    """fsync of *log* brings the *append* about, which the daemon does not live to hear of."""
    gone = (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)
    proxy.intercept = append
    with ThreadPoolExecutor(1) as pool:
        synced = pool.submit(refused, gone, os.fsync, log.fileno())
        wait_for(done, 60, "the append to be carried out")
        living.kill()
        append.dead.set()
        synced.result()
    proxy.intercept = None
    refused(gone, log.close)


def fail_to_append(proxy: Proxy, log: Any, line: bytes, lost: Any) -> None:
    """Write *line*, the fsync of which gets no answer because of *lost*."""
    log.write(line)
    proxy.intercept = lost
    refused(TOLD, os.fsync, log.fileno())
    proxy.intercept = None


def test_the_rest_of_a_line_that_another_host_has_made_anew_is_appended_once_although_the_daemon_dies(
    on_ceph: None, proxy: Proxy, mount: Mounting, bucket: str, s3: Any
) -> None:
    """What of the tail is there already was found by looking: the journal says how much that was."""
    s3.put_object(Bucket=bucket, Key="log", Body=b"old\n")
    living, there = mount(url=proxy.url, retries=0), mount()
    living.forgive("ERROR zosfs.content.content: log: ")
    put: list[str] = []

    def lost(method: str, target: str) -> bytes | str | None:
        if put:
            return answer(503, "ServiceUnavailable") if target.endswith("/log") else None
        if method == "PUT" and target.endswith("/log"):
            put.append(target)
            return "lost"
        return None

    with (living.path / "log").open("ab", buffering=0) as log:
        fail_to_append(proxy, log, b"second\n", lost)
        assert body(s3, bucket, "log") == b"old\nsecond\n"
        (there.path / "log").unlink()
        with (there.path / "log").open("ab") as other:
            other.write(b"old\nsecond\n")
        log.write(b"third\n")
        whole = b"old\nsecond\nthird\n"
        killed_when_appended(living, proxy, log, AppendInTheEnd("/log", 11), lambda: body(s3, bucket, "log") == whole)
    living.start()
    living.stop()
    assert body(s3, bucket, "log") == whole


@pytest.mark.parametrize("then", ["edited", "delivered"])
def test_an_append_behind_a_part_that_had_landed_and_a_daemon_that_dies(
    on_ceph: None, proxy: Proxy, mount: Mounting, bucket: str, s3: Any, then: str
) -> None:
    living = mount(url=proxy.url, retries=0)
    living.forgive("ERROR zosfs.content.content: log: ")
    with (living.path / "log").open("ab") as log:
        log.write(b"old\n")
    with (living.path / "log").open("ab", buffering=0) as log:
        fail_to_append(proxy, log, b"second\n", LostAppend("log", 4))
        log.write(b"third\n")
        whole = b"old\nsecond\nthird\n"
        killed_when_appended(living, proxy, log, AppendInTheEnd("/log", 11), lambda: body(s3, bucket, "log") == whole)
    if then == "edited":
        proxy.intercept = lambda method, target: answer(503, "ServiceUnavailable") if target.endswith("/log") else None
    living.start()
    if then == "edited":
        with (living.path / "log").open("r+b", buffering=0) as editor:
            editor.seek(4)
            editor.write(b"SECOND")
            proxy.intercept = None
        whole = b"old\nSECOND\nthird\n"
    living.stop()
    assert body(s3, bucket, "log") == whole


@pytest.mark.parametrize("moved", ["the file", "its directory"])
def test_a_log_whose_first_append_got_no_answer_is_moved(
    on_ceph: None, proxy: Proxy, mount: Mounting, bucket: str, s3: Any, moved: str
) -> None:
    living = mount(url=proxy.url, retries=0)
    living.forgive("ERROR zosfs.content.content: old/log: ")
    (living.path / "old").mkdir()
    with (living.path / "old/log").open("ab", buffering=0) as log:
        made: list[str] = []

        def lost(method: str, target: str) -> bytes | str | None:
            if len(made) == 2:
                return answer(503, "ServiceUnavailable") if "/old/log" in target else None
            if method == "PUT" and "/old/log?" in target:
                made.append(target)
            return "lost" if len(made) == 2 else None

        fail_to_append(proxy, log, b"first\n", lost)
        assert body(s3, bucket, "old/log") == b"first\n"
        log.write(b"second\n")
        key = moved_away(living, moved)
    assert body(s3, bucket, key) == b"first\nsecond\n"
    living.again()
    assert [each["Key"] for each in s3.list_objects(Bucket=bucket)["Contents"] if not each["Key"].endswith("/")] == [key]


@pytest.mark.parametrize("half", [b"", b"half a "])
def test_who_reads_after_it_gets_all(on_ceph: None, proxy: Proxy, mount: Mounting, bucket: str, s3: Any, half: bytes) -> None:
    """What is there has another ETag than the object that is appended to, by our own doing."""
    living = mount(url=proxy.url, retries=0)
    living.forgive("ERROR zosfs.content.content: log: ")
    path = living.path / "log"
    with path.open("ab") as log:
        log.write(b"first\n")
    with path.open("ab", buffering=0) as log:
        fail_to_append(proxy, log, b"second\n", LostAppend("log", 6))
        if half:
            log.write(half)
        assert path.read_bytes() == b"first\nsecond\n" + half
        assert body(s3, bucket, "log") == b"first\nsecond\n"
    assert body(s3, bucket, "log") == b"first\nsecond\n" + half


def attribute_is(s3: Any, bucket: str, key: str, name: str) -> bool:
    """Whether the object has what `test_attributes_set_after_it` sets."""
    found = s3.head_object(Bucket=bucket, Key=key)
    return {
        "storage-class": lambda: found.get("StorageClass") == SECOND_CLASS,
        "tag.team": lambda: tags_of(s3, bucket, key) == {"team": "blue"},
        "acl": lambda: (GROUPS[1], "READ") in granted(s3.get_object_acl(Bucket=bucket, Key=key)),
        "meta.kind": lambda: found["Metadata"].get("kind") == "log",
        "mode": lambda: int(found["Metadata"]["mode"]) & 0o777 == 0o600,
    }[name]()


@pytest.mark.parametrize("then", ["more is appended", "what was there is edited", "nothing more", "killed"])
@pytest.mark.parametrize("attribute", ["storage-class", "tag.team", "acl", "meta.kind", "mode"])
@pytest.mark.parametrize("half", [b"", b"half a "])
@pytest.mark.parametrize("options", [{}, {"writeback": "1h"}], ids=["default", "writeback"])
def test_attributes_set_after_it(
    on_ceph: None, proxy: Proxy, mount: Mounting, bucket: str, s3: Any, options: dict[str, str], half: bytes, attribute: str, then: str
) -> None:
    """The object has the bytes already, and is rewritten for some of them."""
    living = mount(url=proxy.url, retries=0, **options)
    living.forgive("ERROR zosfs.content.content: log: ")
    path = living.path / "log"
    with path.open("ab", buffering=0) as log:
        log.write(b"first\n")
        os.fsync(log.fileno())
    log = path.open("ab", buffering=0)
    fail_to_append(proxy, log, b"second\n", LostAppend("log", 6))
    assert body(s3, bucket, "log") == b"first\nsecond\n"
    if half:
        log.write(half)
    if attribute == "mode":
        path.chmod(0o600)
    else:
        value = {"storage-class": SECOND_CLASS, "tag.team": "blue", "acl": f"read=uri={GROUPS[1]}", "meta.kind": "log"}[attribute]
        os.setxattr(path, f"user.zos.{attribute}", value.encode())
    expected = b"first\nsecond\n" + half
    assert path.read_bytes() == expected
    assert body(s3, bucket, "log") in (b"first\nsecond\n", expected)
    if then == "killed":
        living.kill()
        refused((errno.ENOTCONN, errno.ECONNABORTED), log.close)
        living.start()
        expected = b"first\nsecond\n"  # what was not acknowledged may be lost
    elif then == "more is appended":
        log.write(b"more\n")
        expected += b"more\n"
    elif then == "what was there is edited":
        with path.open("r+b", buffering=0) as editor:
            editor.write(b"FIRST")
        expected = b"FIRST" + expected[5:]
    log.close()
    living.stop()
    found = body(s3, bucket, "log")
    assert found == expected or (then == "killed" and found == expected + half)
    if then != "killed" or attribute not in ("meta.kind", "mode"):  # which go to the store with what is written
        assert attribute_is(s3, bucket, "log", attribute)
