"""`zosfs restore PATH…`: thaw archived objects, and wait until they can be read."""

from __future__ import annotations

import argparse
from typing import Any

from zosfs.cli.place import Place, add_connection, located, work
from zosfs.mount.daemon import say

HELP = "thaw archived files, so that they can be read for some days"
POLL = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """PATH…, for how long, how fast."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="paths on a mount, or zos://BUCKET/KEY (KEY/ : all below)")
    parser.add_argument("--days", default="7", metavar="N", help="how long the copy stays readable, 1 to 31 [7]")
    parser.add_argument("--tier", default="Standard", help="Standard, Expedited or Bulk [Standard]")
    parser.add_argument("--no-wait", action="store_true", help="do not wait until they can be read")
    add_connection(parser)


def run(args: argparse.Namespace) -> int:
    """Thaw each; 1 when one is refused."""
    status = 0
    for path in args.paths:
        place = located(path)
        status |= 1 if place is None else work(args, place, _job_of(args, place))
    return status


def _job_of(args: argparse.Namespace, place: Place) -> Any:
    async def job(account: Any) -> int:
        return await _job(args, place, account)

    return job


async def _job(args: argparse.Namespace, place: Place, account: Any) -> int:
    import trio
    from rich.progress import Progress

    from zosfs.admin.objects import parse_restore, restore_state
    from zosfs.errors import StoreError

    request = parse_restore(f"days={args.days},tier={args.tier}")
    store = account.bucket(place.bucket)
    keys = [place.key]
    if not place.key or place.key.endswith("/"):
        keys, marker = [], ""
        while True:
            page = await store.list_page(place.key, marker=marker)
            keys += [info.key for info in page.objects if info.storage_class in ("GLACIER", "DEEP_ARCHIVE")]
            marker = page.next_marker
            if not marker:
                break
    waiting, status = [], 0
    for key in keys:
        if restore_state(await store.head(key)) == "not archived":
            print(f"zos://{place.bucket}/{key}: is not archived")
            continue
        try:
            await store.call("restore_object", Key=key, RestoreRequest=request)
        except StoreError as error:
            if error.code != "RestoreAlreadyInProgress":
                say(str(error))
                status = 1
                continue
        waiting.append(key)
    if args.no_wait:
        return status
    if not waiting:
        return status
    with Progress() as progress:
        total = len(waiting)
        task = progress.add_task("thawing", total=total)
        while waiting:
            waiting = [key for key in waiting if restore_state(await store.head(key)) == "thawing"]
            progress.update(task, completed=total - len(waiting))
            if waiting:
                await trio.sleep(POLL)
    return status
