"""The workloads: what is prepared behind the mount's back, what is timed on it, and when it counts as delivered.

A workload writes only below `scratch/`, which is emptied before each run; everything else in the bucket is prepared once.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIB = 1 << 20
_NOISE = random.Random(0).randbytes(MIB)
_DELIVERED_WITHIN = 600.0


class Bucket:
    """The bucket seen directly, through boto3: for preparing and for checking what has been delivered."""

    def __init__(self, s3: Any, name: str) -> None:
        self.s3, self.name = s3, name

    def put(self, key: str, body: bytes) -> None:
        """Make one object."""
        self.s3.put_object(Bucket=self.name, Key=key, Body=body)

    def put_all(self, keys: Iterable[str], body: bytes) -> None:
        """Make many objects of the same content, several at a time."""
        with ThreadPoolExecutor(8) as pool:
            for _ in pool.map(lambda key: self.put(key, body), keys):
                pass

    def put_large(self, key: str, mebibytes: int) -> None:
        """Make one object of noise by a multipart upload."""
        upload = self.s3.create_multipart_upload(Bucket=self.name, Key=key)["UploadId"]
        parts = []
        for number, start in enumerate(range(0, mebibytes, 64), 1):
            body = _NOISE * min(64, mebibytes - start)
            answer = self.s3.upload_part(Bucket=self.name, Key=key, UploadId=upload, PartNumber=number, Body=body)
            parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        self.s3.complete_multipart_upload(Bucket=self.name, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})

    def copy(self, source: str, key: str) -> None:
        """Copy on the server."""
        self.s3.copy_object(Bucket=self.name, Key=key, CopySource={"Bucket": self.name, "Key": source})

    def keys(self, prefix: str) -> dict[str, int]:
        """Keys below *prefix* with their sizes."""
        found = {}
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix):
            found.update({item["Key"]: item["Size"] for item in page.get("Contents", [])})
        return found

    def clear(self, prefix: str) -> None:
        """Delete all below *prefix*."""
        keys = list(self.keys(prefix))
        for at in range(0, len(keys), 1000):
            objects = [{"Key": key} for key in keys[at : at + 1000]]
            self.s3.delete_objects(Bucket=self.name, Delete={"Objects": objects, "Quiet": True})

    def wait(self, condition: Callable[[], bool]) -> None:
        """Poll until the bucket is as it should be."""
        deadline = time.monotonic() + _DELIVERED_WITHIN
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError("the work was never delivered")
            time.sleep(0.02)

    def size(self, key: str) -> int:
        """The object's size, -1 when it is missing."""
        try:
            return int(self.s3.head_object(Bucket=self.name, Key=key)["ContentLength"])
        except self.s3.exceptions.ClientError:
            return -1

    def etag(self, key: str) -> str:
        """The object's ETag, "" when it is missing."""
        try:
            return str(self.s3.head_object(Bucket=self.name, Key=key)["ETag"])
        except self.s3.exceptions.ClientError:
            return ""


@dataclass(frozen=True)
class Scale:
    """How much work: sizes in MiB, counts of files."""

    large: int = 512
    many: int = 5000
    tree: int = 1000  # directories of 20 files
    some: int = 500
    reads: int = 500

    @classmethod
    def small(cls) -> Scale:
        """A tenth, for trying the runner out."""
        return cls(large=64, many=500, tree=50, some=50, reads=100)


@dataclass(frozen=True)
class Workload:
    """*prepare* is not timed and works on the bucket; *work* is timed on the mount; *delivered* is waited for within the time."""

    name: str
    what: str
    work: Callable[[Path, Scale], None]
    prepare: Callable[[Bucket, Scale], None] = lambda bucket, scale: None
    delivered: Callable[[Bucket, Scale], bool] = lambda bucket, scale: True


