"""From headers and XML documents of answers to the values of store/api, and from values to documents (pure).

Owns: the S3 document formats. Must not know: connections, retries.
"""

from __future__ import annotations

import calendar
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from sys import intern
from typing import Any
from urllib.parse import quote, urlencode
from xml.sax.saxutils import escape

from zosfs.errors import StoreError, code_of, code_of_status
from zosfs.store.api import BucketUsage, ObjectHeaders, ObjectInfo, PartInfo, StoreFailure
from zosfs.store.http import Answer

_MONTHS = {name: n for n, name in enumerate(["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"], 1)}
_XSI = "http://www.w3.org/2001/XMLSchema-instance"


@lru_cache(maxsize=4096)
def http_time_ns(text: str) -> int:
    """Nanoseconds of an HTTP date; 0 when there is none to read."""
    words = text.replace("-", " ").split()
    try:
        day, month, year, clock = words[1:5]
        hour, minute, second = clock.split(":")
        return calendar.timegm((int(year), _MONTHS[month], int(day), int(hour), int(minute), int(second))) * 10**9
    except (ValueError, KeyError):
        return 0


@lru_cache(maxsize=4096)
def _minute(text: str) -> int:
    return calendar.timegm((int(text[:4]), int(text[5:7]), int(text[8:10]), int(text[11:13]), int(text[14:16]), 0))


def iso_time_ns(text: str) -> int:
    """Nanoseconds of an ISO 8601 time in UTC, up to nine digits of fraction; 0 when there is none to read."""
    base, _, fraction = text.rstrip("Z").partition(".")
    try:
        # one answer may have a thousand of these: the minute is mostly known
        return (_minute(base[:16]) + int(base[17:19])) * 10**9 + (int(fraction.ljust(9, "0")[:9]) if fraction else 0)
    except ValueError:
        return 0


_ILLEGAL = re.compile(
    rb"&#(?:x0*(?:[0-8bcef]|1[0-9a-f]|d[89a-f][0-9a-f]{2}|fff[ef])|0*(?:[0-8]|1[124-9]|2[0-9]|3[01]));"
    rb"|[\x00-\x08\x0b\x0c\x0e-\x1f]|\xef\xbf[\xbe\xbf]",
    re.IGNORECASE,
)
"""Letters that XML does not have, in bytes or as a reference."""
_STAND_INS = {0xFDD0 + code: code for code in range(0x20)}
"""Control characters by the noncharacters of Unicode that stand in for them, which XML has."""


def legible(body: bytes) -> bytes:
    """A document in which other letters stand for those that XML does not have: `as_meant` gives control characters back."""

    def stand_in(match: re.Match[bytes]) -> bytes:
        said = match.group()
        reference = said[2:-1].lower()
        code = (int(reference[1:], 16) if reference.startswith(b"x") else int(reference)) if said.startswith(b"&#") else said[0]
        return chr(0xFDD0 + code if code < 0x20 else 0xFFFD).encode()

    return _ILLEGAL.sub(stand_in, body)


def as_meant(key: str) -> str:
    """A *key* out of a `legible` document, with its control characters (pure)."""
    return key.translate(_STAND_INS)


def parse(answer: Answer) -> ET.Element:
    """The document of *answer* with namespaces taken off. Raises StoreError ``BadAnswer`` when it is none.

    Servers write keys into documents that no document can carry (`fits_xml`): see `legible`.
    """
    try:
        try:
            root = ET.fromstring(answer.body)
        except ET.ParseError:
            root = ET.fromstring(legible(answer.body))
    except ET.ParseError as exc:
        raise StoreError("BadAnswer", status=answer.status, message=f"no XML document: {exc}") from None
    for element in root.iter():
        if element.tag.startswith("{"):
            element.tag = element.tag.partition("}")[2]
    return root


def field(root: ET.Element, name: str) -> str:
    """The text of the first element *name* anywhere below *root*; "" when it is missing or empty."""
    element = root.find(f".//{name}")
    return (element.text or "") if element is not None else ""


