"""What a batch of names tells the kernel is what each of them tells by itself."""

from __future__ import annotations

from typing import Any, cast

import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.tree.bucket import DEFAULTS
from zosfs.fs.entries import entries, entry
from zosfs.store.api import ObjectInfo, Store
from zosfs.tree.attributes import Attributes, Defaults
from zosfs.tree.directory import Directory
from zosfs.tree.inodes import ROOT, Inode, InodeTable, Volume

VOLUMES = [Volume(cast(Store, None), "", name, defaults) for name, defaults in (("a", DEFAULTS), ("b", Defaults(1, 2, 0o600, 0o700)))]
SHOWN = (
    "st_ino", "st_mode", "st_nlink", "st_uid", "st_gid", "st_rdev", "st_size", "st_blocks", "st_blksize", "st_atime_ns", "st_mtime_ns",
    "st_ctime_ns", "entry_timeout", "attr_timeout", "generation",
)  # fmt: skip


@st.composite
def inodes(draw: st.DrawFn) -> Inode:
    """A file or directory of some volume, of which this or that is known."""
    volume = draw(st.sampled_from(VOLUMES))
    parent = Inode(ROOT, None, b"", True, volume, None)
    inode = InodeTable().allocate(parent, b"n", draw(st.sampled_from(["n", "m"])), draw(st.booleans()), volume, None)
    info = ObjectInfo("n", draw(st.sampled_from([0, 1, 513, 1 << 40])), "0" * 32, draw(st.integers(0, 2 * 10**18)))
    if inode.is_dir:
        inode.directory = Directory()
    elif draw(st.integers(0, 3)):
        assert inode.listed_as(info)
    else:
        inode.info = info
    if inode.is_dir or inode.info is None or draw(st.booleans()):
        inode.attributes = Attributes(0o100640, 3, 4, info.size, 1, 2, 3, 5)
    inode.known, inode.pending, inode.unlinked = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    inode.fresh_until = draw(st.sampled_from([0.0, 5.0, 50.0, 500.0]))
    return inode


@given(st.lists(inodes(), max_size=8), st.sampled_from([0.0, 60.0]))
def test_together_as_one_by_one(some: list[Inode], ttl: float) -> None:
    async def main() -> None:
        def seen(shown: Any) -> list[Any]:
            return [getattr(shown, name) for name in SHOWN]

        await trio.sleep(10)
        for inode in some:
            if inode.listed is None:
                inode.attributes = inode.shown()  # what is guessed has the time of now
        assert [seen(shown) for shown in entries(some, ttl)] == [seen(entry(inode, ttl)) for inode in some]

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
