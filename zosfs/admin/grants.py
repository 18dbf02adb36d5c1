"""ACLs as text: canned words, grants (`read=id=…`), JSON; and as the parameters of boto3's put calls (pure)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from zosfs.admin.refusal import Refusal
from zosfs.admin.shape import Anything, ListOf, Record, Text, check, parse

CANNED = ("private", "public-read", "public-read-write", "authenticated-read", "bucket-owner-read", "bucket-owner-full-control")
PERMISSIONS = ("READ", "WRITE", "READ_ACP", "WRITE_ACP", "FULL_CONTROL")
_HEADERS = {
    "read": "GrantRead", "write": "GrantWrite", "read-acp": "GrantReadACP", "write-acp": "GrantWriteACP",
    "full-control": "GrantFullControl",
}  # fmt: skip
_FORMS = {"id": re.compile(r"[^\s,\"=]+"), "uri": re.compile(r"https?://[^\s,\"]+"), "emailaddress": re.compile(r"[^\s,\"@]+@[^\s,\"@]+")}
_GRANTEE = Record(
    {"Type": Text(("CanonicalUser", "Group", "AmazonCustomerByEmail")), "ID": Text(), "URI": Text(), "EmailAddress": Text(),
     "DisplayName": Text()}, ("Type",), ("ID", "URI", "EmailAddress"),
)  # fmt: skip
ACL = Record({
    "Owner": Record({"ID": Text(), "DisplayName": Text()}, ("ID",)), "RequestCharged": Anything(),
    "Grants": ListOf(Record({"Grantee": _GRANTEE, "Permission": Text(PERMISSIONS)}, ("Grantee", "Permission")), 0, 100),
}, ("Owner", "Grants"))  # fmt: skip


def parse_acl(text: str) -> Mapping[str, Any]:
    """The put call's parameters of a canned word, of grants like ``read=id=ABC,uri=http://… full-control=id=DEF``, or of JSON
    (Owner, Grants): ``{"ACL": …}``, ``{"GrantRead": …}`` or ``{"AccessControlPolicy": …}``. Raises Refusal (EINVAL)."""
    text = text.strip()
    if text in CANNED:
        return {"ACL": text}
    if text.startswith("{"):
        value = parse(text, "acl")
        check(value, ACL, "acl")
        return {"AccessControlPolicy": {"Owner": value["Owner"], "Grants": value["Grants"]}}
    if "=" not in text:
        raise Refusal(f"acl: {text[:60]!r} is none of {', '.join(CANNED)}, nor grants such as read=id=USER, nor JSON")
    members: dict[str, str] = {}
    for grant in re.split(r"[\s;]+", text):
        permission, _, grantees = grant.partition("=")
        header = _HEADERS.get(permission.lower().replace("_", "-"))
        if header is None:
            raise Refusal(f"acl: {permission[:40]!r} is no permission; there are {', '.join(_HEADERS)}")
        found = []
        for grantee in grantees.split(","):
            kind, _, who = grantee.partition("=")
            who = who.strip('"')
            form = _FORMS.get(kind.lower())
            if form is None or not form.fullmatch(who):
                raise Refusal(f"acl: {grantee[:60]!r} is no grantee; write id=USER, uri=http://… or emailAddress=A@B")
            found.append(f'{"emailAddress" if kind.lower() == "emailaddress" else kind.lower()}="{who}"')
        members[header] = ", ".join(filter(None, [members.get(header, ""), *found]))
    return members


def adopted(acl: Mapping[str, Any], owner: Mapping[str, Any]) -> Mapping[str, Any]:
    """*acl* as that of an object of *owner*: what it grants to its own owner goes to this one.

    A copy into another account carries the ACL of its source along, whose owner no server lets one set.
    """
    if acl["Owner"].get("ID") == owner.get("ID"):
        return acl
    grants = []
    for grant in acl["Grants"]:
        own = grant["Grantee"].get("ID") == acl["Owner"].get("ID")
        grants.append({**grant, "Grantee": {"Type": "CanonicalUser", "ID": owner.get("ID")}} if own else grant)
    return {"Owner": dict(owner), "Grants": grants}


def same_grants(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> bool:
    """Whether both grant the same to the same, whatever their order."""

    def rows(grants: Sequence[Mapping[str, Any]]) -> set[tuple[str, ...]]:
        who = ("ID", "URI", "EmailAddress")
        return {(grant["Permission"], *(str(grant["Grantee"].get(name) or "") for name in who)) for grant in grants}

    return rows(one) == rows(other)