def set_up(bucket: Bucket, scale: Scale) -> None:
    """What all workloads read, unless an earlier run left it there."""
    if bucket.size("ready") == scale.large:
        return
    bucket.put_large("large", scale.large)
    for n in range(4):
        bucket.put_large(f"quarter{n}", max(scale.large // 4, 5))
    bucket.put_all((f"many/file{n:05}" for n in range(scale.many)), b"x" * 100)
    bucket.put_all((f"some/file{n:05}" for n in range(scale.some)), _NOISE[:4096])
    bucket.put_all((f"tree/a{d % 10}/dir{d:04}/file{n:02}" for d in range(scale.tree) for n in range(20)), b"x")
    bucket.put("ready", bytes(scale.large))


def _read(path: Path) -> int:
    total = 0
    piece = bytearray(MIB)
    with path.open("rb", buffering=0) as f:
        while n := f.readinto(piece):
            total += n
    return total


def _sequential_read(root: Path, scale: Scale) -> None:
    assert _read(root / "large") == scale.large * MIB


def _parallel_reads(root: Path, scale: Scale) -> None:
    with ThreadPoolExecutor(4) as pool:
        sizes = list(pool.map(lambda n: _read(root / f"quarter{n}"), range(4)))
    assert sizes == [max(scale.large // 4, 5) * MIB] * 4


def _first_byte(root: Path, scale: Scale) -> None:
    fd = os.open(root / "large", os.O_RDONLY)
    assert os.pread(fd, 4096, 0) == _NOISE[:4096]
    os.close(fd)


def _random_reads(root: Path, scale: Scale) -> None:
    rng = random.Random(2)
    fd = os.open(root / "large", os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    for _ in range(scale.reads):
        at = rng.randrange(scale.large * MIB // 4096) * 4096
        assert os.pread(fd, 4096, at) == _NOISE[at % MIB : at % MIB + 4096]
    os.close(fd)


def _sequential_write(root: Path, scale: Scale) -> None:
    with (root / "scratch" / "written").open("wb", buffering=0) as f:
        for _ in range(scale.large):
            f.write(_NOISE)


def _list_long(root: Path, scale: Scale) -> None:
    out = subprocess.run(["ls", "-l", root / "many"], capture_output=True, check=True).stdout
    assert out.count(b"\n") == scale.many + 1


def _find(root: Path, scale: Scale) -> None:
    out = subprocess.run(["find", root / "tree", "-type", "f"], capture_output=True, check=True).stdout
    assert out.count(b"\n") == scale.tree * 20


def _create_small(root: Path, scale: Scale) -> None:
    for n in range(scale.some):
        (root / "scratch" / f"new{n:05}").write_bytes(_NOISE[:4096])


def _read_small(root: Path, scale: Scale) -> None:
    for name in sorted(os.listdir(root / "some")):
        assert len((root / "some" / name).read_bytes()) == 4096


def _append(root: Path, scale: Scale) -> None:
    for n in range(20):
        with (root / "scratch" / "log").open("ab") as f:
            f.write(b"%04d" % n * 25)


def _edit(root: Path, scale: Scale) -> None:
    with (root / "scratch" / "large").open("r+b", buffering=0) as f:
        f.seek(scale.large * MIB // 3)
        f.write(bytes(MIB))


def _remove(root: Path, scale: Scale) -> None:
    shutil.rmtree(root / "scratch" / "tree")


def _rename(root: Path, scale: Scale) -> None:
    os.rename(root / "scratch" / "tree", root / "scratch" / "renamed")


def _scratch(bucket: Bucket, scale: Scale) -> None:
    # s3fs and rclone want the directory to exist
    bucket.put("scratch/.keep", b"")


def _scratch_log(bucket: Bucket, scale: Scale) -> None:
    bucket.put("scratch/log", _NOISE * 32)


def _scratch_large(bucket: Bucket, scale: Scale) -> None:
    bucket.copy("large", "scratch/large")
    _edit_base[bucket.name] = bucket.etag("scratch/large")


def _scratch_tree(bucket: Bucket, scale: Scale) -> None:
    bucket.put_all((f"scratch/tree/d{n % 5}/file{n:05}" for n in range(scale.some)), b"x" * 1000)


_edit_base: dict[str, str] = {}


def _only(bucket: Bucket, prefix: str, count: int) -> bool:
    return sum(1 for key in bucket.keys(prefix) if not key.endswith(("/", ".keep"))) == count


WORKLOADS = (
    Workload("first-byte", "first 4 KiB of a large file", _first_byte),
    Workload("seq-read", "read a large file from the beginning to the end", _sequential_read),
    Workload("par-read", "read 4 files at once", _parallel_reads),
    Workload("rand-read", "4 KiB reads at random places", _random_reads),
    Workload("seq-write", "write a large file, until it is in the store", _sequential_write, _scratch,
             lambda b, s: b.size("scratch/written") == s.large * MIB),
    Workload("ls", "ls -l of a directory", _list_long),
    Workload("find", "find over a tree", _find),
    Workload("create", "create small files", _create_small, _scratch, lambda b, s: _only(b, "scratch/new", s.some)),
    Workload("read-small", "read small files in listing order", _read_small),
    Workload("append", "20 times: open a file of 32 MiB, append 100 bytes, close", _append, _scratch_log,
             lambda b, s: b.size("scratch/log") == 32 * MIB + 2000),
    Workload("edit", "overwrite 1 MiB inside a large file", _edit, _scratch_large,
             lambda b, s: b.etag("scratch/large") != _edit_base[b.name] and b.size("scratch/large") == s.large * MIB),
    Workload("rm", "rm -r of a tree", _remove, _scratch_tree, lambda b, s: _only(b, "scratch/tree/", 0)),
    Workload("rename", "rename a directory", _rename, _scratch_tree,
             lambda b, s: _only(b, "scratch/tree/", 0) and _only(b, "scratch/renamed/", s.some)),
)  # fmt: skip
"""In the order in which they run."""
