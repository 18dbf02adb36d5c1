"""What close acknowledged survives a killed daemon: in the journal, on the command line, and through the next mount."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.fs.mounting import Mount, wait_for, zosfs
from tests.fs.running import noise, refused
from tests.fs.test_promised_attributes import UNHURRIED
from tests.proxy import Proxy, answer

pytestmark = pytest.mark.long_on("weed")


def entries(living: Mount) -> list[dict[str, Any]]:
    """What `zosfs journal list` shows of the mount's cache directory."""
    done = zosfs("journal", "list", "--json", f"--cache-dir={living.cache_dir}")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_promised_files_outlive_a_killed_daemon(mount: Any, bucket: str, s3: Any) -> None:
    living: Mount = mount(writeback="1h")
    living.path.joinpath("small").write_bytes(b"promised")
    living.path.joinpath("large").write_bytes(noise(1 << 20) * 3)
    assert living.path.joinpath("small").read_bytes() == b"promised"
    assert s3.list_objects_v2(Bucket=bucket).get("KeyCount", 0) == 0, "upload follows an hour later"
    assert {entry["key"]: entry["size"] for entry in entries(living)} == {"small": 8, "large": 3 << 20}
    living.kill()
    assert len(entries(living)) == 2
    living.start()
    assert living.path.joinpath("small").read_bytes() == b"promised"
    assert living.path.joinpath("large").read_bytes() == noise(1 << 20) * 3
    wait_for(lambda: not entries(living), 30, "the journal to be delivered")
    assert s3.get_object(Bucket=bucket, Key="small")["Body"].read() == b"promised"
    assert s3.get_object(Bucket=bucket, Key="large")["Body"].read() == noise(1 << 20) * 3


@pytest.mark.parametrize("there", [False, pytest.param(True, marks=pytest.mark.long)], ids=["new", "there"])
def test_a_promised_file_that_is_delivered_while_the_next_run_looks_for_it_is_shown(
    server: Any, mount: Any, bucket: str, s3: Any, there: bool
) -> None:  # fmt: skip
    """The directory is listed on the way to another one, and not again for a minute."""
    if there:
        s3.put_object(Bucket=bucket, Key="d/f", Body=b"what was there before")
    with Proxy(server.url) as proxy:
        living = mount(url=proxy.url, writeback="1h", retries=12, metadata_ttl=600)
        (living.path / "d/e").mkdir(parents=True, exist_ok=True)
        (living.path / "d/e/g").write_bytes(b"promised before")
        (living.path / "d/f").write_bytes(b"promised")
        living.kill()
        listed: list[str] = []

        def not_before_it_is_listed(method: str, target: str) -> bytes | None:
            if method == "GET" and target.startswith(f"/{bucket}?") and "prefix=d%2F" in target:
                listed.append(target)
            promised = (f"/{bucket}/d/f", f"/{bucket}/d/e/g")
            return answer(503, "SlowDown") if method == "PUT" and target in promised and not listed else None

        proxy.intercept = not_before_it_is_listed
        living.start()
        assert listed
        assert (living.path / "d/f").stat().st_size == len(b"promised")
        assert (living.path / "d/f").read_bytes() == b"promised"
        living.stop()
    assert s3.get_object(Bucket=bucket, Key="d/f")["Body"].read() == b"promised"
    living.finish()


