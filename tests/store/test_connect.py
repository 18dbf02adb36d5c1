"""The first questions to a server: what is wrong with a connection is named, and what can be put right is."""

from __future__ import annotations

import errno
import socket
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.store.conftest import account, fresh_bucket, with_store
from tests.store.lossy import ANSWER_LOST, PASS, REQUEST_LOST, Fate, Lossy, error
from zosfs.config import Options
from zosfs.counters import Counters
from zosfs.errors import StoreError
from zosfs.store import connect as connecting
from zosfs.store.account import S3Account
from zosfs.store.api import ObjectHeaders
from zosfs.store.boto import make_client
from zosfs.store.connect import check, connect
from zosfs.store.credentials import Fixed
from zosfs.store.probe import SCRATCH
from zosfs.store.s3 import S3Store
from zosfs.store.sigv4 import Credentials


def refused(url: str, keys: tuple[str, str] = ("zosak", "zossk"), bucket: str = "zosfs-no-such-bucket", **options: Any) -> StoreError:
    """How `check` fails."""

    async def main() -> StoreError:
        given = {"retries": 1, "connect_timeout": 30.0, "read_timeout": 30.0, **options}
        reached = S3Account(Options(url=url, **given), Counters(), Fixed(Credentials(*keys)))
        try:
            with pytest.raises(StoreError) as failure, trio.fail_after(120):
                await check(reached, bucket)
            return failure.value
        finally:
            await reached.aclose()

    failure = trio.run(main)
    assert "zossk" not in str(failure)
    return failure


def sent_once(server: Any, keys: tuple[str, str], bucket: str) -> bool:
    """Whether a mount that is refused has asked no question twice."""
    with Lossy(server.url) as proxy:
        refused(proxy.url, keys, bucket, retries=10)
        return len(proxy.seen) == len(set(proxy.seen))


def test_refusals(server: Any) -> None:
    """None of them is sent again."""
    assert refused(server.url).row.code == "NoSuchBucket"
    assert refused(server.url, ("zosak", "wrong")).row.code == "SignatureDoesNotMatch"
    assert refused(server.url, ("nobody", "zossk")).row.code == "InvalidAccessKeyId"
    assert refused(server.url, ("", "")).errno in (errno.EACCES, errno.ENOENT)
    assert sent_once(server, ("zosak", "zossk"), "zosfs-no-such-bucket")
    assert sent_once(server, ("zosak", "wrong"), "")


def test_nobody_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert refused(f"http://127.0.0.1:{unused.getsockname()[1]}").code == "EndpointUnreachable"
    assert refused("http://zosfs.invalid").code == "NameNotResolved"
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        hasty = {"retries": 0, "read_timeout": 0.5, "connect_timeout": 0.5}
        assert refused(f"http://127.0.0.1:{silent.getsockname()[1]}", **hasty).code == "ReadTimeout"
        assert refused(f"https://127.0.0.1:{silent.getsockname()[1]}", **hasty).code == "ConnectTimeout"


def test_tls(rgw: Any, tmp_path: Path) -> None:
    assert refused(rgw.url.replace("http://", "https://")).code == "TlsFailed"
    missing = tmp_path / "none.pem"
    with pytest.raises(StoreError) as failure:
        S3Account(Options(url="https://host", ca_file=str(missing)), Counters(), Fixed(Credentials()))
    assert str(missing) in str(failure.value)
    if not rgw.tls_url:
        pytest.skip("the server given has no TLS port")
    assert refused(rgw.tls_url).code == "TlsFailed"
    assert refused(rgw.tls_url, ca_file=rgw.ca_file).row.code == "NoSuchBucket"
    assert refused(rgw.tls_url, tls_verify=False).row.code == "NoSuchBucket"
    port = rgw.tls_url.rpartition(":")[2]
    assert refused(f"https://[::ffff:127.0.0.1]:{port}", ca_file=rgw.ca_file).code == "TlsFailed"


