"""Headers that an object is to have and does not have yet: what is promised of them, and how the next run keeps that.

Owns: nothing. May use: store/ and the other modules here. Must not know: attributes, names, when a promise is kept.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zosfs.content.append import look
from zosfs.content.finishing import rewrite
from zosfs.content.journal_rows import headers_said, is_still
from zosfs.errors import StoreError
from zosfs.store.api import ObjectHeaders, ObjectInfo, Store


@dataclass(frozen=True, slots=True)
class PromisedHeaders:
    """The object at *key*, as long as it is the one with this ETag that was made then, is to have *headers*."""

    key: str
    etag: str
    modified_ns: int
    headers: ObjectHeaders

    @classmethod
    def read(cls, key: str, etag: str, modified_ns: int, headers: Mapping[str, Any]) -> PromisedHeaders:
        """The promise of the `facts` of *key*. TypeError where they are none."""
        return cls(key, etag, modified_ns, ObjectHeaders(**headers))

    def facts(self) -> tuple[str, int, dict[str, Any]]:
        """All of it but the key, as JSON has it."""
        return self.etag, self.modified_ns, headers_said(self.headers)

    def of_object(self, found: ObjectInfo | None) -> bool:
        """Whether *found* is the object that was meant."""
        return is_still(found, self.etag, self.modified_ns)

    async def keep(self, store: Store) -> bool:
        """Give the object its headers. False, and nothing was changed, where there is another object by now, or none.

        Raises StoreError where the server did not do it.
        """
        found = await look(store, self.key)
        if found is None or not self.of_object(found):
            return False
        try:
            await rewrite(store, found, self.headers)
        except StoreError as exc:
            if exc.errno in (errno.ESTALE, errno.ENOENT):
                return False
            raise
        return True
