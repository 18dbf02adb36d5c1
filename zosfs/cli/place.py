"""What a command's words name: an object or directory of a bucket, by a path on a mount or as `zos://bucket/key`.

Owns: finding bucket and key from a mount (attribute user.zos.uri) with that mount's connection options (the runtime registry), and
running a command's work on an account. Failures are one line and exit status 1.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import stat
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from zosfs.cli.ask import whereabouts
from zosfs.cli.options import add_option_arguments, options_of
from zosfs.config import Options
from zosfs.config_sources import Pair
from zosfs.config_values import NAMES, OptionError, show
from zosfs.mount import registry
from zosfs.mount.daemon import say
from zosfs.mount.refusal import line_of
from zosfs.tree.names import name_to_part

CONNECTION = ("connection",)
WIDEST = 10_000
"""Columns of a table on a terminal, which wraps what is wider than itself."""
KERNEL_PATIENCE = 2.0
"""Seconds in which the kernel forgets that a name was missing."""


@dataclass(frozen=True, slots=True)
class Place:
    """A bucket ("": the account) and a key in it ("": the bucket itself; with a trailing "/": a directory)."""

    bucket: str
    key: str
    pairs: tuple[Pair, ...] = ()

    def __str__(self) -> str:
        return f"zos://{self.bucket}/{self.key}" if self.bucket else "zos://"


def add_connection(parser: argparse.ArgumentParser) -> None:
    """The options of a connection; a path on a mount brings its own."""
    add_option_arguments(parser, CONNECTION)


def find(text: str) -> Place:
    """The place of a `zos://` address (also `s3://`) or of a path on a mount, whether or not the file exists. Raises LookupError."""
    for scheme in ("zos://", "s3://"):
        if text.startswith(scheme):
            bucket, _, key = text.removeprefix(scheme).partition("/")
            return Place(bucket, key)
    root, path = whereabouts(text)
    missing: list[str] = []
    if _has_no_attributes(path):
        missing.append(os.path.basename(path))
        path = os.path.dirname(path)
    while True:
        try:
            uri = os.getxattr(path, "user.zos.uri", follow_symlinks=False).decode("utf-8", "surrogateescape")
            break
        except OSError as error:
            if path == root or not isinstance(error, FileNotFoundError):
                raise LookupError(f"{text}: {error.strerror}") from None
            missing.append(os.path.basename(path))
            path = os.path.dirname(path)
    place = find(uri)
    key = place.key
    if missing:
        below = "/".join(name_to_part(os.fsencode(name)) for name in reversed(missing))
        key += below if not key or key.endswith("/") else f"/{below}"
    if text.endswith("/") and key and not key.endswith("/"):
        key += "/"
    return Place(place.bucket, key, _pairs_of(root))


def _has_no_attributes(path: str) -> bool:
    """Whether *path* is a link, a pipe or the like: of those the kernel knows no user attributes."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _pairs_of(root: str) -> tuple[Pair, ...]:
    entries = registry.find(root)
    options = entries[0].options if entries else {}
    return tuple(
        (name, show(NAMES[name], value)) for name, value in options.items()
        if name in NAMES and NAMES[name].metadata["group"] == "connection"
    )  # fmt: skip


def options_at(args: argparse.Namespace, place: Place, hint: str = "") -> Options:
    """The connection options for *place*: those given win over those of the mount. Raises OptionError without an endpoint, with *hint* at
    its end."""
    options = options_of(args, (place.bucket,) if place.bucket else (), more=place.pairs).options
    if not options.url:
        raise OptionError(f"no endpoint is given: --url=https://HOST, or a path on a mount{hint}")
    return options


def connected(*places: Place) -> list[Place]:
    """*places* of one line, the addresses among them with the connection of the first that lies on a mount."""
    pairs = next((place.pairs for place in places if place.pairs), ())
    return [replace(place, pairs=place.pairs or pairs) for place in places]


def work(args: argparse.Namespace, place: Place, job: Callable[[Any], Awaitable[int]], hint: str = "") -> int:
    """Run ``job(account)`` on the account of *place* and return its exit status; errors are one line and status 1. *hint* as in
    `options_at`."""
    import trio

    from zosfs.counters import Counters
    from zosfs.store.connect import connect

    async def main() -> int:
        account = await connect(options_at(args, place, hint), Counters(), place.bucket)
        try:
            return await job(account)
        finally:
            await account.aclose()

    try:
        return trio.run(main)
    except BrokenPipeError:
        raise  # whoever reads our words has read enough
    except OptionError as error:
        say(str(error))
    except OSError as error:
        say(line_of(error)[0])
    return 1


def located(text: str) -> Place | None:
    """As `find`, but a failure is said and gives None."""
    try:
        return find(text)
    except LookupError as error:
        say(str(error))
        return None


def settle(*paths: str) -> None:
    """What was written to or deleted from *paths* on a mount is so in the store afterwards, for what the server is asked to do with it.
    Addresses and paths that cannot be opened are passed over. Raises OSError when the store does not take it."""
    for path in paths:
        if "://" in path:
            continue
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe waits for nobody to write
        except OSError:
            continue
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a pipe has nothing to deliver
                raise OSError(error.errno, f"what was written is not delivered: {error.strerror}", path) from None
        finally:
            os.close(handle)


def look_again(path: str, within: Sequence[str] = (), *, made: bool = False) -> None:
    """Let the mount look again at *path*, or at the names *within* the directory *path*, which the server changed. Nothing for an address.

    *made*: they are there now, and the kernel, which learns it a moment later, is waited for.
    """
    if "://" in path:
        return
    path = os.path.abspath(path)
    changed = [os.path.join(path, name) for name in within] or [path]
    for one in changed:
        try:
            os.setxattr(os.path.dirname(one), "user.zos.refresh", os.fsencode(os.path.basename(one)))
        except OSError:
            pass  # it shows when metadata_ttl has passed
    deadline = time.monotonic() + KERNEL_PATIENCE
    while made and not all(map(os.path.lexists, changed)) and time.monotonic() < deadline:
        time.sleep(0.01)


def show_rows(rows: Sequence[dict[str, Any]], columns: Sequence[str], as_json: bool) -> None:
    """Print *rows* as JSON, or as a table of *columns* (plain text, tab-separated, where stdout is no terminal)."""
    if as_json:
        print(json.dumps(list(rows), default=str, ensure_ascii=False, indent=1))
    elif not sys.stdout.isatty():
        for row in rows:
            print("\t".join(str(row.get(column, "")) for column in columns))
    else:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*columns, box=None)
        for row in rows:
            table.add_row(*(Text(str(row.get(column, ""))) for column in columns))
        # as wide as it takes: an id that was cut could not be typed again (without a height, the width is ignored on some terminals)
        Console(width=WIDEST, height=1).print(table, soft_wrap=True)
