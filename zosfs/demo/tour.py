"""The scripted tour: real commands on the demonstration's mount, their real output, and a check of each.

Owns: the list of steps and how they are run and shown. May use: zosfs.demo.sample for what to expect. Must not know: servers, how
mounting works.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from zosfs.demo.sample import gradient, large_file, log_lines, samples

_LINES_SHOWN = 14


@dataclass(frozen=True)
class Step:
    """A command for the shell in the mounted directory, what it shows, and whether its output is right."""

    title: str
    command: str
    right: Callable[[str], bool]


def steps() -> Iterator[Step]:
    """The tour."""
    keys = {sample.key for sample in samples()}
    tops = {key.partition("/")[0] for key in keys}
    yield Step("list the bucket", "ls -l", lambda out: all(name in out for name in tops))
    yield Step("walk the whole tree", "find . -type f | wc -l", lambda out: int(out) == len(keys))
    yield Step("read a text", "cat readme.txt", lambda out: "mounted as a directory" in out)
    yield Step("search", "grep -rl summer diary | sort | head -n 3", lambda out: out.startswith("diary/summer/06/01.md\n"))
    image = hashlib.sha256(gradient()).hexdigest()
    yield Step("read an image", "sha256sum pictures/gradient.png", lambda out: out.startswith(image))
    large = large_file()
    yield Step(
        "read 64 MiB, fetched in parallel ranges", "sha256sum large/64MiB.bin",
        lambda out: out.startswith(hashlib.sha256(large).hexdigest()),
    )  # fmt: skip
    yield Step("write a file", "echo 'hello, bucket' > notes.txt && cat notes.txt", lambda out: out == "hello, bucket\n")
    yield Step("rename it", "mv notes.txt diary/notes.md && ls diary", lambda out: "notes.md" in out.split())
    tail = log_lines().decode().splitlines()[-1]
    yield Step(
        "append to a log", "echo 'one more line' >> logs/access.log && tail -n 2 logs/access.log",
        lambda out: out == f"{tail}\none more line\n",
    )  # fmt: skip
    edited = large[:1_000_000] + b"EDITED" + large[1_000_006:]
    yield Step(
        "edit six bytes in the middle of 64 MiB",
        "printf EDITED | dd of=large/64MiB.bin bs=1 seek=1000000 conv=notrunc status=none && sha256sum large/64MiB.bin",
        lambda out: out.startswith(hashlib.sha256(edited).hexdigest()),
    )  # fmt: skip
    yield Step(
        "what the store knows of a file", "for name in etag content-type; do getfattr -n user.zos.$name readme.txt; done",
        lambda out: bool(re.search(r'etag="[0-9a-f]{32}"', out)) and 'content-type="text/plain"' in out,
    )  # fmt: skip
    yield Step(
        "attributes and links are kept", "chmod 640 readme.txt && ln -s readme.txt link && stat -c '%a %N' readme.txt link",
        lambda out: out.startswith("640 ") and "-> 'readme.txt'" in out,
    )  # fmt: skip
    yield Step(
        "programs just work", "tar cf diary.tar diary && tar tf diary.tar | wc -l && rm diary.tar && ls",
        lambda out: int(out.split()[0]) > 36 and "diary.tar" not in out,
    )  # fmt: skip
    yield Step("remove a tree", "rm -r diary/winter && ls diary", lambda out: "winter" not in out and "spring" in out)
    yield Step("ask for the space", "df -h .", lambda out: "fuse" in out or "%" in out)


def take(directory: Path, say: Callable[[str], None]) -> int:
    """Run every step in *directory*, show it through *say*, and return how many were wrong."""
    wrong = 0
    for step in steps():
        say(f"\n# {step.title}\n$ {step.command}")
        done = subprocess.run(
            ["bash", "-c", step.command],
            cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300, check=False,
        )  # fmt: skip
        output = done.stdout.decode("utf-8", "replace")
        lines = output.rstrip("\n").split("\n")
        say("\n".join(lines[:_LINES_SHOWN]))
        if len(lines) > _LINES_SHOWN:
            say(f"… {len(lines) - _LINES_SHOWN} more lines")
        if done.returncode or not _is_right(step, output):
            wrong += 1
            say(f"!! this is not what was expected (status {done.returncode})")
    return wrong


def _is_right(step: Step, output: str) -> bool:
    try:
        return step.right(output)
    except (ValueError, IndexError):
        return False
