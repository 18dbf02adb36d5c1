"""A bucket in memory that keeps Ceph's rules for appends, conditions and parts, and can be told to fail.

Serves the properties of content/ that need faults at exact places; what Ceph itself does is tested against Ceph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import trio

from zosfs.content.etags import body_bytes, chain_etag
from zosfs.errors import StoreError
from zosfs.store.api import Abilities, Body, ObjectHeaders, ObjectInfo, PartInfo, Written
from zosfs.store.arrival import Arrival
from zosfs.store.digests import multipart_etag

LOST = "lost"  # the request is applied, its answer does not arrive
CUT = "cut"  # the request does not arrive


@dataclass
class Thing:
    """An object: its bytes and facts."""

    data: bytes
    etag: str
    kind: str
    headers: ObjectHeaders


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


class MemoryBucket:
    """A Store. *faults* holds, per verb, what the next calls meet: LOST, CUT or a StoreError, None for nothing."""

    bucket = "memory"

    def __init__(self) -> None:
        self.abilities = Abilities(append=True, put_if_match=True, put_if_none_match=True)
        self.things: dict[str, Thing] = {}
        self.uploads: dict[str, dict[int, tuple[PartInfo, bytes]]] = {}
        self.begun: dict[str, ObjectHeaders] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self.faults: dict[str, list[str | StoreError | None]] = {}
        self.calls: list[str] = []
        self.between: dict[str, Any] = {}  # verb -> what happens right before it is applied, once
        self.lives = -1  # requests that are still applied before all others hang for ever; negative: no end
        self.dead = trio.Event()

    async def _enter(self, verb: str) -> bool:
        """Whether the answer is to be lost."""
        self.calls.append(verb)
        await trio.lowlevel.checkpoint()
        if not self.lives:
            self.dead.set()
            await trio.sleep_forever()
        self.lives -= self.lives > 0
        if verb in self.between:
            self.between.pop(verb)()
        fault = self.faults[verb].pop(0) if self.faults.get(verb) else None
        if isinstance(fault, StoreError):
            raise fault
        if fault == CUT:
            raise StoreError("ConnectionFailed", operation=verb)
        return fault == LOST

    @staticmethod
    def _answer(lost: bool, verb: str) -> None:
        if lost:
            raise StoreError("ConnectionFailed", operation=verb)

    def set(self, key: str, data: bytes) -> ObjectInfo:
        """Another client's PUT."""
        self.things[key] = Thing(data, md5(data), "Normal", ObjectHeaders())
        return self.info(key)

    def add(self, key: str, data: bytes) -> ObjectInfo:
        """Another client's append."""
        old = self.things.get(key) or Thing(b"", "", "Appendable", ObjectHeaders())
        self.things[key] = Thing(old.data + data, chain_etag(old.etag, md5(data)), "Appendable", ObjectHeaders())
        return self.info(key)

    def info(self, key: str) -> ObjectInfo:
        thing = self.things.get(key)
        if thing is None:
            raise StoreError("NoSuchKey", status=404, key=key)
        return ObjectInfo(
            key, len(thing.data), thing.etag, 0, object_type=thing.kind, metadata=dict(thing.headers.metadata),
            content_type=thing.headers.content_type,
        )  # fmt: skip

    async def head(self, key: str, *, version_id: str = "") -> ObjectInfo:
        await self._enter("head")
        return self.info(key)

    async def get_range(
        self, key: str, start: int, into: memoryview, *, if_match: str = "", version_id: str = "", arrival: Arrival | None = None
    ) -> ObjectInfo:
        await self._enter("get_range")
        info = self.info(key)
        if if_match and info.etag != if_match:
            raise StoreError("PreconditionFailed", status=412)
        into[:] = self.things[key].data[start : start + len(into)]
        return info

    async def put(
        self, key: str, body: Body, headers: ObjectHeaders, *, if_match: str = "", if_none_match: bool = False
    ) -> Written:
        lost = await self._enter("put")
        there = self.things.get(key)
        if (if_match and (there is None or there.etag != if_match)) or (if_none_match and there is not None):
            raise StoreError("PreconditionFailed", status=412)
        data = body_bytes(body)
        self.things[key] = Thing(data, md5(data), "Normal", headers)
        self._answer(lost, "put")
        return Written(md5(data))

    async def append(self, key: str, position: int, body: Body, headers: ObjectHeaders) -> Written:
        lost = await self._enter("append")
        there = self.things.get(key) or Thing(b"", "", "Appendable", headers)
        if there.kind != "Appendable":
            raise StoreError("ObjectNotAppendable", status=409)
        if position != len(there.data):
            raise StoreError("PositionNotEqualToLength", status=409)
        data = body_bytes(body)
        self.things[key] = Thing(there.data + data, chain_etag(there.etag, md5(data)), "Appendable", headers)
        self._answer(lost, "append")
        return Written(md5(data), next_position=position + len(data))

    async def create_upload(self, key: str, headers: ObjectHeaders) -> str:
        await self._enter("create_upload")
        assert not headers.tags
        name = f"upload{len(self.begun)}"
        self.uploads[name] = {}
        self.begun[name] = headers
        return name

    def _upload(self, upload_id: str) -> dict[int, tuple[PartInfo, bytes]]:
        if upload_id not in self.uploads:
            raise StoreError("NoSuchUpload", status=404)
        return self.uploads[upload_id]

    def _keep(self, upload_id: str, number: int, data: bytes) -> PartInfo:
        part = PartInfo(number, md5(data), len(data))
        self._upload(upload_id)[number] = (part, data)
        return part

    async def upload_part(self, key: str, upload_id: str, number: int, body: Body) -> PartInfo:
        await self._enter("upload_part")
        return self._keep(upload_id, number, body_bytes(body))

    async def upload_part_copy(
        self, key: str, upload_id: str, number: int, source_key: str, start: int, end: int, *, if_match: str = ""
    ) -> PartInfo:
        await self._enter("upload_part_copy")
        if source_key not in self.things:
            raise StoreError("NoSuchKey", status=404)
        data = self.things[source_key].data
        if end > len(data):
            raise StoreError("InvalidRange", status=416)
        return self._keep(upload_id, number, data[start:end])

    async def complete_upload(self, key: str, upload_id: str, parts: Sequence[PartInfo]) -> Written:
        lost = await self._enter("complete_upload")
        have = self._upload(upload_id)
        assert [have[number][0] for number in sorted(have)] == list(parts)
        data = b"".join(have[number][1] for number in sorted(have))
        self.things[key] = Thing(data, multipart_etag(parts), "Normal", self.begun[upload_id])
        del self.uploads[upload_id]
        self._answer(lost, "complete_upload")
        return Written("")

    async def abort_upload(self, key: str, upload_id: str) -> None:
        await self._enter("abort_upload")
        self.uploads.pop(upload_id, None)

    async def list_parts(self, key: str, upload_id: str) -> Sequence[PartInfo]:
        await self._enter("list_parts")
        return [part for part, _ in self._upload(upload_id).values()]

    async def copy(self, source_key: str, key: str, *, headers: ObjectHeaders | None = None, **more: Any) -> Written:
        await self._enter("copy")
        thing = self.things[source_key]
        self.things[key] = replace(thing, headers=headers or thing.headers, kind="Normal" if headers else thing.kind)
        return Written(thing.etag)

    def tell_before_making(self, told: Any) -> None:
        """Who writes here asks by himself."""

    async def put_tags(self, key: str, tags: Any, *, version_id: str = "") -> None:
        await self._enter("put_tags")
        self.tags[key] = dict(tags)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the bucket in memory has no {name}")
