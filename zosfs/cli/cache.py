"""`zosfs cache stat|evict [PATH…]`: what the chunk cache holds, and dropping it. What is not delivered is never touched."""

from __future__ import annotations

import argparse
import errno
import json
import os

from zosfs.cli.ask import ask, root_of
from zosfs.mount import registry
from zosfs.mount.daemon import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The two commands."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    stat = commands.add_parser("stat", help="bytes and files in the cache of a mount, or of single files")
    stat.add_argument("paths", metavar="PATH", nargs="*", help="a mount or files on one (default: all mounts)")
    stat.add_argument("--json", action="store_true", help="print one JSON list")
    evict = commands.add_parser("evict", help="drop what is cached of files, or of all below a directory")
    evict.add_argument("paths", metavar="PATH", nargs="+", help="a mount, a directory or a file on one")


def _of_mount(root: str) -> list[dict[str, object]]:
    buckets = ask(root, "status").get("buckets", {})
    return [{"mount": root, "bucket": bucket, **facts.get("cache", {})} for bucket, facts in buckets.items()]


def _of(path: str) -> list[dict[str, object]]:
    root = root_of(path)
    if os.path.abspath(path) == root or os.path.isdir(path):
        return _of_mount(root)
    held, _, size = os.getxattr(path, "user.zos.cached").decode().partition("/")
    return [{"path": path, "bytes": int(held), "size": int(size)}]


def _line(row: dict[str, object]) -> str:
    if "path" in row:
        return f"{row['path']}: {row['bytes']} of {row['size']} bytes"
    return f"{row['mount']} ({row['bucket']}): {row.get('files', 0)} files, {row.get('bytes', 0)} of {row.get('limit', 0)} bytes"


def _evict(path: str) -> None:
    try:
        os.setxattr(path, "user.zos.evict", b"1")
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        os.getxattr(path, "user.zos.evict")  # of a mount that is read only


def run(args: argparse.Namespace) -> int:
    """Show or drop; 1 when a path could not be asked."""
    paths = args.paths or [entry.mountpoint for entry in registry.entries()]
    rows: list[dict[str, object]] = []
    status = 0
    for path in paths:
        try:
            if args.command == "evict":
                root_of(path)
                _evict(path)
            else:
                rows += _of(path)
        except LookupError as error:
            say(str(error))
            status = 1
        except OSError as error:
            say(f"{path}: {error.strerror}")
            status = 1
    if args.command == "stat" and args.json:
        print(json.dumps(rows))
    elif args.command == "stat":
        for row in rows:
            print(_line(row))
        if not paths:
            print("nothing is mounted")
    return status
