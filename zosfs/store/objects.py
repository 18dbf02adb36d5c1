"""All objects of a prefix, over as many pages as it takes. Must not know: directories, what the objects are wanted for."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from zosfs.store.api import ObjectInfo, Store


async def objects_below(store: Store, prefix: str) -> AsyncGenerator[ObjectInfo, None]:
    """Every object whose key begins with *prefix*, in key order, 1000 a request. Raises StoreError."""
    marker = ""
    while True:
        page = await store.list_page(prefix, marker=marker)
        for info in page.objects:
            yield info
        marker = page.next_marker
        if not marker:
            return