@pytest.mark.parametrize(
    ("says", "code"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>", "BadAnswer"),
        (b"220 smtp ready\r\n\r\n", "BadAnswer"),
        (error(301, "PermanentRedirect"), "PermanentRedirect"),
        (error(301, headers="x-amz-bucket-region: elsewhere\r\n"), "PermanentRedirect"),
        (error(403, "RequestTimeTooSkewed"), "RequestTimeTooSkewed"),
        (error(403, "UserSuspended"), "UserSuspended"),
        (error(503, "SlowDown"), "SlowDown"),
    ],
)
def test_strange_answers(rgw: Any, says: bytes, code: str) -> None:
    with Lossy(rgw.url, lambda method, target: says) as proxy:
        assert refused(proxy.url).row.code == code


@pytest.mark.parametrize("offset", [-7200.0, 7200.0])
def test_a_wrong_clock_is_corrected_once(server: Any, offset: float) -> None:
    async def test(store: S3Store) -> None:
        store.exchange.signer.clock_offset = offset
        before = store.exchange.counters["requests_put"]
        await store.put("k", (b"x",), ObjectHeaders())
        assert abs(store.exchange.signer.clock_offset) < 10
        assert store.exchange.counters["requests_put"] == before + 2
        store.exchange.signer.clock_offset = offset
        await store.head("k")  # a refusal without a document

    with_store(server, test)


def test_the_region_that_the_server_names_is_taken(rgw: Any) -> None:
    async def main() -> None:
        async with fresh_bucket(rgw) as name:
            with Lossy(rgw.url) as proxy:
                proxy.once("GET", error(400, "AuthorizationHeaderMalformed", headers="x-amz-bucket-region: cn-north\r\n"))
                reached = account(rgw, proxy.url)
                await check(reached, name)
                assert reached.exchange.signer.region == "cn-north"
                await reached.aclose()

    trio.run(main)


@pytest.mark.parametrize("lost", [1, 2])
@pytest.mark.parametrize("fate", [REQUEST_LOST, ANSWER_LOST])
def test_connections_that_are_reset_fail_no_mount(rgw: Any, fate: Fate, lost: int) -> None:
    async def main() -> None:
        async with fresh_bucket(rgw) as name:
            for bucket in (name, ""):
                for first in range(4):
                    fates = iter([PASS] * first + [fate] * lost)
                    with Lossy(rgw.url, lambda method, target, fates=fates: next(fates, PASS)) as proxy:
                        reached = account(rgw, proxy.url)
                        await check(reached, bucket)
                        await reached.aclose()

    trio.run(main)


@pytest.mark.parametrize("bucket", ["", "any"])
def test_an_endpoint_that_nobody_is_at_is_tried_twice(bucket: str) -> None:
    async def main() -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unused.getsockname()[1]}"
            reached = S3Account(Options(url=url), Counters(), Fixed(Credentials("a", "b")))
            with pytest.raises(StoreError) as failure:
                await check(reached, bucket)
            assert failure.value.code == "EndpointUnreachable"
            assert reached.exchange.counters["retries"] == 1
            await reached.aclose()

    trio.run(main)


def test_connect_sends_nothing(rgw: Any, tmp_path: Path) -> None:
    async def main() -> None:
        passwd = tmp_path / "passwd"
        passwd.touch(0o600)
        passwd.write_text("special:nobody:wrong\nzosak:zossk\n")
        with Lossy(rgw.url) as proxy:
            counters = Counters()
            reached = await connect(Options(url=proxy.url, passwd_file=str(passwd)), counters, "any")
            assert proxy.connections == 0
            assert counters.requests() == 0
            await check(reached, "")
            assert counters.requests() == 1
            await reached.aclose()
            with pytest.raises(StoreError) as failure:
                await connect(Options(url="nonsense://", passwd_file=str(passwd)), counters)
            assert failure.value.code == "BadEndpoint"
            passwd.chmod(0o644)
            with pytest.raises(StoreError) as failure:
                await connect(Options(url=proxy.url, passwd_file=str(passwd)), counters)
            assert failure.value.code == "BadCredentials"

    trio.run(main)


