"""`zosfs`: finds the command that a line names, and runs it.

Owns: the table of commands. May use: cli/ modules, each imported when its command is called, because a mount must fork before
trio, pyfuse3 and boto3 come in. A command's module has ``add_arguments(parser)`` and ``run(args) -> int``.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
from collections.abc import Sequence

from zosfs import __version__
from zosfs.cli.examples import epilog
from zosfs.cli.options import Parser, plain_flags
from zosfs.mount.daemon import say
from zosfs.mount.refusal import line_of, root_cause

COMMANDS: tuple[tuple[str, str, str], ...] = (
    ("mount", "zosfs.cli.mount", "mount a bucket (the word may be left out: zosfs SOURCE DIR)"),
    ("umount", "zosfs.cli.umount", "unmount and wait until everything is delivered"),
    ("status", "zosfs.cli.status", "what is mounted here, and what is not yet delivered"),
    ("journal", "zosfs.cli.journal", "what was written here and is not in the store: list, show, export, discard, upload"),
    ("stats", "zosfs.cli.stats", "counters of a mount"),
    ("warmup", "zosfs.cli.warmup", "fetch files into the local cache before they are read"),
    ("cache", "zosfs.cli.cache", "what the local cache holds, and dropping it: stat, evict"),
    ("install", "zosfs.cli.install", "put the mount(8) helpers, the systemd unit and the man page into place"),
    ("doctor", "zosfs.cli.doctor", "check this machine and a bucket for what mounting needs, and tell what the server can do"),
    ("demo", "zosfs.cli.demo", "try zosfs: an S3 server of your own, a sample bucket, mounted; Ctrl-C undoes all"),
    ("cp", "zosfs.cli.cp", "copy files and directories on the server, to other buckets too"),
    ("bucket", "zosfs.cli.bucket", "make, list and delete buckets; get, set and unset their settings"),
    ("versions", "zosfs.cli.versions", "list the versions of a file or directory; bring one back, deleted files too"),
    ("restore", "zosfs.cli.restore", "thaw archived files, so that they can be read for some days"),
    ("presign", "zosfs.cli.presign", "make a URL that reads (or writes) one file without credentials, for a while"),
    ("uploads", "zosfs.cli.uploads", "list unfinished multipart uploads, or abort them"),
    ("usage", "zosfs.cli.usage", "what the account (or a bucket) holds, and its quota"),
    ("image", "zosfs.cli.image", "let the server scale, crop, rotate, mark or convert an image"),
    ("search", "zosfs.cli.search", "find files by their metadata, where the server has an index"),
    ("topic", "zosfs.cli.topic", "make, list, show and delete the topics of notifications"),
    ("sts", "zosfs.cli.sts", "get temporary credentials of a role"),
    ("completion", "zosfs.cli.completion", "print a script that completes zosfs's words in bash, zsh or fish"),
    ("options", "zosfs.cli.options_page", "print the table of options (docs/options.md)"),
)
"""Name, module, one line of help. A new command is a new row."""
LIKE_A_COMMAND = 0.7
"""How much a bucket's name must be like a command's (difflib) to be taken for a slip."""


def usage() -> str:
    """What `zosfs --help` prints."""
    width = max(len(name) for name, _, _ in COMMANDS)
    lines = [
        "usage: zosfs SOURCE DIR [-o OPTION[=VALUE],…] [-f] [-d]",
        "       zosfs COMMAND …",
        "",
        "SOURCE: BUCKET, BUCKET:/PREFIX, zos://BUCKET/PREFIX, or zos: for all buckets of the account.",
        "",
        "commands:",
        *(f"  {name:<{width}}  {help}" for name, _, help in COMMANDS),
        "",
        "A path on a mount may also be written zos://BUCKET/KEY, with --url and the other options of a connection. --json prints for",
        "programs. The exit status is 0 when all was done, 1 when something was refused (32: a mount failed). A bucket that is named",
        "like a command is mounted with the word: zosfs mount NAME DIR. Names that begin with a dash stand behind --.",
        "",
        "`zosfs mount --help` lists the options, `zosfs COMMAND --help` says more of a command, with examples.",
    ]
    return "\n".join(lines)


def like_a_command(word: str) -> list[str]:
    """The commands that *word* may be a slip for: what begins with another letter, or is longer, is a bucket's name (pure)."""
    alike = [name for name, _, _ in COMMANDS if name[0] == word[:1] and abs(len(name) - len(word)) <= 1]
    return difflib.get_close_matches(word, alike, 2, LIKE_A_COMMAND)


def parse(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """The arguments of *words*, with flags before, between and after the others."""
    if any(isinstance(action, argparse._SubParsersAction) for action in parser._actions):
        return parser.parse_args(words)
    return parser.parse_intermixed_args(words)  # parse_args takes no optional word after a flag


def main(argv: Sequence[str] | None = None) -> int:
    """Run the line *argv* (default: the process's) and return its exit status."""
    try:
        status = _run(list(sys.argv[1:] if argv is None else argv))
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("zosfs: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        _forget_output()
        return 141
    except (OSError, BaseExceptionGroup) as error:
        if not isinstance(root_cause(error), OSError):
            raise
        say(line_of(error)[0])
        try:
            sys.stdout.flush()
        except OSError:
            _forget_output()
        return 1


def _forget_output() -> None:
    """What is still to be flushed at the end has nowhere to go."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if words else 1
    if words[0] in ("-V", "--version"):
        print(f"zosfs {__version__}")
        return 0
    table = {name: (module, help) for name, module, help in COMMANDS}
    near = ""
    if words[0] in table:
        name = words.pop(0)
    else:
        name = "mount"
        near = " or ".join(like_a_command(words[0]))
        if near and len(words) == 1:
            say(f"unknown command {words[0]}; did you mean {near}?")
            return 1
    module_name, help = table[name]
    module = importlib.import_module(module_name)
    parser = Parser(
        prog="zosfs" if name == "mount" else f"zosfs {name}", description=help[0].upper() + help[1:] + ".", epilog=epilog(name),
        formatter_class=argparse.RawDescriptionHelpFormatter, usage=getattr(module, "SYNOPSIS", None),
    )  # fmt: skip
    module.add_arguments(parser)
    status = int(module.run(parse(parser, plain_flags(words))))
    if status and near:
        say(f"{words[0]} was taken for a bucket; did you mean the command {near}?")
    return status
