"""Which ACL rides on what replaces an object, or on its copy under another name.

Owns: the rule, for edits, attribute changes and renames alike: an object that is there keeps what it grants, and no moment passes in
which it grants more; the option `acl` is for objects that are new. Must not know: open files, the kernel.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from zosfs.config import Options
from zosfs.errors import StoreError
from zosfs.store.api import Store

log = logging.getLogger(__name__)

_HEADERS = {
    "FULL_CONTROL": "x-amz-grant-full-control", "READ": "x-amz-grant-read", "WRITE": "x-amz-grant-write",
    "READ_ACP": "x-amz-grant-read-acp", "WRITE_ACP": "x-amz-grant-write-acp",
}  # fmt: skip


async def grants_of(store: Store, key: str) -> dict[str, str] | None:
    """The request headers that give the ACL of the object at *key* to what replaces it: {} for its owner alone.

    None where the server knows no ACLs. An ACL that we may not read counts as the owner's alone: nothing is opened by an edit.
    Raises StoreError when the server did not tell, but might.
    """
    try:
        acl = await store.get_acl(key)
    except StoreError as exc:
        if exc.retry or (exc.ambiguous and exc.status != 501):
            raise
        log.debug("no ACL of %s to keep: %s", key, exc)
        return None if exc.status in (405, 501) else {}
    return grant_headers(acl)


def grant_headers(acl: Mapping[str, Any]) -> dict[str, str]:
    """The x-amz-grant-* request headers that make *acl*; {} when it grants full control to its owner and nothing else (pure)."""
    owner = acl.get("Owner", {}).get("ID")
    found: dict[str, list[str]] = {}
    usual = True
    for grant in acl.get("Grants", ()):
        grantee = grant.get("Grantee", {})
        header = _HEADERS.get(grant.get("Permission", ""))
        usual = usual and grant.get("Permission") == "FULL_CONTROL" and grantee.get("ID") == owner
        if grantee.get("ID"):
            who = f'id="{grantee["ID"]}"'
        elif grantee.get("URI"):
            who = f'uri="{grantee["URI"]}"'
        else:
            continue
        if header:
            found.setdefault(header, []).append(who)
    return {} if usual else {header: ", ".join(who) for header, who in found.items()}


async def acl_under_another_name(store: Store, key: str, options: Options) -> str | Mapping[str, str]:
    """What the copy of the object at *key* under another name gets: its own grants with ``keep_acl=always``, else the option `acl`."""
    grants = await grants_of(store, key) if options.keep_acl == "always" else None
    return options.acl if grants is None else grants
