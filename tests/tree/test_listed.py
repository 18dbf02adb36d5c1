"""What a listing says of an object, packed and unpacked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zosfs.store.api import ObjectInfo
from zosfs.tree.listed import pack, size_and_time, unpack

ETAGS = st.one_of(
    st.binary(min_size=16, max_size=16).map(bytes.hex),
    st.builds(lambda digest, parts: f"{digest.hex()}-{parts}", st.binary(min_size=16, max_size=16), st.integers(0, 200_000)),
    st.text(max_size=40),
    st.sampled_from(["", "-", "0" * 32, "A" * 32, "0" * 32 + "-0", "0" * 32 + "-01", "0" * 31, "0" * 32 + "\n"]),
)
LISTED = st.builds(
    ObjectInfo, st.text(max_size=20), st.integers(0, 1 << 62), ETAGS, st.integers(-(1 << 62), 1 << 62),
    st.sampled_from(["", "STANDARD", "GLACIER"]), st.sampled_from(["", "Normal", "Appendable"]),
)  # fmt: skip


@given(LISTED)
def test_nothing_is_lost(info: ObjectInfo) -> None:
    row = pack(info)
    assert row is not None
    assert unpack(row, info.key) == info
    assert size_and_time(row) == (info.size, info.modified_ns)


def test_a_usual_row_is_small() -> None:
    row = pack(ObjectInfo("k", 10_000, "0123456789abcdef" * 2, 1_700_000_000 * 10**9, "STANDARD", "Normal"))
    assert row is not None
    assert row.__sizeof__() <= 80


def test_what_has_no_room_is_not_packed() -> None:
    assert pack(ObjectInfo("k", 1 << 70, "e", 0)) is None
    assert pack(ObjectInfo("k", 1, "e", 1 << 70)) is None
    assert pack(ObjectInfo("k", 1, "e", 1, version_id="v")) is None
    assert pack(ObjectInfo("k", 1, "e", 1, metadata={})) is None
    assert pack(ObjectInfo("k", 1, "e", 1, content_type="text/plain")) is None
    assert pack(ObjectInfo("k", 1, "e", 1, headers={"x-amz-restore": "ongoing"})) is None
