"""Attributes changed right after a file was written: few requests, nothing that was answered is lost, and nobody's work is overwritten."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.fs.mounting import Mount, wait_for
from tests.fs.running import refused, run, sync_directory
from tests.proxy import Proxy, answer
from zosfs.fs.promised_attributes import DOUBTED

Mounting = Callable[..., Mount]
pytestmark = pytest.mark.long_on("weed")

UNHURRIED = "import zosfs.fs.promised_attributes as soon; soon.QUIET = soon.LONGEST = soon.LATELY = 600.0"
"""What is promised stays promised until something asks for it."""
LOST = "changed attributes cannot be delivered"
TIMES = (1_000_000_000_500_000_000, 1_100_000_000_250_000_000)


def make(path: Path, content: bytes = b"content") -> Path:
    """A new file as rsync or unzip leaves one: attributes are set when it is closed."""
    path.write_bytes(content)
    change(path)
    return path


def change(path: Path) -> None:
    """All attributes of a file, one after the other."""
    os.utime(path, ns=TIMES)
    path.chmod(0o640)
    os.chown(path, 5, 6)


def sync(path: Path) -> None:
    """fsync(2) of a descriptor that only reads."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def stored(s3: Any, bucket: str, key: str) -> tuple[str, str, str, str]:
    """Mode, owner, group and modification time that the object has, for everybody to see."""
    metadata = s3.head_object(Bucket=bucket, Key=key)["Metadata"]
    return oct(int(metadata["mode"]) & 0o7777), metadata["uid"], metadata["gid"], metadata["mtime"]


def shown(path: Path) -> tuple[str, str, str, str]:
    """The same as stat shows it."""
    found = path.stat()
    return oct(found.st_mode & 0o7777), str(found.st_uid), str(found.st_gid), f"{found.st_mtime_ns // 10**9}.{found.st_mtime_ns % 10**9:09}"


CHANGED = ("0o640", "5", "6", "1100000000.250000000")


def no_copies(proxy: Proxy, status: int = 503, code: str = "SlowDown") -> None:
    """From now on the server takes no PUT, and no copy."""
    proxy.intercept = lambda method, target: answer(status, code) if method == "PUT" else None


def later_than(seconds: float) -> Callable[[], bool]:
    """Whether so long has passed since now."""
    until = time.monotonic() + seconds
    return lambda: time.monotonic() > until


def test_they_cost_one_request_and_come_soon(mount: Mounting, bucket: str, s3: Any) -> None:
    living = mount()
    os.listdir(living.path)
    with living.requests() as spent:
        path = make(living.path / "f")
        assert shown(path) == CHANGED
        wait_for(lambda: stored(s3, bucket, "f") == CHANGED, 10, "the delivery of the attributes")
    assert spent["put"] == 1
    assert spent["copy"] <= 3
    assert shown(path) == CHANGED
    living.again()
    assert shown(path) == CHANGED
    assert path.read_bytes() == b"content"


def test_each_at_once_if_asked_for(mount: Mounting, bucket: str, s3: Any) -> None:
    living = mount(gather_attributes=False)
    os.listdir(living.path)
    with living.requests() as spent:
        make(living.path / "f")
        assert stored(s3, bucket, "f") == CHANGED
    assert spent["copy"] == 3


def test_attributes_of_an_object_that_was_not_just_written_are_changed_at_once(mount: Mounting, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=b"content")
    path = mount(patched=UNHURRIED).path / "f"
    path.chmod(0o640)
    assert stored(s3, bucket, "f")[0] == "0o640"


