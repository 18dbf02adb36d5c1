"""The log of answered unlinks: what is not done is found by the next run, whatever the last one was cut off in."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from zosfs.content.journal_rows import Deletion
from zosfs.content.removal_log import RemovalLog

KEYS = st.text(st.characters(exclude_categories=[]), min_size=1, max_size=8)


@given(st.lists(st.tuples(KEYS, st.booleans()), max_size=20), st.integers(0, 30))
def test_what_is_not_done_is_found_again(script: list[tuple[str, bool]], torn: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as home:
        path = Path(home) / "removals"
        log = RemovalLog(path)
        assert log.open() == []
        owed: dict[str, Deletion] = {}
        for n, (key, done) in enumerate(script):
            if done:
                log.done(key)
                owed.pop(key, None)
            else:
                owed[key] = Deletion(key, f"etag{n}", n)
                log.add(owed[key])
        log.close()
        with path.open("ab") as file:
            file.write(b'["torn", "etag", 12'[:torn])
        again = RemovalLog(path)
        assert {deletion.key: deletion for deletion in again.open()} == owed
        again.clear()
        again.close()
        assert RemovalLog(path).open() == []