def test_a_mount_lives_although_the_server_does_not_answer_the_delivery_of_what_was_promised(
    proxy: Proxy, mount: Any, bucket: str, s3: Any
) -> None:  # fmt: skip
    """What was promised is shown from the journal, whatever its delivery waits for; it arrives once the server answers."""
    s3.put_object(Bucket=bucket, Key="there", Body=b"what was there before")
    names = ["d/f", "there", *(f"more{n}" for n in range(10))]  # more than are delivered at once
    living = mount(url=proxy.url, writeback="1h")
    (living.path / "d").mkdir()
    for name in names:
        (living.path / name).write_bytes(b"promised " + name.encode())
    living.kill()
    targets = {f"/{bucket}/{name}" for name in names}
    proxy.requests.clear()
    proxy.hold = lambda target: 0 if target in targets and ("PUT", target) in proxy.requests else None
    began = time.monotonic()
    living.start()
    took = time.monotonic() - began
    wait_for(lambda: proxy.held, 60, "deliveries that get no answer")
    assert sorted(os.listdir(living.path)) == sorted({name.split("/")[0] for name in names})
    for name in names:
        assert (living.path / name).read_bytes() == b"promised " + name.encode()
    assert took < 14, "a mount in the background is given up then"
    proxy.hold = lambda target: None
    wait_for(lambda: not entries(living), 60, "the journal to be delivered")
    for name in names:
        assert s3.get_object(Bucket=bucket, Key=name)["Body"].read() == b"promised " + name.encode()
    living.again()
    assert (living.path / "d/f").read_bytes() == b"promised d/f"


