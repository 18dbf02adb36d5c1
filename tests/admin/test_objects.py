"""Object attributes against real servers, set here and seen by boto3, and the other way round."""

from __future__ import annotations

import datetime
import errno
import json
import os
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.admin.conftest import client, fresh
from tests.servers.rgw import SECOND_CLASS
from tests.servers.server import Server
from zosfs.admin.objects import OBJECT_PREFIXES, OBJECT_XATTRS, parse_retention
from zosfs.admin.refusal import Refusal
from zosfs.admin.tags import check_tags, parse_tags
from zosfs.admin.thawing import parse_restore, restore_state
from zosfs.errors import StoreError
from zosfs.store.api import ObjectHeaders, ObjectInfo

LETTERS = st.characters(blacklist_categories=("Cs", "Cc", "Cn"))


def _texts(least: int, most: int) -> st.SearchStrategy[str]:
    return st.text(LETTERS, min_size=least, max_size=most).filter(lambda text: len(text.encode()) <= most)


TAGS = st.dictionaries(_texts(1, 128), _texts(0, 256), max_size=10)


async def _get(store: Any, key: str, name: str) -> str:
    return await OBJECT_XATTRS[name].get(store, key, await store.head(key), "")


async def _set(store: Any, key: str, name: str, text: str) -> None:
    row = OBJECT_XATTRS[name]
    assert row.set is not None
    await row.set(store, key, await store.head(key), "", text)


def test_tags_here_and_there(account: Callable[..., Any], server: Server, bucket: str) -> None:
    s3 = client(server)
    row = OBJECT_PREFIXES["tag."]

    async def work(account: Any) -> None:
        store = account.bucket(bucket)
        await store.put("k", [b"x"], ObjectHeaders())
        info = await store.head("k")
        assert row.set is not None
        assert row.remove is not None
        await row.set(store, "k", info, "team", "blue")
        await row.set(store, "k", info, "颜色", "red + green")
        assert json.loads(await _get(store, "k", "tags")) == {"team": "blue", "颜色": "red + green"}
        await row.remove(store, "k", info, "team")
        with pytest.raises(Refusal) as caught:
            await row.get(store, "k", info, "team")
        assert caught.value.errno == errno.ENODATA
        for n in range(9):
            await row.set(store, "k", info, f"n{n}", "")
        with pytest.raises(Refusal) as caught:
            await row.set(store, "k", info, "eleventh", "")
        assert caught.value.errno == errno.E2BIG

    account(work)
    assert {"Key": "颜色", "Value": "red + green"} in s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"]


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(tags=TAGS)
def test_any_tags_come_back(on_rgw: Callable[..., Any], rgw_bucket: str, tags: dict[str, str]) -> None:
    async def work(account: Any) -> None:
        store = account.bucket(rgw_bucket)
        await store.put("k", [b"x"], ObjectHeaders())
        await _set(store, "k", "tags", json.dumps(tags))
        assert await store.get_tags("k") == tags

    on_rgw(work)


@given(TAGS)
def test_tags_are_parsed_in_every_form(tags: dict[str, str]) -> None:
    listed = [{"Key": key, "Value": value} for key, value in tags.items()]
    for form in (tags, listed, {"TagSet": listed}):
        assert parse_tags(json.dumps(form)) == tags


@pytest.mark.parametrize(
    ("tags", "number"),
    [({"k" * 129: ""}, errno.E2BIG), ({"键" * 43: ""}, errno.E2BIG), ({"k": "v" * 257}, errno.E2BIG), ({"": "v"}, errno.EINVAL),
     ({"a\n": ""}, errno.EINVAL),
     ({f"{n}": "" for n in range(11)}, errno.E2BIG)],
)  # fmt: skip
def test_tags_over_the_limits(tags: dict[str, str], number: int) -> None:
    with pytest.raises(Refusal) as caught:
        check_tags(tags)
    assert caught.value.errno == number


def test_acl_words_grants_and_json(on_rgw: Callable[..., Any], rgw: Server, rgw_bucket: str) -> None:
    async def work(account: Any) -> None:
        store = account.bucket(rgw_bucket)
        await store.put("k", [b"x"], ObjectHeaders())
        await _set(store, "k", "acl", "public-read")
        urllib.request.urlopen(f"{rgw.url}/{rgw_bucket}/k").close()  # noqa: ASYNC210
        text = await _get(store, "k", "acl")
        await _set(store, "k", "acl", "private")
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{rgw.url}/{rgw_bucket}/k")  # noqa: ASYNC210
        await _set(store, "k", "acl", text)
        urllib.request.urlopen(f"{rgw.url}/{rgw_bucket}/k").close()  # noqa: ASYNC210
        await _set(store, "k", "acl", "read=id=test")
        permissions = [grant["Permission"] for grant in json.loads(await _get(store, "k", "acl"))["Grants"]]
        assert permissions.count("READ") == 1
        await _set(store, "k", "acl", "read=id=test write=id=test full_control=id=test")
        permissions = [grant["Permission"] for grant in json.loads(await _get(store, "k", "acl"))["Grants"]]
        assert "WRITE" in permissions or "FULL_CONTROL" in permissions, permissions
        with pytest.raises(Refusal):
            await _set(store, "k", "acl", "publicread")
        with pytest.raises(Refusal, match="knows nobody") as caught:
            await _set(store, "k", "acl", "read=id=nobody-of-this-name")
        assert caught.value.errno == errno.EINVAL, "not that there is no such file"

    on_rgw(work)


