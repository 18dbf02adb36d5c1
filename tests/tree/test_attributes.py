"""Attributes and objects' metadata: what s3fs-fuse and rclone write is read, what is written is read back, nothing foreign breaks it."""

from __future__ import annotations

import stat

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zosfs.store.api import ObjectInfo
from zosfs.tree.attributes import (
    Attributes,
    Defaults,
    content_type_for,
    decode_xattrs,
    encode_xattrs,
    from_object,
    parse_time,
    to_metadata,
)

DEFAULTS = Defaults(uid=7, gid=8, file_mode=0o644, dir_mode=0o755)
SECOND = 10**9
TIMES = st.integers(-(1 << 40), 1 << 62)
KINDS = st.sampled_from([stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK])
IDS = st.integers(0, (1 << 32) - 1)
NAMES = ["mode", "uid", "gid", "mtime", "atime", "ctime", "rdev", "permissions", "owner", "group", "xattr", "goog-reserved-posix-mode",
         "goog-reserved-file-mtime", "goog-reserved-posix-uid"]  # fmt: skip


def seen(is_dir: bool = False, **metadata: str) -> Attributes:
    """What an object of 5 bytes with that metadata, last modified at second 100, shows."""
    return from_object(ObjectInfo("k", 5, "e", 100 * SECOND, metadata=metadata), is_dir, DEFAULTS)


@given(
    st.builds(Attributes, st.builds(int.__or__, KINDS, st.integers(0, 0o7777)), IDS, IDS, st.just(5), TIMES, TIMES, TIMES, IDS),
    st.dictionaries(st.sampled_from(["colour", "x-y", "sha1"]), st.text(max_size=5)),
)
def test_what_is_written_is_read_back_and_foreign_keys_stay(attributes: Attributes, foreign: dict[str, str]) -> None:
    metadata = to_metadata(attributes, foreign)
    assert from_object(ObjectInfo("k", 5, "e", 0, metadata=metadata), False, DEFAULTS) == attributes
    assert foreign.items() <= metadata.items()


VALUES = st.one_of(st.text(max_size=12), st.integers().map(str), st.floats().map(str))


@given(st.dictionaries(st.sampled_from(NAMES), VALUES), st.booleans())
@example({"mtime": "--5"}, False)
@example({"mtime": "²"}, False)
@example({"mtime": "9" * 30}, False)
@example({"mode": "-1"}, False)
@example({"mode": str(1 << 70)}, False)
@example({"rdev": "-7"}, False)
def test_no_metadata_of_others_is_more_than_the_kernel_takes(metadata: dict[str, str], is_dir: bool) -> None:
    found = seen(is_dir, **metadata)
    assert 0 <= found.mode < 1 << 16
    assert stat.S_ISDIR(found.mode) == is_dir
    assert stat.S_IFMT(found.mode) in {stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK}
    assert 0 <= found.uid < 1 << 32
    assert 0 <= found.gid < 1 << 32
    assert 0 <= found.rdev < 1 << 32
    for at in (found.atime_ns, found.mtime_ns, found.ctime_ns):
        assert -(1 << 63) <= at < 1 << 63
    decode_xattrs(metadata.get("xattr", ""))


def test_modes_as_others_write_them() -> None:
    assert seen(mode="33188").mode == 0o100644
    assert seen(mode="0100600").mode == 0o100600
    assert seen(mode="0644").mode == 0o100644
    assert seen(mode="41471").mode == stat.S_IFLNK | 0o777
    assert seen(mode="33188", is_dir=True).mode == stat.S_IFDIR | 0o644
    assert seen().mode == 0o100644
    assert seen(is_dir=True).mode == 0o040755
    assert seen(**{"goog-reserved-posix-mode": "640"}).mode == 0o100640


def test_times_as_others_write_them() -> None:
    assert seen(mtime="1500000000").mtime_ns == 1500000000 * SECOND
    assert seen(mtime="1500000000.5").mtime_ns == 1500000000_500000000
    assert seen(mtime="1500000000.000000005").mtime_ns == 1500000000_000000005
    assert seen(mtime="1500000000.123456789123").mtime_ns == 1500000000_123456789
    assert seen(mtime="0").mtime_ns == 0, "the epoch is a time like any other"
    assert seen(mtime="-1.5").mtime_ns == -1_500000000
    assert seen().mtime_ns == 100 * SECOND
    assert seen(mtime="soon").mtime_ns == 100 * SECOND
    assert seen(**{"goog-reserved-file-mtime": "12"}).mtime_ns == 12 * SECOND
    assert parse_time("") is None


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.binary()))
def test_xattrs_survive(values: dict[str, bytes]) -> None:
    text = encode_xattrs(values)
    assert text.isascii()
    assert decode_xattrs(text) == values


@pytest.mark.parametrize("text", ["%7B%22user.k%22%3A%22VkFM%22%7D", '{"user.k":"VkFM"}'])
def test_xattrs_as_s3fs_writes_them(text: str) -> None:
    assert decode_xattrs(text) == {"user.k": b"VAL"}


@pytest.mark.parametrize("text", ["[]", "7", "{", '{"a":5}', '{"a":null}', '{"a":"é"}', '{"a":"x"}', "%", "[" * 100_000])
def test_what_is_no_xattr_value_is_none(text: str) -> None:
    assert decode_xattrs(text) == {}


def test_content_types() -> None:
    assert content_type_for(b"d", True) == "application/x-directory"
    assert content_type_for(b"a.html", False) == "text/html"
    assert content_type_for(b"a.tar.gz", False) == "application/gzip"
    assert content_type_for(b"\xff\xfe", False) == "application/octet-stream"
