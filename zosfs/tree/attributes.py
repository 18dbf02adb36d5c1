"""POSIX attributes and objects' metadata, in the format of s3fs-fuse, so that either tool reads the other's files (pure).

Written: ``mode`` (decimal st_mode with type bits), ``uid``, ``gid`` (decimal), ``mtime``, ``atime``, ``ctime`` (seconds, a dot and
nine digits). Read besides: modes in octal with a leading zero, modes without type bits, fractions of any length as decimal
fractions (rclone trims them), the names of s3sync (permissions, owner, group) and of gcsfuse (goog-reserved-…).
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import mimetypes
import os
import stat
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from zosfs.store.api import ObjectInfo

SECOND = 10**9
DIRECTORY_TYPE = "application/x-directory"
UNKNOWN_TYPE = "application/octet-stream"
_KINDS = frozenset({stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK})
_ID_END = 1 << 32
_TIME_END = 1 << 63
_MODES: dict[int, int] = {}
"""Every mode seen, once: a million files have few modes, and an int of its own for each is 32 MiB."""


@dataclass(slots=True)
class Attributes:
    """What stat(2) shows; *mode* with its S_IFMT bits, *size* in bytes, times in nanoseconds since the epoch."""

    mode: int
    uid: int
    gid: int
    size: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    rdev: int = 0


@dataclass(frozen=True, slots=True)
class Defaults:
    """What objects get that say nothing: owner, and permission bits with the umask applied. Not *special*: whatever they say, they are
    regular files."""

    uid: int
    gid: int
    file_mode: int
    dir_mode: int
    special: bool = True


def _integer(text: str | None, base: int = 10) -> int | None:
    if not text:
        return None
    try:
        return int(text.strip(), base)
    except ValueError:
        return None


def _mode(metadata: Mapping[str, str]) -> int | None:
    text = metadata.get("mode", "").strip()
    if text:
        base = 16 if text.startswith(("0x", "0X")) else 8 if text.startswith("0") and len(text) > 1 else 10
        found = _integer(text, base)
    else:
        found = _integer(metadata.get("permissions"))
        if found is None:
            found = _integer(metadata.get("goog-reserved-posix-mode"), 8)
    return found if found is not None and 0 <= found < 1 << 16 else None


def parse_time(text: str | None) -> int | None:
    """Nanoseconds of a decimal number of seconds; None for anything else, and for what does not fit into 64 bits."""
    if not text or not text.isascii():
        return None
    whole, _, fraction = text.strip().partition(".")
    digits = whole.removeprefix("-")
    if not digits.isdigit() or len(digits) > 10 or (fraction and not fraction.isdigit()):
        return None
    ns = int(digits) * SECOND + int((fraction + "000000000")[:9])
    return None if ns >= _TIME_END else -ns if whole.startswith("-") else ns


def format_time(ns: int) -> str:
    """Seconds with nine digits of fraction, which s3fs-fuse and rclone read alike."""
    sign = "-" if ns < 0 else ""
    return f"{sign}{abs(ns) // SECOND}.{abs(ns) % SECOND:09d}"


def from_object(info: ObjectInfo, is_dir: bool, defaults: Defaults) -> Attributes:
    """The attributes of an object; what it does not say comes from *defaults* and its modification time."""
    metadata = info.metadata or {}
    kind = stat.S_IFDIR if is_dir else stat.S_IFREG
    mode = _mode(metadata)
    if mode is None:
        mode = kind | (defaults.dir_mode if is_dir else defaults.file_mode)
    elif is_dir or not defaults.special or stat.S_IFMT(mode) not in _KINDS:
        mode = kind | stat.S_IMODE(mode)
    uid = _first(metadata, "uid", "owner", "goog-reserved-posix-uid", default=defaults.uid)
    gid = _first(metadata, "gid", "group", "goog-reserved-posix-gid", default=defaults.gid)
    mtime = parse_time(metadata.get("mtime"))
    if mtime is None:
        mtime = parse_time(metadata.get("goog-reserved-file-mtime"))
    if mtime is None:
        mtime = info.modified_ns
    atime = parse_time(metadata.get("atime"))
    ctime = parse_time(metadata.get("ctime"))
    return Attributes(
        mode=_MODES.setdefault(mode, mode), uid=uid, gid=gid, size=0 if is_dir else info.size,
        atime_ns=mtime if atime is None else atime, mtime_ns=mtime, ctime_ns=info.modified_ns if ctime is None else ctime,
        rdev=_first(metadata, "rdev", default=0),
    )  # fmt: skip


def _first(metadata: Mapping[str, str], *names: str, default: int) -> int:
    for name in names:
        found = _integer(metadata.get(name))
        if found is not None and 0 <= found < _ID_END:
            return found
    return default


SAID: Mapping[str, Callable[[Attributes], str]] = {
    "mode": lambda attributes: str(attributes.mode),
    "uid": lambda attributes: str(attributes.uid),
    "gid": lambda attributes: str(attributes.gid),
    "mtime": lambda attributes: format_time(attributes.mtime_ns),
    "atime": lambda attributes: format_time(attributes.atime_ns),
    "ctime": lambda attributes: format_time(attributes.ctime_ns),
}
"""How attributes are written into metadata, by its names."""


def to_metadata(attributes: Attributes, previous: Mapping[str, str]) -> dict[str, str]:
    """The metadata of an object with these attributes; everything of *previous* that is not an attribute is kept."""
    metadata = dict(previous)
    metadata.update((name, said(attributes)) for name, said in SAID.items())
    if attributes.rdev:
        metadata["rdev"] = str(attributes.rdev)
    return metadata


def content_type_for(name: bytes, is_dir: bool) -> str:
    """The Content-Type of a new object by its file name."""
    if is_dir:
        return DIRECTORY_TYPE
    stem = name.lstrip(b".")
    dot = stem.find(b".")
    return _type_of(stem[dot:]) if dot >= 0 else UNKNOWN_TYPE


@functools.lru_cache(1024)
def _type_of(suffix: bytes) -> str:
    guessed, encoding = mimetypes.guess_type(os.fsdecode(b"name" + suffix), strict=False)
    if encoding == "gzip":
        return "application/gzip"
    return guessed if guessed and not encoding else UNKNOWN_TYPE


def decode_xattrs(value: str) -> dict[str, bytes]:
    """Users' extended attributes from the metadata value ``xattr``: percent-encoded JSON of base64. {} for what is no such value."""
    if not value:
        return {}
    try:
        found = json.loads(urllib.parse.unquote(value))
        return {str(name): base64.b64decode(text) for name, text in found.items()}
    except (ValueError, TypeError, AttributeError, RecursionError, binascii.Error):
        return {}


def encode_xattrs(values: Mapping[str, bytes]) -> str:
    """The metadata value that holds *values*."""
    text = json.dumps({name: base64.b64encode(value).decode() for name, value in values.items()}, separators=(",", ":"))
    return urllib.parse.quote(text, safe="/-_.~")
