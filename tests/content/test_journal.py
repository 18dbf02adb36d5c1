"""The journal on the disk: what was put is there for the next run, damaged or newer journals are refused, and replays decide right."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zosfs.content.journal import SCHEMA, Journal
from zosfs.content.journal_rows import (
    CONFLICT,
    Deletion,
    Record,
    Upload,
    put_deletion,
    put_record,
    put_upload,
    remove_record,
)
from zosfs.content.multipart import UploadRecord
from zosfs.content.redo_log import frame
from zosfs.content.replay import Step, decide, leans_on_base, needs_sum
from zosfs.store.api import ObjectHeaders, ObjectInfo, PartInfo

HEADERS = ObjectHeaders({"mode": "33188", "名": "值"}, "text/plain", tags={"a": "b"}, extra={"cache-control": "no-cache"})


def info(etag: str, size: int = 10) -> ObjectInfo:
    return ObjectInfo("k", size, etag, 5, metadata={"mode": "33188"}, headers={"etag": etag})


def record(name: str = "r", *, base: ObjectInfo | None = None, kept: int = 0, dirty: tuple[int, int] = (0, 10), **more: object) -> Record:
    made = Record(name, "k", 10, kept, [list(dirty)] if dirty[0] < dirty[1] else [], base, HEADERS)
    for field, value in more.items():
        setattr(made, field, value)
    return made


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    made = Journal(tmp_path / "journal")
    made.open()
    return made


@settings(deadline=None)
@given(st.text(), st.one_of(st.none(), st.binary(max_size=100)), st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99))))
def test_what_was_put_comes_back(
    tmp_path_factory: pytest.TempPathFactory, key: str, image: bytes | None, dirty: list[tuple[int, int]]
) -> None:
    directory = tmp_path_factory.mktemp("journal")
    key = key.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
    put = record("a", base=info("e"), image=image, suspects=["x"], expected="y", cause="why", appending=True, file="f")
    put.key, put.dirty = key, [list(pair) for pair in dirty]
    put.upload = UploadRecord("u", "shape", {1: PartInfo(1, "p", 3)})
    first = Journal(directory)
    first.open()
    first.apply([put_record(put), put_upload(Upload(key, "a", put.upload)), put_deletion(Deletion(key, "gone", 7))])
    first.close()
    second = Journal(directory)
    second.open()
    (found,) = second.records()
    assert found == put
    assert second.deletions() == [Deletion(key, "gone", 7)]
    second.close()


def test_all_or_nothing(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    with pytest.raises(OSError, match="cannot be written") as caught:
        journal.apply([put_record(record("a")), put_record(record("b"))])
    assert caught.value.errno == errno.EIO
    monkeypatch.undo()
    assert journal.records() == []
    journal.apply([put_record(record("a")), put_record(record("b")), remove_record("a")])
    assert [found.id for found in journal.records()] == ["b"]


def test_only_the_owner_can_look(journal: Journal) -> None:
    assert stat.S_IMODE(os.stat(journal.directory).st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in journal.directory.iterdir()} == {0o600}


def test_a_damaged_record_is_shown_and_the_others_are_good(journal: Journal) -> None:
    journal.apply([put_record(record("good")), put_record(record("bad"))])
    journal.settle()
    with sqlite3.connect(journal.directory / "journal.db") as db:
        db.execute("UPDATE record SET body = replace(body, '10', '11') WHERE id = 'bad'")
    states = {found.id: (found.state, found.cause) for found in journal.records()}
    assert states == {"good": ("promised", ""), "bad": (CONFLICT, "damaged record")}


def test_a_newer_format_and_what_is_no_database_are_refused(tmp_path: Path) -> None:
    newer = Journal(tmp_path / "newer")
    with sqlite3.connect(newer.directory / "journal.db") as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(OSError, match="newer zosfs"):
        newer.open()
    damaged = Journal(tmp_path / "damaged")
    (damaged.directory / "journal.db").write_bytes(b"no database" * 1000)
    with pytest.raises(OSError, match="cannot be read") as caught:
        damaged.open()
    assert caught.value.errno == errno.EINVAL
    again = Journal(tmp_path / "damaged")
    with pytest.raises(OSError, match="cannot be read"):  # and not: in use by another mount
        again.open()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a tmpfs")
def test_a_full_disk_is_no_damage_and_nobody_is_told_to_move_the_journal_away(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], check=True)
    try:
        first = Journal(disk / "journal")
        first.open()
        first.close()
        with open(disk / "filler", "wb", buffering=0) as filler, contextlib.suppress(OSError):
            while filler.write(bytes(4096)):
                pass
        again = Journal(disk / "journal")
        with pytest.raises(OSError, match="has room") as caught:
            again.open()
        assert caught.value.errno == errno.ENOSPC
        assert "move it away" not in str(caught.value)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_journal_without_a_log_is_read(tmp_path: Path) -> None:
    """What the first format left: no table `log`, no ``journal.log``, every field of a record in its JSON."""
    old = Journal(tmp_path / "old")
    body = json.dumps(
        {"size": 3, "kept": 0, "dirty": [[0, 3]], "appending": False, "file": "f", "suspects": [], "expected": "", "base": None,
         "headers": {"metadata": {"mode": "33188"}, "content_type": "a/b", "acl": "", "storage_class": "", "tags": None, "extra": {}}}
    )  # fmt: skip
    digest = hashlib.sha256()
    for piece in (b"key", body.encode(), b"abc"):
        digest.update(len(piece).to_bytes(8, "big") + piece)
    db = sqlite3.connect(old.directory / "journal.db")
    db.executescript(SCHEMA.partition("CREATE TABLE IF NOT EXISTS log")[0])
    db.execute("INSERT INTO record VALUES ('id', ?, 'promised', '', 1.5, ?, ?, ?)", (b"key", body, b"abc", digest.hexdigest()))
    db.execute("PRAGMA user_version=1")
    db.commit()
    db.close()
    expected = Record("id", "key", 3, 0, [[0, 3]], None, ObjectHeaders({"mode": "33188"}, "a/b"), file="f", image=b"abc", changed=1.5)
    looker = Journal(old.directory)
    looker.look()
    assert looker.records() == [expected]
    looker.close()
    old.open()
    assert old.records() == [expected]
    old.apply([remove_record("id")])
    old.close()
    looker.look()
    assert looker.records() == []
    looker.close()


def state(journal: Journal) -> dict[str, tuple[str, bytes | None]]:
    return {found.id: (found.cause, found.image) for found in journal.records()}


images = st.builds(lambda n: b"i" * n, st.integers(0, 9000))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.lists(st.tuples(st.sampled_from("abcdef"), st.text(max_size=5), images), min_size=1, max_size=3)),
        st.tuples(st.just("remove"), st.sampled_from("abcdef")),
        st.tuples(st.sampled_from(["settle", "reopen", "kill"]), st.none()),
    ),
    max_size=10,
)  # fmt: skip


@settings(deadline=None, max_examples=30)
@given(steps, st.binary(max_size=100), st.integers(0, 9000))
def test_a_cut_of_the_power_at_any_moment_leaves_what_was_answered(
    tmp_path_factory: pytest.TempPathFactory, done: list[tuple[str, Any]], garbage: bytes, torn: int
) -> None:
    """The model is a dict. A journal that was killed is read from a copy of its files with a torn frame behind the last one."""
    directory = tmp_path_factory.mktemp("journal")
    journal = Journal(directory)
    journal.open()
    model: dict[str, tuple[str, bytes | None]] = {}
    for number, (what, argument) in enumerate(done):
        if what == "put":
            journal.apply([put_record(record(name, cause=cause, image=image)) for name, cause, image in argument])
            model.update({name: (cause, image) for name, cause, image in argument})
        elif what == "remove":
            journal.apply([remove_record(argument)])
            model.pop(argument, None)
        elif what == "settle":
            journal.settle()
        else:
            if what == "kill":
                new = tmp_path_factory.mktemp(f"copy{number}")
                for name in ("journal.db", "journal.db-wal", "journal.log"):
                    if (directory / name).exists():
                        shutil.copy(directory / name, new / name)
                with (new / "journal.log").open("r+b") as f:
                    f.seek(journal._log.end)
                    begun = frame(journal._log._salt, journal._log._number, put_record(record("torn", image=b"t" * 9000)))
                    f.write(begun[:torn] + garbage)
                directory = new
            journal.close()
            journal = Journal(directory)
            journal.open()
        looker = Journal(directory)
        looker.look()
        assert state(looker) == model
        looker.close()
    assert state(journal) == model
    journal.close()


def test_who_looks_while_it_is_written_sees_one_state_or_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each change takes one record away and brings another, and every few changes the log goes into the database and begins anew."""
    monkeypatch.setattr("zosfs.content.journal.LOG_MOST", 5 * 4096)
    journal = Journal(tmp_path / "journal")
    journal.open()
    journal.apply([put_record(record("0"))])
    ended = threading.Event()

    def change() -> None:
        number = 0
        while not ended.is_set():
            journal.apply([remove_record(str(number)), put_record(record(str(number + 1)))])
            number += 1

    writer = threading.Thread(target=change)
    writer.start()
    try:
        seen = [0]
        deadline = time.monotonic() + 60
        while len(set(seen)) < 60 and time.monotonic() < deadline:
            looker = Journal(journal.directory)
            looker.look()
            (found,) = looker.records()
            looker.close()
            assert int(found.id) >= seen[-1]
            seen.append(int(found.id))
        assert len(set(seen)) >= 60
    finally:
        ended.set()
        writer.join()
        journal.close()


