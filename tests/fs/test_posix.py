"""Calls, one by one: what POSIX promises of open, read, write, rename, unlink, links, attributes, and their errors."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.fs.mounting import Mount, wait_for
from tests.fs.running import join, noise, python, refused, run

AT_FDCWD, RENAME_NOREPLACE, RENAME_EXCHANGE = -100, 1, 2
_libc = ctypes.CDLL(None, use_errno=True)


def renameat2(old: Path, new: Path, flags: int) -> None:
    """rename with flags; OSError with the errno."""
    if _libc.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@pytest.mark.long_on("weed")
def test_open_flags(place: Path) -> None:
    path = place / "f"
    refused(errno.ENOENT, os.open, path, os.O_RDONLY)
    refused(errno.ENOENT, os.open, path, os.O_WRONLY | os.O_TRUNC)
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640)
    assert os.write(fd, b"0123456789") == 10
    refused(errno.EBADF, os.read, fd, 1)
    os.close(fd)
    refused(errno.EEXIST, os.open, path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    fd = os.open(path, os.O_RDONLY)
    refused(errno.EBADF, os.write, fd, b"x")
    os.close(fd)
    fd = os.open(path, os.O_RDWR)
    assert os.pread(fd, 4, 3) == b"3456"
    os.pwrite(fd, b"ab", 4)
    assert os.pread(fd, 100, 0) == b"0123ab6789"
    os.close(fd)
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(fd, b"end")
    os.close(fd)
    assert path.read_bytes() == b"0123ab6789end"
    fd = os.open(path, os.O_RDWR | os.O_TRUNC)
    assert os.fstat(fd).st_size == 0
    os.write(fd, b"new")
    os.close(fd)
    assert path.read_bytes() == b"new"
    refused(errno.ENOTDIR, os.open, path, os.O_RDONLY | os.O_DIRECTORY)
    refused(errno.EISDIR, os.open, place, os.O_WRONLY)
    (place / "link").symlink_to("f")
    refused(errno.ELOOP, os.open, place / "link", os.O_RDONLY | os.O_NOFOLLOW)
    fd = os.open(path, os.O_WRONLY | os.O_SYNC)
    os.write(fd, b"N")
    os.close(fd)
    assert path.read_bytes() == b"New"


def test_read_and_write_at_any_offset(place: Path) -> None:
    import random

    rng = random.Random(7)
    model = bytearray()
    with (place / "f").open("w+b", buffering=0) as f:
        for _ in range(150):
            at, data = rng.randrange(600_000), rng.randbytes(rng.choice((1, 100, 4096, 70_000)))
            if rng.random() < 0.6:
                f.seek(at)
                f.write(data)
                model.extend(bytes(max(0, at - len(model))))
                model[at : at + len(data)] = data
            elif rng.random() < 0.2:
                f.truncate(at)
                model = model[:at] + bytes(max(0, at - len(model)))
            else:
                assert os.pread(f.fileno(), len(data), at) == bytes(model[at : at + len(data)])
    assert (place / "f").read_bytes() == model


def test_truncate(place: Path) -> None:
    path = place / "f"
    path.write_bytes(b"0123456789")
    os.truncate(path, 4)
    assert path.read_bytes() == b"0123"
    os.truncate(path, 8)
    assert path.read_bytes() == b"0123\0\0\0\0"
    with path.open("r+b") as f:
        f.truncate(2)
        assert os.fstat(f.fileno()).st_size == path.stat().st_size == 2
        f.seek(5)
        f.write(b"x")
    assert path.read_bytes() == b"01\0\0\0x"
    os.truncate(path, 0)
    assert path.read_bytes() == b""


def test_more_than_an_object_can_have_is_refused_at_once(place: Path) -> None:
    path = place / "f"
    path.write_bytes(b"0123456789")
    with path.open("r+b", buffering=0) as f:
        for size in (10_000 * 5 * 2**30 + 1, 2**63 - 1):
            refused(errno.EFBIG, os.truncate, path, size)
            refused(errno.EFBIG, os.ftruncate, f.fileno(), size)
            refused(errno.EFBIG, os.pwrite, f.fileno(), b"x", size - 1)
        assert os.pwrite(f.fileno(), b"A", 0) == 1
    assert path.read_bytes() == b"A123456789"


def test_the_log_names_the_file_of_what_failed(place: Path, shared: Mount) -> None:
    path, before = place / "f", shared.log_size()
    path.touch()
    refused(errno.EFBIG, os.truncate, path, 2**63 - 1)
    with path.open("r+b", buffering=0) as f:
        refused(errno.EFBIG, os.pwrite, f.fileno(), b"x", 2**63 - 2)
    lines = [f"{request} {place.name}/f: [Errno {errno.EFBIG}]" for request in ("setattr", "write")]
    wait_for(lambda: all(line in shared.log(before) for line in lines), 10, f"in the log: {lines}")


def test_a_descriptor_for_reading_truncates_if_asked_to(place: Path) -> None:
    path = place / "f"
    path.write_bytes(b"0123456789")
    fd = os.open(path, os.O_RDONLY | os.O_TRUNC)
    assert os.read(fd, 10) == b""
    assert os.fstat(fd).st_size == path.stat().st_size == 0
    os.close(fd)
    assert path.read_bytes() == b""


def test_append_after_truncate(place: Path) -> None:
    path = place / "f"
    path.write_bytes(b"0123456789")
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.ftruncate(fd, 3)
    os.write(fd, b"abc")
    os.truncate(path, 1)
    os.write(fd, b"Z")
    os.lseek(fd, 0, os.SEEK_SET)
    os.write(fd, b"!")
    os.close(fd)
    assert path.read_bytes() == b"0Z!"
    with path.open("ab") as f:
        f.write(b"more")
    assert path.read_bytes() == b"0Z!more"


def test_sparse_files(place: Path) -> None:
    path = place / "sparse"
    with path.open("wb") as f:
        f.seek(20_000_000)
        f.write(b"end")
        f.seek(5_000_000)
        f.write(b"middle")
    assert path.stat().st_size == 20_000_003
    data = path.read_bytes()
    assert data[5_000_000:5_000_006] == b"middle"
    assert data.strip(b"\0") == b"middle" + bytes(20_000_000 - 5_000_006) + b"end"
    with (place / "hole").open("wb") as f:
        f.truncate(3_000_000)
    assert (place / "hole").read_bytes() == bytes(3_000_000)


def test_empty_files(place: Path, shared: Mount, shared_bucket: str, s3: Any) -> None:
    (place / "empty").touch()
    assert (place / "empty").read_bytes() == b""
    assert s3.head_object(Bucket=shared_bucket, Key=f"{place.name}/empty")["ContentLength"] == 0
    os.mknod(place / "made", 0o600 | stat.S_IFREG)
    assert (place / "made").stat().st_size == 0
    (place / "made").write_text("x")
    os.truncate(place / "made", 0)
    assert s3.head_object(Bucket=shared_bucket, Key=f"{place.name}/made")["ContentLength"] == 0


def test_rename(place: Path) -> None:
    a, b = place / "a", place / "b"
    a.write_text("a")
    b.write_text("b")
    refused(errno.EEXIST, renameat2, a, b, RENAME_NOREPLACE)
    renameat2(a, place / "c", RENAME_NOREPLACE)
    assert (place / "c").read_text() == "a"
    os.rename(place / "c", b)
    assert b.read_text() == "a"
    assert os.listdir(place) == ["b"]
    refused(errno.ENOENT, os.rename, a, b)
    (place / "d").mkdir()
    (place / "d" / "x").write_text("x")
    (place / "e").mkdir()
    refused(errno.EISDIR, os.rename, b, place / "d")
    refused(errno.ENOTDIR, os.rename, place / "d", b)
    refused(errno.ENOTEMPTY, os.rename, place / "e", place / "d")
    refused(errno.EINVAL, os.rename, place / "d", place / "d" / "below")
    os.rename(place / "d", place / "e")
    assert (place / "e" / "x").read_text() == "x"
    assert sorted(os.listdir(place)) == ["b", "e"]
    os.rename(b, b)
    assert b.read_text() == "a"


def test_rename_of_an_open_file(place: Path) -> None:
    with (place / "a").open("w+b") as f:
        f.write(b"before ")
        f.flush()
        os.rename(place / "a", place / "b")
        f.write(b"after")
    assert (place / "b").read_bytes() == b"before after"
    assert os.listdir(place) == ["b"]


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY | os.O_TRUNC], ids=["changed", "rewritten"])
def test_rename_of_a_file_that_is_being_written_shows_nobody_half_of_it(mount: Any, bucket: str, s3: Any, flags: int) -> None:
    def stored(name: str) -> bytes:
        return bytes(s3.get_object(Bucket=bucket, Key=name)["Body"].read())

    place = mount().path
    old, new = place / "old", place / "new"
    old.write_bytes(b"as it was")
    (place / "replaced").write_bytes(b"replaced")
    with os.fdopen(os.open(old, flags), "wb", buffering=0) as f:
        f.write(b"half ")
        os.rename(old, new)
        assert stored("new") == b"as it was"
        f.write(b"and half")
        os.rename(new, place / "replaced")
        assert stored("replaced") == b"as it was"
        assert os.listdir(place) == ["replaced"]
        os.fchmod(f.fileno(), 0o640)
    assert stored("replaced") == b"half and half" == (place / "replaced").read_bytes()
    assert stat.S_IMODE((place / "replaced").stat().st_mode) == 0o640
    assert os.listdir(place) == ["replaced"]


def test_unlink_of_open_files(place: Path, shared_bucket: str, s3: Any) -> None:
    path = place / "f"
    path.write_bytes(noise(300_000))
    with path.open("r+b") as f:
        path.unlink()
        assert os.listdir(place) == []
        assert f.read() == noise(300_000)
        f.seek(10)
        f.write(b"still")
        f.flush()
        assert os.pread(f.fileno(), 5, 10) == b"still"
        assert os.fstat(f.fileno()).st_size == 300_000
        path.write_text("a new one")
    assert path.read_text() == "a new one"
    path.unlink()
    with (place / "never").open("wb") as f:
        f.write(b"x" * 100_000)
        (place / "never").unlink()
    listed = s3.list_objects_v2(Bucket=shared_bucket, Prefix=place.name + "/").get("Contents", [])
    assert [item["Key"] for item in listed if item["Key"] != place.name + "/"] == []


@pytest.mark.parametrize("way", ["delivered", "undelivered", "directory"])
def test_what_is_renamed_to_the_name_of_an_unlinked_open_file_stays(mount: Any, bucket: str, s3: Any, way: str) -> None:
    living: Mount = mount()
    path, new = living.path / "d" / "f", living.path / "e" / "f"
    for parent in (path.parent, new.parent):
        parent.mkdir()
    path.write_bytes(noise(300_000))
    with path.open("rb") as old, new.open("w") as f:
        path.unlink()
        f.write("new")
        if way != "undelivered":
            f.close()
        if way == "directory":
            path.parent.rmdir()
            new.parent.rename(path.parent)
        else:
            new.rename(path)
        assert old.read() == noise(300_000)
    living.stop()  # what comes of a close is done then
    assert s3.get_object(Bucket=bucket, Key="d/f")["Body"].read() == b"new"


def test_what_another_host_puts_in_the_place_of_an_unlinked_open_file_stays(mount: Any, bucket: str, s3: Any) -> None:
    living: Mount = mount()
    path = living.path / "f"
    path.write_bytes(noise(300_000))
    with path.open("rb"):
        path.unlink()
        s3.put_object(Bucket=bucket, Key="f", Body=b"another host's")
    living.stop()
    assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"another host's"


def test_so_does_what_has_the_same_bytes(mount: Any, bucket: str, s3: Any) -> None:
    """A lock, say: it is empty each time."""
    s3.put_object(Bucket=bucket, Key="lock", Body=b"")
    s3.put_object(Bucket=bucket, Key="f", Body=noise(300_000))
    made = time.monotonic()
    living: Mount = mount(metadata_ttl=0, negative_ttl=0)
    with (living.path / "f").open("rb") as f, (living.path / "lock").open("rb"):
        (living.path / "f").unlink()
        (living.path / "lock").unlink()
        assert os.listdir(living.path) == []
        wait_for(lambda: time.monotonic() - made > 4, 10, "the time of another object to be told from that of the old one")
        s3.put_object(Bucket=bucket, Key="lock", Body=b"")
        s3.put_object(Bucket=bucket, Key="f", Body=noise(300_000))
        assert sorted(os.listdir(living.path)) == ["f", "lock"]
        assert (living.path / "f").stat().st_size == 300_000
        assert f.read() == noise(300_000)
    assert sorted(os.listdir(living.path)) == ["f", "lock"]
    living.stop()
    assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == noise(300_000)
    assert s3.get_object(Bucket=bucket, Key="lock")["Body"].read() == b""


def test_a_name_is_used_again_while_the_last_close_of_its_unlinked_file_is_at_work(place: Path) -> None:
    path, other = place / "f", place / "other"
    for number in range(20):
        path.write_bytes(noise(300_000))
        with path.open("rb"):
            path.unlink()
        if number % 2:
            other.write_bytes(b"%d" % number)
            other.rename(path)
        else:
            path.write_bytes(b"%d" % number)
        assert path.read_bytes() == b"%d" % number


@pytest.mark.long_on("weed")
def test_a_file_with_hundreds_of_descriptors(place: Path) -> None:
    path = place / "f"
    path.write_bytes(b"content")
    fds = [os.open(path, os.O_RDWR) for _ in range(300)]
    path.unlink()
    assert all(os.pread(fd, 7, 0) == b"content" for fd in fds[::50])
    for fd in fds:
        os.close(fd)
    assert not path.exists()


def test_directories(place: Path) -> None:
    d = place / "d"
    d.mkdir(0o750)
    assert stat.S_IMODE(d.stat().st_mode) == 0o750
    refused(errno.EEXIST, os.mkdir, d)
    (d / "f").write_text("x")
    refused(errno.ENOTEMPTY, os.rmdir, d)
    refused(errno.ENOTDIR, os.rmdir, d / "f")
    refused(errno.EISDIR, os.unlink, d)
    refused(errno.ENOTDIR, os.stat, d / "f" / "below")
    (d / "f").unlink()
    assert os.listdir(d) == []
    assert d.is_dir()
    d.rmdir()
    assert not d.exists()
    refused(errno.ENOENT, os.rmdir, d)
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(fd)
    os.close(fd)


@pytest.mark.parametrize("more", [{}, {"writeback": "1h"}], ids=["default", "writeback"])
def test_fsync_of_a_directory_delivers_what_is_closed_and_half_of_nothing(mount: Any, bucket: str, s3: Any, more: dict[str, str]) -> None:
    def stored(key: str) -> bytes:
        return bytes(s3.get_object(Bucket=bucket, Key=key)["Body"].read())

    s3.put_object(Bucket=bucket, Key="d/rewritten", Body=b"as it was")
    living = mount(**more)
    (living.path / "d/closed").write_bytes(b"closed")
    with ExitStack() as undo:
        directory = os.open(living.path / "d", os.O_RDONLY)
        undo.callback(os.close, directory)
        with (living.path / "d/rewritten").open("wb", buffering=0) as rewritten, (living.path / "d/made").open("wb", buffering=0) as made:
            rewritten.write(b"half ")
            made.write(b"half ")
            os.fsync(directory)
            assert stored("d/closed") == b"closed"
            assert stored("d/rewritten") == b"as it was"
            assert "d/made" not in {each["Key"] for each in s3.list_objects(Bucket=bucket)["Contents"]}
            rewritten.write(b"and half")
            made.write(b"and half")
        os.fsync(directory)
    assert (stored("d/rewritten"), stored("d/made")) == (b"half and half", b"half and half")


def test_an_emptied_directory_stays(mount: Any, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="implicit/only", Body=b"x")
    living: Mount = mount()
    (living.path / "implicit" / "only").unlink()
    assert os.listdir(living.path) == ["implicit"]
    living.again()
    assert os.listdir(living.path) == ["implicit"]
    assert os.listdir(living.path / "implicit") == []


def test_reading_a_directory_while_it_changes(place: Path) -> None:
    for n in range(300):
        (place / f"f{n:03}").touch()
    seen = []
    with os.scandir(place) as entries:
        for n, entry in enumerate(entries):
            seen.append(entry.name)
            if n == 10:
                (place / "f299").unlink()
                (place / "new").touch()
    assert len(seen) == len(set(seen))
    assert {f"f{n:03}" for n in range(299)} <= set(seen)
    with os.scandir(place) as entries:
        assert "new" in {entry.name for entry in entries}


def test_symlinks(place: Path, mount: Any) -> None:
    targets = ["f", "/absolute/path", "../up", "中文 🐳", "x" * 4000, "a\nb", "%2F+ "]
    for n, target in enumerate(targets):
        os.symlink(target, place / f"l{n}")
    for n, target in enumerate(targets):
        assert os.readlink(place / f"l{n}") == target
        assert (place / f"l{n}").lstat().st_size == len(target.encode())
    (place / "f").write_text("through")
    assert (place / "l0").read_text() == "through"
    os.symlink("loop", place / "loop")
    refused(errno.ELOOP, os.stat, place / "loop")
    refused(errno.EEXIST, os.symlink, "x", place / "l0")
    refused(errno.EINVAL, os.readlink, place / "f")


@pytest.mark.long_on("weed")
def test_hard_links_are_refused(place: Path, shared: Mount) -> None:
    (place / "f").write_text("x")
    before = shared.log_size()
    refused((errno.ENOTSUP, errno.EPERM), os.link, place / "f", place / "g")
    rows = [(1, 6), (4, 4), (32, 4)]  # owner, group, others: what the mode says already
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", tag, rights, -1) for tag, rights in rows)
    refused(errno.ENOTSUP, os.setxattr, place / "f", "system.posix_acl_access", acl)
    assert shared.log(before) == "", "git asks so of each object, and sed -i and install of each file"


def test_special_files(place: Path) -> None:
    os.mkfifo(place / "fifo", 0o620)
    assert stat.S_ISFIFO((place / "fifo").lstat().st_mode)
    os.mknod(place / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    assert (place / "device").lstat().st_rdev == os.makedev(1, 3)
    os.mknod(place / "socket", 0o600 | stat.S_IFSOCK)
    assert stat.S_ISSOCK((place / "socket").lstat().st_mode)


def test_attributes_survive_a_remount(mount: Any, bucket: str, server: Any) -> None:
    living: Mount = mount()
    f, d, link = living.path / "f", living.path / "d", living.path / "l"
    f.write_text("text")
    d.mkdir()
    link.symlink_to("f")
    for path, mode in ((f, 0o4751), (d, 0o1730)):
        os.chown(path, 1234, 5678)
        os.chmod(path, mode)
        os.utime(path, ns=(1_600_000_000_123_456_789, 1_500_000_000_987_654_321))
    os.chown(link, 7, 8, follow_symlinks=False)
    before = [path.lstat() for path in (f, d, link)]
    living.again()
    for path, old in zip((f, d, link), before, strict=True):
        if path == d and server.kind == "weed":
            continue  # SeaweedFS keeps no metadata with the objects of directories
        new = path.lstat()
        for field in ("st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns"):
            assert getattr(new, field) == getattr(old, field), (path.name, field)
    assert f.stat().st_mode & 0o7777 == 0o4751
    assert (f.stat().st_atime_ns, f.stat().st_mtime_ns) == (1_600_000_000_123_456_789, 1_500_000_000_987_654_321)
    assert f.read_text() == "text"


def test_changing_attributes_keeps_the_rest(mount: Any, bucket: str, s3: Any) -> None:
    s3.put_object(
        Bucket=bucket, Key="f.json", Body=b"{}", ContentType="application/x-mine", CacheControl="no-store", ContentLanguage="zh",
        Metadata={"colour": "blue"}, Tagging="team=a",
    )  # fmt: skip
    living: Mount = mount()
    os.chmod(living.path / "f.json", 0o600)
    living.stop()
    head = s3.head_object(Bucket=bucket, Key="f.json")
    assert head["ContentType"] == "application/x-mine"
    assert head["CacheControl"] == "no-store"
    assert head["Metadata"]["colour"] == "blue"
    assert int(head["Metadata"]["mode"]) & 0o777 == 0o600
    tags = s3.get_object_tagging(Bucket=bucket, Key="f.json")["TagSet"]
    assert tags == [{"Key": "team", "Value": "a"}]


def test_times_move(place: Path) -> None:
    path = place / "f"
    path.write_text("x")
    first = path.stat()
    assert abs(first.st_mtime - time.time()) < 60
    deadline = time.monotonic() + 5
    while time.time_ns() <= first.st_mtime_ns + 10_000_000 and time.monotonic() < deadline:
        pass
    with path.open("a") as f:
        f.write("y")
    assert path.stat().st_mtime_ns > first.st_mtime_ns
    second = path.stat()
    path.chmod(0o600)
    assert path.stat().st_mtime_ns == second.st_mtime_ns
    assert path.stat().st_ctime_ns >= second.st_ctime_ns
    before = place.stat().st_mtime_ns
    (place / "g").touch()
    assert place.stat().st_mtime_ns >= before


@pytest.mark.long_on("weed")
def test_statfs_and_access(place: Path) -> None:
    space = os.statvfs(place)
    assert space.f_bsize > 0
    assert space.f_blocks > 0
    assert space.f_namemax == 255
    path = place / "f"
    path.write_text("x")
    path.chmod(0o444)
    assert os.access(path, os.R_OK)
    assert not os.access(path, os.X_OK)
    path.chmod(0o755)
    assert os.access(path, os.X_OK)


@pytest.mark.long_on("weed")
def test_what_is_made_in_a_set_group_id_directory_has_its_group(place: Path) -> None:
    shared = place / "shared"
    shared.mkdir()
    os.chown(shared, -1, 1234)
    shared.chmod(0o2775)
    (shared / "file").write_bytes(b"x")
    (shared / "directory").mkdir()
    (shared / "directory" / "file").touch()
    (shared / "link").symlink_to("file")
    os.mkfifo(shared / "fifo")
    assert {path.lstat().st_gid for path in shared.rglob("*")} == {1234}
    assert (shared / "directory").stat().st_mode & stat.S_ISGID
    assert not (shared / "file").stat().st_mode & stat.S_ISGID


def test_permissions_are_enforced(mount: Any) -> None:
    living: Mount = mount(allow_other=True)
    path = living.path / "private"
    path.write_text("x")
    path.chmod(0o600)
    (living.path / "public").write_text("y")
    (living.path / "public").chmod(0o644)
    script = """
