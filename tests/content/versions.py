"""A bucket in memory for the tests of reading: the get_range verb with its conditions, and a script of what goes wrong."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from typing import Any

import trio

from zosfs.errors import StoreError
from zosfs.store.api import Abilities, ObjectInfo
from zosfs.store.arrival import Arrival


class Objects:
    """Objects by key. *gate*, when set, holds every answer until it is; *faults* are raised by the next requests, in order. *early*:
    so many bytes of each answer come before the gate holds the rest."""

    def __init__(self) -> None:
        self.bucket = "memory"
        self.abilities = Abilities()
        self.data: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.requests: list[tuple[str, int, int]] = []
        self.gate: trio.Event | None = None
        self.early = 0
        self.faults: deque[StoreError] = deque()
        self.running = 0
        self.most_running = 0
        self.honours_if_match = True
        self.on_request: Callable[[int, int], Any] = lambda start, end: None

    def put(self, key: str, data: bytes) -> ObjectInfo:
        self.data[key] = data
        self.etags[key] = hashlib.md5(data).hexdigest()
        return self.info(key)

    def info(self, key: str) -> ObjectInfo:
        return ObjectInfo(key, len(self.data[key]), self.etags[key], 10**18)

    async def get_range(
        self, key: str, start: int, into: memoryview, *, if_match: str = "", version_id: str = "", arrival: Arrival | None = None
    ) -> ObjectInfo:
        self.requests.append((key, start, start + len(into)))
        self.on_request(start, start + len(into))
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        try:
            await trio.lowlevel.checkpoint()
            if arrival is not None and self.early:
                info = self.info(key)
                arrival.expect(0, lambda status, headers: info)
                into[: self.early] = self.data[key][start : start + min(self.early, len(into))]
                arrival.begins(206, {})
                arrival.count(min(self.early, len(into)))
            if self.gate is not None:
                await self.gate.wait()
            if self.faults:
                raise self.faults.popleft()
            if key not in self.data:
                raise StoreError("NoSuchKey", status=404, key=key)
            info = self.info(key)
            if if_match and if_match != info.etag and self.honours_if_match:
                raise StoreError("PreconditionFailed", status=412, key=key)
            if start + len(into) > info.size:
                raise StoreError("InvalidRange", status=416, key=key)
            into[:] = self.data[key][start : start + len(into)]
            return info
        finally:
            self.running -= 1

    def fetched(self) -> int:
        """Bytes asked for so far."""
        return sum(end - start for _, start, end in self.requests)
