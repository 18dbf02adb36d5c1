"""The workloads: what is prepared, who does it in which settings, and when it counts as delivered.

A workload writes only below `scratch/`, which is emptied before each run; everything else is prepared once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from bench.places import Bucket, Place
from bench.work import MIB, NOISE, Scale, many_keys, scratch_keys, some_keys, tree_keys

_LOG = 32


@dataclass(frozen=True)
class Workload:
    """*name* is the program's in `bench.work`; *tools* the settings of each filesystem that could be the best ones at it.

    *reads* is the set of files that it needs, or "". *delivered* tells from the bucket whether all is in the store. *moved* is how many
    bytes of content go over the wire at least. *twice*: the same program runs before on a mount of its own, and what it left in the tool's
    cache directory is kept. Not *far*: it is measured near the server only.
    """

    name: str
    what: str
    tools: str
    reads: str = ""
    prepare: Callable[[Place, Scale], None] = lambda place, scale: None
    delivered: Callable[[Bucket, Scale], bool] | None = None
    moved: Callable[[Scale], int] = lambda scale: 0
    twice: bool = False
    far: bool = True


def _large(place: Place, scale: Scale) -> None:
    place.put_large("large.bin", scale.large)


def _quarters(place: Place, scale: Scale) -> None:
    for n in range(4):
        place.put_large(f"quarter{n}.bin", scale.quarter)


def _many(place: Place, scale: Scale) -> None:
    place.put_all(many_keys(scale), b"x" * 100)


def _some(place: Place, scale: Scale) -> None:
    place.put_all(some_keys(scale), NOISE[:4096])


def _tree(place: Place, scale: Scale) -> None:
    place.put_all(tree_keys(scale), b"x")


_SETS: Mapping[str, Callable[[Place, Scale], None]] = {
    "large": _large, "quarters": _quarters, "many": _many, "some": _some, "tree": _tree,
}  # fmt: skip


def set_up(place: Place, scale: Scale, workloads: Iterable[Workload]) -> None:
    """What *workloads* read, unless an earlier run left it there."""
    for name in sorted({each.reads for each in workloads if each.reads}):
        if place.size(f"ready/{name}") != scale.large:
            _SETS[name](place, scale)
            place.put(f"ready/{name}", bytes(scale.large))


def to_warm(workloads: Iterable[Workload]) -> list[str]:
    """The keys that are worth reading once before anything is timed."""
    sets = {each.reads for each in workloads}
    return [*(["large.bin"] if "large" in sets else []), *(f"quarter{n}.bin" for n in range(4) if "quarters" in sets)]


def _scratch(place: Place, scale: Scale) -> None:
    # s3fs and rclone want the directory to exist
    place.put("scratch/.keep", b"")


def _scratch_log(place: Place, scale: Scale) -> None:
    place.put("scratch/log", NOISE * _LOG)


def _scratch_large(place: Place, scale: Scale) -> None:
    place.copy("large.bin", "scratch/large.bin")
    if isinstance(place, Bucket):
        _before_edit[place.name] = place.etag("scratch/large.bin")


def _scratch_tree(place: Place, scale: Scale) -> None:
    place.put_all(scratch_keys(scale), b"x" * 1000)


_before_edit: dict[str, str] = {}


def _edited(bucket: Bucket, scale: Scale) -> bool:
    return bucket.size("scratch/large.bin") == scale.large * MIB and bucket.etag("scratch/large.bin") != _before_edit[bucket.name]


def _files(keys: Iterable[str]) -> Iterator[str]:
    return (key for key in keys if not key.endswith(("/", ".keep")))


def _none(bucket: Bucket, prefix: str) -> bool:
    # asked for again and again while the server removes them: a listing of all that is left is work of the size of what is measured
    return next(_files(bucket.keys(prefix, together=10)), None) is None


def _only(bucket: Bucket, prefix: str, count: int) -> bool:
    return sum(1 for _ in _files(bucket.keys(prefix))) == count


WORKLOADS = (
    Workload("first-byte", "first 4 KiB of a file of {large} MiB", "zosfs s3fs rclone rclone-full juicefs", "large"),
    Workload("seq-read", "sequential read of {large} MiB", "zosfs s3fs rclone rclone-full rclone-streams juicefs", "large",
             moved=lambda s: s.large * MIB),
    Workload("par-read", "4 sequential reads of {quarter} MiB at once", "zosfs s3fs rclone rclone-full rclone-streams juicefs", "quarters",
             moved=lambda s: 4 * s.quarter * MIB),
    Workload("rand-read", "{reads} reads of 4 KiB at random places", "zosfs zosfs-random s3fs rclone rclone-full juicefs", "large"),
    Workload("reread", "read of {large} MiB again after a remount", "zosfs rclone-full juicefs", "large", twice=True, far=False),
    Workload("seq-write", "sequential write of {large} MiB", "zosfs s3fs rclone rclone-writes juicefs", "", _scratch,
             lambda b, s: b.size("scratch/written") == s.large * MIB, moved=lambda s: s.large * MIB),
    Workload("ls", "`ls -l` of {many} files", "zosfs zosfs-noposix s3fs rclone rclone-modtime juicefs", "many"),
    Workload("names", "the names of {many} files (`ls`, a shell's `*`)", "zosfs zosfs-noposix s3fs rclone juicefs", "many"),
    Workload("find", "`find -type f` over {files} files in {tree} directories",
             "zosfs zosfs-nospecial zosfs-noposix s3fs rclone juicefs", "tree"),
    Workload("create", "create {created} files of 4 KiB", "zosfs zosfs-writeback s3fs rclone rclone-writes juicefs", "", _scratch,
             lambda b, s: _only(b, "scratch/new", s.created)),
    Workload("read-small", "read {some} files of 4 KiB in listing order", "zosfs zosfs-prefetch s3fs rclone juicefs", "some"),
    Workload("append", "20 times: open a file of 32 MiB, append 100 bytes, close", "zosfs s3fs rclone-writes juicefs", "", _scratch_log,
             lambda b, s: b.size("scratch/log") == _LOG * MIB + 2000, far=False),
    Workload("edit", "overwrite 1 MiB inside {large} MiB", "zosfs s3fs rclone-writes juicefs", "large", _scratch_large, _edited, far=False),
    Workload("rm", "`rm -r` of {some} files", "zosfs zosfs-nospecial zosfs-noposix s3fs rclone juicefs", "", _scratch_tree,
             lambda b, s: _none(b, "scratch/tree/")),
    Workload("rename", "rename a directory of {some} files", "zosfs s3fs rclone juicefs", "", _scratch_tree,
             lambda b, s: _none(b, "scratch/tree/") and _only(b, "scratch/renamed/", s.some)),
)  # fmt: skip
"""In the order in which they run; others than those in *tools* (GeeseFS, goofys, Mountpoint) do each when they are there."""


def describe(workload: Workload, scale: Scale) -> str:
    """What it does, with the numbers of *scale*."""
    return workload.what.format(**vars(scale), quarter=scale.quarter, files=f"{scale.tree * 20:,}")
