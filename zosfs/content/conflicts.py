"""Somebody else's change, told as a conflict.

Owns: nothing. May use: store/. Must not know: files, plans.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from zosfs.content.append import look
from zosfs.content.plan import Base
from zosfs.errors import StoreError
from zosfs.store.api import Store

_GONE = ("NoSuchKey", "InvalidRange")


def conflict(key: str, message: str) -> StoreError:
    """The error (ESTALE) that says that the object at *key* is not the one that was counted on."""
    return StoreError("Conflict", status=412, operation="write", key=key, message=message)


def refused_as_changed(exc: StoreError) -> bool:
    """Whether a conditional request failed because of its condition."""
    return exc.errno == errno.ESTALE or exc.status == 412 or (exc.status == 404 and exc.code == "NoSuchKey")


async def check_unchanged(store: Store, key: str, base: Base | None) -> None:
    """Raise ``Conflict`` (ESTALE) when the object at *key* is not (any more) the one of *base*."""
    found = await look(store, key)
    now, expected = found.etag if found else "", base.etag if base else ""
    if now != expected:
        raise conflict(key, f"ETag {now or 'none'}, not {expected or 'none'}")


@contextlib.contextmanager
def needing_base(key: str) -> Iterator[None]:
    """Within, the base's bytes are needed: that they are gone is a ``Conflict``."""
    try:
        yield
    except StoreError as exc:
        if exc.code in _GONE:
            raise conflict(key, f"its old bytes are gone ({exc.code})") from exc
        raise
