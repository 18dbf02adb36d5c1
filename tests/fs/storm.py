"""Programs that are each sure of files of their own, whatever the others do meanwhile; and the directory of all, renamed all the time.

After a crash an Owner also knows what it was promised, and what it was in the middle of.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

NAMES = 3
BELOW = ("a/", "b/")
"""Directories in the one that is renamed."""
PIECES = (1, 5, 1000, 70_000)
"""Bytes: files in memory and on the disk."""

States = dict[str, bytes | None]
"""What lies at some names; None: nothing."""


class Owner:
    """One program's files: does something to one of them in *directory* (a descriptor), and knows what is in each afterwards.

    What it writes at once has one of *pieces* bytes.
    """

    def __init__(self, number: int, seed: str, directory: int, pieces: tuple[int, ...] = PIECES) -> None:
        self.chance = random.Random(f"{seed} {number}")
        self.number, self.directory, self.pieces = number, directory, pieces
        self.largest = max(pieces) + 10_000
        self.below = list(BELOW)
        self.files: dict[str, bytearray] = {}
        self.done: list[str] = []
        self.possible: list[States] = []
        """What may be there after a crash of the names that something is being done to."""

    def step(self) -> None:
        """Do something."""
        name = self._name()
        act = self.chance.choice(self._acts())
        if name in self.files or act == self.make:
            self.done.append(f"{act.__name__} {name}")
            self._now(name)
            act(name)
            self.possible = []

    def _acts(self) -> tuple[Callable[[str], None], ...]:
        return (
            self.make, self.change, self.change, self.change_by_two, self.append, self.cut, self.move, self.move_over_open, self.remove,
            self.remove_open, self.read,
        )  # fmt: skip

    # -- what a crash may leave ---------------------------------------------------------------------------------------

    def _now(self, *names: str) -> None:
        """These names are what they are, and that was acknowledged."""
        self.possible = [self._of(*names)]

    def _of(self, *names: str) -> States:
        return {name: bytes(self.files[name]) if name in self.files else None for name in names}

    def _or(self, states: States) -> None:
        """From here on the names may be this as well."""
        self.possible.append(states)

    def after_crash(self, found: Mapping[str, bytes]) -> None:
        """Check that all that was acknowledged is among what was *found*, and go on with that."""
        mine = {name: data for name, data in found.items() if name.rpartition("/")[2].startswith(f"t{self.number}-")}
        touched = set(self.possible[0]) if self.possible else set()
        now = {name: mine.get(name) for name in touched}
        told = f"{self.done[-12:]}"
        assert not touched or now in self.possible, f"{_sizes(now)} after a crash instead of {list(map(_sizes, self.possible))}; {told}"
        before, after = ({n: d for n, d in files.items() if n not in touched} for files in (self.files, mine))
        assert after == before, f"{_sizes(after)} after a crash instead of {_sizes(before)}; {told}"
        self.files = {name: bytearray(data) for name, data in mine.items()}
        self.possible = []
        self.done.append("-- crash --")

    # -- what it does -------------------------------------------------------------------------------------------------

    def _name(self) -> str:
        return f"{self.chance.choice(('', *self.below))}t{self.number}-{self.chance.randrange(NAMES)}"

    @contextlib.contextmanager
    def _open(self, name: str, flags: int) -> Iterator[int]:
        fd = os.open(name, flags, 0o644, dir_fd=self.directory)
        try:
            yield fd
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(fd)
            raise
        os.close(fd)

    @staticmethod
    def _write(fd: int, data: bytes, at: int = -1) -> None:
        """Write all of *data*, at the end of an O_APPEND descriptor or *at*. EIO where a daemon that dies takes only a part of it."""
        if (os.write(fd, data) if at < 0 else os.pwrite(fd, data, at)) != len(data):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def _piece(self) -> bytes:
        return self.chance.randbytes(self.chance.choice(self.pieces))

    def make(self, name: str) -> None:
        data = self._piece()
        with self._open(name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY) as fd:
            self._write(fd, data)
            self._or({name: data})
        self.files[name] = bytearray(data)

    def _write_into(self, fd: int, name: str) -> None:
        held, data = self.files[name], self._piece()
        at = self.chance.randrange(max(1, min(len(held), self.largest - len(data)) + 1))
        self._write(fd, data, at)
        held[at : at + len(data)] = data

    def change(self, name: str) -> None:
        with self._open(name, os.O_RDWR) as fd:
            for _ in range(self.chance.randrange(1, 4)):
                self._write_into(fd, name)
                if self.chance.random() < 0.3:
                    self._or(self._of(name))
                    os.fsync(fd)
                    self._now(name)
                if self.chance.random() < 0.2:
                    os.fchmod(fd, 0o600)
            if self.chance.random() < 0.2:
                size = self.chance.randrange(len(self.files[name]) + 1)
                os.ftruncate(fd, size)
                del self.files[name][size:]
            self._or(self._of(name))

    def change_by_two(self, name: str) -> None:
        """Two handles, one of which is synced while the other is closed."""
        failures: list[OSError] = []
        with self._open(name, os.O_RDWR) as one:
            with self._open(name, os.O_RDWR) as two:
                self._write_into(one, name)
                self._or(self._of(name))

                def sync() -> None:
                    try:
                        os.fsync(one)
                    except OSError as failure:
                        failures.append(failure)

                syncing = threading.Thread(target=sync)
                syncing.start()
                try:
                    self._write_into(two, name)
                    self._or(self._of(name))
                except BaseException:
                    syncing.join()
                    raise
            syncing.join()
            if failures:
                raise failures[0]

    def append(self, name: str) -> None:
        if len(self.files[name]) > self.largest:
            return
        data = self._piece()
        with self._open(name, os.O_WRONLY | os.O_APPEND) as fd:
            self._write(fd, data)
            self.files[name] += data
            self._or(self._of(name))

    def cut(self, name: str) -> None:
        size = self.chance.randrange(len(self.files[name]) + 1)
        self._or({name: bytes(self.files[name][:size])})
        # truncate(2) knows no directory descriptors
        os.truncate(f"/proc/self/fd/{self.directory}/{name}", size)
        del self.files[name][size:]

    def _rename(self, name: str, new: str) -> None:
        if new != name:
            self._now(name, new)
            data = bytes(self.files[name])
            self._or({name: data, new: data})  # a copy on the server, and then a delete
            self._or({name: None, new: data})
        os.rename(name, new, src_dir_fd=self.directory, dst_dir_fd=self.directory)
        if new != name:
            self.files[new] = self.files.pop(name)
            self._now(name, new)

    def move(self, name: str) -> None:
        self._rename(name, self._name())

    def move_over_open(self, name: str) -> None:
        new = self._name()
        if new == name or new not in self.files:
            return
        before = self.files[new]
        with self._open(new, os.O_RDONLY) as fd:
            self._rename(name, new)
            self._reads(fd, new, before)

    def remove(self, name: str) -> None:
        self._or({name: None})
        os.unlink(name, dir_fd=self.directory)
        del self.files[name]

    def remove_open(self, name: str) -> None:
        with self._open(name, os.O_RDWR) as fd:
            if self.chance.random() < 0.5:
                self._write_into(fd, name)
            self._or({name: None})
            os.unlink(name, dir_fd=self.directory)
            held = self.files.pop(name)
            self._now(name)
            self._reads(fd, name, held)

    def read(self, name: str) -> None:
        with self._open(name, os.O_RDONLY) as fd:
            self._reads(fd, name, self.files[name])

    def _reads(self, fd: int, name: str, wanted: bytes | bytearray) -> None:
        found = b""
        while piece := os.pread(fd, 4 * self.largest, len(found)):  # one that fails in its middle tells why at the next
            found += piece
        assert found == wanted, f"{name} has {len(found)} bytes instead of {len(wanted)}, or others than were written; {self.done[-12:]}"


def _sizes(states: Mapping[str, bytes | bytearray | None]) -> dict[str, str]:
    """*states* for a person to read."""
    return {name: "none" if data is None else f"{len(data)}:{bytes(data[:4]).hex()}" for name, data in states.items()}


class Wandering:
    """The directory ``here`` in *top*, which becomes ``there`` and back; with a descriptor of it, as long as no daemon dies."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.name = "here"
        self.heading = ""
        """What it is being renamed to."""
        self.moves = 0
        for below in ("", *BELOW):
            (top / self.name / below).mkdir()
        self.open()

    @property
    def path(self) -> Path:
        """Where it is now."""
        return self.top / self.name

    def open(self) -> int:
        """A descriptor of it, `descriptor` from now on."""
        self.descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        return self.descriptor

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.descriptor)

    def rename(self) -> None:
        """Give it its other name."""
        self.heading = "there" if self.name == "here" else "here"
        os.rename(self.path, self.top / self.heading)
        self.name, self.heading = self.heading, ""
        self.moves += 1

    def files(self) -> dict[str, bytes]:
        """All files in it."""
        return {str(path.relative_to(self.path)): path.read_bytes() for path in self.path.rglob("t*") if path.is_file()}


def wanted(owners: Iterable[Owner]) -> dict[str, bytes]:
    """What is in the files of all *owners*."""
    return {name: bytes(data) for owner in owners for name, data in owner.files.items()}


def together(jobs: Iterable[Callable[[], object]], beside: Iterable[Callable[[], object]] = ()) -> None:
    """Run all *jobs* at once, and *beside* over and over until they are done. Raises the first failure once all have ended."""
    over = threading.Event()

    def again_and_again(job: Callable[[], object]) -> None:
        while not over.is_set():
            job()

    with ThreadPoolExecutor(32) as pool:
        repeated = [pool.submit(again_and_again, job) for job in beside]
        working = [pool.submit(job) for job in jobs]
        try:
            for one in working:
                one.result()
        finally:
            over.set()
        for one in repeated:
            one.result()
