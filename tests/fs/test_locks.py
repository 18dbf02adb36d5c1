"""Locks given to what is written (-o legal_hold, -o retention=), on Ceph."""

from __future__ import annotations

import datetime
import errno
import json
import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.fs.mounting import Mount, wait_for
from tests.fs.running import refused
from tests.servers.archive import Archive


@pytest.fixture
def bucket(s3: Any, rgw: Any) -> Iterator[str]:
    """A fresh bucket with object lock, on Ceph alone."""
    if s3.meta.endpoint_url != rgw.url:
        pytest.skip("locks are Ceph's")
    name = f"moments-{uuid.uuid4().hex[:16]}"
    s3.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
    yield name
    page = s3.list_object_versions(Bucket=name)
    for item in page.get("Versions", []):
        s3.put_object_legal_hold(Bucket=name, Key=item["Key"], VersionId=item["VersionId"], LegalHold={"Status": "OFF"})
    for item in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
        s3.delete_object(Bucket=name, Key=item["Key"], VersionId=item["VersionId"], BypassGovernanceRetention=True)
    s3.delete_bucket(Bucket=name)


def test_what_is_written_is_locked(s3: Any, bucket: str, mount: Callable[..., Mount]) -> None:
    living = mount(legal_hold=True, retention="governance:2h", multipart_threshold="5M", part_size="5M")
    small, large = living.path / "small", living.path / "large"
    small.write_bytes(b"first")
    small.write_bytes(b"second")
    large.write_bytes(os.urandom(11 << 20))
    small.chmod(0o600)
    for path in (small, large):
        assert os.getxattr(path, "user.zos.legal-hold") == b"ON"
        found = json.loads(os.getxattr(path, "user.zos.retention"))
        assert found["Mode"] == "GOVERNANCE"
        left = datetime.datetime.fromisoformat(found["RetainUntilDate"]) - datetime.datetime.now(datetime.UTC)
        assert datetime.timedelta(hours=1, minutes=55) < left < datetime.timedelta(hours=2, minutes=2)
    for item in s3.list_object_versions(Bucket=bucket)["Versions"]:
        with pytest.raises(s3.exceptions.ClientError, match="AccessDenied"):
            s3.delete_object(Bucket=bucket, Key=item["Key"], VersionId=item["VersionId"])
    with pytest.raises(OSError) as caught:  # noqa: PT011  # which one is checked below
        os.setxattr(small, "user.zos.retention", b"mode=GOVERNANCE,days=0")
    assert caught.value.errno == errno.EINVAL
    assert small.read_bytes() == b"second"


def test_what_a_lock_refuses_is_eperm_with_the_reason(s3: Any, bucket: str, mount: Callable[..., Mount]) -> None:
    living = mount(versions=True)
    path = living.path / "f"
    path.write_bytes(b"first")
    os.setxattr(path, "user.zos.retention", b"mode=GOVERNANCE,days=2")
    locked = os.getxattr(path, "user.zos.version-id").decode()
    refused(errno.EPERM, os.setxattr, path, "user.zos.retention", b"mode=GOVERNANCE,days=1")
    logged(living, "the object is locked by a legal hold or a retention period")
    logged(living, "shortens an existing retention period")
    os.setxattr(path, "user.zos.legal-hold", b"ON")
    path.write_bytes(b"second")  # a version of its own
    old = living.path / f"f@{locked}"
    refused(errno.EPERM, old.unlink)
    logged(living, "forbidden by object lock")
    assert old.read_bytes() == b"first"
    path.unlink()
    assert old.read_bytes() == b"first"
    assert s3.get_object(Bucket=bucket, Key="f", VersionId=locked)["Body"].read() == b"first"


def test_what_is_refused_because_of_a_lock_stays_staged(s3: Any, bucket: str, mount: Callable[..., Mount], rgw: Any) -> None:
    """A server that keeps no versions of what is locked refuses the upload itself."""
    standing = Archive(rgw)
    try:
        s3.put_object(Bucket=bucket, Key="f", Body=b"first!")
        standing.hold(bucket, "f")
        living = mount(server=standing.server)
        living.forgive("its bytes are kept: zosfs journal list")
        path = living.path / "f"
        handle = os.open(path, os.O_RDWR)
        os.write(handle, b"second")
        refused(errno.EPERM, os.close, handle)
        logged(living, "forbidden by object lock")
        refused(errno.EPERM, path.unlink)
        assert path.read_bytes() == b"second"
        assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"first!"
        living.kill()  # what was written is in the journal
        living.start()
        assert path.read_bytes() == b"second"
        standing.release(bucket, "f")
        handle = os.open(path, os.O_RDWR)
        os.fsync(handle)
        os.close(handle)
        assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"second"
    finally:
        standing.stop()


def logged(living: Mount, line: str) -> None:
    """Wait until the daemon's log has *line*."""
    wait_for(lambda: line in living.log(), 30, f"{line!r} in the log")
