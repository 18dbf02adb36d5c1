"""Which versions the chunk cache has, where, and what of them; and which bytes were used longest ago.

Owns: the table of versions, the bytes counted, the order of use. Nothing here touches the disk. Must not know: how bytes get there and
back (chunk_files.py, chunk_packs.py), who asks (chunks.py).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

from zosfs.content.chunk_files import ChunkFile
from zosfs.content.chunk_packs import PREFIX, Pack, filling
from zosfs.content.ranges import Ranges
from zosfs.store.api import ObjectInfo

SEGMENT = 64 << 20
"""What is evicted at once."""


class Entry:
    """One version, called *name*: its bytes lie in *file* from *base* on, those of *present* are there. *pins*: threads that read or
    write them; *punching*: spans being given back to the disk, nothing may be written meanwhile; *saved*: the index has a record;
    *dead*: dropped."""

    __slots__ = ("base", "dead", "etag", "file", "key", "name", "pins", "present", "punching", "saved", "size")

    def __init__(self, name: str, key: str, etag: str, size: int, file: ChunkFile, base: int = 0) -> None:
        self.name = name
        self.key = key
        self.etag = etag
        self.size = size
        self.file = file
        self.base = base
        self.present = Ranges()
        self.pins = 0
        self.punching = 0
        self.saved = False
        self.dead = False

    def writes(self, fd: int, start: int, view: memoryview) -> list[tuple[int, int, memoryview]]:
        """What to write to store *view*, the bytes from *start* on: descriptor, offset, bytes. The end of a version in a pack is filled up:
        the next one follows."""
        at = self.base + start
        filled = filling(self.size) if isinstance(self.file, Pack) and start + len(view) == self.size else None
        return [(fd, at, view), (fd, at + len(view), filled)] if filled else [(fd, at, view)]

    def record(self, boot: str) -> dict[str, Any]:
        """What the index is to know of it: chunk_index.py says what each of these means."""
        return {
            "key": self.key, "etag": self.etag, "size": self.size, "file": self.file.name, "base": self.base,
            "present": self.present.to_list(), "used": time.time(), "boot": boot,
        }  # fmt: skip


def restored(records: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[Entry]:
    """The entries of an earlier run, as the index's *records* tell of them."""
    files: dict[str, ChunkFile] = {}
    for name, record in records:
        called = record["file"]
        if called not in files:
            files[called] = Pack(called) if called.startswith(PREFIX) else ChunkFile(called, made=True)
        entry = Entry(name, record["key"], record["etag"], record["size"], files[called], record["base"])
        if isinstance(entry.file, Pack):
            entry.file.live[entry.base] = name
        entry.present = Ranges.from_list(record["present"])
        entry.saved = True
        yield entry


class ChunkTable:
    """The versions of one bucket's objects."""

    def __init__(self) -> None:
        self.used = 0
        self._entries: dict[str, Entry] = {}
        self._by_key: dict[str, set[str]] = {}
        self._names: dict[tuple[str, str, int], str] = {}
        self._segments: OrderedDict[tuple[str, int], int] = OrderedDict()  # bytes there, the one used last at the end

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, info: ObjectInfo) -> Entry | None:
        """The entry of the version *info*."""
        name = self._names.get((info.key, info.etag, info.size))
        return None if name is None else self._entries.get(name)

    def named(self, name: str) -> Entry | None:
        """The entry called *name*."""
        return self._entries.get(name)

    def of_key(self, key: str) -> list[Entry]:
        """The versions of *key*."""
        return [self._entries[name] for name in self._by_key.get(key, ())]

    def keys_below(self, prefix: str) -> list[str]:
        """The keys that begin with *prefix*."""
        return [key for key in self._by_key if key.startswith(prefix)]

    def add(self, entry: Entry) -> None:
        """A version not known so far; what it has is counted, as used now."""
        self._entries[entry.name] = entry
        self._names[entry.key, entry.etag, entry.size] = entry.name
        self._by_key.setdefault(entry.key, set()).add(entry.name)
        if entry.present:
            self.count(entry, 0, entry.size)

    def remove(self, entry: Entry) -> None:
        """Forget it, and mark it dead."""
        entry.dead = True
        del self._entries[entry.name]
        del self._names[entry.key, entry.etag, entry.size]
        names = self._by_key[entry.key]
        names.discard(entry.name)
        if not names:
            del self._by_key[entry.key]
        for segment in _segments(0, entry.size):
            self.used -= self._segments.pop((entry.name, segment), 0)

    def count(self, entry: Entry, start: int, end: int) -> None:
        """Bring the bytes counted for the segments of ``[start, end)`` up to date; they were used now."""
        for segment in _segments(start, end):
            low = segment * SEGMENT
            there = sum(b - a for a, b in entry.present.within(low, low + SEGMENT))
            before = self._segments.pop((entry.name, segment), 0)
            self.used += there - before
            if there:
                self._segments[entry.name, segment] = there

    def put(self, entry: Entry, start: int, end: int) -> None:
        """``[start, end)`` is there now, and counted as used now; what else is there is not looked at, be it ever so many pieces."""
        for segment in _segments(start, end):
            low, high = max(start, segment * SEGMENT), min(end, (segment + 1) * SEGMENT)
            new = high - low - sum(b - a for a, b in entry.present.within(low, high))
            there = self._segments.pop((entry.name, segment), 0) + new
            self.used += new
            if there:
                self._segments[entry.name, segment] = there
        entry.present.add(start, end)

    def touch(self, entry: Entry, start: int, end: int) -> None:
        """``[start, end)`` was used now."""
        for segment in _segments(start, end):
            if (entry.name, segment) in self._segments:
                self._segments.move_to_end((entry.name, segment))

    def oldest(self, n: int) -> list[tuple[Entry, int, int, int]]:
        """Segments of *n* bytes together, or all, that were used longest ago and no thread uses: entry, start, end, and bytes there."""
        found = []
        for (name, segment), there in self._segments.items():
            if n <= 0:
                break
            entry = self._entries[name]
            if not entry.pins:
                n -= there
                found.append((entry, segment * SEGMENT, (segment + 1) * SEGMENT, there))
        return found


def _segments(start: int, end: int) -> Iterator[int]:
    return iter(range(start // SEGMENT, (max(end, start + 1) - 1) // SEGMENT + 1))
