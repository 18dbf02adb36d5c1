"""ACLs that survive an edit: asked for before an object is replaced, sent along with what replaces it.

Owns: what this mount knows of objects' grants, for metadata_ttl seconds. Must not know: open files, the kernel.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import cachetools
import trio

from zosfs.config import Options
from zosfs.content.moves import unusual_acl
from zosfs.store.api import ObjectInfo, Store

log = logging.getLogger(__name__)

KEPT = 50_000
_HEADERS = {
    "FULL_CONTROL": "x-amz-grant-full-control", "READ": "x-amz-grant-read", "WRITE": "x-amz-grant-write",
    "READ_ACP": "x-amz-grant-read-acp", "WRITE_ACP": "x-amz-grant-write-acp",
}  # fmt: skip


class Acls:
    """The grants of objects that are about to be replaced, as request headers; {} for the owner alone."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._known: cachetools.TTLCache[tuple[str, str], tuple[str, dict[str, str]]] = cachetools.TTLCache(
            KEPT, max(options.metadata_ttl, 0.001), timer=trio.current_time
        )

    async def of(self, store: Store, info: ObjectInfo) -> dict[str, str]:
        """The request headers that give back the ACL of *info*'s object: asked for, unless known or not to be kept."""
        if self._options.keep_acl == "never":
            return {}
        etag, grants = self._known.get((store.bucket, info.key), ("", {}))
        if etag != info.etag:
            grants = grant_headers(await unusual_acl(store, info.key))
            self.note(store, info, grants)
        return grants

    def note(self, store: Store, info: ObjectInfo, grants: dict[str, str]) -> None:
        """*info*'s object was written here with *grants*."""
        self._known[store.bucket, info.key] = (info.etag, grants)

    def forget_all(self) -> None:
        """Ask anew from now on."""
        self._known.clear()

    def forget(self, store: Store, key: str) -> None:
        """The ACL of *key* was changed."""
        self._known.pop((store.bucket, key), None)


def grant_headers(acl: Mapping[str, Any] | None) -> dict[str, str]:
    """The x-amz-grant-* request headers that make *acl*; {} for None."""
    found: dict[str, list[str]] = {}
    for grant in acl["Grants"] if acl else ():
        grantee = grant.get("Grantee", {})
        header = _HEADERS.get(grant.get("Permission", ""))
        if grantee.get("ID"):
            who = f'id="{grantee["ID"]}"'
        elif grantee.get("URI"):
            who = f'uri="{grantee["URI"]}"'
        else:
            continue
        if header:
            found.setdefault(header, []).append(who)
    return {header: ", ".join(who) for header, who in found.items()}
