"""What was learnt of Ceph the hard way, each as a test (the store's own rules, not Ceph's).

The ninth, that a request in doubt is settled before the next of its key, is held by test_doubt.
"""

from __future__ import annotations

import errno
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.store.conftest import account, fresh_bucket, with_store
from tests.store.lossy import Lossy
from zosfs.config import Options
from zosfs.errors import StoreError
from zosfs.store.api import ObjectHeaders
from zosfs.store.boto import OPERATIONS, make_client
from zosfs.store.s3 import S3Store
from zosfs.store.sigv4 import Credentials

NONE = ObjectHeaders()


def client(server: Any, url: str = "", **options: Any) -> Any:
    """A boto3 client as the store makes it."""
    return make_client(Options(url=url or server.url, **options), Credentials(server.access_key, server.secret_key), "s3", "s3v4")


def test_1_checksums_only_when_required(rgw: Any) -> None:
    if not rgw.tls_url:
        pytest.skip("the server given has no TLS port")

    async def test(store: S3Store) -> None:
        made = client(rgw, rgw.tls_url, ca_file=rgw.ca_file)
        made.put_object(Bucket=store.bucket, Key="k", Body=b"over TLS")
        assert made.get_object(Bucket=store.bucket, Key="k")["Body"].read() == b"over TLS"

    with_store(rgw, test)


def test_2_no_expect(rgw: Any) -> None:
    async def test(store: S3Store) -> None:
        heads: list[str] = []
        made = client(rgw)
        made.meta.events.register("before-send.s3", lambda request, **_: heads.append(str(request.headers).lower()))
        with pytest.raises(made.exceptions.ClientError):
            made.put_object(Bucket="zosfs-no-such-bucket", Key="k", Body=b"refused early")
        made.put_object(Bucket=store.bucket, Key="k", Body=b"the next one")
        assert len(heads) == 2
        assert not any("expect" in head for head in heads)

    with_store(rgw, test)


def test_3_appends_are_tried_once_and_checked(rgw: Any, weed: Any) -> None:
    # one try: test_doubt; an answer without a position means that the object was replaced
    async def test(store: S3Store) -> None:
        store.abilities.append = True
        with pytest.raises(StoreError) as failure:
            await store.append("k", 0, (b"x",), NONE)
        assert failure.value.code == "AppendIgnored"
        assert store.abilities.append is False

    with_store(weed, test)


def test_4_the_extras_document_appends(rgw: Any) -> None:
    async def test(store: S3Store) -> None:
        made = client(rgw)
        assert made.put_object(Bucket=store.bucket, Key="k", Body=b"abc", Append=True, AppendPosition=0)["AppendPosition"] == 3
        assert made.put_object(Bucket=store.bucket, Key="k", Body=b"def", Append=True, AppendPosition=3)["AppendPosition"] == 6
        head = made.head_object(Bucket=store.bucket, Key="k")
        assert (head["ContentLength"], head["ObjectType"]) == (6, "Appendable")
        assert made.list_objects_v2(Bucket=store.bucket)["Contents"][0]["Type"] == "Appendable"
        assert made.head_bucket(Bucket=store.bucket)["ObjectCount"] == 1
        # botocore's own extras are still there
        assert made.meta.service_model.shape_for("GetObjectOutput").members["Expires"].type_name == "timestamp"

    with_store(rgw, test)


def test_5_conditions_are_sent_as_the_server_wants_them(rgw: Any) -> None:
    async def test(store: S3Store) -> None:
        assert not store.quotes_if_match
        written = await store.put("k", (b"1",), NONE)
        await store.put("k", (b"2",), NONE, if_match=written.etag)

    with_store(rgw, test, probed=True)


def test_6_copies_may_take_their_time(rgw: Any) -> None:
    async def test(store: S3Store) -> None:
        patience: list[float] = []
        send = store.exchange.pool.send

        async def watched(*words: Any, **more: Any) -> Any:
            patience.append(more["patience"])
            return await send(*words, **more)

        store.exchange.pool.send = watched  # type: ignore[method-assign]
        await store.put("k", (b"1",), NONE)
        await store.copy("k", "l", size=10 << 30)
        assert patience[-1] > 1000

    with_store(rgw, test)


