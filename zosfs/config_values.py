"""Texts to typed option values and back: sizes, durations, modes, users.

Owns: the grammar of a value. May use: zosfs.config. Must not know: where a text came from.
"""

from __future__ import annotations

import dataclasses
import difflib
import grp
import os
import pwd
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from zosfs import places
from zosfs.config import KIB, MIB, Options
from zosfs.moments import parse_moment, show_moment

SECRET_NAMES = frozenset({
    "access_key", "secret_key", "access_key_id", "secret_access_key", "aws_access_key_id", "aws_secret_access_key",
    "s3_access_key_id", "s3_secret_access_key", "ak", "sk", "zosak", "zossk", "session_token", "aws_session_token",
    "s3_session_token", "password", "passwd",
})  # fmt: skip
"""Options of other tools that would put a secret where ps, mountinfo and unit files show it."""

UNVERIFIED = ("no_check_certificate", "no_check_cert", "no_verify_ssl")
"""What s3fs, rclone and the AWS tools call ``notls_verify``."""

_IMPLIED = {"writeback": "5s", "sse": "AES256"}  # what a bare name stands for where the type alone does not say
_OFF = {"writeback": "-1", "sse": "", "append": "off", "tags": "", "acl": ""}  # what a `no` in front stands for
_MEGABYTES = frozenset({"multipart_size", "multipart_threshold", "ensure_diskfree"})  # s3fs gives these in MB
_SYNONYMS: Mapping[str, Mapping[str, str]] = {
    "log_level": {
        "dbg": "debug", "trace": "debug", "notice": "info", "warn": "warning", "err": "error",
        "crit": "error", "critical": "error",
    },
    "sse": {"1": "AES256", "": "AES256"},
}  # fmt: skip
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTP]?)(i?B?)", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|)")
_REGION = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)+")
_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TRUE = frozenset({"1", "yes", "true", "on"})
_FALSE = frozenset({"0", "no", "false", "off"})


class OptionError(ValueError):
    """An option that cannot be taken; the text is the line to print. Never carries a secret's value."""


def rows() -> tuple[dataclasses.Field[Any], ...]:
    """The rows of the option table, in its order."""
    return dataclasses.fields(Options)


def _names() -> dict[str, dataclasses.Field[Any]]:
    table = {}
    for row in rows():
        for name in (row.name, *row.metadata["aliases"]):
            table[name] = row
    return table


NAMES: Mapping[str, dataclasses.Field[Any]] = _names()
"""Every name and alias, with underscores, and its row."""


def kind(row: dataclasses.Field[Any]) -> str:
    """The kind of a row's values: bool, int, float, str, or one of the table's kinds."""
    return row.metadata["kind"] or str(row.type)


