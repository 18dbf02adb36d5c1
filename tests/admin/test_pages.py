"""Pages of views of the past: whatever is shown comes once, in order, over pages of any length (pure)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import trio
from hypothesis import given
from hypothesis import strategies as st

from zosfs.admin.versions import page_of
from zosfs.store.api import ObjectInfo

KEYS = st.lists(st.text("ab/@é", min_size=1, max_size=6), max_size=25, unique=True)


@given(KEYS, st.sampled_from(["", "a", "a/", "a/b/"]), st.sampled_from(["", "/"]), st.integers(1, 5), st.integers(1, 3))
def test_all_that_is_shown_comes_once(keys: list[str], prefix: str, delimiter: str, most: int, versions: int) -> None:
    ordered = sorted((key for key in keys if key.startswith(prefix)), key=str.encode)

    async def shown(after: str) -> AsyncGenerator[tuple[str, Sequence[ObjectInfo]], None]:
        for key in ordered:
            if key.encode() > after.encode():
                yield key, [ObjectInfo(f"{key}@{n}" if n else key, 0, "", 0) for n in range(versions)]

    async def main() -> None:
        objects: list[str] = []
        prefixes: list[str] = []
        marker = ""
        for _ in range(200):
            page = await page_of(shown, prefix, delimiter, marker, most)
            assert len(page.objects) + len(page.prefixes) <= most - 1 + versions
            objects += [info.key for info in page.objects]
            prefixes += page.prefixes
            marker = page.next_marker
            if not marker:
                break
        plain = [key for key in ordered if not delimiter or delimiter not in key[len(prefix) :]]
        assert sorted(objects) == sorted(f"{key}@{n}" if n else key for key in plain for n in range(versions))
        cut = {prefix + key[len(prefix) :].partition("/")[0] + "/" for key in ordered if delimiter and "/" in key[len(prefix) :]}
        assert prefixes == sorted(cut, key=str.encode)

    trio.run(main)
