"""Archived objects: whether one can be read, asking for a copy that can, and waiting for it.

Owns: the archive classes, the states, the text form of a request, and thawing many. May use: store/. Must not know: FUSE, terminals.
What a server does is S3's RestoreObject (https://docs.aws.amazon.com/AmazonS3/latest/API/API_RestoreObject.html), which ZOS's manual
repeats: 1 to 31 days.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import trio

from zosfs.admin.refusal import Refusal
from zosfs.admin.words import number, parse_words
from zosfs.errors import StoreError
from zosfs.store.api import ObjectInfo, Store
from zosfs.store.objects import objects_below

ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
"""Storage classes whose objects are thawed before they can be read."""
TIERS = ("Standard", "Expedited", "Bulk")
ARCHIVED, THAWING, NOT_ARCHIVED, REFUSED = "archived", "thawing", "not archived", "refused"
UNREADABLE = frozenset({ARCHIVED, THAWING})
AT_ONCE = 16


@dataclass(slots=True)
class Thaw:
    """One object to thaw: its state, and why where it is REFUSED."""

    key: str
    state: str = ARCHIVED
    why: str = ""


def restore_state(info: ObjectInfo) -> str:
    """``archived``, ``thawing``, ``thawed until DATE`` or ``not archived``, by what a HEAD said (pure)."""
    said = info.headers.get("x-amz-restore", "")
    if 'ongoing-request="true"' in said:
        return THAWING
    if said:
        until = re.search(r'expiry-date="([^"]*)"', said)
        return f"thawed until {until[1]}" if until else "thawed"
    return ARCHIVED if info.storage_class in ARCHIVES else NOT_ARCHIVED


def parse_restore(text: str) -> dict[str, Any]:
    """boto3's RestoreRequest of ``days=7,tier=Standard`` (days 1 to 31). Raises Refusal (pure)."""
    words = parse_words(text, "restore", ("days", "tier"))
    tier = words.get("tier", "Standard").capitalize()
    if tier not in TIERS:
        raise Refusal(f"restore: tier {tier!r} is none of {', '.join(TIERS)}")
    return {"Days": number(words.get("days", "1"), "restore: days", 1, 31), "GlacierJobParameters": {"Tier": tier}}


async def archived_below(store: Store, prefix: str) -> AsyncIterator[str]:
    """The keys under *prefix* whose objects lie in an archive class. Raises StoreError."""
    async for info in objects_below(store, prefix):
        if info.storage_class in ARCHIVES:
            yield info.key


async def ask(store: Store, thaws: Iterable[Thaw], request: dict[str, Any]) -> None:
    """Ask for a readable copy of each that is archived; each then has its state. What the server refuses is no error here."""

    async def one(thaw: Thaw) -> None:
        thaw.state = restore_state(await store.head(thaw.key))
        if thaw.state == NOT_ARCHIVED:
            return
        try:
            # of a thawed one this sets anew how long it stays readable
            await store.call("restore_object", Key=thaw.key, RestoreRequest=request)
        except StoreError as exc:
            if exc.code != "RestoreAlreadyInProgress":
                raise
        if thaw.state == ARCHIVED:
            thaw.state = THAWING

    await _each(thaws, one)


async def look(store: Store, thaws: Iterable[Thaw]) -> list[Thaw]:
    """Look again at those that are thawing; returns what still is."""

    async def one(thaw: Thaw) -> None:
        thaw.state = restore_state(await store.head(thaw.key))

    waiting = [thaw for thaw in thaws if thaw.state == THAWING]
    await _each(waiting, one)
    return [thaw for thaw in waiting if thaw.state == THAWING]


async def _each(thaws: Iterable[Thaw], work: Callable[[Thaw], Awaitable[None]]) -> None:
    todo = iter(list(thaws))

    async def worker() -> None:
        for thaw in todo:
            try:
                await work(thaw)
            except StoreError as exc:
                thaw.state, thaw.why = REFUSED, str(exc)

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(worker)
