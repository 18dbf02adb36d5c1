"""Headers that an object is to have and does not have yet: what is promised of them, and how the next run keeps that.

Owns: nothing. May use: store/ and the other modules here. Must not know: attributes, names, when a promise is kept.
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zosfs.content.append import look
from zosfs.content.finishing import attributes_said, rewrite, same_attributes
from zosfs.content.journal_rows import headers_said
from zosfs.errors import StoreError
from zosfs.store.api import ObjectHeaders, ObjectInfo, Store


@dataclass(frozen=True, slots=True)
class PromisedHeaders:
    """The object at *key* is to have *headers*, as long as it is the one with this ETag and the attributes of one of *before*: another host
    may have put the same bytes in its place, or changed the attributes."""

    key: str
    etag: str
    before: Sequence[Mapping[str, str]]
    headers: ObjectHeaders

    @classmethod
    def read(cls, key: str, etag: str, before: list[dict[str, str]], headers: dict[str, Any]) -> PromisedHeaders:
        """The promise of the `facts` of *key*. TypeError where they are none."""
        return cls(key, etag, before, ObjectHeaders(**headers))

    def facts(self) -> tuple[str, list[dict[str, str]], dict[str, Any]]:
        """All of it but the key, as JSON has it."""
        return self.etag, [attributes_said(one) for one in self.before], headers_said(self.headers)

    async def keep(self, store: Store) -> ObjectInfo | None:
        """Give the object its headers, unless it has them; returns what a HEAD says of it now. None, and nothing was changed, where
        there is another object by now, or none.

        Raises StoreError where the server did not do it.
        """
        found = await look(store, self.key)
        if found is None or found.etag != self.etag:
            return None
        if same_attributes(found.metadata, self.headers.metadata):
            return found
        if not any(same_attributes(found.metadata, one) for one in self.before):
            return None
        try:
            etag, modified_ns = await rewrite(store, found, self.headers)
        except StoreError as exc:
            if exc.errno in (errno.ESTALE, errno.ENOENT):
                return None
            raise
        return dataclasses.replace(
            found, etag=etag or found.etag, modified_ns=modified_ns or found.modified_ns, metadata=dict(self.headers.metadata),
            content_type=self.headers.content_type,
        )  # fmt: skip
