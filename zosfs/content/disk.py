"""How values lie in our diskcache indexes: as JSON text, never pickled.

Owns: nothing. A file that somebody put under the cache directory must not be able to run code: what is not JSON is refused.
"""

from __future__ import annotations

import json
from typing import Any

import diskcache
from diskcache.core import MODE_RAW, MODE_TEXT


class JsonDisk(diskcache.Disk):  # type: ignore[misc]
    """A diskcache Disk for str keys and values that JSON knows. ValueError for anything else, in either direction."""

    def put(self, key: Any) -> tuple[Any, bool]:
        """The database's form of *key*."""
        if not isinstance(key, str):
            raise ValueError("keys are str")
        return key, True

    def get(self, key: Any, raw: bool) -> Any:
        """The key from the database's form."""
        if not raw or not isinstance(key, str):
            raise ValueError("a key in the index is not text")
        return key

    def store(self, value: Any, read: bool, key: Any = diskcache.UNKNOWN) -> tuple[int, int, str | None, Any]:
        """The database's form of *value*: size, mode, file name, bytes."""
        if read:
            raise ValueError("streams are not kept here")
        stored: tuple[int, int, str | None, Any] = super().store(json.dumps(value, ensure_ascii=True), False, key)
        return stored

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
        """The value from the database's form."""
        if mode not in (MODE_RAW, MODE_TEXT) or read:
            raise ValueError("a value in the index is not text")
        return json.loads(super().fetch(mode, filename, value, False))
