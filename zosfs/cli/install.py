"""`zosfs install`: mount(8)'s helpers, the systemd unit and the man page."""

from __future__ import annotations

import argparse
from pathlib import Path

from zosfs.cli.man_page import page
from zosfs.mount.daemon import say
from zosfs.mount.install import install, uninstall


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to, and which interpreter."""
    parser.add_argument("--root", default="/", metavar="DIR", help="install below DIR (for packages and images)")
    parser.add_argument("--interpreter", default="", metavar="FILE", help="the Python that runs zosfs (default: this one)")
    parser.add_argument("--no-service", action="store_true", help="leave the systemd unit out")
    parser.add_argument("--uninstall", action="store_true", help="take away what was installed")


def run(args: argparse.Namespace) -> int:
    """Do it, naming each file; 1 when one cannot be written."""
    root = Path(args.root)
    steps = uninstall(root) if args.uninstall else install(
        root, interpreter=args.interpreter, service=not args.no_service, man_page=page()
    )  # fmt: skip
    try:
        for line in steps:
            print(("removed " if args.uninstall else "") + line)
    except OSError as error:
        say(f"{error.filename}: {error.strerror}")
        return 1
    return 0
