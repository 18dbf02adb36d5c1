"""The last delivery: everything that files, directories and journals still owe the store.

Owns: how much goes up at once at the end, when that is given up, and the sum of what failed. Under writeback a promised file counts as
owed: a journal survives a crash, but an unmount is no crash.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable

import trio

from zosfs.content.patience import Patience
from zosfs.content.remaining import Remaining
from zosfs.fs.contents import Contents
from zosfs.fs.open_file import OpenFile
from zosfs.fs.operations import Operations
from zosfs.mount.life import Progress

_log = logging.getLogger(__name__)

AT_ONCE = 8
"""Files delivered at the same time; each sends its own parts in parallel."""

ONCE_MORE = 10.0
"""Seconds that a server gets which was away a moment ago: an unmount delivers before and after the kernel lets go."""


MARGIN = 30.0
"""Seconds of silence beyond the options' time limits that no living server needs."""


class LastDelivery:
    """Delivers all that is owed; called once or twice as a mount ends.

    A server that is away is given up after some failures in a row, each of them after the retries of the options, or when nothing moves
    any more between it and us. What is not delivered then is in the journal.
    """

    def __init__(self, operations: Operations, contents: Contents) -> None:
        self._operations = operations
        self._contents = contents
        self._away = False

    async def __call__(self, progress: Progress) -> None:
        """Deliver, telling *progress* what is left.

        Goes on after a failure; at the end raises OSError (the first one's errno) that says how many files stay in the journal, and why.
        """
        patience = Patience()
        causes: list[OSError] = []
        began = trio.current_time()
        options = self._operations.options
        enough = max(options.read_timeout, options.retry_timeout) + MARGIN

        async def watch() -> None:
            while True:
                left = enough - min(self._operations.account.silence(), trio.current_time() - began)
                if left <= 0:
                    scope.cancel()
                    return
                await trio.sleep(left)

        async with trio.open_nursery() as watching:
            scope = trio.CancelScope(deadline=began + (ONCE_MORE if self._away else float("inf")))
            watching.start_soon(watch)
            with scope:
                await self._all(progress, patience, causes)
            watching.cancel_scope.cancel()
        self._away = patience.away or scope.cancelled_caught
        if scope.cancelled_caught:
            patience.failed(OSError(errno.ETIMEDOUT, "the server is away"))
        if patience.failures:
            await self._contents.keep(patience.failures[-1])
            first = patience.failures[0]
            causes.append(OSError(first.errno or errno.EIO, f"{len(patience.failures)} deliveries, the first because of: {first}"))
        if causes:
            raise causes[0]

    async def _all(self, progress: Progress, patience: Patience, causes: list[OSError]) -> None:
        await self._files(progress, patience)
        if not patience.away:
            await self._attempt(self._operations.directories.settle_markers, "some emptied directories got no marker", patience)
        if not patience.away:
            removals = self._operations.removals
            await self._attempt(removals.settle, "some removals were not delivered; the next mount goes on with them", patience)
        try:
            await self._contents.drain(progress, patience)
        except OSError as error:
            causes.append(error)

    async def _files(self, progress: Progress, patience: Patience) -> None:
        owed = [(file, file.inode.attributes.size) for file in self._operations.open_files.undelivered()]
        limit = trio.CapacityLimiter(AT_ONCE)
        if not owed:
            return
        remaining = Remaining(progress, (size for _, size in owed))

        async def deliver(file: OpenFile, size: int) -> None:
            async with limit:
                if patience.exhausted:
                    return
                try:
                    await self._operations.deliveries.deliver(file)
                    patience.delivered()
                except OSError as error:
                    _log.error("%s was not delivered: %s", file.inode.key, error)
                    patience.failed(error)
                remaining.done(size)

        async with trio.open_nursery() as nursery:
            for file, size in owed:
                nursery.start_soon(deliver, file, size)

    @staticmethod
    async def _attempt(step: Callable[[], Awaitable[None]], trouble: str, patience: Patience) -> None:
        try:
            await step()
            patience.delivered()
        except OSError as error:
            _log.error("%s: %s", trouble, error)
            patience.failed(error)
