"""Directories that are being renamed: what is changed below them waits until their objects have come to the other keys, and they wait for
what is being changed. Where an earlier run began a renaming, whoever asks for a name waits: this one knows of no inode that moves.

Owns: which directories those are, and which tasks change something where. Must not know: how objects move.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from dataclasses import dataclass

import trio

from zosfs.content.content import Content
from zosfs.content.moves import Made
from zosfs.fs.open_files import OpenFiles
from zosfs.tree.inodes import Inode, Volume
from zosfs.tree.names import name_to_part

LOOK_SECONDS = 1.0
"""How often who waits for what is being changed, or renamed, looks whether that is for want of room on the disk, or stuck."""


@dataclass(frozen=True, slots=True, eq=False)
class Left:
    """A place that an earlier run's renaming has to do with."""

    volume: Volume | None
    prefix: str
    check: Callable[[], object]
    """Raises the OSError that who asks for a name there gets instead of waiting on."""
    end: trio.Event


class Moving:
    """The directories of a mount whose objects are on their way to other keys."""

    def __init__(self, open_files: OpenFiles) -> None:
        self._open_files = open_files
        self._ends: dict[Inode, trio.Event] = {}
        self._changing: dict[trio.lowlevel.Task, tuple[Inode, ...]] = {}  # who changes something in the store, and where
        self._changed = trio.Event()  # one of them is done
        self.left: list[Left] = []
        """By an earlier run: what lies at keys that begin so is on its way from or to another place until then."""

    @contextlib.asynccontextmanager
    async def directory(self, directory: Inode) -> AsyncIterator[None]:
        """While the objects below *directory* move to other keys: nothing below it is changed in the store, that waits for the end."""
        while True:
            end = self._ends[directory] = trio.Event()
            try:
                if await self._unchanged(directory):
                    for file in self._open_files.below(directory):
                        with self._open_files.held(file):
                            async with file.lock:  # what had begun is done
                                if file.writer is not None and file.writer.partly_gone:
                                    await file.writer.deliver()
                    yield
                    return
            finally:
                del self._ends[directory]
                end.set()
            before = self._changed_below(directory)
            while any(self._changing.get(task) is inodes for task, inodes in before.items()):
                await self._changed.wait()

    async def _unchanged(self, directory: Inode) -> bool:
        """Wait until no other task is changing anything below *directory*. False: one of them may need room on the disk, which may be made
        only by those who wait for the end of this."""
        content: Content | None = directory.volume.content if directory.volume is not None else None
        while self._changed_below(directory):
            with trio.move_on_after(LOOK_SECONDS):
                await self._changed.wait()
                continue
            if content is not None and content.lacks_room:
                return False
        return True

    def _changed_below(self, directory: Inode) -> dict[trio.lowlevel.Task, tuple[Inode, ...]]:
        """The other tasks that are changing something below *directory*, and what."""
        me = trio.lowlevel.current_task()
        return {
            task: inodes for task, inodes in self._changing.items()
            if task is not me and any(inode.is_below(directory) for inode in inodes)
        }  # fmt: skip

    @contextlib.asynccontextmanager
    async def still(self, *inodes: Inode) -> AsyncIterator[None]:
        """Within, the task changes *inodes* in the store, or names in them: no directory above begins to move to other keys.

        Waits while one does. What the task does within is not asked again.
        """
        task = trio.lowlevel.current_task()
        if task in self._changing:
            yield
            return
        for inode in inodes:
            await self.settled(inode)
        while any(self.has(inode) for inode in inodes):
            for inode in inodes:
                await self.unmoved(inode)
        self._changing[task] = inodes
        try:
            yield
        finally:
            del self._changing[task]
            self._changed.set()
            self._changed = trio.Event()

    def has(self, inode: Inode) -> bool:
        """Whether *inode* lies below one of them."""
        return any(inode.is_below(directory) for directory in self._ends)

    async def unmoved(self, inode: Inode) -> None:
        """Wait until no directory above *inode* is on its way to other keys."""
        while self._ends:
            end = next((end for directory, end in self._ends.items() if inode.is_below(directory)), None)
            if end is None:
                return
            await end.wait()

    async def settled(self, inode: Inode, name: bytes = b"", *, below: bool = False) -> None:
        """Wait until no renaming that an earlier run began has to do with *inode*, or with *name* in it; nor, where *below*, with anything
        below that. OSError(EBUSY) where that end is not to be expected soon."""
        while self.left:
            key = f"{inode.key}{name_to_part(name)}/" if name else inode.key
            for left in self.left:
                if inode.volume is left.volume and (key.startswith(left.prefix) or (below and left.prefix.startswith(key))):
                    left.check()
                    with trio.move_on_after(LOOK_SECONDS):
                        await left.end.wait()
                    break
            else:
                return

    @contextlib.contextmanager
    def of_an_earlier_run(
        self, volume: Volume | None, prefixes: Collection[str], check: Callable[[], object] = lambda: None
    ) -> Iterator[None]:
        """Within, what lies at keys of *volume* that begin with one of *prefixes* is on its way to or from there; *check* raises what who
        asks there gets instead of waiting on."""
        end = trio.Event()
        left = [Left(volume, prefix, check, end) for prefix in prefixes]
        self.left += left
        try:
            yield
        finally:
            self.left = [one for one in self.left if one not in left]
            end.set()

    async def renamed_below(self, directory: Inode, made: Made) -> None:
        """The keys of everything below *directory* changed: readers and writers go on under the new ones, where objects were *made*."""
        for file in self._open_files.below(directory):
            file.version += 1
            if file.writer is not None:
                key = file.inode.key
                await file.writer.renamed(key, made.get(key, 0))
