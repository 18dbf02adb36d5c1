"""`zosfs demo DIR`: a real S3 server, a bucket with sample files and a mount, for trying out; Ctrl-C undoes all."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """DIR, and whether to take the tour."""
    parser.add_argument("directory", metavar="DIR", help="where to mount the sample bucket (made if missing)")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--tour", action="store_true", help="run the scripted tour and exit by its result")
    choice.add_argument("--stay", action="store_true", help="stay until Ctrl-C (the default on a terminal)")


def run(args: argparse.Namespace) -> int:
    """Run it; 0 when all went well."""
    from zosfs.demo.show import show

    on_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    with_tour = args.tour or not (args.stay or on_terminal)
    return show(Path(args.directory), with_tour=with_tour, say=lambda text: print(text, flush=True))
