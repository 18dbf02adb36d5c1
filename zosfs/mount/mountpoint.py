"""The directory that is mounted on: found, checked, freed of a dead mount.

Owns: the reading of /proc/self/mountinfo and the checks before a mount. Must not know: trio, the store. Nothing here looks into
a mount that may not answer: a path on a dead or stuck mount is judged by mountinfo.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path

from zosfs.mount.refusal import USAGE, Refusal

EMPTY = "the mount point is an empty word"

_USER = re.compile(r"(?:^|,)user_id=(\d+)")
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mounted:
    """One line of mountinfo: where, type, source as the kernel shows it, device MAJ:MIN, uid of the daemon (-1: not FUSE)."""

    mountpoint: str
    type: str
    source: str
    device: str
    owner: int = -1


def _plain(text: str) -> str:
    raw = _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
    return raw


def parse_mountinfo(text: str) -> list[Mounted]:
    """The mounts that a mountinfo file tells, in its order (later ones lie on top)."""
    found = []
    for line in text.splitlines():
        words = line.split(" ")
        try:
            dash = words.index("-", 6)
            owner = _USER.search(words[dash + 3])
            found.append(
                Mounted(_plain(words[4]), words[dash + 1], _plain(words[dash + 2]), words[2], int(owner[1]) if owner else -1)
            )
        except (ValueError, IndexError):
            continue
    return found


def mounts() -> list[Mounted]:
    """All mounts that this process sees."""
    return parse_mountinfo(Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape"))


def mounted_on(path: str) -> Mounted | None:
    """The topmost mount exactly on *path* (absolute), or None."""
    return next((mount for mount in reversed(mounts()) if mount.mountpoint == path), None)


def real_path(path: str) -> str:
    """*path* absolute and without symbolic links in front of its last component, which may be a mount that does not answer."""
    path = os.path.abspath(path)
    head, tail = os.path.split(path)
    joined = os.path.join(os.path.realpath(head), tail) if tail else head
    if mounted_on(joined) is not None:
        return joined
    return os.path.realpath(joined)


def unmount(path: str, *, lazy: bool = False, force: bool = False) -> str:
    """Take the topmost mount off *path* with umount -i or, for ordinary users, fusermount3. "" or what the tool said."""
    if os.geteuid() == 0:
        command = ["umount", "-i", *(["-l"] if lazy else []), *(["-f"] if force else []), path]
    else:
        command = ["fusermount3", "-u", *(["-z"] if lazy else []), path]
    tool = shutil.which(command[0], path="/usr/bin:/bin:/usr/sbin:/sbin") or command[0]
    try:
        done = subprocess.run([tool, *command[1:]], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return f"{command[0]} is not installed (Debian: apt-get install fuse3)"
    return "" if done.returncode == 0 else (done.stderr.strip() or f"{command[0]} failed with status {done.returncode}")


def prepare(path: str, *, nonempty: bool = False) -> str:
    """The real path of a directory that can be mounted on. A dead FUSE mount there is taken away first.

    Raises Refusal: no word, missing, no directory, not empty, mounted already, not allowed, no FUSE on this machine.
    """
    if not path:
        raise Refusal(EMPTY, USAGE)  # a shell's variable that is not set, and not the directory one happens to be in
    path = real_path(path)
    on_top = mounted_on(path)
    if on_top is not None and on_top.type.startswith("fuse"):
        if not is_dead(path):
            raise Refusal(f"{path}: {on_top.source} is already mounted there; `zosfs umount {path}` first")
        said = unmount(path) and unmount(path, lazy=True)
        if said:
            raise Refusal(f"{path}: a dead mount is in the way and does not go: {said}")
    try:
        info = os.stat(path)
    except FileNotFoundError:
        raise Refusal(f"mount point {path} does not exist; make it with `mkdir -p {path}`", USAGE) from None
    except OSError as error:
        raise Refusal(f"mount point {path}: {error.strerror}", USAGE) from None
    if not stat.S_ISDIR(info.st_mode):
        raise Refusal(f"mount point {path} is not a directory", USAGE)
    if os.geteuid() != 0 and not os.access(path, os.W_OK):
        raise Refusal(f"mount point {path}: an ordinary user may mount only on a directory that is theirs", USAGE)
    if not nonempty:
        try:
            with os.scandir(path) as names:
                if next(names, None) is not None:
                    raise Refusal(f"mount point {path} is not empty; -o nonempty mounts over what is there", USAGE)
        except PermissionError:
            pass
    _check_fuse()
    return path


def is_dead(path: str) -> bool:
    """Whether the FUSE mount on *path* has lost its daemon. One that does not answer within 3 s counts as alive."""
    answers: list[bool] = []

    def look() -> None:
        try:
            os.statvfs(path)  # stat might be answered from the kernel's cache
        except OSError as error:
            answers.append(error.errno in (errno.ENOTCONN, errno.ECONNABORTED))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(3)
    return any(answers)


def _check_fuse() -> None:
    try:
        device = stat.S_ISCHR(os.stat("/dev/fuse").st_mode)
    except OSError:
        device = False
    if not device:
        raise Refusal("/dev/fuse is missing: load the kernel's module with `modprobe fuse` (in a container: --device /dev/fuse)")
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise Refusal("/dev/fuse may not be opened by this user; root allows it with `chmod 666 /dev/fuse`") from None
        raise Refusal(f"/dev/fuse: {error.strerror}") from None
    if os.geteuid() != 0 and shutil.which("fusermount3", path="/usr/bin:/bin:/usr/sbin:/sbin") is None:
        raise Refusal("fusermount3 is missing, which ordinary users need to mount (Debian: apt-get install fuse3)")
