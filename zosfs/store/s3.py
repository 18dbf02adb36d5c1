"""The Store over S3's HTTP interface: verbs to signed requests, answers to values, failures to StoreError.

Owns: connections, worker threads, the clock offset. Requests of one key that change it never overlap.
"""

from __future__ import annotations

import base64
import calendar
import email.utils
import hashlib
import logging
import os
import random
import ssl
import time
import urllib.parse
import xml.etree.ElementTree as ET
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

import trio

from zosfs.config import Options
from zosfs.counters import Counters
from zosfs.errors import BY_STATUS, StoreError
from zosfs.store.api import (
    Abilities,
    Body,
    BucketUsage,
    FileSlice,
    ListPage,
    ObjectHeaders,
    ObjectInfo,
    PartInfo,
    Store,
    StoreFailure,
    Written,
    body_length,
)  # fmt: skip
from zosfs.store.rare import Rare
from zosfs.store.sigv4 import EMPTY, UNSIGNED, Signer, quote_key, quote_query
from zosfs.store.wire import Answer, Connection, WireError
from zosfs.threads import ThreadPool

log = logging.getLogger(__name__)
NS = "{http://s3.amazonaws.com/doc/2006-03-01/}"


class Wires:
    """A pool of connections to one host, used from resident threads."""

    def __init__(self, url: str, options: Options, counters: Counters) -> None:
        parts = urllib.parse.urlsplit(url)
        self.tls: ssl.SSLContext | None = None
        if parts.scheme == "https":
            self.tls = ssl.create_default_context(cafile=options.ca_file or None)
            if not options.tls_verify:
                self.tls.check_hostname = False
                self.tls.verify_mode = ssl.CERT_NONE
        self.hostname = parts.hostname or ""
        self.port = parts.port or (443 if self.tls else 80)
        default = self.port == (443 if self.tls else 80)
        self.netloc = self.hostname if default else f"{self.hostname}:{self.port}"
        self._options = options
        self._counters = counters
        self._idle: deque[Connection] = deque()
        self._slots = trio.CapacityLimiter(options.connections)
        self.threads = ThreadPool("wire", options.connections)

    async def send(self, head: bytes, body: Body, into: memoryview | None, has_body: bool) -> Answer:
        """One exchange; a connection that the server closed while idle is replaced once."""
        async with self._slots:
            while True:
                connection = self._idle.pop() if self._idle else None
                fresh = connection is None
                holder: list[Connection] = [] if connection is None else [connection]

                def give_up(holder: list[Connection] = holder) -> None:
                    for running in holder:
                        running.abort()

                def exchange(connection: Connection | None = connection, holder: list[Connection] = holder) -> Answer:
                    if connection is None:
                        connection = Connection(
                            self.hostname, self.port, self.tls, self._options.connect_timeout, self._options.read_timeout
                        )
                        holder.append(connection)
                    return connection.request(head, body, into, has_body)

                try:
                    answer = await self.threads.run(exchange, on_cancel=give_up)
                except WireError as exc:
                    if not fresh and not exc.answered and exc.code == "ConnectionReset":
                        continue
                    raise
                finally:
                    if fresh and holder:
                        self._counters.add("connections")
                if holder and not holder[0].closed:
                    self._idle.append(holder[0])
                return answer

    def close(self) -> None:
        for connection in self._idle:
            connection.close()
        self.threads.close()


