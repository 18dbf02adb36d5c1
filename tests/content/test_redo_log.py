"""The journal's log: whatever is torn, garbled or left over, exactly what was answered comes back."""

from __future__ import annotations

import errno
import os
import select
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zosfs.content.direct import LARGEST
from zosfs.content.redo_log import BLOCK, RedoLog, frame, frames

SALT, OTHER = b"s" * 16, b"o" * 16

long = st.builds(lambda n, byte: bytes([byte]) * n, st.integers(0, 2 * BLOCK), st.integers(0, 255))
payloads = st.lists(st.one_of(st.binary(max_size=100), long), max_size=5)


@settings(deadline=None, max_examples=60)
@given(payloads, st.data(), st.binary(max_size=2 * BLOCK))
def test_any_prefix_with_any_tail_replays_what_was_answered(written: list[bytes], data: st.DataObject, tail: bytes) -> None:
    made = [frame(SALT, number, payload) for number, payload in enumerate(written)]
    assert all(len(each) % BLOCK == 0 for each in made)
    whole = b"".join(made)
    cut = data.draw(st.integers(0, len(whole)), "cut")
    found = frames(SALT, whole[:cut] + tail)
    at, answered = 0, 0
    while answered < len(made) and at + len(made[answered]) <= cut:
        at += len(made[answered])
        answered += 1
    # the one that was being written may be there, too, where all that is missing are zeros behind it
    assert found.payloads in (written[:answered], written[: answered + 1])
    if len(found.payloads) > answered:
        assert made[answered].rstrip(b"\0") in whole[at:cut] + tail + bytes(BLOCK)
    assert found.damaged == 0
    assert found.next_number == len(found.payloads)
    assert found.end <= len(whole)


@settings(deadline=None, max_examples=60)
@given(payloads, payloads, st.data())
def test_what_is_left_of_before_is_never_taken_for_new(before: list[bytes], since: list[bytes], data: st.DataObject) -> None:
    old = b"".join(frame(OTHER, number, payload) for number, payload in enumerate(before))
    new = b"".join(frame(SALT, number, payload) for number, payload in enumerate(since))
    cut = data.draw(st.integers(0, len(new)), "cut") // BLOCK * BLOCK
    found = frames(SALT, new[:cut] + old[cut:])
    assert found.payloads == since[: len(found.payloads)]
    assert frames(OTHER, new + old[len(new) :]).payloads == [] or len(old) > len(new)


@settings(deadline=None, max_examples=60)
@given(payloads.filter(bool), st.data())
@example([b"", b""], None).via("two frames, the first one damaged")
def test_a_damaged_frame_takes_no_other_with_it(written: list[bytes], data: Any) -> None:
    made = [bytearray(frame(SALT, number, payload)) for number, payload in enumerate(written)]
    hit = data.draw(st.integers(0, len(made) - 1), "hit") if data is not None else 0
    at = data.draw(st.integers(0, 47 + len(written[hit])), "at") if data is not None else 5
    made[hit][at] ^= 0xFF
    found = frames(SALT, b"".join(made))
    assert found.payloads == [payload for number, payload in enumerate(written) if number != hit]
    assert found.damaged == (1 if hit < len(made) - 1 else 0), "at the end it cannot be told from one that was never finished"


def test_bytes_of_a_user_that_look_like_a_frame_are_none() -> None:
    """A file that holds the bytes of a frame, where a block begins, in a frame that is torn or damaged."""
    forged = frame(b"", 7, b"forged")
    outer = bytearray(frame(SALT, 0, bytes(BLOCK - 48) + forged))
    assert outer[BLOCK:].startswith(forged)
    outer[0] ^= 0xFF
    assert frames(SALT, bytes(outer)).payloads == []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a" / "b" / "journal.log"


def opened(path: Path, salt: bytes = SALT) -> RedoLog:
    path.parent.mkdir(parents=True, exist_ok=True)
    log = RedoLog(path)
    log.open(salt)
    return log


def test_it_goes_on_behind_what_is_there(path: Path) -> None:
    log = opened(path)
    log.append(b"one")
    log.append(b"two" * BLOCK)
    log.close()
    log = opened(path)
    log.append(b"three")
    assert log.gathered().payloads == [b"one", b"two" * BLOCK, b"three"]
    assert path.stat().st_mode & 0o777 == 0o600
    size = path.stat().st_size
    log.restart(OTHER)
    assert log.gathered().payloads == []
    log.append(b"anew")
    assert path.stat().st_size == size, "the file is written over"
    log.close()
    again = opened(path, OTHER)
    assert again.gathered().payloads == [b"anew"]
    again.close()


