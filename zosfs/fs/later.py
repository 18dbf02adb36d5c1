"""Files that the journal has and the store has not: delivered when their delay is over, some at once, again where that may help.

Owns: the line of files that wait for their turn. One task sees to all of them: while a program writes many files, each costs an entry
here and no task. Must not know: what delivering means.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from zosfs.errors import StoreError

if TYPE_CHECKING:
    from zosfs.fs.files import OpenFile

log = logging.getLogger(__name__)

AT_ONCE = 16
"""First tries under way: more than the server answers at once would only take the loop from the programs that write."""
RETRY_SECONDS = (1, 5, 15, 60)


class Later:
    """Deliveries to come. Each file is held (`OpenFile.users`) until it is delivered or given up, and let go by *let_go* then."""

    def __init__(
        self, nursery: trio.Nursery, deliver: Callable[[OpenFile], Awaitable[None]], let_go: Callable[[OpenFile], None]
    ) -> None:
        self._nursery = nursery
        self._deliver = deliver
        self._let_go = let_go
        self._line: deque[tuple[float, OpenFile]] = deque()  # all with the same delay: the first is due first
        self._running = False
        self._slots = trio.Semaphore(AT_ONCE)

    def add(self, file: OpenFile, delay: float) -> None:
        """Deliver *file* after *delay* seconds, the same for all; nothing to do for one that waits already."""
        if file.waits:
            return
        file.waits = True
        file.users += 1
        self._line.append((trio.current_time() + delay, file))
        if not self._running:
            self._running = True
            self._nursery.start_soon(self._run)

    def again(self, file: OpenFile) -> None:
        """A try of *file* failed: try again after ever longer pauses, while that may help."""
        file.users += 1
        self._nursery.start_soon(self._try_again, file)

    async def _run(self) -> None:
        try:
            while self._line:
                due, file = self._line[0]
                await trio.sleep_until(due)
                await self._slots.acquire()
                self._line.popleft()
                file.waits = False
                self._nursery.start_soon(self._first, file)
        finally:
            self._running = False
            for _, file in self._line:  # the mount ends
                self._let_go(file)
            self._line.clear()

    async def _first(self, file: OpenFile) -> None:
        try:
            try:
                done = await self._try(file)
            finally:
                self._slots.release()
            if not done:
                self.again(file)
        finally:
            self._let_go(file)

    async def _try_again(self, file: OpenFile) -> None:
        try:
            for pause in itertools.chain(RETRY_SECONDS, itertools.repeat(RETRY_SECONDS[-1])):
                await trio.sleep(pause)
                if await self._try(file):
                    return
        finally:
            self._let_go(file)

    async def _try(self, file: OpenFile) -> bool:
        """One try. Whether that was all that can be done."""
        if not file.dirty or file.inode.unlinked:
            return True
        try:
            await self._deliver(file)
            return not file.dirty
        except StoreError as exc:
            if not exc.retry and not exc.ambiguous:
                file.unreported = exc
                log.error("%s cannot be delivered: %s; its bytes stay in the journal", file.inode.key, exc)
                return True
        except OSError as exc:
            log.warning("%s is still not delivered: %s", file.inode.key, exc)
        return False