@pytest.mark.parametrize("how", ["fsync", "fsync of the directory", "umount", "write", "truncate", "xattr", "version"])
def test_what_delivers_them(mount: Mounting, bucket: str, s3: Any, how: str) -> None:
    living = mount(patched=UNHURRIED)
    path = make(living.path / "f")
    assert stored(s3, bucket, "f") != CHANGED
    if how == "fsync":
        sync(path)
    elif how == "fsync of the directory":
        sync_directory(living.path)
    elif how == "umount":
        living.stop()
    elif how == "write":
        with path.open("r+b") as file:
            assert stored(s3, bucket, "f") == CHANGED
            file.write(b"C")
        assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"Content"
    elif how == "truncate":
        os.truncate(path, 3)
        assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"con"
    elif how == "xattr":
        os.setxattr(path, "user.zos.tag.a", b"b")
    else:
        os.getxattr(path, "user.zos.etag")
    mode, uid, gid, mtime = stored(s3, bucket, "f")
    assert (mode, uid, gid) == CHANGED[:3]
    assert how in ("write", "truncate") or mtime == CHANGED[3]


def test_a_renaming_carries_them(mount: Mounting, bucket: str, s3: Any) -> None:
    living = mount(patched=UNHURRIED)
    path = make(living.path / "f")
    os.setxattr(path, "user.kept", b"of the user's own")
    path.chmod(0o600)
    with living.requests() as spent:
        path.rename(living.path / "g")
    assert spent == {"copy": 1, "delete": 1}
    assert stored(s3, bucket, "g") == ("0o600", *CHANGED[1:])
    living.again()
    assert shown(living.path / "g") == ("0o600", *CHANGED[1:])
    assert os.getxattr(living.path / "g", "user.kept") == b"of the user's own"
    assert (living.path / "g").read_bytes() == b"content"
    assert os.listdir(living.path) == ["g"]


def test_a_renaming_keeps_tags_and_headers(mount: Mounting, bucket: str, s3: Any, server: Any) -> None:
    living = mount(patched=UNHURRIED)
    path = living.path / "f.html"
    path.write_bytes(b"content")
    os.setxattr(path, "user.zos.tag.team", b"blue")
    os.setxattr(path, "user.zos.content-type", b"text/x-own")
    change(path)
    path.rename(living.path / "g")
    assert stored(s3, bucket, "g") == CHANGED
    assert s3.head_object(Bucket=bucket, Key="g")["ContentType"] == "text/x-own"
    assert s3.get_object_tagging(Bucket=bucket, Key="g")["TagSet"] == [{"Key": "team", "Value": "blue"}]


def test_a_directory_takes_them_along(mount: Mounting, bucket: str, s3: Any) -> None:
    living = mount(patched=UNHURRIED)
    (living.path / "d").mkdir()
    for n in range(5):
        make(living.path / "d" / f"f{n}")
    (living.path / "d").rename(living.path / "e")
    assert [stored(s3, bucket, f"e/f{n}") for n in range(5)] == [CHANGED] * 5
    living.kill()
    living.start()
    assert [shown(living.path / "e" / f"f{n}") for n in range(5)] == [CHANGED] * 5


def test_what_is_promised_while_a_directory_is_about_to_be_renamed_goes_along(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any
) -> None:
    """The rename has begun to deliver what lies there, and waits for another file."""
    living = mount(url=proxy.url, writeback="1h", patched=UNHURRIED)
    (living.path / "d").mkdir()
    path = living.path / "d" / "f"
    with path.open("wb") as file:
        file.write(b"content")
        os.fsync(file.fileno())
    (living.path / "d" / "slow").write_bytes(b"promised")
    proxy.hold = lambda target: 0 if target == f"/{bucket}/d/slow" else None
    with ThreadPoolExecutor(1) as pool:
        renamed = pool.submit(os.rename, living.path / "d", living.path / "e")
        try:
            wait_for(lambda: proxy.held, 60, "the rename to be delivering the other file")
            change(path)
            assert stored(s3, bucket, "d/f") != CHANGED
            proxy.hold = lambda target: None
            renamed.result(60)
        except BaseException:
            living.kill()  # or the rename would be waited for
            raise
    assert stored(s3, bucket, "e/f") == CHANGED
    assert shown(living.path / "e" / "f") == CHANGED


