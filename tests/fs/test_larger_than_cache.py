"""Files larger than the local disk may hold, and what a new large file costs."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from tests.fs.mounting import Mount, wait_for
from tests.fs.running import noise, refused
from tests.proxy import Proxy

MIB = 1 << 20
Mounting = Callable[..., Mount]

pytestmark = pytest.mark.long_on("weed")


def pieces_of(s3: Any, bucket: str, key: str) -> list[bytes]:
    """The object's bytes, a MiB at a time."""
    body = s3.get_object(Bucket=bucket, Key=key)["Body"]
    return list(iter(lambda: body.read(MIB), b""))


def exists(s3: Any, bucket: str, key: str) -> bool:
    """Whether there is such an object."""
    return any(item["Key"] == key for item in s3.list_objects_v2(Bucket=bucket, Prefix=key).get("Contents", []))


def write_large(path: Path, mebibytes: int) -> None:
    with path.open("wb", buffering=0) as f:
        for n in range(mebibytes):
            assert f.write(noise(MIB, n % 7)) == MIB


def test_a_file_written_from_its_beginning_needs_only_a_part_of_the_disk(mount: Mounting, bucket: str, s3: Any) -> None:
    living = mount(cache_size="32M", part_size="5M", multipart_threshold="8M")
    write_large(living.path / "f", 70)
    assert pieces_of(s3, bucket, "f") == [noise(MIB, n % 7) for n in range(70)]
    staged = sum(file.stat().st_blocks * 512 for file in living.cache_dir.rglob("*") if file.is_file())
    assert staged <= 40 * MIB
    with (living.path / "f").open("rb") as f:
        assert f.read(MIB) == noise(MIB)


def test_what_left_the_disk_can_be_read_and_written_before_the_file_is_whole(mount: Mounting, bucket: str, s3: Any) -> None:
    living = mount(cache_size="32M", part_size="5M", multipart_threshold="8M")
    expected = [noise(MIB, n % 7) for n in range(72)]
    with (living.path / "f").open("w+b", buffering=0) as f:
        for piece in expected[:70]:
            f.write(piece)
        assert os.pread(f.fileno(), MIB, 2 * MIB) == expected[2]
        for n in (70, 71):
            os.pwrite(f.fileno(), expected[n], n * MIB)
        expected[3] = noise(MIB, 9)
        os.pwrite(f.fileno(), expected[3], 3 * MIB)
    assert pieces_of(s3, bucket, "f") == expected