def test_what_the_servers_can_do(rgw: Any, weed: Any) -> None:
    found = {}

    async def test(store: S3Store) -> None:
        found[store.exchange.options.url] = await store.probe("some/prefix/")
        before = store.exchange.counters.requests()
        await store.probe("some/prefix/")
        assert store.exchange.counters.requests() == before
        assert not (await store.list_page("")).objects
        assert not (await store.list_page("some/prefix/", delimiter="/")).prefixes
        assert not (await store.list_page("", delimiter="/")).prefixes

    for server in (rgw, weed):
        with_store(server, test)
    ceph, seaweed = found[rgw.url], found[weed.url]
    assert (ceph.append, ceph.put_if_none_match, ceph.put_if_match, ceph.versioned) == (True, True, True, False)
    assert (seaweed.append, seaweed.put_if_none_match, seaweed.put_if_match) == (False, True, True)
    assert (ceph.folders, seaweed.folders) == (False, True)


@pytest.mark.parametrize("marked", [True, False])
def test_folders_that_were_there_stay(server: Any, marked: bool) -> None:
    async def test(store: S3Store) -> None:
        there = "some/" if marked else "some/f"
        await store.put(there, (), ObjectHeaders())
        await store.probe("some/prefix/below/")
        assert [info.key for info in (await store.list_page("")).objects] == [there]
        page = await store.list_page("some/", delimiter="/")
        assert not page.prefixes
        await store.delete("some/f")
        if not marked and store.abilities.folders:  # an empty folder of the server's, which nobody asked to remove
            store.probed = False
            await store.probe("some/")
            assert (await store.list_page("", delimiter="/")).prefixes == ["some/"]

    with_store(server, test)


@pytest.mark.parametrize("answers", [1, 100])
@pytest.mark.parametrize("asked", ["append", "conditions", "versioning"])
def test_what_got_no_answer_is_asked_again(rgw: Any, asked: str, answers: int) -> None:
    """One lost answer is made up for by the same call; of a server that stays in trouble the next call asks."""
    left = 0

    def lose(method: str, target: str) -> Fate:
        nonlocal left
        what = "append" if "append=true" in target else "conditions" if SCRATCH in target else target.rpartition("?")[2].rstrip("=")
        if what != asked or method == "DELETE" or left == 0:
            return PASS
        left -= 1
        return ANSWER_LOST

    async def main() -> None:
        nonlocal left
        async with fresh_bucket(rgw) as name:
            with Lossy(rgw.url, lose) as proxy:
                reached = account(rgw, proxy.url)
                store = reached.bucket(name)
                left = answers
                await store.probe()
                assert store.probed == (answers == 1)
                left = 0
                able = await store.probe()
                assert store.probed
                assert (able.append, able.put_if_match, able.put_if_none_match, able.versioned) == (True, True, True, False)
                assert not (await store.list_page("")).objects
                await reached.aclose()

    trio.run(main)


def test_a_read_only_mount_is_not_written_to(server: Any) -> None:
    async def test(store: S3Store) -> None:
        abilities = await store.probe()
        assert (abilities.append, abilities.versioned) == (None, False)
        assert not any(store.exchange.counters[f"requests_{verb}"] for verb in ("put", "append", "delete", "copy"))

    with_store(server, test, ro=True)