def test_7_a_replacing_copy_ends_appends(rgw: Any) -> None:
    async def test(store: S3Store) -> None:
        await store.append("k", 0, (b"1",), NONE)
        await store.copy("k", "k", headers=ObjectHeaders({"mode": "1"}))
        assert not (await store.head("k")).appendable
        with pytest.raises(StoreError) as failure:
            await store.append("k", 1, (b"2",), NONE)
        assert failure.value.code == "ObjectNotAppendable"

    with_store(rgw, test, probed=True)


def test_8_no_unknown_subresource_is_sent(server: Any) -> None:
    async def test(store: S3Store) -> None:
        await store.put("k", (b"precious",), NONE)
        for operation in ("rename_object", "delete_bucket", "delete_bucket_ownership_controls", "get_object_attributes"):
            assert operation not in OPERATIONS
            with pytest.raises(StoreError) as failure:
                await store.call(operation)
            assert failure.value.errno == errno.EOPNOTSUPP
        await store.delete("k")
        # the bucket is empty: what is taken for the bare operation deletes it
        for operation in ("delete_bucket_website", "delete_bucket_encryption", "delete_bucket_replication"):
            try:
                await store.call(operation)
            except StoreError as failure_of_one:
                if failure_of_one.errno not in (errno.EOPNOTSUPP, errno.ENODATA):
                    raise
            await store.usage()
        rule = {"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]}
        await store.call("put_bucket_cors", CORSConfiguration={"CORSRules": [rule]})
        assert (await store.call("get_bucket_cors"))["CORSRules"][0]["AllowedOrigins"] == ["*"]
        await store.call("delete_bucket_cors")
        with pytest.raises(StoreError) as failure:
            await store.call("get_bucket_cors")
        assert failure.value.errno == errno.ENODATA
        await store.usage()

    with_store(server, test)


def test_10_no_delete_of_many_where_there_are_notifications(rgw: Any) -> None:
    async def main() -> None:
        async with fresh_bucket(rgw) as name:
            answer = (
                "<NotificationConfiguration><TopicConfiguration><Id>x</Id><Topic>arn:aws:sns:default::t</Topic></TopicConfiguration>"
                "</NotificationConfiguration>"
            )
            told = f"HTTP/1.1 200 OK\r\ncontent-length: {len(answer)}\r\n\r\n{answer}".encode()
            with Lossy(rgw.url, lambda method, target: told if "notification" in target else "pass") as proxy:
                reached = account(rgw, proxy.url)
                store = reached.bucket(name)
                for key in ("a", "b", "c"):
                    await store.put(key, (b"x",), NONE)
                assert await store.delete_many(["a", "b", "c"]) == {}
                assert not any(method == "POST" for method, _ in proxy.seen)
                assert not (await store.list_page("")).objects
                await reached.aclose()

    trio.run(main)


def test_failures_of_a_delete_of_many(rgw: Any) -> None:
    async def main() -> None:
        async with fresh_bucket(rgw, ObjectLockEnabledForBucket=True) as name:
            reached = account(rgw)
            store = reached.bucket(name)
            written = await store.put("k", (b"x",), NONE)
            await store.call("put_object_legal_hold", Key="k", LegalHold={"Status": "ON"})
            with pytest.raises(StoreError) as failure:
                await store.delete("k", version_id=written.version_id)
            assert (failure.value.code, failure.value.errno) == ("ObjectLocked", errno.EPERM)
            await store.call("put_object_legal_hold", Key="k", LegalHold={"Status": "OFF"})
            await reached.aclose()

    trio.run(main)


@pytest.mark.parametrize("version", [2, 4])
def test_presigned(server: Any, version: int, tmp_path: Path) -> None:
    async def test(store: S3Store) -> None:
        url = await store.presign("put_object", "a b+ü", 60, version=version)
        await trio.to_thread.run_sync(urllib.request.urlopen, urllib.request.Request(url, b"by url", {"content-type": ""}, method="PUT"))
        url = await store.presign("get_object", "a b+ü", 60, version=version)
        assert "X-Amz-Signature" in url if version == 4 else "AWSAccessKeyId" in url
        answer = await trio.to_thread.run_sync(urllib.request.urlopen, url)
        assert answer.read() == b"by url"
        form = await store.presign_post("k", 60)
        assert form["fields"]["key"] == "k"

    with_store(server, test)
