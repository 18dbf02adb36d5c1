"""The option table as command-line flags.

Owns: the projection of the table to argparse. May use: zosfs.config and its sources. Must not know: what commands do.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NoReturn

from zosfs.config_sources import Loaded, Pair, load, split_list
from zosfs.config_values import NAMES, UNVERIFIED, OptionError, kind, rows, show

TABLE = "options: "
"""What the titles of the table's groups begin with."""


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line, `zosfs: …`, with exit status 1 and the nearest flag's name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def format_usage(self) -> str:
        """The usage without the rows of the table, of which there are more than a line can tell."""
        formatter = self._get_formatter()
        self._add_usage(formatter)
        return formatter.format_help()

    def format_help(self) -> str:
        """What the command is about comes first, with its examples; the rows of the table follow."""
        formatter = self._get_formatter()
        self._add_usage(formatter)
        formatter.add_text(self.description)
        tables = [group for group in self._action_groups if (group.title or "").startswith(TABLE)]
        for group in self._action_groups:
            if group not in tables:
                self._add_group(formatter, group)
        formatter.add_text(self.epilog)
        for group in tables:
            self._add_group(formatter, group)
        return formatter.format_help()

    def _add_usage(self, formatter: argparse.HelpFormatter) -> None:
        of_table = {id(action) for group in self._action_groups if (group.title or "").startswith(TABLE) for action in group._group_actions}
        formatter.add_usage(self.usage, [one for one in self._actions if id(one) not in of_table], self._mutually_exclusive_groups)

    @staticmethod
    def _add_group(formatter: argparse.HelpFormatter, group: argparse._ArgumentGroup) -> None:
        formatter.start_section(group.title)
        formatter.add_text(group.description)
        formatter.add_arguments(group._group_actions)
        formatter.end_section()

    def error(self, message: str) -> NoReturn:
        """Print *message* and exit 1."""
        _, mark, words = message.partition("unrecognized arguments: ")
        if mark:
            word = words.split()[0]
            flags = [flag for action in self._actions for flag in action.option_strings]
            near = difflib.get_close_matches(word.partition("=")[0], flags, 1, 0.6) if word.startswith("-") else []
            message = f"unknown argument {word}" + (f"; did you mean {near[0]}?" if near else f"; see `{self.prog} --help`")
        print(f"zosfs: {message}", file=sys.stderr)
        raise SystemExit(1)


class _List(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        try:
            pairs = split_list(values)
        except OptionError as error:
            parser.error(str(error))
        namespace.pairs = [*namespace.pairs, *pairs]


class _Flag(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        name = (option_string or "").lstrip("-")
        namespace.pairs = [*namespace.pairs, (name, values if isinstance(values, str) else None)]


def add_option_arguments(parser: argparse.ArgumentParser, groups: Collection[str] = ()) -> None:
    """Give *parser* ``-o LIST``, ``--config FILE`` and a long flag for each row of the table (of *groups*, if any are named).

    Each row's aliases are flags too, and ``--no-NAME`` for booleans. What was given is read by `options_of`.
    """
    parser.set_defaults(pairs=[])
    parser.add_argument("-o", action=_List, metavar="OPTION[=VALUE],…", help="options by name, as in /etc/fstab")
    parser.add_argument("--config", default="", metavar="FILE", help="read this configuration file and no other")
    sections: dict[str, argparse._ArgumentGroup] = {}
    for row in rows():
        group = row.metadata["group"]
        if groups and group not in groups:
            continue
        if group not in sections:
            sections[group] = parser.add_argument_group(TABLE + group)
        names = (row.name, *row.metadata["aliases"])
        flags = [f"--{name.replace('_', '-')}" for name in names]
        hidden = [f"--{name}" for name in names if "_" in name]
        what = kind(row)
        text = row.metadata["help"].replace("%", "%%") + _bracketed(row, flags[0])
        bare = what == "bool" or row.name == "writeback"
        if what == "bool":
            sections[group].add_argument(flags[0], action=_Flag, nargs=0, help=text)
            spellings = [*flags[1:], *hidden, f"--no{row.name}", f"--no-{row.name.replace('_', '-')}"]
            parser.add_argument(*spellings, action=_Flag, nargs=0, help=argparse.SUPPRESS)
        else:
            nargs: Any = 0 if bare else None
            sections[group].add_argument(flags[0], action=_Flag, nargs=nargs, metavar=None if bare else metavar_of(row), help=text)
            if flags[1:] or hidden:
                # what rclone calls vfs-write-back never stands alone
                parser.add_argument(*flags[1:], *hidden, action=_Flag, nargs=None if bare else nargs, help=argparse.SUPPRESS)
    if not groups or "connection" in groups:
        parser.add_argument(*(f"--{name.replace('_', '-')}" for name in UNVERIFIED), action=_Flag, nargs=0, help=argparse.SUPPRESS)


def metavar_of(row: dataclasses.Field[Any]) -> str:
    """What stands for a value of *row* where its use is shown: its choices, or its kind in capitals."""
    return "|".join(row.metadata["choices"]) or kind(row).upper().replace("STR", "TEXT")


def default_of(row: dataclasses.Field[Any]) -> str:
    """The default of *row* as a person writes it; "" where that is no value."""
    return show(row, row.default) if row.default not in ("", -1) else ""


def _bracketed(row: dataclasses.Field[Any], flag: str) -> str:
    """What a row's help says of its default."""
    if kind(row) == "bool":
        return f" [on; {flag.replace('--', '--no-', 1)} turns it off]" if row.default else ""
    default = default_of(row)
    return f" [{default}]" if default else ""


def plain_flags(argv: Sequence[str]) -> list[str]:
    """*argv* with ``--flag=value`` of rows whose flag stands alone turned into ``-o flag=value``, as argparse cannot."""
    words: list[str] = []
    for at, word in enumerate(argv):
        if word == "--":
            return [*words, *argv[at:]]
        name, equals, value = word.removeprefix("--").partition("=")
        row = NAMES.get(name.replace("-", "_"))
        if word.startswith("--") and equals and row is not None and (kind(row) == "bool" or row.name == "writeback"):
            words += ["-o", f"{name}={value}"]
        else:
            words.append(word)
    return words


def options_of(
    args: argparse.Namespace,
    names: Sequence[str] = (),
    *,
    environ: Mapping[str, str] = os.environ,
    more: Sequence[Pair] = (),
    fail: Callable[[str], NoReturn] | None = None,
) -> Loaded:
    """The options that hold for *args* of a parser with `add_option_arguments`; *names* as in `config_sources.load`.

    *more* pairs are weaker than those given. Raises OptionError, or calls *fail* with its text.
    """
    try:
        return load([*more, *args.pairs], names=names, config_file=args.config, environ=environ)
    except OptionError as error:
        if fail is None:
            raise
        fail(str(error))
