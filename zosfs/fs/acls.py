"""ACLs that survive an edit: asked for before an object is replaced, sent along with what replaces it.

Owns: what this mount knows of objects' grants, for metadata_ttl seconds. Must not know: open files, the kernel.
"""

from __future__ import annotations

import cachetools
import trio

from zosfs.config import Options
from zosfs.content.grants import grants_of
from zosfs.store.api import ObjectInfo, Store

KEPT = 50_000


class Acls:
    """The grants of objects that are about to be replaced, as request headers.

    {} for the owner alone; None when what replaces the object gets the option `acl`, as a new one does.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._known: cachetools.TTLCache[tuple[str, str], tuple[str, dict[str, str] | None]] = cachetools.TTLCache(
            KEPT, max(options.metadata_ttl, 0.001), timer=trio.current_time
        )

    async def of(self, store: Store, info: ObjectInfo) -> dict[str, str] | None:
        """The request headers that give back the ACL of *info*'s object: asked for, unless known or not to be kept."""
        if self._options.keep_acl == "never":
            return None
        known = self._known.get((store.bucket, info.key))
        if known is not None and known[0] == info.etag:
            return known[1]
        grants = await grants_of(store, info.key)
        self.note(store, info, grants)
        return grants

    def note(self, store: Store, info: ObjectInfo, grants: dict[str, str] | None) -> None:
        """*info*'s object was written here with *grants*."""
        self._known[store.bucket, info.key] = (info.etag, grants)

    def forget_all(self) -> None:
        """Ask anew from now on."""
        self._known.clear()

    def forget(self, store: Store, key: str) -> None:
        """The ACL of *key* was changed."""
        self._known.pop((store.bucket, key), None)
