"""The last delivery: everything that files, directories and journals still owe the store.

Owns: how much goes up at once at the end, and the sum of what failed. Under writeback a promised file counts as owed: a journal
survives a crash, but an unmount is no crash.
"""

from __future__ import annotations

import errno
import logging

import trio

from zosfs.fs.contents import Contents
from zosfs.fs.files import OpenFile
from zosfs.fs.operations import Operations
from zosfs.mount.life import Progress

_log = logging.getLogger(__name__)

AT_ONCE = 8
"""Files delivered at the same time; each sends its own parts in parallel."""


async def drain(operations: Operations, contents: Contents, progress: Progress) -> None:
    """Deliver all that is owed, telling *progress* what is left.

    Goes on after a failure; at the end raises OSError (the first one's errno) that says how many files stay in the journal, and why.
    """
    owed = {id(file): file for file in operations.files.undelivered()}
    failures: list[OSError] = []
    limit = trio.CapacityLimiter(AT_ONCE)

    def tell() -> None:
        progress(len(owed), sum(file.inode.attributes.size for file in owed.values()))

    async def deliver(file: OpenFile) -> None:
        async with limit:
            try:
                await operations.files.deliver(file)
            except OSError as error:
                _log.error("%s was not delivered: %s", file.inode.key, error)
                failures.append(error)
            del owed[id(file)]
            tell()

    if owed:
        tell()
    async with trio.open_nursery() as nursery:
        for file in list(owed.values()):
            nursery.start_soon(deliver, file)
    await operations.directories.settle_markers()
    try:
        await operations.files.removals.settle()
    except OSError as error:
        _log.error("some removals were not delivered; the next mount goes on with them: %s", error)
        failures.append(error)
    await contents.drain(progress)
    if failures:
        raise OSError(failures[0].errno or errno.EIO, f"{len(failures)} deliveries, the first because of: {failures[0]}")