def test_a_versioned_bucket_is_neither_appended_to_nor_asked(rgw: Any) -> None:
    async def test(store: S3Store) -> None:
        await store.call("put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})
        abilities = await store.probe()
        assert (abilities.versioned, abilities.append, abilities.put_if_match, abilities.put_if_none_match) == (True, False, False, False)
        first = await store.put("k", (b"one",), ObjectHeaders())
        await store.put("k", (b"two",), ObjectHeaders(), if_match="ignored")
        buffer = bytearray(3)
        await store.get_range("k", 0, memoryview(buffer), version_id=first.version_id)
        assert buffer == b"one"
        assert (await store.head("k", version_id=first.version_id)).version_id == first.version_id
        await store.delete("k")
        assert not (await store.list_page("")).objects

    with_store(rgw, test)


def test_scratch_objects_go_even_when_the_probe_is_cancelled(rgw: Any) -> None:
    async def main() -> None:
        async with fresh_bucket(rgw) as name:
            with Lossy(rgw.url) as proxy:
                behind, straight = account(rgw, proxy.url), account(rgw)
                proxy.fate = lambda method, target: "silent" if method == "PUT" and "append" not in target else "pass"

                async def seen() -> None:
                    while not any(SCRATCH in target for _, target in proxy.seen):  # noqa: ASYNC110  # a thread of the proxy tells
                        await trio.sleep(0.01)

                with trio.fail_after(60):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(behind.bucket(name).probe)
                        await seen()
                        nursery.cancel_scope.cancel()
                assert not (await straight.bucket(name).list_page("")).objects
                await behind.aclose()
                await straight.aclose()

    trio.run(main)


def test_a_server_that_cannot_write_just_now_can_be_mounted(rgw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "PROBE_PATIENCE", 1.0)

    async def main() -> None:
        async with fresh_bucket(rgw) as name:
            with Lossy(rgw.url, lambda method, target: "silent" if method == "PUT" else "pass") as proxy:
                reached = account(rgw, proxy.url, read_timeout=1000.0)
                with trio.fail_after(120):  # the server's word would be waited for much longer
                    await check(reached, name)
                assert reached.bucket(name).abilities.append is None
                await reached.aclose()

    trio.run(main)


def test_buckets(server: Any) -> None:
    async def main() -> None:
        async with fresh_bucket(server) as name:
            reached = account(server)
            assert name in dict(await reached.list_buckets())
            with pytest.raises(StoreError) as failure:
                await reached.create_bucket(name)
            assert failure.value.errno == errno.EEXIST
            with pytest.raises(StoreError) as failure:
                await reached.create_bucket("Not/A/Bucket")
            assert failure.value.errno == errno.EINVAL
            with pytest.raises(StoreError) as failure:
                await reached.delete_bucket("zosfs-no-such-bucket")
            assert failure.value.errno == errno.ENOENT
            await reached.aclose()

    trio.run(main)


def test_a_bucket_with_objects_is_not_deleted(rgw: Any) -> None:
    async def test(store: S3Store) -> None:
        await store.put("k", (b"x",), ObjectHeaders())
        reached = account(rgw)
        with pytest.raises(StoreError) as failure:
            await reached.delete_bucket(store.bucket)
        assert failure.value.errno == errno.ENOTEMPTY
        await reached.aclose()

    with_store(rgw, test)


def test_what_zos_adds_is_known_to_our_clients_and_to_no_other() -> None:
    import boto3
    import botocore

    def kinds(client: Any) -> dict[str, set[str]]:
        model = client.meta.service_model
        found = {name: set(model.operation_model(name).input_shape.members) for name in ("PutObject", "GetObject", "CreateBucket")}
        return {**found, "operations": set(model.operation_names)}

    adds = {
        "PutObject": {"Append", "AppendPosition"}, "GetObject": {"ZosProcess"}, "CreateBucket": {"AZPolicy", "StorageClass"},
        "operations": {"ProcessObject", "MdSearch", "GetUsageStats"},
    }  # fmt: skip
    ours = kinds(make_client(Options(url="http://zos.invalid"), Credentials("a", "b"), "s3", "s3v4"))
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
    theirs = kinds(boto3.client("s3", endpoint_url="http://zos.invalid", **keys))  # type: ignore[call-overload]
    for name, added in adds.items():
        assert added <= ours[name], name
        assert not added & theirs[name], f"{name}: a program beside zosfs has an untouched botocore"
    assert not list(Path(botocore.__file__).parent.rglob("*zosfs*"))
