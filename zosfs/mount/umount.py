"""Unmounting that waits: the kernel lets go of a FUSE mount at once, the data is safe when the daemon has ended.

Owns: the waiting. Must not know: trio, the store.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable

from zosfs.mount import registry
from zosfs.mount.mountpoint import EMPTY, mounted_on, real_path, unmount
from zosfs.mount.refusal import FAILED, USAGE

Say = Callable[[str], None]


def umount(directory: str, *, lazy: bool = False, force: bool = False, wait: bool = True, say: Say) -> int:
    """Unmount *directory* and return when everything is delivered; the exit status (0, 1 undelivered, 32 failed).

    A mount that was unmounted before and still delivers is waited for, too. *force* aborts requests in flight, *lazy* detaches a
    mount in use. Lines for people go to *say*.
    """
    if not directory:
        say(EMPTY)
        return USAGE
    path = real_path(directory)
    mount = mounted_on(path)
    # root waits for a user's process only when the kernel says that the mount is that user's
    owner = mount.owner if mount is not None else os.geteuid()
    ending = [entry for entry in registry.find(path) if entry.owner == owner]
    if mount is None and not ending:
        say(f"{path} is not mounted")
        return FAILED
    if mount is not None:
        if not mount.type.startswith("fuse"):
            say(f"{path} is a mount of type {mount.type}, not of zosfs")
            return FAILED
        said = unmount(path, lazy=lazy, force=force)
        if said and force:
            said = unmount(path, lazy=True)
        if said:
            busy = "busy" in said
            say(f"{path} is in use (`fuser -vm {path}` shows by whom); --lazy detaches it nevertheless" if busy else said)
            return FAILED
        ending = [entry for entry in ending if entry.connection in ("", mount.device) or entry.delivering is not None]
    status = 0
    for entry in ending if wait else ():
        status = max(status, _wait(entry, say, detached=lazy))
    return status


def _wait(entry: registry.Entry, say: Say, *, detached: bool) -> int:
    """Wait until *entry*'s process has ended; tell what is left every now and then on a terminal. One that was *detached* in use serves
    those who use it for as long as they like: that is said."""
    shown = False
    try:
        handle = os.pidfd_open(entry.pid)
    except ProcessLookupError:
        handle = -1
    try:
        while handle >= 0 and entry.alive and not select.select([handle], [], [], 0.5)[0]:
            now = registry.reload(entry)
            if detached and now is not None and now.delivering is None:
                detached = False
                say(
                    f"{entry.source}: detached; waiting until programs have closed what they have open there, and it is delivered "
                    "(that goes on if this is interrupted)"
                )
            if sys.stderr.isatty() and now is not None and now.delivering is not None:
                files, size = now.delivering
                text = f"\rdelivering: {files} files, {size / (1 << 20):.1f} MiB to go \033[K"
                print(text, end="", file=sys.stderr, flush=True)
                shown = True
    finally:
        if handle >= 0:
            os.close(handle)
        if shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
    left = registry.reload(entry)
    if left is None or left.alive:
        return 0
    registry.remove(left)
    why = left.undelivered or "its process died"
    say(f"{left.source}: not everything was delivered ({why}); the next mount delivers what is kept in {left.cache_dir}")
    return 1