@pytest.mark.parametrize("size", [1000, 100_000], ids=["in-the-journal", "beside-it"])
def test_a_mode_that_is_changed_between_two_writes_promises_no_half_of_them(
    mount: Any, bucket: str, s3: Any, size: int
) -> None:  # fmt: skip
    living = mount(writeback="1h")
    path = living.path / "f"
    path.write_bytes(b"old " * (size // 4))
    os.chmod(path, 0o640)
    fd = os.open(path, os.O_RDWR)
    os.write(fd, b"the first half of what is new")
    os.fchmod(fd, 0o600)
    living.kill()
    refused(errno.ENOTCONN, os.close, fd)
    living.start()
    assert path.read_bytes() == b"old " * (size // 4)
    assert path.stat().st_mode & 0o777 in (0o600, 0o640)
    living.again()
    assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"old " * (size // 4)


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY | os.O_APPEND], ids=["edited", "appended"])
def test_a_promised_file_whose_place_another_one_has_taken_when_the_daemon_is_killed(
    server: Any, mount: Any, bucket: str, s3: Any, flags: int
) -> None:  # fmt: skip
    """The rename was not acknowledged, but it has happened: that is no conflict, and nothing is added to the other file."""
    s3.put_object(Bucket=bucket, Key="from", Body=b"renamed")
    s3.put_object(Bucket=bucket, Key="to", Body=b"what was there")
    with Proxy(server.url) as proxy:
        living = mount(url=proxy.url, writeback="1h", append="auto")
        fd = os.open(living.path / "to", flags)
        os.write(fd, b"promised")
        os.close(fd)
        proxy.hold = lambda target: 0 if ("PUT", target) in proxy.requests and target.startswith(f"/{bucket}/to") else None
        with ThreadPoolExecutor(1) as pool:
            renaming = pool.submit(os.rename, living.path / "from", living.path / "to")
            wait_for(lambda: s3.get_object(Bucket=bucket, Key="to")["Body"].read() == b"renamed", 60, "the copy")
            living.kill()
            refused((errno.ENOTCONN, errno.ECONNABORTED, errno.EIO), renaming.result)
        proxy.hold = lambda target: None
        living.start()
        assert (living.path / "to").read_bytes() == b"renamed"
        assert entries(living) == []
        living.stop()
    assert s3.get_object(Bucket=bucket, Key="to")["Body"].read() == b"renamed"


NEW, REWRITTEN = os.O_WRONLY | os.O_CREAT | os.O_EXCL, os.O_WRONLY | os.O_TRUNC


@pytest.mark.parametrize("killed", [False, True], ids=["delivered", "killed"])
@pytest.mark.parametrize("flags", [NEW, REWRITTEN, os.O_RDWR, os.O_WRONLY | os.O_APPEND], ids=["new", "rewritten", "edited", "appended"])
def test_a_promised_file_that_another_one_could_not_be_renamed_to(
    server: Any, mount: Any, bucket: str, s3: Any, flags: int, killed: bool
) -> None:
    """The copy has taken its place when the removal of the old name is refused: what was promised takes it back, and is no conflict."""
    s3.put_object(Bucket=bucket, Key="from", Body=b"not renamed")
    if flags != NEW:
        s3.put_object(Bucket=bucket, Key="to", Body=b"what was there")
    wanted = {NEW: b"promised", REWRITTEN: b"promised", os.O_RDWR: b"promised there"}.get(flags, b"what was therepromised")
    with Proxy(server.url) as proxy:
        living = mount(url=proxy.url, writeback="1h", append="auto")
        living.forgive("from")
        fd = os.open(living.path / "to", flags)
        os.write(fd, b"promised")
        os.close(fd)
        proxy.intercept = lambda method, target: answer(403, "AccessDenied", "Forbidden") if method == "DELETE" else None
        refused(errno.EACCES, os.rename, living.path / "from", living.path / "to")
        proxy.intercept = None
        assert s3.get_object(Bucket=bucket, Key="to")["Body"].read() == b"not renamed"
        for again in (False, True):
            assert (living.path / "to").read_bytes() == wanted
            assert (living.path / "from").read_bytes() == b"not renamed"
            if not again:
                if killed:
                    living.kill()
                else:
                    living.stop()
                living.start()
        assert entries(living) == []
        living.stop()
    assert s3.get_object(Bucket=bucket, Key="to")["Body"].read() == wanted
    assert s3.get_object(Bucket=bucket, Key="from")["Body"].read() == b"not renamed"


def test_a_promised_file_leaves_its_name_to_a_renamed_one_of_which_there_is_no_other_copy(
    server: Any, mount: Any, bucket: str, s3: Any
) -> None:
    """The removal of the old name was made, but its answer is lost, and the next try is refused: both contents are kept."""
    s3.put_object(Bucket=bucket, Key="from", Body=b"renamed")
    s3.put_object(Bucket=bucket, Key="to", Body=b"what was there")
    with Proxy(server.url) as proxy:
        living = mount(url=proxy.url, writeback="1h")
        living.forgive("ERROR zosfs.content.content: to: ")
        (living.path / "to").write_bytes(b"promised")
        fates: list[bytes | str] = [answer(403, "AccessDenied", "Forbidden"), "lost"]
        proxy.intercept = lambda method, target: fates.pop() if method == "DELETE" else None
        refused(errno.EACCES, os.rename, living.path / "from", living.path / "to")
        proxy.intercept = None
        assert not fates
        living.kill()
        living.start()
        assert (living.path / "to").read_bytes() == b"renamed"
        assert [(entry["key"], entry["state"], entry["size"]) for entry in entries(living)] == [("to", "conflict", 8)]
        living.stop()
    assert s3.get_object(Bucket=bucket, Key="to")["Body"].read() == b"renamed"


@pytest.mark.parametrize("removed", [False, True], ids=["delivered", "removed"])
def test_two_promised_files_are_renamed_over_an_object_one_after_the_other(mount: Any, bucket: str, s3: Any, removed: bool) -> None:
    s3.put_object(Bucket=bucket, Key="to", Body=b"what was there")
    living = mount(writeback="1h")
    for name in ("one", "two"):
        (living.path / name).write_bytes(name.encode())
        os.rename(living.path / name, living.path / "to")
    if removed:
        (living.path / "to").unlink()
    living.again()
    assert os.listdir(living.path) == ([] if removed else ["to"])
    if not removed:
        assert (living.path / "to").read_bytes() == b"two"
        assert s3.get_object(Bucket=bucket, Key="to")["Body"].read() == b"two"


def test_a_conflict_keeps_both(mount: Any, bucket: str, s3: Any, tmp_path: Path) -> None:
    s3.put_object(Bucket=bucket, Key="f", Body=b"at first")
    living: Mount = mount()
    living.forgive("changed by someone else")
    ours = living.path.joinpath("f").open("r+b")
    ours.write(b"ours")
    ours.flush()
    s3.put_object(Bucket=bucket, Key="f", Body=b"theirs, since")
    with pytest.raises(OSError, match="Stale"):
        ours.close()
    assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"theirs, since"
    wait_for(lambda: living.path.joinpath("f").read_bytes() == b"theirs, since", 10, "the name to show what is there")
    (entry,) = entries(living)
    assert (entry["key"], entry["state"]) == ("f", "conflict")
    target = tmp_path / "exported"
    done = zosfs("journal", "export", entry["id"], target, f"--cache-dir={living.cache_dir}")
    assert done.returncode == 0, done.stderr
    assert target.read_bytes()[:4] == b"ours"
    done = zosfs("journal", "discard", "--yes", entry["id"], f"--cache-dir={living.cache_dir}")
    assert (done.returncode, done.stderr) == (
        1, f"zosfs: the journal of {bucket} is in use by a mount (process {living.process.pid}): unmount it, and try again\n"
    )  # fmt: skip
    living.stop()
    done = zosfs("journal", "discard", entry["id"], f"--cache-dir={living.cache_dir}")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "zosfs: nothing thrown away: --yes does it without asking\n")
    done = zosfs("journal", "discard", "--yes", entry["id"], f"--cache-dir={living.cache_dir}")
    assert done.returncode == 0, done.stderr
    assert entries(living) == []


def test_what_the_server_refuses_is_parked_and_the_next_open_and_close_say_so(server: Any, mount: Any, bucket: str, s3: Any) -> None:
    with Proxy(server.url) as proxy:
        living: Mount = mount(url=proxy.url, writeback="0.1s")
        living.forgive("AccessDenied|refuses|denied")
        os.listdir(living.path)
        proxy.intercept = lambda method, target: answer(403, "AccessDenied", "Forbidden") if method in ("PUT", "POST") else None
        path = living.path / "f"
        path.write_bytes(b"mine")
        wait_for(lambda: [entry["state"] for entry in entries(living)] == ["parked"], 20, "the entry to be parked")
        (entry,) = entries(living)
        assert (entry["key"], entry["size"]) == ("f", 4)
        assert "AccessDenied" in entry["cause"]
        tried = len([method for method, _ in proxy.requests if method == "PUT"])
        assert path.read_bytes() == b"mine", "readers are not bothered"
        refused(errno.EACCES, os.open, path, os.O_WRONLY)
        fd = os.open(path, os.O_WRONLY)  # who opens it again means to see to it
        refused(errno.EACCES, os.close, fd)
        assert len([method for method, _ in proxy.requests if method == "PUT"]) == tried, "a refused file is not tried for ever"
        shown = zosfs("journal", "show", entry["id"], f"--cache-dir={living.cache_dir}")
        assert "AccessDenied" in shown.stdout
        proxy.intercept = None
        with path.open("r+b") as f:
            os.fsync(f.fileno())
        assert s3.get_object(Bucket=bucket, Key="f")["Body"].read() == b"mine"
        assert entries(living) == []
        living.stop()


def test_uploading_the_journal_of_a_bucket_that_is_mounted_is_refused_in_a_line(server: Any, mount: Any, bucket: str, s3: Any) -> None:
    living: Mount = mount()
    keys = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key, "ZOSFS_URL": server.url}
    done = zosfs("journal", "upload", bucket, f"--cache-dir={living.cache_dir}", env=keys)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
    assert f"is in use by a mount (process {living.process.pid}): it delivers what is in it by itself" in done.stderr
    assert "Errno" not in done.stderr


