"""Points in time as people write them (pure).

Owns: the forms that are understood. RFC 3339 (https://www.rfc-editor.org/rfc/rfc3339), dates, seconds since the epoch as
`@1700000000`, and times before now: `3 hours ago`, `2d`, `yesterday`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

SECOND = 10**9
_UNITS = {
    "s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60, "h": 3600, "hour": 3600, "d": 86400, "day": 86400,
    "w": 604800, "week": 604800,
}  # fmt: skip
_PART = r"(\d+(?:\.\d+)?)\s*([a-z]+)"
_AGO = re.compile(rf"{_PART}(?:[\s,]*(?:and\s+)?{_PART})*(?:\s+ago)?")


def parse_moment(text: str, now: datetime) -> int:
    """Nanoseconds since the epoch of *text*; what has no zone is in *now*'s. ValueError for what is no time, or not past."""
    word = " ".join(text.strip().lower().split())
    if not word:
        raise ValueError("no time is given")
    if re.fullmatch(r"@\d{1,11}(?:\.\d{1,9})?", word):
        whole, _, rest = word[1:].partition(".")
        moment = int(whole) * SECOND + int(rest.ljust(9, "0") or 0)
    elif word in ("yesterday", "now"):
        moment = _nanoseconds(now - timedelta(days=word == "yesterday"))
    elif _AGO.fullmatch(word):
        moment = _nanoseconds(now) - sum(_span(number, unit) for number, unit in re.findall(_PART, word))
    else:
        moment = _absolute(text.strip(), now)
    if moment > _nanoseconds(now):
        raise ValueError(f"{show_moment(moment)} is not past")
    if moment <= 0:
        raise ValueError("before 1970")
    return moment


def show_moment(moment: int) -> str:
    """*moment* (nanoseconds since the epoch) in RFC 3339, in UTC; `parse_moment` reads it back."""
    seconds, rest = divmod(moment, SECOND)
    text = (datetime(1970, 1, 1) + timedelta(seconds=seconds)).isoformat()
    return f"{text}.{rest:09}".rstrip("0").rstrip(".") + "Z"


def _span(number: str, unit: str) -> int:
    seconds = _UNITS.get(unit) or _UNITS.get(unit.removesuffix("s"))
    if seconds is None:
        raise ValueError(f"{unit} is no unit of time (s, m, h, d, w)")
    whole, _, rest = number.partition(".")
    return seconds * (int(whole) * SECOND + int(rest[:9].ljust(9, "0") or 0))


def _absolute(text: str, now: datetime) -> int:
    fraction = re.search(r"\.(\d{1,9})", text)
    rest = int(fraction[1].ljust(9, "0")) if fraction else 0
    try:
        found = datetime.fromisoformat(re.sub(r"\.\d{1,9}", "", text, count=1).upper().replace(" Z", "Z"))
    except ValueError:
        raise ValueError("not a time (2026-11-21T08:00:00Z, 2026-11-21 08:00, 3 hours ago, 2d)") from None
    return _nanoseconds(found if found.tzinfo else found.replace(tzinfo=now.tzinfo)) + rest


def _nanoseconds(moment: datetime) -> int:
    span = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (span.days * 86400 + span.seconds) * SECOND + span.microseconds * 1000