class S3Account:
    def __init__(self, options: Options, counters: Counters, signer: Signer | None) -> None:
        self.options, self.counters, self.signer = options, counters, signer
        self.wires = Wires(options.url, options, counters)
        self.rare = Rare(options, counters)
        self._stores: dict[str, S3Store] = {}

    def bucket(self, name: str) -> Store:
        if name not in self._stores:
            self._stores[name] = S3Store(self, name)
        return self._stores[name]

    async def list_buckets(self) -> Sequence[tuple[str, int]]:
        answer = await self.request("list_buckets", "GET", "", "")
        found = []
        for element in ET.fromstring(answer.body).iter():
            if element.tag.rpartition("}")[2] == "Bucket":
                values = {child.tag.rpartition("}")[2]: child.text or "" for child in element}
                found.append((values["Name"], _iso_ns(values["CreationDate"])))
        return found

    async def create_bucket(self, name: str, **members: Any) -> None:
        await self.rare.call("create_bucket", bucket=name, **members)

    async def delete_bucket(self, name: str) -> None:
        await self.request("other", "DELETE", name, "")

    async def aclose(self) -> None:
        self.wires.close()
        self.rare.close()

    async def call(self, operation: str, *, service: str = "s3", **members: Any) -> Mapping[str, Any]:
        """An operation on no bucket (``get_usage_stats``) or of another *service* ("sns", "sts"); as `Store.call`."""
        return await self.rare.call(operation, service=service, **members)

    async def request(
        self, verb: str, method: str, bucket: str, key: str, *, query: Mapping[str, str] = {}, headers: Mapping[str, str] = {},
        body: Body = (), into: memoryview | None = None, ok: Sequence[int] = (200, 204, 206), tries: int | None = None,
        safe: bool = True,
    ) -> Answer:
        """Sign and send, again after what may pass. Raises StoreError."""
        path = "/" + (quote_key(bucket) + ("/" + quote_key(key) if key else "") if bucket else "")
        text = quote_query(query)
        length = body_length(body)
        payload = EMPTY
        extra: dict[str, str] = {}
        if length:
            if self.options.sign_payload == "always" or (self.options.sign_payload == "auto" and self.wires.tls is None):
                payload = await self.wires.threads.run(_hash, "sha256", body)
            else:
                payload = UNSIGNED
                if length:
                    extra["content-md5"] = base64.b64encode(bytes.fromhex(await self.wires.threads.run(_hash, "md5", body))).decode()
        tries = self.options.retries + 1 if tries is None else tries
        give_up = trio.current_time() + self.options.retry_timeout
        attempt = 0
        while True:
            attempt += 1
            sent = {"host": self.wires.netloc, **extra, **{n: v.encode("utf-8").decode("latin-1") if not v.isascii() else v for n, v in headers.items()}}
            if self.signer is not None:
                self.signer.sign(method, path, text, sent, payload)
            if method in ("PUT", "POST"):
                sent["content-length"] = str(length)
            head = f"{method} {path}{'?' + text if text else ''} HTTP/1.1\r\n" + "".join(f"{n}: {v}\r\n" for n, v in sent.items()) + "\r\n"
            self.counters.add("requests_" + verb)
            try:
                answer = await self.wires.send(head.encode("latin-1"), body, into, method != "HEAD")
                self.counters.add("bytes_sent", length)
                self.counters.add("bytes_received", len(into) if into is not None and answer.status in (200, 206) else len(answer.body))
                if answer.status in ok:
                    if method == "POST" or verb in ("copy", "upload_part_copy"):
                        if b"<Error>" in answer.body[:512]:
                            raise _error(answer, verb, key)
                    return answer
                failure = _error(answer, verb, key)
            except WireError as exc:
                failure = StoreError(exc.code, message=str(exc), operation=verb, key=key)
            except StoreError as exc:
                failure = exc
            if not failure.retry or attempt >= tries or trio.current_time() > give_up:
                self.counters.add("errors")
                raise failure
            self.counters.add("retries")
            await trio.sleep(min(8.0, 0.1 * 2**attempt) * random.random())


def _hash(name: str, body: Body) -> str:
    digest = hashlib.new(name)
    for piece in body:
        if isinstance(piece, FileSlice):
            done = 0
            buffer = bytearray(min(1 << 20, piece.length))
            view = memoryview(buffer)
            while done < piece.length:
                n = os.preadv(piece.fd, [view[: min(len(buffer), piece.length - done)]], piece.offset + done)
                digest.update(view[:n])
                done += n
        else:
            digest.update(piece)
    return digest.hexdigest()


def _error(answer: Answer, verb: str, key: str) -> StoreError:
    code = message = ""
    if answer.body:
        try:
            root = ET.fromstring(answer.body)
            for element in root.iter():
                tag = element.tag.rpartition("}")[2]
                if tag == "Code" and not code:
                    code = element.text or ""
                elif tag == "Message" and not message:
                    message = element.text or ""
        except ET.ParseError:
            pass
    if answer.status == 403 and "object lock" in message:
        code = "ObjectLocked"
    code = code or BY_STATUS.get(answer.status, "InternalError")
    return StoreError(code, status=answer.status, message=message, operation=verb, key=key, headers=answer.headers)