def test_locks_hold(on_rgw: Callable[..., Any], rgw: Server) -> None:
    s3 = client(rgw)

    async def work(account: Any) -> None:
        store = account.bucket(name)
        written = await store.put("k", [b"precious"], ObjectHeaders())
        with pytest.raises(Refusal) as caught:
            await _get(store, "k", "retention")
        assert caught.value.errno == errno.ENODATA
        await _set(store, "k", "legal-hold", "on")
        assert await _get(store, "k", "legal-hold") == "ON"
        with pytest.raises(StoreError) as refused:
            await store.delete("k", version_id=written.version_id)
        assert refused.value.errno == errno.EPERM
        await _set(store, "k", "legal-hold", "OFF")
        await _set(store, "k", "retention", "mode=governance,days=2")
        assert json.loads(await _get(store, "k", "retention"))["Mode"] == "GOVERNANCE"
        with pytest.raises(StoreError) as refused:
            await _set(store, "k", "retention", "mode=GOVERNANCE,days=1")
        assert refused.value.errno in (errno.EACCES, errno.EPERM)
        await _set(store, "k", "retention", "mode=GOVERNANCE,days=1,bypass=1")

    for name in fresh(s3, ObjectLockEnabledForBucket=True):  # noqa: B007  # work() uses it
        on_rgw(work)


def test_no_lock_without_object_lock(on_rgw: Callable[..., Any], rgw_bucket: str) -> None:
    async def work(account: Any) -> None:
        store = account.bucket(rgw_bucket)
        await store.put("k", [b"bytes"], ObjectHeaders())
        with pytest.raises(StoreError):
            await _set(store, "k", "legal-hold", "ON")
        assert (await store.head("k")).size == 5

    on_rgw(work)


def test_storage_class_in_place(account: Callable[..., Any], server: Server, bucket: str) -> None:
    s3 = client(server)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x" * 100, Metadata={"mode": "33188"}, ContentType="text/x-try", Tagging="a=b")

    async def work(account: Any) -> None:
        store = account.bucket(bucket)
        assert await _get(store, "k", "storage-class") == "STANDARD"
        with pytest.raises(Refusal):
            await _set(store, "k", "storage-class", "COLD")
        try:
            await _set(store, "k", "storage-class", SECOND_CLASS)
        except StoreError as exc:  # a gateway that was given may have one class only
            if exc.errno != errno.EINVAL or not os.environ.get("ZOSFS_TEST_RGW"):
                raise
        else:
            assert await _get(store, "k", "storage-class") == SECOND_CLASS
        after = await store.head("k")
        assert (after.metadata or {})["mode"] == "33188"
        assert after.content_type == "text/x-try"
        assert await store.get_tags("k") == {"a": "b"}

    account(work)


def test_a_url_reads_for_an_hour(account: Callable[..., Any], bucket: str) -> None:
    async def work(account: Any) -> None:
        store = account.bucket(bucket)
        await store.put("ä b", [b"seen"], ObjectHeaders())
        url = await _get(store, "ä b", "url")
        with urllib.request.urlopen(url) as answer:  # noqa: ASYNC210  # the loop has nothing else to do
            assert answer.read() == b"seen"

    account(work)


def test_restore_says_what_the_server_lacks(on_rgw: Callable[..., Any], rgw_bucket: str) -> None:
    async def work(account: Any) -> None:
        store = account.bucket(rgw_bucket)
        await store.put("k", [b"x"], ObjectHeaders())
        assert await _get(store, "k", "restore") == "not archived"
        with pytest.raises(StoreError) as caught:
            await _set(store, "k", "restore", "days=7,tier=Standard")
        assert caught.value.errno == errno.EOPNOTSUPP

    on_rgw(work)


@pytest.mark.parametrize(
    ("header", "storage_class", "state"),
    [
        ('ongoing-request="true"', "GLACIER", "thawing"),
        ('ongoing-request="false", expiry-date="Fri, 21 Dec 2029 00:00:00 GMT"', "GLACIER", "thawed until Fri, 21 Dec 2029 00:00:00 GMT"),
        ("", "DEEP_ARCHIVE", "archived"),
        ("", "STANDARD", "not archived"),
    ],
)
def test_restore_states(header: str, storage_class: str, state: str) -> None:
    info = ObjectInfo("k", 1, "e", 0, storage_class=storage_class, headers={"x-amz-restore": header} if header else {})
    assert restore_state(info) == state


@pytest.mark.parametrize("text", ["days=0", "days=32", "days=x", "tier=Fast", "day=1", "7"])
def test_restore_refuses(text: str) -> None:
    with pytest.raises(Refusal):
        parse_restore(text)


@pytest.mark.parametrize(
    "text",
    ["", "mode=SOFT,days=1", "mode=GOVERNANCE,until=yesterday", "mode=GOVERNANCE,until=2001-01-01", '{"Mode": "GOVERNANCE"}',
     '{"Mode": "governance", "RetainUntilDate": "2090-01-01"}', "mode=GOVERNANCE,days=0"],
)  # fmt: skip
def test_retention_refuses(text: str) -> None:
    with pytest.raises(Refusal):
        parse_retention(text)


def test_retention_forms() -> None:
    now = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
    assert parse_retention("mode=compliance,days=3,bypass=1", now) == (
        {"Mode": "COMPLIANCE", "RetainUntilDate": datetime.datetime(2030, 1, 4, tzinfo=datetime.UTC)}, True,
    )  # fmt: skip
    found, bypass = parse_retention('{"Mode": "GOVERNANCE", "RetainUntilDate": "2031-01-01T00:00:00Z"}', now)
    assert found["RetainUntilDate"].year == 2031
    assert not bypass
