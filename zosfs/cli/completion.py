"""`zosfs completion bash|zsh|fish`: a script that lets the shell complete zosfs's commands, flags and paths."""

from __future__ import annotations

import argparse
import importlib
import sys

from zosfs.cli.options import Parser
from zosfs.mount.daemon import say

SHELLS = ("bash", "zsh", "fish")
_FILES = ("PATH", "SRC", "DST", "DIR", "FILE")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which shell."""
    parser.add_argument("shell", choices=SHELLS)


def run(args: argparse.Namespace) -> int:
    """Print the script; 1 when shtab, which makes it, is not installed."""
    try:
        import shtab
    except ImportError:
        say("completion: the Python package shtab is missing: pip install shtab")
        return 1
    parser = whole()
    _complete_files(parser, shtab.FILE, shtab.DIRECTORY)
    print(shtab.complete(parser, shell=args.shell), file=sys.stdout)
    return 0


def whole() -> argparse.ArgumentParser:
    """One parser with every command as a sub-command. `zosfs` itself reads the first word, and has only one command's parser."""
    from zosfs.cli.main import COMMANDS

    parser = Parser(prog="zosfs")
    commands = parser.add_subparsers(dest="command", parser_class=Parser)
    for name, module, help in COMMANDS:
        importlib.import_module(module).add_arguments(commands.add_parser(name, help=help, description=help))
    return parser


def _complete_files(parser: argparse.ArgumentParser, file: object, directory: object) -> None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                _complete_files(below, file, directory)
        elif isinstance(action.metavar, str) and not action.choices:
            words = action.metavar.upper().replace("[", " ").replace("]", " ").replace("|", " ").split()
            if any(word in _FILES for word in words):
                action.complete = directory if words == ["DIR"] else file  # type: ignore[attr-defined]
