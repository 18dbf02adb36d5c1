"""The FUSE session: mounting, the INIT exchange, serving, unmounting.

Owns: the /dev/fuse descriptor. zosfs mounts by itself (mount(2) as root, fusermount3 otherwise), so that the source shown is exactly
what was asked for, and gives libfuse one end of a socket pair as "/dev/fd/N". INIT is carried across it, and libfuse's answer
is completed on the way (handshake.py); then the real descriptor takes the socket's place. Where that cannot be, libfuse
mounts by itself. Must not know: inodes, the store.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import select
import shutil
import socket
import subprocess
from collections.abc import Callable

import pyfuse3
import trio

from zosfs.config import Options
from zosfs.mount import handshake, loop
from zosfs.mount.mountpoint import mounted_on
from zosfs.mount.refusal import USAGE, Refusal

log = logging.getLogger(__name__)

MS_RDONLY, MS_NOSUID, MS_NODEV = 1, 2, 4
KERNEL_FLAGS = {"noexec": 8, "sync": 16, "dirsync": 128, "noatime": 1024, "nodiratime": 2048}
"""What mount(8) passes on and the kernel heeds for every file system (mount(2))."""

MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8

LARGEST_REQUEST = (1 << 20) + 8192
INIT_PATIENCE = 5.0
"""Seconds for the kernel to begin with INIT; it has done so before mount(2) returns."""

TASKS_KEPT, TASKS = 8, 1000
"""Handlers that run at once are bounded by pyfuse3's tasks: when all wait for the network, nothing more is read."""


class MountError(Refusal):
    """The mount cannot be: one line for the person, and the exit status (32 as mount(8) says, 1 for usage)."""


