"""The log: no secret in it, no waiting for it, level and file by signal."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zosfs.mount.log import LEVELS, Log, Redaction, secrets_of


@pytest.fixture(autouse=True)
def _root_logger_as_before() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)
    logging.getLogger("zosfs").setLevel(logging.NOTSET)
    logging.captureWarnings(False)


@given(st.text("abcd+/=", min_size=4), st.text("abcd+/=é "), st.text("abcd+/=é "))
def test_a_known_secret_is_never_left(secret: str, before: str, after: str) -> None:
    assert secret not in Redaction([secret])(before + secret + after)


@pytest.mark.parametrize(
    "text",
    [
        "GET /k?X-Amz-Signature=0123abcd&x=1",
        "GET /k?AWSAccessKeyId=AKIA&Signature=0123abcd%3D&Expires=1",
        "Authorization: AWS4-HMAC-SHA256 Credential=0123abcd/2026/x, SignedHeaders=host, Signature=0123abcd",
        "x-amz-security-token: 0123abcd",
    ],
)
def test_signatures_are_taken_out(text: str) -> None:
    assert "0123abcd" not in Redaction()(text)


def test_secrets_are_known_from_files_and_environment(tmp_path: Path) -> None:
    passwd, token = tmp_path / "p", tmp_path / "t"
    passwd.write_text("# comment\nak:secret-one\nbucket:ak:secret-two\n")
    token.write_text("token-three\n")
    found = secrets_of(str(passwd), str(token), {"AWS_SECRET_ACCESS_KEY": "four", "zosSk": "five"})
    assert set(found) == {"secret-one", "secret-two", "token-three", "four", "five"}


def test_a_file_is_written_reopened_and_free_of_secrets(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = Log(file=str(path), secrets=["hunter2"])
    logger = logging.getLogger("zosfs.test")
    try:
        raise ValueError("with hunter2 inside")
    except ValueError:
        logger.exception("it is %s", "hunter2")
    logger.debug("unseen")
    path.rename(tmp_path / "old")
    log.reopen()
    logger.info("after the rotation")
    log.close()
    old = (tmp_path / "old").read_text() + path.read_text()
    assert "hunter2" not in old
    assert "ValueError: with *** inside" in old
    assert "unseen" not in old
    assert "after the rotation" in path.read_text()


def test_levels_go_round(tmp_path: Path) -> None:
    log = Log(file=str(tmp_path / "log"), level="info")
    assert [log.cycle() for _ in LEVELS] == ["debug", "error", "warning", "info"]
    log.close()


def test_without_syslog_a_file_is_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.exists", lambda path: False)
    log = Log(fallback=tmp_path / "log" / "mount.log")
    logging.getLogger("zosfs.test").warning("here")
    log.close()
    assert "here" in (tmp_path / "log" / "mount.log").read_text()
    assert log.where.endswith("mount.log")


def test_a_log_on_a_full_disk_is_no_traceback_on_the_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    log = Log(file="/dev/full")
    logging.getLogger("zosfs.test").warning("nowhere to write this")
    log.close()
    assert capfd.readouterr().err == ""


def test_a_flood_is_dropped_and_counted(tmp_path: Path) -> None:
    log = Log(file=str(tmp_path / "log"))
    log._handlers.acquire()  # the writing thread stands still
    logger = logging.getLogger("zosfs.test")
    for number in range(10_100):
        logger.info("message %d", number)
    log._handlers.release()
    deadline = time.monotonic() + 60
    while not log._front.queue.empty() and time.monotonic() < deadline:  # type: ignore[attr-defined]
        time.sleep(0.01)
    logger.info("the last")
    log.close()
    text = (tmp_path / "log").read_text()
    assert "messages were dropped" in text
    assert "the last" in text


def test_syslog_gets_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "devlog")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.bind(path)
        link.settimeout(60)
        monkeypatch.setattr("zosfs.mount.log.SYSLOG", path)
        log = Log()
        logging.getLogger("zosfs.test").error("hello")
        line = link.recv(4096).decode()
        log.close()
    assert line.startswith("<27>zosfs[")
    assert line.endswith("zosfs.test: hello")
