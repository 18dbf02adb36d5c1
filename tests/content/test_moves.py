"""Moves cut short at any request and ended by the next run: each object is whole at one place, what others did since is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import trio
from hypothesis import given
from hypothesis import strategies as st

from zosfs.config import Options
from zosfs.content.journal_rows import Move
from zosfs.content.moves import Moves
from zosfs.content.promises import Promises
from zosfs.errors import StoreError
from zosfs.store.api import Abilities, ListPage, ObjectInfo, Store, StoreFailure, Written
from zosfs.store.objects import objects_below

NAMES = ("", "a", "b", "c/", "c/d", "c/e", "f")


class Crash(BaseException):
    """The process ends."""


class Shelf:
    """A bucket of bodies of which so many changes go well."""

    abilities = Abilities(versioned=False)

    def __init__(self, things: Mapping[str, str]) -> None:
        self.things = dict(things)
        self.left = 1 << 30
        self.failure: BaseException | None = None

    def _change(self) -> None:
        self.left -= 1
        if self.left < 0 and self.failure is not None:
            raise self.failure

    def _info(self, key: str) -> ObjectInfo:
        return ObjectInfo(key, len(self.things[key]), "etag of " + self.things[key], 1)

    async def list_page(self, prefix: str, *, marker: str = "", **_: Any) -> ListPage:
        """Pages of two."""
        await trio.lowlevel.checkpoint()
        found = sorted(key for key in self.things if key.startswith(prefix) and key > marker)
        return ListPage(tuple(map(self._info, found[:2])), (), found[1] if len(found) > 2 else "")

    async def head(self, key: str) -> ObjectInfo:
        """See Store."""
        if key not in self.things:
            raise StoreError("NoSuchKey", status=404, operation="head", key=key)
        return self._info(key)

    async def copy(self, source: str, key: str, *, if_match: str, **_: Any) -> Written:
        """See Store."""
        await trio.lowlevel.checkpoint()
        self._change()
        if (await self.head(source)).etag != if_match:
            raise StoreError("PreconditionFailed", status=412, operation="copy", key=key)
        self.things[key] = self.things[source]
        return Written(if_match)

    async def delete(self, key: str) -> None:
        """See Store."""
        self._change()
        self.things.pop(key, None)

    async def delete_many(self, keys: Sequence[str]) -> Mapping[str, StoreFailure]:
        """Each key by itself, so that the end may come in between."""
        for key in keys:
            await self.delete(key)
        return {}


class Notes:
    """The journal's moves."""

    def __init__(self) -> None:
        self.moves: dict[str, Move] = {}

    async def note_move(self, move: Move) -> None:
        """See Promises."""
        self.moves[move.old] = move

    async def move_done(self, move: Move, made: Mapping[str, int]) -> None:
        """See Promises."""
        self.moves.pop(move.old, None)

    async def redirect(self, move: Move) -> None:
        """See Promises."""


def moves(shelf: Shelf, notes: Notes) -> Moves:
    return Moves(cast(Store, shelf), cast(Promises, notes), Options())


async def attempt(shelf: Shelf, notes: Notes) -> BaseException | None:
    """Move old/ to new/, both of which are whole in between; how that failed."""

    def below(prefix: str) -> dict[str, str]:
        return {key.removeprefix(prefix): body for key, body in shelf.things.items() if key.startswith(prefix)}

    before = below("old/")

    async def whole(made: Mapping[str, int]) -> None:
        assert before == below("old/")
        assert before.items() <= below("new/").items()

    try:
        await moves(shelf, notes).move("old/", "new/", [info async for info in objects_below(cast(Store, shelf), "old/")], whole)
    except AssertionError:
        raise
    except BaseException as exc:
        return exc
    return None


def bodies(names: set[str]) -> dict[str, str]:
    """Markers are empty, all else has a body of its own."""
    return {f"old/{name}": "" if not name or name.endswith("/") else f"body of {name}" for name in names}


@given(st.sets(st.sampled_from(NAMES), min_size=1), st.integers(0, 16), st.sets(st.sampled_from(NAMES[1:3])), st.booleans())
def test_killed_at_any_request(names: set[str], at: int, changed: set[str], later: bool) -> None:
    async def test() -> None:
        shelf, notes = Shelf(bodies(names)), Notes()
        shelf.left, shelf.failure = at, Crash()
        failure = await attempt(shelf, notes)
        assert (failure is None) == (not notes.moves)
        theirs = {}
        for name in changed:
            if f"old/{name}" in shelf.things:
                shelf.things[f"old/{name}"] = theirs[name] = f"changed {name}"
        if later:
            shelf.things["old/later"] = theirs["later"] = "made since"
        shelf.failure = None
        for move in list(notes.moves.values()):
            await moves(shelf, notes).finish(move)
        assert notes.moves == {}
        for name in names:
            assert f"new/{name}" in shelf.things, "all arrive"
            if name not in theirs:
                assert f"old/{name}" not in shelf.things
                assert shelf.things[f"new/{name}"] == bodies(names)[f"old/{name}"]
        for name, body in theirs.items():
            assert body in (shelf.things.get(f"old/{name}"), shelf.things.get(f"new/{name}")), "nothing of others is lost"

    trio.run(test)


@given(st.sets(st.sampled_from(NAMES), min_size=1), st.integers(0, 6))
def test_a_server_that_goes_away_at_any_request(names: set[str], at: int) -> None:
    async def test() -> None:
        shelf, notes = Shelf(bodies(names)), Notes()
        shelf.left, shelf.failure = at, StoreError("EndpointUnreachable", operation="copy")
        failure = await attempt(shelf, notes)
        if failure is not None and at < len(names):
            assert bodies(names).items() <= shelf.things.items(), "the old directory is whole"
        shelf.failure = None
        for move in list(notes.moves.values()):
            await moves(shelf, notes).finish(move)
        prefix = "new/" if failure is None or at >= len(names) else "old/"
        expected = {prefix + key.removeprefix("old/"): body for key, body in bodies(names).items()}
        markers = {key for key in shelf.things if not shelf.things[key]}
        assert {key: body for key, body in shelf.things.items() if key in expected or key not in markers} == expected

    trio.run(test)