import os, sys
os.chdir(sys.argv[1])
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
assert open("public").read() == "y"
for name, mode in (("private", "r"), ("public", "a"), ("new", "w")):
    try:
        open(name, mode)
    except PermissionError:
        continue
    raise SystemExit(f"{name} could be opened with mode {mode}")
"""
    join(python(script, living.path))


def test_extended_attributes(place: Path, shared_bucket: str, s3: Any) -> None:
    path = place / "f.txt"
    path.write_text("text")
    head = s3.head_object(Bucket=shared_bucket, Key=f"{place.name}/f.txt")
    assert os.getxattr(path, "user.zos.etag").decode() == head["ETag"].strip('"')
    assert os.getxattr(path, "user.zos.content-type") == b"text/plain"
    os.setxattr(path, "user.zos.meta.colour", b"blue")
    assert s3.head_object(Bucket=shared_bucket, Key=f"{place.name}/f.txt")["Metadata"]["colour"] == "blue"
    assert os.getxattr(path, "user.zos.meta.colour") == b"blue"
    os.removexattr(path, "user.zos.meta.colour")
    assert "colour" not in s3.head_object(Bucket=shared_bucket, Key=f"{place.name}/f.txt")["Metadata"]
    refused(errno.ENODATA, os.getxattr, path, "user.zos.meta.colour")
    os.getxattr(path, "user.zos.storage-class")
    refused(errno.EPERM, os.setxattr, path, "user.zos.etag", b"x")
    # what cp -a or rsync -X could not set on the copy is not listed
    os.setxattr(path, "user.zos.meta.shape", b"round")
    assert os.listxattr(path) == ["user.zos.meta.shape", "user.zos.acl"]


def test_foreign_extended_attributes(place: Path) -> None:
    path = place / "f"
    path.write_text("text")
    os.setxattr(path, "user.mine", b"\0binary\xff")
    assert os.getxattr(path, "user.mine") == b"\0binary\xff"
    refused(errno.EEXIST, os.setxattr, path, "user.mine", b"x", os.XATTR_CREATE)
    refused(errno.ENODATA, os.setxattr, path, "user.other", b"x", os.XATTR_REPLACE)
    assert "user.mine" in os.listxattr(path)
    os.removexattr(path, "user.mine")
    refused(errno.ENODATA, os.getxattr, path, "user.mine")


@pytest.mark.long_on("weed")
def test_read_only_mount(mount: Any, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=b"x")
    living: Mount = mount(ro=True)
    assert (living.path / "f").read_bytes() == b"x"
    refused(errno.EROFS, (living.path / "g").touch)
    refused(errno.EROFS, (living.path / "f").unlink)


def test_all_buckets_of_the_account(mount: Any, bucket: str, s3: Any) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=b"x")
    living: Mount = mount("zos:")
    assert bucket in os.listdir(living.path)
    assert (living.path / bucket / "f").read_bytes() == b"x"
    (living.path / bucket / "g").write_text("y")
    assert s3.get_object(Bucket=bucket, Key="g")["Body"].read() == b"y"
    made = f"{bucket}-made"
    (living.path / made).mkdir()
    assert made in {item["Name"] for item in s3.list_buckets()["Buckets"]}
    (living.path / made / "inner").write_text("z")
    refused(errno.ENOTEMPTY, os.rmdir, living.path / made)
    (living.path / made / "inner").unlink()
    os.rmdir(living.path / made)
    assert made not in {item["Name"] for item in s3.list_buckets()["Buckets"]}


def test_a_bucket_with_what_is_not_delivered_yet_is_not_deleted(mount: Any, bucket: str, s3: Any) -> None:
    """The server knows nothing of it, and would delete the bucket."""
    living: Mount = mount("zos:", writeback="1h")
    made = living.path / f"{bucket}-made"
    made.mkdir()
    with (made / "f").open("w") as f:
        f.write("being written")
        f.flush()
        refused(errno.ENOTEMPTY, os.rmdir, made)
    refused(errno.ENOTEMPTY, os.rmdir, made)
    living.stop()
    assert s3.get_object(Bucket=made.name, Key="f")["Body"].read() == b"being written"
    living.start()
    (made / "f").unlink()
    made.rmdir()


def test_only_directories_are_made_among_buckets(mount: Any, bucket: str) -> None:
    living: Mount = mount("zos:")
    top = living.path
    (top / bucket / "d").mkdir()
    (top / bucket / "d" / "f").write_text("x")
    refused(errno.EPERM, os.symlink, "target", top / "link")
    refused(errno.EPERM, os.mkfifo, top / "fifo")
    refused(errno.EPERM, (top / "file").write_text, "x")
    refused(errno.EXDEV, os.rename, top / bucket / "d" / "f", top / "f")
    refused(errno.EXDEV, os.rename, top / bucket / "d", top / f"{bucket}-moved")
    refused(errno.EXDEV, os.rename, top / bucket, top / f"{bucket}-renamed")
    assert (top / bucket / "d" / "f").read_text() == "x"


def test_buckets_of_an_account_are_asked_what_they_can_do_at_the_first_change(mount: Any, bucket: str, s3: Any, server: Any) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=b"x")
    living: Mount = mount("zos:")
    with living.requests() as spent:
        assert (living.path / bucket / "f").read_bytes() == b"x"
    assert not {"put", "append", "delete"} & spent.keys(), "a bucket that is only read is not written to"
    log = living.path / bucket / "log"
    for line in ("one\n", "two\n"):
        with log.open("a") as f:
            f.write(line)
    assert s3.get_object(Bucket=bucket, Key="log")["Body"].read() == b"one\ntwo\n"
    if server.kind == "rgw":
        headers = s3.head_object(Bucket=bucket, Key="log")["ResponseMetadata"]["HTTPHeaders"]
        assert headers["x-rgw-object-type"] == "Appendable"
    with living.requests() as spent:
        (living.path / bucket / "new").write_bytes(b"content")
    assert spent == {"put": 1}, "asked once"
    living.stop()
    assert {item["Key"] for item in s3.list_objects(Bucket=bucket)["Contents"]} == {"f", "log", "new"}


def test_a_directory_moves_between_buckets_as_between_filesystems(mount: Any, bucket: str, s3: Any) -> None:
    living: Mount = mount("zos:")
    other = living.path / f"{bucket}-other"
    other.mkdir()
    (living.path / bucket / "d").mkdir()
    (living.path / bucket / "d" / "f").write_text("moved")
    refused(errno.EXDEV, os.rename, living.path / bucket / "d" / "f", other / "f")
    run("mv", living.path / bucket / "d", other)
    assert (other / "d" / "f").read_text() == "moved"
    assert os.listdir(living.path / bucket) == []
    refused(errno.EPERM, (living.path / "file").write_text, "only directories lie among buckets")
    run("rm", "-r", other)
    assert f"{bucket}-other" not in {item["Name"] for item in s3.list_buckets()["Buckets"]}
