"""`zosfs status [PATH]`: what is mounted here, and what is not yet delivered."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from typing import Any

from zosfs.cli.ask import ask, root_of
from zosfs.mount import registry
from zosfs.mount.daemon import say
from zosfs.mount.mountpoint import is_dead, mounted_on, mounts

SILENT = 2.0
"""Seconds without a word from the server, requests waiting, that are worth a line."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """PATH, and the form of the answer."""
    parser.add_argument("path", metavar="PATH", nargs="?", help="any path in a mount (default: all mounts)")
    parser.add_argument("--json", action="store_true", help="print one JSON list")


def _facts(entry: registry.Entry) -> dict[str, Any]:
    facts = dataclasses.asdict(entry)
    there = mounted_on(entry.mountpoint)
    try:
        if entry.delivering is not None:
            facts["status"] = {}
        elif there is None or entry.connection not in ("", there.device):
            facts["status"] = {"error": "detached: programs that have files open there go on with them"}
        else:
            facts["status"] = ask(entry.mountpoint, "status")
    except LookupError as error:
        facts["status"] = {"error": str(error)}
    return facts


def _dead(found: Sequence[registry.Entry]) -> list[dict[str, Any]]:
    """The mounts of zosfs that the kernel still shows although their processes have ended; *found*: those alive."""
    alive = {entry.connection for entry in found}
    return [
        {"source": mount.source, "mountpoint": mount.mountpoint, "status": {"error": "its process has ended"}}
        for mount in mounts()
        if mount.type == "fuse.zosfs" and mount.device not in alive and is_dead(mount.mountpoint)
    ]


def _age(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min" if minutes else f"{seconds:.0f} s"


def _lines(facts: dict[str, Any]) -> list[str]:
    if "pid" not in facts:
        where = facts["mountpoint"]
        return [f"{facts['source']} on {where}: dead, its process has ended; mount it again, or `zosfs umount {where}`"]
    lines = [f"{facts['source']} on {facts['mountpoint']}  (pid {facts['pid']}, for {_age(time.time() - facts['started'])})"]
    if facts["delivering"] is not None:
        files, size = facts["delivering"]
        lines.append(f"  unmounted, delivering: {files} files, {size / (1 << 20):.1f} MiB to go")
    status = facts["status"]
    if "error" in status:
        lines.append(f"  {status['error']}")
    waiting = status.get("waiting")
    if waiting and waiting["seconds"] >= SILENT:
        silent = _age(waiting["seconds"])
        lines.append(f"  requests that wait for {waiting['host']}: {waiting['requests']}, it has said nothing for {silent}")
    if "open_files" in status:
        lines.append(f"  open files: {status['open_files']}, not delivered: {len(status.get('undelivered', ()))}")
    for bucket, more in status.get("buckets", {}).items():
        plain = {name.replace("_", " "): value for name, value in more.items() if not isinstance(value, (list, dict))}
        text = ", ".join(f"{name} {value}" for name, value in plain.items())
        lines.append(f"  {bucket}: {text}" if text else f"  {bucket}")
        lines.extend(f"    {pending}" for pending in more.get("pending", ()))
    lines.append(f"  cache {facts['cache_dir']}, log {facts['log']}")
    return lines


def run(args: argparse.Namespace) -> int:
    """Print it; 1 when nothing (there) is mounted."""
    found = registry.entries()
    dead = _dead(found)
    if args.path is not None:
        try:
            root = root_of(args.path)
        except LookupError as error:
            say(str(error))
            return 1
        found = [entry for entry in found if entry.mountpoint == root]
        dead = [facts for facts in dead if facts["mountpoint"] == root]
    facts = [_facts(entry) for entry in found] + dead
    if args.json:
        print(json.dumps(facts))
    else:
        for one in facts:
            print("\n".join(_lines(one)))
    left = registry.ended() if args.path is None and not args.json else []
    for entry in left:
        print(f"{entry.source} is unmounted, and not everything was delivered ({entry.undelivered});")
        print(f"  the next mount of it delivers what {entry.cache_dir} keeps")
    if not facts and not left and not args.json:
        print("nothing is mounted")
    return 0 if found or args.path is None else 1
