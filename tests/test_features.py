"""docs/features.md says what is: every row of every registry has a test, and every test that it names exists."""

from __future__ import annotations

import pytest

from tests.features import ATTRIBUTE_TESTS, COMMAND_TESTS, ROOT, ROWS, SETTING_TESTS, exists, page
from zosfs.admin.settings import SETTINGS
from zosfs.cli.main import COMMANDS
from zosfs.fs.xattrs import PREFIXES
from zosfs.fs.xattrs import ROWS as XATTRS

NAMED = [
    *((api, names) for rows in ROWS.values() for api, _, names in rows),
    *((f"setting {name}", SETTING_TESTS.get(name, ())) for name in SETTINGS),
    *((f"attribute {name}", ATTRIBUTE_TESTS.get(name, ())) for name in (*XATTRS, *PREFIXES)),
    *((f"command {name}", COMMAND_TESTS.get(name, ())) for name, _, _ in COMMANDS),
]


@pytest.mark.parametrize(("row", "names"), NAMED, ids=[row for row, _ in NAMED])
def test_a_row_has_tests_and_they_exist(row: str, names: tuple[str, ...]) -> None:
    assert names, f"{row}: no test shows it; name one in tests/features.py"
    assert [name for name in names if not exists(name)] == []


def test_the_page_is_that_of_the_registries() -> None:
    assert (ROOT / "docs" / "features.md").read_text("utf-8") == page(), "run `python -m tests.features > docs/features.md`"
