"""Bucket settings as extended attributes of a bucket's top directory: getfattr and setfattr on a real mount, seen by boto3."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.admin.conftest import empty_and_delete
from tests.admin.test_settings import DOCUMENTS
from tests.fs.conftest import client
from tests.fs.mounting import Mount, wait_for
from tests.servers.server import Server
from zosfs.admin.settings import SETTINGS

NOT_ON_CEPH = ("website", "encryption", "logging")
"""Ceph 16 does not offer them (or, for a website, not on this port)."""


def setfattr(path: Path, name: str, value: str | None) -> subprocess.CompletedProcess[str]:
    """Set user.zos.bucket.*name* to *value*, or remove it."""
    change = ["-x", f"user.zos.bucket.{name}"] if value is None else ["-n", f"user.zos.bucket.{name}", "-v", value]
    return subprocess.run(["setfattr", *change, str(path)], capture_output=True, text=True, check=False)


def getfattr(path: Path, name: str) -> Any:
    """The document of user.zos.bucket.*name*; None where there is none."""
    done = subprocess.run(
        ["getfattr", "--only-values", "-n", f"user.zos.bucket.{name}", str(path)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        assert "No such attribute" in done.stderr, done.stderr
        return None
    return json.loads(done.stdout)


def mounted(server: Server, home: Path, **members: Any) -> Iterator[Mount]:
    """A mount of a fresh bucket."""
    s3 = client(server)
    bucket = f"commands-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=bucket, **members)
    mount = Mount(home, bucket, server, {})
    mount.forgive("NotImplemented|MethodNotAllowed")
    yield mount
    mount.finish()
    empty_and_delete(s3, bucket)


@pytest.fixture(scope="module")
def on_ceph(rgw: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """A bucket of the RADOS gateway."""
    yield from mounted(rgw, tmp_path_factory.mktemp("ceph"))


def look(server: Server, name: str, bucket: str) -> Any:
    """What boto3 says of the setting; None where there is none."""
    setting = SETTINGS[name]
    try:
        answer = getattr(client(server), setting.get)(Bucket=bucket)
    except boto3.client("s3", region_name="x").exceptions.ClientError:
        return None
    answer.pop("ResponseMetadata")
    found = answer.get(setting.inner) if setting.inner else answer
    return json.loads(found) if setting.text and found else json.loads(json.dumps(found, default=str)) or None


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name not in (*NOT_ON_CEPH, "object-lock", "notification")])
def test_set_get_remove_on_ceph(on_ceph: Mount, rgw: Server, name: str) -> None:
    bucket = on_ceph.source
    before = getfattr(on_ceph.path, name)
    assert before == look(rgw, name, bucket)
    assert setfattr(on_ceph.path, name, DOCUMENTS[name].replace("BUCKET", bucket)).returncode == 0
    after = getfattr(on_ceph.path, name)
    assert after
    assert after != before
    assert after == look(rgw, name, bucket)
    assert setfattr(on_ceph.path, name, json.dumps(after)).returncode == 0  # what was read can be written
    assert getfattr(on_ceph.path, name) == after
    assert setfattr(on_ceph.path, name, None).returncode == 0
    if name == "versioning":
        assert getfattr(on_ceph.path, name)["Status"] == "Suspended"  # there is no way back to a bucket that never had versions
    else:
        assert getfattr(on_ceph.path, name) == before


def test_notification_on_ceph(on_ceph: Mount, rgw: Server) -> None:
    sns = boto3.client(
        "sns", endpoint_url=rgw.url, aws_access_key_id=rgw.access_key, aws_secret_access_key=rgw.secret_key, region_name="us-east-1"
    )
    topic = sns.create_topic(Name=on_ceph.source, Attributes={"push-endpoint": "http://127.0.0.1:9"})["TopicArn"]
    try:
        assert setfattr(on_ceph.path, "notification", DOCUMENTS["notification"].replace("ARN", topic)).returncode == 0
        assert getfattr(on_ceph.path, "notification")["TopicConfigurations"][0]["TopicArn"] == topic
        assert setfattr(on_ceph.path, "notification", None).returncode == 0
        assert getfattr(on_ceph.path, "notification") is None
    finally:
        sns.delete_topic(TopicArn=topic)


def test_object_lock_on_ceph(rgw: Server, tmp_path: Path) -> None:
    for mount in mounted(rgw, tmp_path, ObjectLockEnabledForBucket=True):
        assert getfattr(mount.path, "object-lock") == {"ObjectLockEnabled": "Enabled"}
        assert setfattr(mount.path, "object-lock", DOCUMENTS["object-lock"]).returncode == 0
        assert getfattr(mount.path, "object-lock")["Rule"]["DefaultRetention"] == {"Mode": "GOVERNANCE", "Days": 1}
        assert setfattr(mount.path, "object-lock", None).returncode == 0
        assert getfattr(mount.path, "object-lock") == {"ObjectLockEnabled": "Enabled"}


@pytest.mark.parametrize("name", NOT_ON_CEPH)
def test_what_ceph_does_not_offer_is_refused_and_the_bucket_stays(on_ceph: Mount, rgw: Server, name: str) -> None:
    refused = setfattr(on_ceph.path, name, DOCUMENTS[name].replace("BUCKET", on_ceph.source))
    assert "Operation not supported" in refused.stderr
    assert setfattr(on_ceph.path, name, None).returncode == 1
    client(rgw).head_bucket(Bucket=on_ceph.source)


@pytest.mark.parametrize("name", ["encryption", "cors", "tags", "versioning"])
def test_on_seaweedfs(weed_mount: Mount, weed: Server, name: str) -> None:
    assert setfattr(weed_mount.path, name, DOCUMENTS[name]).returncode == 0
    assert getfattr(weed_mount.path, name) == look(weed, name, weed_mount.source)
    assert getfattr(weed_mount.path, name)


@pytest.fixture(scope="module")
def weed_mount(weed: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """A bucket of SeaweedFS."""
    yield from mounted(weed, tmp_path_factory.mktemp("weed"))


def test_what_is_wrong_is_refused_and_named_in_the_log(on_ceph: Mount) -> None:
    since = on_ceph.log_size()
    assert "Invalid argument" in setfattr(on_ceph.path, "lifecycle", '{"Rules": [{"Status": "on", "Expiration": {"Days": 1}}]}').stderr
    wait_for(lambda: "$.Rules[0].Status" in on_ceph.log(since), 10, "the line that says what is wrong")
    assert "Invalid argument" in setfattr(on_ceph.path, "cors", "0xff").stderr  # no text
    assert setfattr(on_ceph.path, "none-such", "x").returncode == 1
    assert getfattr(on_ceph.path, "none-such") is None
    (on_ceph.path / "d").mkdir(exist_ok=True)
    assert getfattr(on_ceph.path / "d", "acl") is None  # settings are the bucket's, not a directory's
