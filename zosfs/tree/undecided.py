"""Files of a large directory that wait for the page by which it is known whether a directory has their name, too (pure).

`a` comes before `a-b` and `a.b`, and these before `a/`: of the files up to the end of a page the last one may have its directory behind
it, and so may those whose names the last one begins with. They are told with a later page, so that none has to change its name.

Owns: the files held back in one listing. Must not know: requests, inodes.
"""

from __future__ import annotations

from collections.abc import Callable

from zosfs.store.api import ListPage, ObjectInfo
from zosfs.tree.by_name import just_before
from zosfs.tree.spread import bytewise


def undecided(prefix: str, marker: str) -> set[str]:
    """The keys directly below *prefix* up to *marker*, with which a page ends, whose directories of the same name come behind it."""
    return {marker[:end] for end in range(len(prefix) + 1, len(marker) + 1) if marker[end : end + 1] < "/"}


class Undecided:
    """What is held back of the pages of one directory, whose key is *prefix*."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._held: dict[str, ObjectInfo | None] = {}  # None: it has to be asked for again
        self._sequence = 0  # the tree's when the first of them was asked for
        self._since = 0.0  # when the last of them was

    def told(self, page: ListPage, sequence: int, asked: float) -> tuple[ListPage, int, list[str]]:
        """*page*, asked for at that time and at the tree's *sequence*, with what is decided by now; at which sequence all of it was true;
        and the keys of files that would be on it if they are still there."""
        if not self._held and not page.next_marker:
            return page, sequence, []
        unsure = undecided(self._prefix, page.next_marker)
        lost = [key for key, info in self._held.items() if info is None and key not in unsure]
        objects = page.objects
        if self._held:
            sequence = min(sequence, self._sequence)
            held = [info for info in self._held.values() if info is not None]
            objects = sorted([*held, *objects], key=lambda info: bytewise(info.key))
        self._held = {key: None for key, info in self._held.items() if info is None and key in unsure}
        self._held.update((info.key, info) for info in objects if info.key in unsure)
        self._sequence, self._since = sequence, asked
        decided = [info for info in objects if info.key not in unsure]
        return ListPage(decided, page.prefixes, page.next_marker), sequence, lost

    def resume(self, reached: str, sequence: int, believed: Callable[[int, float], bool]) -> str:
        """The listing goes on from *reached* after a pause, at the tree's *sequence*: behind which key to ask. Whether what was asked for
        at a sequence and a time is *believed* still."""
        if not self._held or believed(self._sequence, self._since):
            return reached
        last = reached in self._held
        self._held = {key: None for key in self._held if key != reached}
        self._sequence = sequence
        return just_before(reached) if last else reached
