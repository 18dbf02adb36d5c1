"""Packs: small versions of the chunk cache share files, one behind the other, because a file for each costs more than its bytes.

Owns: which space of a pack is given out, and whose it is; what of it nobody has any more and the disk is still to take back. Space is
given out once, never again, also not by a later run: whoever comes late with an offset meets no other version's bytes. Must not
know: what of a version is there, nor what it is worth (chunks.py).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from zosfs.content.chunk_files import SECTOR, ChunkFile, ChunkFiles, punch
from zosfs.content.ranges import Ranges
from zosfs.threads import ThreadPool

PACKED = 128 << 10
"""Versions up to this many bytes lie in packs: with a file of its own, one of 4 KiB costs four times the CPU, one of 128 KiB six times.
Not as many as are written past the page cache (DIRECT_FROM), which they are each by itself."""
PACK = 16 << 20
"""Bytes given out of one pack: what is lost at once where the disk cannot make holes."""
ZEROS = memoryview(bytes(SECTOR))
PREFIX = "pack"
"""What packs' names begin with; those of other files are hexadecimal."""


class Pack(ChunkFile):
    """A file that versions share. *end*: where the next one may lie; *live*: the offset of each, and its name."""

    __slots__ = ("end", "live")

    def __init__(self, name: str = "") -> None:
        """A new one, or the one *name* of an earlier run."""
        super().__init__(name or PREFIX + os.urandom(14).hex(), made=bool(name))
        self.end = 0
        self.live: dict[int, str] = {}


Holes = dict[Pack, Ranges]
"""What of each pack is for the disk to take back; a pack with nothing may be one that nothing is left of."""


def room(size: int) -> int:
    """The bytes given out for a version of *size*: whole sectors, which a hole can take back."""
    return max(SECTOR, -(-size // SECTOR) * SECTOR)


def filling(size: int) -> memoryview:
    """The zeros from the end of a version of *size* bytes to the end of its space: they make one write of its and the next one's bytes."""
    return ZEROS[: room(size) - size]


def gaps(taken: Sequence[tuple[int, int]], end: int) -> list[tuple[int, int]]:
    """What of ``[0, end)`` is in none of the spans *taken*, in order. ValueError when two of them overlap."""
    together = Ranges(taken)
    if together.total != sum(high - low for low, high in taken):
        raise ValueError("two versions in one place")
    return together.missing(0, end)


class Packs:
    """The packs among *files*."""

    def __init__(self, files: ChunkFiles) -> None:
        self.useful = True
        """Whether small versions should lie in packs: until the disk shows that it cannot make holes."""
        self._files = files
        self._last: Pack | None = None
        self._holes: Holes = {}

    def place(self, name: str, size: int) -> tuple[Pack, int]:
        """Space for the version *name* of *size* bytes, at most PACKED: a pack, and the offset of its first byte there."""
        pack = self._last
        if pack is None or pack.end + room(size) > PACK:
            if pack is not None:
                self._holes.setdefault(pack, Ranges())
            pack = self._last = Pack()
        base = pack.end
        pack.end += room(size)
        pack.live[base] = name
        return pack, base

    def free(self, pack: Pack, base: int, size: int) -> None:
        """Nobody has the space at *base*, given out for *size* bytes, any more."""
        del pack.live[base]
        self._holes.setdefault(pack, Ranges()).add(base, base + room(size))

    def abandon(self, pack: Pack) -> list[str]:
        """Give nothing more out of *pack*; returns the names of the versions in it, which cannot stay."""
        if self._last is pack:
            self._last = None
        self._holes.setdefault(pack, Ranges())
        return list(pack.live.values())

    @property
    def owing(self) -> bool:
        """Whether there is something for the disk to take back."""
        return bool(self._holes)

    def owed(self) -> Holes:
        """What the disk is to take back; the caller has it do so with `give_back`, and says with `owe` what is left of it."""
        holes, self._holes = self._holes, {}
        return holes

    def owe(self, holes: Holes) -> None:
        """The disk is still to take back *holes*."""
        for pack, spans in holes.items():
            self._holes[pack] = spans.union(self._holes.get(pack, Ranges()))

    async def give_back(self, holes: Holes, threads: ThreadPool) -> list[Pack]:
        """Make *holes*, and remove the packs that nothing is left of; returns those that the disk can make no holes in.

        What is done of *holes* is taken out.
        """
        unable = []
        while holes:
            pack, spans = next(iter(holes.items()))
            if not pack.live and pack is not self._last:
                await threads.run(self._remove, pack)
                pack.dead = True
                if not pack.pins:
                    self._files.close(pack)
            elif spans and not await self._punch(pack, spans, threads):
                unable.append(pack)
            del holes[pack]
        return unable

    def _remove(self, pack: Pack) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._files.path(pack.name))

    async def _punch(self, pack: Pack, spans: Ranges, threads: ThreadPool) -> bool:
        try:
            fd = self._files.pin(pack)
        except OSError:
            return False  # somebody removed it
        try:
            done = await threads.run(punch, fd, list(spans))
        finally:
            self._files.unpin(pack)
        self.useful = self.useful and done
        return done
