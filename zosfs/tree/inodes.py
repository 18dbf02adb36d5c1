"""Inodes and their table: numbers, lookup counts, and where each one hangs in the tree.

Owns: inode numbers and the kernel's lookup counts. A number is a hash of bucket and key, so that git and rsync see the same numbers
after a remount; no two files have the same one in a mount, not even one after the other.
Must not know: requests, listings' freshness, open files.
"""

from __future__ import annotations

import hashlib
import stat
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zosfs.store.api import ObjectInfo, Store
from zosfs.tree.attributes import Attributes, Defaults
from zosfs.tree.listed import pack, size_and_time, unpack
from zosfs.tree.told import attributes_in, is_told, pack_told, unpack_told

if TYPE_CHECKING:
    from zosfs.tree.directory import Directory

ROOT = 1
_NEVER = float("-inf")


def _seed(parent: Inode, volume: Volume | None) -> hashlib.blake2b:
    """How the number of a child of *parent* begins: the parent's stands for its key, so that this costs the same at any depth."""
    bucket = volume.name if volume is not None else ""
    return hashlib.blake2b(f"{bucket}\n{parent.number}\n".encode("utf-8", "surrogatepass"), digest_size=8)


class Volume:
    """One bucket, or what lies below *prefix* ("" or ending in a slash) of it. *defaults*: of objects that say nothing. *content*
    belongs to fs/."""

    __slots__ = ("content", "defaults", "name", "prefix", "store")

    def __init__(self, store: Store, prefix: str, name: str, defaults: Defaults) -> None:
        self.store = store
        self.prefix = prefix
        self.name = name
        self.defaults = defaults
        self.content: Any = None


class _Unpacked:
    """The row that was unpacked last, and what came of it: who opens, reads or stats a file asks for that ten times."""

    inode: Inode | None = None
    row = b""
    info: ObjectInfo | None = None


