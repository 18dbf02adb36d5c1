"""The pages of one directory's listing, one after the other, asked for ahead and, where the directory is huge, several at once.

Owns: the requests under way for one load, and what came before anybody wanted it. Where to ask ahead is decided in spread.py. May use: the
store, what is known (zosfs.tree.facts). Must not know: who reads the directory.
"""

from __future__ import annotations

import errno

import trio

from zosfs.errors import StoreError
from zosfs.store.api import ListPage, ObjectInfo, Store
from zosfs.tree.directory import Directory
from zosfs.tree.facts import Facts
from zosfs.tree.spread import Guesses, bytewise, later, plain
from zosfs.tree.undecided import Undecided

AHEAD = 5.0
"""Seconds for which a page that was asked for ahead waits for a reader who pauses."""


class _Flight:
    """A page asked for behind some key, at a time, and at the tree's sequence of then; *page* is None when that failed."""

    __slots__ = ("asked", "came", "page", "sequence")

    def __init__(self, sequence: int) -> None:
        self.asked = trio.current_time()
        self.sequence = sequence
        self.came = trio.Event()
        self.page: ListPage | None = None


class Pages:
    """The pages of what lies directly below *prefix*."""

    def __init__(self, tree: Facts, store: Store, prefix: str) -> None:
        self._tree = tree
        self._store = store
        self.prefix = prefix
        self._flights: dict[str, _Flight] = {}  # by the key behind which they were asked for
        self._guesses = Guesses()
        self._undecided = Undecided(prefix)

    async def after(self, reached: str) -> tuple[ListPage, int]:
        """The page behind *reached* ("": the first one), and at which of the tree's sequences it was asked for. Raises StoreError.

        A file stands on the page by which it is known whether a directory has its name, too.
        """
        asked = trio.current_time()
        found = await self._ahead(reached)
        if found is None:
            sequence = self._tree.sequence
            found = await self._list(reached), sequence
        self._guesses.told(found[0], reached)
        page, sequence, lost = self._undecided.told(*found, asked)
        again = [info for key in lost if (info := await self._again(key)) is not None]
        if again:
            page = ListPage(sorted([*again, *page.objects], key=lambda info: bytewise(info.key)), page.prefixes, page.next_marker)
        return page, sequence

    def ask(self, page: ListPage) -> None:
        """Ask for what comes behind *page*, the last one told, before it is wanted."""
        reached = page.next_marker
        if not self._before(reached):
            self._fly(reached)
        for start in self._guesses.starts(page, [start for start in self._flights if start != reached]):
            self._fly(start)

    async def coming(self, reached: str) -> None:
        """Wait for what was asked for ahead and goes on from *reached*."""
        for start in self._before(reached)[:1]:
            await self._flights[start].came.wait()

    def keep(self, directory: Directory, reached: str) -> str:
        """Somebody reads on from *reached* after a pause: forget what may not be true any more. Changes here since are remembered by
        nobody, once nothing is under way. Who pauses is not waiting for the server, and nothing is guessed for him any more.

        Returns behind which key to go on: earlier, where what was told up to *reached* did not include the last file.
        """
        self._guesses.trusted = False
        now, ttl = trio.current_time(), self._tree.options.metadata_ttl

        def believed(sequence: int, asked: float) -> bool:
            same = sequence == self._tree.sequence and directory.doubted_at < asked
            return same and now - asked < min(AHEAD, ttl)

        for start, flight in list(self._flights.items()):
            if not believed(flight.sequence, flight.asked):
                del self._flights[start]
        return self._undecided.resume(reached, self._tree.sequence, believed)

    async def _ahead(self, reached: str) -> tuple[ListPage, int] | None:
        """What was asked for ahead and goes on from *reached*."""
        for start in self._before(reached):
            flight = self._flights[start]
            await flight.came.wait()
            del self._flights[start]
            if flight.page is None:
                continue  # it is asked for again, so that the failure is told
            if start == reached:
                return flight.page, flight.sequence
            if plain(flight.page, start) and self._guesses.trusted:
                rest = later(flight.page, reached)
                self._guesses.used(len(rest.objects), len(flight.page.objects))
                if rest.objects or not rest.next_marker:
                    return rest, flight.sequence
            else:
                self._guesses.used(0, 1)
        return None

    def _before(self, reached: str) -> list[str]:
        """Where pages were asked for that may go on from *reached*, the likeliest first."""
        return sorted((start for start in self._flights if bytewise(start) <= bytewise(reached)), key=bytewise, reverse=True)

    def _fly(self, start: str) -> None:
        flight = self._flights[start] = _Flight(self._tree.sequence)
        self._tree.nursery.start_soon(self._ask, start, flight)

    async def _ask(self, start: str, flight: _Flight) -> None:
        try:
            flight.page = await self._list(start)
        except OSError:
            pass  # it is asked for again where the failure can be told
        finally:
            flight.came.set()

    async def _again(self, key: str) -> ObjectInfo | None:
        hidden = self._tree.removed.hiding(self._store, key)
        try:
            found = await self._store.head(key)
            return None if hidden(found) else found
        except StoreError as exc:
            if exc.errno != errno.ENOENT:
                raise
            return None

    async def _list(self, start: str) -> ListPage:
        return await self._tree.removed.list_page(self._store, self.prefix, delimiter="/", marker=start)
