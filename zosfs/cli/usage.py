"""`zosfs usage`: bytes, objects and quotas of the account, or of a bucket."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from zosfs.cli.place import Place, add_connection, located, show_rows, work
from zosfs.mount.daemon import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """[PATH]."""
    parser.add_argument("path", nargs="?", default="zos://", metavar="PATH", help="a path on a mount, zos://BUCKET; none: the account")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_connection(parser)


def run(args: argparse.Namespace) -> int:
    """Print it; 1 when the server does not tell."""
    place = located(args.path)
    if place is None:
        return 1

    async def job(account: Any) -> int:
        return await _job(args, place, account)

    return work(args, place, job)


async def _job(args: argparse.Namespace, place: Place, account: Any) -> int:
    if place.bucket:
        found = dataclasses.asdict(await account.bucket(place.bucket).usage())
    else:
        found = dict((await account.call("get_usage_stats")).get("Summary", {}))
    if not any(value is not None for value in found.values()):
        say(f"{f'the server of {place.bucket}' if place.bucket else 'the server'} does not tell what is used")
        return 1
    show_rows([{"what": name, "value": value} for name, value in found.items() if value is not None], ("what", "value"), args.json)
    return 0
