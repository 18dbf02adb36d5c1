"""The timed programs: each does its work on a mounted directory and nothing else. `python -m bench.work NAME DIRECTORY SCALE`.

They run in a process of their own, so that one that hangs can be ended, and what the measuring itself does is not in their way.
Prints when the work began and ended, in seconds of the monotonic clock, as JSON.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
NOISE = random.Random(0).randbytes(MIB)
"""What large files repeat and small ones begin with."""


@dataclass(frozen=True)
class Scale:
    """How much work: *large* in MiB, the others are counts of files, directories (of 20 files) or reads."""

    large: int = 1024
    many: int = 5000
    tree: int = 1000
    some: int = 500
    reads: int = 500
    created: int = 2000

    @property
    def quarter(self) -> int:
        """MiB of each file that is read beside three others."""
        return max(self.large // 4, 5)


def many_keys(scale: Scale) -> list[str]:
    """The files of one large directory."""
    return [f"many/file{n:05}" for n in range(scale.many)]


def some_keys(scale: Scale) -> list[str]:
    """The files of 4 KiB that are read one after the other."""
    return [f"some/file{n:05}" for n in range(scale.some)]


def tree_keys(scale: Scale) -> list[str]:
    """The files of the tree that is walked."""
    return [f"tree/a{d % 10}/dir{d:04}/file{n:02}" for d in range(scale.tree) for n in range(20)]


def scratch_keys(scale: Scale) -> list[str]:
    """The files of the tree that is removed, and of the one that is renamed."""
    return [f"scratch/tree/d{n % 5}/file{n:05}" for n in range(scale.some)]


def random_places(scale: Scale) -> list[int]:
    """Where the large file is read at random: the same offsets each time."""
    rng = random.Random(2)
    return [rng.randrange(scale.large * MIB // 4096) * 4096 for _ in range(scale.reads)]


SMALL = Scale(large=64, many=500, tree=50, some=50, reads=50, created=50)
"""For trying things out."""


def _read(path: Path) -> int:
    total = 0
    piece = bytearray(MIB)
    with path.open("rb", buffering=0) as f:
        while n := f.readinto(piece):
            total += n
    return total


def _sequential_read(root: Path, scale: Scale) -> None:
    assert _read(root / "large.bin") == scale.large * MIB


def _parallel_reads(root: Path, scale: Scale) -> None:
    with ThreadPoolExecutor(4) as pool:
        sizes = list(pool.map(lambda n: _read(root / f"quarter{n}.bin"), range(4)))
    assert sizes == [scale.quarter * MIB] * 4


def _first_byte(root: Path, scale: Scale) -> None:
    fd = os.open(root / "large.bin", os.O_RDONLY)
    assert os.pread(fd, 4096, 0) == NOISE[:4096]
    os.close(fd)


def _random_reads(root: Path, scale: Scale) -> None:
    fd = os.open(root / "large.bin", os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    for at in random_places(scale):
        assert os.pread(fd, 4096, at) == NOISE[at % MIB : at % MIB + 4096]
    os.close(fd)


def _sequential_write(root: Path, scale: Scale) -> None:
    with (root / "scratch" / "written").open("wb", buffering=0) as f:
        for _ in range(scale.large):
            f.write(NOISE)


def _list_long(root: Path, scale: Scale) -> None:
    out = subprocess.run(["ls", "-l", root / "many"], capture_output=True, check=True).stdout
    assert out.count(b"\n") == scale.many + 1


def _names(root: Path, scale: Scale) -> None:
    assert len(os.listdir(root / "many")) == scale.many


def _find(root: Path, scale: Scale) -> None:
    out = subprocess.run(["find", root / "tree", "-type", "f"], capture_output=True, check=True).stdout
    assert out.count(b"\n") == scale.tree * 20


def _create_small(root: Path, scale: Scale) -> None:
    for n in range(scale.created):
        (root / "scratch" / f"new{n:05}").write_bytes(NOISE[:4096])


def _read_small(root: Path, scale: Scale) -> None:
    for name in sorted(os.listdir(root / "some")):
        assert len((root / "some" / name).read_bytes()) == 4096


def _append(root: Path, scale: Scale) -> None:
    for n in range(20):
        with (root / "scratch" / "log").open("ab") as f:
            f.write(b"%04d" % n * 25)


def _edit(root: Path, scale: Scale) -> None:
    with (root / "scratch" / "large.bin").open("r+b", buffering=0) as f:
        f.seek(scale.large * MIB // 3)
        f.write(bytes(MIB))


def _remove(root: Path, scale: Scale) -> None:
    shutil.rmtree(root / "scratch" / "tree")


def _rename(root: Path, scale: Scale) -> None:
    os.rename(root / "scratch" / "tree", root / "scratch" / "renamed")


PROGRAMS: Mapping[str, Callable[[Path, Scale], None]] = {
    "first-byte": _first_byte, "seq-read": _sequential_read, "par-read": _parallel_reads, "rand-read": _random_reads,
    "reread": _sequential_read, "seq-write": _sequential_write, "ls": _list_long, "names": _names, "find": _find, "create": _create_small,
    "read-small": _read_small, "append": _append, "edit": _edit, "rm": _remove, "rename": _rename,
}  # fmt: skip
"""By the workload's name."""


def main() -> None:
    """Run one from the command line."""
    name, root, scale = sys.argv[1], Path(sys.argv[2]), Scale(**json.loads(sys.argv[3]))
    start = time.monotonic()
    PROGRAMS[name](root, scale)
    print(json.dumps([start, time.monotonic()]))


if __name__ == "__main__":
    main()
