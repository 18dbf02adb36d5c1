"""Which source of options wins, and what mount(8) and fstab may add."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zosfs.config_sources import HANDED_ON, IGNORED, KERNEL_FLAGS, load, split_list
from zosfs.config_values import NAMES, OptionError
from zosfs.source import SourceError, parse_source, undo_rewriting


@pytest.fixture
def nowhere(tmp_path: Path) -> dict[str, str]:
    """An environment whose configuration directory is empty."""
    return {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}


def test_a_list_is_split_at_commas_outside_of_quotes() -> None:
    assert split_list('a,b=1,fsname="x,y",c="",, d = 1 ') == [
        ("a", None), ("b", "1"), ("fsname", "x,y"), ("c", ""), ("d", " 1 "),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ['a="b', "=b"])
def test_a_broken_list_is_refused(text: str) -> None:
    with pytest.raises(OptionError):
        split_list(text)


_letters = st.characters(blacklist_characters='",=', blacklist_categories=("Cs",))
_word = st.text(_letters, min_size=1).filter(lambda word: word.strip() == word)


@given(st.lists(st.tuples(_word, st.one_of(st.none(), st.text(st.characters(blacklist_characters='"'))))))
def test_quoting_keeps_any_value(pairs: list[tuple[str, str | None]]) -> None:
    text = ",".join(name if value is None else f'{name}="{value}"' for name, value in pairs)
    assert split_list(text) == pairs


def test_the_order_of_sources(nowhere: dict[str, str], tmp_path: Path) -> None:
    config = tmp_path / "config" / "zosfs" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(
        'region = "file"\nretries = 3\nposix = false\ncache_size = "2G"\nmetadata_ttl = 7\nstorage_class = "F"\n'
        '[source."b"]\nretries = 4\nacl = "private"\n[source."b:/p"]\nacl = "public-read"\n'
    )
    environ = {**nowhere, "ZOSFS_RETRIES": "5", "AWS_REGION": "aws", "ZOSFS_STORAGE_CLASS": "E"}
    options = load([("storage-class", "C")], names=("b", "b:/p"), environ=environ).options
    assert (options.storage_class, options.retries, options.region) == ("C", 5, "aws")
    assert (options.posix, options.cache_size, options.metadata_ttl, options.acl) == (False, 2 << 30, 7.0, "public-read")
    assert load(environ={**environ, "ZOSFS_REGION": "own"}).options.region == "own"
    assert load(environ=nowhere).options.retries == 3


def test_a_named_file_replaces_the_usual_ones_and_must_exist(nowhere: dict[str, str], tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("retries = 9\n")
    assert load(config_file=str(other), environ=nowhere).options.retries == 9
    with pytest.raises(OptionError, match="does not exist"):
        load(config_file=str(tmp_path / "missing.toml"), environ=nowhere)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("retris = 1", "did you mean retries"),
        ("retries = [1]", "a list"),
        ("[connection]\nretries = 1", "no section"),
        ("retries = ", "config.toml"),
        ("cache_size = 10G", "config.toml: .*line 1.*; what is no number stands in double quotes"),
        ('secret_key = "x"', "passwd_file"),
        ("source = 1", "table of tables"),
    ],
)
def test_a_wrong_file_is_named(nowhere: dict[str, str], tmp_path: Path, text: str, line: str) -> None:
    config = tmp_path / "config.toml"
    config.write_text(text)
    with pytest.raises(OptionError, match=line) as caught:
        load(config_file=str(config), environ=nowhere)
    assert "config.toml" in str(caught.value)


def test_a_wrong_variable_is_named(nowhere: dict[str, str]) -> None:
    with pytest.raises(OptionError, match="ZOSFS_RETRIES"):
        load(environ={**nowhere, "ZOSFS_RETRIES": "many"})


def test_what_fstab_and_mount8_add_is_taken(nowhere: dict[str, str]) -> None:
    line = (
        "rw,_netdev,nofail,auto,noauto,user=bob,users,owner,group,relatime,nosuid,nodev,noexec,exec,suid,dev,async,noatime,"
        "x-systemd.automount,x-systemd.requires=a.service,X-mount.mkdir,comment=text,defaults,big_writes,uid=0,use_cache=/c"
    )
    loaded = load(split_list(line), environ=nowhere)
    assert loaded.netdev
    assert loaded.options.kernel_flags == "noatime"
    assert loaded.options.cache_dir == "/c"
    assert load(split_list("noexec,nosuid,nodev"), environ=nowhere).options.kernel_flags == "nodev,noexec,nosuid"
    assert load(split_list("ro,noatime"), environ=nowhere).options.ro
    assert not load(split_list("ro,rw"), environ=nowhere).options.ro


@pytest.mark.parametrize(
    ("word", "meant"), [("defualts", "defaults"), ("_netdv", "_netdev"), ("noatme", "noatime"), ("alow_other", "allow_other")]
)
def test_a_misspelt_word_of_fstab_is_told_apart(nowhere: dict[str, str], word: str, meant: str) -> None:
    with pytest.raises(OptionError, match=rf"^unknown option {word}; did you mean {meant}\?$"):
        load([(word, None)], environ=nowhere)


def test_no_ignored_word_is_an_option() -> None:
    assert not (IGNORED | (KERNEL_FLAGS - {"ro"})) & set(NAMES)
    assert HANDED_ON <= KERNEL_FLAGS


@pytest.mark.parametrize(
    ("pairs", "line"),
    [
        ([("url", "ftp://h")], "https://HOST"),
        ([("url", "h:80")], "https://HOST"),
        ([("url", "http://ak:hunter2@h")], "secret"),
        ([("allow_other", None), ("allow_root", None)], "exclude"),
        ([("part_size", "1M")], "at least 5M"),
        ([("connections", "0")], "at least 1"),
        ([("read_timeout", "0")], "more than 0"),
    ],
)
def test_values_that_cannot_be(nowhere: dict[str, str], pairs: list[tuple[str, str | None]], line: str) -> None:
    with pytest.raises(OptionError, match=line) as caught:
        load(pairs, environ=nowhere)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "bucket", "prefix"),
    [
        ("b", "b", ""),
        ("b:", "b", ""),
        ("b:/", "b", ""),
        ("b:/some/prefix", "b", "some/prefix/"),
        ("b:/some/prefix/", "b", "some/prefix/"),
        ("s3://b", "b", ""),
        ("s3://b/p q", "b", "p q/"),
        ("zos://b/日本", "b", "日本/"),
        ("zos:", "", ""),
        ("zos://", "", ""),
        ("My_Bucket.x", "My_Bucket.x", ""),
    ],
)
def test_sources(text: str, bucket: str, prefix: str) -> None:
    source = parse_source(text)
    assert (source.bucket, source.prefix, source.text, source.account) == (bucket, prefix, text, not bucket)


@pytest.mark.parametrize("text", ["", "/root", "b:prefix", "http://h/b", "a b", "..", "b/c", "#b"])
def test_what_is_no_source(text: str) -> None:
    with pytest.raises(SourceError):
        parse_source(text)


def test_mount8s_rewriting_is_undone() -> None:
    assert undo_rewriting("/root", "/") == ("root", True)
    assert undo_rewriting("/srv/data", "/srv") == ("data", True)
    assert undo_rewriting("root", "/") == ("root", False)
    assert undo_rewriting("b:/p", "/") == ("b:/p", False)
