"""Append uploads that neither lose nor repeat bytes, whoever else appends to the same object.

Owns: what an append's failure means. May use: zosfs.store.api, zosfs.errors, zosfs.content.etags.
Must not know: files, plans, the kernel.

The server takes an append only at the object's length, so an append is a compare-and-append: of several at one position, one
wins. What remains is the answer that got lost. An append can only have landed at the position that it was sent to, so the
object tells: by its length and chained ETag or, when others appended behind it, by the bytes at that position. (One hole is
left: another host's append of exactly the same bytes at exactly the same position cannot be told from ours.)

Only the first append is different: on Ceph 16 those that find no object do not exclude each other, all are acknowledged and
the last one stays. So an object is created empty, appended to, and looked at; what a slower creation wiped out is appended again.
"""

from __future__ import annotations

import dataclasses
import enum
import errno
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import trio

from zosfs.content.delivered import delivered_info
from zosfs.content.etags import body_bytes, chain_etag, slice_body
from zosfs.errors import StoreError
from zosfs.store.api import Body, ObjectHeaders, ObjectInfo, Store, Written, body_length
from zosfs.store.digests import md5_hex

PATIENCE = 70.0
"""Seconds to wait for a half-sent append to be forgotten: RGW drops one after 65 s without bytes."""
_TRIES = 8
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class AppendState:
    """Where the next append goes and on what: *position* in bytes, the *etag* that the object has now.

    *etag* is "" for an object that does not exist yet (and then *position* is 0).
    """

    position: int = 0
    etag: str = ""

    @classmethod
    def of(cls, info: ObjectInfo) -> AppendState:
        """The state of an object that was just looked at."""
        return cls(info.size, info.etag)

    def after(self, length: int, chunk: str) -> AppendState:
        """The state after an append of *length* bytes with the MD5 *chunk*."""
        return AppendState(self.position + length, chain_etag(self.etag, chunk))


@dataclass(slots=True)
class Sent:
    """What the last try of an append sent, for the next one to look for where that got no answer: *length* bytes behind the first
    *landed* ones, onto *state* (None: nothing was sent). *skipped* is what had landed of a tail of which the rest alone is being appended.
    *note* is called before anything is sent."""

    state: AppendState | None = None
    landed: int = 0
    length: int = 0
    skipped: int = 0
    note: Callable[[], Awaitable[None]] | None = None

    async def onto(self, state: AppendState, length: int) -> None:
        """The next *length* bytes are about to be sent onto *state*."""
        self.state, self.length = state, length
        if self.note is not None:
            await self.note()

    def to_list(self) -> list[Any]:
        """For the journal; [] where nothing is in doubt."""
        return [] if self.state is None else [self.state.position, self.state.etag, self.skipped + self.landed, self.length]

    def restore(self, noted: Sequence[Any]) -> None:
        """What an earlier run noted."""
        self.forget()
        if noted:
            position, etag, self.landed, self.length = noted
            self.state = AppendState(position, etag)

    def forget(self) -> None:
        """Nothing is in doubt."""
        self.state, self.landed, self.length = None, 0, 0


class Verdict(enum.Enum):
    """What became of an append that failed or got no answer."""

    LANDED = "the object is what it must be with our bytes"
    LOOK = "the object grew; whether by our bytes, only its bytes can tell"
    AGAIN = "the object is as before: the same append may be sent again"
    WAIT = "something half-sent is in the way at this position"
    MOVED = "the object is another one or grew by others' bytes"
    NORMAL = "the object takes no appends any more"
    GONE = "the object was deleted"


@dataclass(frozen=True, slots=True)
class Appended:
    """A finished append: the object as it is now, whether others' bytes are in it that the caller has not seen, and where ours end."""

    info: ObjectInfo
    foreign: bool
    end: int

    @property
    def state(self) -> AppendState:
        """What the next append builds on."""
        return AppendState.of(self.info)


def judge(
    state: AppendState, length: int, chunk: str, found: ObjectInfo | None, code: str, *, doubtful: bool
) -> Verdict:
    """What became of an append of *length* bytes (MD5 *chunk*) to an object in *state*, now that a HEAD *found* this.

    *code* is the last try's error. *doubtful* says whether any try may have been applied although no good
    answer came; an append that was plainly refused has not landed, whatever the object looks like.
    """
    if found is None:
        return Verdict.GONE if state.etag else Verdict.AGAIN
    after = state.after(length, chunk)
    if doubtful and found.size == after.position and found.etag == after.etag:
        return Verdict.LANDED
    if not found.appendable:
        return Verdict.NORMAL
    if state.etag and found.size == state.position and found.etag == state.etag:
        return Verdict.WAIT if code == "BucketAlreadyExists" else Verdict.AGAIN
    if doubtful and found.size > state.position:
        return Verdict.LOOK
    return Verdict.MOVED


