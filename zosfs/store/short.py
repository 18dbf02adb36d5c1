"""Short exchanges on the trio thread itself: what fits into some packets each way is not worth a worker.

A hop to a thread and back are two futexes, two hand-overs of the GIL and a turn of the loop, each behind whatever else keeps the
processors busy; without it a request is one send, one wait, one receive. Owns: nothing. May use: wire. Must not know: S3.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from zosfs import inplace
from zosfs.store.api import Body, FileSlice, body_length
from zosfs.store.waking import SMALL
from zosfs.store.wire import Comes, Connection

MOST_SENT = 32 << 10
"""Bytes of a body that is sent in passing: what is copied is copied by the loop's thread."""
IN_PLACE = 4
"""Waits in place for an answer: one of a server nearby is there within their milliseconds."""


def is_short(method: str, body: Body, into: memoryview | None) -> bool:
    """Whether a request is small, and so is its answer, as far as that can be told before (pure)."""
    if method == "GET" and (into is None or len(into) > SMALL):
        return False
    return body_length(body) <= MOST_SENT and not any(isinstance(piece, FileSlice) for piece in body)


async def begin(connection: Connection, head: bytes, body: Body, has_body: bool, patience: float) -> bool:
    """Send a request on *connection*, which is made, and receive the answer as far as it is short.

    True: it is there for `Connection.take`. False: it is long, and a thread should `Connection.wait` for the rest. *patience*: seconds
    of silence that are allowed. Raises WireError. Who is cancelled closes the connection.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    data = memoryview(b"".join((head, *(piece for piece in body if not isinstance(piece, FileSlice)))))
    data = data[connection.begin(data) :]
    while data:
        await _wait(connection, trio.lowlevel.wait_writable, patience)
        data = data[connection.send_some(data) :]
    while True:
        if not inplace.readable(connection.fileno(), IN_PLACE):
            await _wait(connection, trio.lowlevel.wait_readable, patience)
        comes = connection.receive_some(has_body)
        if comes is not Comes.LATER:
            return comes is Comes.WHOLE


async def _wait(connection: Connection, ready: Callable[[int], Awaitable[None]], patience: float) -> None:
    with trio.move_on_after(patience) as scope:
        await ready(connection.fileno())
    if scope.cancelled_caught:
        raise connection.silent()
