"""`zosfs journal`: what was written, changed or removed on this host and is not so in the store, because of a crash, a conflict, or a
server that refused.

`list`, `show` and `export` also work while the bucket is mounted; `discard` and `upload` need the journal for themselves.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zosfs import places
from zosfs.cli.options import add_option_arguments, options_of
from zosfs.cli.place import show_rows
from zosfs.config_values import OptionError
from zosfs.content.journal import DATABASE, InUse, Journal
from zosfs.content.journal_rows import Deletion, Record, remove_record
from zosfs.content.promise_log import HEADERS, REMOVALS, PromiseLog
from zosfs.content.promised_headers import PromisedHeaders
from zosfs.mount.daemon import say
from zosfs.mount.refusal import root_cause

COLUMNS = ("id", "bucket", "key", "size", "state", "changed", "cause")
PIECE = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-command each."""
    commands = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    listing = commands.add_parser("list", help="every entry: id, bucket, key, size, state, cause; and attributes and removals to come")
    listing.add_argument("--json", action="store_true", help="print one JSON list")
    for name, text in (
        ("show", "one entry with its ranges"),
        ("export", "write an entry's bytes to FILE"),
        ("discard", "throw an entry's bytes away for good"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("id", metavar="ID", help="as `list` shows it; the beginning is enough")
        if name == "export":
            command.add_argument("file", metavar="FILE", help="a new file")
        if name == "discard":
            command.add_argument("--yes", action="store_true", help="do not ask")
    upload = commands.add_parser("upload", help="deliver a bucket's entries now, as the next mount would; conflicts stay")
    upload.add_argument("bucket", metavar="BUCKET", help="the bucket whose entries are delivered")
    for command in (*commands.choices.values(),):
        add_option_arguments(command, groups=("connection", "memory and disk"))


def _directories(cache_dir: Path) -> Iterator[tuple[str, Path]]:
    for folder in sorted(cache_dir.glob(f"*/journal/{DATABASE}")):
        bucket, _, _ = folder.parent.parent.name.rpartition("-")
        yield bucket, folder.parent


def _entries(cache_dir: Path) -> Iterator[tuple[str, Path, Record]]:
    for bucket, directory in _directories(cache_dir):
        journal = Journal(directory)
        journal.look()
        try:
            for record in journal.records():
                yield bucket, directory, record
        finally:
            journal.close()


def _row(bucket: str, record: Record) -> dict[str, Any]:
    return {
        "id": record.id[:12], "bucket": bucket, "key": record.key, "size": record.size, "state": record.state,
        "changed": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.changed)), "cause": record.cause,
    }  # fmt: skip


def _without_bytes(cache_dir: Path) -> Iterator[dict[str, Any]]:
    """A row for each object that is to get other attributes, or to go."""
    for bucket, directory in _directories(cache_dir):
        journal = Journal(directory)
        journal.look()
        try:
            removals = [*journal.deletions(), *PromiseLog(directory / REMOVALS, Deletion).look()]
        finally:
            journal.close()
        attributes = PromiseLog(directory / HEADERS, PromisedHeaders.read).look()
        keys = [*(("attributes", promise.key) for promise in attributes), *(("removal", removal.key) for removal in removals)]
        for state, key in dict.fromkeys(keys):  # one that goes into the journal may be read twice
            yield {"id": "", "bucket": bucket, "key": key, "size": 0, "state": state, "changed": "", "cause": ""}


def _find(cache_dir: Path, begin: str) -> tuple[str, Path, Record]:
    """The entry whose id begins so. LookupError when there is none, or more than one."""
    found = [entry for entry in _entries(cache_dir) if entry[2].id.startswith(begin)]
    if len(found) != 1:
        raise LookupError(f"{len(found)} entries have an id that begins with {begin}")
    return found[0]