def parse_size(text: str) -> int:
    """Bytes: ``4096``, ``16M``, ``1.5GiB`` (powers of 1024). ValueError otherwise."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError("not a size (a number of bytes, or with K, M, G, T)")
    power = " KMGTP".index(match[2].upper() or " ")
    return int(float(match[1]) * KIB**power)


def parse_duration(text: str) -> float:
    """Seconds: ``60``, ``500ms``, ``5m``, ``1h30m``; ``-1`` and ``off`` mean never and give -1. ValueError otherwise."""
    text = text.strip()
    if text in ("-1", "off"):
        return -1.0
    if re.fullmatch(rf"(?:{_DURATION.pattern})+", text) is None or not text:
        raise ValueError("not a duration (seconds, or with ms, s, m, h, d)")
    return float(sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text)))


def parse_bool(text: str) -> bool:
    """1 yes true on, 0 no false off. ValueError otherwise."""
    word = text.strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ValueError("neither yes nor no")


def _parse_octal(text: str) -> int:
    text = text.strip().lower().removeprefix("0o")
    if re.fullmatch(r"[0-7]{1,5}", text) is None:
        raise ValueError("not an octal mode such as 0644")
    return int(text, 8)


def _parse_user(text: str) -> int:
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise ValueError("no such user") from None


def _parse_group(text: str) -> int:
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise ValueError("no such group") from None


def _parse_retention(text: str) -> str:
    mode, _, how_long = text.strip().partition(":")
    if not text.strip():
        return ""
    if mode.lower() not in ("governance", "compliance"):
        raise ValueError("neither governance:TIME nor compliance:TIME")
    if not 1 <= parse_duration(how_long) <= 36500 * _UNITS["d"]:
        raise ValueError("must be between a second and a hundred years")
    return f"{mode.lower()}:{how_long.strip()}"


def _parse_int(text: str) -> int:
    try:
        return int(text, 10)
    except ValueError:
        raise ValueError("not a whole number") from None


def parse_value(row: dataclasses.Field[Any], text: str, *, spelled: str = "", environ: Mapping[str, str] = os.environ) -> Any:
    """The value of *row* that *text* stands for; *spelled* is the name as written (s3fs's names count in MB).

    Raises OptionError with the line to print.
    """
    spelled = spelled or row.name
    what = kind(row)
    text = _SYNONYMS.get(row.name, {}).get(text.strip(), text)
    if row.name == "sse" and text.startswith("kmsid"):
        text = "aws:kms" + text.removeprefix("kmsid")
    try:
        if what == "size":
            value: Any = parse_size(text)
            if spelled in _MEGABYTES and text.strip().isdigit() and value < MIB:
                value *= MIB
        elif what == "duration":
            value = parse_duration(text)
        elif what == "moment":
            value = parse_moment(text, datetime.now().astimezone()) if text.strip() not in ("", "0") else 0
        elif what == "octal":
            value = -1 if text.strip() == "-1" else _parse_octal(text)
        elif what == "user":
            value = _parse_user(text)
        elif what == "group":
            value = _parse_group(text)
        elif what == "bool":
            value = parse_bool(text)
        elif what == "int":
            value = _parse_int(text)
        elif what == "retention":
            value = _parse_retention(text)
        elif what == "path":
            value = places.expand(text, environ)
        else:
            value = text
    except ValueError as error:
        raise OptionError(f"option {spelled}={text}: {error}") from None
    choices = row.metadata["choices"]
    if choices and value not in choices:
        raise OptionError(f"option {spelled}={text}: one of {', '.join(choices)}")
    return value


def resolve(name: str, text: str | None, *, environ: Mapping[str, str] = os.environ, also: Iterable[str] = ()) -> tuple[str, Any]:
    """The table's name and the typed value for *name* as a user may write it, who may have meant one of *also*.

    Takes dashes for underscores, aliases, a bare name (booleans: true), ``noNAME`` (booleans: also with a value), and s3fs's
    ``no_check_certificate``. Raises OptionError for what is unknown (naming the nearest known name), for a missing value, and for secrets.
    """
    spelled = name.strip().replace("-", "_")
    if spelled.lower() in SECRET_NAMES:
        raise OptionError(
            f"option {spelled}: a secret does not belong on a command line or in a mount option, where everybody can read it; "
            "put ACCESS_KEY:SECRET_KEY into a file of mode 0600 and give -o passwd_file=FILE"
        )
    if spelled in UNVERIFIED:
        spelled, text = "tls_verify", "1" if text is not None and text.strip() in _FALSE else "0"
    if spelled == "endpoint" and text is not None and _REGION.fullmatch(text.strip()):
        spelled = "region"  # what s3fs calls so
    row = NAMES.get(spelled)
    if row is None and spelled.startswith("no"):
        positive = NAMES.get(spelled[2:].removeprefix("_"))
        if positive is not None and kind(positive) == "bool":
            return positive.name, not parse_value(positive, "1" if text is None else text, spelled=spelled, environ=environ)
        if positive is not None and positive.name in _OFF and text is None:
            row, text = positive, _OFF[positive.name]
    if row is None:
        near = difflib.get_close_matches(spelled, [*NAMES, *(f"no{r.name}" for r in rows() if kind(r) == "bool"), *also], 1, 0.6)
        hint = f"; did you mean {near[0]}?" if near else "; `zosfs mount --help` lists the options"
        raise OptionError(f"unknown option {spelled}{hint}")
    if text is None:
        implied = "1" if kind(row) == "bool" else _IMPLIED.get(row.name)
        if implied is None:
            raise OptionError(f"option {spelled} needs a value: {spelled}=… ({row.metadata['help']})")
        text = implied
    return row.name, parse_value(row, text, spelled=spelled, environ=environ)


def show(row: dataclasses.Field[Any], value: Any) -> str:
    """*value* as a person would write it for *row*; `parse_value` reads it back."""
    what = kind(row)
    if what == "bool":
        return "1" if value else "0"
    if what == "octal" and value >= 0:
        return f"{value:04o}"
    if what == "size":
        for suffix, unit in (("T", KIB**4), ("G", KIB**3), ("M", KIB**2), ("K", KIB)):
            if value and value % unit == 0:
                return f"{value // unit}{suffix}"
        return str(value)
    if what == "duration":
        return f"{value:g}"
    if what == "moment":
        return show_moment(value) if value else ""
    return str(value)
