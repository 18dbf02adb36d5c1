"""Where options come from and which wins: command line > environment > configuration file > defaults.

Owns: the grammar of -o lists and of the configuration file, the words that mount(8) and fstab add, the checks that need
more than one option. May use: zosfs.config and its values, zosfs.places. Must not know: what a mount does with options.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from zosfs import places
from zosfs.config import MIB, Options
from zosfs.config_values import OptionError, resolve, rows

Pair = tuple[str, str | None]
"""An option as written: name, and the text behind ``=`` (None: bare)."""

KERNEL_FLAGS = frozenset({
    "ro", "rw", "noexec", "exec", "nosuid", "suid", "nodev", "dev", "noatime", "atime", "relatime", "norelatime",
    "strictatime", "lazytime", "nolazytime", "nodiratime", "diratime", "sync", "async", "dirsync", "mand", "nomand", "silent",
    "loud",
})  # fmt: skip
"""Words for the kernel. Those that restrict (`HANDED_ON`) go on to the mount, the others are the way things are anyway."""

HANDED_ON = frozenset({
    "noexec", "nosuid", "nodev", "noatime", "nodiratime", "sync", "dirsync",
})  # fmt: skip

IGNORED = frozenset({
    "_netdev", "nofail", "auto", "noauto", "user", "nouser", "users", "owner", "group", "defaults", "comment", "remount",
    "helper", "uhelper", "user_id", "group_id", "rootmode", "blksize", "max_read", "fd", "default_permissions", "auto_unmount",
    "subtype", "big_writes", "large_read", "kernel_cache", "auto_cache", "noauto_cache", "direct_io", "hard_remove", "use_ino",
    "readdir_ino", "async_read", "sync_read", "atomic_o_trunc", "splice_read", "splice_write", "splice_move", "no_splice_read",
    "no_splice_write", "no_splice_move", "noappledouble", "noapplexattr", "intr", "setuid", "drop_privileges", "sigv4",
    "use_xattr", "complement_stat", "compat_dir", "notsup_compat_dir", "enable_noobj_cache", "disable_noobj_cache",
    "max_stat_cache_size", "stat_cache_interval_expire", "enable_content_md5", "enable_unsigned_payload", "nomixupload",
    "nomultipart", "noua", "list_object_max_keys", "singlepart_copy_limit", "multipart_copy_size", "max_dirty_data",
    "del_cache", "tmpdir", "mime", "instance_name", "ssl_verify_hostname", "check_cache_dir_exist", "curldbg", "nodnscache",
    "nosscache",
})  # fmt: skip
"""Words that mount(8), fstab, libfuse or an s3fs line bring along and that zosfs needs not obey."""


def split_list(text: str) -> list[Pair]:
    """The pairs of an ``-o`` list: commas part, double quotes keep commas in a value and are taken off."""
    words: list[str] = []
    word, quoted = "", False
    for letter in text:
        if letter == '"':
            quoted = not quoted
        elif letter == "," and not quoted:
            words.append(word)
            word = ""
        else:
            word += letter
    if quoted:
        raise OptionError("an option's double quote is not closed")
    words.append(word)
    pairs: list[Pair] = []
    for entry in words:
        name, equals, value = entry.partition("=")
        if name.strip():
            pairs.append((name.strip(), value if equals else None))
        elif equals:
            raise OptionError("an option has no name in front of its =")
    return pairs


@dataclass(frozen=True, slots=True)
class Loaded:
    """The options of one mount, and what else the sources said. *netdev*: ``_netdev`` was among them."""

    options: Options
    netdev: bool = False
    remount: bool = False
    ignored: tuple[str, ...] = ()
    given: Mapping[str, Any] = field(default_factory=dict)


def from_pairs(pairs: Iterable[Pair], *, environ: Mapping[str, str] = os.environ) -> tuple[dict[str, Any], list[str], set[str]]:
    """Values by table name of *pairs* (later ones win), the words ignored, and the kernel's flags that are to be handed on."""
    values: dict[str, Any] = {}
    ignored: list[str] = []
    flags: dict[str, bool] = {}
    for name, text in pairs:
        word = name.replace("-", "_")
        if word == "rw":
            values["ro"] = False
        elif word in KERNEL_FLAGS and word != "ro":
            if word in HANDED_ON:
                flags[word] = True
            else:  # exec after noexec takes it back
                flags.pop("dirsync" if word == "async" else f"no{word}", None)
                if word == "async":
                    flags.pop("sync", None)
        elif word in IGNORED or name.startswith(("x-", "X-")):
            ignored.append(name)
        else:
            key, value = resolve(name, text, environ=environ, also=(*IGNORED, *KERNEL_FLAGS))
            values[key] = value
    return values, ignored, set(flags)


