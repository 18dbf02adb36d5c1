"""A mount of one small directory through Session, run as a program: served.py DIR SOURCE [name=value…].

Prints ``live`` once INIT was answered, then a line a second with the longest time that the loop stood still. Ends with 0 when it was
unmounted; SIGTERM unmounts. Names beginning with ``together`` exist and are answered when the N of together=N are asked for at
the same time; ``stuck`` is answered when ``free`` was looked up.
uid= serves as that user; carry=0 leaves INIT to libfuse.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import sys
from collections import Counter
from typing import Any

import pyfuse3
import trio

from zosfs.config import Options
from zosfs.mount.session import MountError, Session

directory, source = sys.argv[1:3]
given = dict(word.partition("=")[::2] for word in sys.argv[3:])
FILE, COUNTS = 2, 3
TOGETHER = int(given.pop("together", "0"))


class Directory(pyfuse3.Operations):
    """``file`` can be read and written, ``counts`` tells which requests came."""

    def __init__(self) -> None:
        super().__init__()
        self.data = bytearray(b"hello\n")
        self.counts: Counter[str] = Counter()
        self.asked, self.all_asked, self.freed = 0, trio.Event(), trio.Event()
        self.numbers: dict[bytes, int] = {b"file": FILE, b"counts": COUNTS}

    async def getattr(self, inode: int, ctx: Any = None) -> pyfuse3.EntryAttributes:
        self.counts["getattr"] += 1
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = inode
        entry.st_mode = stat.S_IFDIR | 0o755 if inode == pyfuse3.ROOT_INODE else stat.S_IFREG | 0o666
        entry.st_nlink = 1
        entry.st_uid, entry.st_gid = os.getuid(), os.getgid()
        entry.st_size = len(self.data) if inode == FILE else 4096 if inode == COUNTS else 0
        return entry

    async def lookup(self, parent_inode: int, name: bytes, ctx: Any = None) -> pyfuse3.EntryAttributes:
        self.counts["lookup"] += 1
        if name.startswith(b"together"):
            self.asked += 1
            if self.asked == TOGETHER:
                self.all_asked.set()
            await self.all_asked.wait()
            return await self.getattr(self.numbers.setdefault(name, 100 + len(self.numbers)))
        if name == b"stuck":
            self.counts["stuck"] += 1
            await self.freed.wait()
        if name == b"free":
            self.freed.set()
        if name not in self.numbers:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return await self.getattr(self.numbers[name])

    async def opendir(self, inode: int, ctx: Any) -> int:
        return inode

    async def readdir(self, fh: int, start_id: int, token: Any) -> None:
        for number, (name, inode) in enumerate(sorted(self.numbers.items()), 1):
            if number > start_id and not pyfuse3.readdir_reply(token, name, await self.getattr(inode), number):
                return

    async def open(self, inode: int, flags: int, ctx: Any) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=inode, direct_io=inode == COUNTS)

    async def setattr(self, inode: int, attr: Any, fields: Any, fh: Any, ctx: Any) -> pyfuse3.EntryAttributes:
        self.counts["setattr"] += 1
        if fields.update_size:
            del self.data[attr.st_size :]
        return await self.getattr(inode)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        self.counts["read"] += 1
        if fh == COUNTS:
            return json.dumps(self.counts).encode().ljust(4096)[off : off + size]
        return bytes(self.data[off : off + size])

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        self.counts["write"] += 1
        self.data[off : off + len(buf)] = buf
        return len(buf)

    async def flush(self, fh: int) -> None:
        self.counts["flush"] += 1

    async def release(self, fh: int) -> None:
        self.counts["release"] += 1

    async def getxattr(self, inode: int, name: bytes, ctx: Any) -> bytes:
        self.counts["getxattr " + name.decode()] += 1
        raise pyfuse3.FUSEError(errno.ENODATA)


async def watch_clock() -> None:
    longest, said = 0.0, trio.current_time()
    while True:
        before = trio.current_time()
        await trio.sleep(0.02)
        now = trio.current_time()
        longest = max(longest, now - before)
        if now - said > 1:
            print(f"stood {longest:.3f}", flush=True)
            said = now


async def main() -> None:
    if "uid" in given:  # everything is imported by now: this user need not be able to read the files
        os.setgroups([])
        os.setresgid(int(given["uid"]), int(given["uid"]), int(given["uid"]))
        os.setresuid(int(given["uid"]), int(given["uid"]), int(given["uid"]))
    known = Options()
    options = Options(**{name: type(getattr(known, name))(value) for name, value in given.items() if name not in ("carry", "uid")})
    session = Session(directory, source, options, carry=given.get("carry") != "0")
    session.open()
    async with trio.open_nursery() as nursery:

        async def end() -> None:
            with trio.open_signal_receiver(signal.SIGTERM) as signals:
                async for _ in signals:
                    await trio.to_thread.run_sync(session.unmount, True)
                    session.terminate()

        nursery.start_soon(end)
        nursery.start_soon(watch_clock)
        await session.serve(Directory(), lambda: print("live", session.connection, flush=True))
        nursery.cancel_scope.cancel()


try:
    trio.run(main)
except* MountError as refusals:
    print(refusals.exceptions[0], file=sys.stderr)
    sys.exit(refusals.exceptions[0].exit_code)  # type: ignore[union-attr]
