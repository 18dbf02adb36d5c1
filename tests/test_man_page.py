"""The man page zosfs(8): all of the tables is on it, roff has nothing to say against it, and `zosfs install` puts it into place."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from zosfs import places
from zosfs.cli.examples import EXAMPLES
from zosfs.cli.main import COMMANDS, main
from zosfs.cli.man_page import FSTAB, escape, page
from zosfs.config_values import UNVERIFIED, rows
from zosfs.mount import mount8
from zosfs.mount.install import MAN_PAGE, MAN_PAGE_OF_TYPE
from zosfs.store.credentials import ENVIRONMENT

needs_groff = pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")


def shown(roff: str, device: str = "utf8") -> bytes:
    """What groff makes of it for a wide terminal without bold letters; it must not complain."""
    done = subprocess.run(
        ["groff", "-man", "-ww", f"-T{device}", "-P-c", "-P-b", "-P-o", "-P-u", "-rLL=500n"], input=roff.encode(),
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stderr == b""
    return done.stdout


def tags() -> list[str]:
    """The lines that items begin with."""
    lines = page().splitlines()
    return [lines[at + 1] for at, line in enumerate(lines) if line == ".TP"]


def test_every_option_is_an_item_with_all_its_names() -> None:
    found = [tag.split("\\fP")[0].removeprefix("\\fB") for tag in tags()]
    assert [row.name for row in rows() if row.name not in found] == []
    assert r"\fB\-\-config\fP FILE" in tags()
    bold = set(page().replace("\\fP", "\\fB").split("\\fB"))
    names = [name for row in rows() for name in (*row.metadata["aliases"], *row.metadata["env"])]
    assert [name for name in (*names, *UNVERIFIED) if name not in bold] == []
    assert [name for names in ENVIRONMENT for name in names if name and name not in bold] == []


def test_every_command_is_an_item_with_its_examples() -> None:
    lines = page().splitlines()
    for name, _, _ in COMMANDS:
        assert f"\\fBzosfs {name}\\fP" in tags()
        for example in EXAMPLES[name]:
            assert escape(example) in lines


def test_the_places_are_those_where_zosfs_looks() -> None:
    home = {"HOME": "~"}
    for path in (*places.config_files(home), places.cache_dir(environ=home), places.runtime_dir({})):
        assert escape(str(path).replace(str(os.geteuid()), "UID")) in page()


@pytest.mark.parametrize("line", FSTAB)
def test_the_lines_of_fstab_are_taken(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOSFS_CONFIG", os.devnull)
    source, directory, kind, options, *numbers = line.split()
    assert (kind, numbers) == ("fuse.zosfs", ["0", "0"])
    assert mount8.main(["mount.fuse.zosfs", source, directory, "-f", "-o", options]) == 0  # fake: checks, and mounts nothing


@needs_groff
@pytest.mark.parametrize("device", ["utf8", "latin1", "ascii"])
def test_roff_has_no_warning(device: str) -> None:
    assert shown(page(), device)


@needs_groff
@pytest.mark.parametrize("line", [".so x", "'quoted' \"twice\"", r"back\slash \fB \e", "-o --flag a-b", "~/x ^ `y`", "© ä 文"])
def test_a_line_is_shown_as_it_is(line: str) -> None:
    assert line in [one.strip() for one in shown(f".TH X 8\n.SH NAME\n{escape(line)}\n").decode().splitlines()]


def test_install_puts_it_where_man_looks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["install", "--root", str(tmp_path)])
    assert main(["install", "--root", str(tmp_path)]) == 0  # over its own
    files = [str(tmp_path / name) for name in (MAN_PAGE, MAN_PAGE_OF_TYPE)]
    assert capsys.readouterr().out.splitlines()[-2:] == files
    assert (tmp_path / MAN_PAGE).read_text("utf-8").endswith(page())
    assert (tmp_path / MAN_PAGE_OF_TYPE).read_text("utf-8").endswith("\n.so man8/zosfs.8\n")
    assert main(["install", "--root", str(tmp_path), "--uninstall"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [f"removed {file}" for file in files]
    assert not [path for path in tmp_path.rglob("*") if not path.is_dir()]


def test_a_page_of_somebody_else_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / MAN_PAGE
    other.parent.mkdir(parents=True)
    other.write_text("somebody's")
    assert main(["install", "--root", str(tmp_path)]) == 1
    assert f"{other}: is there already" in capsys.readouterr().err
    main(["install", "--root", str(tmp_path), "--uninstall"])
    assert other.read_text() == "somebody's"