def test_who_mounts_again_too_early_is_told_who_still_delivers(proxy: Proxy, mount: Any, bucket: str) -> None:
    living: Mount = mount(url=proxy.url, writeback="1h")
    (living.path / "f").write_bytes(b"promised")
    held = (living.path / "f").open("rb")
    subprocess.run(["umount", "-i", "-l", living.path], check=True)

    def refusal() -> str:
        done = zosfs(*[word for word in living.words if word != "-f"])
        assert (done.returncode, done.stderr.count("\n")) == (32, 1), done.stderr
        return done.stderr

    told = f"zosfs: {bucket} was {{}} {living.path}, and its process {living.process.pid} still "
    how = f": `zosfs umount {living.path}` waits for it, or -o cache_dir=DIR gives a mount beside it a journal of its own\n"
    assert refusal() == f"{told.format('detached from')}serves programs that have files open there{how}"
    proxy.hold = lambda target: 0 if target.endswith("/f") else None
    held.close()
    wait_for(lambda: "unmounted, delivering: 1 files" in zosfs("status").stdout, 60, "the delivery")
    assert refusal() == f"{told.format('unmounted from')}delivers 1 files, 0.0 MiB{how}"
    proxy.hold = lambda target: None
    assert living.process.wait(60) == 0
    living.start()
    assert (living.path / "f").read_bytes() == b"promised"


