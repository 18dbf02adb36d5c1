"""A role of a real gateway: STS gives temporary credentials, and they may do what the role's policy says and no more."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.admin.conftest import client, empty_and_delete
from tests.admin.running import command
from tests.fs.mounting import Mount
from tests.servers.rgw import Rgw, running_rgw
from tests.servers.server import Server

TRUST = {"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam:::user/test"]}, "Action": ["sts:AssumeRole"]}]}  # fmt: skip
READS = {"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Action": ["s3:Get*", "s3:List*"], "Resource": "arn:aws:s3:::*"}]}  # fmt: skip


@pytest.fixture(scope="module")
def gateway() -> Iterator[Rgw]:
    """A gateway with STS and a role that reads."""
    with running_rgw(Path("/tmp") / f"zosfs-sts-{os.getpid()}", sts=True) as running:
        running.admin("role", "create", "--role-name=reader", "--path=/", f"--assume-role-policy-doc={json.dumps(TRUST)}")
        running.admin("role-policy", "put", "--role-name=reader", "--policy-name=p", f"--policy-doc={json.dumps(READS)}")
        yield running


@pytest.mark.long
def test_a_mount_with_a_role_that_reads(gateway: Rgw, tmp_path: Path) -> None:
    server: Server = gateway.server
    s3 = client(server)
    s3.create_bucket(Bucket="roles")
    s3.put_object(Bucket="roles", Key="k", Body=b"to be read")
    mount = Mount(tmp_path, "roles", server, {"role_arn": "arn:aws:iam:::role/reader", "ro": True})
    try:
        assert (mount.path / "k").read_bytes() == b"to be read"
    finally:
        mount.finish()
    found = json.loads(command(server)("sts", "--role-arn", "arn:aws:iam:::role/reader", "--json").stdout)
    assert found["SessionToken"]
    refused = command(server)("sts", "--role-arn", "arn:aws:iam:::role/nobody", status=1).stderr
    assert len(refused.splitlines()) == 1
    role = ("--role-arn", "arn:aws:iam:::role/reader")
    assert command(server)("usage", "zos://roles", *role).stdout
    assert "refuses" in command(server)("bucket", "create", "more", *role, status=1).stderr
    empty_and_delete(s3, "roles")
