"""`zosfs SOURCE DIR`: mount a bucket."""

from __future__ import annotations

import argparse

from zosfs.cli.options import add_option_arguments, options_of
from zosfs.config_values import OptionError
from zosfs.mount.daemon import say
from zosfs.mount.refusal import USAGE
from zosfs.mount.start import start
from zosfs.source import SourceError, parse_source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """SOURCE, DIR, -f, -d, and the option table."""
    parser.add_argument("source", metavar="SOURCE", help="BUCKET, BUCKET:/PREFIX, zos://BUCKET/PREFIX, or zos: for all buckets")
    parser.add_argument("directory", metavar="DIR", help="where to mount it")
    parser.add_argument("-f", "--foreground", action="store_true", help="stay in front, log to stderr")
    parser.add_argument("-d", "--debug", action="store_true", help="log everything (as log_level=debug)")
    parser.add_argument("-s", action="store_true", help=argparse.SUPPRESS)  # s3fs lines carry it; nothing to do
    add_option_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Mount; the exit status: 0, 1 for wrong usage, 32 for a mount that failed."""
    try:
        source = parse_source(args.source)
        loaded = options_of(args, source.names, more=[("log_level", "debug")] if args.debug else ())
    except (OptionError, SourceError) as error:
        say(str(error))
        return USAGE
    return start(source, args.directory, loaded.options, foreground=args.foreground)