def test_attributes_and_removals_that_are_not_delivered_are_listed(proxy: Proxy, mount: Any, bucket: str) -> None:
    """While the mount lives, after it was killed, and while the next one cannot deliver them either."""
    living: Mount = mount(url=proxy.url, retries=0, retry_timeout=1, patched=UNHURRIED)
    living.forgive("")
    names = [f"gone{n}" for n in range(6)]
    for name in ("f", *names):
        (living.path / name).write_bytes(b"content")
    (living.path / "f").chmod(0o640)
    proxy.intercept = lambda method, target: answer(503, "SlowDown") if method == "POST" else None
    (living.path / names.pop()).unlink()  # the first of a row waits for the server
    for name in names:
        (living.path / name).unlink()
    # on a busy machine some came too late for the row, and are gone
    removed = {entry["key"] for entry in entries(living) if entry["state"] == "removal"}
    assert removed
    assert removed <= set(names)
    wanted = {("f", "attributes", 0, bucket), *((name, "removal", 0, bucket) for name in removed)}

    def listed() -> set[tuple[Any, ...]]:
        return {tuple(entry[column] for column in ("key", "state", "size", "bucket")) for entry in entries(living)}

    assert listed() == wanted
    living.kill()
    assert listed() == wanted
    assert zosfs("journal", "list", f"--cache-dir={living.cache_dir}").stdout.count("\n") == len(wanted)
    proxy.intercept = lambda method, target: answer(503, "SlowDown") if method in ("DELETE", "PUT") else None
    living.start()
    assert listed() == wanted
    proxy.intercept = None
    living.again()
    wait_for(lambda: not entries(living), 60, "the journal to be delivered")


def test_promised_files_go_along_when_their_directory_is_renamed(server: Any, mount: Any, bucket: str, s3: Any) -> None:
    """Also what is promised while the rename has begun to deliver, and the daemon is killed afterwards."""
    for name in ("first", "second"):
        s3.put_object(Bucket=bucket, Key=f"old/{name}", Body=name.encode())
    with Proxy(server.url) as proxy, ThreadPoolExecutor(1) as pool:
        living: Mount = mount(url=proxy.url, writeback="1h")
        (living.path / "old/first").write_bytes(b"written before")
        slow = (living.path / "old/second").open("r+b", buffering=0)
        slow.write(b"SEC")
        slow.close()
        proxy.hold = lambda target: 0 if target == f"/{bucket}/old/second" else None
        renamed = pool.submit(os.rename, living.path / "old", living.path / "new")
        wait_for(lambda: proxy.held, 60, "the rename to be delivering the second file")
        wait_for(lambda: "old/first" not in {entry["key"] for entry in entries(living)}, 60, "the first file to be delivered")
        (living.path / "old/first").write_bytes(b"written meanwhile")
        proxy.hold = lambda target: None
        renamed.result()
        assert {entry["key"] for entry in entries(living)} == {"new/first"}
        assert (living.path / "new/first").read_bytes() == b"written meanwhile"
        living.kill()
        proxy.hold = lambda target: None
        living.start()
        wait_for(lambda: not entries(living), 60, "the journal to be delivered")
        living.stop()
    found = {item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"] if not item["Key"].endswith("/")}
    assert found == {"new/first", "new/second"}
    assert s3.get_object(Bucket=bucket, Key="new/first")["Body"].read() == b"written meanwhile"
    assert s3.get_object(Bucket=bucket, Key="new/second")["Body"].read() == b"SECond"
