"""`zosfs search QUERY [PATH]`: find objects by their metadata, where the server keeps an index of them."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from zosfs.admin.search import MODES, ORDERS
from zosfs.cli.place import Place, add_connection, located, show_rows, work
from zosfs.mount.daemon import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """QUERY, where, and the order of the hits."""
    parser.add_argument("query", metavar="QUERY", help="such as name==report.pdf, or size>1000000 and x-amz-meta-team==blue")
    parser.add_argument("path", nargs="?", default=".", metavar="PATH", help="a path on a mount of the bucket, or zos://BUCKET [here]")
    parser.add_argument("--mode", default="", choices=MODES, metavar="|".join(MODES), help="how values are compared")
    parser.add_argument("--order", default="", choices=ORDERS, metavar="|".join(ORDERS), help="ascending or descending")
    parser.add_argument("--order-key", default="", metavar="NAME", help="what to order by: size, lastmodified…")
    parser.add_argument("--max", type=int, default=0, metavar="N", help="so many hits at most")
    parser.add_argument("--json", action="store_true", help="print JSON, with the metadata of each hit")
    add_connection(parser)


def run(args: argparse.Namespace) -> int:
    """Print the hits; 1 when there are none or the server cannot search."""
    place = located(args.path)
    if place is None:
        return 1
    if not place.bucket or args.max < 0:
        say("search: --max is not negative" if place.bucket else "search: which bucket?")
        return 1

    async def job(account: Any) -> int:
        return await _job(args, place, account)

    return work(args, place, job)


async def _job(args: argparse.Namespace, place: Place, account: Any) -> int:
    from zosfs.admin.search import search

    store = account.bucket(place.bucket)
    hits = search(store, args.query, mode=args.mode, order=args.order, order_key=args.order_key, most=args.max)
    rows = [dataclasses.asdict(hit) async for hit in hits]
    show_rows(rows, ("key", "size", "modified", "content_type", "storage_class"), args.json)
    return 0 if rows else 1