def from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    """Values by table name of ``ZOSFS_<NAME>`` and the further variables of the table; ZOSFS_* win over those."""
    values: dict[str, Any] = {}
    for row in rows():
        for variable in (f"ZOSFS_{row.name.upper()}", *row.metadata["env"]):
            text = environ.get(variable)
            if text:
                try:
                    values[row.name] = resolve(row.name, text, environ=environ)[1]
                except OptionError as error:
                    raise OptionError(f"environment variable {variable}: {error}") from None
                break
    return values


def _table_values(table: Mapping[str, Any], where: str, environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, dict):
            raise OptionError(f"{where}: [{name}] is no section that zosfs knows; [source.\"BUCKET\"] is one source's options")
        if isinstance(value, list):
            raise OptionError(f"{where}: {name}: a list is no option's value")
        text = str(int(value)) if isinstance(value, bool) else str(value)
        try:
            key, parsed = resolve(name, text, environ=environ)
        except OptionError as error:
            raise OptionError(f"{where}: {error}") from None
        values[key] = parsed
    return values


def from_toml(text: str, where: str, names: Sequence[str], environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Values of a configuration file: its top level, then ``[source."NAME"]`` for each of *names*, later ones winning.

    *where* names the file in errors (OptionError).
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise OptionError(f"{where}: {error}; what is no number stands in double quotes") from None
    sources = document.pop("source", {})
    if not isinstance(sources, dict) or not all(isinstance(table, dict) for table in sources.values()):
        raise OptionError(f"{where}: source must be a table of tables, as in [source.\"BUCKET\"]")
    values = _table_values(document, where, environ)
    for name in names:
        values |= _table_values(sources.get(name, {}), f"{where} [source.\"{name}\"]", environ)
    return values


def _read(path: Path, *, needed: bool) -> str | None:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        if needed:
            raise OptionError(f"configuration file {path} does not exist") from None
        return None
    except PermissionError:
        if needed:
            raise OptionError(f"configuration file {path} may not be read by this user") from None
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"configuration file {path}: {error}") from None


def load(
    pairs: Iterable[Pair] = (),
    *,
    names: Sequence[str] = (),
    config_file: str = "",
    environ: Mapping[str, str] = os.environ,
) -> Loaded:
    """The options that hold: *pairs* of the command line over *environ* over configuration files over defaults.

    *names* are the source's names, weakest first (bucket, then the source as written): they choose sections of the
    configuration file, and /etc/zosfs/BUCKET.toml is read besides the general ones. *config_file* replaces them all.
    Raises OptionError.
    """
    pairs = list(pairs)
    values: dict[str, Any] = {}
    config_file = config_file or environ.get("ZOSFS_CONFIG", "")
    if config_file:
        files = [Path(places.expand(config_file, environ))]
    else:
        files = list(places.config_files(environ))
        files[1:1] = [Path("/etc/zosfs") / f"{name}.toml" for name in names if name and "/" not in name and name[0] != "."]
    for path in files:
        text = _read(path, needed=bool(config_file))
        if text is not None:
            values |= from_toml(text, str(path), names, environ)
    values |= from_environ(environ)
    given, ignored, flags = from_pairs(pairs, environ=environ)
    values |= given
    if flags:
        values["kernel_flags"] = ",".join(sorted({*filter(None, values.get("kernel_flags", "").split(",")), *flags}))
    options = Options(**values)
    check(options)
    words = {name for name, _ in pairs}
    return Loaded(options, "_netdev" in words, "remount" in words, tuple(ignored), values)


def check(options: Options) -> None:
    """Raise OptionError for values that cannot be, alone or together."""
    if options.url:
        parts = urlsplit(options.url)
        if "@" in parts.netloc:
            raise OptionError("option url: a secret does not belong into the URL; give -o passwd_file=FILE")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise OptionError(f"option url={options.url}: must look like https://HOST[:PORT]")
    if options.allow_other and options.allow_root:
        raise OptionError("options allow_other and allow_root exclude each other")
    if options.sigv2 and options.sign_payload == "always":
        raise OptionError("option sign_payload=always: signature version 2 cannot sign the payload")
    for name, least in (("part_size", 5 * MIB), ("multipart_threshold", 5 * MIB), ("memory", 16 * MIB), ("read_ahead", 0)):
        if getattr(options, name) < least:
            raise OptionError(f"option {name}: at least {least // MIB}M")
    for name in ("connections", "upload_concurrency", "max_background"):
        if getattr(options, name) < 1:
            raise OptionError(f"option {name}: at least 1")
    for name in ("connect_timeout", "read_timeout", "retry_timeout"):
        if getattr(options, name) <= 0:
            raise OptionError(f"option {name}: must be more than 0 seconds")
    if options.retries < 0:
        raise OptionError("option retries: at least 0")
