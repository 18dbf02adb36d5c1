"""Files that the journal has and the store has not: delivered when their delay is over, some at once, again where that may help.

Owns: the line of files that wait for their turn. One task sees to all of them: while a program writes many files, each costs an entry
here and no task. Must not know: what delivering means.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable

import trio

from zosfs.errors import StoreError
from zosfs.fs.open_file import OpenFile

log = logging.getLogger(__name__)

AT_ONCE = 16
"""First tries under way: more than the server answers at once would only take the loop from the programs that write."""
FEW = 2
"""First tries under way while a program is in the middle of writing many files: it waits for each of its promises, nobody for these."""
QUIET = 0.1
"""Seconds without a new promise after which nobody is in the middle of that any more."""
GIVE_WAY = 2.0
"""Seconds that a delivery is put off at most for those who write."""
RETRY_SECONDS = (1, 5, 15, 60)


def at_once(overdue: float, since_last: float, pressed: bool) -> int:
    """How many first tries may be under way (pure), the next of which was due *overdue* seconds ago.

    *since_last*: seconds since the last promise. *pressed*: what is promised should leave the memory and the disk soon.
    """
    return FEW if since_last < QUIET and overdue < GIVE_WAY and not pressed else AT_ONCE


class Later:
    """Deliveries to come. Each file is held (`OpenFile.users`) until it is delivered or given up, and let go by *let_go* then."""

    def __init__(
        self, nursery: trio.Nursery, deliver: Callable[[OpenFile], Awaitable[None]], let_go: Callable[[OpenFile], None],
        pressed: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        self._nursery = nursery
        self._deliver = deliver
        self._let_go = let_go
        self._pressed = pressed
        self._line: deque[tuple[float, OpenFile]] = deque()  # all with the same delay: the first is due first
        self._running = False
        self._added = -QUIET  # when the last one came
        self._under_way = 0  # first tries
        self._ended = trio.Event()  # one of them has

    def add(self, file: OpenFile, delay: float) -> None:
        """Deliver *file* after *delay* seconds, the same for all; nothing to do for one that waits already."""
        self._added = now = trio.current_time()
        if file.waits:
            return
        file.waits = True
        file.users += 1
        self._line.append((now + delay, file))
        if not self._running:
            self._running = True
            self._nursery.start_soon(self._run)

    def again(self, file: OpenFile) -> None:
        """A try of *file* failed: try again after ever longer pauses, while that may help; anew where it is tried again already."""
        if file.failed is not None:
            file.failed.set()
            return
        file.failed = trio.Event()
        file.users += 1
        self._nursery.start_soon(self._try_again, file)

    async def _run(self) -> None:
        try:
            while self._line:
                due, file = self._line[0]
                await trio.sleep_until(due)
                await self._turn(due)
                self._line.popleft()
                file.waits = False
                self._under_way += 1
                self._nursery.start_soon(self._first, file)
        finally:
            self._running = False
            for _, file in self._line:  # the mount ends
                self._let_go(file)
            self._line.clear()

    async def _turn(self, due: float) -> None:
        """Wait until one more first try may be made, of what was due at *due*."""
        while True:
            now = trio.current_time()
            most = at_once(now - due, now - self._added, self._pressed())
            if self._under_way < most:
                return
            with trio.move_on_after(QUIET if most < AT_ONCE else float("inf")):
                await self._ended.wait()

    async def _first(self, file: OpenFile) -> None:
        try:
            try:
                done = await self._try(file)
            finally:
                self._under_way -= 1
                self._ended.set()
                self._ended = trio.Event()
            if not done:
                self.again(file)
        finally:
            self._let_go(file)

    async def _try_again(self, file: OpenFile) -> None:
        pauses = 0
        try:
            while True:
                failed = file.failed = trio.Event()
                with trio.move_on_after(RETRY_SECONDS[min(pauses, len(RETRY_SECONDS) - 1)]):
                    await failed.wait()
                    pauses = 0
                    continue
                pauses += 1
                if await self._try(file) and not failed.is_set():
                    return
                if failed.is_set():
                    pauses = 0
        finally:
            file.failed = None
            self._let_go(file)

    async def _try(self, file: OpenFile) -> bool:
        """One try. Whether that was all that can be done."""
        if not file.dirty or file.inode.unlinked:
            return True
        try:
            await self._deliver(file)
            return not file.dirty
        except StoreError as exc:
            if exc.refused:
                file.unreported = exc
                log.error("%s cannot be delivered: %s; its bytes stay in the journal", file.inode.key, exc)
                return True
        except OSError as exc:
            log.warning("%s is still not delivered: %s", file.inode.key, exc)
        return False
