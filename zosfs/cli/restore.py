"""`zosfs restore PATH…`: thaw archived objects, and wait until they can be read."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from zosfs.cli.place import Place, add_connection, located, show_rows, work
from zosfs.mount.daemon import say

if TYPE_CHECKING:
    from zosfs.admin.thawing import Thaw
    from zosfs.store.api import Store

POLL = 30.0
"""Seconds between two looks at what is thawing: hours, or minutes with tier Expedited."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """PATH…, for how long, how fast."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="paths on a mount, or zos://BUCKET/KEY (KEY/ : all below)")
    parser.add_argument("--days", default="7", metavar="N", help="how long the copy stays readable, 1 to 31 [7]")
    parser.add_argument("--tier", default="Standard", help="how fast: Standard, Expedited or Bulk [Standard]")
    parser.add_argument(
        "--wait", action=argparse.BooleanOptionalAction, default=True,
        help="wait until all can be read, which may take hours [--wait]; --no-wait only asks for it",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON: key and state of each file")
    add_connection(parser)


def run(args: argparse.Namespace) -> int:
    """Thaw each; 1 when one is refused."""
    from zosfs.admin.thawing import parse_restore

    try:
        request = parse_restore(f"days={args.days},tier={args.tier}")
    except OSError as error:
        say(str(error))
        return 1
    status = 0
    rows: list[dict[str, str]] = []
    for path in args.paths:
        place = located(path)
        if place is None:
            status = 1
            continue
        thaws: list[Thaw] = []

        async def job(account: Any, place: Place = place, thaws: list[Thaw] = thaws) -> int:
            return await _job(args, place, request, account, thaws)

        status |= work(args, place, job)
        rows += [{"bucket": place.bucket, "key": thaw.key, "state": thaw.state, "why": thaw.why} for thaw in thaws]
    for row in rows:
        if row["why"]:
            say(row["why"])
    named = [{**row, "file": f"zos://{row['bucket']}/{row['key']}"} for row in rows]
    show_rows(rows if args.json else named, ("file", "state"), args.json)
    return status


async def _job(args: argparse.Namespace, place: Place, request: dict[str, Any], account: Any, thaws: list[Thaw]) -> int:
    from zosfs.admin.thawing import REFUSED, Thaw, archived_below, ask

    store = account.bucket(place.bucket)
    if not place.key or place.key.endswith("/"):
        thaws += [Thaw(key) async for key in archived_below(store, place.key)]
        if not thaws:
            say(f"nothing below {place} is archived")
    else:
        thaws.append(Thaw(place.key))
    await ask(store, thaws, request)
    if args.wait:
        await _wait(store, thaws)
    return 1 if any(thaw.state == REFUSED for thaw in thaws) else 0


async def _wait(store: Store, thaws: list[Thaw]) -> None:
    """Look at those that are thawing until none is; progress on a terminal."""
    import trio
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from zosfs.admin.thawing import THAWING, look

    total = sum(thaw.state == THAWING for thaw in thaws)
    columns = (TextColumn("thawing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty() or not total) as progress:
        task = progress.add_task("", total=total)
        waiting = await look(store, thaws)
        while waiting:
            progress.update(task, completed=total - len(waiting))
            await trio.sleep(POLL)
            waiting = await look(store, waiting)
        progress.update(task, completed=total)