def failure(answer: Answer, operation: str, key: str) -> StoreError:
    """The StoreError of a refusal. Without a document (HEAD) the status has to speak."""
    code = message = ""
    if answer.body:
        try:
            root = parse(answer)
            code, message = field(root, "Code"), field(root, "Message")
            if code in ("PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed"):
                hint = field(root, "Endpoint") or field(root, "Region")
                message = f"{message} {hint}".strip()
        except StoreError:
            pass
    if not code:
        code = code_of_status(answer.status)
        if not key and code == "NoSuchKey":
            code = "NoSuchBucket"
        if answer.status == 400 and operation in ("put", "append", "create_upload", "copy"):
            # Ceph answers so, without a document, when the headers exceed its 16 KiB
            code = "MetadataTooLarge"
    return StoreError(code_of(code, message), status=answer.status, message=message, operation=operation, key=key, headers=answer.headers)


_ERROR = re.compile(rb"\s*(<\?xml[^>]*\?>\s*)?<Error[\s>]")
"""The document, not one of a DeleteResult's errors."""


def error_inside(answer: Answer) -> bool:
    """Whether a 200 carries an error: copies and completions are answered before their work is done."""
    return _ERROR.match(answer.body) is not None


SAID = frozenset({
    "accept-ranges", "connection", "content-length", "content-range", "content-type", "date", "etag", "keep-alive", "last-modified",
    "server", "via", "x-amz-id-2", "x-amz-request-id", "x-amz-storage-class", "x-amz-version-id", "x-rgw-object-type",
})  # fmt: skip
"""Headers that an ObjectInfo has elsewhere, or that say nothing of the object: a million of them would be gigabytes."""
NOTHING: Mapping[str, str] = {}


def info_of(key: str, headers: Mapping[str, str]) -> ObjectInfo:
    """What the headers of a HEAD or a GET say of an object."""
    size = headers.get("content-length", "0")
    if "content-range" in headers:
        size = headers["content-range"].rpartition("/")[2]
    etag = headers.get("etag", "").strip('"')
    if key.endswith("/") and etag.endswith("-0"):
        etag = ""  # SeaweedFS tells so of a folder that no object has made
    metadata, others = {}, {}
    for name, value in headers.items():
        if name.startswith("x-amz-meta-"):
            metadata[intern(name[11:])] = intern(value)
        elif name not in SAID:
            others[name] = value
    return ObjectInfo(
        key=key,
        size=int(size) if size.isdigit() else 0,
        etag=etag,
        modified_ns=http_time_ns(headers.get("last-modified", "")),
        storage_class=headers.get("x-amz-storage-class", ""),
        object_type=headers.get("x-rgw-object-type", ""),
        version_id=headers.get("x-amz-version-id", ""),
        content_type=headers.get("content-type", ""),
        metadata=metadata,
        headers=others or NOTHING,
    )


def usage_of(headers: Mapping[str, str]) -> BucketUsage:
    """What Ceph's HEAD bucket tells besides that the bucket is there; a quota on the bucket goes before the user's."""

    def number(*names: str) -> int | None:
        for name in names:
            value = headers.get(name, "")
            if value.isdigit():
                return int(value)
        return None

    return BucketUsage(
        objects=number("x-rgw-object-count"),
        bytes=number("x-rgw-bytes-used"),
        quota_bytes=number("x-rgw-quota-bucket-size", "x-rgw-quota-user-size"),
        quota_objects=number("x-rgw-quota-bucket-objects", "x-rgw-quota-user-objects"),
    )


def request_headers(headers: ObjectHeaders, *, tags: bool = True) -> dict[str, str]:
    """The request headers that give an object *headers*; *tags* False leaves those out."""
    out = {f"x-amz-meta-{name}": value for name, value in headers.metadata.items()}
    if headers.content_type:
        out["content-type"] = headers.content_type
    if headers.acl:
        out["x-amz-acl"] = headers.acl
    if headers.storage_class:
        out["x-amz-storage-class"] = headers.storage_class
    if headers.tags and tags:
        out["x-amz-tagging"] = urlencode(headers.tags, quote_via=quote)
    out.update((name.lower(), value) for name, value in headers.extra.items())
    return out