def test_a_full_disk_does_not_stop_a_file_written_from_its_beginning(
    mount: Mounting, bucket: str, s3: Any, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m,mode=700", "tmpfs", str(disk)], check=True)
    try:
        living = mount(cache_dir=disk, cache_size="1G", free_space=0, part_size="5M", multipart_threshold="8M")
        write_large(living.path / "f", 80)
        assert pieces_of(s3, bucket, "f") == [noise(MIB, n % 7) for n in range(80)]
        living.finish()
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_changes_here_and_there_need_only_a_part_of_the_disk(mount: Mounting, bucket: str, s3: Any) -> None:
    old = [noise(MIB, n % 7) for n in range(60)]
    s3.put_object(Bucket=bucket, Key="f", Body=b"".join(old))
    living = mount(cache_size="16M", part_size="5M", multipart_threshold="8M", memory="64M")
    expected = list(old)
    with (living.path / "f").open("r+b", buffering=0) as f:
        for n in (1, 3, 4, 12, 13, 17, 22, 24, 28, 31, 33, 37, 41, 44, 48, 52, 55, 59, 62):
            expected += [bytes(MIB)] * (n + 1 - len(expected))
            expected[n] = noise(MIB, 9 + n)
            assert os.pwrite(f.fileno(), expected[n], n * MIB) == MIB
        assert pieces_of(s3, bucket, "f") == old, "nothing is visible before the close"
        staged = sum(file.stat().st_blocks * 512 for file in living.cache_dir.rglob("*") if file.is_file())
        assert staged <= 24 * MIB
        os.fchmod(f.fileno(), 0o640)
    assert pieces_of(s3, bucket, "f") == expected
    assert s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []
    living.again()
    assert os.stat(living.path / "f").st_mode & 0o777 == 0o640
    with (living.path / "f").open("rb") as f:
        assert [f.read(MIB) for _ in expected] == expected


def test_unlinked_while_it_is_written(mount: Mounting, bucket: str, s3: Any) -> None:
    living = mount(cache_size="32M", part_size="5M", multipart_threshold="8M")
    with (living.path / "f").open("w+b", buffering=0) as f:
        for n in range(60):
            f.write(noise(MIB, n % 7))
        (living.path / "f").unlink()
        for n in (0, 30, 59):
            assert os.pread(f.fileno(), MIB, n * MIB) == noise(MIB, n % 7)
    refused(errno.ENOENT, os.stat, living.path / "f")
    # the kernel tells of the last close a moment after close(2) returned
    wait_for(lambda: s3.list_objects_v2(Bucket=bucket).get("KeyCount", 0) == 0, 10, "the end of the unlinked file's object")


def test_changed_after_it_was_unlinked(mount: Mounting, bucket: str, s3: Any) -> None:
    old = [noise(MIB, n % 7) for n in range(60)]
    s3.put_object(Bucket=bucket, Key="f", Body=b"".join(old))
    patched = "import zosfs.content.disk_budget; zosfs.content.disk_budget.PATIENCE = 0.5"
    living = mount(cache_size="16M", part_size="5M", multipart_threshold="8M", memory="64M", patched=patched)
    with (living.path / "f").open("r+b", buffering=0) as f:
        (living.path / "f").unlink()
        written = 0
        with contextlib.suppress(OSError):  # nothing of it may go up, and the disk takes 16 MiB
            for n in range(1, 60, 2):
                os.pwrite(f.fileno(), noise(MIB, 9 + n), n * MIB)
                written = n
        assert written >= 9
        for n in range(1, written + 1, 2):
            assert os.pread(f.fileno(), MIB, n * MIB) == noise(MIB, 9 + n)
    # the kernel tells of the last close a moment after close(2) returned
    wait_for(lambda: s3.list_objects_v2(Bucket=bucket).get("KeyCount", 0) == 0, 10, "the end of the unlinked file's object")


def test_a_new_large_file_costs_its_parts_and_no_copy(mount: Mounting, bucket: str, s3: Any) -> None:
    living = mount()
    os.listdir(living.path)
    with living.requests() as spent:
        write_large(living.path / "f", 64)
    spent.pop("head", None)  # that nobody else made it meanwhile
    assert spent == {"create_upload": 1, "upload_part": 4, "complete_upload": 1}
    shown = os.stat(living.path / "f")
    living.again()
    later = os.stat(living.path / "f")
    assert (later.st_mtime_ns, later.st_ctime_ns, later.st_atime_ns) == (shown.st_mtime_ns, shown.st_ctime_ns, shown.st_atime_ns)
    with living.requests() as spent:
        os.utime(living.path / "f", ns=(1_000_000_007, 2_000_000_009))
    assert spent["copy"] == 1
    living.again()
    assert os.stat(living.path / "f").st_mtime_ns == 2_000_000_009


def test_times_set_before_the_close_are_kept(mount: Mounting, bucket: str) -> None:
    living = mount(part_size="5M", multipart_threshold="8M")
    with (living.path / "f").open("wb", buffering=0) as f:
        for n in range(20):
            f.write(noise(MIB, n % 7))
        os.utime(f.fileno(), ns=(1_000_000_007, 2_000_000_009))
    living.again()
    assert os.stat(living.path / "f").st_mtime_ns == 2_000_000_009


def test_a_file_that_goes_up_because_the_disk_is_short_is_removed_for_good(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any
) -> None:  # fmt: skip
    """The removal comes after what is on its way."""
    living = mount(url=proxy.url, writeback="1h", cache_size="24M", part_size="5M")
    (living.path / "d").mkdir()
    path = living.path / "d/f"
    write_large(path, 10)
    assert not exists(s3, bucket, "d/f")
    with path.open("rb", buffering=0) as file:
        proxy.hold = lambda target: 0 if target.startswith(f"/{bucket}/d/f") else None
        with ThreadPoolExecutor(2) as pool:
            filling = pool.submit(write_large, living.path / "other", 20)
            wait_for(lambda: exists(s3, bucket, "d/f"), 60, "the first file to go up before its time")
            removing = pool.submit(os.unlink, path)
            wait([removing], timeout=2)  # the fault is one that does not wait for the answer
            proxy.hold = lambda target: None
            removing.result()
            filling.result()
        assert file.read(MIB) == noise(MIB)
    assert os.listdir(living.path / "d") == []
    living.again()
    assert os.listdir(living.path / "d") == []
    assert not exists(s3, bucket, "d/f")


def test_a_promised_file_of_which_the_disk_has_no_room_for_a_copy_is_delivered_before_it_changes(
    mount: Mounting, bucket: str, s3: Any
) -> None:  # fmt: skip
    living = mount(writeback="1h", cache_size="16M")
    write_large(living.path / "f", 10)
    with (living.path / "f").open("r+b", buffering=0) as file:
        file.write(b"new")
        assert pieces_of(s3, bucket, "f") == [noise(MIB, n % 7) for n in range(10)]
    living.again()
    assert pieces_of(s3, bucket, "f") == [b"new" + noise(MIB, 0)[3:], *(noise(MIB, n % 7) for n in range(1, 10))]
