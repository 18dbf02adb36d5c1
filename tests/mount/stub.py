"""A mount without a store, run as a program: daemon, session, life and registry of zosfs around a directory with one file.

usage: stub.py DIR [front] [patience=S] [fail=TEXT] [hang] [die] [drain=FILE] [keep=TEXT]
The drain waits until FILE exists and then writes FILE.delivered; keep= makes it fail with TEXT.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from typing import Any

from zosfs.mount import daemon, registry
from zosfs.mount.refusal import Refusal

arguments = dict(word.partition("=")[::2] for word in sys.argv[2:])
directory = sys.argv[1]


def body(live: daemon.Live) -> int:
    import pyfuse3
    import trio

    from zosfs.config import Options
    from zosfs.mount.life import Life, Progress
    from zosfs.mount.notify import Notifier
    from zosfs.mount.session import Session

    class Operations(pyfuse3.Operations):
        async def getattr(self, inode: int, ctx: Any = None) -> pyfuse3.EntryAttributes:
            entry = pyfuse3.EntryAttributes()
            entry.st_ino = inode
            entry.st_mode = stat.S_IFDIR | 0o755 if inode == pyfuse3.ROOT_INODE else stat.S_IFREG | 0o644
            entry.st_nlink = 1
            return entry

        async def lookup(self, parent_inode: int, name: bytes, ctx: Any = None) -> pyfuse3.EntryAttributes:
            if name == b"file":
                return await self.getattr(2)
            raise pyfuse3.FUSEError(errno.ENOENT)

        async def open(self, inode: int, flags: int, ctx: Any) -> pyfuse3.FileInfo:
            return pyfuse3.FileInfo(fh=inode)

        async def getxattr(self, inode: int, name: bytes, ctx: Any) -> bytes:
            if name in (b"user.zos.stats", b"user.zos.status"):
                return b'{"requests_get": 3, "fuse_errors": 0, "open_files": 1}'
            raise pyfuse3.FUSEError(errno.ENODATA)

    async def drain(progress: Progress) -> None:
        if "keep" in arguments:
            raise OSError(errno.EIO, arguments["keep"])
        if "drain" in arguments:
            while not await trio.Path(arguments["drain"]).exists():
                progress(1, 1 << 20)
                await trio.sleep(0.05)
            progress(0, 0)
            await trio.Path(arguments["drain"] + ".delivered").write_text("")

    if "fail" in arguments:
        raise Refusal(arguments["fail"])
    if "die" in arguments:
        os.kill(os.getpid(), signal.SIGKILL)
    session = Session(directory, "stub", Options())
    if "hang" in arguments:
        session.open()
        time.sleep(1000)

    async def main() -> int:
        entry = registry.entry_for("stub", directory, cache_dir=os.path.dirname(directory))
        return await Life(session, Operations(), drain, entry=entry, notifier=Notifier.from_environ(), live=live).run()

    return trio.run(main)


if __name__ == "__main__":
    if "front" in arguments:
        sys.exit(daemon.run_in_front(body))
    sys.exit(
        daemon.run_behind(
            body,
            lambda: subprocess.run(["umount", "-l", directory], stderr=subprocess.DEVNULL, check=False) and None,
            patience=float(arguments.get("patience", "120")),
        )
    )
