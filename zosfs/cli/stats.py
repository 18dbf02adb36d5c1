"""`zosfs stats PATH`: the counters of a mount."""

from __future__ import annotations

import argparse
import json
import time

from zosfs.cli.ask import ask, root_of
from zosfs.counters import METRICS
from zosfs.mount.daemon import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """PATH, and the form of the answer."""
    parser.add_argument("path", metavar="PATH", help="any path in the mount")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--all", action="store_true", help="print counters that are 0, too")
    parser.add_argument("--watch", type=float, metavar="SECONDS", help="print what changed, again and again")


def _table(counters: dict[str, int], everything: bool) -> str:
    rows = [(name, value) for name, value in counters.items() if value or everything]
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{width}} {value:>15,}  {METRICS.get(name, '')}".rstrip() for name, value in rows)


def run(args: argparse.Namespace) -> int:
    """Print them; 1 when the mount does not answer."""
    if args.watch is not None and not args.watch > 0:  # nan is not, either
        say(f"--watch {args.watch:g}: must be more than 0 seconds")
        return 1
    try:
        root = root_of(args.path)
        before: dict[str, int] = {}
        while True:
            now = ask(root, "stats")
            shown = {name: value - before.get(name, 0) for name, value in now.items() if isinstance(value, int)}
            print(json.dumps(shown) if args.json else _table(shown, args.all), flush=True)
            if not args.watch:
                return 0
            before = now
            time.sleep(args.watch)
            print()
    except LookupError as error:
        say(str(error))
        return 1
