"""The Store of one bucket over S3's HTTP interface: verbs to requests, answers to values.

Owns: what the server has been seen to know and do. May use: exchange, answers, boto (rare operations). Must not know: sockets, signatures.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import trio

from zosfs.errors import StoreError
from zosfs.store import answers, digests, probe, subresources
from zosfs.store.api import (
    Abilities,
    Body,
    BucketUsage,
    ListPage,
    ObjectHeaders,
    ObjectInfo,
    StoreFailure,
    Written,
    body_length,
)  # fmt: skip
from zosfs.store.arrival import Arrival
from zosfs.store.boto import OPERATIONS, Boto
from zosfs.store.exchange import FIRST_TRIES, Broken, Exchange, also_quoted, is_one_of, source_conditions, source_of
from zosfs.store.heads import THROTTLED, Heads
from zosfs.store.keyed import COPIED_PER_SECOND
from zosfs.store.listing_xml import parse_page
from zosfs.store.multipart import MultipartUploads
from zosfs.store.objects import waves

NOTIFICATIONS_KNOWN = 60.0
"""Seconds for which it is believed that a bucket has no notifications."""
SENT_BLINDLY = 1 << 20
"""Bytes up to which a PUT without conditions is sent again when its kept connection died, without a HEAD to see whether it arrived."""
DELETES_AT_ONCE = 16
TOKENS_KEPT = 256
"""Continuation tokens of version 2 listings that are under way. Without its token a listing goes on by start-after, which SeaweedFS
takes less exactly."""


class S3Store(MultipartUploads):
    """One bucket."""

    def __init__(self, exchange: Exchange, boto: Boto, bucket: str) -> None:
        super().__init__(exchange, bucket)
        self._boto = boto
        self._heads = Heads(
            lambda keys: exchange.heads(bucket, keys), alone=exchange.options.connections, pipeline=exchange.options.pipeline,
            throttled=lambda: exchange.throttled, slowed=lambda: exchange.counters.add("slowdowns"),
        )  # fmt: skip
        self._probing = trio.Lock()
        self.probed = False
        self._known: set[tuple[str, str]] = set()
        self._tokens: dict[tuple[str, str, str], str] = {}
        self._notifies = True
        self._notifies_until = -math.inf
        self.quotes_if_match = False  # Ceph wants If-Match without quotes, others with

    # reading

    async def head(self, key: str, *, version_id: str = "") -> ObjectInfo:
        """See Store.head."""
        if version_id or not key:
            return answers.info_of(key, (await self._ask("head", "HEAD", key, query=_version(version_id))).headers)
        return await self._head(key)

    async def _head(self, key: str, *, alone: bool = False) -> ObjectInfo:
        async with self._heads.turn((key,), alone=alone) as (answer,):
            if answer is not None and answer.status == 404:
                raise answers.failure(answer, "head", key)
            if answer is None or answer.status != 200:
                answer = await self._ask("head", "HEAD", key)
        return answers.info_of(key, answer.headers)

    async def head_many(self, keys: Sequence[str]) -> Sequence[ObjectInfo | StoreError | None]:
        """See Store.head_many."""
        found: list[ObjectInfo | StoreError | None] = [None] * len(keys)
        if not 1 < len(keys) <= self._heads.together or not all(keys):
            return found
        async with self._heads.turn(keys) as came:
            pass
        throttled: list[int] = []
        for n, (key, answer) in enumerate(zip(keys, came, strict=True)):
            if answer is None:
                continue
            if answer.status == 200:
                found[n] = answers.info_of(key, answer.headers)
            elif answer.status == 404:
                found[n] = answers.failure(answer, "head", key)
            elif answer.status in THROTTLED:
                throttled.append(n)
        for n in throttled:
            try:
                found[n] = await self._head(keys[n], alone=True)
            except StoreError as exc:
                found[n] = exc
                if exc.errno != errno.ENOENT:
                    break  # the others would wait as long, in vain
        return found

    async def list_page(self, prefix: str, *, delimiter: str = "", marker: str = "", max_keys: int = 1000) -> ListPage:
        """See Store.list_page."""
        query = {"prefix": prefix, "max-keys": str(max_keys), "encoding-type": "url"}
        if delimiter:
            query["delimiter"] = delimiter
        if self.exchange.options.listobjectsv2:
            query["list-type"] = "2"
            token = self._tokens.pop((prefix, delimiter, marker), "") if marker else ""
            if token:
                query["continuation-token"] = token
            elif marker:
                query["start-after"] = marker
        elif marker:
            query["marker"] = marker
        answer = await self.exchange.request("list", "GET", self.bucket, query=query)
        page, token = parse_page(answer.body)
        if token and page.next_marker:
            while len(self._tokens) >= TOKENS_KEPT:
                del self._tokens[next(iter(self._tokens))]
            self._tokens[prefix, delimiter, page.next_marker] = token
        if page.next_marker and page.next_marker == marker:
            raise StoreError("BadAnswer", operation="list", key=prefix, message="the listing does not advance")
        return page

    async def check_listing(self, prefix: str) -> None:
        """List one key, in `FIRST_TRIES`: does the bucket answer? Raises StoreError with the code that the server's document names."""
        query = {"prefix": prefix, "max-keys": "1", "encoding-type": "url"}
        parse_page((await self.exchange.request("list", "GET", self.bucket, query=query, tries=FIRST_TRIES)).body)

    async def get_range(
        self, key: str, start: int, into: memoryview, *, if_match: str = "", version_id: str = "", arrival: Arrival | None = None
    ) -> ObjectInfo:
        """See Store.get_range."""
        end = start + len(into)
        if start == end:
            return await self._pinned_head(key, if_match, version_id)
        pin, at = if_match, start
        waited_since, failures = trio.current_time(), 0
        while True:
            headers = {"range": f"bytes={at}-{end - 1}"}
            if pin:
                headers["if-match"] = also_quoted(pin)
            if arrival is not None:
                arrival.expect(at - start, partial(_says, key, at, end, start))
            try:
                answer = await self._ask(
                    "get", "GET", key, headers=headers, query=_version(version_id), into=into[at - start :], arrival=arrival
                )
            except Broken as exc:
                info = _says(key, at, end, start, 206 if "content-range" in exc.headers else 200, exc.headers)
                failures = 0 if exc.received else failures + 1
                if exc.received:
                    waited_since = trio.current_time()
                at += exc.received
                pin = pin or info.etag
                pause = self.exchange.schedule.pause(exc, failures + 1, trio.current_time() - waited_since, 0.5)
                if pause is None or not pin:
                    raise
                self.exchange.counters.add("retries")
                await trio.sleep(pause)
                continue
            return _says(key, at, end, start, answer.status, answer.headers)

    async def _pinned_head(self, key: str, if_match: str, version_id: str) -> ObjectInfo:
        info = await self.head(key, version_id=version_id)
        if if_match and info.etag != if_match:
            raise StoreError("PreconditionFailed", status=412, operation="get", key=key)
        return info

    # writing

    async def put(
        self, key: str, body: Body, headers: ObjectHeaders, *, if_match: str = "", if_none_match: bool = False
    ) -> Written:
        """See Store.put."""
        out = answers.request_headers(headers)
        if if_match and self.abilities.put_if_match:
            out["if-match"] = also_quoted(if_match) if self.quotes_if_match else if_match
        elif if_none_match and self.abilities.put_if_none_match:
            out["if-none-match"] = "*"
        again = "if-match" not in out and "if-none-match" not in out and body_length(body) <= SENT_BLINDLY

        async def etag() -> str:
            return await self.exchange.pool.work(digests.md5_hex, body)

        async with self._turns.of(key):
            answer = await self._change(
                "put", "PUT", key, headers=out, body=body, again=again,
                settle=self._settling(key, body_length(body), headers, etag),
            )  # fmt: skip
        return self._written(answer)

    async def append(self, key: str, position: int, body: Body, headers: ObjectHeaders) -> Written:
        """See Store.append. Where it is not known whether the server appends, a scratch object is asked first: a server that does
        not would replace the object. Raises ``NotImplemented`` there.
        """
        if self.abilities.append is None:
            await self.probe(key.rpartition("/")[0] + "/" if "/" in key else "")
        if not self.abilities.append:
            raise StoreError("NotImplemented", operation="append", key=key, message="the server has no append uploads")
        out = answers.request_headers(headers)
        async with self._turns.of(key):
            written = await self._append(key, position, body, out)
        if written.next_position is None:
            self.abilities.append = False
            raise StoreError("AppendIgnored", status=200, operation="append", key=key)
        return written

    async def _append(self, key: str, position: int, body: Body, headers: Mapping[str, str]) -> Written:
        query = {"append": "true", "position": str(position)}
        return self._written(
            await self._change("append", "PUT", key, query=query, headers=headers, body=body, tries=1, again=False)
        )

    async def copy(
        self, source_key: str, key: str, *, source_bucket: str = "", source_version_id: str = "",
        headers: ObjectHeaders | None = None, acl: str | Mapping[str, str] = "", if_match: str = "", size: int = 0,
    ) -> Written:  # fmt: skip
        """See Store.copy."""
        out = answers.request_headers(headers) if headers is not None else {}
        out["x-amz-metadata-directive"] = "COPY" if headers is None else "REPLACE"
        out["x-amz-copy-source"] = source_of(source_bucket or self.bucket, source_key, source_version_id)
        if headers is not None and headers.tags:
            out["x-amz-tagging-directive"] = "REPLACE"
        if acl:
            out |= {"x-amz-acl": acl} if isinstance(acl, str) else acl
        if if_match:
            out |= source_conditions(if_match)

        async def etag() -> str:
            return if_match

        settle = self._settling(key, size, headers, etag) if if_match and headers is not None and size else None
        async with self._turns.of(key):
            answer = await self._change(
                "copy", "PUT", key, headers=out, patience=size / COPIED_PER_SECOND, again=not if_match, settle=settle
            )
        root = answers.parse(answer) if answer.body else None
        told = answers.field(root, "ETag").strip('"') if root is not None else ""
        modified = answers.iso_time_ns(answers.field(root, "LastModified")) if root is not None else 0
        return self._written(answer, told, modified)

    async def delete(self, key: str, *, version_id: str = "", bypass_governance: bool = False) -> None:
        """See Store.delete."""
        headers = {"x-amz-bypass-governance-retention": "true"} if bypass_governance else {}
        async with self._turns.of(key):
            await self._delete(key, query=_version(version_id), headers=headers)

    async def _delete(self, key: str, **more: Any) -> None:
        try:
            await self._change("delete", "DELETE", key, **more)
        except StoreError as exc:
            if not is_one_of(exc, ("NoSuchKey", "NoSuchVersion")):
                raise

    async def delete_folder(self, key: str) -> bool:
        """See Store.delete_folder."""
        async with self._turns.of(key):
            page = await S3Store.list_page(self, key, max_keys=1)  # the gathering one's waits for deletions that may want this turn
            if page.objects or page.prefixes:
                return False
            await self._delete(key)
        return True

    async def delete_many(self, keys: Sequence[str]) -> Mapping[str, StoreFailure]:
        """See Store.delete_many. Keys that no document can carry are deleted singly, and before: they may lie in folders of the others."""
        if not keys:
            return {}
        together = [key for key in keys if key and answers.fits_xml(key)]
        if len(keys) == 1 or await self._has_notifications():
            together = []
        done = set(together)
        failures: dict[str, StoreFailure] = {}
        for wave in waves(key for key in keys if key not in done):
            failures |= await self._delete_singly(wave)
        if together:
            async with self._turns.of_all(together):
                answer = await self.exchange.request(
                    "delete_many", "POST", self.bucket, query={"delete": ""}, body=(answers.delete_document(together),),
                    headers={"content-type": "application/xml"}, md5=True,
                )  # fmt: skip
            failures |= answers.delete_failures(answers.parse(answer)) if answer.body else {}
        return failures

    async def _delete_singly(self, keys: Sequence[str]) -> Mapping[str, StoreFailure]:
        failures: dict[str, StoreFailure] = {}
        waiting = iter(keys)

        async def worker() -> None:
            for key in waiting:
                try:
                    await S3Store.delete(self, key)  # who gathers deletions has waited already for those that go before
                except StoreError as exc:
                    failures[key] = StoreFailure(exc.code, exc.message)

        async with trio.open_nursery() as nursery:
            for _ in range(min(DELETES_AT_ONCE, len(keys))):
                nursery.start_soon(worker)
        return failures

    async def _has_notifications(self) -> bool:
        """Whether a delete of many would end the server: Ceph 16 does not survive one on a bucket with notifications."""
        if trio.current_time() >= self._notifies_until:
            try:
                answer = await self.exchange.request("other", "GET", self.bucket, query={"notification": ""})
                root = answers.parse(answer)
                self._notifies = root.tag == "NotificationConfiguration" and len(root) > 0
            except StoreError as exc:
                if exc.ambiguous and exc.status != 501:
                    raise
                # whoever is not told has to be careful; a server without notifications has none
                self._notifies = exc.row.code == "AccessDenied"
            self._notifies_until = trio.current_time() + NOTIFICATIONS_KNOWN
        return self._notifies

    # tags, ACLs, the bucket

    async def get_tags(self, key: str, *, version_id: str = "") -> Mapping[str, str]:
        """See Store.get_tags."""
        try:
            answer = await self._ask("tagging", "GET", key, query={"tagging": "", **_version(version_id)})
        except StoreError as exc:
            if is_one_of(exc, ("NoSuchTagSet", "NoSuchTagSetError")):
                return {}
            raise
        return answers.tags_of(answers.parse(answer)) if answer.body else {}

    async def put_tags(self, key: str, tags: Mapping[str, str], *, version_id: str = "") -> None:
        """See Store.put_tags."""
        query = {"tagging": "", **_version(version_id)}
        async with self._turns.of(key):
            if tags:
                await self._change("tagging", "PUT", key, query=query, body=(answers.tags_document(tags),), md5=True)
            else:
                await self._change("tagging", "DELETE", key, query=query)

    async def get_acl(self, key: str, *, version_id: str = "") -> Mapping[str, Any]:
        """See Store.get_acl."""
        return answers.acl_of(answers.parse(await self._ask("acl", "GET", key, query={"acl": "", **_version(version_id)})))

    async def put_acl(self, key: str, acl: str | Mapping[str, Any], *, version_id: str = "") -> None:
        """See Store.put_acl. A mapping has ``Owner`` and ``Grants`` (perhaps under ``AccessControlPolicy``), or ``Grant…`` strings."""
        query = {"acl": "", **_version(version_id)}
        headers: dict[str, str] = {}
        body: Body = ()
        if isinstance(acl, str):
            headers["x-amz-acl"] = acl
        elif "Grants" in acl or "AccessControlPolicy" in acl:
            body = (answers.acl_document(acl.get("AccessControlPolicy", acl)),)
        else:
            words = {
                "GrantFullControl": "full-control", "GrantRead": "read", "GrantReadACP": "read-acp", "GrantWrite": "write",
                "GrantWriteACP": "write-acp",
            }  # fmt: skip
            headers = {f"x-amz-grant-{words[name]}": value for name, value in acl.items() if name in words}
            if not headers:
                raise StoreError("MalformedACLError", operation="acl", key=key, message="no grants")
        async with self._turns.of(key):
            await self._change("acl", "PUT", key, query=query, headers=headers, body=body, md5=bool(body))

    async def usage(self) -> BucketUsage:
        """See Store.usage."""
        try:
            answer = await self.exchange.request("head_bucket", "HEAD", self.bucket)
        except StoreError as exc:
            raise exc.of("head_bucket", self.bucket) from None
        return answers.usage_of(answer.headers)

    async def call(self, operation: str, **members: Any) -> Mapping[str, Any]:
        """See Store.call. Raises ``NotAllowed`` for what is not on the whitelist (boto.OPERATIONS)."""
        if operation not in OPERATIONS:
            raise StoreError("NotAllowed", operation=operation)
        if "notification" in operation:
            self._notifies_until = -math.inf
        await self._see_known(operation, str(members.get("Key", "")))
        return await self._boto.call(operation, Bucket=self.bucket, **members)

    async def _see_known(self, operation: str, key: str) -> None:
        """Raise ``NotImplemented`` unless the server knows the sub-resource of an operation that changes something."""
        method, name = await self._boto.subresource(operation)
        doubtful = operation in ("get_object_retention", "get_object_legal_hold", "get_bucket_encryption")
        if not name or (method, name) in self._known or method == "POST" or (method in ("GET", "HEAD") and not doubtful):
            return
        await subresources.see_known(self.exchange, self.bucket, key, method, name)
        self._known.add((method, name))

    async def presign(self, operation: str, key: str, expires: int, *, version: int = 4, **members: Any) -> str:
        """A URL that does *operation* (``get_object``, ``put_object``, ``head_object``…) on *key* for *expires* seconds;
        no request is sent."""
        return await self._boto.presign(operation, expires, version, Bucket=self.bucket, Key=key, **members)

    async def presign_post(
        self, key: str, expires: int, *, fields: Mapping[str, str] | None = None, conditions: Sequence[Any] | None = None
    ) -> Mapping[str, Any]:
        """``url`` and ``fields`` of a form that uploads to *key* for *expires* seconds; no request is sent."""
        return await self._boto.presign_post(self.bucket, key, expires, fields, conditions)

    async def probe(self, prefix: str = "") -> Abilities:
        """See Store.probe."""
        async with self._probing:
            if not self.probed:
                self.probed = await probe.probe(self, prefix, writes=not self.exchange.options.ro)
        return self.abilities


