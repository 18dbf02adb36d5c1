"""The man page zosfs(8), made from the tables of commands and options; `zosfs install` puts it into place.

Owns: the page's layout, and roff's escapes (groff_man(7), groff_char(7)). May use: every table that a reader is told of.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from zosfs import __version__
from zosfs.cli.examples import EXAMPLES
from zosfs.cli.main import COMMANDS
from zosfs.cli.mount import add_arguments
from zosfs.cli.options import Parser, default_of, metavar_of
from zosfs.cli.options_page import RULES
from zosfs.config_values import UNVERIFIED, kind, rows
from zosfs.mount.install import UNIT, WRAPPER
from zosfs.mount.refusal import FAILED, USAGE
from zosfs.store.credentials import ENVIRONMENT

FSTAB = (
    "mybucket        /mnt/mybucket  fuse.zosfs  _netdev,nofail,url=https://huabei-2.zos.ctyun.cn,passwd_file=/etc/zosfs.passwd  0 0",
    "mybucket:/logs  /mnt/logs      fuse.zosfs  _netdev,nofail,allow_other,noposix  0 0",
)
"""Lines of /etc/fstab: all in one, and one whose endpoint and keys a configuration file names."""

# a plain - ' ` ^ or ~ may be shown as a typographic one, which cannot be searched for, nor copied to a command line
_ESCAPES = str.maketrans({
    "\\": r"\e", "-": r"\-", "'": r"\(aq", '"': r"\(dq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti", "…": "...",
})  # fmt: skip


def escape(text: str) -> str:
    """*text* as a line of roff that shows exactly it (an ellipsis as three dots), in ASCII, for no page tells its encoding."""
    plain = "".join(letter if letter.isascii() else f"\\[u{ord(letter):04X}]" for letter in text.translate(_ESCAPES))
    return rf"\&{plain}" if plain.startswith(".") else plain


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _prose(text: str) -> str:
    """*text* as one line; what stands between backticks is bold."""
    words = re.split("`([^`]*)`", " ".join(text.split()))
    return "".join(rf"\fB{escape(word)}\fP" if at % 2 else escape(word) for at, word in enumerate(words))


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.strip().split("\n\n"):
        yield ".PP"
        yield _prose(paragraph)


def _items(*items: tuple[str, str]) -> Iterator[str]:
    for tag, text in items:
        yield from (".TP", _prose(tag), _prose(text))


def _literally(*lines: str) -> Iterator[str]:
    yield ".EX"
    yield from map(escape, lines)
    yield ".EE"


def _commands() -> Iterator[str]:
    for name, _, help in COMMANDS:
        yield from _items((f"`zosfs {name}`", _sentence(help)))
        yield from _literally(*EXAMPLES.get(name, ()))


def _option(row: dataclasses.Field[Any]) -> tuple[str, str]:
    boolean = kind(row) == "bool"
    tag = f"`{row.name}`, `no{row.name}`" if boolean else f"`{row.name}`={metavar_of(row)}"
    default = ("on" if row.default else "off") if boolean else default_of(row)
    said = [row.metadata["help"]]
    if default:
        said.append(f"Default: {default}")
    if row.metadata["aliases"]:
        said.append(f"Also: {', '.join(f'`{name}`' for name in row.metadata['aliases'])}")
    if row.name == "tls_verify":
        said.append(f"For `notls_verify` also: {', '.join(f'`{name}`' for name in UNVERIFIED)}")
    return tag, _sentence(". ".join(said))


def _options() -> Iterator[str]:
    parser = Parser()
    add_arguments(parser)
    for flag in parser._optionals._group_actions:
        if flag.help != argparse.SUPPRESS:
            value = f" {flag.metavar}" if flag.metavar else ""
            yield from _items((", ".join(f"`{name}`" for name in flag.option_strings) + value, _sentence(flag.help or "")))
    yield from _paragraphs(RULES)
    yield from _paragraphs("After \"Also\" stand the names that s3fs, rclone and other tools have for an option; they are taken, too.")
    group = ""
    for row in rows():
        if row.metadata["group"] != group:
            group = row.metadata["group"]
            yield f".SS {escape(group[0].upper() + group[1:])}"
        yield from _items(_option(row))


def _files() -> Iterator[str]:
    yield from _items(
        ("~/.passwd-zosfs, /etc/passwd-zosfs",
         "Credentials, where neither an option nor the environment gives any: lines ACCESS_KEY:SECRET_KEY, or "
         "BUCKET:ACCESS_KEY:SECRET_KEY as in s3fs. As any `passwd_file`, they must have mode 0600. Without these, what the AWS tools find "
         "(~/.aws/credentials, roles of the machine) is taken."),
        ("/etc/zosfs/config.toml, /etc/zosfs/BUCKET.toml, ~/.config/zosfs/config.toml", "Options; later files win."),
        ("/var/cache/zosfs, ~/.cache/zosfs",
         "Chunk cache and journal of root's mounts, and of other users' (`cache_dir`). What is not delivered yet lies here."),
        ("/run/zosfs, /run/user/UID/zosfs, /tmp/zosfs-UID", "What tells which mounts of root, and of other users, are alive."),
        (f"/{WRAPPER}", "What mount(8), umount(8) and systemd call, as `zosfs install` wrote it."),
        (f"/{UNIT}, /etc/zosfs/BUCKET.env",
         "A bucket mounted as a service, `systemctl enable --now zosfs@BUCKET`, and the variables of that service: `ZOSFS_SOURCE` and "
         "`ZOSFS_MOUNTPOINT` say what is mounted where."),
    )  # fmt: skip


def _environment() -> Iterator[str]:
    yield from _items(
        ("`ZOSFS_NAME`", "The option NAME, in capitals, such as `ZOSFS_URL`."),
        *((", ".join(f"`{name}`" for name in row.metadata["env"]), f"The option `{row.name}`.") for row in rows() if row.metadata["env"]),
        ("`ZOSFS_CONFIG`", "A configuration file that is read instead of all others."),
        *((", ".join(f"`{name}`" for name in names if name), "Access key, secret key" + (", session token." if names[2] else "."))
          for names in ENVIRONMENT),
        ("`XDG_CONFIG_HOME`, `XDG_CACHE_HOME`", "Stand for ~/.config and ~/.cache."),
        ("`ZOSFS_RUNTIME_DIR`, `XDG_RUNTIME_DIR`/zosfs", "Stand for /run/user/UID/zosfs."),
    )  # fmt: skip


def page() -> str:
    """The whole page, ending with a newline."""
    return "\n".join((
        f'.TH ZOSFS 8 "" "zosfs {escape(__version__)}"',
        ".nr HY 0",
        ".nh",
        ".ad l",
        ".SH NAME",
        r"zosfs, mount.fuse.zosfs \- mount buckets of ZOS and of S3 servers as directories",
        ".SH SYNOPSIS",
        r"\fBzosfs\fP \fISOURCE DIR\fP [\fB\-o\fP \fIOPTION\fP[=\fIVALUE\fP],...] [\fB\-f\fP] [\fB\-d\fP]",
        ".br",
        r"\fBzosfs\fP \fICOMMAND\fP ...",
        ".br",
        r"\fBmount \-t fuse.zosfs\fP \fISOURCE DIR\fP [\fB\-o\fP \fIOPTION\fP[=\fIVALUE\fP],...]",
        ".SH DESCRIPTION",
        *_paragraphs("""
