"""The registry of bucket settings: one row serves the attribute `user.zos.bucket.<setting>` and `zosfs bucket get|set|unset`.

Owns: the calls, the shape of each document, its short words. May use: store/. Must not know: FUSE, terminals.

A setting is always read before it is written or removed: a server that does not know its sub-resource takes the request for the bare
operation (Ceph 16 deletes an empty bucket for DELETE ?encryption), and the read shows that (`NotImplemented`).
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from zosfs.admin.grants import parse_acl
from zosfs.admin.refusal import Refusal
from zosfs.admin.shape import Anything, Flag, ListOf, Number, Record, Shape, Text, check, parse
from zosfs.admin.tags import check_tags
from zosfs.errors import StoreError
from zosfs.store.api import Store

_STATUS = Text(("Enabled", "Disabled"))
_CLASSES = Text(("STANDARD", "STANDARD_IA", "GLACIER", "DEEP_ARCHIVE", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR"))
_DATE = Text(pattern=r"\d{4}-\d\d-\d\d(T.*)?")
_TAG = Record({"Key": Text(longest=128), "Value": Text(longest=256)}, ("Key", "Value"))
_FILTER = Record({
    "Prefix": Text(), "Tag": _TAG, "ObjectSizeGreaterThan": Number(), "ObjectSizeLessThan": Number(),
    "And": Record({"Prefix": Text(), "Tags": ListOf(_TAG), "ObjectSizeGreaterThan": Number(), "ObjectSizeLessThan": Number()}),
})  # fmt: skip
_TRANSITION = Record({"Date": _DATE, "Days": Number(), "StorageClass": _CLASSES}, ("StorageClass",), ("Date", "Days"))
_RULE = Record(
    {
        "ID": Text(longest=255), "Prefix": Text(), "Filter": _FILTER, "Status": _STATUS,
        "Expiration": Record({"Date": _DATE, "Days": Number(1), "ExpiredObjectDeleteMarker": Flag()}),
        "Transitions": ListOf(_TRANSITION),
        "NoncurrentVersionTransitions": ListOf(
            Record({"NoncurrentDays": Number(), "StorageClass": _CLASSES, "NewerNoncurrentVersions": Number()}, ("StorageClass",))
        ),
        "NoncurrentVersionExpiration": Record({"NoncurrentDays": Number(1), "NewerNoncurrentVersions": Number()}),
        "AbortIncompleteMultipartUpload": Record({"DaysAfterInitiation": Number(1)}, ("DaysAfterInitiation",)),
    },
    ("Status",),
    ("Expiration", "Transitions", "NoncurrentVersionTransitions", "NoncurrentVersionExpiration", "AbortIncompleteMultipartUpload"),
)  # fmt: skip
_STATEMENT = Record(
    {
        "Sid": Text(), "Effect": Text(("Allow", "Deny")), "Principal": Anything(), "NotPrincipal": Anything(), "Action": Anything(),
        "NotAction": Anything(), "Resource": Anything(), "NotResource": Anything(), "Condition": Anything(),
    },
    ("Effect",), ("Action", "NotAction"),
)  # fmt: skip
_POLICY = Record({"Version": Text(("2012-10-17", "2008-10-17")), "Id": Text(), "Statement": ListOf(_STATEMENT, 1)}, ("Statement",))
_CORS = Record({"CORSRules": ListOf(Record({
    "ID": Text(longest=255), "AllowedHeaders": ListOf(Text()), "ExposeHeaders": ListOf(Text()), "MaxAgeSeconds": Number(),
    "AllowedMethods": ListOf(Text(("GET", "PUT", "HEAD", "POST", "DELETE")), 1), "AllowedOrigins": ListOf(Text(), 1),
}, ("AllowedMethods", "AllowedOrigins")), 1, 100)}, ("CORSRules",))  # fmt: skip
_WEBSITE = Record({
    "ErrorDocument": Record({"Key": Text()}, ("Key",)), "IndexDocument": Record({"Suffix": Text(pattern="[^/]+")}, ("Suffix",)),
    "RedirectAllRequestsTo": Record({"HostName": Text(), "Protocol": Text(("http", "https"))}, ("HostName",)),
    "RoutingRules": ListOf(Anything()),
}, (), ("IndexDocument", "RedirectAllRequestsTo"))  # fmt: skip
_ENCRYPTION = Record({"Rules": ListOf(Record({
    "ApplyServerSideEncryptionByDefault": Record(
        {"SSEAlgorithm": Text(("AES256", "aws:kms", "aws:kms:dsse")), "KMSMasterKeyID": Text()}, ("SSEAlgorithm",)),
    "BucketKeyEnabled": Flag(), "BlockedEncryptionTypes": Anything(),
}), 1)}, ("Rules",))  # fmt: skip
_LOCK = Record({
    "ObjectLockEnabled": Text(("Enabled",)),
    "Rule": Record({"DefaultRetention": Record(
        {"Mode": Text(("GOVERNANCE", "COMPLIANCE")), "Days": Number(1, 36500), "Years": Number(1, 100)}, ("Mode",), ("Days", "Years"),
    )}, ("DefaultRetention",)),
}, ("ObjectLockEnabled",))  # fmt: skip
_LOGGING = Record({"LoggingEnabled": Record(
    {"TargetBucket": Text(), "TargetPrefix": Text(), "TargetGrants": Anything(), "TargetObjectKeyFormat": Anything()},
    ("TargetBucket", "TargetPrefix"),
)})  # fmt: skip
_VERSIONING = Record({"Status": Text(("Enabled", "Suspended")), "MFADelete": _STATUS}, ("Status",))
_EVENT = Text(pattern=r"s3:[A-Za-z]+(:[A-Za-z*]+){0,2}")
_TARGET: dict[str, Shape] = {"Id": Text(), "Events": ListOf(_EVENT, 1), "Filter": Anything()}
_NOTIFICATION = Record({
    "TopicConfigurations": ListOf(Record({**_TARGET, "TopicArn": Text(pattern="arn:.*")}, ("TopicArn",))),
    "QueueConfigurations": ListOf(Record({**_TARGET, "QueueArn": Text(pattern="arn:.*")}, ("QueueArn",))),
    "LambdaFunctionConfigurations": ListOf(Record({**_TARGET, "LambdaFunctionArn": Text(pattern="arn:.*")}, ("LambdaFunctionArn",))),
    "EventBridgeConfiguration": Record({}),
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Setting:
    """A row. *member* is the put call's parameter, and *inner* the part of the get call's answer that it takes back ("": all of it).

    *words* are short forms of a document. *unset* is the delete call, or the document that means "none" (put), or None where a
    setting cannot be removed. *shape* is what a document must look like; *empty* says whether an answer means absent.
    """

    name: str
    get: str
    put: str
    member: str
    unset: str | Mapping[str, Any] | None
    help: str
    shape: Shape
    inner: str = ""
    words: Mapping[str, Any] = field(default_factory=dict)
    text: bool = False  # the member is JSON in a string
    read: Callable[[str], Mapping[str, Any]] | None = None  # more forms of a value than JSON and words

    def members(self, document: Any) -> dict[str, Any]:
        """The put call's parameters for *document*."""
        return {self.member: json.dumps(document) if self.text else document}


