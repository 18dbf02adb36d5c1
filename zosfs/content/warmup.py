"""Filling the chunk cache because somebody asks for it, not because somebody reads.

Owns: nothing that lasts. Must not know: names, the kernel. What a reader fetches is kept if the disk keeps up; what is warmed up is
waited for, so that the answer is true.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

import trio

from zosfs.content.blocks import pieces
from zosfs.content.chunks import ChunkCache
from zosfs.content.memory import MemoryBudget, slab_size
from zosfs.store.api import ObjectInfo, Store

AT_ONCE = 8


async def warm(store: Store, chunks: ChunkCache, budget: MemoryBudget, info: ObjectInfo, start: int, end: int) -> int:
    """Bring bytes ``[start, end)`` of the version *info* to the disk; returns how many had to be fetched.

    Raises StoreError (ESTALE when the object is another one now), and OSError ``ENOSPC`` when the cache has no room for them.
    """
    wanted = [piece for gap in chunks.missing(info, start, min(end, info.size)) for piece in pieces(*gap)]
    await _fetch(store, chunks, budget, info, wanted)
    await chunks.settle()
    if chunks.missing(info, start, min(end, info.size)):
        raise OSError(errno.ENOSPC, "the chunk cache has no room for it (cache_size, free_space)")
    return sum(stop - begin for begin, stop in wanted)


async def _fetch(
    store: Store, chunks: ChunkCache, budget: MemoryBudget, info: ObjectInfo, wanted: Sequence[tuple[int, int]]
) -> None:
    waiting = iter(wanted)
    failure: OSError | None = None

    async def worker() -> None:
        nonlocal failure
        for begin, stop in waiting:
            cost = slab_size(stop - begin)
            await budget.reserve(cost)
            slab = budget.slab(stop - begin)
            try:
                await store.get_range(info.key, begin, slab.view, if_match=info.etag, version_id=info.version_id)
                if not chunks.write(info, begin, slab.view):
                    await chunks.settle()  # the disk is slower than the network: wait for it
                    chunks.write(info, begin, slab.view)
            except OSError as exc:
                failure = failure or exc
                nursery.cancel_scope.cancel()
                return
            finally:
                budget.give_back(slab)
                budget.release(cost)

    async with trio.open_nursery() as nursery:
        for _ in range(min(AT_ONCE, len(wanted))):
            nursery.start_soon(worker)
    if failure is not None:
        raise failure