async def append(
    store: Store,
    key: str,
    state: AppendState,
    body: Body,
    headers: ObjectHeaders,
    *,
    appending: bool,
    doubtful: bool = False,
    sent: Sent | None = None,
    patience: float = PATIENCE,
) -> Appended:
    """Append *body* to *key* exactly once. *headers* must be all that the object is to have: the server replaces the old ones.

    *appending*: wherever the object's end is (O_APPEND), so that others' appends go in front; otherwise only onto *state*, and
    StoreError ``Conflict`` (ESTALE) when the object is another one. *doubtful*: an earlier call with the same bytes (or less) and state may
    have been applied; *sent*, which that call was given too, tells where, if others' went in front. *patience* is how many seconds a
    half-sent append in the way is waited for.
    Raises ``ObjectNotAppendable`` when the object must be rewritten instead (nothing was appended), ``Conflict`` when it is
    gone, and what the store raises; after an ambiguous error the next call must say *doubtful*.
    """
    if sent is None or not appending:
        sent = Sent()
    before = sent.state
    if before is None:
        sent.forget()
    if not state.etag and body_length(body):
        return await _create(store, key, body, headers, doubtful=doubtful, sent=sent, patience=patience)
    if before is not None:
        return await _go_on(store, key, before, body, headers, foreign=before != state, sent=sent, patience=patience)
    return await _append(
        store, key, state, body, headers, appending=appending, doubtful=doubtful, foreign=False, sent=sent, patience=patience
    )


async def _go_on(
    store: Store, key: str, before: AppendState, body: Body, headers: ObjectHeaders, *, foreign: bool, sent: Sent, patience: float
) -> Appended:
    """Append what of *body* has not landed: first what an earlier call sent onto *before*, just as it did, or it would not be found
    where others' bytes are behind it."""
    length = body_length(body)
    end = min(length, sent.landed + sent.length)
    tried = slice_body(body, sent.landed, end)
    done = await _append(
        store, key, before, tried, headers, appending=True, doubtful=True, foreign=foreign, sent=sent, patience=patience
    )
    if end == length:
        return done
    sent.landed = end
    rest = slice_body(body, end, length)
    return await _append(
        store, key, done.state, rest, headers, appending=True, doubtful=False, foreign=done.foreign, sent=sent, patience=patience
    )


async def _append(
    store: Store, key: str, state: AppendState, body: Body, headers: ObjectHeaders, *,
    appending: bool, doubtful: bool, foreign: bool, sent: Sent, patience: float,
) -> Appended:  # fmt: skip
    """`append` of what has not landed yet, onto *state*."""
    tries = 0
    pause = 0.05
    deadline = trio.current_time() + patience
    while True:
        length = body_length(body)
        await sent.onto(state, length)
        try:
            written = await store.append(key, state.position, body, headers)
        except StoreError as error:
            failure = error
            if not (doubtful or failure.ambiguous or sent.landed):
                sent.state = None
        else:
            chunk = written.etag or await trio.to_thread.run_sync(md5_hex, body)
            # some servers tell the object's ETag, RGW that of the chunk: they differ from the second append on
            now = AppendState(state.position + length, chunk) if "-" in chunk else state.after(length, chunk)
            return Appended(_info(key, now, headers, written), foreign, now.position)
        if failure.code in ("ObjectNotAppendable", "InvalidBucketState") and not doubtful:
            raise StoreError(
                "ObjectNotAppendable", status=failure.status, message=failure.code, operation="append", key=key
            ) from failure
        if not failure.ambiguous and failure.code not in _SETTLED_BY_HEAD:
            raise failure
        doubtful = doubtful or failure.ambiguous
        landed = 0
        while True:
            found = await look(store, key)
            # only a doubtful try can have landed, so only then the bytes' sum is asked for
            chunk = await trio.to_thread.run_sync(md5_hex, body) if doubtful else _EMPTY
            verdict = judge(state, length, chunk, found, failure.code, doubtful=doubtful)
            if verdict is not Verdict.LOOK or found is None:
                break
            try:
                landed = await holds(store, key, state.position, body, found)
                break
            except StoreError as changed:  # others appended once more
                if changed.errno not in (errno.ESTALE, errno.ENOENT):
                    raise
        if verdict is Verdict.LOOK and found is not None:
            if landed == length:
                return Appended(found, True, state.position + length)
            # an earlier, shorter try of a file that has grown since
            body = slice_body(body, landed, length)
            sent.landed += landed
            doubtful = False
            verdict = Verdict.MOVED
            if landed:
                state = AppendState.of(found)
                continue
        match verdict:
            case Verdict.LANDED if found is not None:
                return Appended(found, foreign, found.size)
            case Verdict.NORMAL:
                raise StoreError("ObjectNotAppendable", status=409, operation="append", key=key) from failure
            case Verdict.MOVED if found is not None and appending:
                state, foreign, doubtful = AppendState.of(found), True, False
                pause = 0.05
                await trio.sleep(random.uniform(0, 0.01))
                continue
            case Verdict.WAIT:
                if trio.current_time() + pause > deadline:
                    raise StoreError(
                        "ObjectNotAppendable", status=409, message="a half-sent append blocks it", operation="append", key=key
                    ) from failure
            case Verdict.AGAIN:
                tries += 1
                if tries >= _TRIES:
                    raise failure
            case _:
                raise StoreError("Conflict", operation="append", key=key) from failure
        await trio.sleep(pause * random.uniform(0.5, 1))
        pause = min(pause * 2, 5.0)


