"""The shape of the package: which room may import which, how files are named, and that what is public says what it promises."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from zosfs.config import Options

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "zosfs"
FILES = sorted(PACKAGE.rglob("*.py"))

ROOMS = {
    "store": set[str](),
    "tree": {"store"},
    "content": {"store"},
    "admin": {"store"},
    # the registry of bucket settings is admin's; fs/ is one of its two doors
    "fs": {"store", "tree", "content", "admin"},
    "mount": {"store", "tree", "content", "fs", "admin"},
    "demo": {"store", "mount"},
    "cli": {"store", "tree", "content", "fs", "mount", "admin", "demo"},
}
"""A room, and the rooms below it."""
FOREIGN = {
    "pyfuse3": {"fs", "mount"},
    "boto3": {"store"},
    "botocore": {"store"},
}
"""A library, and the only rooms that know it."""
FORBIDDEN_NAMES = re.compile(r"utils?|helpers?|managers?|common|misc|base")


def room_of(path: Path) -> str:
    """The room of a file; "" for the modules at the top of the package that everybody may import."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """The absolute names that a file imports, with line numbers, imports inside functions included."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.module or "", node.lineno
            if node.module == "zosfs":
                for alias in node.names:
                    yield f"zosfs.{alias.name}", node.lineno


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downwards(path: Path) -> None:
    room = room_of(path)
    for name, line in imports(path):
        top, *rest = name.split(".")
        where = f"{path.relative_to(ROOT)}:{line} imports {name}"
        if top in FOREIGN:
            assert room in FOREIGN[top], where
        if top == "zosfs" and rest and rest[0] in ROOMS and rest[0] != room:
            if room == "" and path.name == "__main__.py":
                continue
            assert room in ROOMS, f"{where}: what everybody imports must know no room"
            assert rest[0] in ROOMS[room], where


def test_every_room_is_known() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}
    assert rooms <= ROOMS.keys() | {"data"}


def test_file_names_say_what_is_inside() -> None:
    everywhere = [*FILES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "bench").rglob("*.py")]
    bad = [str(path.relative_to(ROOT)) for path in everywhere if FORBIDDEN_NAMES.fullmatch(path.stem)]
    assert not bad


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_public_things_say_what_they_promise(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{path}: no module docstring"
    silent = [f"{name} (line {line})" for name, line in _undocumented(tree)]
    assert not silent, f"{path.relative_to(ROOT)}: no docstring: {', '.join(silent)}"


def _undocumented(tree: ast.Module) -> Iterator[tuple[str, int]]:
    # methods of the kernel's interface (Operations) are documented by pyfuse3; overrides of a base in a library say so by name
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if not node.name.startswith("_") and not ast.get_docstring(node):
                yield node.name, node.lineno
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not _inherits_from_library(node):
                for member in node.body:
                    if (
                        isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef)
                        and not member.name.startswith("_")
                        and not ast.get_docstring(member)
                        and not any(isinstance(d, ast.Attribute) and d.attr == "setter" for d in member.decorator_list)
                    ):
                        yield f"{node.name}.{member.name}", member.lineno


def _inherits_from_library(node: ast.ClassDef) -> bool:
    return any(isinstance(base, ast.Attribute) for base in node.bases)


def test_every_option_is_documented() -> None:
    page = ROOT / "docs" / "options.md"
    text = page.read_text()
    missing = [field.name for field in dataclasses.fields(Options) if f"`{field.name}`" not in text]
    assert not missing, f"docs/options.md says nothing of {missing}"


def test_readme_and_its_translation_are_of_one_shape() -> None:
    ours, translated = (ROOT / "README.md").read_text(), (ROOT / "docs" / "README.zh-CN.md").read_text()
    for pattern in (r"^#+ ", r"^```", r"^\| "):
        assert len(re.findall(pattern, ours, re.M)) == len(re.findall(pattern, translated, re.M)), pattern


def test_readme_and_its_translation_have_the_same_words_to_type() -> None:
    ours, translated = (ROOT / "README.md").read_text(), (ROOT / "docs" / "README.zh-CN.md").read_text()

    def lines(text: str) -> list[str]:
        """What stands in fences, without comments, and the first column of tables."""
        blocks = re.findall(r"^```\w+\n(.*?)^```", text, re.M | re.S)
        fenced = [re.sub(r"\s+# .*", "", line) for block in blocks for line in block.splitlines()]
        columns = [re.findall(r"`[^`]+`", line.split(" | ")[0]) for line in text.splitlines() if line.startswith("| `")]
        return [*fenced, *(word for column in columns for word in column)]

    assert lines(ours) == lines(translated)
