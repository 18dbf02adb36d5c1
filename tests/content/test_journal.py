"""The journal on the disk: what was put is there for the next run, damaged or newer journals are refused, and replays decide right."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zosfs.content.delivery import UploadRecord
from zosfs.content.journal import (
    CONFLICT,
    Deletion,
    Journal,
    Record,
    Upload,
    put_deletion,
    put_record,
    put_upload,
    remove_record,
)
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
