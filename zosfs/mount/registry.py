"""Which mounts are alive on this machine: one runtime file a mount.

Owns: the files of the runtime directory (0700). A file names a process by pid and start time, so that a reused pid is not
taken for a mount. Must not know: trio, FUSE.
"""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zosfs import places

_LARGEST = 1 << 16


@dataclass(slots=True)
class Entry:
    """One mount. *started* and *born* are seconds since the epoch and the kernel's clock ticks; *options* are those that differ
    from the defaults (none is a secret); *delivering* is (files, bytes) still to go while it ends, else None; *undelivered* says
    why a mount ended with something left in its journal: its file then outlives it until someone has read it. *path* and *owner*
    (uid) are those of the file that it was read from."""

    pid: int
    born: int
    source: str
    mountpoint: str
    cache_dir: str = ""
    log: str = ""
    started: float = 0.0
    version: str = ""
    connection: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    delivering: tuple[int, int] | None = None
    undelivered: str = ""
    path: str = ""
    owner: int = -1

    @property
    def alive(self) -> bool:
        """Whether its process still runs."""
        return self.born != 0 and born(self.pid) == self.born


def born(pid: int) -> int:
    """The start time of process *pid* in clock ticks since boot, 0 when there is none (a zombie counts as none)."""
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    words = line[line.rindex(b")") + 2 :].split()
    return 0 if words[0] in (b"Z", b"X") else int(words[19])


def entry_for(source: str, mountpoint: str, **more: Any) -> Entry:
    """The entry of this process for *mountpoint*, not written yet."""
    return Entry(os.getpid(), born(os.getpid()), source, mountpoint, started=time.time(), **more)


def write(entry: Entry, directory: Path | None = None) -> None:
    """Write *entry*'s file, at once whole. Raises OSError when the runtime directory cannot be made or is someone else's."""
    directory = directory or places.runtime_dir()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    info = os.lstat(directory)
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid():
        raise PermissionError(f"{directory} belongs to someone else")
    path = directory / f"{entry.pid}.json"
    entry.path = str(path)
    text = json.dumps(dataclasses.asdict(entry), ensure_ascii=True, indent=1)
    new = path.with_suffix(".new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w", encoding="ascii") as file:
        file.write(text)
    os.replace(new, path)


def remove(entry: Entry) -> None:
    """Take *entry*'s file away if it is this user's own; a missing one is no error."""
    if entry.path and entry.owner in (-1, os.geteuid()):
        Path(entry.path).unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """*value*, a text without what would steer a terminal."""
    return "".join(letter for letter in value if letter.isprintable()) if isinstance(value, str) else value


def _files() -> list[Path]:
    """The runtime files, own and others'; a directory that is a link is none of ours."""
    return [
        path
        for directory in places.runtime_dirs()
        if directory.is_dir() and not directory.is_symlink()
        for path in sorted(directory.glob("*.json"))
    ]


def _load(path: Path) -> Entry | None:
    """The entry in *path*, None for anything else. The file may be a user's and the reader root: it is trusted with nothing."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), encoding="ascii") as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode) or info.st_size > _LARGEST:
                return None
            raw = json.load(file)
        known = {row.name for row in dataclasses.fields(Entry)}
        entry = Entry(**{name: _plain(value) for name, value in raw.items() if name in known})
        # a user's file may speak of that user's processes only: root waits for whom it names
        if info.st_uid != os.geteuid() and born(entry.pid) and os.stat(f"/proc/{entry.pid}").st_uid != info.st_uid:
            return None
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    entry.path, entry.owner = str(path), info.st_uid
    if entry.delivering is not None:
        entry.delivering = (int(entry.delivering[0]), int(entry.delivering[1]))
    return entry


def forget_ended(source: str) -> None:
    """Take away the files of ended mounts of *source*: a new mount has what they left undelivered."""
    for entry in ended():
        if entry.source == source:
            remove(entry)


def ended() -> list[Entry]:
    """The mounts that ended with something undelivered, as far as this user may know of them. Where the cache directory is gone, so is
    what was left in it."""
    loaded = [_load(path) for path in _files()]
    return [
        entry for entry in loaded
        if entry is not None and entry.undelivered and not entry.alive and (not entry.cache_dir or os.path.isdir(entry.cache_dir))
    ]  # fmt: skip


def entries() -> list[Entry]:
    """The mounts alive that this user may know of, oldest first. This user's own files of dead processes are taken away."""
    found = []
    for path in _files():
        entry = _load(path)
        if entry is None:
            continue
        if entry.alive:
            found.append(entry)
        elif not entry.undelivered:
            remove(entry)
    return sorted(found, key=lambda entry: entry.started)


def find(mountpoint: str) -> list[Entry]:
    """The living mounts on *mountpoint* (an absolute path without symbolic links), the one on top first; it may be delivering
    still after the kernel let go of it."""
    return [entry for entry in reversed(entries()) if entry.mountpoint == mountpoint]


def reload(entry: Entry) -> Entry | None:
    """*entry* as its file says now; None when the file is gone."""
    return _load(Path(entry.path))
