"""Options do what their help says, seen on a mount: in what it shows, and in what it sends."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fs.mounting import ROOT, Mount, is_mounted, wait_for, zosfs
from tests.fs.running import noise, refused, run
from tests.proxy import Proxy

Mounting = Callable[..., Mount]
MIB = 1 << 20

pytestmark = pytest.mark.long_on("weed")


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Path]:
    """A mount point that is free again afterwards."""
    path = tmp_path / "m"
    path.mkdir()
    yield path
    if is_mounted(path):
        subprocess.run(["umount", str(path)], check=True)


def sent(proxy: Proxy, method: str, key: str) -> dict[str, str]:
    """The headers of the last request of *method* on *key*."""
    for head in reversed(proxy.heads):
        first, *lines = head.split("\r\n")
        if first.startswith(method.lower() + " ") and f"/{key}" in first:
            return dict(line.split(": ", 1) for line in lines)
    raise AssertionError(f"no {method} of {key}")


def test_what_is_written_carries_what_the_options_say(proxy: Proxy, mount: Mounting, bucket: str) -> None:
    living = mount(
        url=proxy.url, acl="public-read", storage_class="STANDARD_IA", sse="aws:kms:key-1", tags="a=1&b=two", requester_pays=True
    )
    living.forgive("")
    taken = b"HTTP/1.1 200 OK\r\nETag: \"9a0364b9e99bb480dd25e1f0284c8555\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    proxy.intercept = lambda method, target: taken if method == "PUT" and "/f" in target else None
    (living.path / "f").write_bytes(b"content")
    headers = sent(proxy, "PUT", "f")
    assert headers["x-amz-acl"] == "public-read"
    assert headers["x-amz-storage-class"] == "standard_ia"
    assert headers["x-amz-server-side-encryption"] == "aws:kms"
    assert headers["x-amz-server-side-encryption-aws-kms-key-id"] == "key-1"
    assert headers["x-amz-tagging"] == "a=1&b=two"
    assert all("x-amz-request-payer: requester" in head for head in proxy.heads), "every request says who pays"


@pytest.mark.parametrize(("sign_payload", "signed"), [("auto", True), ("always", True), ("never", False)])
def test_sign_payload(proxy: Proxy, mount: Mounting, bucket: str, s3: Any, sign_payload: str, signed: bool) -> None:
    living = mount(url=proxy.url, sign_payload=sign_payload)
    (living.path / "f").write_bytes(b"content")
    said = sent(proxy, "PUT", "f")["x-amz-content-sha256"]
    assert said == (hashlib.sha256(b"content").hexdigest() if signed else "unsigned-payload")
    assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"content"


def test_defaults_of_objects_without_attributes(mount: Mounting, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="d/f", Body=b"x")
    living = mount(uid=1234, gid=2345, file_mode="0666", dir_mode="0777", umask="027", bucket_size="10G", fsname="my name")
    found = (living.path / "d" / "f").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 2345, 0o640)
    found = (living.path / "d").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 2345, 0o750)
    assert os.statvfs(living.path).f_blocks * 4096 == 10 << 30
    assert run("findmnt", "-n", "-o", "SOURCE", living.path) == "my name\n"


def test_open_ttl_spares_the_question_at_open(mount: Mounting, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=b"old")
    living = mount(open_ttl="1h")
    assert (living.path / "f").read_bytes() == b"old"
    with living.requests() as spent:
        assert (living.path / "f").read_bytes() == b"old"
    assert spent == {}


def test_append_off(mount: Mounting, bucket: str, s3: Any) -> None:
    living = mount(append="off")
    with living.requests() as spent:
        for line in ("one\n", "two\n"):
            with (living.path / "log").open("a") as f:
                f.write(line)
    assert "append" not in spent
    assert (living.path / "log").read_text() == "one\ntwo\n"
    headers = s3.head_object(Bucket=bucket, Key="log")["ResponseMetadata"]["HTTPHeaders"]
    assert headers.get("x-rgw-object-type", "Normal") == "Normal"


@pytest.mark.parametrize(("keep_acl", "edited", "renamed"), [("never", 1, 1), ("edits", 2, 1), ("always", 2, 2)])
def test_keep_acl(mount: Mounting, bucket: str, s3: Any, server: Any, keep_acl: str, edited: int, renamed: int) -> None:
    if server.kind != "rgw":
        pytest.skip("SeaweedFS has one ACL for all")

    def grants(key: str) -> int:
        return len(s3.get_object_acl(Bucket=bucket, Key=key)["Grants"])

    for key in ("written", "truncated", "chmodded", "moved"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x", ACL="public-read")
    s3.put_object(Bucket=bucket, Key="large", Body=noise(6 * MIB), ACL="public-read")
    living = mount(keep_acl=keep_acl, multipart_threshold="5M", part_size="5M")
    with (living.path / "written").open("r+b") as f:
        f.write(b"y")
    (living.path / "truncated").write_bytes(b"new")
    with (living.path / "large").open("r+b") as f:
        f.write(b"y")
    with (living.path / "log").open("a") as f:
        f.write("one\n")
    s3.put_object_acl(Bucket=bucket, Key="log", ACL="public-read")
    living.process.send_signal(signal.SIGHUP)  # others' changes of an ACL show after metadata_ttl
    wait_for(lambda: "SIGHUP" in living.log(), 10, "what is known to be forgotten")
    with (living.path / "log").open("a") as f:
        f.write("two\n")
    (living.path / "chmodded").chmod(0o600)
    os.rename(living.path / "moved", living.path / "there")
    after = {key: grants(key) for key in ("written", "truncated", "large", "log", "chmodded", "there")}
    assert after == {**dict.fromkeys(after, edited), "there": renamed}


def test_a_public_default_opens_nothing_that_was_private(mount: Mounting, bucket: str, s3: Any, server: Any) -> None:
    if server.kind != "rgw":
        pytest.skip("SeaweedFS has one ACL for all")

    def grants(key: str) -> int:
        return len(s3.get_object_acl(Bucket=bucket, Key=key)["Grants"])

    private = ("written", "truncated", "chmodded", "cut", "moved", "away/moved", "large", "dir/")
    for key in private:
        s3.put_object(Bucket=bucket, Key=key, Body=b"" if key.endswith("/") else noise(6 * MIB) if key == "large" else b"x")
    living = mount(acl="public-read", keep_acl="always", multipart_threshold="5M", part_size="5M")
    for key in ("written", "large"):
        with (living.path / key).open("r+b") as f:
            f.write(b"y")
    (living.path / "truncated").write_bytes(b"new")
    os.truncate(living.path / "cut", 0)
    with (living.path / "log").open("a") as f:
        f.write("one\n")
    assert grants("log") == 2, "what is new is public"
    s3.put_object_acl(Bucket=bucket, Key="log", ACL="private")
    living.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "SIGHUP" in living.log(), 30, "what is known to be forgotten")
    with (living.path / "log").open("a") as f:
        f.write("two\n")
    (living.path / "chmodded").chmod(0o600)
    (living.path / "dir").chmod(0o700)
    os.setxattr(living.path / "chmodded", "user.zos.meta.shape", b"round")
    os.rename(living.path / "moved", living.path / "there")
    os.rename(living.path / "away", living.path / "new")
    now = ("written", "truncated", "chmodded", "cut", "there", "new/moved", "large", "dir/", "log")
    assert {key: grants(key) for key in now} == dict.fromkeys(now, 1)
    (living.path / "chmodded").chmod(0o640)
    assert grants("chmodded") == 1


def test_parts_are_of_the_size_asked_for(proxy: Proxy, mount: Mounting, bucket: str, s3: Any) -> None:
    living = mount(url=proxy.url, part_size="5M", multipart_threshold="8M", listobjectsv2=True)
    (living.path / "small").write_bytes(noise(7 * MIB))
    (living.path / "large").write_bytes(noise(18 * MIB))
    assert "-" not in s3.head_object(Bucket=bucket, Key="small")["ETag"]
    parts = {target.split("partNumber=")[1].split("&")[0] for method, target in proxy.requests if "partNumber=" in target}
    assert parts == {"1", "2", "3", "4"}
    assert s3.get_object(Bucket=bucket, Key="large")["Body"].read() == noise(18 * MIB)
    os.listdir(living.path)
    lists = [target for method, target in proxy.requests if method == "GET" and "prefix=" in target]
    assert any("list-type=2" in target for target in lists)


@pytest.mark.parametrize("connections", [2, 64])
def test_connections_bounds_all_there_are(proxy: Proxy, mount: Mounting, bucket: str, s3: Any, connections: int) -> None:
    for n in range(8):
        s3.put_object(Bucket=bucket, Key=f"f{n}", Body=noise(2 * MIB, n))
    living = mount(url=proxy.url, connections=connections)
    run("sh", "-c", 'for f in "$0"/f*; do cat "$f" > /dev/null & done; wait', living.path)
    assert proxy.most <= connections


@pytest.mark.parametrize("fsync", ["store", "journal"])
def test_what_fsync_waits_for_under_writeback(proxy: Proxy, mount: Mounting, bucket: str, s3: Any, fsync: str) -> None:
    living = mount(url=proxy.url, writeback="1h", fsync=fsync, retries=0, retry_timeout=2)
    living.forgive("")
    os.listdir(living.path)
    fd = os.open(living.path / "f", os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"kept")
    proxy.gone = True
    proxy.reset_all()
    if fsync == "store":
        refused((errno.EIO, errno.ETIMEDOUT), os.fsync, fd)
    else:
        os.fsync(fd)
    os.close(fd)
    proxy.gone = False
    living.stop()
    assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"kept"


@pytest.mark.parametrize("server", ["rgw"], indirect=True)  # the disk is the same
def test_free_space_is_left_free(mount: Mounting, bucket: str, s3: Any) -> None:
    living = mount(free_space="1000T", patched="from zosfs.content import disk_budget; disk_budget.PATIENCE = 2.0")
    living.forgive("")
    s3.put_object(Bucket=bucket, Key="there", Body=noise(MIB))

    def write() -> None:
        with (living.path / "f").open("wb", buffering=0) as f:
            for _ in range(40):  # the disk is looked at now and then
                f.write(noise(MIB))

    refused(errno.ENOSPC, write)
    assert (living.path / "there").read_bytes() == noise(MIB), "reading needs no disk"
    (living.path / "f").unlink()


def test_nonempty(point: Path, tmp_path: Path, server: Any, bucket: str) -> None:
    (point / "hidden").touch()
    passwd = tmp_path / "p"
    passwd.touch(0o600)
    passwd.write_text(f"{server.access_key}:{server.secret_key}")
    words = f"url={server.url},passwd_file={passwd},cache_dir={tmp_path}/cache,log_file={tmp_path}/log"
    done = zosfs(bucket, point, "-o", words)
    assert "nonempty" in done.stderr
    assert zosfs(bucket, point, "-o", words + ",nonempty").stderr == ""
    assert os.listdir(point) == []


def test_a_public_bucket_needs_no_keys(point: Path, tmp_path: Path, server: Any, bucket: str, s3: Any) -> None:
    if server.kind != "rgw":
        pytest.skip("this SeaweedFS lets nobody in without keys")
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read")
    s3.put_object(Bucket=bucket, Key="f", Body=b"for all", ACL="public-read")
    done = zosfs(bucket, point, "-o", f"url={server.url},public_bucket,ro,cache_dir={tmp_path}/cache,log_file={tmp_path}/log")
    assert done.stderr == ""
    assert (point / "f").read_bytes() == b"for all"


@pytest.mark.parametrize("way", ["profile", "aws", "zos", "sigv2"])
def test_credentials_by_other_ways(point: Path, tmp_path: Path, server: Any, bucket: str, way: str) -> None:
    words = f"cache_dir={tmp_path}/cache,log_file={tmp_path}/log"
    shared = tmp_path / "credentials"
    shared.touch(0o600)
    shared.write_text(
        f"[other]\naws_access_key_id = {server.access_key}\naws_secret_access_key = {server.secret_key}\n"
        "[default]\naws_access_key_id = nobody\naws_secret_access_key = nothing\n"
    )
    env = {"HOME": str(tmp_path)}
    if way in ("zos", "sigv2"):
        env |= {"zosAk": server.access_key, "zosSk": server.secret_key, "zosEp": server.url}
        words += ",sigv2" if way == "sigv2" else ""
    elif way == "aws":
        env |= {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
        words += f",url={server.url}"
    else:
        env |= {"AWS_SHARED_CREDENTIALS_FILE": str(shared)}
        words += f",url={server.url},profile=other"
    done = zosfs(bucket, point, "-o", words, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    (point / "f").write_text("x")
    assert (point / "f").read_text() == "x"
    assert server.secret_key not in (tmp_path / "log").read_text()


def test_a_session_token_is_sent(proxy: Proxy, point: Path, tmp_path: Path, server: Any, bucket: str) -> None:
    for name, text in (("p", f"{server.access_key}:{server.secret_key}"), ("token", "temporary-token\n")):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_text(text)
    zosfs(bucket, point, "-o", f"url={proxy.url},passwd_file={tmp_path}/p,session_token_file={tmp_path}/token,cache_dir={tmp_path}/c")
    assert all("x-amz-security-token: temporary-token" in head for head in proxy.heads)
    assert proxy.heads


def test_every_option_has_a_test() -> None:
    import dataclasses

    from zosfs.config import Options

    texts = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    missing = [row.name for row in dataclasses.fields(Options) if row.name not in texts]
    assert not missing
