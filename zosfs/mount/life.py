"""The life of a mount from mount(2) to its last delivery.

Owns: the order of things at the end. A signal delivers while the mount still serves, then unmounts (plainly, else lazily), and
delivers what came in meanwhile; an unmount by others delivers after it. Signals are heard to the very end. Must not know:
the rooms below; they come in as a session, operations and a drain.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import trio

from zosfs.mount import registry, signals
from zosfs.mount.mountpoint import mounted_on
from zosfs.mount.notify import Notifier
from zosfs.mount.refusal import Refusal, line_of

_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Told how many files and bytes are still to be delivered."""

Drain = Callable[[Progress], Awaitable[None]]
"""Delivers everything promised; raises OSError when something could not be delivered (it stays in the journal)."""

LINGER = 10.0
"""Seconds that requests still running may take once the mount is gone."""


class Served(Protocol):
    """What `zosfs.mount.session.Session` offers."""

    def open(self) -> None:
        """Mount; requests wait in the kernel until `serve` runs. Raises what has an exit_code when it cannot."""
        ...

    async def serve(self, operations: Any, ready: Callable[[], None], /) -> None:
        """Answer requests until the kernel lets go of the mount or `terminate` is called; *ready* when INIT is answered."""
        ...

    def terminate(self) -> None:
        """Let `serve` return although the mount is still there."""
        ...

    def unmount(self, lazy: bool = False) -> bool:
        """Take the mount away, and whether it is gone; one in use goes only when *lazy*. Blocks."""
        ...


class Life:
    """One mount from going live to its end; `run` is called once."""

    def __init__(
        self,
        session: Served,
        operations: Any,
        drain: Drain,
        *,
        entry: registry.Entry,
        notifier: Notifier,
        live: Callable[[], None],
        reload: Callable[[], None] = lambda: None,
        next_level: Callable[[], object] = lambda: None,
    ) -> None:
        """*live* is called once the mount answers, *reload* at SIGHUP, *next_level* at SIGUSR2."""
        self._session = session
        self._operations = operations
        self._drain = drain
        self._entry = entry
        self._notifier = notifier
        self._live = live
        self._reload = reload
        self._next_level = next_level
        self._stop = trio.Event()
        self._asked = 0
        self._failed = False
        self._answers = False
        self._there = False  # whether the kernel may still have the mount
        self._serving = trio.CancelScope()

    async def run(self) -> int:
        """Mount, serve until unmounted or told to stop, deliver; the exit status: 0, or 1 when something stayed undelivered.

        Raises a refusal when it never went live. However it ends, nothing of it stays mounted.
        """
        async with trio.open_nursery() as nursery:
            actions: dict[signal.Signals, Callable[[], object]] = {
                signal.SIGTERM: self.stop,
                signal.SIGINT: self.stop,
                signal.SIGHUP: self._reload,
                signal.SIGUSR1: lambda: None,  # s3fs looks through its cache then; by default it would end the process
                signal.SIGUSR2: self._next_level,
            }
            await nursery.start(signals.watch, actions)
            nursery.start_soon(self._notifier.keep_watchdog)
            nursery.start_soon(self._end_when_asked, nursery)
            try:
                self._session.open()  # signals are caught by now: none can leave a dead mount behind
                self._there = True
                there = mounted_on(self._entry.mountpoint)
                self._entry.connection = there.device if there is not None else ""
                with self._serving:
                    await self._session.serve(self._operations, self._ready)
                    self._there = False
                if not self._answers:
                    raise Refusal("ended before the mount was live")
                if not self._stop.is_set():
                    _log.info("%s was unmounted", self._entry.mountpoint)
                nursery.start_soon(self._notifier.ask_for_time)
                await self._deliver()
            finally:
                nursery.cancel_scope.cancel()
                self._take_away()
                if not self._failed:  # else the file says so to whoever waits in umount
                    registry.remove(self._entry)
        self._notifier.status("ended")
        return 1 if self._failed else 0

    def stop(self) -> None:
        """Begin the orderly end; asked again, say that it is under way."""
        self._asked += 1
        if not self._answers:
            self._serving.cancel()
            return
        if self._asked > 1:
            _log.warning("still delivering; what is killed now stays undelivered until the next mount")
        self._stop.set()

    def _ready(self) -> None:
        self._answers = True
        try:
            registry.write(self._entry)
            registry.forget_ended(self._entry.source)
        except OSError as error:
            _log.warning("this mount will not show in `zosfs status`: %s", error)
        text = f"{self._entry.source} on {self._entry.mountpoint}"
        _log.info("mounted %s", text)
        self._notifier.ready(f"serving {text}")
        self._live()

    async def _end_when_asked(self, nursery: trio.Nursery) -> None:
        await self._stop.wait()
        nursery.start_soon(self._notifier.ask_for_time)
        _log.info("ending %s", self._entry.mountpoint)
        await self._deliver()  # while it still serves: programs that write a last line on SIGTERM find their files
        await trio.to_thread.run_sync(self._unmount)
        with trio.move_on_after(LINGER):
            await trio.sleep(0.5)
            self._session.terminate()
            await trio.sleep_forever()
        self._serving.cancel()  # a handler that never ends must not keep the rest from being delivered

    def _unmount(self) -> None:
        if not self._there:  # someone else was faster while we delivered
            return
        if self._session.unmount():
            self._there = False
            return
        _log.warning("%s is in use: it is detached, and open files end with it", self._entry.mountpoint)
        if self._session.unmount(lazy=True):
            self._there = False
        else:
            _log.error("%s cannot be unmounted", self._entry.mountpoint)

    def _take_away(self) -> None:
        """Leave nothing of ours mounted.

        Once the kernel has let go, what is mounted there is another's, even under the same device number: it is used again.
        """
        there = mounted_on(self._entry.mountpoint)
        if self._there and there is not None and there.device == self._entry.connection:
            self._session.unmount(lazy=True)

    async def _deliver(self) -> None:
        self._failed = False
        self._entry.undelivered = ""
        try:
            await self._drain(self._progress)
        except Exception as error:
            self._failed = True
            self._entry.undelivered = why = line_of(error)[0]
            self._note()
            _log.error("not everything was delivered; it is kept in %s: %s", self._entry.cache_dir or "the journal", why)

    def _progress(self, files: int, size: int) -> None:
        self._notifier.status(f"delivering {files} files, {size / (1 << 20):.1f} MiB to go" if files or size else "delivered")
        self._entry.delivering = (files, size)
        self._note()

    def _note(self) -> None:
        try:
            registry.write(self._entry)
        except OSError:
            pass
