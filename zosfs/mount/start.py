"""One way into a mount for the command line and for mount(8): check, then go to the background or stay in front.

Owns: the steps before any of trio, pyfuse3 or boto3 is imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from zosfs import places
from zosfs.config import Options
from zosfs.mount import daemon
from zosfs.mount.log import Log, secrets_of
from zosfs.mount.mountpoint import mounted_on, prepare, unmount
from zosfs.mount.refusal import Refusal
from zosfs.source import Source


def start(
    source: Source, directory: str, options: Options, *, foreground: bool = False, program: str = "zosfs"
) -> int:
    """Mount *source* on *directory*; the exit status.

    In the background: returns 0 as soon as the mount is live. In front: returns when it has ended. Any failure is one line
    on stderr, nothing left mounted, and a status as mount(8) knows them.
    """
    try:
        mountpoint = prepare(directory, nonempty=options.nonempty)
        _check_files(options)
        private(places.cache_dir(options.cache_dir))
    except Refusal as refusal:
        daemon.say(refusal.line, program)
        return refusal.exit_code
    body = _body(source, mountpoint, options, foreground)
    if foreground:
        return daemon.run_in_front(body, program)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    return daemon.run_behind(body, lambda: _take_back(mountpoint, source.text), program=program)


def _check_files(options: Options) -> None:
    """Refuse files that are named and cannot be read, before anything slower is tried."""
    for name in ("passwd_file", "session_token_file", "ca_file"):
        path = getattr(options, name)
        if path and not os.path.isfile(path):
            raise Refusal(f"option {name}={path}: there is no such file", 1)
        if path and not os.access(path, os.R_OK):
            raise Refusal(f"option {name}={path}: this user may not read it", 1)


def private(directory: Path) -> None:
    """Make *directory* with mode 0700; Refusal when that cannot be."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError
    except OSError as error:
        why = error.strerror or "not writable"
        raise Refusal(f"cache directory {directory} cannot be used ({why}); choose another with -o cache_dir=DIR") from None


def _body(source: Source, mountpoint: str, options: Options, foreground: bool) -> Callable[[daemon.Live], int]:
    def body(live: daemon.Live) -> int:
        fallback = places.cache_dir(options.cache_dir) / "log" / f"{os.path.basename(mountpoint) or 'root'}.log"
        try:
            log = Log(
                level=options.log_level, file=options.log_file, foreground=foreground, fallback=fallback,
                secrets=secrets_of(options.passwd_file, options.session_token_file),
            )  # fmt: skip
        except OSError as error:
            raise Refusal(f"log file {options.log_file or fallback}: {error.strerror}") from None
        try:
            import trio

            from zosfs.mount.mount import run
            from zosfs.mount.notify import Notifier

            notifier = Notifier.from_environ()

            async def main() -> int:
                return await run(
                    options, source, mountpoint, live, log=log, notifier=notifier if foreground else None
                )

            try:
                return trio.run(main)
            except BaseException as error:
                _record(error, told=foreground and log.where == "stderr")
                raise
        finally:
            log.close()

    return body


def _record(error: BaseException, *, told: bool) -> None:
    """Log why a mount ended or never was: in full when it was not foreseen, not at all when the line is printed there anyway."""
    import logging

    from zosfs.mount.refusal import line_of, root_cause

    log = logging.getLogger("zosfs.mount")
    cause = root_cause(error)
    if isinstance(cause, (OSError, Refusal)) or hasattr(cause, "exit_code"):
        if not told:
            log.error("%s", line_of(error)[0])
        log.debug("the whole story", exc_info=error)
    elif not isinstance(cause, KeyboardInterrupt):
        log.error("unforeseen", exc_info=error)


def _take_back(mountpoint: str, source: str) -> None:
    """Unmount what an ended background process may have left on *mountpoint*."""
    mount = mounted_on(mountpoint)
    if mount is not None and mount.type == "fuse.zosfs" and mount.source == source:
        unmount(mountpoint, lazy=True)
