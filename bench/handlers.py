"""`python -m bench.handlers --url URL`: microseconds of the daemon's processor time for each request that it answers from memory.

A mount without stored attributes, of a directory whose names are all known, and the system calls that send the kernel's requests one by
one; beside it the filesystem that has everything in memory (`bench.bare`), which no other through pyfuse3 undercuts. `--zosfs DIRECTORY`
measures another checkout. Only root can have the kernel forget names, so that it asks for them again.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench import bare
from bench.places import Bucket
from bench.tools import TOOLS, Installed, Mounted, Target, installed
from bench.work import Scale, many_keys
from bench.workloads import WORKLOADS, set_up

ROUNDS = 5
_AT_FDCWD, _FORCE_SYNC, _BASIC = -100, 0x2000, 0x7FF
_libc = ctypes.CDLL(None, use_errno=True)
_buffer = ctypes.create_string_buffer(256)


def _forget_names() -> None:
    Path("/proc/sys/vm/drop_caches").write_text("2")
    time.sleep(0.5)  # its FORGETs are the daemon's work, too, and not what is measured


def _getattr(path: bytes) -> None:
    # statx(2) with AT_STATX_FORCE_SYNC: whatever the kernel has been told, it asks
    if _libc.statx(_AT_FDCWD, path, _FORCE_SYNC, _BASIC, _buffer):
        raise OSError(ctypes.get_errno(), "statx")


def _open_and_close(path: bytes) -> None:
    os.close(os.open(path, os.O_RDONLY))


KINDS: dict[str, tuple[Callable[[bytes], object], bool, bool]] = {
    "LOOKUP": (os.stat, True, False),
    "GETATTR": (_getattr, False, False),
    "a name of READDIRPLUS": (os.listdir, False, True),
    "OPEN, FLUSH and RELEASE": (_open_and_close, False, False),
}
"""What asks for it, whether the kernel has to forget names before, and whether it is asked of the directory instead of each file."""


def measure(what: Installed, target: Target, scale: Scale) -> dict[str, float]:
    """Microseconds of each kind, the least of ROUNDS."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="zosfs-bench-") as home, Mounted(what, target, Path(home)) as mounted:
        directory = os.fsencode(mounted.path / "many")
        files = [os.fsencode(mounted.path / key) for key in many_keys(scale)]
        for _ in range(ROUNDS):
            for kind, (ask, forgotten, whole) in KINDS.items():
                assert len(os.listdir(directory)) == len(files)
                if forgotten:
                    _forget_names()
                    os.stat(directory)
                before = mounted.cost().cpu
                for path in [directory] if whole else files:
                    ask(path)
                spent = (mounted.cost().cpu - before) / len(files) * 1e6
                found[kind] = min(spent, found.get(kind, spent))
    return found


def _of_checkout(what: Installed, checkout: Path | None) -> Installed:
    if checkout is None:
        return what
    command = what.tool.command

    def mount(program: str, target: Target, point: Path, home: Path) -> tuple[list[str], dict[str, str]]:
        words, more = command(program, target, point, home)
        return ["env", "-C", str(checkout), *words], dict(more)  # what lies there goes before what is installed

    return replace(what, tool=replace(what.tool, command=mount))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.handlers", description=__doc__)
    parser.add_argument("--url", required=True, help="an S3 server (credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)")
    parser.add_argument("--zosfs", type=Path, help="a checkout of zosfs to measure in the place of this one")
    given = parser.parse_args()
    scale = Scale()
    with tempfile.TemporaryDirectory(prefix="zosfs-bench-") as state:
        keys = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
        target = Target(given.url, "zosfs-bench-handlers", *keys, Path(state))
        bucket = Bucket(target.url, target.bucket, target.access_key, target.secret_key)
        bucket.create()
        set_up(bucket, scale, [each for each in WORKLOADS if each.name == "ls"])
        zosfs = measure(_of_checkout(installed({})[TOOLS["zosfs-noposix"].name], given.zosfs), target, scale)
        least = measure(bare.in_memory(scale), target, scale)
    for kind in KINDS:
        print(f"{kind:25} {zosfs[kind]:7.1f} us, with everything in memory {least[kind]:7.1f} us")


if __name__ == "__main__":
    main()
