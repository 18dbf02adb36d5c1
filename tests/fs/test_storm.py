"""Several programs at once, each sure of its own files, while their directory is renamed again and again and the server is far away.

What one thread wrote and closed is what it reads, at once and after a remount, whatever the others did in between.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.fs.mounting import Mount
from tests.proxy import Proxy

THREADS, NAMES = 4, 3
BELOW = ("a/", "b/")
"""Directories in the one that is renamed."""
LARGEST = 80_000
"""Bytes: files in memory and on the disk."""


@pytest.fixture
def proxy(server: Any) -> Iterator[Proxy]:
    """A way to the server that takes its time, so that much is under way at any moment."""
    with Proxy(server.url, latency=0.004) as living:
        yield living


class Owner:
    """One thread's files: does something to one of them in *directory* (a descriptor), and knows what is in each afterwards."""

    def __init__(self, number: int, seed: str, directory: int) -> None:
        self.chance = random.Random(f"{seed} {number}")
        self.number, self.directory = number, directory
        self.files: dict[str, bytearray] = {}
        self.done: list[str] = []

    def step(self) -> None:
        name = self._name()
        act = self.chance.choice((
            self.make, self.change, self.change, self.change_by_two, self.append, self.cut, self.move, self.move_over_open, self.remove,
            self.remove_open, self.read,
        ))  # fmt: skip
        if name in self.files or act == self.make:
            self.done.append(f"{act.__name__} {name}")
            act(name)

    def _name(self) -> str:
        return f"{self.chance.choice(('', *BELOW))}t{self.number}-{self.chance.randrange(NAMES)}"

    def _open(self, name: str, flags: int) -> int:
        return os.open(name, flags, 0o644, dir_fd=self.directory)

    def _piece(self) -> bytes:
        return self.chance.randbytes(self.chance.choice((1, 5, 1000, 70_000)))

    def make(self, name: str) -> None:
        data = self._piece()
        fd = self._open(name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        self.files[name] = bytearray(data)
        assert os.write(fd, data) == len(data)
        os.close(fd)

    def _write_into(self, fd: int, name: str) -> None:
        held, data = self.files[name], self._piece()
        at = self.chance.randrange(min(len(held), LARGEST - 70_000) + 1)
        assert os.pwrite(fd, data, at) == len(data)
        held[at : at + len(data)] = data

    def change(self, name: str) -> None:
        fd = self._open(name, os.O_RDWR)
        for _ in range(self.chance.randrange(1, 4)):
            self._write_into(fd, name)
            if self.chance.random() < 0.3:
                os.fsync(fd)
            if self.chance.random() < 0.2:
                os.fchmod(fd, 0o600)
        if self.chance.random() < 0.2:
            size = self.chance.randrange(len(self.files[name]) + 1)
            os.ftruncate(fd, size)
            del self.files[name][size:]
        os.close(fd)

    def change_by_two(self, name: str) -> None:
        """Two handles, one of which is synced while the other is closed."""
        one, two = self._open(name, os.O_RDWR), self._open(name, os.O_RDWR)
        self._write_into(one, name)
        syncing = threading.Thread(target=os.fsync, args=(one,))
        syncing.start()
        self._write_into(two, name)
        os.close(two)
        syncing.join()
        os.close(one)

    def append(self, name: str) -> None:
        if len(self.files[name]) > LARGEST:
            return
        data = self._piece()
        fd = self._open(name, os.O_WRONLY | os.O_APPEND)
        assert os.write(fd, data) == len(data)
        os.close(fd)
        self.files[name] += data

    def cut(self, name: str) -> None:
        size = self.chance.randrange(len(self.files[name]) + 1)
        # truncate(2) knows no directory descriptors
        os.truncate(f"/proc/self/fd/{self.directory}/{name}", size)
        del self.files[name][size:]

    def move(self, name: str) -> None:
        new = self._name()
        os.rename(name, new, src_dir_fd=self.directory, dst_dir_fd=self.directory)
        if new != name:
            self.files[new] = self.files.pop(name)

    def move_over_open(self, name: str) -> None:
        new = self._name()
        if new == name or new not in self.files:
            return
        fd, before = self._open(new, os.O_RDONLY), self.files[new]
        os.rename(name, new, src_dir_fd=self.directory, dst_dir_fd=self.directory)
        self.files[new] = self.files.pop(name)
        self._reads(fd, new, before)

    def remove(self, name: str) -> None:
        os.unlink(name, dir_fd=self.directory)
        del self.files[name]

    def remove_open(self, name: str) -> None:
        fd = self._open(name, os.O_RDWR)
        if self.chance.random() < 0.5:
            self._write_into(fd, name)
        os.unlink(name, dir_fd=self.directory)
        self._reads(fd, name, self.files.pop(name))

    def read(self, name: str) -> None:
        self._reads(self._open(name, os.O_RDONLY), name, self.files[name])

    def _reads(self, fd: int, name: str, wanted: bytearray) -> None:
        found = os.pread(fd, 4 * LARGEST, 0)
        os.close(fd)
        assert found == wanted, f"{name} has {len(found)} bytes instead of {len(wanted)}, or others than were written; {self.done[-12:]}"


@pytest.mark.long_on("weed")
@pytest.mark.parametrize(
    "options", [{}, pytest.param({"writeback": "1s"}, marks=pytest.mark.long), {"writeback": "0s"}], ids=["default", "writeback", "at-once"]
)
@pytest.mark.parametrize("steps", [25, pytest.param(600, marks=[pytest.mark.long, pytest.mark.timeout(1800)])])
def test_each_has_what_it_wrote(
    proxy: Proxy, mount: Callable[..., Mount], bucket: str, s3: Any, options: dict[str, str], steps: int
) -> None:  # fmt: skip
    seed = os.environ.get("ZOSFS_TEST_SEED") or ("same" if steps < 100 else os.urandom(4).hex())
    print(f"ZOSFS_TEST_SEED={seed}")
    living = mount(url=proxy.url, **options)
    here, there = living.path / "here", living.path / "there"
    for below in ("", *BELOW):
        (here / below).mkdir()
    directory = os.open(here, os.O_RDONLY | os.O_DIRECTORY)
    owners = [Owner(n, seed, directory) for n in range(THREADS)]
    over = threading.Event()

    def work(owner: Owner) -> None:
        for _ in range(steps):
            owner.step()

    def rename() -> int:
        moves = 0
        while not over.is_set():
            os.rename(*((here, there) if moves % 2 == 0 else (there, here)))
            moves += 1
        return moves

    with ThreadPoolExecutor(THREADS + 1) as pool:
        renaming = pool.submit(rename)
        working = [pool.submit(work, owner) for owner in owners]
        try:
            for one in working:
                one.result()
        finally:
            over.set()
        moves = renaming.result()
    wanted = {name: bytes(data) for owner in owners for name, data in owner.files.items()}
    assert moves
    os.close(directory)
    last = there if moves % 2 else here
    for _ in range(2):
        found = {str(path.relative_to(last)): path.read_bytes() for path in last.rglob("t*") if path.is_file()}
        assert found == wanted
        living.again()
    for name, data in wanted.items():
        assert s3.get_object(Bucket=bucket, Key=f"{last.name}/{name}")["Body"].read() == data