`zosfs` mounts the bucket SOURCE on DIR. Programs read, write, append, rename and link there as on a local disk, and what they close is
in the store. One object is one file, in the format of s3fs(1), so that other tools go on working with the same bucket.

SOURCE is `BUCKET`, `BUCKET:/PREFIX`, `zos://BUCKET/PREFIX`, or `zos:` for all buckets of the account, one directory each. A bucket that
is named like a command is mounted with the word: `zosfs mount NAME DIR`. Names that begin with a dash stand behind `--`.

The command returns when the mount is live, or says in one line why it cannot be. `umount DIR` waits until everything is delivered.
"""),
        ".SH COMMANDS",
        *_paragraphs("""
A file or directory is a path on a mount, or `zos://BUCKET/KEY` with `--url` and the other options of a connection. `--json` prints for
programs. `zosfs COMMAND --help` says more of a command.
"""),
        *_commands(),
        ".SH OPTIONS",
        *_options(),
        ".SH FSTAB",
        *_paragraphs("After `zosfs install`, lines of /etc/fstab mount at boot; what they lack is taken from /etc/zosfs/config.toml:"),
        *_literally(*FSTAB),
        *_paragraphs("`_netdev` lets systemd deliver the last data before it stops the network, `nofail` lets it boot without the server."),
        ".SH FILES",
        *_files(),
        ".SH ENVIRONMENT",
        *_environment(),
        ".SH EXIT STATUS",
        *_items(
            ("0", "All was done. A mount in the background is live."),
            (str(USAGE), "The line is wrong, or something was refused or is not well. `umount`: unmounted, and not everything was "
             "delivered; the next mount delivers it."),
            (str(FAILED), "A mount failed; `umount`: it could not be unmounted, or is not mounted."),
            ("130", "Interrupted."),
            ("141", "Whoever read the output has gone."),
        ),
        ".SH SEE ALSO",
        *(".BR mount (8),", ".BR fstab (5),", ".BR fusermount3 (1),", ".BR s3fs (1)"),
        *_paragraphs("docs/semantics.md and docs/troubleshooting.md beside the source: what programs may rely on, what messages mean."),
    )) + "\n"  # fmt: skip
