"""Texts of option values: what they mean, what is refused, and that what is shown reads back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zosfs.config import MIB
from zosfs.config_values import NAMES, OptionError, kind, parse_duration, parse_size, parse_value, resolve, rows, show


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("4096", 4096), ("1k", 1024), ("16M", 16 * MIB), ("1.5G", 3 << 29), ("2GiB", 2 << 30), ("1TB", 1 << 40)],
)
def test_sizes(text: str, value: int) -> None:
    assert parse_size(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("60", 60), ("500ms", 0.5), ("5m", 300), ("1h30m", 5400), ("2d", 172800), ("-1", -1), ("off", -1), ("0.25", 0.25)],
)
def test_durations(text: str, value: float) -> None:
    assert parse_duration(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "x", "1x", "M", "-5", "1 2", "--"])
def test_what_is_no_size_or_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(text)


@given(st.integers(0, 1 << 50))
def test_a_size_shown_reads_back(size: int) -> None:
    row = NAMES["memory"]
    assert parse_value(row, show(row, size)) == size


def test_every_default_shown_reads_back() -> None:
    for row in rows():
        if row.default not in ("", -1):
            assert parse_value(row, show(row, row.default)) == row.default, row.name


def test_names_and_aliases_are_unique() -> None:
    spelled = [name for row in rows() for name in (row.name, *row.metadata["aliases"])]
    assert len(spelled) == len(set(spelled))
    known = {"bool", "int", "str", "size", "duration", "octal", "path", "user", "group", "moment", "retention"}
    assert all(kind(row) in known for row in rows())


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("posix", None, ("posix", True)),
        ("noposix", None, ("posix", False)),
        ("no-posix", None, ("posix", False)),
        ("tls_verify", "0", ("tls_verify", False)),
        ("no_check_certificate", None, ("tls_verify", False)),
        ("use-path-request-style", None, ("use_path_request_style", True)),
        ("dir-cache-time", "5m", ("metadata_ttl", 300.0)),
        ("multipart_size", "10", ("part_size", 10 * MIB)),
        ("multipart_size", "10M", ("part_size", 10 * MIB)),
        ("part_size", "16777216", ("part_size", 16 * MIB)),
        ("multipart_threshold", "25", ("multipart_threshold", 25 * MIB)),
        ("ensure_diskfree", "200", ("free_space", 200 * MIB)),
        ("writeback", None, ("writeback", 5.0)),
        ("nowriteback", None, ("writeback", -1.0)),
        ("use_sse", None, ("sse", "AES256")),
        ("use_sse", "1", ("sse", "AES256")),
        ("use_sse", "kmsid:abc", ("sse", "aws:kms:abc")),
        ("retention", "Compliance:1h", ("retention", "compliance:1h")),
        ("at", "@1700000000", ("at", 1_700_000_000 * 10**9)),
        ("umask", "0022", ("umask", 0o22)),
        ("uid", "root", ("uid", 0)),
        ("uid", "1000", ("uid", 1000)),
        ("gid", "root", ("gid", 0)),
        ("dbglevel", "warn", ("log_level", "warning")),
        ("endpoint", "http://h", ("url", "http://h")),
        ("endpoint", "cn-north-1", ("region", "cn-north-1")),  # what s3fs calls so
        ("noposix", "1", ("posix", False)),
        ("no-posix", "false", ("posix", True)),
    ],
)
def test_names_as_users_write_them(name: str, text: str | None, expected: tuple[str, object]) -> None:
    assert resolve(name, text) == expected


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("metadat_ttl", "1", "did you mean metadata_ttl"),
        ("usepathrequeststyle", None, "did you mean use_path_request_style"),
        ("zzzzzz", None, "unknown option zzzzzz"),
        ("noregion", None, "unknown option noregion"),
        ("region", None, "needs a value"),
        ("append", "maybe", "one of auto, off"),
        ("retries", "x", "whole number"),
        ("uid", "nobody-of-that-name", "no such user"),
        ("umask", "9", "octal"),
        ("posix", "perhaps", "neither yes nor no"),
        ("noposix", "perhaps", "noposix=perhaps: .*neither yes nor no"),
        ("nowriteback", "5", "unknown option nowriteback"),
    ],
)
def test_refusals_name_the_way_out(name: str, text: str | None, line: str) -> None:
    with pytest.raises(OptionError, match=line):
        resolve(name, text)


@pytest.mark.parametrize("name", ["access_key", "secret_key", "aws-secret-access-key", "session_token", "zosSk", "passwd"])
def test_a_secret_is_refused_and_not_repeated(name: str) -> None:
    with pytest.raises(OptionError, match="passwd_file") as caught:
        resolve(name, "hunter2")
    assert "hunter2" not in str(caught.value)


def test_paths_are_absolute_and_know_the_home_directory() -> None:
    assert resolve("passwd_file", "~/keys", environ={"HOME": "/h"}) == ("passwd_file", "/h/keys")
    assert str(resolve("log_file", "x")[1]).startswith("/")
