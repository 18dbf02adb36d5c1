"""Files that another host replaces, removes or appends to while programs here have them open, or the kernel has them in its caches."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from tests.fs.mounting import Mount
from tests.fs.running import refused


@pytest.mark.parametrize("below", ["", "d/"])
def test_a_file_that_others_removed_is_made_anew_by_who_writes_it(mount: Any, bucket: str, s3: Any, server: Any, below: str) -> None:
    """The kernel knows the name still when a listing has told that it is gone: what is written then must go to the name."""
    if below and server.kind != "rgw":
        pytest.skip("goes on showing a directory when the last key in it is gone")
    key = below + "f"
    s3.put_object(Bucket=bucket, Key=key, Body=b"one")
    living: Mount = mount()
    path = living.path / key
    assert path.read_bytes() == b"one"
    s3.delete_object(Bucket=bucket, Key=key)
    os.setxattr(living.path, "user.zos.refresh", b"")
    assert os.listdir(living.path) == []
    refused(errno.ENOENT, path.chmod, 0o600)
    refused(errno.ENOENT, os.truncate, path, 1)
    if below:
        refused(errno.ENOENT, path.write_bytes, b"two")
        return
    path.write_bytes(b"two")
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"two"
    assert path.read_bytes() == b"two"
