"""The option table as command-line flags.

Owns: the projection of the table to argparse. May use: zosfs.config and its sources. Must not know: what commands do.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import os
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NoReturn

from zosfs.config_sources import Loaded, Pair, load, split_list
from zosfs.config_values import NAMES, UNVERIFIED, OptionError, kind, rows, show

TABLE = "options: "
"""What the titles of the table's groups begin with."""
_VERSION = re.compile(r"-(?=.*[A-Z0-9])[A-Za-z0-9._-]{28,40}")
"""A version id of Ceph that begins with a dash, as one in 64 does. No flag is that long and has digits or capitals."""


class Plain(str):
    """A word of a line that is no flag, whatever it begins with."""

    __slots__ = ()


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one line, `zosfs: …`, with exit status 1 and the nearest flag's name.

    What stands behind ``--`` is no flag, nor what looks like a version id, nor, behind a flag that needs a value, what is none of the
    parser's flags.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)
        self._unknown = ""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, which asks for this of every way to parse."""
        return super().parse_known_args(self._told_apart(sys.argv[1:] if args is None else args), namespace)

    def _told_apart(self, words: Sequence[str]) -> list[str]:
        """*words* without ``--``, those that are no flags `Plain`."""
        found: list[str] = []
        waiting = False  # the flag before has no value yet
        for at, word in enumerate(words):
            if word == "--" and not isinstance(word, Plain):
                return [*found, *map(Plain, words[at + 1 :])]
            flag = self._is_flag(word)
            found.append(Plain(word) if not flag and (waiting or _VERSION.fullmatch(word)) else word)
            waiting = flag and word in self._option_string_actions and self._option_string_actions[word].nargs is None
        return found

    def _is_flag(self, word: str) -> bool:
        """Whether *word* is a flag of this parser, with its value or without."""
        if isinstance(word, Plain):
            return False
        if word.partition("=")[0] in self._option_string_actions:
            return True
        return word[1:2] != "-" and word[:2] in self._option_string_actions and not _VERSION.fullmatch(word)

    def _parse_optional(self, arg_string: str) -> Any:
        if isinstance(arg_string, Plain):
            return None
        found = super()._parse_optional(arg_string)
        if found is not None and not self._is_flag(arg_string):
            self._unknown = self._unknown or arg_string
        return found

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

    def _choices(self) -> Sequence[str]:
        """The words of which a line of this command has one in front."""
        return next((list(action.choices) for action in self._actions if not action.option_strings and action.choices), ())

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and not action.option_strings and value not in action.choices:
            near = difflib.get_close_matches(value, list(action.choices), 1, 0.6)
            self.error(f"{value}: one of {', '.join(action.choices)}" + (f"; did you mean {near[0]}?" if near else ""))
        super()._check_value(action, value)

    @staticmethod
    def _add_group(formatter: argparse.HelpFormatter, group: argparse._ArgumentGroup) -> None:
        formatter.start_section(group.title)
        formatter.add_text(group.description)
        formatter.add_arguments(group._group_actions)
        formatter.end_section()

    def error(self, message: str) -> NoReturn:
        """Print *message* and exit 1."""
        _, mark, words = message.partition("unrecognized arguments: ")
        missing = "are required: " in message
        word = words.split()[0] if mark else self._unknown if missing else ""
        if word:
            flags = [flag for action in self._actions for flag in action.option_strings]
            near = difflib.get_close_matches(word.partition("=")[0], flags, 1, 0.6) if word.startswith("-") else []
            message = f"unknown argument {word}" + (f"; did you mean {near[0]}?" if near else f"; see `{self.prog} --help`")
            if word.startswith("-") and not (near and word.startswith("--")):
                message += " (a name that begins with a dash stands behind --)"
        elif missing and (choices := self._choices()):
            message = f"{self.prog.removeprefix('zosfs ')}: one of {', '.join(choices)} is missing"
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