def parts_of(root: ET.Element) -> tuple[list[PartInfo], int]:
    """One page of ListParts, and the number to go on after (0: that was all)."""
    parts = [
        PartInfo(int(part.findtext("PartNumber", "0")), part.findtext("ETag", "").strip('"'), int(part.findtext("Size", "0")))
        for part in root.iter("Part")
    ]
    more = field(root, "IsTruncated").lower() == "true"
    return parts, (int(field(root, "NextPartNumberMarker") or (parts[-1].number if parts else 0)) if more else 0)


def complete_document(parts: Sequence[PartInfo]) -> bytes:
    """What CompleteMultipartUpload sends."""
    rows = (
        f"<Part><PartNumber>{part.number}</PartNumber><ETag>{escape(part.etag)}</ETag></Part>"
        for part in sorted(parts, key=lambda part: part.number)
    )
    return f"<CompleteMultipartUpload>{''.join(rows)}</CompleteMultipartUpload>".encode()


def delete_document(keys: Sequence[str]) -> bytes:
    """What DeleteObjects sends."""
    rows = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
    return f"<Delete><Quiet>true</Quiet>{rows}</Delete>".encode()


def fits_xml(key: str) -> bool:
    """Whether a key survives a document: no control characters, no bytes that are no UTF-8, no noncharacters."""
    return not any(c < " " or c == "\x7f" or "\ud800" <= c <= "\udfff" or c in "\ufffe\uffff" for c in key)


def delete_failures(root: ET.Element) -> dict[str, StoreFailure]:
    """The keys that DeleteObjects left, with why; a missing one is none of them."""
    failures = {}
    for error in root.iter("Error"):
        code, message = error.findtext("Code", ""), error.findtext("Message", "")
        if code not in ("NoSuchKey", "NoSuchVersion"):
            failures[error.findtext("Key", "")] = StoreFailure(code_of(code, message), message)
    return failures


def tags_of(root: ET.Element) -> dict[str, str]:
    """The tags of a Tagging document."""
    return {tag.findtext("Key", ""): tag.findtext("Value", "") or "" for tag in root.iter("Tag")}


def tags_document(tags: Mapping[str, str]) -> bytes:
    """A Tagging document."""
    rows = "".join(f"<Tag><Key>{escape(k)}</Key><Value>{escape(v)}</Value></Tag>" for k, v in tags.items())
    return f'<Tagging xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><TagSet>{rows}</TagSet></Tagging>'.encode()


def acl_of(root: ET.Element) -> dict[str, Any]:
    """An ACL as boto3 returns it: Owner, and Grants with Grantee (its Type too) and Permission."""

    def person(element: ET.Element | None) -> dict[str, str]:
        return {child.tag: child.text or "" for child in element} if element is not None else {}

    grants = []
    for grant in root.iter("Grant"):
        grantee = grant.find("Grantee")
        who = person(grantee)
        if grantee is not None:
            who["Type"] = grantee.get(f"{{{_XSI}}}type", "")
        grants.append({"Grantee": who, "Permission": grant.findtext("Permission", "")})
    return {"Owner": person(root.find("Owner")), "Grants": grants}


def acl_document(acl: Mapping[str, Any]) -> bytes:
    """An AccessControlPolicy document of boto3's members."""

    def inner(members: Mapping[str, str]) -> Iterator[str]:
        for name in ("ID", "DisplayName", "EmailAddress", "URI"):
            if members.get(name):
                yield f"<{name}>{escape(members[name])}</{name}>"

    grants = "".join(
        f'<Grant><Grantee xmlns:xsi="{_XSI}" xsi:type="{escape(grant["Grantee"].get("Type", "CanonicalUser"))}">'
        f"{''.join(inner(grant['Grantee']))}</Grantee><Permission>{escape(grant['Permission'])}</Permission></Grant>"
        for grant in acl.get("Grants", [])
    )
    owner = "".join(inner(acl.get("Owner", {})))
    return (
        '<AccessControlPolicy xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Owner>{owner}</Owner><AccessControlList>{grants}</AccessControlList></AccessControlPolicy>"
    ).encode()
