"""Option notify: what other hosts change shows at once, though names and attributes are trusted for long.

Ceph 16 ends when many objects are deleted at once in a bucket with notifications: everything here is deleted singly.
"""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.admin.conftest import client, empty_and_delete
from tests.fs.mounting import Mount, wait_for, zosfs
from tests.servers.server import Server, free_ports
from zosfs.mount.events import Event, configured, events_of

LONG = {"metadata_ttl": "1h", "negative_ttl": "1h"}
FIRST = 90.0
"""Seconds for the first event: Ceph looks every 30 seconds for new queues."""


@pytest.fixture(scope="module")
def heard(rgw: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mount, Any, str]]:
    """A mount that has heard something already, a boto3 client, the bucket."""
    tmp_path = tmp_path_factory.mktemp("heard")
    s3 = client(rgw)
    bucket = f"commands-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="d/old", Body=b"old")
    mount = Mount(tmp_path, bucket, rgw, {**LONG, "notify": f"http://127.0.0.1:{free_ports(1)[0]}"})
    try:
        wait_for(lambda: s3.get_bucket_notification_configuration(Bucket=bucket).get("TopicConfigurations"), 30, "the subscription")
        s3.put_object(Bucket=bucket, Key="first", Body=b"")
        wait_for(lambda: mount.counters()["events"], FIRST, "the first event")
        yield mount, s3, bucket
        mount.finish()
        assert not s3.get_bucket_notification_configuration(Bucket=bucket).get("TopicConfigurations")
        assert not [topic for topic in client(rgw, "sns").list_topics().get("Topics", []) if bucket in json.dumps(topic)]
    finally:
        mount.kill()
        empty_and_delete(s3, bucket)


@pytest.mark.long
def test_others_changes_show_at_once(heard: tuple[Mount, Any, str]) -> None:
    mount, s3, bucket = heard
    directory = mount.path / "d"
    assert [path.name for path in directory.iterdir()] == ["old"]
    assert not (directory / "new").exists()
    assert (directory / "old").stat().st_size == 3
    s3.put_object(Bucket=bucket, Key="d/new", Body=b"new")
    wait_for((directory / "new").exists, 20, "what others made")
    assert sorted(path.name for path in directory.iterdir()) == ["new", "old"]
    s3.put_object(Bucket=bucket, Key="d/old", Body=b"longer than it was")
    wait_for(lambda: (directory / "old").stat().st_size == 18, 20, "what others replaced")
    assert (directory / "old").read_bytes() == b"longer than it was"
    s3.delete_object(Bucket=bucket, Key="d/new")
    wait_for(lambda: not (directory / "new").exists(), 20, "that others deleted it")
    assert [path.name for path in directory.iterdir()] == ["old"]


@pytest.mark.long
def test_own_changes_cost_nothing_more(heard: tuple[Mount, Any, str]) -> None:
    mount, _, _ = heard
    before = mount.counters()["events"]
    (mount.path / "mine").write_bytes(b"mine")
    wait_for(lambda: mount.counters()["events"] > before, 20, "the echo of the own change")
    with mount.requests() as spent:
        assert (mount.path / "mine").stat().st_size == 4
        assert (mount.path / "mine").exists()
    assert spent == {}


@pytest.mark.long
def test_strangers_are_not_heard(heard: tuple[Mount, Any, str]) -> None:
    mount, _, bucket = heard
    before = mount.counters()["events"]
    port = next(word for word in mount.words if "notify=" in word).partition("notify=http://127.0.0.1:")[2].partition(",")[0]
    body = json.dumps({"Records": [{"eventName": "ObjectRemoved:Delete", "s3": {"bucket": {"name": bucket}, "object": {"key": "d/old"}}}]})
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/guess", body.encode(), timeout=10)
    with socket.create_connection(("127.0.0.1", int(port)), timeout=10) as link:
        link.sendall(b"\x00\xff nonsense\r\n\r\n")
        assert b"404" in link.recv(100)
    assert mount.counters()["events"] == before


@pytest.mark.parametrize("address", ["https://127.0.0.1:1", "127.0.0.1:9000", "http://127.0.0.1", "http://h:1/path"])
def test_addresses_that_are_none(rgw: Server, tmp_path: Path, address: str) -> None:
    s3 = client(rgw)
    name = f"commands-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=name)
    try:
        (tmp_path / "m").mkdir()
        keys = {"AWS_ACCESS_KEY_ID": rgw.access_key, "AWS_SECRET_ACCESS_KEY": rgw.secret_key}
        options = f"url={rgw.url},cache_dir={tmp_path}/c,notify={address}"
        refused = zosfs(name, tmp_path / "m", "-o", options, env=keys)
        assert refused.returncode == 32, refused.stderr
        assert "http://HOST:PORT" in refused.stderr
    finally:
        empty_and_delete(s3, name)


def test_messages_are_pure() -> None:
    def record(name: str, bucket: str = "b", **about: str) -> dict[str, Any]:
        return {"eventName": name, "s3": {"bucket": {"name": bucket}, "object": about}}

    records = [
        record("ObjectCreated:Put", key="ä/b", eTag="e"), record("s3:ObjectRemoved:Delete", key="c"),
        record("ObjectCreated:Copy", "other", key="d"), record("ObjectTagging:Put", key="e"),
    ]  # fmt: skip
    assert list(events_of(json.dumps({"Records": records}).encode(), "b")) == [Event("ä/b", "e", False), Event("c", "", True)]
    for nonsense in (b"", b"{", b"[]", b'{"Records": 3}', b'{"Records": [{}]}', b"\xff"):
        assert list(events_of(nonsense, "b")) == []


def test_other_subscriptions_stay() -> None:
    others = {"TopicConfigurations": [{"Id": "x", "TopicArn": "t", "Events": []}], "QueueConfigurations": [{"Id": "q"}], "Other": 1}
    with_ours = configured(others, "zosfs-1", "arn")
    assert [row["Id"] for row in with_ours["TopicConfigurations"]] == ["x", "zosfs-1"]
    assert configured(with_ours, "zosfs-1", "arn2")["TopicConfigurations"][1]["TopicArn"] == "arn2"
    assert configured(with_ours, "zosfs-1", "") == {name: value for name, value in others.items() if name != "Other"}
    assert configured({}, "zosfs-1", "") == {}


def test_a_server_without_topics_is_mounted_all_the_same(weed: Server, tmp_path: Path) -> None:
    s3 = client(weed)
    bucket = f"commands-{uuid.uuid4().hex[:12]}"
    s3.create_bucket(Bucket=bucket)
    mount = Mount(tmp_path, bucket, weed, {"notify": f"http://127.0.0.1:{free_ports(1)[0]}"})
    try:
        wait_for(lambda: "notify: the server takes no subscription" in mount.log(), 20, "the warning")
        (mount.path / "f").write_bytes(b"x")
        assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"x"
        mount.finish()
    finally:
        mount.kill()
        empty_and_delete(s3, bucket)
