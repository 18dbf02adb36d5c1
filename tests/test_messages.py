"""docs/troubleshooting.md has a heading with the literal text of every refusal to mount and every warning in the log."""

from __future__ import annotations

import ast
import functools
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from zosfs.errors import TABLE

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "troubleshooting.md"
REFUSALS = ("Refusal", "MountError", "OptionError", "InUse")
WARNINGS = ("warning", "error", "exception")
AT_MOUNTING = (
    "BadCredentials", "BadEndpoint", "ConnectTimeout", "EndpointUnreachable", "NameNotResolved", "NoCredentials", "NoSuchBucket",
    "RequestTimeTooSkewed", "SignatureDoesNotMatch", "TlsFailed",
)  # fmt: skip
"""The codes that a mount is refused with because of a mistake of whoever mounts."""
SAID_ELSEWHERE = ("admin/", "cli/", "fs/xattrs.py", "fs/coming.py")
"""Where refusals are about a value or a command just typed, and carry the way out."""


def text_of(node: ast.expr) -> str:
    """A message as a heading writes it: `…` for what changes; "" for what is no literal."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"%(?:\.\d+)?[sdfr]", "…", node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return ""


@functools.cache
def messages() -> frozenset[str]:
    """The messages of the package that a person meets without having asked for something."""
    return frozenset(_messages())


def _messages() -> Iterator[str]:
    for path in sorted((ROOT / "zosfs").rglob("*.py")):
        if path.relative_to(ROOT / "zosfs").as_posix().startswith(SAID_ELSEWHERE):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            owner = getattr(getattr(node.func, "value", None), "id", "")
            if name == "OSError" and len(node.args) == 2 and text_of(node.args[1]).startswith("the journal …"):
                yield text_of(node.args[1])
            if name in REFUSALS or (name in WARNINGS and owner in ("log", "_log")):
                text = text_of(node.args[0])
                if re.search(r"[a-z]{4}", text):
                    yield text.replace("……", "…")


def headings() -> list[str]:
    """The headings of the page that are messages."""
    return [line.removeprefix("### `").removesuffix("`") for line in PAGE.read_text().splitlines() if line.startswith("### `")]


def test_every_message_has_a_heading() -> None:
    wanted = {*messages(), *(TABLE[code].text for code in AT_MOUNTING)}
    missing = wanted - set(headings())
    assert not missing, "\n".join(sorted(missing))


def test_every_heading_is_a_message() -> None:
    source = "".join(path.read_text() for path in (ROOT / "zosfs").rglob("*.py"))
    known = {*messages(), *(row.text for row in TABLE.values())}
    stale = [text for text in headings() if text not in known and text not in source]
    assert not stale, "\n".join(stale)


def test_every_heading_says_something() -> None:
    lines = PAGE.read_text().splitlines()
    empty = [line for line, below in itertools.pairwise(lines) if line.startswith("### ") and len(below) < 9]
    assert not empty, "\n".join(empty)