def _version(version_id: str) -> dict[str, str]:
    return {"versionId": version_id} if version_id else {}


def _wrong(key: str, status: int) -> StoreError:
    return StoreError("BadAnswer", status=status, operation="get", key=key, message="not the bytes that were asked for")


def _says(key: str, at: int, end: int, start: int, status: int, headers: Mapping[str, str]) -> ObjectInfo:
    """What the answer to a request for bytes ``[at, end)`` of a buffer that begins at *start* says; StoreError unless it is exactly
    these bytes' (or their beginning, when the connection broke)."""
    info = answers.info_of(key, headers)
    if status == 206:
        said = headers.get("content-range", "").removeprefix("bytes ").partition("/")[0]
        first, _, last = said.partition("-")
        if not first.isdigit() or int(first) != at or not last.isdigit():
            raise _wrong(key, status)
        if int(last) + 1 < end:
            raise StoreError("InvalidRange", status=416, operation="get", key=key, message=f"the object has {info.size} bytes")
        if int(last) + 1 != end:
            raise _wrong(key, status)
    elif at != 0 or start != 0 or info.size != end:
        # the range was ignored: right only by chance
        if info.size < end:
            raise StoreError("InvalidRange", status=416, operation="get", key=key, message=f"the object has {info.size} bytes")
        raise _wrong(key, status)
    return info
