"""What an object has besides bytes and attributes: tags, ACL, locks, storage class, thawing, a signed URL.

One row an attribute (OBJECT_XATTRS, OBJECT_PREFIXES, names after `user.zos.`); fs/ looks rows up and knows nothing of them.
Owns: the text forms of values, checked before anything is sent. May use: store/. Must not know: FUSE, terminals.
"""

from __future__ import annotations

import datetime
import errno
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from zosfs.admin.grants import adopted, parse_acl, same_grants
from zosfs.admin.refusal import Refusal, nothing
from zosfs.admin.shape import Record, Text, check, parse
from zosfs.admin.tags import check_tags, parse_tags
from zosfs.admin.thawing import parse_restore, restore_state
from zosfs.admin.words import number, parse_words
from zosfs.errors import StoreError
from zosfs.store.api import ObjectHeaders, ObjectInfo, Store

STORAGE_CLASSES = ("STANDARD", "STANDARD_IA", "GLACIER", "DEEP_ARCHIVE")
KEPT = ("content-encoding", "content-disposition", "content-language", "cache-control", "expires", "x-amz-website-redirect-location")
"""Headers of an object that a copy onto itself must send again."""

Get = Callable[[Store, str, ObjectInfo, str], Awaitable[str]]
Set = Callable[[Store, str, ObjectInfo, str, str], Awaitable[None]]
Remove = Callable[[Store, str, ObjectInfo, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class XattrRow:
    """One attribute. The coroutines take (store, key, info of a HEAD, what follows a prefix row's name[, text]); they raise Refusal
    (ENODATA where there is none, EINVAL, E2BIG) or StoreError. None: not allowed (EPERM). *listed*: by listxattr, where
    it costs no request of its own. *rewrites*: setting it makes a new ETag's worth of changes (refresh the inode). *stays*: what is written
    over the object later has it, too. *copied*: programs that copy ask for its size and then for it, and should not cost two requests."""

    get: Get
    set: Set | None = None
    remove: Remove | None = None
    listed: bool = False
    rewrites: bool = False
    stays: bool = False
    copied: bool = False
    help: str = ""


# -- tags ---------------------------------------------------------------------------------------------------------------


async def _get_tags(store: Store, key: str, info: ObjectInfo, _: str) -> str:
    tags = await _tags(store, key)
    if not tags:
        raise nothing("tag")
    return json.dumps(tags, ensure_ascii=False)


async def _set_tags(store: Store, key: str, info: ObjectInfo, _: str, text: str) -> None:
    await store.put_tags(key, parse_tags(text))


async def _remove_tags(store: Store, key: str, info: ObjectInfo, _: str) -> None:
    if not await _tags(store, key):
        raise nothing("tag")
    await store.put_tags(key, {})


async def _tags(store: Store, key: str) -> Mapping[str, str]:
    try:
        return await store.get_tags(key)
    except StoreError as exc:
        if exc.errno == errno.ENODATA:
            return {}
        raise


async def _get_tag(store: Store, key: str, info: ObjectInfo, name: str) -> str:
    tags = await _tags(store, key)
    if name not in tags:
        raise nothing(f"tag {name}")
    return tags[name]


async def _set_tag(store: Store, key: str, info: ObjectInfo, name: str, text: str) -> None:
    check_tags({name: text})
    tags = {**await _tags(store, key), name: text}
    check_tags(tags)
    await store.put_tags(key, tags)


async def _remove_tag(store: Store, key: str, info: ObjectInfo, name: str) -> None:
    tags = dict(await _tags(store, key))
    if tags.pop(name, None) is None:
        raise nothing(f"tag {name}")
    await store.put_tags(key, tags)


async def tag_names(store: Store, key: str, info: ObjectInfo) -> list[str]:
    """The names of the tags, for listxattr: a request only where the HEAD counted some (x-amz-tagging-count)."""
    return list(await _tags(store, key)) if int(info.headers.get("x-amz-tagging-count", "0") or 0) else []


# -- ACL ----------------------------------------------------------------------------------------------------------------


async def _get_acl(store: Store, key: str, info: ObjectInfo, _: str) -> str:
    acl = await store.get_acl(key)
    return json.dumps({name: acl[name] for name in ("Owner", "Grants") if name in acl}, ensure_ascii=False)


async def _set_acl(store: Store, key: str, info: ObjectInfo, _: str, text: str) -> None:
    members = parse_acl(text)
    if "AccessControlPolicy" in members:
        there = await store.get_acl(key)
        members = {"AccessControlPolicy": adopted(members["AccessControlPolicy"], there["Owner"])}
        if same_grants(members["AccessControlPolicy"]["Grants"], there["Grants"]):
            return
    try:
        await store.put_acl(key, members.get("ACL") or members.get("AccessControlPolicy") or members)
    except StoreError as exc:
        if exc.status == 404 and any(name.startswith("Grant") for name in members):  # Ceph has no other word for it
            raise Refusal(f"acl: the server knows nobody of whom {text.strip()[:80]!r} speaks ({exc.code})") from None
        raise


async def _remove_acl(store: Store, key: str, info: ObjectInfo, _: str) -> None:
    await store.put_acl(key, "private")


# -- locks --------------------------------------------------------------------------------------------------------------

_RETENTION = Record({"Mode": Text(("GOVERNANCE", "COMPLIANCE")), "RetainUntilDate": Text()}, ("Mode", "RetainUntilDate"))
_NO_LOCK = frozenset({"NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError", "InvalidRequest"})


async def _lock(store: Store, key: str, what: str) -> Any:
    member = "LegalHold" if what == "legal_hold" else "Retention"
    try:
        return (await store.call(f"get_object_{what}", Key=key)).get(member)
    except StoreError as exc:
        if exc.code in _NO_LOCK:
            return None
        raise


async def _get_hold(store: Store, key: str, info: ObjectInfo, _: str) -> str:
    hold = await _lock(store, key, "legal_hold")
    if not hold or not hold.get("Status"):
        raise nothing("legal hold")
    return str(hold["Status"])


def parse_hold(text: str) -> str:
    """ON or OFF; Refusal for all else (pure)."""
    word = text.strip().upper()
    if word not in ("ON", "OFF"):
        raise Refusal(f"legal-hold: {text[:40]!r} is neither ON nor OFF")
    return word


async def _set_hold(store: Store, key: str, info: ObjectInfo, _: str, text: str) -> None:
    word = parse_hold(text)
    await _lock(store, key, "legal_hold")  # a server that knows no holds would take the PUT for the object's new bytes
    await store.call("put_object_legal_hold", Key=key, LegalHold={"Status": word})


async def _remove_hold(store: Store, key: str, info: ObjectInfo, _: str) -> None:
    if await _get_hold(store, key, info, "") != "OFF":
        await store.call("put_object_legal_hold", Key=key, LegalHold={"Status": "OFF"})


async def _get_retention(store: Store, key: str, info: ObjectInfo, _: str) -> str:
    found = await _lock(store, key, "retention")
    if not found or not found.get("Mode"):
        raise nothing("retention")
    until = found["RetainUntilDate"]
    return json.dumps({"Mode": found["Mode"], "RetainUntilDate": until.isoformat() if hasattr(until, "isoformat") else until})


def parse_retention(text: str, now: datetime.datetime | None = None) -> tuple[dict[str, Any], bool]:
    """(boto3's Retention, whether governance is bypassed) of JSON (Mode, RetainUntilDate[, bypass]) or of
    ``mode=GOVERNANCE,until=2030-01-01T00:00:00Z[,bypass=1]``, ``days=N`` for until. Raises Refusal (pure)."""
    now = now or datetime.datetime.now(datetime.UTC)
    if text.strip().startswith("{"):
        value = parse(text, "retention")
        bypass = bool(value.pop("bypass", False) or value.pop("BypassGovernanceRetention", False))
        check(value, _RETENTION, "retention")
        mode, until = value["Mode"], value["RetainUntilDate"]
    else:
        words = parse_words(text, "retention", ("mode", "until", "days", "bypass"))
        mode, until, bypass = words.get("mode", "").upper(), words.get("until", ""), words.get("bypass", "0") in ("1", "yes", "true")
        if "days" in words:
            until = (now + datetime.timedelta(days=number(words["days"], "retention: days", 1, 36500))).isoformat()
        if mode not in ("GOVERNANCE", "COMPLIANCE"):
            raise Refusal("retention: mode=GOVERNANCE or mode=COMPLIANCE is missing")
    try:
        when = datetime.datetime.fromisoformat(until)
    except ValueError:
        raise Refusal(f"retention: {until!r} is no time such as 2030-01-01T00:00:00Z") from None
    when = when if when.tzinfo else when.replace(tzinfo=datetime.UTC)
    if when <= now:
        raise Refusal(f"retention: {until} is past")
    return {"Mode": mode, "RetainUntilDate": when}, bypass


async def _set_retention(store: Store, key: str, info: ObjectInfo, _: str, text: str) -> None:
    retention, bypass = parse_retention(text)
    await _lock(store, key, "retention")
    more = {"BypassGovernanceRetention": True} if bypass else {}
    await store.call("put_object_retention", Key=key, Retention=retention, **more)


# -- thawing ------------------------------------------------------------------------------------------------------------


async def _get_restore(store: Store, key: str, info: ObjectInfo, _: str) -> str:
    return restore_state(await store.head(key))


async def _set_restore(store: Store, key: str, info: ObjectInfo, _: str, text: str) -> None:
    await store.call("restore_object", Key=key, RestoreRequest=parse_restore(text))


# -- storage class ------------------------------------------------------------------------------------------------------


async def _get_class(store: Store, key: str, info: ObjectInfo, _: str) -> str:
    return info.storage_class or "STANDARD"


def check_class(storage_class: str) -> None:
    """Refusal for a name that is no storage class (pure)."""
    if storage_class not in STORAGE_CLASSES:
        raise Refusal(f"storage-class: {storage_class[:40]!r} is none of {', '.join(STORAGE_CLASSES)}")


async def change_class(store: Store, key: str, storage_class: str) -> None:
    """Move the object to *storage_class* in place, on the server; metadata, content headers, tags and ACL are kept.

    Refusal for a name that is no storage class; ESTALE when the object changed meanwhile.
    """
    check_class(storage_class)
    info = await store.head(key)
    if (info.storage_class or "STANDARD") == storage_class:
        return
    tags = await _tags(store, key)
    acl = await store.get_acl(key)
    extra = {name: info.headers[name] for name in KEPT if info.headers.get(name)}
    headers = ObjectHeaders(dict(info.metadata or {}), info.content_type, "", storage_class, None, extra)
    await store.copy(key, key, headers=headers, if_match=info.etag, size=info.size)
    if tags:
        await store.put_tags(key, tags)
    if len(acl.get("Grants", ())) > 1:
        await store.put_acl(key, acl)


async def _set_class(store: Store, key: str, info: ObjectInfo, _: str, text: str) -> None:
    await change_class(store, key, text.strip())


# -- a signed URL -------------------------------------------------------------------------------------------------------

URL_SECONDS = 3600


async def _get_url(store: Store, key: str, info: ObjectInfo, _: str) -> str:
    presign = getattr(store, "presign", None)
    if presign is None:
        raise nothing("URL")
    return str(await presign("get_object", key, URL_SECONDS))


OBJECT_XATTRS: Mapping[str, XattrRow] = {
    "tags": XattrRow(_get_tags, _set_tags, _remove_tags, stays=True, help="all tags, a JSON object"),
    "acl": XattrRow(_get_acl, _set_acl, _remove_acl, stays=True, copied=True, help="the ACL: JSON; set also with a canned word or grants"),
    "legal-hold": XattrRow(_get_hold, _set_hold, _remove_hold, help="ON or OFF"),
    "retention": XattrRow(_get_retention, _set_retention, help="JSON, or mode=…,until=…|days=…[,bypass=1]"),
    "restore": XattrRow(_get_restore, _set_restore, help="the state of thawing; set days=7,tier=Standard"),
    "storage-class": XattrRow(_get_class, _set_class, rewrites=True, help="the storage class; set moves the object"),
    "url": XattrRow(_get_url, help="a URL that reads the object for an hour"),
}
"""Rows by name after `user.zos.`. Those that need a request of their own are not listed: `getfattr -n` asks for them."""

OBJECT_PREFIXES: Mapping[str, XattrRow] = {
    "tag.": XattrRow(_get_tag, _set_tag, _remove_tag, listed=True, stays=True, help="one tag"),
}