def test_a_full_disk_is_told_and_nothing_is_lost(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.apply([put_record(record("a"))])
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(OSError, match="cannot be written") as caught:
        journal.apply([put_record(record("b"))])
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    journal.apply([put_record(record("c"))])
    journal.close()
    again = Journal(journal.directory)
    again.open()
    assert sorted(state(again)) == ["a", "c"]
    again.close()


def test_what_the_disk_damaged_is_said(journal: Journal, caplog: pytest.LogCaptureFixture) -> None:
    for name in "abc":
        journal.apply([put_record(record(name))])
    with (journal.directory / "journal.log").open("r+b") as f:
        f.seek(4096 + 100)
        f.write(b"?")
    assert sorted(state(journal)) == ["a", "c"]
    assert "the disk has damaged 1 of what the journal" in caplog.text


# -- replay -----------------------------------------------------------------------------------------------------------------

UPLOAD = UploadRecord("u", "shape", {1: PartInfo(1, "0" * 32, 10)})


@pytest.mark.parametrize(
    ("what", "found", "md5", "step"),
    [
        (record(), None, "", Step.UPLOAD),
        (record(base=info("old")), info("old"), "", Step.UPLOAD),
        (record(base=info("old"), upload=UPLOAD), info("old"), "", Step.CONTINUE),
        (record(), info("mine"), "mine", Step.DELIVERED),
        (record(), info("mine", 11), "mine", Step.CONFLICT),
        (record(base=info("old")), info("theirs"), "mine", Step.CONFLICT),
        (record(base=info("old")), None, "", Step.CONFLICT),
        (record(base=info("old"), expected="made"), info("made"), "", Step.DELIVERED),
        (record(base=info("old"), suspects=["half"]), info("half"), "", Step.REBASE),
        (record(base=info("old"), state=CONFLICT), info("old"), "", Step.CONFLICT),
        (record(base=info("old"), replaced_by="other"), info("other", 20), "", Step.REPLACED),
        (record(base=info("old"), replaced_by="other"), info("old"), "", Step.UPLOAD),
        (record(base=info("old"), replaced_by="old"), info("old"), "", Step.UPLOAD),
        (record(base=info("old", 4), kept=4, dirty=(4, 10), appending=True, replaced_by="other"), info("other"), "", Step.REPLACED),
        (record(base=info("old", 4), kept=4, dirty=(4, 10), appending=True), info("longer", 20), "", Step.UPLOAD),
        (record(base=info("old", 4), kept=4, dirty=(2, 10), appending=True), info("longer", 20), "", Step.CONFLICT),
    ],
)  # fmt: skip
def test_decisions(what: Record, found: ObjectInfo | None, md5: str, step: Step) -> None:
    assert decide(what, found, md5) is step


def test_the_sum_is_asked_for_where_it_can_help() -> None:
    assert needs_sum(record(), info("theirs"))
    assert not needs_sum(record(base=info("old")), info("old"))
    assert not needs_sum(record(base=info("old"), kept=10, dirty=(2, 4)), info("theirs"))
    assert leans_on_base(record(base=info("old"), kept=10, dirty=(0, 9)))
    assert not leans_on_base(record(base=info("old"), kept=10, dirty=(0, 10)))