@pytest.mark.parametrize("how", ["refused", "torn", "refused after all was written"])
def test_a_write_that_fails_counts_as_not_made(path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    log = opened(path)
    log.append(b"before")
    pwrite = os.pwrite
    calls = 0

    def failing(fd: int, data: bytes, at: int) -> int:
        nonlocal calls
        calls += 1
        if how == "torn" and calls == 1:
            return pwrite(fd, data[: BLOCK + 7], at)
        if how == "refused after all was written":
            pwrite(fd, data, at)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", failing)
    with pytest.raises(OSError, match="No space"):
        log.append(b"x" * 3 * BLOCK)
    monkeypatch.undo()
    log.append(b"after")
    assert log.gathered().payloads == [b"before", b"after"]
    assert log.gathered().damaged == 0
    log.close()
    again = opened(path)
    assert again.gathered().payloads == [b"before", b"after"]
    again.close()


def test_a_full_disk_takes_what_fits_into_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(path)
    log.append(bytes(3 << 20))
    log.append(b"the file has grown")
    pwrite = os.pwrite
    size = path.stat().st_size

    def full(fd: int, data: bytes, at: int) -> int:
        if at + len(data) > size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(fd, data, at)

    monkeypatch.setattr(os, "pwrite", full)
    kept = 2
    while log.end + (1 << 16) <= size:
        log.append(b"y" * 60_000)
        kept += 1
    with pytest.raises(OSError, match="No space"):
        log.append(bytes(size))
    assert kept > 10
    assert len(log.gathered().payloads) == kept
    log.close()


def test_the_last_frames_damage_is_seen_by_who_wrote_it(path: Path) -> None:
    log = opened(path)
    log.append(b"good")
    end = log.end
    log.append(b"bad")
    with path.open("r+b") as f:
        f.seek(end + 50)
        f.write(b"?")
    found = log.gathered()
    assert (found.payloads, found.damaged) == ([b"good"], 1)
    log.close()


def prompt(path: Path) -> RedoLog:
    """A log whose file has room, so that the disk writes the next frames by itself."""
    log = opened(path)
    log.append(b"first")
    if log.begin(b"") < 0:
        pytest.skip("this disk does not take writes by itself")
    ended(log)
    return log


def ended(log: RedoLog) -> bool:
    assert log._direct is not None
    looking = select.poll()
    looking.register(log._direct.ended, select.POLLIN)
    assert looking.poll(60_000)
    return log.finish()


def test_what_the_disk_writes_by_itself_lies_there_as_what_is_appended(path: Path) -> None:
    log = prompt(path)
    for number in range(20):
        assert log.begin(b"%d" % number * 1000) >= 0
        assert ended(log)
        log.append(b"between")
    expected = [b"first", b"", *(each for number in range(20) for each in (b"%d" % number * 1000, b"between"))]
    assert log.gathered().payloads == expected
    log.close()
    again = opened(path)
    assert again.gathered().payloads == expected
    again.close()


def test_a_write_that_the_disk_did_not_end_counts_as_not_made(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = prompt(path)
    assert log._direct is not None
    finish = log._direct.finish
    monkeypatch.setattr(log._direct, "finish", lambda: finish() and False)
    end = log.end
    assert log.begin(b"lost") >= 0
    assert not ended(log)
    assert log.end == end
    monkeypatch.undo()
    log.append(b"instead")
    assert log.gathered().payloads == [b"first", b"", b"instead"]
    assert log.gathered().damaged == 0
    log.close()


def test_what_is_no_write_over_bytes_that_are_there_is_left_to_append(path: Path) -> None:
    log = prompt(path)
    end = log.end
    assert log.begin(bytes(LARGEST)) == -1, "large"
    while log.end + 2 * BLOCK <= path.stat().st_size:
        log.append(bytes(BLOCK))
    assert log.begin(bytes(BLOCK)) == -1, "the file has to grow"
    assert log.end > end
    log.append(bytes(BLOCK))
    assert log.begin(b"more") >= 0, "it has grown"
    assert ended(log)
    assert log.gathered().payloads[-1] == b"more"
    log.close()


def test_a_disk_that_keeps_the_caller_waiting_is_not_asked_again_for_a_while(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = prompt(path)
    assert log._direct is not None
    monkeypatch.setattr(log._direct._pace, "prompt", lambda now: False)
    assert log.begin(b"x") == -1
    log.append(b"x")
    assert log.gathered().payloads == [b"first", b"", b"x"]
    log.close()
