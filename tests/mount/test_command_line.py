"""`zosfs` as a person calls it: wrong lines, help, and mounts that are refused before the network is asked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("trio", "pyfuse3", "boto3", "botocore", "rich")


def zosfs(*words: str, **environ: str) -> tuple[int, str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "ZOSFS_", "zos"))}
    done = subprocess.run(
        [sys.executable, "-m", "zosfs", *words], cwd=ROOT, capture_output=True, text=True, timeout=180, check=False,
        env={**clean, "ZOSFS_CONFIG": os.devnull, **environ},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_help_and_version() -> None:
    code, out, _ = zosfs("--help")
    assert code == 0
    assert "usage: zosfs SOURCE DIR" in out
    assert zosfs("-V")[1] == "zosfs 0.1.0\n"
    assert zosfs()[0] == 1
    code, out, _ = zosfs("mount", "--help")
    assert code == 0
    assert "--metadata-ttl DURATION" in out
    assert "[]" not in out  # an option without a default


def test_the_page_of_options_is_that_of_the_table() -> None:
    assert (ROOT / "docs" / "options.md").read_text("utf-8") == zosfs("options")[1], "run `zosfs options > docs/options.md`"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["b", "/m", "-o", "metadat_ttl=1"], "zosfs: unknown option metadat_ttl; did you mean metadata_ttl?\n"),
        (["b", "/m", "--metadat-ttl", "1"], "zosfs: unknown argument --metadat-ttl; did you mean --metadata-ttl?\n"),
        (["b", "/m", "--retries", "x"], "zosfs: option retries=x: not a whole number\n"),
        (["b"], "zosfs: the following arguments are required: DIR\n"),
        (["stauts"], "zosfs: unknown command stauts; did you mean stats or status?\n"),
        (["bucket", "lst"], "zosfs: lst: one of list, create, delete, get, set, unset; did you mean list?\n"),
        (["cache", "drop", "m"], "zosfs: drop: one of stat, evict\n"),
        (["topic"], "zosfs: topic: one of list, create, get, delete is missing\n"),
        (["journal"], "zosfs: journal: one of list, show, export, discard, upload is missing\n"),
        (["uploads", "--json"], "zosfs: uploads: one of list, abort is missing\n"),
        (["presign", "p", "--putt"], "zosfs: unknown argument --putt; did you mean --put?\n"),
        (["a b", "/m"], "not a bucket's name"),
        (["b", "/m", "-o", "secret_key=hunter2"], "passwd_file=FILE"),
        (["b", "/m", "--config", "/missing"], "zosfs: configuration file /missing does not exist\n"),
        (["b", "/missing/m", "--url", "http://h"], "zosfs: mount point /missing/m does not exist"),
        (["b", "{empty}", "--url", "http://h", "--passwd-file", "/missing"], "passwd_file=/missing: there is no such file"),
        (["b", "/etc/hostname", "-f"], "is not a directory"),
        (["b", "", "--url", "http://h"], "zosfs: the mount point is an empty word\n"),
        (["umount", ""], "zosfs: the mount point is an empty word\n"),
    ],
)
def test_a_wrong_line_is_one_line_and_exit_1(words: list[str], line: str, tmp_path: Path) -> None:
    code, out, err = zosfs(*(word.format(empty=tmp_path) for word in words))
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert line in err
    assert "hunter2" not in err


def test_a_mount_that_fails_of_a_source_that_looks_like_a_command_says_so(tmp_path: Path) -> None:
    code, out, err = zosfs("stauts", str(tmp_path))
    assert (code, out) == (32, "")
    assert err.splitlines()[1:] == ["zosfs: stauts was taken for a bucket; did you mean the command stats or status?"]
    assert "did you mean" not in zosfs("mybucket", str(tmp_path))[2]
    assert "did you mean" not in zosfs("mount", "stauts", str(tmp_path))[2]


def test_no_credentials_says_how_to_give_them(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    none = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_CONFIG_FILE": os.devnull}
    code, out, err = zosfs("b", str(tmp_path / "m"), "--url", "http://127.0.0.1:9", "--cache-dir", str(tmp_path / "c"), **none)
    assert (code, out, err.count("\n")) == (32, "", 1)
    assert "no keys are given: -o passwd_file=FILE, with ACCESS_KEY:SECRET_KEY in it" in err


def test_a_directory_that_is_taken_for_a_buckets_name_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "zosfs", "bucket", "get", "m", "versioning", "--config", os.devnull], cwd=tmp_path, capture_output=True,
        text=True, check=False, env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.stderr.startswith("zosfs: no endpoint is given: ")
    assert done.stderr.endswith("; m is a bucket's name here, the path is ./m\n")


def test_a_cache_directory_that_cannot_be_says_which_option_chooses_another(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "m").mkdir()
    for directory in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/x")):
        code, out, err = zosfs("b", str(tmp_path / "m"), "--url", "http://127.0.0.1:9", "--cache-dir", str(directory))
        assert (code, out, err.count("\n")) == (32, "", 1)
        assert err.startswith(f"zosfs: cache directory {directory} cannot be used (")
        assert "-o cache_dir=DIR" in err
        found = zosfs("doctor", "--cache-dir", str(directory))
        assert found[0] == 1
        assert f"BAD  cache {directory}" in found[1]


def test_the_cache_directory_is_made_for_its_user_alone(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    old = os.umask(0o022)
    try:
        zosfs("b", str(tmp_path / "m"), "--url", "http://127.0.0.1:9", "--retries", "0", "--cache-dir", str(tmp_path / "new" / "cache"))
    finally:
        os.umask(old)
    assert (tmp_path / "new" / "cache").stat().st_mode & 0o777 == 0o700


def test_flags_of_every_spelling() -> None:
    from zosfs.cli.mount import add_arguments
    from zosfs.cli.options import Parser, options_of, plain_flags

    def given(*words: str) -> dict[str, object]:
        parser = Parser()
        add_arguments(parser)
        args = parser.parse_args(plain_flags(["b", "/m", "--config", os.devnull, *words]))
        return dict(options_of(args, environ={}).given)

    assert given("--metadata-ttl", "5", "--dir-cache-time=6") == {"metadata_ttl": 6.0}
    assert given("--no-posix", "-o", "posix") == {"posix": True}
    assert given("-o", "posix", "--noposix") == {"posix": False}
    assert given("--tls-verify=0", "--ro") == {"tls_verify": False, "ro": True}
    assert given("--writeback") == {"writeback": 5.0}
    assert given("--writeback=1m", "--use_cache=/x") == {"writeback": 60.0, "cache_dir": "/x"}
    assert given("--vfs-write-back", "5s", "--no-check-certificate") == {"writeback": 5.0, "tls_verify": False}  # of an rclone line
    assert given("-oro,retries=1", "-o", 'fsname="a,b"') == {"ro": True, "retries": 1, "fsname": "a,b"}


def test_nothing_heavy_is_imported_before_the_fork() -> None:
    text = (
        "import sys; from zosfs.cli.main import main; import zosfs.cli.mount, zosfs.mount.start, zosfs.mount.mount8; "
        "main(['options']); main(['b', '/missing/m', '--url', 'http://h', '--config', '/dev/null']); "
        f"sys.exit(str([name for name in {HEAVY!r} if name in sys.modules] or ''))"
    )
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[1:] in ([], [""]), done.stderr
