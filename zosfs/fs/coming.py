"""Attributes of the object store on a file whose object is still to be made: kept with what is to be written, and sent along with that.

What was set so far is part of the file's `Described`: every delivery has it in its headers, and what the journal promises, too. Nobody
sees half a file because somebody sets an attribute, and no object is there for a moment without it.

Owns: how each attribute becomes a header, and what was found out of ACLs of objects to come, once for each bucket of a mount. One row an
attribute (ROWS, PREFIXES); those without a row need an object that is there.
Must not know: when a file is delivered, the kernel.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import trio

from zosfs.admin.grants import adopted, parse_acl
from zosfs.admin.objects import check_class, parse_hold, parse_retention
from zosfs.admin.refusal import Refusal, nothing
from zosfs.admin.tags import check_tags, parse_tags
from zosfs.content.grants import grant_headers
from zosfs.content.multipart import abort
from zosfs.errors import StoreError
from zosfs.fs.headers import Described
from zosfs.store.api import ObjectHeaders, Store

log = logging.getLogger(__name__)

CLASS_PATIENCE = 5.0
"""Seconds that setting a storage class waits at most to know whether the server has it; a server that is away holds up no program."""
HOLD, MODE, UNTIL = "x-amz-object-lock-legal-hold", "x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date"
_NOT_LOCKED = ("ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration", "InvalidRequest")
_GRANTS = {
    "ACL": "x-amz-acl", "GrantRead": "x-amz-grant-read", "GrantWrite": "x-amz-grant-write", "GrantReadACP": "x-amz-grant-read-acp",
    "GrantWriteACP": "x-amz-grant-write-acp", "GrantFullControl": "x-amz-grant-full-control",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One attribute. *get*: what was set, None where nothing was. *set* may ask the store (and key) whether that can be; Refusal or
    StoreError where it cannot. *remove* is called where *get* found something; Refusal EPERM where it is None."""

    get: Callable[[Described, str], str | None]
    set: Callable[[Store, str, Described, str, str], Awaitable[None]]
    remove: Callable[[Described, str], None] | None = None


def _tags(described: Described, _: str) -> str | None:
    return json.dumps(described.tags, ensure_ascii=False) if described.tags else None


async def _set_tags(store: Store, key: str, described: Described, _: str, text: str) -> None:
    described.tags = parse_tags(text)


def _remove_tags(described: Described, _: str) -> None:
    described.tags = None


def _tag(described: Described, name: str) -> str | None:
    return (described.tags or {}).get(name)


async def _set_tag(store: Store, key: str, described: Described, name: str, text: str) -> None:
    tags = {**(described.tags or {}), name: text}
    check_tags(tags)
    described.tags = tags


def _remove_tag(described: Described, name: str) -> None:
    described.tags = {key: value for key, value in (described.tags or {}).items() if key != name}


def _acl(described: Described, _: str) -> str | None:
    return None  # how the server will say it, it says once there is an object


_knows_acls: WeakSet[Store] = WeakSet()
_owners: WeakKeyDictionary[Store, Mapping[str, Any]] = WeakKeyDictionary()


async def _set_acl(store: Store, key: str, described: Described, _: str, text: str) -> None:
    members = parse_acl(text)
    if store not in _knows_acls:
        try:
            await store.get_acl(key)
        except StoreError as exc:  # a server that knows no ACLs says something else than that there is no such object
            if exc.errno != errno.ENOENT:
                raise
        _knows_acls.add(store)
    if "AccessControlPolicy" in members:
        described.grants = grant_headers(adopted(members["AccessControlPolicy"], await _owner_to_be(store, key)))
    else:
        described.grants = {_GRANTS[name]: value for name, value in members.items()}


async def _owner_to_be(store: Store, key: str) -> Mapping[str, Any]:
    """Whose an object will be that is made with our keys: an upload that nothing comes of tells. The bucket's owner where it does not."""
    owner = _owners.get(store)
    if owner is not None:
        return owner
    try:
        async with _upload(store, key, ObjectHeaders()) as upload:
            found = await store.call("list_multipart_uploads", Prefix=key)  # Ceph tells it there, and not with the upload's parts
        for each in found.get("Uploads", ()):
            told: Mapping[str, Any] = each.get("Owner") or {}
            if each.get("UploadId") == upload and told.get("ID"):
                _owners[store] = told
                return told
    except StoreError as exc:
        log.debug("whose %s will be is not told: %s", key, exc)
    there: Mapping[str, Any] = (await store.call("get_bucket_acl"))["Owner"]
    return there


@contextlib.asynccontextmanager
async def _upload(store: Store, key: str, headers: ObjectHeaders) -> AsyncIterator[str]:
    """An upload that is begun with *headers* and aborted: servers check these at its beginning, and nobody ever sees anything of it."""
    upload = await store.create_upload(key, headers)
    try:
        yield upload
    finally:
        await abort(store, key, upload)


def _class(described: Described, _: str) -> str | None:
    return described.storage_class or "STANDARD"


async def _set_class(store: Store, key: str, described: Described, _: str, text: str) -> None:
    name = text.strip()
    check_class(name)
    wanted = "" if name == "STANDARD" else name
    if wanted:
        await _see_class_known(store, key, wanted)
    described.storage_class = wanted


async def _see_class_known(store: Store, key: str, name: str) -> None:
    """Refusal where the server has no such storage class, which it tells nobody but who asks to write with it."""
    try:
        with trio.move_on_after(CLASS_PATIENCE):
            async with _upload(store, key, ObjectHeaders(storage_class=name)):
                pass
    except StoreError as exc:
        if exc.errno == errno.EINVAL:
            raise Refusal(f"storage-class: the server refuses {name}: {exc}") from None
        log.debug("whether there is a storage class %s is not told: %s", name, exc)  # what is written with it will be told


async def _lockable(store: Store, what: str) -> None:
    """Refusal in a bucket without object lock: the upload would be refused for it."""
    try:
        await store.call("get_object_lock_configuration")
    except StoreError as exc:
        if exc.code in _NOT_LOCKED:
            raise Refusal(f"{what}: the bucket was made without object lock") from None
        raise


def _hold(described: Described, _: str) -> str | None:
    return described.locks.get(HOLD)


async def _set_hold(store: Store, key: str, described: Described, _: str, text: str) -> None:
    word = parse_hold(text)
    await _lockable(store, "legal-hold")
    described.locks = {**described.locks, HOLD: word}


def _remove_hold(described: Described, _: str) -> None:
    if described.locks.get(HOLD) == "OFF":
        raise nothing("legal hold")
    described.locks = {**described.locks, HOLD: "OFF"}


def _retention(described: Described, _: str) -> str | None:
    mode = described.locks.get(MODE)
    return json.dumps({"Mode": mode, "RetainUntilDate": described.locks[UNTIL]}) if mode else None


async def _set_retention(store: Store, key: str, described: Described, _: str, text: str) -> None:
    retention, _bypass = parse_retention(text)  # a version that is still to be made is locked by nothing that is to be bypassed
    await _lockable(store, "retention")
    until = retention["RetainUntilDate"].astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    described.locks = {**described.locks, MODE: retention["Mode"], UNTIL: until}


ROWS: Mapping[str, Row] = {
    "tags": Row(_tags, _set_tags, _remove_tags),
    "acl": Row(_acl, _set_acl),
    "legal-hold": Row(_hold, _set_hold, _remove_hold),
    "retention": Row(_retention, _set_retention),
    "storage-class": Row(_class, _set_class),
}
"""By name after `user.zos.`."""

PREFIXES: Mapping[str, Row] = {"tag.": Row(_tag, _set_tag, _remove_tag)}
