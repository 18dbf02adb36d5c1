"""What a server can do, found out on scratch objects: appends, PUTs with conditions, and whether it makes folders of keys.

Owns: nothing that lasts; what it finds goes into the store's Abilities. Nothing stays behind: the scratch objects are deleted even when
the caller is cancelled. Never asks for an append on an object that matters: a server without appends would replace it.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

import trio

from zosfs.errors import UNMET, StoreError
from zosfs.store import answers
from zosfs.store.api import Abilities, Body
from zosfs.store.exchange import Exchange

log = logging.getLogger(__name__)

SCRATCH = ".zosfs-probe-"
"""What the names of scratch objects begin with."""
WRONG = "0" * 32
TRIES = 2
"""Scratch objects that are made one after the other where an answer is lost: one that may be there already tells nothing."""
CLEANING = 3.0
"""Seconds for the deletion of the scratch objects."""
ANSWERING = 1.0
"""Seconds for which a write that is under way is still waited for by who is cancelled: a server may carry out what was cut off later, and
after the deletion."""


class Probed(Protocol):
    """The bucket that is asked."""

    bucket: str
    abilities: Abilities
    exchange: Exchange
    quotes_if_match: bool

    async def delete_folder(self, key: str) -> bool:
        """See Store.delete_folder."""
        ...


async def probe(store: Probed, prefix: str, *, writes: bool) -> bool:
    """Fill *store*'s abilities. What cannot be found out (no right to, server in trouble) stays None.

    Returns whether the server told all there is to tell, refusals among it: after trouble it is worth asking again.

    Ten small requests, two of them deletes, in five round trips, and one more where there are folders; one for each part of *prefix*, at
    the same time. A versioned bucket is not written to: its scratch objects would leave versions, and Ceph 16 neither appends nor heeds
    conditions there.
    """
    missing: list[str] = []

    async def look(folder: str) -> None:
        if await _is_missing(store, folder):
            missing.append(folder)

    if not await _all_told(lambda: _versioning(store), *(partial(look, folder) for folder in folders_of(prefix) if writes)):
        return False
    abilities = store.abilities
    if abilities.versioned:
        abilities.append = abilities.put_if_match = abilities.put_if_none_match = False
        return True
    if not writes:
        return True
    scratch: list[str] = []
    folders: list[str] = []

    def fresh(name: str = "") -> str:
        scratch.append(f"{prefix}{SCRATCH}{uuid.uuid4().hex}{name}")
        return scratch[-1]

    def fresh_folder() -> str:
        key = fresh("/k")
        folders.append(key.removesuffix("k"))
        return key

    try:
        told = await _all_told(lambda: _append(store, fresh()), lambda: _conditions(store, fresh_folder()), tries=TRIES)
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(CLEANING):
            for keys in (scratch, folders if abilities.folders is not False else ()):
                await _all_told(*(lambda key=key: _send(store, "delete", "DELETE", key) for key in keys))
            if abilities.folders is not False:
                for folder in sorted(missing, key=len, reverse=True):
                    if not await _told(partial(store.delete_folder, folder)):
                        break
    log.debug("abilities of %s: %s", store.bucket, abilities)
    return told


def folders_of(prefix: str) -> list[str]:
    """The directories that a key beginning with *prefix* lies in (pure)."""
    return [prefix[: at + 1] for at, letter in enumerate(prefix) if letter == "/"]


async def _is_missing(store: Probed, folder: str) -> bool:
    """Whether the server has no *folder*; False where it does not say."""
    try:
        await _send(store, "head", "HEAD", folder)
    except StoreError as exc:
        return exc.status == 404
    return False


async def _told(step: Callable[[], Awaitable[object]], tries: int = 1) -> bool:
    """Make *step*, again where trouble came in between; whether the server told what was asked, be it by a refusal."""
    for _ in range(tries):
        try:
            if await step() is not False:
                return True
        except StoreError as exc:
            log.debug("not found out: %s", exc)
            if exc.refused:
                return True
    return False


async def _all_told(*steps: Callable[[], Awaitable[object]], tries: int = 1) -> bool:
    """`_told` of all *steps*, at the same time."""
    told: list[bool] = []

    async def one(step: Callable[[], Awaitable[object]]) -> None:
        told.append(await _told(step, tries))

    async with trio.open_nursery() as nursery:
        for step in steps:
            nursery.start_soon(one, step)
    return all(told)


async def _send(store: Probed, verb: str, method: str, key: str, *, tries: int = 2, **more: Any) -> Any:
    return await store.exchange.request(verb, method, store.bucket, key, tries=tries, **more)


async def _write(store: Probed, verb: str, key: str, **more: Any) -> Any:
    """As `_send`, of a PUT that is not cut off at once when the caller is cancelled."""
    answer: Any = None
    failure: StoreError | None = None
    async with trio.open_nursery() as nursery:
        with trio.CancelScope(shield=True) as scope:

            async def hurry() -> None:
                try:
                    await trio.sleep_forever()
                finally:
                    scope.deadline = trio.current_time() + ANSWERING

            nursery.start_soon(hurry)
            try:
                answer = await _send(store, verb, "PUT", key, **more)
            except StoreError as exc:
                failure = exc
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return answer


async def _refused(store: Probed, verb: str, key: str, body: Body = (b"x",), **more: Any) -> bool:
    """Whether the server refuses the request for its condition; False when it goes through or offers no such condition."""
    try:
        await _write(store, verb, key, body=body, **more)
    except StoreError as exc:
        if exc.row.code in UNMET:
            return True
        if exc.row.code in ("NotImplemented", "InvalidArgument", "InvalidRequest", "MethodNotAllowed"):
            return False
        raise
    return False


async def _versioning(store: Probed) -> None:
    """Whether the bucket has versions; raises where trouble came in between, and nothing may be written to it."""
    try:
        answer = await store.exchange.request("other", "GET", store.bucket, query={"versioning": ""}, tries=2)
        root = answers.parse(answer)
        if root.tag == "VersioningConfiguration":
            store.abilities.versioned = answers.field(root, "Status") in ("Enabled", "Suspended")
        else:
            store.abilities.versioned = False
    except StoreError as exc:
        if exc.row.code in ("NotImplemented", "MethodNotAllowed"):
            store.abilities.versioned = False
        raise


async def _append(store: Probed, key: str) -> None:
    first = await _write(store, "append", key, query={"append": "true", "position": "0"}, body=(b"x",), again=False, tries=1)
    if first.headers.get("x-rgw-next-append-position") != "1":
        store.abilities.append = False
        return
    # a server that really appends refuses a wrong position
    store.abilities.append = await _refused(store, "append", key, query={"append": "true", "position": "0"})


async def _conditions(store: Probed, key: str) -> bool:
    """Finds out about folders, too, *key* lying in one."""
    abilities = store.abilities
    made = await _write(store, "put", key, body=(b"probe",), headers={"if-none-match": "*"}, again=False, tries=1)
    etag = made.headers.get("etag", "").strip('"')

    async def none_match() -> None:
        abilities.put_if_none_match = await _refused(store, "put", key, (b"probe",), headers={"if-none-match": "*"})

    async def match() -> None:
        if not await _refused(store, "put", key, (b"probe",), headers={"if-match": WRONG}):
            abilities.put_if_match = False
            return
        for quoted, form in ((False, etag), (True, f'"{etag}"')):
            if not await _refused(store, "put", key, (b"probe",), headers={"if-match": form}):
                abilities.put_if_match, store.quotes_if_match = True, quoted
                return
        abilities.put_if_match = False

    async def folder() -> None:
        try:
            await _send(store, "head", "HEAD", key.removesuffix("k"))
            abilities.folders = True
        except StoreError as exc:
            if exc.status != 404:
                raise
            abilities.folders = False

    return await _all_told(none_match, match, folder)
