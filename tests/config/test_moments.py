"""Points in time as people write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zosfs.moments import parse_moment, show_moment

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=timezone(timedelta(hours=8)))
SECOND = 10**9


def at(year: int, month: int, day: int, hour: int = 0, minute: int = 0, second: int = 0) -> int:
    return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()) * SECOND


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-20T08:00:00Z", at(2026, 11, 20, 8)),
        ("2026-11-20t08:00:00.25z", at(2026, 11, 20, 8) + SECOND // 4),
        ("2026-11-20 08:00:00+02:00", at(2026, 11, 20, 6)),
        ("2026-11-20 08:00", at(2026, 11, 20, 0)),  # in the zone of now
        ("2026-11-20", at(2026, 11, 19, 16)),
        ("@1700000000", 1_700_000_000 * SECOND),
        ("@1700000000.5", 1_700_000_000 * SECOND + SECOND // 2),
        ("now", at(2026, 11, 21, 4)),
        ("yesterday", at(2026, 11, 20, 4)),
        ("3 hours ago", at(2026, 11, 21, 1)),
        ("1 day and 2 hours ago", at(2026, 11, 20, 2)),
        ("2d", at(2026, 11, 19, 4)),
        ("1h30m", at(2026, 11, 21, 2, 30)),
        ("1.5 minutes ago", at(2026, 11, 21, 3, 58, 30)),
        ("1 Week ago", at(2026, 11, 14, 4)),
    ],
)
def test_forms(text: str, moment: int) -> None:
    assert parse_moment(text, NOW) == moment


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "no time"), ("soon", "not a time"), ("3 parsecs ago", "no unit of time"), ("2026-13-01", "not a time"),
        ("2026-11-22", "not past"), ("9000 weeks ago", "before 1970"), ("12", "not a time"),
    ],
)  # fmt: skip
def test_refusals(text: str, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        parse_moment(text, NOW)


@given(st.integers(1, 1_795_000_000 * SECOND))
def test_what_is_shown_is_read_back(moment: int) -> None:
    assert parse_moment(show_moment(moment), NOW) == moment
