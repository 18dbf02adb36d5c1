"""Every verb of the Store against real servers, over plain sockets and TLS."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from tests.store.conftest import Test, with_store
from zosfs.errors import StoreError
from zosfs.store.api import FileSlice, ObjectHeaders, body_length
from zosfs.store.digests import multipart_etag
from zosfs.store.s3 import S3Store

Run = Callable[[Test], None]
NONE = ObjectHeaders()
MIB = 1 << 20


async def content(store: S3Store, key: str) -> bytes:
    """All bytes of an object."""
    data = bytearray((await store.head(key)).size)
    await store.get_range(key, 0, memoryview(data))
    return bytes(data)


def is_ceph(store: S3Store) -> bool:
    """Whether the store is Ceph."""
    return bool(store.abilities.append)


def test_put_head_get(run: Run) -> None:
    async def test(store: S3Store) -> None:
        headers = ObjectHeaders({"mode": "33188", "name": "ä b"}, "text/plain", tags={"a": "b c"}, extra={"cache-control": "no-cache"})
        written = await store.put("dir/file", (b"hello ", bytearray(b"wor"), memoryview(b"ld")), headers)
        assert written.etag == hashlib.md5(b"hello world").hexdigest()
        info = await store.head("dir/file")
        assert (info.size, info.etag, info.content_type) == (11, written.etag, "text/plain")
        assert info.metadata == {"mode": "33188", "name": "ä b"}
        assert info.headers["cache-control"] == "no-cache"
        assert abs(info.modified_ns - written.modified_ns) <= 2 * 10**9
        assert await store.get_tags("dir/file") == {"a": "b c"}
        buffer = bytearray(5)
        told = await store.get_range("dir/file", 6, memoryview(buffer), if_match=info.etag)
        assert (bytes(buffer), told.size, told.etag) == (b"world", 11, info.etag)
        assert (await store.get_range("dir/file", 0, memoryview(b""), if_match=info.etag)).size == 11

    run(test)


def test_reads_that_cannot_be(run: Run) -> None:
    async def test(store: S3Store) -> None:
        await store.put("k", (b"hello",), NONE)
        buffer = memoryview(bytearray(5))
        for start in (1, 5, 100):
            with pytest.raises(StoreError) as failure:
                await store.get_range("k", start, buffer)
            assert (failure.value.row.code, failure.value.errno) == ("InvalidRange", errno.EINVAL)
        for length in (5, 0):
            with pytest.raises(StoreError) as failure:
                await store.get_range("k", 0, buffer[:length], if_match="0" * 32)
            assert failure.value.errno == errno.ESTALE
        for missing in (store.head("none"), store.get_range("none", 0, buffer)):
            with pytest.raises(StoreError) as failure:
                await missing
            assert failure.value.errno == errno.ENOENT
        assert (await store.get_range("k", 0, buffer)).size == 5  # the connections are still good

    run(test)


def test_bodies_of_files_and_buffers(run: Run) -> None:
    async def test(store: S3Store) -> None:
        with tempfile.TemporaryFile() as file:
            block = os.urandom(MIB)
            file.write(b"skip" + block * 3)
            file.truncate(6 * MIB)
            file.flush()
            fd = file.fileno()
            body = [b"first", FileSlice(fd, 4, 3 * MIB), memoryview(block)[:100_000], FileSlice(fd, 3 * MIB + 4, 70_000)]
            assert body_length(body) == 5 + 3 * MIB + 170_000
            await store.put("large", body, NONE)
            expected = b"first" + block * 3 + block[:100_000] + bytes(70_000)
            assert await content(store, "large") == expected
            small = [FileSlice(file.fileno(), 0, 6), b"x"]
            await store.put("small", small, NONE)
            assert await content(store, "small") == b"skip" + block[:2] + b"x"
            await store.put("empty", (), NONE)
            assert (await store.head("empty")).size == 0
            with pytest.raises(StoreError) as failure:
                await store.put("short", [FileSlice(file.fileno(), 5 * MIB, 2 * MIB)], NONE)
            assert failure.value.code == "LocalReadFailed"

    run(test)


@pytest.mark.long_on("tls")
def test_conditions(run: Run) -> None:
    async def test(store: S3Store) -> None:
        assert store.abilities.put_if_match
        assert store.abilities.put_if_none_match
        first = await store.put("k", (b"1",), NONE, if_none_match=True)
        with pytest.raises(StoreError) as failure:
            await store.put("k", (b"2",), NONE, if_none_match=True)
        assert failure.value.errno == errno.ESTALE
        second = await store.put("k", (b"2",), NONE, if_match=first.etag)
        with pytest.raises(StoreError) as failure:
            await store.put("k", (b"3",), NONE, if_match=first.etag)
        assert failure.value.errno == errno.ESTALE
        assert await content(store, "k") == b"2"
        await store.copy("k", "copy", if_match=second.etag)
        with pytest.raises(StoreError) as failure:
            await store.copy("k", "copy", if_match=first.etag)
        assert failure.value.errno == errno.ESTALE

    run(test)


@pytest.mark.long_on("tls")
def test_append(run: Run) -> None:
    async def test(store: S3Store) -> None:
        headers = ObjectHeaders({"mode": "33188"})
        if not store.abilities.append:
            with pytest.raises(StoreError) as failure:
                await store.append("log", 0, (b"abc",), headers)
            assert failure.value.errno == errno.EOPNOTSUPP
            assert not (await store.list_page("")).objects
            return
        assert (await store.append("log", 0, (b"abc",), headers)).next_position == 3
        assert (await store.append("log", 3, (b"def",), headers)).next_position == 6
        with pytest.raises(StoreError) as failure:
            await store.append("log", 3, (b"ghi",), headers)
        assert failure.value.code == "PositionNotEqualToLength"
        assert failure.value.headers["x-rgw-next-append-position"] == "6"
        info = await store.head("log")
        assert info.appendable
        assert info.metadata == {"mode": "33188"}
        assert (await store.list_page("")).objects[0].appendable
        await store.put("normal", (b"x",), NONE)
        with pytest.raises(StoreError) as failure:
            await store.append("normal", 1, (b"y",), NONE)
        assert failure.value.code == "ObjectNotAppendable"

    run(test)


def test_multipart(run: Run) -> None:
    async def test(store: S3Store) -> None:
        head = os.urandom(5 * MIB)
        upload = await store.create_upload("k", ObjectHeaders({"mode": "33188"}, "text/x", tags={"not": "sent"}))
        parts = [await store.upload_part("k", upload, 2, (b"tail",)), await store.upload_part("k", upload, 1, (head,))]
        assert sorted(part.number for part in await store.list_parts("k", upload)) == [1, 2]
        written = await store.complete_upload("k", upload, parts)
        assert written.etag == multipart_etag(parts)
        info = await store.head("k")
        assert (info.size, info.etag, info.content_type, info.metadata) == (5 * MIB + 4, written.etag, "text/x", {"mode": "33188"})
        # in place: the server's own bytes, and a new tail
        upload = await store.create_upload("k", NONE)
        parts = [
            await store.upload_part_copy("k", upload, 1, "k", 0, 5 * MIB, if_match=info.etag),
            await store.upload_part("k", upload, 2, (b"other",)),
        ]
        assert parts[0].size == 5 * MIB
        await store.complete_upload("k", upload, parts)
        assert await content(store, "k") == head + b"other"
        upload = await store.create_upload("gone", NONE)
        await store.upload_part("gone", upload, 1, (b"x",))
        await store.abort_upload("gone", upload)
        await store.abort_upload("gone", upload)
        with pytest.raises(StoreError) as failure:
            await store.list_parts("gone", upload)
        assert failure.value.code == "NoSuchUpload"
        await store.abort_upload("k", "")
        with pytest.raises(StoreError):
            await store.list_parts("k", "")
        assert await content(store, "k") == head + b"other"

    run(test)


@pytest.mark.long_on("tls")
def test_a_completion_says_no_with_a_reason(run: Run) -> None:
    async def test(store: S3Store) -> None:
        if not is_ceph(store):
            return  # SeaweedFS takes parts of any size
        upload = await store.create_upload("k", NONE)
        parts = [await store.upload_part("k", upload, n, (b"small",)) for n in (1, 2)]
        with pytest.raises(StoreError) as failure:
            await store.complete_upload("k", upload, parts)
        assert failure.value.code == "EntityTooSmall"
        with pytest.raises(StoreError) as failure:
            await store.complete_upload("k", upload, parts[:1])
        assert failure.value.code == "InvalidPart"

    run(test)


@pytest.mark.long_on("tls")
def test_copy(run: Run) -> None:
    async def test(store: S3Store) -> None:
        await store.put("a b+ü", (b"hello",), ObjectHeaders({"mode": "33188"}, "text/plain", tags={"t": "1"}))
        kept = await store.copy("a b+ü", "copy")
        info = await store.head("copy")
        assert (info.metadata, info.content_type, info.etag) == ({"mode": "33188"}, "text/plain", kept.etag)
        assert kept.modified_ns
        assert await store.get_tags("copy") == {"t": "1"}
        await store.copy("copy", "copy", headers=ObjectHeaders({"mode": "33261"}, "text/x"), if_match=info.etag, size=5)
        info = await store.head("copy")
        assert (info.metadata, info.content_type) == ({"mode": "33261"}, "text/x")
        with pytest.raises(StoreError) as failure:
            await store.copy("missing", "copy")
        assert failure.value.errno == errno.ENOENT
        assert await content(store, "copy") == b"hello"

    run(test)


@pytest.mark.long_on("tls")
def test_deletes(run: Run) -> None:
    async def test(store: S3Store) -> None:
        keys = ["a", "b/c", "d & <e>", "ü"] + (["tab\there", "line\nbreak"] if is_ceph(store) else [])
        for key in keys:
            await store.put(key, (b"x",), NONE)
        await store.delete("a")
        await store.delete("a")
        counters = store.exchange.counters
        before = counters["requests_delete"]
        assert await store.delete_many([*keys, "never was"]) == {}
        assert counters["requests_delete"] - before == (2 if is_ceph(store) else 0)
        assert not (await store.list_page("")).objects
        assert await store.delete_many([]) == {}

    run(test)


@pytest.mark.long_on("tls")
def test_an_empty_key_never_becomes_a_request_on_the_bucket(run: Run) -> None:
    async def test(store: S3Store) -> None:
        for attempt in (
            store.delete(""), store.put("", (b"x",), NONE), store.head(""), store.put_acl("", "private"), store.copy("a", ""),
            store.create_upload("", NONE), store.abort_upload("", "x"), store.put_tags("", {}),
        ):  # fmt: skip
            with pytest.raises(StoreError):
                await attempt
        await store.usage()

    run(test)


@pytest.mark.long_on("tls")
def test_tags_and_acl(run: Run) -> None:
    async def test(store: S3Store) -> None:
        await store.put("k", (b"x",), NONE)
        assert await store.get_tags("k") == {}
        await store.put_tags("k", {"one": "1", "two": "a b"})
        assert await store.get_tags("k") == {"one": "1", "two": "a b"}
        await store.put_tags("k", {})
        assert await store.get_tags("k") == {}
        await store.put_acl("k", "public-read")
        acl = await store.get_acl("k")
        everybody = [grant for grant in acl["Grants"] if grant["Grantee"].get("URI", "").endswith("/AllUsers")]
        assert [grant["Permission"] for grant in everybody] == ["READ"]
        await store.put_acl("k", "private")
        assert len((await store.get_acl("k"))["Grants"]) == 1
        await store.put_acl("k", acl)
        assert len((await store.get_acl("k"))["Grants"]) == 2

    run(test)


ODD = [
    "a+b", "a b", " lead", "trail ", "a%b", "a%20b", "%41", "ü/é", "e\u0301", "日本", "🐧", "q'\"x", "a&b<c>", "a:b", "a#b?c=d", "~x",
    "a=b;c,d@!$*()[]{}|^`", "x" * 255, "-", "_under", "a.b/..c",
]  # fmt: skip
ODD_ON_CEPH = ["a//b", "./z", "x/../y", "a\\b", "tab\tx", "nl\nx", "\x01", "\x7f", "/lead", "dir/", "a/.", "\uffff", "é" * 500]


def test_odd_keys_round_trip(run: Run) -> None:
    async def test(store: S3Store) -> None:
        keys = ODD + (ODD_ON_CEPH if is_ceph(store) else [])
        for key in keys:
            await store.put(key, (key.encode(),), NONE)
        for key in keys:
            assert await content(store, key) == key.encode(), key
        listed = [entry.key for entry in (await store.list_page("")).objects]
        assert listed == sorted(keys, key=lambda key: key.encode())

    run(test)


@pytest.mark.parametrize("key", ["c\x01d", "nl\nx", "\x1f", "a&b<c>", "\uffff"])
def test_uploads_of_odd_keys(run: Run, key: str) -> None:
    """Servers write the key into their answers, and no document can carry some."""

    async def test(store: S3Store) -> None:
        if not is_ceph(store) and key == "\uffff":
            return
        upload = await store.create_upload(key, NONE)
        part = await store.upload_part(key, upload, 1, (b"words",))
        assert [one.number for one in await store.list_parts(key, upload)] == [1]
        written = await store.complete_upload(key, upload, [part])
        assert await content(store, key) == b"words"
        copied = await store.create_upload(key, NONE)
        parts = [await store.upload_part_copy(key, copied, 1, key, 0, 5, if_match=written.etag)]
        await store.complete_upload(key, copied, parts)
        await store.copy(key, key + "2")
        assert await content(store, key + "2") == b"words"

    run(test)


@pytest.mark.parametrize("delimiter", ["", "/"])
def test_what_lies_below_a_control_character_is_listed_page_by_page(run: Run, delimiter: str) -> None:
    async def test(store: S3Store) -> None:
        if not is_ceph(store):
            pytest.skip("SeaweedFS ends a listing early after such a name")
        keys = ["z\x01z/a\x02", "z\x01z/b", "z\x01z/c\x1f"]
        for key in keys:
            await store.put(key, (), NONE)
        assert [entry.key for entry in (await store.list_page("z\x01z/", delimiter=delimiter)).objects] == keys
        listed, marker = [], ""
        while True:
            page = await store.list_page("z\x01z/", delimiter=delimiter, marker=marker, max_keys=1)
            listed += [entry.key for entry in page.objects]
            marker = page.next_marker
            if not marker:
                break
        assert listed == keys

    run(test)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("delimiter", ["", "/"])
def test_listing_page_by_page(server: Any, version: int, delimiter: str) -> None:
    async def test(store: S3Store) -> None:
        keys = [f"p/{name}" for name in ("a", "a b", "%41", "%42", "%43", "b/1", "b/2", "b/3", "c/x", "c+", "d", "e/1/2", "f", "g/1")]
        for key in [*keys, "other"]:
            await store.put(key, (b"x",), NONE)
        objects: list[str] = []
        prefixes: list[str] = []
        marker, pages = "", 0
        while True:
            page = await store.list_page("p/", delimiter=delimiter, marker=marker, max_keys=3)
            assert len(page.objects) + len(page.prefixes) <= 3
            objects += [entry.key for entry in page.objects]
            prefixes += page.prefixes
            pages += 1
            marker = page.next_marker
            if not marker:
                break
        assert sorted(objects) == sorted(key for key in keys if not delimiter or key.count("/") == 1)
        assert sorted(prefixes) == (["p/b/", "p/c/", "p/e/", "p/g/"] if delimiter else [])
        assert pages == (4 if delimiter else 5)
        entry = (await store.list_page("p/a", max_keys=1)).objects[0]
        assert (entry.size, entry.etag, entry.metadata) == (1, hashlib.md5(b"x").hexdigest(), None)
        assert abs(entry.modified_ns - (await store.head("p/a")).modified_ns) < 10**9

    with_store(server, test, listobjectsv2=version == 2)


def test_signature_version_2(server: Any) -> None:
    async def test(store: S3Store) -> None:
        await store.put("a b/ü", (b"hello",), ObjectHeaders({"mode": "33188"}, "text/plain", tags={"a": "b"}))
        assert await content(store, "a b/ü") == b"hello"
        upload = await store.create_upload("mp", NONE)
        await store.complete_upload("mp", upload, [await store.upload_part("mp", upload, 1, (b"x",))])
        assert [entry.key for entry in (await store.list_page("")).objects] == ["a b/ü", "mp"]
        if server.kind == "rgw":  # SeaweedFS does not sign ?tagging
            assert await store.get_tags("a b/ü") == {"a": "b"}
        await store.delete_many(["a b/ü", "mp"])
        assert await store.call("get_bucket_versioning") == {}

    with_store(server, test, sigv2=True)


@pytest.mark.long_on("tls")
def test_usage(run: Run) -> None:
    async def test(store: S3Store) -> None:
        await store.put("k", (b"12345",), NONE)
        usage = await store.usage()
        if is_ceph(store):
            assert (usage.objects, usage.bytes, usage.quota_bytes) == (1, 5, None)
        with pytest.raises(StoreError) as failure:
            await S3Store(store.exchange, store._boto, "zosfs-no-such-bucket").usage()
        assert failure.value.code == "NoSuchBucket"

    run(test)


@pytest.mark.long_on("tls")
def test_requests_of_one_key_never_overlap(run: Run) -> None:
    async def test(store: S3Store) -> None:
        running: list[str] = []
        send = store.exchange.request

        async def watched(verb: str, method: str, bucket: str, key: str = "", **more: Any) -> Any:
            assert key not in running
            running.append(key)
            try:
                return await send(verb, method, bucket, key, **more)
            finally:
                running.remove(key)

        store.exchange.request = watched  # type: ignore[assignment]
        async with trio.open_nursery() as nursery:
            for n in range(6):
                nursery.start_soon(store.put, "k", (b"%d" % n,), NONE)
                nursery.start_soon(store.delete, "k")
        await store.put("k", (b"last",), NONE)
        assert await content(store, "k") == b"last"
        assert not store._turns._locks

    run(test)


@pytest.mark.long_on("tls")
def test_a_directory_made_anew_outlives_the_deletion_of_what_was_kept_of_the_one_before(run: Run) -> None:
    async def test(store: S3Store) -> None:
        sent: list[str] = []
        listed, go_on = trio.Event(), trio.Event()
        send = store.exchange.request

        async def watched(verb: str, *more: Any, **rest: Any) -> Any:
            sent.append(verb)
            answer = await send(verb, *more, **rest)
            if verb == "list" and not listed.is_set():
                listed.set()
                await go_on.wait()
            return answer

        store.exchange.request = watched  # type: ignore[assignment]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.delete_folder, "d/")
            await listed.wait()
            nursery.start_soon(store.put, "d/", (), NONE)
            await trio.testing.wait_all_tasks_blocked()
            go_on.set()
        assert sent == ["list", "delete", "put"]
        assert [info.key for info in (await store.list_page("d/")).objects] == ["d/"]
        await store.put("d/f", (b"x",), NONE)
        assert not await store.delete_folder("d/")
        assert await content(store, "d/f") == b"x"

    run(test)