class Inode:
    """A file or directory that the kernel, a listing or an open file knows.

    *info* is what the store said of the object, *attributes* what stat shows; *known* tells whether they come from the object
    or are guessed from a listing. *fresh_until* and *checked_at* are trio times. *pending*: not in the store yet. *marker*: whether
    a directory has its `dir/` object (None: not known). *pins*: reasons besides the kernel to keep it. *file* belongs to fs/.

    There may be a million of them, so that of a file nothing is kept but the packed row of the listing or of the HEAD, until it is changed
    here; its attributes, its info and the part of its key are made when somebody wants them.
    """

    __slots__ = (
        "_attributes", "_info", "_part", "checked_at", "directory", "file", "fresh_until", "is_dir", "known", "lookups", "marker",
        "name", "number", "parent", "pending", "pins", "stamp", "unlinked", "volume",
    )  # fmt: skip

    def __init__(
        self, number: int, parent: Inode | None, name: bytes, is_dir: bool, volume: Volume | None, attributes: Attributes | None,
        row: bytes | None = None,
    ) -> None:  # fmt: skip
        self.number = number
        self.parent = parent
        self.name = name
        self._part: str | None = None
        self.is_dir = is_dir
        self.volume = volume
        self._attributes = attributes
        self._info: ObjectInfo | bytes | None = row
        self.directory: Directory | None = None
        self.known = False
        self.fresh_until = 0.0
        self.checked_at = _NEVER
        self.lookups = 0
        self.pins = 0
        self.stamp = 0
        self.pending = False
        self.unlinked = False
        self.marker: bool | None = None
        self.file: Any = None

    def __repr__(self) -> str:
        return f"Inode({self.number}, {self.path()!r})"

    def call(self, name: bytes, part: str) -> None:
        """It is shown as *name*, which stands for *part* of its key."""
        _Unpacked.inode = None  # has another key now, or something above it has
        self.name = name
        self._part = None if part.encode("utf-8", "surrogateescape") == name else part

    @property
    def part(self) -> str:
        """What it is called in its key: the name, but for names that are escaped."""
        return self.name.decode() if self._part is None else self._part

    @property
    def info(self) -> ObjectInfo | None:
        """What the store said of its object, None where it said nothing (yet)."""
        row = self._info
        if not isinstance(row, bytes):
            return row
        if _Unpacked.inode is not self or _Unpacked.row is not row:
            _Unpacked.info = self.info_as(self.key)
            _Unpacked.inode, _Unpacked.row = self, row
        return _Unpacked.info

    @info.setter
    def info(self, info: ObjectInfo | None) -> None:
        if self._attributes is None and isinstance(self._info, bytes):
            self._attributes = self.shown()  # what stat shows came from the row
        self._info = info

    def info_as(self, key: str) -> ObjectInfo | None:
        """As `info`, for who knows its *key*."""
        info = self._info
        if not isinstance(info, bytes):
            return info
        return unpack_told(info, key) if is_told(info) else unpack(info, key)

    @property
    def attributes(self) -> Attributes:
        """What stat shows, to be read and changed."""
        found = self._attributes
        if found is None:
            found = self._attributes = self.shown()
        return found

    @attributes.setter
    def attributes(self, attributes: Attributes) -> None:
        self._attributes = attributes

    def shown(self) -> Attributes:
        """What stat shows, to be read only: it may be made for this call."""
        if self._attributes is not None:
            return self._attributes
        assert self.volume is not None
        defaults, row = self.volume.defaults, self._info
        if isinstance(row, bytes):
            if is_told(row):
                return attributes_in(row)
            size, when = size_and_time(row)
        else:
            size, when = 0, time.time_ns()
        mode = stat.S_IFDIR | defaults.dir_mode if self.is_dir else stat.S_IFREG | defaults.file_mode
        return Attributes(mode, defaults.uid, defaults.gid, size, when, when, when)

    def listed_as(self, info: ObjectInfo) -> bool:
        """A listing says that a file's object is this, of which nothing else is known. False: it says too much for a packed row."""
        row = pack(info)
        if row is None or self.is_dir or self.volume is None:
            return False
        self._info, self._attributes = row, None
        return True

    def told_as(self, info: ObjectInfo, attributes: Attributes) -> None:
        """A HEAD, or another answer that says all of it, says that its object is this, and stat shows *attributes*."""
        row = None if self.is_dir else pack_told(info, attributes)
        self._info, self._attributes = (info, attributes) if row is None else (row, None)

    def told_again_as(self, info: ObjectInfo) -> None:
        """As `told_as`, of the version that is known already: stat shows what it did."""
        row = self._info
        if self._attributes is None and isinstance(row, bytes) and is_told(row):
            self.told_as(info, attributes_in(row))
        else:
            self.info = info

    @property
    def size(self) -> int:
        """The size that stat shows."""
        row = self._info
        return size_and_time(row)[0] if self._attributes is None and isinstance(row, bytes) else self.shown().size

    @property
    def modified_ns(self) -> int:
        """When its object was made, in ns since the epoch, 0 where the store said nothing (yet)."""
        row = self._info
        if isinstance(row, bytes):
            return size_and_time(row)[1]
        return row.modified_ns if row is not None else 0

    @property
    def listed(self) -> bytes | None:
        """The packed row of a file in the store that was only listed: it shows what this and its volume's defaults say."""
        row = self._info
        if self._attributes is not None or not isinstance(row, bytes) or self.pending or self.unlinked:
            return None
        return None if is_told(row) else row

    def listed_before_as(self, row: bytes) -> bool:
        """Whether a listing said just this (see listed.pack) of the file, and nothing else is known of its object."""
        return self._info == row and not self.is_dir

    @property
    def store(self) -> Store:
        """The bucket that it lies in."""
        assert self.volume is not None
        return self.volume.store

    @property
    def key(self) -> str:
        """The object's key: a directory's ends in a slash; the top of a volume is its prefix."""
        parts: list[str] = []
        inode: Inode = self
        while inode.parent is not None and inode.parent.volume is inode.volume:
            parts.append(inode.part)
            inode = inode.parent
        assert inode.volume is not None
        parts.append("")
        parts.reverse()
        text = "/".join(parts[1:])
        return inode.volume.prefix + (text + "/" if self.is_dir and len(parts) > 1 else text)

    @property
    def top(self) -> bool:
        """Whether it is the top of a volume, which has no object of its own to keep attributes in."""
        return self.parent is None or self.parent.volume is not self.volume

    @property
    def hangs(self) -> bool:
        """Whether its directory knows it by its name: it is neither removed nor forgotten."""
        above = self.parent
        return above is not None and above.directory is not None and above.directory.children.get(self.name) is self

    def path(self) -> bytes:
        """The path from the mount point, without a leading slash."""
        names: list[bytes] = []
        inode: Inode = self
        while inode.parent is not None:
            names.append(inode.name)
            inode = inode.parent
        return b"/".join(reversed(names))

    def is_below(self, directory: Inode) -> bool:
        """Whether *directory* is this inode or one of its ancestors."""
        inode: Inode | None = self
        while inode is not None:
            if inode is directory:
                return True
            inode = inode.parent
        return False

    @property
    def dirty(self) -> bool:
        """Whether this host knows better than the store: remote facts must not overwrite it."""
        return self.pending or (self.file is not None and self.file.dirty)


