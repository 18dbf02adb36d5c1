"""Archived objects through the kernel: refused at open with an errno of their own, thawed by a command, and then read.

Neither real server has an archive: tests/servers/archive.py stands before each of them.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.admin.running import Command, inside
from tests.fs.mounting import ROOT, Mount, clean_environment, wait_for
from tests.fs.running import refused
from tests.servers.archive import UNTIL, Archive
from tests.servers.server import Server
from zosfs.cli import restore

Mounting = Callable[..., Mount]

pytestmark = pytest.mark.long_on("weed")


@pytest.fixture
def archive(server: Server) -> Iterator[Archive]:
    """An archive before the server; a thaw takes until the third HEAD."""
    standing = Archive(server, heads=2)
    yield standing
    standing.stop()


@pytest.fixture
def zosfs(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `zosfs WORDS…` against it; waiting is short."""
    monkeypatch.setattr(restore, "POLL", 0.01)
    return inside(archive.server)


def logged(living: Mount, line: str) -> None:
    """Wait until the daemon's log has *line*."""
    wait_for(lambda: line in living.log(), 30, f"{line!r} in the log")



@pytest.mark.parametrize("more", [{}, {"noposix": True}], ids=["posix", "noposix"])
def test_refused_at_open_and_read_once_thawed(
    mount: Mounting, bucket: str, s3: Any, archive: Archive, zosfs: Command, more: dict[str, Any]
) -> None:
    s3.put_object(Bucket=bucket, Key="d/film ä.mov", Body=b"frames")
    s3.put_object(Bucket=bucket, Key="d/plain", Body=b"plain")
    archive.freeze(bucket, "d/film ä.mov")
    living = mount(server=archive.server, **more)
    path = living.path / "d" / "film ä.mov"
    assert path.stat().st_size == 6
    assert os.getxattr(path, "user.zos.storage-class") == b"GLACIER"
    assert os.getxattr(path, "user.zos.restore") == b"archived"
    assert (living.path / "d" / "plain").read_bytes() == b"plain"
    for flags in (os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND):
        refused(errno.EREMOTEIO, os.open, path, flags)
    refused(errno.EREMOTEIO, os.truncate, path, 3)
    assert archive.sent("GET", f"/{bucket}/d/film ä.mov") == 0, "the error comes before anything is read"
    cannot = f"zosfs: {path}: it is archived: `zosfs restore '{path}'` thaws it\n"
    assert zosfs("warmup", path, plain=True, status=1).stderr == cannot
    logged(living, f"is archived: zosfs restore thaws it (InvalidObjectState, HTTP 403): zosfs restore 'zos://{bucket}/d/film ä.mov'")

    rows = json.loads(zosfs("restore", f"zos://{bucket}/d/", "--days", "3", "--tier", "Bulk", "--no-wait", "--json").stdout)
    assert [(row["key"], row["state"]) for row in rows] == [("d/film ä.mov", "thawing")]
    assert b"<Days>3</Days>" in archive.asked[0]
    assert b"<Tier>Bulk</Tier>" in archive.asked[0]
    refused(errno.EREMOTEIO, os.open, path, os.O_RDONLY)
    logged(living, "it is being thawed; zosfs restore")
    assert "thawed until" in zosfs("restore", path, "--wait").stdout  # found from the mount
    assert path.read_bytes() == b"frames"
    assert os.getxattr(path, "user.zos.restore").decode() == f"thawed until {UNTIL}"


def test_thawing_through_the_attribute(mount: Mounting, bucket: str, s3: Any, archive: Archive) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=b"cold")
    archive.freeze(bucket, "f")
    living = mount(server=archive.server)
    path = living.path / "f"
    os.setxattr(path, "user.zos.restore", b"days=7,tier=Standard")
    refused(errno.EALREADY, os.setxattr, path, "user.zos.restore", b"days=7,tier=Standard")
    while os.getxattr(path, "user.zos.restore") != f"thawed until {UNTIL}".encode():
        pass  # each look is a HEAD, and the third finds it thawed
    assert path.read_bytes() == b"cold"


def test_what_replaces_an_archived_file_needs_no_thawing(mount: Mounting, bucket: str, s3: Any, archive: Archive) -> None:
    for key in ("f", "gone"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"cold")
        archive.freeze(bucket, key)
    living = mount(server=archive.server)
    refused(errno.EREMOTEIO, os.chmod, living.path / "f", 0o600)
    refused(errno.EREMOTEIO, os.rename, living.path / "f", living.path / "g")
    (living.path / "f").write_bytes(b"warm")
    (living.path / "gone").unlink()
    assert (living.path / "f").read_bytes() == b"warm"
    living.stop()
    assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"warm"
    assert [row["Key"] for row in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["f"]


def test_a_thaw_that_is_refused_is_said_and_the_others_go_on(bucket: str, s3: Any, archive: Archive, zosfs: Command) -> None:
    for n in range(30):
        s3.put_object(Bucket=bucket, Key=f"d/{n:02}", Body=b"cold")
        archive.freeze(bucket, f"d/{n:02}")
    s3.put_object(Bucket=bucket, Key="warm", Body=b"")
    said = zosfs("restore", f"zos://{bucket}/missing", f"zos://{bucket}/d/", f"zos://{bucket}/warm", "--json", status=1)
    rows = {row["key"]: row for row in json.loads(said.stdout)}
    assert rows.pop("missing")["state"] == "refused"
    assert rows.pop("warm")["state"] == "not archived"
    assert {row["state"] for row in rows.values()} == {f"thawed until {UNTIL}"}
    assert len(rows) == 30
    assert len(said.stderr.splitlines()) == 1
    assert "missing" in said.stderr


def test_progress_is_shown_on_a_terminal(bucket: str, s3: Any, server: Server) -> None:
    import pty

    standing = Archive(server, heads=0)
    try:
        s3.put_object(Bucket=bucket, Key="f", Body=b"cold")
        standing.freeze(bucket, "f")
        ours, theirs = pty.openpty()
        keys = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key, "ZOSFS_URL": standing.server.url}
        process = subprocess.Popen(
            [sys.executable, "-m", "zosfs", "restore", f"zos://{bucket}/f"], cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs,
            env={**clean_environment(), **keys, "TERM": "xterm"},
        )  # fmt: skip
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while piece := os.read(ours, 4096):
                shown += piece
        os.close(ours)
        said, _ = process.communicate(timeout=180)
        assert process.returncode == 0
        assert said.decode() == f"zos://{bucket}/f\tthawed until {UNTIL}\n"
        assert b"thawing" in shown
        assert b"1/1" in shown
    finally:
        standing.stop()