def _acl_members(text: str) -> Mapping[str, Any]:
    return parse_acl(text)


SETTINGS: Mapping[str, Setting] = {row.name: row for row in (
    Setting("acl", "get_bucket_acl", "put_bucket_acl", "AccessControlPolicy", {"ACL": "private"}, "who may do what, as grants",
            Record({"Owner": Anything(), "Grants": ListOf(Anything())}, ("Grants",)), read=_acl_members),
    Setting("policy", "get_bucket_policy", "put_bucket_policy", "Policy", "delete_bucket_policy", "who may do what, as a policy document",
            _POLICY, "Policy", text=True),
    Setting("lifecycle", "get_bucket_lifecycle_configuration", "put_bucket_lifecycle_configuration", "LifecycleConfiguration",
            "delete_bucket_lifecycle", "when objects expire or change class",
            Record({"Rules": ListOf(_RULE, 1, 1000), "TransitionDefaultMinimumObjectSize": Text()}, ("Rules",))),
    Setting("website", "get_bucket_website", "put_bucket_website", "WebsiteConfiguration", "delete_bucket_website",
            "the bucket as a web site", _WEBSITE),
    Setting("request-payment", "get_bucket_request_payment", "put_bucket_request_payment", "RequestPaymentConfiguration",
            {"RequestPaymentConfiguration": {"Payer": "BucketOwner"}}, "who pays for requests",
            Record({"Payer": Text(("Requester", "BucketOwner"))}, ("Payer",)),
            words={name: {"Payer": name} for name in ("Requester", "BucketOwner")}),
    Setting("tags", "get_bucket_tagging", "put_bucket_tagging", "Tagging", "delete_bucket_tagging", "tags of the bucket",
            Record({"TagSet": ListOf(_TAG, 0, 50)}, ("TagSet",))),
    Setting("encryption", "get_bucket_encryption", "put_bucket_encryption", "ServerSideEncryptionConfiguration", "delete_bucket_encryption",
            "how the server encrypts new objects", _ENCRYPTION, "ServerSideEncryptionConfiguration",
            words={name: {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": name}}]} for name in ("AES256", "aws:kms")}),
    Setting("object-lock", "get_object_lock_configuration", "put_object_lock_configuration", "ObjectLockConfiguration",
            {"ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled"}}, "retention of new objects (bucket made with object lock)",
            _LOCK, "ObjectLockConfiguration"),
    Setting("logging", "get_bucket_logging", "put_bucket_logging", "BucketLoggingStatus", {"BucketLoggingStatus": {}},
            "where access logs go", _LOGGING),
    Setting("cors", "get_bucket_cors", "put_bucket_cors", "CORSConfiguration", "delete_bucket_cors",
            "which web pages may use the bucket", _CORS),
    Setting("versioning", "get_bucket_versioning", "put_bucket_versioning", "VersioningConfiguration",
            {"VersioningConfiguration": {"Status": "Suspended"}}, "whether old versions are kept", _VERSIONING,
            words={name: {"Status": name} for name in ("Enabled", "Suspended")}),
    Setting("notification", "get_bucket_notification_configuration", "put_bucket_notification_configuration", "NotificationConfiguration",
            "delete_bucket_notification_configuration", "which topic is told of which events", _NOTIFICATION),
)}  # fmt: skip
"""The settings, by the names of features.md."""

ABSENT = frozenset({
    "NoSuchBucketPolicy", "NoSuchLifecycleConfiguration", "NoSuchWebsiteConfiguration", "NoSuchTagSet", "NoSuchCORSConfiguration",
    "ServerSideEncryptionConfigurationNotFoundError", "ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration",
})  # fmt: skip
"""What servers call a setting that is not set."""


def row(name: str) -> Setting:
    """The row of a setting; Refusal (ENODATA) for unknown names, naming the known ones."""
    if name not in SETTINGS:
        raise Refusal(f"{name} is no bucket setting; there are {', '.join(SETTINGS)}", errno.ENODATA)
    return SETTINGS[name]


async def document(store: Store, name: str) -> Any:
    """The setting as JSON-able values, None where there is none. StoreError ``NotImplemented`` where the server does not know it."""
    setting = row(name)
    try:
        answer: Any = await store.call(setting.get)
    except StoreError as exc:
        if exc.code in ABSENT:
            return None
        raise
    if setting.inner:
        answer = answer.get(setting.inner)
    if setting.text and answer:
        answer = json.loads(answer)
    return answer or None


async def get(store: Store, name: str) -> str | None:
    """The setting as JSON text, None where there is none."""
    found = await document(store, name)
    return None if found is None else json.dumps(found, default=str, ensure_ascii=False)


def read(name: str, text: str) -> tuple[Any, dict[str, Any]]:
    """The document that *text* (JSON, a word of the row, or for `acl` grants) stands for, and the put call's parameters (pure).

    Raises Refusal: EINVAL with the JSON path of what is wrong, E2BIG for too many or too long tags.
    """
    setting = row(name)
    text = text.strip()
    for word, value in setting.words.items():
        if text.lower() == word.lower():
            return value, setting.members(value)
    if setting.read is not None and not text.startswith("{"):
        members = setting.read(text)
        return members, dict(members)
    if not text.startswith(("{", "[")) and setting.words:
        raise Refusal(f"{name}: {text[:60]!r} is neither JSON nor one of {', '.join(setting.words)}")
    value = parse(text, name)
    if name == "tags" and isinstance(value, dict) and "TagSet" not in value:
        value = {"TagSet": [{"Key": key, "Value": one} for key, one in value.items()]}
    check(value, setting.shape, name)
    if name == "tags":
        check_tags({tag["Key"]: tag["Value"] for tag in value["TagSet"]}, most=50)
    if name == "acl":
        return value, dict(parse_acl(json.dumps(value)))
    return value, setting.members(value)


async def set(store: Store, name: str, text: str) -> None:
    """Set it to *text* (see `read`). Raises Refusal before anything is sent, StoreError after."""
    _, members = read(name, text)
    await document(store, name)
    await store.call(row(name).put, **members)


async def unset(store: Store, name: str) -> None:
    """Remove it; Refusal ENODATA where there was none."""
    setting = row(name)
    before = await document(store, name)
    if before is None:
        raise Refusal(f"the bucket has no {name}", errno.ENODATA)
    if isinstance(setting.unset, str):
        await store.call(setting.unset)
    elif setting.unset is not None:
        await store.call(setting.put, **setting.unset)
