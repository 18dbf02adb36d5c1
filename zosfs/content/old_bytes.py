"""The base object's bytes in an object that replaces it: copied by the server, or laid between the staged ones in memory.

Owns: nothing. May use: store/. Must not know: plans, the disk.
"""

from __future__ import annotations

from collections.abc import Sequence

from zosfs.content.conflicts import needing_base
from zosfs.content.etags import slice_body
from zosfs.content.plan import Base
from zosfs.store.api import Body, PartInfo, Piece, Store, body_length


async def part_of_base(store: Store, key: str, upload: str, number: int, base: Base, start: int, end: int) -> PartInfo:
    """Have the server copy the base's bytes ``[start, end)`` as a part. StoreError ``Conflict`` when others changed them."""
    with needing_base(key):
        return await store.upload_part_copy(key, upload, number, base.key, start, end, if_match=base.etag)


async def laid_over(store: Store, base: Base, body: Body, start: int, old: Sequence[tuple[int, int]]) -> Body:
    """The staged *body*, which begins at byte *start* of the file, with the base's bytes *old* in their places.

    They are in memory, which the caller has reserved. StoreError ``Conflict`` when others changed the base.
    """
    pieces: list[Piece] = []
    at = start
    for low, high in old:
        pieces += slice_body(body, at - start, low - start)
        data = memoryview(bytearray(high - low))
        with needing_base(base.key):
            await store.get_range(base.key, low, data, if_match=base.etag)
        pieces.append(data)
        at = high
    return [*pieces, *slice_body(body, at - start, body_length(body))]