def _http_ns(text: str) -> int:
    parsed = email.utils.parsedate(text)
    return calendar.timegm(parsed) * 10**9 if parsed else 0


def _iso_ns(text: str) -> int:
    base, _, fraction = text.rstrip("Z").partition(".")
    return calendar.timegm(time.strptime(base, "%Y-%m-%dT%H:%M:%S")) * 10**9 + int((fraction + "000000000")[:9])


def info_of(key: str, headers: Mapping[str, str]) -> ObjectInfo:
    size = int(headers.get("content-length", "0"))
    if "content-range" in headers:
        size = int(headers["content-range"].rpartition("/")[2])
    return ObjectInfo(
        key=key, size=size, etag=headers.get("etag", "").strip('"'), modified_ns=_http_ns(headers.get("last-modified", "")),
        storage_class=headers.get("x-amz-storage-class", ""), object_type=headers.get("x-rgw-object-type", ""),
        version_id=headers.get("x-amz-version-id", ""), content_type=headers.get("content-type", ""),
        metadata={n[11:]: v for n, v in headers.items() if n.startswith("x-amz-meta-")}, headers=headers,
    )  # fmt: skip


def _version(version_id: str) -> dict[str, str]:
    return {"VersionId": version_id} if version_id else {}


class S3Store:
    def __init__(self, account: S3Account, bucket: str) -> None:
        self.account, self.bucket = account, bucket
        self.abilities = Abilities()

    async def _do(self, verb: str, method: str, key: str, **more: Any) -> Answer:
        return await self.account.request(verb, method, self.bucket, key, **more)

    async def head(self, key: str, *, version_id: str = "") -> ObjectInfo:
        answer = await self._do("head", "HEAD", key, query={"versionId": version_id} if version_id else {})
        return info_of(key, answer.headers)

    async def list_page(self, prefix: str, *, delimiter: str = "", marker: str = "", max_keys: int = 1000) -> ListPage:
        query = {"prefix": prefix, "max-keys": str(max_keys), "encoding-type": "url"}
        if delimiter:
            query["delimiter"] = delimiter
        if marker:
            query["marker"] = marker
        answer = await self._do("list", "GET", "", query=query)
        root = ET.fromstring(answer.body)
        ns = root.tag.partition("}")[0] + "}" if root.tag.startswith("{") else ""
        objects, prefixes = [], []
        for element in root:
            tag = element.tag[len(ns):]
            if tag == "Contents":
                values = {child.tag[len(ns):]: child.text or "" for child in element}
                objects.append(ObjectInfo(
                    key=urllib.parse.unquote_plus(values["Key"]), size=int(values.get("Size", 0)), etag=values.get("ETag", "").strip('"'),
                    modified_ns=_iso_ns(values["LastModified"]), storage_class=values.get("StorageClass", ""), object_type=values.get("Type", ""),
                ))  # fmt: skip
            elif tag == "CommonPrefixes":
                prefixes.append(urllib.parse.unquote_plus(element[0].text or ""))
        truncated = (root.findtext(ns + "IsTruncated") or "").lower() == "true"
        next_marker = ""
        if truncated:
            next_marker = urllib.parse.unquote_plus(root.findtext(ns + "NextMarker") or "")
            if not next_marker:
                next_marker = max([objects[-1].key] if objects else [], default="")
                if prefixes:
                    next_marker = max(next_marker, prefixes[-1])
        return ListPage(objects, prefixes, next_marker)

    async def get_range(self, key: str, start: int, into: memoryview, *, if_match: str = "", version_id: str = "") -> ObjectInfo:
        headers = {"range": f"bytes={start}-{start + len(into) - 1}"}
        if if_match:
            headers["if-match"] = f'"{if_match}"'
        answer = await self._do("get", "GET", key, headers=headers, into=into, query={"versionId": version_id} if version_id else {})
        return info_of(key, answer.headers)

    def _object_headers(self, headers: ObjectHeaders, tags: bool = True) -> dict[str, str]:
        out = {f"x-amz-meta-{n}": v for n, v in headers.metadata.items()}
        if headers.content_type:
            out["content-type"] = headers.content_type
        if headers.acl:
            out["x-amz-acl"] = headers.acl
        if headers.storage_class:
            out["x-amz-storage-class"] = headers.storage_class
        if headers.tags and tags:
            out["x-amz-tagging"] = urllib.parse.urlencode(headers.tags)
        out.update(headers.extra)
        return out

    def _written(self, answer: Answer) -> Written:
        position = answer.headers.get("x-rgw-next-append-position")
        return Written(
            answer.headers.get("etag", "").strip('"'), answer.headers.get("x-amz-version-id", ""), int(position) if position else None,
            _http_ns(answer.headers.get("date", "")),
        )  # fmt: skip

    async def put(self, key: str, body: Body, headers: ObjectHeaders, *, if_match: str = "", if_none_match: bool = False) -> Written:
        out = self._object_headers(headers)
        if if_match and self.abilities.put_if_match:
            out["if-match"] = if_match
        if if_none_match and self.abilities.put_if_none_match:
            out["if-none-match"] = "*"
        return self._written(await self._do("put", "PUT", key, headers=out, body=body))

    async def append(self, key: str, position: int, body: Body, headers: ObjectHeaders) -> Written:
        out = self._object_headers(headers)
        return self._written(await self._do("append", "PUT", key, query={"append": "", "position": str(position)}, headers=out, body=body, tries=1))

    async def create_upload(self, key: str, headers: ObjectHeaders) -> str:
        answer = await self._do("create_upload", "POST", key, query={"uploads": ""}, headers=self._object_headers(headers, False))
        return next(e.text or "" for e in ET.fromstring(answer.body).iter() if e.tag.endswith("UploadId"))

    async def upload_part(self, key: str, upload_id: str, number: int, body: Body) -> PartInfo:
        answer = await self._do("upload_part", "PUT", key, query={"partNumber": str(number), "uploadId": upload_id}, body=body)
        return PartInfo(number, answer.headers.get("etag", "").strip('"'), body_length(body))

    async def upload_part_copy(self, key: str, upload_id: str, number: int, source_key: str, start: int, end: int, *, if_match: str = "") -> PartInfo:
        headers = {"x-amz-copy-source": quote_key(f"/{self.bucket}/{source_key}"), "x-amz-copy-source-range": f"bytes={start}-{end - 1}"}
        if if_match:
            headers["x-amz-copy-source-if-match"] = if_match
        answer = await self._do("upload_part_copy", "PUT", key, query={"partNumber": str(number), "uploadId": upload_id}, headers=headers)
        etag = next((e.text or "" for e in ET.fromstring(answer.body).iter() if e.tag.endswith("ETag")), "")
        return PartInfo(number, etag.strip('"'), end - start)

    async def complete_upload(self, key: str, upload_id: str, parts: Sequence[PartInfo]) -> Written:
        xml = "<CompleteMultipartUpload>" + "".join(f"<Part><PartNumber>{p.number}</PartNumber><ETag>{p.etag}</ETag></Part>" for p in sorted(parts, key=lambda p: p.number)) + "</CompleteMultipartUpload>"
        answer = await self._do("complete_upload", "POST", key, query={"uploadId": upload_id}, body=(xml.encode(),))
        digest = hashlib.md5(b"".join(bytes.fromhex(p.etag) for p in sorted(parts, key=lambda p: p.number))).hexdigest()
        etag = next((e.text or "" for e in ET.fromstring(answer.body).iter() if e.tag.endswith("ETag")), "")
        return Written(etag.strip('"') or f"{digest}-{len(parts)}", answer.headers.get("x-amz-version-id", ""), None, _http_ns(answer.headers.get("date", "")))

    async def abort_upload(self, key: str, upload_id: str) -> None:
        try:
            await self._do("abort_upload", "DELETE", key, query={"uploadId": upload_id})
        except StoreError as exc:
            if exc.status != 404:
                raise

    async def list_parts(self, key: str, upload_id: str) -> Sequence[PartInfo]:
        raise NotImplementedError

    async def copy(self, source_key: str, key: str, *, source_bucket: str = "", source_version_id: str = "", headers: ObjectHeaders | None = None, acl: str = "", if_match: str = "", size: int = 0) -> Written:
        out = self._object_headers(headers) if headers is not None else {}
        out["x-amz-metadata-directive"] = "COPY" if headers is None else "REPLACE"
        out["x-amz-copy-source"] = quote_key(f"/{source_bucket or self.bucket}/{source_key}")
        if source_version_id:
            out["x-amz-copy-source"] += "?versionId=" + urllib.parse.quote(source_version_id, safe="")
        if acl:
            out["x-amz-acl"] = acl
        if if_match:
            out["x-amz-copy-source-if-match"] = if_match
            out["x-amz-copy-if-match"] = if_match
        answer = await self._do("copy", "PUT", key, headers=out)
        values = {e.tag.rpartition("}")[2]: e.text or "" for e in ET.fromstring(answer.body)}
        return Written(values.get("ETag", "").strip('"'), answer.headers.get("x-amz-version-id", ""), None, _iso_ns(values["LastModified"]) if "LastModified" in values else 0)

    async def delete(self, key: str, *, version_id: str = "", bypass_governance: bool = False) -> None:
        if version_id:
            bypass = {"BypassGovernanceRetention": True} if bypass_governance else {}
            await self.call("delete_object", Key=key, VersionId=version_id, **bypass)
            return
        await self._do("delete", "DELETE", key, ok=(200, 204, 404))

    async def delete_many(self, keys: Sequence[str]) -> Mapping[str, StoreFailure]:
        xml = "<Delete><Quiet>true</Quiet>" + "".join(f"<Object><Key>{escape(k)}</Key></Object>" for k in keys) + "</Delete>"
        body = xml.encode()
        await self._do("delete_many", "POST", "", query={"delete": ""}, body=(body,), headers={"content-md5": base64.b64encode(hashlib.md5(body).digest()).decode()})
        return {}

    async def get_tags(self, key: str, *, version_id: str = "") -> Mapping[str, str]:
        answer = await self.call("get_object_tagging", Key=key, **_version(version_id))
        return {tag["Key"]: tag["Value"] for tag in answer.get("TagSet", [])}

    async def put_tags(self, key: str, tags: Mapping[str, str], *, version_id: str = "") -> None:
        if not tags:
            await self.call("delete_object_tagging", Key=key, **_version(version_id))
            return
        pairs = [{"Key": name, "Value": value} for name, value in tags.items()]
        await self.call("put_object_tagging", Key=key, Tagging={"TagSet": pairs}, **_version(version_id))

    async def get_acl(self, key: str, *, version_id: str = "") -> Mapping[str, Any]:
        return await self.call("get_object_acl", Key=key, **_version(version_id))

    async def put_acl(self, key: str, acl: str | Mapping[str, Any], *, version_id: str = "") -> None:
        members: Mapping[str, Any]
        if isinstance(acl, str):
            members = {"ACL": acl}
        elif "Grants" in acl:
            members = {"AccessControlPolicy": {name: acl[name] for name in ("Owner", "Grants") if name in acl}}
        else:  # grant headers by their boto3 names: GrantRead, GrantFullControl …
            members = acl
        await self.call("put_object_acl", Key=key, **members, **_version(version_id))

    async def call(self, operation: str, **members: Any) -> Mapping[str, Any]:
        return await self.account.rare.call(operation, bucket=self.bucket, **members)

    async def presign(self, operation: str, key: str, seconds: int, *, v2: bool = False, **members: Any) -> str:
        """A URL that does *operation* ("get_object", "put_object") on *key* for whoever has it; nothing is sent."""
        return await self.account.rare.presign(operation, seconds, v2=v2, bucket=self.bucket, Key=key, **members)

    async def usage(self) -> BucketUsage:
        answer = await self._do("head_bucket", "HEAD", "")

        def number(name: str) -> int | None:
            value = answer.headers.get(name)
            return int(value) if value and value != "-1" else None

        return BucketUsage(number("x-rgw-object-count"), number("x-rgw-bytes-used"), number("x-rgw-quota-bucket-size"), number("x-rgw-quota-bucket-objects"))