class Session:
    """One mount point, mounted at most once."""

    def __init__(self, mountpoint: str, source: str, options: Options, *, carry: bool = True) -> None:
        """*mountpoint* has been checked by `mountpoint.prepare`. *carry* False leaves mounting and INIT to libfuse."""
        self._mountpoint = mountpoint
        self._source = options.fsname or source
        self._options = options
        self._carry = carry
        self._device = -1
        self._served = -1
        self._offer = handshake.Offer(0, 0, 0)
        self._begun = False
        self.connection = ""
        """MAJOR:MINOR of the mount, "" while there is none."""

    # -- mounting ---------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Mount; requests queue in the kernel until `serve` runs. MountError when it cannot be."""
        if not self._carry:
            return  # libfuse mounts in `serve`
        self._device = self._mount() if os.geteuid() == 0 else self._fusermount()
        self._note_connection()

    def _note_connection(self) -> None:
        there = mounted_on(self._mountpoint)
        self.connection = there.device if there is not None else ""

    def _mount(self) -> int:
        options = self._options
        try:
            device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        except OSError as exc:
            raise MountError(f"FUSE is missing: /dev/fuse: {exc.strerror} (modprobe fuse)") from None
        data = f"fd={device},rootmode=40000,user_id=0,group_id={os.getegid()},default_permissions,max_read=1048576"
        if options.allow_other:
            data += ",allow_other"
        flags = MS_NOSUID | MS_NODEV | (MS_RDONLY if options.ro else 0)
        for word in kernel_words(options):
            flags |= KERNEL_FLAGS[word]
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(os.fsencode(self._source), os.fsencode(self._mountpoint), b"fuse.zosfs", flags, data.encode()) != 0:
            number = ctypes.get_errno()
            os.close(device)
            raise refusal_of(number, self._mountpoint)
        return device

    def _fusermount(self) -> int:
        options = self._options
        words = ["fsname=" + escape(self._source), "subtype=zosfs", "default_permissions", "nosuid", "nodev"]
        if options.allow_other or options.allow_root:
            words.append("allow_other")  # for allow_root, libfuse turns the others away
        if options.ro:
            words.append("ro")
        words += kernel_words(options)
        tool = _fusermount3()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            run = subprocess.run(
                [tool, "-o", ",".join(words), "--", self._mountpoint], pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL,
                env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())}, stderr=subprocess.PIPE, check=False,
            )  # fmt: skip
            said = run.stderr.decode(errors="replace").strip()
            if run.returncode:
                if "user_allow_other" in said:
                    said = "allow_other and allow_root need the line user_allow_other in /etc/fuse.conf"
                raise MountError(said or f"fusermount3 failed with status {run.returncode}", USAGE)
            ours.setblocking(False)
            try:
                _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
            except BlockingIOError:
                descriptors = []
        if not descriptors:
            raise MountError("fusermount3 gave no descriptor")
        os.set_inheritable(descriptors[0], False)
        return descriptors[0]

    # -- serving ----------------------------------------------------------------------------------------------------

    async def serve(self, operations: pyfuse3.Operations, ready: Callable[[], None]) -> None:
        """Answer the kernel until the file system is unmounted or `terminate` is called; *ready* runs once INIT was answered.

        MountError when it never came to that. Running handlers are waited for.
        """
        loop.install()
        ours = self._attach(operations)
        if ours is None:
            self._mount_by_libfuse(operations)
        self._begun = True
        with loop.insured():
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._go_live, ours, ready)
                    await pyfuse3.main(min_tasks=TASKS_KEPT, max_tasks=TASKS)
                    nursery.cancel_scope.cancel()
            finally:
                self._begun = False
                pyfuse3.close(unmount=False)
                self._forget_device()
                if ours is not None:
                    ours.close()

    def _attach(self, operations: pyfuse3.Operations) -> socket.socket | None:
        """Put a socket pair between the kernel and libfuse and send INIT through; None when libfuse has to do all by itself."""
        if self._device < 0:
            return None
        ready = select.poll()
        ready.register(self._device, select.POLLIN)
        if not ready.poll(INIT_PATIENCE * 1000):
            raise MountError("the kernel does not begin to talk")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self._served = theirs.detach()
        words = {"fsname=zosfs"}
        if self._options.allow_root and not self._options.allow_other and os.geteuid() != 0:
            words.add("allow_root")
        try:
            pyfuse3.init(operations, f"/dev/fd/{self._served}", words)
        except RuntimeError as exc:
            log.warning("this libfuse does not take a descriptor (%s): it mounts by itself", exc)
            os.close(self._served)
            ours.close()
            self._forget_device()
            self.unmount(lazy=True)
            return None
        request = os.read(self._device, LARGEST_REQUEST)
        self._offer = handshake.offer_of(request)
        ours.send(request)
        return ours

    def _mount_by_libfuse(self, operations: pyfuse3.Operations) -> None:
        options = self._options
        words = {"fsname=" + escape(self._source), "subtype=zosfs", "default_permissions", "nosuid", "nodev"}
        words |= {name for name in ("allow_other", "ro") if getattr(options, name)} | set(kernel_words(options))
        if options.allow_root and os.geteuid() != 0:
            words.add("allow_root")
        try:
            pyfuse3.init(operations, self._mountpoint, words)
        except RuntimeError as exc:
            raise MountError(f"mounting on {self._mountpoint} failed: {exc}") from None
        self._note_connection()

    async def _go_live(self, ours: socket.socket | None, ready: Callable[[], None]) -> None:
        if ours is not None:
            await self._carry_init(ours)
        else:
            with contextlib.suppress(OSError):
                await trio.to_thread.run_sync(os.statvfs, self._mountpoint)  # whatever the answer, it comes after INIT
        ready()
        await trio.to_thread.run_sync(self._set_read_ahead)

    async def _carry_init(self, ours: socket.socket) -> None:
        await trio.lowlevel.wait_readable(ours)
        reply = handshake.complete(
            ours.recv(65536), self._offer,
            max_background=self._options.max_background, max_readahead=self._options.max_readahead,
        )  # fmt: skip
        os.write(self._device, reply)
        os.dup2(self._device, self._served, inheritable=False)
        self._forget_device()
        await trio.lowlevel.wait_writable(self._served)  # makes epoll watch the new file behind the same number

    def _forget_device(self) -> None:
        device, self._device = self._device, -1
        if device >= 0:
            os.close(device)

    def _set_read_ahead(self) -> None:
        """Let the kernel read ahead as far as INIT allows: needs root, after INIT, and never on the trio thread."""
        try:
            with open(f"/sys/class/bdi/{self.connection}/read_ahead_kb", "w") as setting:
                setting.write(str(self._options.max_readahead // 1024))
        except OSError as exc:
            log.debug("read_ahead_kb stays as it is: %s", exc)

    def terminate(self) -> None:
        """End `serve` after the running handlers. Nothing when it does not run."""
        if self._begun:
            pyfuse3.terminate()

    # -- unmounting -------------------------------------------------------------------------------------------------

    def unmount(self, lazy: bool = False) -> bool:
        """Take the mount away; True when it is gone. *lazy*: also while somebody uses it. Blocks: not for the trio thread."""
        if os.geteuid() == 0:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.umount2(os.fsencode(self._mountpoint), UMOUNT_NOFOLLOW | (MNT_DETACH if lazy else 0)) == 0:
                return True
            return ctypes.get_errno() in (errno.EINVAL, errno.ENOENT)
        command = [_fusermount3(), "-uqz" if lazy else "-uq", "--", self._mountpoint]
        return subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0


def refusal_of(number: int, mountpoint: str) -> MountError:
    """What a person reads when mount(2) fails with errno *number*."""
    if number == errno.ENOENT:
        return MountError(f"mount point {mountpoint} does not exist; make it with `mkdir -p {mountpoint}`", USAGE)
    if number == errno.ENOTDIR:
        return MountError(f"mount point {mountpoint} is not a directory", USAGE)
    if number == errno.EBUSY:
        return MountError(f"mount point {mountpoint} is busy")
    if number in (errno.EPERM, errno.EACCES):
        return MountError("this process may not mount (in a container: --cap-add SYS_ADMIN --device /dev/fuse)")
    if number == errno.ENODEV:
        return MountError("FUSE is missing in this kernel (modprobe fuse)")
    return MountError(f"mounting on {mountpoint} failed: {os.strerror(number)}")


def kernel_words(options: Options) -> list[str]:
    """Those of the options' kernel flags that this module knows."""
    return [word for word in options.kernel_flags.split(",") if word in KERNEL_FLAGS]


def escape(value: str) -> str:
    """A value for libfuse's and fusermount3's option lists: commas and backslashes escaped."""
    return value.replace("\\", "\\\\").replace(",", "\\,")


def _fusermount3() -> str:
    tool = shutil.which("fusermount3", path="/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin")
    if tool is None:
        raise MountError("fusermount3 is missing, which ordinary users need to mount (Debian: apt-get install fuse3)")
    return tool
