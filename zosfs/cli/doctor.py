"""`zosfs doctor [SOURCE]`: is everything here that a mount needs?"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from zosfs import places
from zosfs.cli.options import add_option_arguments, options_of
from zosfs.config import GIB, Options
from zosfs.config_values import OptionError
from zosfs.mount.daemon import say
from zosfs.source import Source, SourceError, parse_source

if TYPE_CHECKING:
    from zosfs.store.api import Abilities

Finding = tuple[str, bool | None, str]
"""What was looked at, whether it is well (None: missing, and done without), and what to say."""

ABILITIES = (
    ("append", "append uploads", "what is appended travels alone",
     "an append copies the object on the server and sends its end, of objects below 5 MiB all of it"),
    ("put_if_match", "conditional PUT", "the server refuses to overwrite what another host wrote meanwhile",
     "what another host wrote is looked for right before a file is sent; what comes in between is overwritten"),
    ("put_if_none_match", "PUT of new names", "the server refuses a second one of two hosts that make the same name",
     "what another host made is looked for right before a file is sent; what comes in between is overwritten"),
    ("folders", "folders of the server's", "it goes on showing them when they are empty: those of removed directories are deleted",
     "there are none: a directory without an object of its own goes with the last key in it"),
    ("versioned", "versions", "what is overwritten or removed is kept: `zosfs versions`", "what is overwritten or removed is gone"),
)  # fmt: skip
"""What the server can do (fields of `Abilities`), what it is called, and what that means, with and without."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """SOURCE and the options of a connection."""
    parser.add_argument("source", metavar="SOURCE", nargs="?", help="also check this bucket, as `zosfs SOURCE DIR` would")
    parser.add_argument("--json", action="store_true", help="print one JSON list")
    add_option_arguments(parser)


def machine(options: Options) -> Iterator[Finding]:
    """What this machine has."""
    yield "python", sys.version_info >= (3, 11), sys.version.split()[0]
    for name in ("pyfuse3", "trio", "boto3", "cachetools", "diskcache"):
        try:
            yield name, True, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield name, False, "not installed"
    fuse = os.access("/dev/fuse", os.R_OK | os.W_OK)
    yield "/dev/fuse", fuse, "may be opened" if fuse else "missing or not allowed: `modprobe fuse`, `chmod 666 /dev/fuse`"
    tool = shutil.which("fusermount3", path="/usr/bin:/bin")
    yield "fusermount3", bool(tool) or os.geteuid() == 0, tool or "missing: apt-get install fuse3"
    helper = shutil.which("mount.fuse.zosfs", path="/usr/sbin:/sbin")
    yield "mount(8) helper", bool(helper), helper or "`zosfs install` (as root) makes `mount -t fuse.zosfs` and /etc/fstab work"
    directory = places.cache_dir(options.cache_dir)
    there = directory
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        yield f"cache {directory}", False, "cannot be used: cache_dir= names a directory that can be written to"
    elif free <= options.free_space:
        yield f"cache {directory}", False, f"{free / GIB:.1f} GiB free: less than free_space="
    else:
        yield f"cache {directory}", True, f"{free / GIB:.1f} GiB free"


def bucket(source: Source, options: Options) -> Iterator[Finding]:
    """Whether the endpoint lets these credentials at *source*, and what the server can do."""
    import trio

    from zosfs.counters import Counters
    from zosfs.errors import StoreError
    from zosfs.store.connect import check, connect

    async def look() -> list[Finding]:
        account = await connect(options, Counters(), source.bucket)
        try:
            with trio.fail_after(15):
                await check(account, source.bucket, source.prefix)
                able = None if source.account else await account.bucket(source.bucket).probe(source.prefix)
        finally:
            await account.aclose()
        return [(source.text, True, f"answers at {options.url}"), *(() if able is None else abilities(able, options.ro))]

    try:
        yield from trio.run(look)
    except StoreError as error:
        yield source.text, False, str(error)
    except trio.TooSlowError:
        yield source.text, False, f"{options.url} does not answer"


def abilities(able: Abilities, ro: bool) -> Iterator[Finding]:
    """What the server can do, and what zosfs does where it cannot."""
    for field, name, with_it, without in ABILITIES:
        has: bool | None = getattr(able, field)
        unknown = "not asked, for nothing is written with `ro`" if ro else "not found out: the server refused, or was in trouble"
        yield name, has or None, unknown if has is None else with_it if has else without


def run(args: argparse.Namespace) -> int:
    """Print the findings; 1 when one is not well."""
    try:
        source = parse_source(args.source) if args.source else None
        options = options_of(args, source.names if source else ()).options
    except (OptionError, SourceError) as error:
        say(str(error))
        return 1
    findings = list(machine(options))
    if source is not None:
        if options.url:
            findings += bucket(source, options)
        else:
            findings.append((source.text, False, "no endpoint is given: -o url=https://HOST"))
    if args.json:
        print(json.dumps([{"what": name, "well": well, "says": text} for name, well, text in findings], ensure_ascii=False))
        return int(any(well is False for _, well, _ in findings))
    width = max(len(name) for name, _, _ in findings)
    for name, well, text in findings:
        print(f"{'ok ' if well else 'BAD' if well is False else 'no '}  {name:<{width}}  {text}")
    return int(any(well is False for _, well, _ in findings))
