"""`zosfs presign PATH`: a URL that reads or writes one object for whoever has it, for a while."""

from __future__ import annotations

import argparse
import html
import json
from collections.abc import Mapping
from typing import Any

from zosfs.cli.place import Place, add_connection, located, settle, work
from zosfs.config_values import parse_duration
from zosfs.mount.daemon import say

LONGEST_V4 = 7 * 86400


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """PATH, what the URL does, how long."""
    parser.add_argument("path", metavar="PATH", help="a path on a mount, or zos://BUCKET/KEY")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--put", action="store_true", help="a URL to upload to with PUT")
    kind.add_argument("--post", action="store_true", help="the fields of an upload form as JSON; DIR/: for any file in it")
    kind.add_argument("--html", action="store_true", help="an upload form, as a page")
    parser.add_argument("--expires", default="3600", metavar="S", help="how long it holds: seconds, or 90m, 12h, 7d [3600]")
    parser.add_argument("--v2", action="store_true", help="sign with version 2 (no limit of 7 days)")
    parser.add_argument("--version-id", default="", metavar="ID", help="of this version")
    add_connection(parser)


def run(args: argparse.Namespace) -> int:
    """Print it; nothing is sent."""
    place = located(args.path)
    if place is None:
        return 1
    try:
        seconds = int(parse_duration(args.expires))
    except ValueError as error:
        say(f"--expires {args.expires}: {error}")
        return 1
    if seconds < 1 or (seconds > LONGEST_V4 and not args.v2):
        say("--expires: 1 second to 7 days (604800 s); longer needs --v2")
        return 1
    if args.v2:
        args.pairs = [*args.pairs, ("sigv2", None)]
    if not place.bucket or ((not place.key or place.key.endswith("/")) and not args.post and not args.html):
        say(f"{place} is no file")
        return 1

    async def job(account: Any) -> int:
        return await _job(args, place, seconds, account)

    if not args.put and not args.post and not args.html:
        settle(args.path)
    return work(args, place, job)


async def _job(args: argparse.Namespace, place: Place, seconds: int, account: Any) -> int:
    if args.post or args.html:
        # the server puts the name of the uploaded file in the place of ${filename}
        key = place.key + "${filename}" if not place.key or place.key.endswith("/") else place.key
        form = await account.bucket(place.bucket).presign_post(key, seconds)
        print(page(form) if args.html else json.dumps(form, indent=1))
        return 0
    version = {"VersionId": args.version_id} if args.version_id else {}
    operation = "put_object" if args.put else "get_object"
    print(await account.bucket(place.bucket).presign(operation, place.key, seconds, version=2 if args.v2 else 4, **version))
    return 0


def page(form: Mapping[str, Any]) -> str:
    """The upload form of presigned POST fields as a page (pure)."""
    hidden = "\n".join(
        f'<input type="hidden" name="{html.escape(name)}" value="{html.escape(value)}">' for name, value in form["fields"].items()
    )
    return (
        f'<!doctype html>\n<meta charset="utf-8">\n<form action="{html.escape(form["url"])}" method="post" enctype="multipart/form-data">\n'
        f'{hidden}\n<input type="file" name="file">\n<button>upload</button>\n</form>'
    )
