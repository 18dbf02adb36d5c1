"""What the chunk cache counts of its bytes, however they came and went."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zosfs.content.chunk_files import ChunkFile
from zosfs.content.chunk_table import SEGMENT, ChunkTable, Entry

SIZE = 3 * SEGMENT + 1000
SPANS = st.tuples(st.booleans(), st.integers(0, SIZE), st.sampled_from([0, 1, 4096, SEGMENT // 2, SEGMENT, 2 * SEGMENT]))


@given(st.lists(SPANS, max_size=40))
def test_what_is_counted_is_what_is_there(spans: list[tuple[bool, int, int]]) -> None:
    table = ChunkTable()
    entry = Entry("n", "key", "etag", SIZE, ChunkFile("n", made=True))
    table.add(entry)
    for comes, start, length in spans:
        end = min(SIZE, start + length)
        if comes:
            table.put(entry, start, end)
        else:
            entry.present.remove(start, end)
            table.count(entry, start, end)
        assert table.used == entry.present.total
    there = {start: sum(b - a for a, b in entry.present.within(start, start + SEGMENT)) for start in range(0, SIZE, SEGMENT)}
    assert {start: bytes_there for _, start, _, bytes_there in table.oldest(SIZE + 1)} == {start: n for start, n in there.items() if n}


def test_the_segment_used_last_goes_last() -> None:
    table = ChunkTable()
    entry = Entry("n", "key", "etag", SIZE, ChunkFile("n", made=True))
    table.add(entry)
    for segment in (0, 1, 2):
        table.put(entry, segment * SEGMENT, segment * SEGMENT + 10)
    table.put(entry, 20, 30)
    assert [start // SEGMENT for _, start, _, _ in table.oldest(SIZE)] == [1, 2, 0]
