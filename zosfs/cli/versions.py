"""`zosfs versions PATH`, `zosfs versions restore PATH [VERSION]`: what a file was, and having it again."""

from __future__ import annotations

import argparse
import dataclasses
import os
from typing import Any

from zosfs.cli.place import Place, add_connection, located, look_again, settle, show_rows, work
from zosfs.mount.daemon import say

SYNOPSIS = """zosfs versions PATH [--json]
       zosfs versions restore PATH [VERSION]"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """[restore] PATH [VERSION]."""
    parser.add_argument(
        "words", nargs="+", metavar="[restore] PATH [VERSION]",
        help="a path on a mount, or zos://BUCKET/KEY (DIR/: all below); without VERSION the newest that is no deletion comes back",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_connection(parser)


def run(args: argparse.Namespace) -> int:
    """List, or bring back; 1 when there is nothing."""
    words = list(args.words)
    restore = words[0] in ("restore", "list") and len(words) > 1 and words.pop(0) == "restore"
    if len(words) > (2 if restore else 1):
        say("versions: PATH, or restore PATH [VERSION]")
        return 1
    place = located(words[0])
    if place is None:
        return 1
    version = words[1] if len(words) > 1 else ""

    async def job(account: Any) -> int:
        return await (_restore(place, version, account) if restore else _list(args, place, account))

    if not restore:
        settle(words[0])
        return work(args, place, job)
    # what was deleted through a mount is so before it comes back
    settle(*([] if "://" in words[0] else [words[0], os.path.dirname(os.path.abspath(words[0]))]))
    status = work(args, place, job)
    look_again(words[0], made=not status)
    return status


async def _list(args: argparse.Namespace, place: Place, account: Any) -> int:
    from zosfs.admin.versions import versions

    exact = bool(place.key) and not place.key.endswith("/")
    found = [version async for version in versions(account.bucket(place.bucket), place.key, exact=exact)]
    rows = [
        {**dataclasses.asdict(version), "state": " ".join(["deleted"] * version.deleted + ["current"] * version.latest)}
        for version in found
    ]
    show_rows(rows, ("id", "modified", "size", "state") if exact else ("key", "id", "modified", "size", "state"), args.json)
    if not rows:
        say(f"{place} has no versions")
    return 0 if rows else 1


async def _restore(place: Place, version: str, account: Any) -> int:
    from zosfs.admin.versions import bring_back

    taken = await bring_back(account.bucket(place.bucket), place.key, version)
    print(f"{place} is again what it was in version {taken}")
    return 0