async def _create(
    store: Store, key: str, body: Body, headers: ObjectHeaders, *, doubtful: bool, sent: Sent, patience: float
) -> Appended:
    """The first append to an object that was missing when its file was opened."""
    foreign = False
    length = body_length(body)
    for _ in range(_TRIES):
        before = sent.state
        found = await look(store, key) if doubtful and before is None else None
        try:
            landed = await holds(store, key, 0, body, found) if found is not None else 0
        except StoreError as changed:  # others appended meanwhile
            if changed.errno not in (errno.ESTALE, errno.ENOENT):
                raise
            continue
        if found is not None and landed == length:
            return Appended(found, found.size != length, length)
        if before is not None:
            # an earlier try got as far as this, perhaps behind others
            done = await _go_on(store, key, before, body, headers, foreign=False, sent=sent, patience=patience)
        else:
            if found is not None and found.appendable and landed == found.size:
                # an earlier try got so far: made it empty, or appended what the file was then
                state = AppendState.of(found)
            else:
                made = await append(store, key, AppendState(), [], headers, appending=True, patience=patience)
                state, landed, foreign = made.state, 0, foreign or made.foreign
            sent.landed = landed
            rest = slice_body(body, landed, length)
            done = await _append(
                store, key, state, rest, headers, appending=True, doubtful=False, foreign=False, sent=sent, patience=patience
            )
        # until it is seen that no slower creation wiped it out, the next call looks there
        rest, landed = slice_body(body, sent.landed, length), sent.landed
        foreign = foreign or done.foreign
        position = done.end - body_length(rest)
        while True:
            found = await look(store, key)
            if found is not None and found.etag == done.info.etag:
                return Appended(found, foreign or position > landed, done.end)
            try:
                if found is not None and await holds(store, key, position, rest, found) == body_length(rest):
                    return Appended(found, True, done.end)
                sent.forget()
                break
            except StoreError as changed:  # others appended once more
                if changed.errno not in (errno.ESTALE, errno.ENOENT):
                    raise
    raise StoreError("Conflict", operation="append", key=key, message="others went on creating it")


def left_by(before: str, chunk: str) -> set[str]:
    """The ETags that an append of bytes with the MD5 *chunk* to the object of ETag *before* ("": none) may leave, begun or done, or with
    other headers since."""
    done = chain_etag(before or _EMPTY, chunk)
    return {done, chain_etag(done, _EMPTY)} if before else {_EMPTY, done, chain_etag(done, _EMPTY)}


async def set_headers_by_empty_append(
    store: Store, key: str, state: AppendState, headers: ObjectHeaders
) -> Appended:
    """Give an appendable object new *headers* without making it a normal one, as a self-copy would: an append of no bytes.

    It counts as an append, so the ETag changes. Raises as `append` does, ``Conflict`` when the object is not in *state*.
    """
    return await append(store, key, state, [], headers, appending=False)


async def look(store: Store, key: str) -> ObjectInfo | None:
    """HEAD *key*; None when it is missing."""
    try:
        return await store.head(key)
    except StoreError as error:
        if error.errno == errno.ENOENT and error.code != "NoSuchBucket":
            return None
        raise


_SETTLED_BY_HEAD = ("PositionNotEqualToLength", "BucketAlreadyExists", "ObjectNotAppendable", "InvalidBucketState")
_EMPTY = "d41d8cd98f00b204e9800998ecf8427e"


async def holds(store: Store, key: str, position: int, body: Body, found: ObjectInfo) -> int:
    """How many bytes of *body* the object has at *position*: all, all that fit (the object ends inside), or 0."""
    length = min(body_length(body), found.size - position)
    for at in range(0, length, _BLOCK):
        end = min(at + _BLOCK, length)
        theirs = bytearray(end - at)
        await store.get_range(key, position + at, memoryview(theirs), if_match=found.etag)
        if await trio.to_thread.run_sync(body_bytes, slice_body(body, at, end)) != theirs:
            return 0
    return length


def _info(key: str, state: AppendState, headers: ObjectHeaders, written: Written) -> ObjectInfo:
    return delivered_info(key, state.position, dataclasses.replace(written, etag=state.etag), headers, "Appendable")
