"""`zosfs uploads list|abort PATH`: multipart uploads that were begun and never ended; their parts cost space."""

from __future__ import annotations

import argparse
import datetime
from typing import Any

from zosfs.cli.place import Place, add_connection, located, show_rows, work
from zosfs.config_values import parse_duration
from zosfs.mount.daemon import say

SYNOPSIS = """zosfs uploads list [PATH] [--older-than AGE] [--json]
       zosfs uploads abort [PATH] --older-than AGE"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """list or abort, and where."""
    parser.add_argument("verb", choices=("list", "abort"), help="what to do")
    parser.add_argument("path", nargs="?", default=".", metavar="PATH", help="a path on a mount, or zos://BUCKET[/PREFIX] [here]")
    parser.add_argument("--older-than", default="", metavar="AGE", help="only uploads begun longer ago: 30m, 12h, 7d; abort needs it")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_connection(parser)


def run(args: argparse.Namespace) -> int:
    """List or abort; 1 when it is refused."""
    place = located(args.path)
    if place is None:
        return 1
    if not place.bucket:
        say(f"uploads {args.verb}: which bucket?")
        return 1
    try:
        age = parse_duration(args.older_than) if args.older_than else -1.0
    except ValueError as error:
        say(f"--older-than {args.older_than}: {error}")
        return 1
    if args.verb == "abort" and age < 0:
        say("uploads abort: --older-than AGE is needed (0 for all), because running uploads would fail")
        return 1

    async def job(account: Any) -> int:
        return await _job(args, place, age, account)

    return work(args, place, job)


async def _job(args: argparse.Namespace, place: Place, age: float, account: Any) -> int:
    from zosfs.store.answers import as_meant

    store = account.bucket(place.bucket)
    now = datetime.datetime.now(datetime.UTC)
    rows, markers = [], dict[str, Any]()
    while True:
        page = await store.call("list_multipart_uploads", Prefix=place.key, **markers)
        rows += [
            {"key": as_meant(row["Key"]), "id": row["UploadId"], "begun": row["Initiated"].isoformat(timespec="seconds")}
            for row in page.get("Uploads", [])
            if age < 0 or (now - row["Initiated"]).total_seconds() >= age
        ]
        if not page.get("IsTruncated"):
            break
        markers = {"KeyMarker": as_meant(page["NextKeyMarker"]), "UploadIdMarker": page["NextUploadIdMarker"]}
    if args.verb == "abort":
        for row in rows:
            await store.abort_upload(row["key"], row["id"])
    show_rows(rows, ("begun", "key", "id"), args.json)
    return 0
