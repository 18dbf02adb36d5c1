"""`zosfs cp [-r] SRC… DST`: copies made by the server; no bytes pass through this machine."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from zosfs.cli.place import Place, add_connection, connected, located, look_again, options_at, settle, work
from zosfs.config_values import OptionError, parse_size
from zosfs.mount.daemon import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """SRC… DST, and what to keep."""
    parser.add_argument("sources", nargs="+", metavar="SRC", help="files or directories: paths on a mount, or zos://BUCKET/KEY")
    parser.add_argument("target", metavar="DST", help="a new name, or a directory (a trailing / says so) to copy into")
    parser.add_argument("-r", "-R", "--recursive", action="store_true", help="copy directories with all that is in them")
    parser.add_argument("-n", "--no-clobber", action="store_true", help="leave what is there already")
    parser.add_argument("--no-acl", action="store_true", help="give the copies the default ACL: one request an object less")
    parser.add_argument("--parts-above", default="5G", metavar="SIZE", help="copy larger objects in parts, 5G at most [5G]")
    parser.add_argument("--part-size", default="512M", metavar="SIZE", help="size of these parts, from 5M to 5G [512M]")
    parser.add_argument("--json", action="store_true", help="print what was copied as JSON")
    add_connection(parser)


def run(args: argparse.Namespace) -> int:
    """Copy each; 1 when something could not be copied."""
    from zosfs.admin.copies import GIB, SINGLE, How

    try:
        single, part = parse_size(args.parts_above), parse_size(args.part_size)
    except ValueError as error:
        say(f"cp: {error}")
        return 1
    if not 0 <= single <= SINGLE or not 5 << 20 <= part <= 5 * GIB:
        say("cp: --parts-above is at most 5G, --part-size from 5M to 5G")
        return 1
    how = How(single=single, part=part, acl=not args.no_acl, replace=not args.no_clobber)
    target = located(args.target)
    sources = [located(source) for source in args.sources]
    if target is None or not all(sources):
        return 1
    target, *found = connected(target, *(source for source in sources if source is not None))
    if not target.bucket or not all(source.bucket for source in found):
        say("cp: which bucket?")
        return 1
    try:
        ends = {options_at(args, place).url for place in (*found, target)}
    except OptionError as error:
        say(str(error))
        return 1
    if len(ends) > 1:
        say(f"cp: {' and '.join(sorted(ends))} are different servers: mount both, and copy with cp -a")
        return 1
    args.within = []  # names in the directory DST that are copied to
    # not behind a gathered deletion of the name that is copied to
    settle(*args.sources, *(() if "://" in args.target else (args.target, os.path.dirname(os.path.abspath(args.target)))))

    async def job(account: Any) -> int:
        return await _job(args, found, target, how, account)

    status = work(args, target, job)
    look_again(args.target, args.within, made=not status)
    return status


async def _job(args: argparse.Namespace, sources: Sequence[Place], target: Place, how: Any, account: Any) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from zosfs.admin.copies import Outcome

    into = target
    if target.key and not target.key.endswith("/") and await _is_directory(account, target):
        into = Place(target.bucket, target.key + "/")
    directory = not into.key or into.key.endswith("/")
    if len(sources) > 1 and not directory:
        say(f"cp: {target} is no directory")
        return 1
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    whole = Outcome(failures=[])
    assert whole.failures is not None
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        for source in sources:
            task = progress.add_task(source.key or source.bucket, total=0)
            total = [0]

            def found(size: int, task: Any = task, total: list[int] = total) -> None:
                total[0] += size
                progress.update(task, total=total[0])

            def step(size: int, task: Any = task) -> None:
                progress.advance(task, size)

            outcome = await _one(args, source, into, directory, how, account, found, step)
            whole.objects += outcome.objects
            whole.bytes += outcome.bytes
            whole.left += outcome.left
            whole.failures += outcome.failures or []
    for _, line in whole.failures:
        say(line)
    if args.json:
        failures = [{"key": key, "why": line} for key, line in whole.failures]
        print(json.dumps({"objects": whole.objects, "bytes": whole.bytes, "left": whole.left, "failures": failures}))
    return 1 if whole.failures else 0


async def _one(
    args: argparse.Namespace, source: Place, into: Place, directory: bool, how: Any, account: Any,
    found: Callable[[int], None], step: Callable[[int], None],
) -> Any:  # fmt: skip
    from zosfs.admin.copies import Outcome, copy_below, copy_object, exists
    from zosfs.errors import StoreError

    def refused(line: str) -> Any:
        return Outcome(failures=[(source.key, f"cp: {line}")])

    store, target = account.bucket(source.bucket), account.bucket(into.bucket)
    info = None
    if source.key and not source.key.endswith("/"):
        try:
            info = await store.head(source.key)
        except StoreError as exc:
            if exc.status != 404:
                return Outcome(failures=[(source.key, str(exc))])
    if info is not None:
        key = into.key + source.key.rpartition("/")[2] if directory else into.key
        if (source.bucket, source.key) == (into.bucket, key):
            return refused(f"{source} would be copied onto itself")
        if not how.replace and await exists(target, key):
            return Outcome(left=1)
        if directory:
            args.within.append(key.removeprefix(into.key))
        found(info.size)
        try:
            await copy_object(store, target, info, key, how, step)
        except StoreError as exc:
            return Outcome(failures=[(source.key, str(exc))])
        return Outcome(1, info.size)
    if not await _is_directory(account, source):
        return refused(f"{source}: there is no such file or directory")
    if not args.recursive:
        return refused(f"{source} is a directory: -r copies it")
    prefix = source.key if not source.key or source.key.endswith("/") else source.key + "/"
    if directory and await _is_directory(account, into):
        name = prefix.rstrip("/").rpartition("/")[2]
        below = into.key + (name + "/" if name else "")
        args.within += [name] if name else []
    else:
        below = into.key if directory else into.key + "/"
    if source.bucket == into.bucket and below.startswith(prefix):
        return refused(f"{source} cannot be copied into itself")
    return await copy_below(store, prefix, target, below, how, step=step, found=found)


async def _is_directory(account: Any, place: Place) -> bool:
    """Whether something lies below *place*, or a marker says that it is a directory. A bucket is one."""
    if not place.key:
        return True
    prefix = place.key if place.key.endswith("/") else place.key + "/"
    return bool((await account.bucket(place.bucket).list_page(prefix, max_keys=1)).objects)
