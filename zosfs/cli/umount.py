"""`zosfs umount DIR`: unmount and wait for delivery."""

from __future__ import annotations

import argparse

from zosfs.mount.daemon import say
from zosfs.mount.umount import umount


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """DIR… and how hard to try."""
    parser.add_argument("directories", metavar="DIR", nargs="+", help="mount points")
    parser.add_argument("-l", "--lazy", action="store_true", help="detach it although it is in use; who has files open there keeps them")
    parser.add_argument("-f", "--force", action="store_true", help="abort requests in flight, for a mount that does not answer")
    parser.add_argument("--no-wait", action="store_true", help="do not wait for delivery, which goes on in the background")


def run(args: argparse.Namespace) -> int:
    """Unmount each; the highest status of them: 0, 1 undelivered data is left in the journal, 32 not unmounted."""
    return max(
        umount(directory, lazy=args.lazy, force=args.force, wait=not args.no_wait, say=say) for directory in args.directories
    )
