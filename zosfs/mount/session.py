"""The FUSE session: mounting, the INIT exchange, serving, unmounting.

Owns: the /dev/fuse descriptor. zosfs mounts by itself (mount(2) as root, fusermount3 otherwise) and gives libfuse one end of a
socket pair as "/dev/fd/N". INIT is carried across it and libfuse's answer is completed with what libfuse before 3.17 forgets
(parallel lookups in one directory, no getxattr before every write, deep read-ahead); then the real descriptor takes the
socket's place. Must not know: inodes, the store.
"""

from __future__ import annotations

import array
import ctypes
import errno
import logging
import os
import socket
import stat
import struct
import subprocess
from collections.abc import Callable

import pyfuse3
import trio

from zosfs.config import Options
from zosfs.mount import loop

log = logging.getLogger(__name__)

# include/uapi/linux/fuse.h
PARALLEL_DIROPS = 1 << 18
CACHE_SYMLINKS = 1 << 23
HANDLE_KILLPRIV_V2 = 1 << 28
FUSE_INIT = 26
_IN_HEADER = struct.Struct("<IIQQIIII")
_INIT_IN = struct.Struct("<IIII")
_OUT_HEADER = struct.Struct("<IiQ")
_INIT_OUT = struct.Struct("<IIIIHHIIHHI")

MS_RDONLY, MS_NOSUID, MS_NODEV = 1, 2, 4
KERNEL_FLAGS = {"noexec": 8, "sync": 16, "dirsync": 128, "noatime": 1024, "nodiratime": 2048}
"""What mount(8) passes on and the kernel heeds for every file system (mount(2))."""

MNT_DETACH = 2


class MountError(Exception):
    """The mount cannot be: one line for the person, and the exit status (32 as mount(8) says, 1 for usage)."""

    def __init__(self, line: str, exit_code: int = 32) -> None:
        super().__init__(line)
        self.exit_code = exit_code


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