def run(args: argparse.Namespace) -> int:
    """Do it; 1 with one line on stderr when it cannot be done."""
    bucket = args.bucket if args.what == "upload" else ""
    try:
        names = (bucket,) if bucket else ()
        options = options_of(args, names).options
        cache_dir = places.cache_dir(options.cache_dir)
        if args.what == "list":
            rows = [*(_row(bucket, record) for bucket, _, record in _entries(cache_dir)), *_without_bytes(cache_dir)]
            show_rows(rows, COLUMNS, args.json)
            return 0
        if args.what == "upload":
            return _upload(options, bucket, cache_dir)
        bucket, directory, record = _find(cache_dir, args.id)
        if args.what == "show":
            return _show(bucket, record)
        if args.what == "export":
            return _export(directory, record, Path(args.file))
        return _discard(bucket, directory, record, yes=args.yes)
    except (OptionError, LookupError) as error:
        say(str(error))
    except (OSError, BaseExceptionGroup) as error:
        used = root_cause(error)
        if not isinstance(used, InUse):
            raise
        way = "it delivers what is in it by itself" if args.what == "upload" else "unmount it, and try again"
        say(f"the journal of {bucket} is in use by a mount (process {used.pid}): {way}")
    return 1


def _show(bucket: str, record: Record) -> int:
    for name, value in _row(bucket, record).items():
        print(f"{name:8} {value}")
    print(f"base     {record.base.etag if record.base else 'none: a new file'}")
    for start, end in record.dirty:
        print(f"written  {start}-{end} ({end - start} bytes)")
    missing = _missing(record)
    if missing:
        print(f"the other {missing} bytes are those of the object that it changes")
    return 0


def _missing(record: Record) -> int:
    """Bytes that are in the base object only."""
    inside = sum(max(0, min(end, record.kept) - start) for start, end in record.dirty)
    return max(0, record.kept - inside)


def _export(directory: Path, record: Record, target: Path) -> int:
    """The written ranges at their offsets; what only the base has stays a hole, and that is said."""
    staged = directory.parent / "staged" / record.file
    with open(target, "xb") as out:
        for start, end in record.dirty:
            out.seek(start)
            if record.image is not None:
                out.write(record.image[start:end])
                continue
            with open(staged, "rb") as source:
                source.seek(start)
                left = end - start
                while left > 0 and (piece := source.read(min(left, PIECE))):
                    out.write(piece)
                    left -= len(piece)
        out.truncate(record.size)
        out.flush()
        os.fsync(out.fileno())
    print(f"{target}: {record.size} bytes of {record.key}")
    missing = _missing(record)
    if missing:
        etag = record.base.etag if record.base else ""
        say(f"{missing} bytes were not written here: they are those of the object's version with the ETag {etag}, and zeros in {target}")
    return 0


def _discard(bucket: str, directory: Path, record: Record, *, yes: bool) -> int:
    if not yes:
        if not sys.stdin.isatty():
            say("nothing thrown away: --yes does it without asking")
            return 1
        answer = input(f"throw away {record.size} bytes of zos://{bucket}/{record.key} for good? [y/N] ")
        if answer.strip().lower() not in ("y", "yes"):
            return 1
    journal = Journal(directory)
    journal.open()
    try:
        journal.apply([remove_record(record.id)])
        if record.file:
            (directory.parent / "staged" / record.file).unlink(missing_ok=True)
    finally:
        journal.close()
    print(f"{record.key}: thrown away")
    return 0


def _upload(options: Any, bucket: str, cache_dir: Path) -> int:
    import trio

    from zosfs.content.content import Content
    from zosfs.content.memory import MemoryBudget
    from zosfs.counters import Counters
    from zosfs.store.connect import check, connect

    async def main() -> int:
        counters = Counters()
        account = await connect(options, counters, bucket)
        try:
            await check(account, bucket)
            async with trio.open_nursery() as nursery:
                content = Content(
                    account.bucket(bucket), options, counters, nursery, budget=MemoryBudget(options.memory, counters),
                    cache_dir=cache_dir / places.bucket_folder(options.url, bucket),
                )  # fmt: skip
                await content.start()
                try:
                    await content.drain(lambda files, size: say(f"{files} files, {size} bytes to go") if files else None)
                finally:
                    left = list(content.records())
                    await content.aclose()
                    nursery.cancel_scope.cancel()
        finally:
            await account.aclose()
        for record in left:
            say(f"{record.key} stays: {record.cause or record.state}")
        print(f"{counters['journal_replayed']} files delivered, {len(left)} stay")
        return 1 if left else 0

    return trio.run(main)