def test_what_is_promised_of_a_file_is_not_delivered_to_what_replaces_it(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    """The renaming takes so long that its time comes, and the bytes are the same."""
    soon = 1.0
    living = mount(url=proxy.url, patched=f"import zosfs.fs.promised_attributes as soon; soon.QUIET = soon.LONGEST = {soon}")
    path = make(living.path / "f")
    (living.path / "g").write_bytes(b"content")
    (living.path / "g").chmod(0o604)

    def from_another(target: str) -> int | None:
        return 0 if target == f"/{bucket}/g" and f"x-amz-copy-source: /{bucket}/f" in proxy.heads[-1] else None

    proxy.hold = from_another
    with ThreadPoolExecutor(1) as pool:
        renamed = pool.submit(os.rename, path, living.path / "g")
        wait_for(lambda: proxy.held, 60, "the copy")
        wait_for(later_than(2 * soon), 10, "what was promised of the other file to be due")
        proxy.hold = lambda target: None
        renamed.result()
    assert shown(living.path / "g") == CHANGED
    living.stop()
    assert stored(s3, bucket, "g") == CHANGED


def test_what_takes_the_place_of_a_file_does_not_get_its_attributes(mount: Mounting, bucket: str, s3: Any) -> None:
    living = mount(patched=UNHURRIED)
    (living.path / "g").write_bytes(b"content")
    (living.path / "g").chmod(0o604)
    make(living.path / "f").rename(living.path / "g")
    assert stored(s3, bucket, "g") == CHANGED
    (living.path / "g").unlink()
    (living.path / "g").write_bytes(b"content")
    (living.path / "g").chmod(0o602)
    (promises,) = living.cache_dir.rglob("headers")
    assert promises.stat().st_size > 0
    (living.path / "g").unlink()
    assert promises.stat().st_size == 0, "nothing is promised of a file that is gone"
    s3.put_object(Bucket=bucket, Key="g", Body=b"content", Metadata={"mode": str(0o100611)})
    living.kill()
    living.start()
    assert shown(living.path / "g")[0] == "0o611"


def test_a_killed_daemon_loses_none(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    living = mount(url=proxy.url, patched=UNHURRIED)
    for n in range(4):
        make(living.path / f"f{n}")
    (living.path / "f3").unlink()
    os.setxattr(living.path / "f2", "user.zos.tag.team", b"blue")  # which delivers
    (living.path / "f2").chmod(0o604)
    assert stored(s3, bucket, "f0") != CHANGED
    living.kill()
    s3.put_object(Bucket=bucket, Key="f1", Body=b"made by somebody else since", Metadata={"mode": str(0o100611)})
    living.start()
    assert shown(living.path / "f0") == CHANGED
    assert stored(s3, bucket, "f0") == CHANGED
    assert stored(s3, bucket, "f2") == ("0o604", *CHANGED[1:])
    assert s3.get_object_tagging(Bucket=bucket, Key="f2")["TagSet"] == [{"Key": "team", "Value": "blue"}]
    assert shown(living.path / "f1")[0] == "0o611"
    assert (living.path / "f1").read_bytes() == b"made by somebody else since"
    assert sorted(os.listdir(living.path)) == ["f0", "f1", "f2"]
    (promises,) = living.cache_dir.rglob("headers")
    assert promises.stat().st_size == 0, "nothing is owed any more"


def test_the_next_run_does_not_touch_an_object_of_the_same_bytes(mount: Mounting, bucket: str, s3: Any) -> None:
    living = mount(patched=UNHURRIED)
    path = make(living.path / "f")
    living.kill()
    s3.put_object(Bucket=bucket, Key="f", Body=b"content", Metadata={"mode": str(0o100611)})
    living.start()
    assert shown(path)[0] == "0o611"
    assert s3.head_object(Bucket=bucket, Key="f")["Metadata"] == {"mode": str(0o100611)}


@pytest.mark.parametrize("moment", ["before the copy", "before the removal"])
def test_a_daemon_killed_while_it_renames(proxy: Proxy, mount: Mounting, bucket: str, s3: Any, moment: str) -> None:
    living = mount(url=proxy.url, patched=UNHURRIED)
    path = make(living.path / "f")
    wanted = "PUT" if moment == "before the copy" else "DELETE"

    def die(method: str, target: str) -> bytes | None:
        if method != wanted:
            return None
        living.process.send_signal(signal.SIGKILL)
        return answer(503, "SlowDown")

    proxy.intercept = die
    refused((errno.ENOTCONN, errno.ECONNABORTED), path.rename, living.path / "g")
    living.kill()
    proxy.intercept = None
    living.start()
    assert shown(living.path / "f") == CHANGED
    assert sorted(os.listdir(living.path)) == (["f"] if wanted == "PUT" else ["f", "g"])
    assert {stored(s3, bucket, name) for name in os.listdir(living.path)} == {CHANGED}


def test_a_renaming_that_fails_keeps_them(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    living = mount(url=proxy.url, patched=UNHURRIED)
    path = make(living.path / "f")
    proxy.intercept = lambda method, target: answer(403, "AccessDenied") if method == "DELETE" and target.endswith("/f") else None
    refused(errno.EACCES, path.rename, living.path / "g")
    proxy.intercept = None
    assert os.listdir(living.path) == ["f"]
    assert shown(path) == CHANGED
    living.kill()
    living.start()
    assert stored(s3, bucket, "f") == CHANGED


def test_what_others_have_put_in_its_place_is_not_touched(mount: Mounting, bucket: str, s3: Any) -> None:
    living = mount(patched=UNHURRIED)
    living.forgive(LOST)
    for name in ("f", "g"):
        make(living.path / name)
        s3.put_object(Bucket=bucket, Key=name, Body=b"made by somebody else", Metadata={"mode": str(0o100611)})
    refused(errno.ESTALE, sync, living.path / "f")
    assert shown(living.path / "f")[0] == "0o611"
    with (living.path / "g").open("r+b") as file:
        file.write(b"M")
    refused(errno.ESTALE, sync_directory, living.path)
    sync_directory(living.path)
    assert s3.get_object(Bucket=bucket, Key="g")["Body"].read() == b"Made by somebody else"
    assert stored(s3, bucket, "g")[0] == "0o611"


@pytest.mark.parametrize("how", ["rename", "rename of what has tags", "rename of the directory", "getxattr"])
def test_that_others_have_replaced_it_is_told_though_the_kernel_hides_it(mount: Mounting, bucket: str, s3: Any, how: str) -> None:
    """A call that names a path is made again by the kernel where it fails with ESTALE: nobody has been told by that."""
    living = mount(patched=UNHURRIED)
    living.forgive(LOST)
    (living.path / "d").mkdir()
    path = living.path / "d" / "f"
    path.write_bytes(b"content")
    if how == "rename of what has tags":
        os.setxattr(path, "user.zos.tag.team", b"blue")
    change(path)
    s3.put_object(Bucket=bucket, Key="d/f", Body=b"made by somebody else", Metadata={"mode": str(0o100611)})
    if how == "getxattr":
        assert os.getxattr(path, "user.zos.etag").decode() == hashlib.md5(b"made by somebody else").hexdigest()
    elif how == "rename of the directory":
        path = path.parent.rename(living.path / "e") / "f"
    else:
        path = path.rename(living.path / "d" / "g")
    assert path.read_bytes() == b"made by somebody else"
    assert shown(path)[0] == "0o611"
    refused(errno.ESTALE, sync_directory, living.path)
    sync_directory(living.path)


def test_what_others_changed_of_the_same_bytes_is_not_touched(mount: Mounting, bucket: str, s3: Any) -> None:
    living = mount(patched=UNHURRIED)
    living.forgive(LOST)
    path = make(living.path / "f")
    wait_for(later_than(DOUBTED + 0.5), 10, "the promise to be so old that the object is looked at")
    s3.put_object(Bucket=bucket, Key="f", Body=b"content", Metadata={"mode": str(0o100611)})
    refused(errno.ESTALE, sync_directory, living.path)
    assert s3.head_object(Bucket=bucket, Key="f")["Metadata"] == {"mode": str(0o100611)}
    assert shown(path)[0] == "0o611"


@pytest.mark.parametrize("held", [False, True])
def test_who_opens_the_file_gets_what_others_have_written(mount: Mounting, bucket: str, s3: Any, held: bool) -> None:
    living = mount(patched=UNHURRIED)
    living.forgive(LOST)
    path = make(living.path / "f", b"old" * 2000)
    with path.open("rb") as holder:
        assert not held or holder.read(3) == b"old"
        s3.put_object(Bucket=bucket, Key="f", Body=b"new" * 2000)
        if not held:
            holder.close()
        assert path.read_bytes() == b"new" * 2000


def test_opening_it_for_fchmod_asks_nothing_and_reading_gets_the_bytes(mount: Mounting, bucket: str, s3: Any) -> None:
    living = mount(patched=UNHURRIED)
    path = make(living.path / "f", b"old" * 2000)
    with living.requests() as spent:
        fd = os.open(path, os.O_RDONLY)
        os.fchmod(fd, 0o604)
        os.close(fd)
    assert spent == {}
    with living.requests() as spent:
        assert path.read_bytes() == b"old" * 2000
    assert sum(spent.values()) == 1
    assert stored(s3, bucket, "f") != CHANGED, "reading waits for no copy"


def test_at_umount_nothing_is_left_of_what_others_have_replaced(mount: Mounting, bucket: str, s3: Any) -> None:
    living = mount(patched=UNHURRIED)
    living.forgive(LOST)
    make(living.path / "f")
    s3.put_object(Bucket=bucket, Key="f", Body=b"made by somebody else", Metadata={"mode": str(0o100611)})
    living.again()
    assert shown(living.path / "f")[0] == "0o611"
    (promises,) = living.cache_dir.rglob("headers")
    assert promises.stat().st_size == 0


def test_refused_attributes_are_told_and_gone(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    living = mount(url=proxy.url)
    living.forgive(LOST)
    path = living.path / "f"
    path.write_bytes(b"content")
    before = shown(path)
    no_copies(proxy, 403, "AccessDenied")
    path.chmod(0o640)
    wait_for(lambda: LOST in living.log(), 10, "the refusal")
    assert shown(path)[0] == before[0]
    refused(errno.EACCES, path.chmod, 0o604)
    refused(errno.EACCES, sync_directory, living.path)
    sync_directory(living.path)
    proxy.intercept = None
    path.chmod(0o604)
    assert stored(s3, bucket, "f")[0] == "0o604", "after a failure the first change is made at once"
    living.again()
    assert shown(path)[0] == "0o604"


def test_a_server_away_for_a_while_gets_them_later(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    living = mount(url=proxy.url, retries=1, retry_timeout=1)
    living.forgive("not delivered yet")
    path = living.path / "f"
    path.write_bytes(b"content")
    no_copies(proxy)
    os.utime(path, ns=TIMES)
    path.chmod(0o640)
    wait_for(lambda: "not delivered yet" in living.log(), 20, "a failure")
    assert shown(path)[0] == "0o640"
    proxy.intercept = None
    wait_for(lambda: stored(s3, bucket, "f")[::3] == CHANGED[::3], 20, "the delivery of the attributes")


@pytest.mark.parametrize(("again", "killed"), [(False, False), (True, False), (True, True)])
def test_a_copy_whose_answer_was_lost_is_known_for_ours(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any, again: bool, killed: bool
) -> None:
    """Also when attributes that were set later were tried in vain."""
    living = mount(url=proxy.url, retries=0, retry_timeout=1, patched="import zosfs.fs.promised_attributes as soon; soon.DOUBTED = 0.0")
    living.forgive("not delivered yet")
    path = living.path / "f"
    path.write_bytes(b"content")
    lost: list[str] = []

    def lose(method: str, target: str) -> bytes | str | None:
        if method == "PUT" and not lost:
            lost.append(target)
            return "lost"
        return answer(503, "SlowDown") if lost and "/f" in target else None  # nor can it be found out

    proxy.intercept = lose
    change(path)
    failures = wait_for(lambda: living.log().count("not delivered yet"), 20, "a failure")
    assert stored(s3, bucket, "f") == CHANGED
    path.chmod(0o604)
    wait_for(lambda: not again or living.log().count("not delivered yet") > failures + 1, 20, "a failure of the new ones")
    if killed:
        path.chmod(0o606)
        living.kill()
        proxy.intercept = None
        living.start()
        assert shown(path) == ("0o606", *CHANGED[1:])
        return
    proxy.intercept = None
    wait_for(lambda: stored(s3, bucket, "f")[0] == "0o604", 20, "the delivery of the attributes")
    living.again()
    assert shown(path) == ("0o604", *CHANGED[1:])
    assert LOST not in living.log()


def test_at_a_server_that_is_away_the_next_run_has_them_before_other_changes(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    living = mount(url=proxy.url, retries=0, retry_timeout=1, patched=UNHURRIED)
    path = make(living.path / "f")
    living.kill()
    no_copies(proxy)
    with subprocess.Popen(["sh", "-c", "read go; chmod 604 \"$1\"", "sh", path], stdin=subprocess.PIPE, text=True) as program:
        living.start()
        assert stored(s3, bucket, "f") != CHANGED
        proxy.intercept = None
        program.communicate("\n", timeout=60)
    assert program.returncode == 0
    assert shown(path) == ("0o604", *CHANGED[1:])
    living.again()
    assert stored(s3, bucket, "f") == ("0o604", *CHANGED[1:])


@pytest.mark.parametrize("how", ["write", "truncate", "rename", "rename of the directory", "xattr", "chmod", "umount"])
def test_what_the_next_run_cannot_deliver_at_once_goes_before_the_object_is_another_one(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any, how: str
) -> None:
    living = mount(url=proxy.url, retries=0, retry_timeout=1, patched=UNHURRIED)
    living.forgive("has not yet the attributes")
    (living.path / "d").mkdir()
    path = make(living.path / "d" / "f")
    living.kill()
    no_copies(proxy)
    living.start()
    assert shown(path) != CHANGED, "it is known as it was"
    if how == "rename of the directory":
        refused(errno.EIO, path.parent.rename, living.path / "e")
    if how == "write":
        refused(errno.EIO, path.open, "r+b")
    proxy.intercept = None
    if how == "write":
        with path.open("r+b") as file:
            file.write(b"C")
    elif how == "truncate":
        os.truncate(path, 3)
    elif how == "rename":
        path = path.rename(living.path / "d" / "g")
    elif how == "rename of the directory":
        path = path.parent.rename(living.path / "e") / "f"
    elif how == "xattr":
        os.setxattr(path, "user.own", b"value")
    elif how == "chmod":
        path.chmod(0o640)
    times = how in ("write", "truncate")  # which change them
    for again in (False, True):
        if again or how == "umount":
            living.again()
        assert shown(path)[: 3 if times else 4] == CHANGED[: 3 if times else 4]
        assert stored(s3, bucket, str(path.relative_to(living.path)))[:3] == CHANGED[:3]
    (promises,) = living.cache_dir.rglob("headers")
    assert promises.stat().st_size == 0


def test_what_is_refused_to_the_next_run_waits_for_one_that_may(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    """The keys of a mount that only reads need not allow more."""
    living = mount(url=proxy.url, patched=UNHURRIED)
    living.forgive("earlier run promised are refused|not everything was delivered")
    path = make(living.path / "f")
    living.kill()
    no_copies(proxy, 403, "AccessDenied")
    living.start()
    assert "promised are refused" in living.log()
    assert path.read_bytes() == b"content"
    living.kill()
    proxy.intercept = None
    living.start()
    assert shown(path) == CHANGED


def test_who_changes_what_is_refused_to_the_next_run_is_told_of_its_own_change_only(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any
) -> None:
    living = mount(url=proxy.url, patched=UNHURRIED)
    living.forgive("earlier run promised are refused")
    path = make(living.path / "f")
    living.kill()

    def no_copy(method: str, target: str) -> bytes | None:
        return answer(403, "AccessDenied") if method == "PUT" and "x-amz-copy-source" in proxy.heads[-1] else None

    proxy.intercept = no_copy
    living.start()
    refused(errno.EACCES, path.chmod, 0o604)
    with path.open("r+b") as file:
        file.write(b"C")
    assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"Content"
    (promises,) = living.cache_dir.rglob("headers")
    assert promises.stat().st_size == 0
    proxy.intercept = None


def test_what_others_remove_while_it_is_being_promised_does_not_stay_promised(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any
) -> None:
    """A listing finds that the file is gone."""
    living = mount(url=proxy.url, metadata_ttl=0, negative_ttl=0)
    living.forgive(LOST)
    path = living.path / "f"
    path.write_bytes(b"content")
    proxy.hold = lambda target: 0 if target.endswith("/f?acl=") else None
    with ThreadPoolExecutor(1) as pool:
        changed = pool.submit(path.chmod, 0o640)
        wait_for(lambda: proxy.held, 60, "the question for the ACL")
        s3.delete_object(Bucket=bucket, Key="f")
        os.listdir(living.path)
        proxy.hold = lambda target: None
        changed.result(60)
    (promises,) = living.cache_dir.rglob("headers")
    wait_for(lambda: promises.stat().st_size == 0, 60, "the promise to be given up")
    refused(errno.ENOENT, sync_directory, living.path)
    assert os.listdir(living.path) == []


def test_links_have_them_too(mount: Mounting, bucket: str, s3: Any) -> None:
    living = mount(patched=UNHURRIED)
    os.listdir(living.path)
    with living.requests() as spent:
        os.symlink("target", living.path / "link")
        os.utime(living.path / "link", ns=TIMES, follow_symlinks=False)
        os.lchown(living.path / "link", 5, 6)
        assert os.readlink(living.path / "link") == "target"
    assert spent == {"put": 1}
    living.again()
    assert os.readlink(living.path / "link") == "target"
    assert os.lstat(living.path / "link").st_mtime_ns == TIMES[1]


def plant(root: Path, files: int) -> Path:
    """Small files to copy, with all attributes, and some of the same content."""
    (root / "d").mkdir(parents=True)
    for n in range(files):
        path = root / "d" / f"f{n:03}"
        path.write_bytes(b"content %d" % (n % 7))
        os.utime(path, ns=(TIMES[0], TIMES[1] + n))
        path.chmod(0o600 + n % 64)
        os.chown(path, n % 3, n % 5)
    return root


def test_rsync_killed_at_any_moment_and_begun_again(mount: Mounting, bucket: str, s3: Any, tmp_path: Path) -> None:
    source = plant(tmp_path / "source", 120)
    living = mount()
    for attempt in range(4):
        program = subprocess.Popen(["rsync", "-a", f"{source}/", f"{living.path}/"], stderr=subprocess.DEVNULL)

        def far_enough(program: subprocess.Popen[bytes] = program, want: int = 25 * (attempt + 1)) -> bool:
            return program.poll() is not None or len(keys(s3, bucket)) > want

        wait_for(far_enough, 60, "some files")
        living.kill()
        program.wait(60)
        living.start()
        for name in os.listdir(living.path / "d"):
            if name.startswith("f"):
                assert shown(living.path / "d" / name) == shown(source / "d" / name), "what has its name has its attributes"
    run("rsync", "-a", f"{source}/", f"{living.path}/")
    living.again()
    lacking = run("rsync", "-ain", f"{source}/", f"{living.path}/").splitlines()
    assert [line for line in lacking if not line.startswith(".d")] == []


def keys(s3: Any, bucket: str) -> list[str]:
    """All keys of the bucket."""
    try:
        return [item["Key"] for item in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]
    except ClientError:
        return []
