"""What an object's headers become when a file is written, from its attributes and what the object had before (pure)."""

from __future__ import annotations

import dataclasses
import math
import stat
import time
import urllib.parse
from collections.abc import Mapping

from zosfs.config import Options
from zosfs.config_values import parse_duration
from zosfs.store.api import ObjectHeaders, ObjectInfo
from zosfs.tree.attributes import Attributes, content_type_for, to_metadata

KEPT = (
    "content-encoding",
    "content-disposition",
    "content-language",
    "cache-control",
    "expires",
    "x-amz-website-redirect-location",
)
"""Answer headers of an object that a rewrite or an attribute change must give back to it."""


@dataclasses.dataclass(slots=True)
class Described:
    """What an object has besides bytes and POSIX attributes; changed in place by xattrs, kept by rewrites."""

    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    content_type: str = ""
    storage_class: str = ""
    extra: dict[str, str] = dataclasses.field(default_factory=dict)
    tags: dict[str, str] | None = None
    grants: dict[str, str] | None = None
    """Request headers that give back the ACL of the object that is there; None: what is written gets the option `acl`."""
    locks: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Request headers that lock the version that is made next, before those of the options; another mapping with every change."""


def fresh(name: bytes, is_dir: bool, options: Options) -> Described:
    """What a new object called *name* gets: the mount's defaults."""
    tags = dict(urllib.parse.parse_qsl(options.tags, keep_blank_values=True)) if options.tags else None
    return Described(
        content_type=content_type_for(name, is_dir),
        storage_class=options.storage_class,
        extra=encryption(options.sse),
        tags=tags,
    )


def encryption(sse: str) -> dict[str, str]:
    """The request headers of option *sse*: "", "AES256", "aws:kms" or "aws:kms:KEY"; s3fs's "1" means AES256."""
    if not sse:
        return {}
    if sse in ("1", "AES256"):
        return {"x-amz-server-side-encryption": "AES256"}
    headers = {"x-amz-server-side-encryption": "aws:kms"}
    key = sse.removeprefix("aws:kms").removeprefix("kmsid").lstrip(":")
    if key:
        headers["x-amz-server-side-encryption-aws-kms-key-id"] = key
    return headers


def of_object(info: ObjectInfo, options: Options) -> Described:
    """What the object of a HEAD has, to be kept; tags and ACL are filled in by whoever asked the server for them."""
    extra = {name: info.headers[name] for name in KEPT if info.headers.get(name)}
    extra.update(encryption(options.sse))
    storage_class = info.storage_class if info.storage_class not in ("", "STANDARD") else ""
    return Described(
        metadata=dict(info.metadata or {}), content_type=info.content_type, storage_class=storage_class, extra=extra
    )


def locks(options: Options, now: float) -> dict[str, str]:
    """The request headers that lock what is written at *now* (seconds since the epoch) as the options ask.

    The end of a retention is rounded up to a full minute, so that a request and its repetition say the same.
    """
    found = {"x-amz-object-lock-legal-hold": "ON"} if options.legal_hold else {}
    if options.retention:
        mode, _, how_long = options.retention.partition(":")
        until = math.ceil((now + parse_duration(how_long)) / 60) * 60
        found["x-amz-object-lock-mode"] = mode.upper()
        found["x-amz-object-lock-retain-until-date"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(until))
    return found


def headers(described: Described, attributes: Attributes, options: Options) -> ObjectHeaders:
    """The headers of a write of this object now."""
    metadata = to_metadata(attributes, described.metadata) if options.posix else dict(described.metadata)
    locked = {**locks(options, time.time()), **described.locks} if stat.S_ISREG(attributes.mode) else {}
    return ObjectHeaders(
        metadata=metadata,
        content_type=described.content_type,
        acl=options.acl if described.grants is None else "",
        storage_class=described.storage_class,
        tags=described.tags,
        extra={**described.extra, **(described.grants or {}), **locked},
    )
