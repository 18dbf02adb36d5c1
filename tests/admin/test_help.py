"""What a person reads and types: every --help, its examples, exit statuses, and the shell's completion."""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.admin.running import inside
from tests.fs.mounting import ROOT, clean_environment, passwd_file
from tests.servers.server import Server
from zosfs.cli.completion import SHELLS, whole
from zosfs.cli.examples import EXAMPLES
from zosfs.cli.main import COMMANDS, parse
from zosfs.cli.options import plain_flags

NAMES = [name for name, _, _ in COMMANDS]


def zosfs(*words: str) -> subprocess.CompletedProcess[str]:
    """Run it."""
    return subprocess.run(
        [sys.executable, "-m", "zosfs", *words], cwd=ROOT, env={**clean_environment(), "COLUMNS": "120"}, capture_output=True, text=True,
        check=False, timeout=180,
    )  # fmt: skip


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command's parser, sub-commands too."""

    def below(name: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
        yield name, parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for word, one in action.choices.items():
                    yield from below(f"{name} {word}", one)

    yield from below("zosfs", whole())


def one(name: str) -> argparse.ArgumentParser:
    """The parser of a command."""
    return dict(parsers())[f"zosfs {name}"]


def test_the_overview_names_every_command() -> None:
    said = zosfs("--help").stdout
    for name, _, help in COMMANDS:
        assert f"  {name} " in said
        assert help in said
    assert "zosfs mount NAME DIR" in said
    assert max(map(len, said.splitlines())) <= 130


@pytest.mark.parametrize("name", NAMES)
def test_help_of_a_command(name: str) -> None:
    said = inside()(name, "--help").stdout
    assert "example" in said
    for example in EXAMPLES[name]:
        assert example in said


@pytest.mark.parametrize("name", NAMES)
def test_what_a_command_does_comes_before_the_options_of_the_connection(name: str) -> None:
    said = inside()(name, "--help").stdout
    usage, _, rest = said.partition("\n\n")
    assert "--read-timeout" not in usage
    assert len(usage.splitlines()) <= 6
    tables = rest.find("options: ")
    assert tables < 0 or rest.index("example") < tables
    assert "unsigned requests [" not in said, "a flag that stands alone has no number"


def test_every_flag_and_word_has_a_help() -> None:
    bare = [
        f"{name}: {action.option_strings or action.dest}"
        for name, parser in parsers()
        for action in parser._actions
        if not action.help and not isinstance(action, argparse._SubParsersAction) and not (action.choices and not action.option_strings)
    ]
    assert bare == []


@pytest.mark.parametrize("example", [line for name in NAMES for line in EXAMPLES[name]])
def test_examples_are_lines_that_zosfs_takes(example: str) -> None:
    words = shlex.split(example.removeprefix('eval "$(').removesuffix(')"'))
    assert words[0] == "zosfs"
    words = [word for at, word in enumerate(words[1:]) if word != ">" and (at == 0 or words[at] != ">")]
    if words[0] not in NAMES:
        words.insert(0, "mount")
    whole().parse_args(plain_flags(words))


def test_every_command_takes_addresses_and_paths() -> None:
    for name in ("cp", "bucket", "versions", "restore", "presign", "uploads", "usage", "image", "search"):
        lines = " ".join(EXAMPLES[name])
        assert "zos://" in lines or name == "usage"
        assert "/mnt/" in lines


def test_a_bucket_named_like_a_command(weed: Server, tmp_path: Path) -> None:
    passwd = passwd_file(tmp_path, weed)
    (tmp_path / "m").mkdir()
    more = ("-o", f"url={weed.url},passwd_file={passwd},cache_dir={tmp_path / 'c'}")
    refused = zosfs("mount", "uploads", str(tmp_path / "m"), *more)
    assert refused.returncode == 32
    assert "the bucket does not exist" in refused.stderr  # looked for as a bucket
    assert zosfs("uploads", str(tmp_path / "m"), *more).returncode == 1


def complete(script: Path, line: str) -> list[str]:
    """What bash offers after *line*."""
    words = line + ("''" if line.endswith(" ") else "")
    text = (
        f"source {script}; COMP_LINE={shlex.quote(line)}; COMP_POINT=${{#COMP_LINE}}; COMP_WORDS=({words}); "
        "COMP_CWORD=$((${#COMP_WORDS[@]}-1)); "
        "f=$(complete -p zosfs | sed 's/.*-F \\([^ ]*\\).*/\\1/'); $f zosfs; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=False)
    return done.stdout.split()


def test_bash_completes_commands_and_flags(tmp_path: Path) -> None:
    script = tmp_path / "zosfs.bash"
    script.write_text(inside()("completion", "bash").stdout)
    assert {"cp", "bucket", "image"} <= set(complete(script, "zosfs "))
    assert complete(script, "zosfs vers") == ["versions"]
    assert {"--recursive", "--no-acl"} <= set(complete(script, "zosfs cp --"))
    assert "--metadata-ttl" in complete(script, "zosfs mount --meta")
    assert set(complete(script, "zosfs bucket ")) >= {"list", "create", "set"}


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts_of_every_shell(shell: str, tmp_path: Path) -> None:
    done = inside()("completion", shell)
    for name in NAMES:
        assert name in done.stdout
    if shutil.which(shell):
        script = tmp_path / "script"
        script.write_text(done.stdout)
        subprocess.run([shell, "-n", script], check=True)


def test_wrong_words_are_one_line_and_status_1() -> None:
    lines = (
        "cp a", "bucket paint", "image zos://b/k", "search", "search a zos://", "topic get", "completion tcsh", "uploads list zos://",
        "presign", "sts", "bucket get zos:// acl", "presign zos://", "usage /etc", "versions /etc",
    )  # fmt: skip
    for words in map(str.split, lines):
        said = inside()(*words, status=1).stderr
        assert said.startswith("zosfs: "), words
        assert len(said.splitlines()) == 1


def test_a_full_disk_or_a_closed_output_is_no_traceback() -> None:
    for words in (["options"], ["--help"], ["completion", "bash"]):
        for redirection, said, status in ((">/dev/full", "zosfs: No space left on device\n", 1), (">&-", "", 0)):
            line = f'"$0" -m zosfs "$@" {redirection}'
            done = subprocess.run(["sh", "-c", line, sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (status, said), words


def test_version_ids_that_look_like_flags() -> None:
    for strange in ("-JtsqUg6XPMbXWK5K4sF72Btlb5JugY", "-otsqUg6XPMbXWK5K4sF72Btlb5JugY", "--tsqUg6XPMbXWK5K4sF72Btlb5JugY"):
        for words in (["restore", "zos://b/k", strange, "--json"], ["--json", "restore", "zos://b/k", strange]):
            args = parse(one("versions"), words)
            assert (args.words, args.json, args.pairs) == (["restore", "zos://b/k", strange], True, []), words
        args = parse(one("presign"), ["zos://b/k", "--version-id", strange, "--put"])
        assert (args.path, args.version_id, args.put) == ("zos://b/k", strange, True)
    assert parse(one("versions"), ["p", "-ouse_path_request_style"]).pairs == [("use_path_request_style", None)]


def test_what_stands_behind_two_dashes_is_no_flag() -> None:
    assert parse(one("cp"), ["-r", "a", "b", "--", "-c"]).target == "-c"
    args = parse(one("cp"), ["-r", "--", "-n", "--json", "-c"])
    assert (args.sources, args.target, args.no_clobber, args.json) == (["-n", "--json"], "-c", False, False)
    assert parse(one("versions"), ["--", "restore", "-f", "-o"]).words == ["restore", "-f", "-o"]
    assert parse(one("presign"), ["--put", "--", "--html"]).path == "--html"
    assert parse(one("search"), ["--", "-a==1", "zos://b"]).query == "-a==1"
    assert parse(one("warmup"), ["-r", "--", "-d", "--jobs"]).paths == ["-d", "--jobs"]
    for words in (["--", "evict", "-m"], ["evict", "--", "-m"]):
        assert parse(one("cache"), words).paths == ["-m"]
    args = parse(one("journal"), ["export", "--", "-i", "-f"])
    assert (args.id, args.file) == ("-i", "-f")


def test_what_a_flag_needs_may_begin_with_a_dash() -> None:
    assert parse(one("presign"), ["p", "--version-id", "-abc"]).version_id == "-abc"
    args = parse(one("image"), ["a", "b", "--watermark-text", "-50%", "--watermark", "t_50"])
    assert (args.watermark_text, args.watermark) == ("-50%", "t_50")
    assert parse(one("topic"), ["create", "t", "--attribute", "-x=1"]).attribute == ["-x=1"]
    assert parse(one("search"), ["a==1", "--order-key", "--x"]).order_key == "--x"
    said = inside()("presign", "zos://b/k", "--version-id", "--put", status=1).stderr
    assert said == "zosfs: argument --version-id: expected one argument\n", "a flag is more likely forgotten its value than given as one"


def test_who_names_a_thing_that_looks_like_a_flag_is_told_how() -> None:
    assert inside()("versions", "-x", status=1).stderr == (
        "zosfs: unknown argument -x; see `zosfs versions --help` (a name that begins with a dash stands behind --)\n"
    )
    assert inside()("cp", "a", "b", "-file", status=1).stderr.endswith(" stands behind --)\n")
    assert "--)" not in inside()("cp", "a", "b", "--recurs", status=1).stderr
    assert inside()("journal", "show", "-abc", status=1).stderr.startswith("zosfs: unknown argument -abc; ")
    assert inside()("cp", "--recusive", "a", status=1).stderr == "zosfs: unknown argument --recusive; did you mean --recursive?\n"
