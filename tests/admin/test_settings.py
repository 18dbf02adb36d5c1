"""Every bucket setting: set, get, unset on real servers; what is refused before anything is sent."""

from __future__ import annotations

import errno
import functools
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.admin.conftest import client
from tests.servers.server import Server
from zosfs.admin import settings
from zosfs.admin.refusal import Refusal
from zosfs.errors import StoreError

RULE = {"ID": "r", "Status": "Enabled", "Filter": {"Prefix": "old/"}, "Expiration": {"Days": 30}}
DOCUMENTS: dict[str, str] = {
    "acl": "public-read",
    "policy": json.dumps({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::BUCKET/*"}]}),
    "lifecycle": json.dumps({"Rules": [RULE]}),
    "website": json.dumps({"IndexDocument": {"Suffix": "index.html"}}),
    "request-payment": "Requester",
    "tags": '{"team": "blue", "cost": "7"}',
    "encryption": "AES256",
    "object-lock": json.dumps(
        {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}}),
    "logging": json.dumps({"LoggingEnabled": {"TargetBucket": "BUCKET", "TargetPrefix": "log/"}}),
    "cors": json.dumps({"CORSRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["https://a.example"]}]}),
    "versioning": "Enabled",
    "notification": json.dumps({"TopicConfigurations": [{"Id": "n", "TopicArn": "ARN", "Events": ["s3:ObjectCreated:*"]}]}),
}  # fmt: skip
MISSING_ON_RGW = {"website", "encryption", "logging", "object-lock"}
"""Ceph 16 lacks them, or (object lock) has them only in buckets made for it."""


def test_every_setting_has_a_document_here() -> None:
    assert DOCUMENTS.keys() == settings.SETTINGS.keys()


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name not in MISSING_ON_RGW])
def test_set_get_unset_on_rgw(on_rgw: Callable[..., Any], rgw_bucket: str, name: str) -> None:
    async def work(account: Any) -> None:
        store = account.bucket(rgw_bucket)
        before = await settings.document(store, name)
        document = DOCUMENTS[name].replace("BUCKET", rgw_bucket)
        if name == "notification":
            answer = await account.call("create_topic", service="sns", Name=rgw_bucket, Attributes={"push-endpoint": "http://127.0.0.1:9"})
            document = document.replace("ARN", answer["TopicArn"])
        await settings.set(store, name, document)
        text = await settings.get(store, name)
        assert text is not None
        assert json.loads(text) != before
        settings.read(name, text)  # what get gives, set takes
        await settings.set(store, name, text)
        assert await settings.get(store, name) == text
        await settings.unset(store, name)
        if name == "notification":
            await account.call("delete_topic", service="sns", TopicArn=answer["TopicArn"])
        after = await settings.document(store, name)
        if name == "versioning":
            assert after["Status"] == "Suspended"
        else:
            assert after == before

    on_rgw(work)


@pytest.mark.parametrize("name", sorted(MISSING_ON_RGW))
def test_a_server_that_lacks_a_setting_keeps_its_bucket(on_rgw: Callable[..., Any], rgw: Server, rgw_bucket: str, name: str) -> None:
    async def work(account: Any) -> None:
        store = account.bucket(rgw_bucket)
        refusals = (errno.EOPNOTSUPP, errno.ENODATA, errno.EINVAL)
        with pytest.raises(OSError) as caught:  # noqa: PT011  # the errno is looked at
            await settings.set(store, name, DOCUMENTS[name].replace("BUCKET", rgw_bucket))
        assert caught.value.errno in refusals
        with pytest.raises(OSError) as caught:  # noqa: PT011
            await settings.unset(store, name)
        assert caught.value.errno in refusals

    on_rgw(work)
    client(rgw).head_bucket(Bucket=rgw_bucket)


def test_object_lock_in_a_bucket_made_for_it(on_rgw: Callable[..., Any], rgw: Server) -> None:
    from tests.admin.conftest import fresh

    async def work(account: Any, name: str) -> None:
        store = account.bucket(name)
        assert await settings.document(store, "object-lock") == {"ObjectLockEnabled": "Enabled"}
        await settings.set(store, "object-lock", DOCUMENTS["object-lock"])
        assert (await settings.document(store, "object-lock"))["Rule"]["DefaultRetention"] == {"Mode": "GOVERNANCE", "Days": 1}
        await settings.unset(store, "object-lock")
        assert await settings.document(store, "object-lock") == {"ObjectLockEnabled": "Enabled"}

    for name in fresh(client(rgw), ObjectLockEnabledForBucket=True):
        on_rgw(functools.partial(work, name=name))


@pytest.mark.parametrize("name", ["encryption", "tags", "cors", "lifecycle", "versioning"])
def test_settings_on_seaweedfs(weed: Server, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    from tests.admin.conftest import fresh, options_for, running

    async def work(account: Any) -> None:
        store = account.bucket(bucket)
        await settings.set(store, name, DOCUMENTS[name])
        assert await settings.document(store, name)

    for bucket in fresh(client(weed)):  # noqa: B007  # work() uses it
        running(options_for(weed, monkeypatch))(work)


@pytest.mark.parametrize(
    ("name", "text", "where"),
    [
        ("lifecycle", '{"Rules": [{"Status": "enabled", "Expiration": {"Days": 1}}]}', "$.Rules[0].Status"),
        ("lifecycle", '{"Rules": [{"Status": "Enabled", "Expiration": {"Days": 0}}]}', "$.Rules[0].Expiration.Days"),
        ("lifecycle", '{"Rules": [{"Status": "Enabled"}]}', "$.Rules[0]"),
        ("cors", '{"CORSRules": [{"AllowedMethods": ["FETCH"], "AllowedOrigins": ["*"]}]}', "$.CORSRules[0].AllowedMethods[0]"),
        ("policy", '{"Statement": [{"Effect": "allow", "Action": "s3:*"}]}', "$.Statement[0].Effect"),
        ("versioning", "on", "Enabled"),
        ("versioning", '{"Statu": "Enabled"}', "did you mean Status"),
        ("encryption", '{"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES"}}]}', "SSEAlgorithm"),
        ("object-lock", '{"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": {"Mode": "SOFT", "Days": 1}}}', "Mode"),
        ("request-payment", "Me", "Requester"),
        ("acl", "public", "public-read"),
        ("acl", "reed=id=x", "no permission"),
        ("acl", "read=name=x", "no grantee"),
        ("website", "{}", "IndexDocument"),
        ("notification", '{"TopicConfigurations": [{"TopicArn": "x", "Events": []}]}', "TopicArn"),
        ("logging", '{"LoggingEnabled": {"TargetBucket": "b"}}', "TargetPrefix"),
        ("tags", "[1", "not JSON"),
    ],
)
def test_refused_before_it_is_sent(name: str, text: str, where: str) -> None:
    with pytest.raises(Refusal) as caught:
        settings.read(name, text)
    assert caught.value.errno == errno.EINVAL
    assert where in str(caught.value)


def test_unknown_settings_are_named() -> None:
    with pytest.raises(Refusal, match="lifecycle"):
        settings.row("life")


def test_nothing_outside_the_list_is_sent(on_rgw: Callable[..., Any], rgw_bucket: str) -> None:
    async def work(account: Any) -> None:
        with pytest.raises(StoreError) as caught:
            await account.bucket(rgw_bucket).call("delete_bucket_ownership_controls")
        assert caught.value.errno == errno.EOPNOTSUPP

    on_rgw(work)
