"""Fixtures of the content room's tests."""

from __future__ import annotations

import pytest

from zosfs.content import staging


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even small files are staged on the disk, and written there by threads."""
    monkeypatch.setattr(staging, "SMALL", 0)
    monkeypatch.setattr(staging, "INLINE", 8)
