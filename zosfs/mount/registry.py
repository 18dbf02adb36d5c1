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


@dataclass(slots=True)
class Entry:
    """One mount. *started* and *born* are seconds since the epoch and the kernel's clock ticks; *options* are those that differ
    from the defaults (none is a secret); *delivering* is (files, bytes) still to go while it ends, else None; *undelivered* says
    why a mount ended with something left in its journal: its file then outlives it until someone has read it."""

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
    """Take *entry*'s file away; a missing one is no error."""
    if entry.path:
        Path(entry.path).unlink(missing_ok=True)


def _load(path: Path) -> Entry | None:
    try:
        with open(path, encoding="ascii") as file:
            owner = os.fstat(file.fileno()).st_uid
            raw = json.load(file)
        known = {row.name for row in dataclasses.fields(Entry)}
        entry = Entry(**{name: value for name, value in raw.items() if name in known})
        # a user's file may speak of that user's processes only: root waits for whom it names
        if owner != os.geteuid() and born(entry.pid) and os.stat(f"/proc/{entry.pid}").st_uid != owner:
            return None
    except (OSError, ValueError, TypeError):
        return None
    entry.path = str(path)
    if entry.delivering is not None:
        entry.delivering = (int(entry.delivering[0]), int(entry.delivering[1]))
    return entry


def forget_ended(source: str) -> None:
    """Take away the files of ended mounts of *source*: a new mount has what they left undelivered."""
    for entry in ended():
        if entry.source == source:
            remove(entry)


def ended() -> list[Entry]:
    """The mounts that ended with something undelivered, as far as this user may know of them."""
    loaded = [_load(path) for directory in places.runtime_dirs() for path in sorted(directory.glob("*.json"))]
    return [entry for entry in loaded if entry is not None and entry.undelivered and not entry.alive]


def entries() -> list[Entry]:
    """The mounts alive that this user may know of, oldest first. Files of dead processes are taken away where that is allowed."""
    found = []
    for directory in places.runtime_dirs():
        for path in sorted(directory.glob("*.json")):
            entry = _load(path)
            if entry is not None and entry.alive:
                found.append(entry)
            elif os.access(directory, os.W_OK) and (entry is None or not entry.undelivered):
                path.unlink(missing_ok=True)
    return sorted(found, key=lambda entry: entry.started)


def find(mountpoint: str) -> list[Entry]:
    """The living mounts on *mountpoint* (an absolute path without symbolic links), the one on top first; it may be delivering
    still after the kernel let go of it."""
    return [entry for entry in reversed(entries()) if entry.mountpoint == mountpoint]


def reload(entry: Entry) -> Entry | None:
    """*entry* as its file says now; None when the file is gone."""
    return _load(Path(entry.path))
