"""What mount(8) and umount(8) call: /sbin/mount.fuse.zosfs, mount.zosfs, umount.fuse.zosfs, umount.zosfs.

Owns: their argument grammar, which is not the command line's: here -f means fake and -s sloppy. Chosen by argv[0]'s name.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from zosfs.config_sources import Pair, load, split_list
from zosfs.config_values import OptionError
from zosfs.mount.daemon import say
from zosfs.mount.refusal import USAGE
from zosfs.source import SourceError, parse_source, undo_rewriting


@dataclass(slots=True)
class Line:
    """A helper's line taken apart: operands, one-letter flags, the option list as written."""

    operands: list[str] = field(default_factory=list)
    flags: set[str] = field(default_factory=set)
    options: str = ""


def parse(argv: Sequence[str]) -> Line:
    """Take *argv* (without argv[0]) apart; OptionError for a flag that mount(8) does not hand on."""
    line = Line()
    words = list(argv)
    while words:
        word = words.pop(0)
        if word == "--":
            line.operands += words
            break
        if not word.startswith("-") or word == "-":
            line.operands.append(word)
        elif word[:2] in ("-o", "-t", "-N"):
            value = word[2:] or (words.pop(0) if words else "")
            if word[1] == "o":
                line.options = ",".join(filter(None, (line.options, value)))
        else:
            for flag in word[1:]:
                if flag not in "fsnvlrwhic":
                    raise OptionError(f"unknown flag -{flag}")
                line.flags.add(flag)
    return line


def mount(argv: Sequence[str], program: str) -> int:
    """`mount.zosfs SOURCE DIR [-sfnv] -o OPTIONS`: returns when the mount is live; the exit status."""
    try:
        line = parse(argv)
        if len(line.operands) != 2:
            raise OptionError(f"usage: {program} SOURCE DIR [-sfnv] [-o OPTIONS]")
        text, directory = line.operands
        text, rewritten = undo_rewriting(text, os.getcwd())
        source = parse_source(text)
        pairs = split_list(line.options)
        if "r" in line.flags:
            pairs.append(("ro", None))
        if "s" in line.flags:
            pairs = _known(pairs, program)
        loaded = load(pairs, names=source.names)
    except (OptionError, SourceError) as error:
        say(str(error), program)
        return USAGE
    if loaded.remount:
        # the kernel knows how: only its own flags can change on a living mount
        os.execv(_tool("mount"), ["mount", "-i", *(["-n"] if "n" in line.flags else []), "-o", line.options, directory])
    if rewritten:
        say(f"mount(8) turned the bucket {text} into a path of that name; write {text}: to be safe", program)
    if "INVOCATION_ID" in os.environ and not loaded.netdev and "NOTIFY_SOCKET" not in os.environ:
        say("the options lack _netdev: systemd will stop the network before this mount's last data is delivered", program)
    if "f" in line.flags:
        return 0
    if "v" in line.flags:
        print(f"{program}: mounting {source.text} on {directory}", flush=True)
    from zosfs.mount.start import start

    return start(source, directory, loaded.options, program=program)


def _known(pairs: Sequence[Pair], program: str) -> list[Pair]:
    """Those of *pairs* that zosfs takes: mount -s asks for tolerance."""
    kept = []
    for pair in pairs:
        try:
            load([pair], environ={"ZOSFS_CONFIG": os.devnull})
            kept.append(pair)
        except OptionError as error:
            say(f"ignored: {error}", program)
    return kept


def _tool(name: str) -> str:
    for directory in ("/usr/bin", "/bin", "/usr/sbin", "/sbin"):
        if os.access(f"{directory}/{name}", os.X_OK):
            return f"{directory}/{name}"
    return f"/bin/{name}"


def umount(argv: Sequence[str], program: str) -> int:
    """`umount.zosfs DIR [-nlfv]`: returns when everything is delivered; the exit status."""
    from zosfs.mount.umount import umount as umount_and_wait

    try:
        line = parse(argv)
        if len(line.operands) != 1:
            raise OptionError(f"usage: {program} DIR [-lfnv]")
    except OptionError as error:
        say(str(error), program)
        return USAGE
    return umount_and_wait(
        line.operands[0], lazy="l" in line.flags, force="f" in line.flags, say=lambda text: say(text, program)
    )  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Dispatch by the name in *argv*[0]."""
    program = os.path.basename(argv[0])
    if program.startswith("umount."):
        return umount(argv[1:], program)
    if program.startswith("mount."):
        return mount(argv[1:], program)
    say(f"called as {program}: neither mount.zosfs nor umount.zosfs")
    return USAGE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