class Session:
    """One mount point."""

    def __init__(self, mountpoint: str, source: str, options: Options) -> None:
        self._mountpoint = mountpoint
        self._source = source
        self._options = options
        self._device = -1
        self._served = -1
        self._peer: socket.socket | None = None
        self.connection = ""
        """MAJOR:MINOR of the mount, "" while there is none."""

    # -- mounting ---------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """The mount point can be mounted on; raises MountError. A dead mount left by a crash is taken away."""
        path = self._mountpoint
        try:
            found = os.stat(path)
        except FileNotFoundError:
            raise MountError(f"mount point {path} does not exist: create it with mkdir {path}") from None
        except OSError as exc:
            if exc.errno != errno.ENOTCONN:
                raise MountError(f"mount point {path}: {exc.strerror}") from None
            log.warning("%s is a dead mount; unmounting it first", path)
            self.unmount(lazy=True)
            found = os.stat(path)
        if not stat.S_ISDIR(found.st_mode):
            raise MountError(f"mount point {path} is not a directory")
        if is_mounted(path) and not self._options.nonempty:
            raise MountError(f"mount point {path} is busy: something is mounted there already (umount {path})")
        if not self._options.nonempty:
            try:
                entries = os.listdir(path)
            except OSError as exc:
                raise MountError(f"mount point {path}: {exc.strerror}") from None
            if entries:
                raise MountError(f"mount point {path} is not empty: empty it or mount with -o nonempty")
        if not os.path.exists("/dev/fuse"):
            raise MountError("FUSE is missing: /dev/fuse does not exist (modprobe fuse, or give the container the device)")

    def open(self) -> None:
        """Mount. Requests queue in the kernel until `serve` runs."""
        self.check()
        if os.geteuid() == 0:
            self._device = self._mount()
        else:
            self._device = self._fusermount()
        self.connection = device_number(self._mountpoint)

    def _mount(self) -> int:
        options = self._options
        try:
            device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        except OSError as exc:
            raise MountError(f"FUSE is missing: /dev/fuse: {exc.strerror}") from None
        data = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()},default_permissions,max_read=1048576"
        if options.allow_other or options.allow_root:
            data += ",allow_other"
        flags = MS_NOSUID | MS_NODEV | (MS_RDONLY if options.ro else 0)
        for word in kernel_words(options):
            flags |= KERNEL_FLAGS[word]
        done = _libc().mount(
            os.fsencode(options.fsname or self._source), os.fsencode(self._mountpoint), b"fuse.zosfs", flags, data.encode()
        )
        if done != 0:
            number = ctypes.get_errno()
            os.close(device)
            raise MountError(f"mounting on {self._mountpoint} failed: {os.strerror(number)}")
        return device

    def _fusermount(self) -> int:
        options = self._options
        ours, theirs = socket.socketpair()
        flags = ["fsname=" + escape(options.fsname or self._source), "subtype=zosfs", "default_permissions", "nosuid", "nodev"]
        flags += [name for name in ("allow_other", "allow_root", "ro") if getattr(options, name)]
        flags += kernel_words(options)
        with ours, theirs:
            try:
                run = subprocess.run(
                    ["fusermount3", "-o", ",".join(flags), "--", self._mountpoint], pass_fds=(theirs.fileno(),),
                    env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())}, stderr=subprocess.PIPE, check=False,
                )  # fmt: skip
            except FileNotFoundError:
                raise MountError("FUSE is missing: fusermount3 is not installed (apt-get install fuse3)") from None
            if run.returncode:
                raise MountError(run.stderr.decode(errors="replace").strip() or "fusermount3 failed")
            _, ancillary, _, _ = ours.recvmsg(1, socket.CMSG_SPACE(4))
            for level, kind, payload in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds = array.array("i", payload[:4])
                    os.set_inheritable(fds[0], False)
                    return fds[0]
        raise MountError("fusermount3 gave no descriptor")

    # -- serving ----------------------------------------------------------------------------------------------------

    async def serve(self, operations: pyfuse3.Operations, ready: Callable[[], None]) -> None:
        """Answer the kernel until the file system is unmounted or `terminate` is called; *ready* runs once INIT was answered."""
        loop.install()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self._peer = ours
        self._served = theirs.detach()
        init = os.read(self._device, (1 << 20) + 8192)
        if _IN_HEADER.unpack_from(init)[1] != FUSE_INIT:
            raise MountError("the kernel did not begin with INIT")
        pyfuse3.init(operations, f"/dev/fd/{self._served}", {"fsname=zosfs"})
        ours.send(init)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._carry_init, ready)
            try:
                await pyfuse3.main(min_tasks=8, max_tasks=1000)
            finally:
                nursery.cancel_scope.cancel()

    async def _carry_init(self, ready: Callable[[], None]) -> None:
        assert self._peer is not None
        await trio.lowlevel.wait_readable(self._peer)
        reply = bytearray(self._peer.recv(65536))
        _, error, _ = _OUT_HEADER.unpack_from(reply)
        if error == 0:
            major, minor, ahead, flags, background, congestion, most, grain, pages, align, flags2 = _INIT_OUT.unpack_from(reply, 16)
            flags |= PARALLEL_DIROPS | HANDLE_KILLPRIV_V2 | CACHE_SYMLINKS
            background = self._options.max_background
            congestion = background * 3 // 4
            ahead = max(ahead, self._options.max_readahead)
            _INIT_OUT.pack_into(reply, 16, major, minor, ahead, flags, background, congestion, most, grain, pages, align, flags2)
        os.write(self._device, reply)
        os.dup2(self._device, self._served, inheritable=False)
        os.close(self._device)
        self._device = -1
        self._peer.close()
        await trio.lowlevel.wait_writable(self._served)  # makes epoll watch the new file behind the same number
        ready()
        await trio.to_thread.run_sync(self._set_read_ahead)

    def _set_read_ahead(self) -> None:
        """Let the kernel read ahead as far as INIT allows: needs root, after INIT, and never on the trio thread."""
        number = self.connection
        try:
            with open(f"/sys/class/bdi/{number}/read_ahead_kb", "w") as setting:
                setting.write(str(self._options.max_readahead // 1024))
        except OSError as exc:
            log.debug("read_ahead_kb stays as it is: %s", exc)

    def terminate(self) -> None:
        """End `serve` after the running handlers."""
        pyfuse3.terminate()

    def close(self) -> None:
        """Let libfuse go; the kernel mount is `unmount`'s."""
        pyfuse3.close(unmount=False)
        if self._device >= 0:
            os.close(self._device)

    def unmount(self, lazy: bool = False) -> bool:
        """Take the mount away; True when it is gone. *lazy*: also while somebody uses it."""
        if os.geteuid() == 0:
            if _libc().umount2(os.fsencode(self._mountpoint), MNT_DETACH if lazy else 0) == 0:
                return True
            return ctypes.get_errno() in (errno.EINVAL, errno.ENOENT)
        run = subprocess.run(["fusermount3", "-uqz" if lazy else "-uq", self._mountpoint], check=False)
        return run.returncode == 0


def kernel_words(options: Options) -> list[str]:
    """Those of the options' kernel flags that this module knows."""
    return [word for word in options.kernel_flags.split(",") if word in KERNEL_FLAGS]


def escape(value: str) -> str:
    """A value for fusermount3's option list: commas and backslashes escaped."""
    return value.replace("\\", "\\\\").replace(",", "\\,")


def is_mounted(path: str) -> bool:
    """Whether *path* itself is a mount point, by the kernel's table."""
    return device_number(path) != ""


def device_number(path: str) -> str:
    """MAJOR:MINOR of what is mounted at *path*, "" when nothing is."""
    wanted = os.path.abspath(path)
    found = ""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            fields = line.split(" ")
            if fields[4].encode("utf-8", "surrogateescape").decode("unicode_escape", "surrogateescape") == wanted:
                found = fields[2]
    return found
