"""`zosfs bucket …`: make, list, delete buckets; read and change their settings."""

from __future__ import annotations

import argparse
import difflib
import errno
import json
import os
import re
import sys
from typing import Any

from zosfs.cli.place import Place, add_connection, located, show_rows, work
from zosfs.mount.daemon import say

SYNOPSIS = """zosfs bucket list [NAME] [--json]
       zosfs bucket create NAME [--acl WORD] [--az-policy single-az|multi-az] [--storage-class CLASS] [--object-lock]
       zosfs bucket delete NAME
       zosfs bucket get NAME SETTING
       zosfs bucket set NAME SETTING [FILE|-|WORD] [--yes]
       zosfs bucket unset NAME SETTING [--yes]"""

_FILE = re.compile(r"(?![{\[])(?=.*[/.])[^=]+")
"""What is meant for a file's name: no JSON and no grant, and with a slash or a dot, which no setting's word has."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Verb, bucket, setting, document."""
    parser.add_argument("verb", choices=("list", "create", "delete", "get", "set", "unset"), help="what to do")
    parser.add_argument(
        "name", nargs="?", default="", metavar="NAME",
        help="bucket, zos://BUCKET, or a path on a mount; list: its settings, without a name all buckets",
    )  # fmt: skip
    parser.add_argument(
        "setting", nargs="?", default="", metavar="SETTING",
        help="acl policy lifecycle website request-payment tags encryption object-lock logging cors versioning notification",
    )  # fmt: skip
    parser.add_argument(
        "document", nargs="?", default="-", metavar="FILE|-|WORD",
        help="set: file with JSON, - for stdin, or a word such as Enabled [-]",
    )  # fmt: skip
    parser.add_argument("--yes", action="store_true", help="set, unset: do not ask, once the difference is shown")
    parser.add_argument("--json", action="store_true", help="list: print JSON, of settings with their documents")
    parser.add_argument("--az-policy", choices=("single-az", "multi-az"), help="create: in one zone or several")
    parser.add_argument("--object-lock", action="store_true", help="create: with object lock (and versioning)")
    parser.add_argument(
        "--storage-class", "--bucket-class", dest="bucket_class", default="", metavar="CLASS", help="create: storage class of the bucket"
    )
    parser.add_argument("--acl", "--bucket-acl", dest="bucket_acl", default="", metavar="WORD", help="create: canned ACL of the bucket")
    add_connection(parser)


def run(args: argparse.Namespace) -> int:
    """Do it; 1 when it is refused."""
    place = Place("", "")
    if args.verb != "list" or args.name:
        if not args.name:
            say(f"bucket {args.verb}: which bucket?")
            return 1
        found = located(args.name) if "/" in args.name or args.name in (".", "..") else Place(args.name, "")
        if found is None:
            return 1
        if not found.bucket:
            say(f"bucket {args.verb}: which bucket?")
            return 1
        place = found
    if args.verb in ("get", "set", "unset") and not args.setting:
        say(f"bucket {args.verb}: which setting?")
        return 1

    async def job(account: Any) -> int:
        return await _job(args, place, account)

    hint = f"; {args.name} is a bucket's name here, the path is ./{args.name}" if not place.pairs and os.path.isdir(args.name) else ""
    return work(args, place, job, hint)


async def _job(args: argparse.Namespace, place: Place, account: Any) -> int:
    from zosfs.admin import settings

    if args.verb == "list" and place.bucket:
        rows = [await _state(account.bucket(place.bucket), name) for name in settings.SETTINGS]
        show_rows(rows, ("setting", "state", "help"), args.json)
    elif args.verb == "list":
        import datetime

        rows = [
            {"name": name, "made": datetime.datetime.fromtimestamp(made / 1e9, datetime.UTC).isoformat(timespec="seconds")}
            for name, made in await account.list_buckets()
        ]
        show_rows(rows, ("name", "made"), args.json)
    elif args.verb == "create":
        wanted = {"ACL": args.bucket_acl, "AZPolicy": args.az_policy, "StorageClass": args.bucket_class}
        members: dict[str, Any] = {member: value for member, value in wanted.items() if value}
        if args.object_lock:
            members["ObjectLockEnabledForBucket"] = True
        await account.create_bucket(place.bucket, **members)
    elif args.verb == "delete":
        await account.delete_bucket(place.bucket)
    else:
        store = account.bucket(place.bucket)
        before = await settings.document(store, args.setting)
        if args.verb == "get":
            if before is None:
                say(f"bucket {place.bucket} has no {args.setting}")
                return 1
            print(json.dumps(before, default=str, ensure_ascii=False, indent=2))
            return 0
        after = None
        text = ""
        if args.verb == "set":
            text = _text(args.document, settings.row(args.setting).words)
            after, _ = settings.read(args.setting, text)
        if args.verb == "set" and before == after:
            say(f"{args.setting} stays as it is")
            return 0
        if not args.yes and not _agreed(args.setting, before, after):
            return 1
        if args.verb == "set":
            await settings.set(store, args.setting, text)
        else:
            await settings.unset(store, args.setting)
    return 0


async def _state(store: Any, name: str) -> dict[str, Any]:
    """Whether a setting is set, unset, or not offered by the server (then why)."""
    from zosfs.admin import settings
    from zosfs.errors import StoreError

    row = {"setting": name, "state": "unset", "help": settings.row(name).help}
    try:
        found = await settings.document(store, name)
    except StoreError as error:
        if error.code == "NoSuchBucket" or not (error.refused or error.errno == errno.EOPNOTSUPP):
            raise  # it holds for all of them
        return {**row, "state": "not offered" if error.errno == errno.EOPNOTSUPP else "refused", "why": str(error)}
    return {**row, "state": "set", "document": found} if found is not None else row


def _text(document: str, words: Any) -> str:
    from zosfs.admin.refusal import Refusal

    if document == "-":
        return sys.stdin.read()
    if document in words:
        return document
    try:
        with open(document, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        if _FILE.fullmatch(document):
            raise Refusal(f"{document}: there is no such file", errno.ENOENT) from None
        return document  # a word or JSON itself: settings.read says so where it is neither


def difference(before: Any, after: Any, name: str) -> str:
    """The lines that change from one document to the other (pure)."""
    old, new = (
        [] if document is None else json.dumps(document, default=str, indent=2, ensure_ascii=False).splitlines()
        for document in (before, after)
    )
    return "\n".join(difflib.unified_diff(old, new, f"{name} now", f"{name} then", lineterm=""))


def _agreed(name: str, before: Any, after: Any) -> bool:
    print(difference(before, after, name), file=sys.stderr)
    if not sys.stdin.isatty():
        say("nothing changed: --yes does it without asking")
        return False
    print("change it? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
