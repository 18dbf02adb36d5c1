"""A multipart upload that is under way: what is known of it, and its end with or without an object.

Owns: nothing that lasts. May use: store/. Must not know: what its parts are made of.
"""

from __future__ import annotations

import dataclasses
import errno
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import trio

from zosfs.content.append import look
from zosfs.errors import StoreError
from zosfs.store.api import PartInfo, Store, Written

log = logging.getLogger(__name__)


@dataclass(slots=True)
class UploadRecord:
    """A multipart upload that may be continued: its id, what it is made of (*shape*), the parts that are up, by number.

    Good only for the same staged bytes: who continues an upload vouches that they did not change.
    """

    upload_id: str
    shape: str
    parts: dict[int, PartInfo] = field(default_factory=dict)
    made: bool = False
    """Whether the object is there, and lacks at most its tags and locks."""

    def to_json(self) -> dict[str, Any]:
        """As plain values, fit for JSON."""
        parts = [[part.number, part.etag, part.size] for part in self.parts.values()]
        return {"upload_id": self.upload_id, "shape": self.shape, "parts": parts}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> UploadRecord:
        """The record that `to_json` told of."""
        return cls(values["upload_id"], values["shape"], {n: PartInfo(n, etag, size) for n, etag, size in values["parts"]})


OnPart = Callable[[UploadRecord], Awaitable[None]]


async def completed_upload(store: Store, key: str, etag: str, complete: Callable[[], Awaitable[Written]]) -> Written:
    """What *complete* wrote, which makes the object at *key* of parts with the ETag *etag* ("": not known before).

    Where its answer was lost, or it was refused because our own object is there by now, this object is what was written.
    Raises what *complete* raises otherwise.
    """
    try:
        written = await complete()
    except StoreError as exc:
        if not (exc.ambiguous or exc.errno == errno.ESTALE or exc.code == "NoSuchUpload"):
            raise
        found = await look(store, key)
        if found is None or not etag or found.etag != etag:
            raise
        return Written(etag, found.version_id, None, found.modified_ns)
    return written if written.etag else dataclasses.replace(written, etag=etag)


async def abort(store: Store, key: str, upload_id: str) -> None:
    """Forget an upload, even when cancelled; a failure is logged, the server's lifecycle rules have to do it then."""
    with trio.CancelScope(shield=True), trio.move_on_after(10):
        try:
            await store.abort_upload(key, upload_id)
        except StoreError as exc:
            log.warning("the upload %s of %s could not be aborted: %s", upload_id, key, exc)