class InodeTable:
    """All inodes by number."""

    def __init__(self) -> None:
        self._inodes: dict[int, Inode] = {}
        self._gone: set[int] = {0, ROOT}  # numbers of files that are no more: who remembers one must not meet another file

    def __len__(self) -> int:
        return len(self._inodes)

    def get(self, number: int) -> Inode:
        """KeyError for a number that is not known (any more)."""
        return self._inodes[number]

    def find(self, number: int) -> Inode | None:
        """As `get`; None for a number that is not known."""
        return self._inodes.get(number)

    def allocate(
        self, parent: Inode | None, name: bytes, part: str, is_dir: bool, volume: Volume | None,
        attributes: Attributes | None,
    ) -> Inode:  # fmt: skip
        """A new inode, with the number that its key had before in this mount and earlier ones, unless that file was removed."""
        if parent is None:
            number = ROOT
        else:
            seed = _seed(parent, volume)
            seed.update(f"{part}{'/' if is_dir else ''}".encode("utf-8", "surrogatepass"))
            number = self._free(int.from_bytes(seed.digest(), "big") >> 1)
        inode = Inode(number, parent, name, is_dir, volume, attributes)
        inode.call(name, part)
        self._inodes[number] = inode
        return inode

    def files_below(self, parent: Inode) -> Callable[[bytes, bytes], Inode]:
        """What makes new files below *parent*, as `allocate` does, of names that are parts of keys and of the packed rows of a listing.

        All that is the same for each of them is done once.
        """
        inodes, gone, volume, seeded, from_bytes = self._inodes, self._gone, parent.volume, _seed(parent, parent.volume), int.from_bytes

        def new(name: bytes, row: bytes) -> Inode:
            seed = seeded.copy()
            seed.update(name)
            number = from_bytes(seed.digest(), "big") >> 1
            if number in inodes or number in gone:
                number = self._free(number)
            inode = inodes[number] = Inode(number, parent, name, False, volume, None, row)
            return inode

        return new

    def _free(self, number: int) -> int:
        while number in self._inodes or number in self._gone:
            number = (number + 0x9E3779B97F4A7C15) & 0x7FFFFFFFFFFFFFFF
        return number

    def outlived(self, inode: Inode) -> bool:
        """Whether *inode* was let go of, and what had its number after it is removed or called otherwise."""
        living = self._inodes.get(inode.number)
        if living is None:
            return inode.number in self._gone
        return living is not inode and (living.unlinked or living.parent is not inode.parent or living.name != inode.name)

    def keep(self, inode: Inode) -> Inode:
        """Somebody refers to *inode*: it stays until it is discarded. Returns which inode stands for its number."""
        return self._inodes.setdefault(inode.number, inode)

    def discard(self, inode: Inode) -> None:
        """Drop an inode that nobody refers to."""
        if self._inodes.get(inode.number) is inode:
            del self._inodes[inode.number]
        if inode.unlinked:
            self._gone.add(inode.number)
