"""Several programs at once, each sure of its own files, while their directory is renamed again and again and the server is far away.

What one thread wrote and closed is what it reads, at once and after a remount, whatever the others did in between: on a bad way to the
server, with hardly any memory and disk, beside another mount of the bucket, and over deaths of the daemon.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.fs.mischief import PATIENT, Mischief
from tests.fs.mounting import Mount, wait_for
from tests.fs.storm import Owner, Wandering, together, wanted
from tests.proxy import Proxy

MIB = 1 << 20
THREADS = 4
SMALL = {"memory": "32M", "cache_size": "24M", "part_size": "5M", "multipart_threshold": "8M"}
LARGE_PIECES = (1, 5, 70_000, 3 * MIB, 7 * MIB)
LONG = pytest.mark.long
Mounting = Callable[..., Mount]
pytestmark = pytest.mark.long_on("weed")


@pytest.fixture
def proxy(server: Any) -> Iterator[Proxy]:
    """A way to the server that takes its time, so that much is under way at any moment."""
    with Proxy(server.url, latency=0.004) as living:
        yield living


def seed_of(short: bool) -> str:
    """The same for short runs, and one of its own for each long one."""
    seed = os.environ.get("ZOSFS_TEST_SEED") or ("same" if short else os.urandom(4).hex())
    print(f"ZOSFS_TEST_SEED={seed}")
    return seed


def steps_of(owner: Owner, steps: int) -> None:
    for _ in range(steps):
        owner.step()


def objects(s3: Any, bucket: str) -> dict[str, bytes]:
    """All objects but those of directories and of probes."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    return {
        key: s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        for key in keys
        if not key.endswith("/") and not key.startswith(".zosfs-probe-")
    }


def check_all(living: Mount, directory: Wandering, owners: list[Owner], s3: Any, bucket: str) -> None:
    """What is wanted is there, at once, after a remount, and in the bucket; and nothing else is."""
    assert living.counters().get("conflicts", 0) == 0
    for _ in range(2):
        assert directory.files() == wanted(owners)
        living.again()
    assert objects(s3, bucket) == {f"{directory.name}/{name}": data for name, data in wanted(owners).items()}


@pytest.mark.parametrize(
    "options", [{}, pytest.param({"writeback": "1s"}, marks=LONG), {"writeback": "0s"}], ids=["default", "writeback", "at-once"]
)
@pytest.mark.parametrize("steps", [25, pytest.param(600, marks=[LONG, pytest.mark.timeout(1800)])])
def test_each_has_what_it_wrote(proxy: Proxy, mount: Mounting, bucket: str, s3: Any, options: dict[str, str], steps: int) -> None:
    seed = seed_of(steps < 100)
    living = mount(url=proxy.url, **options)
    directory = Wandering(living.path)
    owners = [Owner(n, seed, directory.descriptor) for n in range(THREADS)]
    together([partial(steps_of, owner, steps) for owner in owners], beside=[directory.rename])
    directory.close()
    assert directory.moves
    check_all(living, directory, owners, s3, bucket)


@pytest.mark.parametrize(
    "options", [{}, pytest.param({"writeback": "1s"}, marks=LONG), pytest.param({"writeback": "0s"}, marks=LONG)],
    ids=["default", "writeback", "at-once"],
)  # fmt: skip
@pytest.mark.parametrize("steps", [pytest.param(12, marks=LONG), pytest.param(150, marks=[LONG, pytest.mark.timeout(1800)])])
def test_each_has_what_it_wrote_over_a_bad_way(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any, options: dict[str, str], steps: int
) -> None:  # fmt: skip
    seed = seed_of(steps < 100)
    living = mount(url=proxy.url, **PATIENT, **options)
    directory = Wandering(living.path)
    owners = [Owner(n, seed, directory.descriptor) for n in range(THREADS)]
    mischief = proxy.intercept = Mischief(seed)
    together([partial(steps_of, owner, steps) for owner in owners], beside=[directory.rename])
    directory.close()
    proxy.intercept = None
    print(mischief.met)
    assert directory.moves
    check_all(living, directory, owners, s3, bucket)


@pytest.mark.parametrize(
    "options", [{}, pytest.param({"writeback": "1s"}, marks=LONG), pytest.param({"writeback": "0s"}, marks=LONG)],
    ids=["default", "writeback", "at-once"],
)  # fmt: skip
@pytest.mark.parametrize("bad", [False, pytest.param(True, marks=LONG)], ids=["", "bad-way"])
@pytest.mark.parametrize("steps", [pytest.param(8, marks=LONG), pytest.param(60, marks=[LONG, pytest.mark.timeout(1800)])])
def test_hardly_any_memory_and_disk(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any, options: dict[str, str], bad: bool, steps: int
) -> None:  # fmt: skip
    seed = seed_of(steps < 50)
    living = mount(url=proxy.url, **PATIENT | SMALL, **options)
    directory = Wandering(living.path)
    owners = [Owner(n, seed, directory.descriptor, LARGE_PIECES) for n in range(THREADS)]
    if bad:
        proxy.intercept = Mischief(seed)
    together([partial(steps_of, owner, steps) for owner in owners], beside=[directory.rename])
    directory.close()
    proxy.intercept = None
    check_all(living, directory, owners, s3, bucket)


class Watched(Owner):
    """An Owner with a directory for itself, whose every step is looked at through another mount, *elsewhere*."""

    def __init__(self, number: int, seed: str, top: Path, elsewhere: Path) -> None:
        (top / f"o{number}").mkdir()
        super().__init__(number, seed, os.open(top / f"o{number}", os.O_RDONLY | os.O_DIRECTORY))
        for below in self.below:
            os.mkdir(below, dir_fd=self.directory)
        self.elsewhere = elsewhere / f"o{number}"

    def _acts(self) -> tuple[Callable[[str], None], ...]:
        return (*super()._acts(), self.move_directory)

    def move_directory(self, name: str) -> None:
        """One of the directories below gets another name."""
        new = self.chance.choice([below for below in ("a/", "b/", "c/", "d/") if below not in self.below])
        old = self.below[0]
        os.rename(old, new, src_dir_fd=self.directory, dst_dir_fd=self.directory)
        self.below = [self.below[1], new]
        moved = {name: data for name, data in self.files.items() if name.startswith(old)}
        for name, data in moved.items():
            del self.files[name]
            self.files[new + name[len(old) :]] = data
            self.check(name)
            self.check(new + name[len(old) :])

    def step(self) -> None:
        before = set(self.files)
        acts = len(self.done)
        super().step()
        if len(self.done) > acts:
            for name in {self.done[-1].split(" ")[1], *before.symmetric_difference(self.files)}:
                self.check(name)

    def check(self, name: str) -> None:
        """The other mount shows at *name* what is there; what was removed goes a moment later."""
        path, held = self.elsewhere / name, self.files.get(name)
        if held is None:
            wait_for(lambda: not path.exists(), 60, f"the other mount to miss {name}; {self.done[-8:]}")
            return
        found = path.read_bytes()
        told = f"{name} has {len(found)} bytes instead of {len(held)}, or others; {self.done[-8:]}"
        assert found == held, f"the other mount: {told}"


class Lines:
    """Appends whole lines to *log*, in one open(2) or several, and reads it at times: all lines are there by then that *writers* of it
    were told are kept."""

    def __init__(self, name: str, seed: str, log: Path, writers: list[Lines]) -> None:
        self.name, self.log, self.said, self.writers = name, log, 0, writers
        self.chance = random.Random(f"{seed} {name}")
        self.kept = 0
        """So many lines were acknowledged."""
        writers.append(self)

    def line(self, n: int) -> bytes:
        return f"{self.name} {n} {'x' * (n % 50)}\n".encode()

    def write(self, rounds: int) -> None:
        """Append."""
        for _ in range(rounds):
            fd = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                for _ in range(self.chance.randrange(1, 6)):
                    line = self.line(self.said)
                    self.said += 1
                    assert os.write(fd, line) == len(line)
                    if self.chance.random() < 0.2:
                        os.fsync(fd)
                        self.kept = self.said
                    if self.chance.random() < 0.1:
                        self.look()
            finally:
                os.close(fd)
            self.kept = self.said
            if self.chance.random() < 0.3:
                self.look()

    def look(self) -> None:
        """All lines that were acknowledged are in the log here, whole.

        Those that were written through the other mount only where nothing is written here that the store lacks.
        """
        here = [writer for writer in self.writers if writer.log == self.log]
        for _ in range(100):
            kept = {writer: writer.kept for writer in self.writers}
            idle = [writer.said for writer in here] == [kept[writer] for writer in here]
            try:
                found = self.log.read_bytes()
                break
            except OSError as failure:
                if failure.errno != errno.ESTALE:  # it was replaced while it was read
                    raise
        idle = idle and [writer.said for writer in here] == [kept[writer] for writer in here]
        for writer, lines in kept.items():
            if writer not in here and not idle:
                continue
            theirs = [line for line in found.splitlines(keepends=True) if line.startswith(f"{writer.name} ".encode())]
            told = f"{self.name} finds {len(theirs)} of {lines} lines of {writer.name} in {len(found)} bytes"
            assert theirs[:lines] == [writer.line(n) for n in range(lines)], told


@pytest.mark.parametrize("bad", [False, pytest.param(True, marks=LONG)], ids=["", "bad-way"])
@pytest.mark.parametrize("ttl", [0, pytest.param(60, marks=LONG)])
@pytest.mark.parametrize("rounds", [pytest.param(10, marks=LONG), pytest.param(150, marks=[LONG, pytest.mark.timeout(1800)])])
def test_logs_of_two_mounts(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any, server: Any, bad: bool, ttl: int, rounds: int
) -> None:  # fmt: skip
    if server.kind != "rgw":
        pytest.skip("no append uploads, no conditions: writers on two hosts cannot exclude each other")
    seed = seed_of(rounds < 100)
    mounts = [mount(url=proxy.url, metadata_ttl=ttl, negative_ttl=0, **PATIENT) for _ in range(2)]
    logs: dict[str, list[Lines]] = {"log0": [], "log1": []}
    for log, writers in logs.items():
        for n in range(4):
            Lines(f"w{n}{log}", seed, mounts[n % 2].path / log, writers)
    if bad:
        proxy.intercept = Mischief(seed)
    every = [writer for writers in logs.values() for writer in writers]
    together(partial(writer.write, rounds) for writer in every)
    proxy.intercept = None
    for writer in every:
        writer.look()
    for living in mounts:
        assert living.counters().get("conflicts", 0) == 0
        living.stop()
    for log, there in objects(s3, bucket).items():
        lines = Counter(there.splitlines(keepends=True))
        assert lines == Counter(writer.line(n) for writer in logs[log] for n in range(writer.said))


@pytest.mark.parametrize("bad", [False, pytest.param(True, marks=LONG)], ids=["", "bad-way"])
@pytest.mark.parametrize("steps", [8, pytest.param(150, marks=[LONG, pytest.mark.timeout(1800)])])
def test_two_mounts(proxy: Proxy, mount: Mounting, bucket: str, s3: Any, bad: bool, steps: int) -> None:
    seed = seed_of(steps < 100)
    options = {"url": proxy.url, "metadata_ttl": 0, "negative_ttl": 0, **PATIENT}
    mounts = [mount(**options), mount(**options)]
    owners = [Watched(n, seed, mounts[n % 2].path, mounts[1 - n % 2].path) for n in range(THREADS)]
    if bad:
        proxy.intercept = Mischief(seed)
    together([partial(steps_of, owner, steps) for owner in owners])
    proxy.intercept = None
    for owner in owners:
        os.close(owner.directory)
    for living in mounts:
        assert living.counters().get("conflicts", 0) == 0
        living.stop()
    assert objects(s3, bucket) == {f"o{owner.number}/{name}": bytes(data) for owner in owners for name, data in owner.files.items()}


def until_the_end(job: Callable[[], None], dying: threading.Event, *, mortal: bool = True) -> None:
    """Do *job* again and again until the daemon is *dying*, which may end it where it is on that *mortal*'s mount."""
    try:
        while not dying.is_set():
            job()
    except OSError:
        if not mortal or not dying.is_set():
            raise


@pytest.mark.parametrize(
    "options",
    [pytest.param({}, marks=LONG), {"writeback": "1s"}, pytest.param({"writeback": "0s"}, marks=LONG)],
    ids=["default", "writeback", "at-once"],
)
@pytest.mark.parametrize("bad", [False, pytest.param(True, marks=LONG)], ids=["", "bad-way"])
@pytest.mark.parametrize("deaths", [1, pytest.param(40, marks=[LONG, pytest.mark.timeout(3000)])])
def test_killed_in_the_middle(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any, options: dict[str, str], bad: bool, deaths: int
) -> None:  # fmt: skip
    """What was acknowledged is there in the next run, and of what was under way the old or the new."""
    seed = seed_of(deaths < 10)
    chance = random.Random(seed)
    living = mount(url=proxy.url, **PATIENT, **options)
    living.forgive("fuse: device not found|cut short")
    directory = Wandering(living.path)
    owners = [Owner(n, seed, directory.descriptor) for n in range(THREADS)]
    mischief = Mischief(seed)
    for _ in range(deaths):
        proxy.intercept = mischief if bad else None
        dying = threading.Event()

        more = sum(len(owner.done) for owner in owners) + chance.randrange(4, 60)

        def kill(dying: threading.Event = dying, more: int = more) -> None:
            try:
                wait_for(lambda: sum(len(owner.done) for owner in owners) >= more, 300, "so many steps")
                time.sleep(chance.uniform(0, 0.1))
            finally:
                dying.set()
                living.kill()

        together([kill, *(partial(until_the_end, job, dying) for job in (directory.rename, *(owner.step for owner in owners)))])
        directory.close()
        proxy.intercept = None
        living.start()
        at = [name for name in (directory.name, directory.heading) if name and any((living.path / name).rglob("t*"))]
        assert len(at) <= 1, "a renamed directory is at both places"
        directory.name = at[0] if at else directory.name
        if not at and not directory.path.exists():
            directory.name = directory.heading
        directory.heading = ""
        found = directory.files()
        for owner in owners:
            owner.after_crash(found)
        for below in owners[0].below:
            (directory.path / below).mkdir(exist_ok=True)
        descriptor = directory.open()
        for owner in owners:
            owner.directory = descriptor
    directory.close()
    check_all(living, directory, owners, s3, bucket)


class Mortal:
    """Appends whole lines to *log* through a mount whose daemon may die, and knows which were acknowledged."""

    def __init__(self, name: str, seed: str, log: Path) -> None:
        self.name, self.log, self.said = name, log, 0
        self.chance = random.Random(f"{seed} {name}")
        self.sure: list[bytes] = []
        self.doubted: set[bytes] = set()
        """What was under way when the daemon died: these lines may be there."""
        self._unkept: list[bytes] = []

    def write(self) -> None:
        """One open(2), a few lines, and close(2)."""
        fd = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            for _ in range(self.chance.randrange(1, 5)):
                line = f"{self.name} {self.said} {'x' * (self.said % 50)}\n".encode()
                self.said += 1
                self._unkept.append(line)
                if os.write(fd, line) != len(line):
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                if self.chance.random() < 0.1:
                    os.fsync(fd)
                    self._kept()
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(fd)
            raise
        os.close(fd)
        self._kept()

    def _kept(self) -> None:
        self.sure += self._unkept
        self._unkept = []

    def after_crash(self) -> None:
        """The daemon died."""
        self.doubted.update(self._unkept)
        self._unkept = []

    def check(self, found: bytes) -> None:
        """In the log *found* is what was acknowledged, once and in order, and of what was under way each line at most once."""
        theirs = [line for line in found.splitlines(keepends=True) if line.startswith(f"{self.name} ".encode())]
        odd = [line for line, times in (Counter(theirs) - Counter({*self.sure, *self.doubted})).items() if times]
        assert not odd, f"lines of {self.name} that are there more than once, or torn: {odd}"
        sure = set(self.sure)
        assert [line for line in theirs if line in sure] == self.sure, f"lines of {self.name} are missing, or not in order"


@pytest.mark.parametrize("options", [{}, {"writeback": "1s"}, {"writeback": "0s"}], ids=["default", "writeback", "at-once"])
@pytest.mark.parametrize("bad", [False, True], ids=["", "bad-way"])
@pytest.mark.parametrize("deaths", [pytest.param(3, marks=LONG), pytest.param(40, marks=[LONG, pytest.mark.timeout(3000)])])
def test_logs_of_two_mounts_over_deaths(
    proxy: Proxy, mount: Mounting, bucket: str, s3: Any, server: Any, options: dict[str, str], bad: bool, deaths: int
) -> None:  # fmt: skip
    if server.kind != "rgw":
        pytest.skip("no append uploads, no conditions: writers on two hosts cannot exclude each other")
    seed = seed_of(deaths < 10)
    chance, mischief = random.Random(seed), Mischief(seed)
    mounts = [mount(url=proxy.url, metadata_ttl=0, negative_ttl=0, **PATIENT, **options) for _ in range(2)]
    writers = {living: [Mortal(f"w{n}{at}", seed, living.path / f"log{n % 2}") for n in range(4)] for at, living in enumerate(mounts)}
    every = [writer for those in writers.values() for writer in those]
    for living in mounts:
        living.forgive("fuse: device not found|cut short")
    for _ in range(deaths):
        proxy.intercept = mischief if bad else None
        mortal, dying = chance.choice(mounts), threading.Event()
        more = sum(len(writer.sure) for writer in every) + chance.randrange(4, 120)

        def kill(mortal: Mount = mortal, more: int = more, dying: threading.Event = dying) -> None:
            try:
                wait_for(lambda: sum(len(writer.sure) for writer in every) >= more, 300, "so many lines")
                time.sleep(chance.uniform(0, 0.1))
            finally:
                dying.set()
                mortal.kill()

        together([
            kill,
            *(partial(until_the_end, writer.write, dying, mortal=living is mortal) for living in mounts for writer in writers[living]),
        ])  # fmt: skip
        proxy.intercept = None
        mortal.start()
        for writer in writers[mortal]:
            writer.after_crash()
            writer.check(writer.log.read_bytes())
    for living in mounts:
        assert living.counters().get("conflicts", 0) == 0
        living.stop()
    there = objects(s3, bucket)
    for writer in every:
        writer.check(there[writer.log.name])
    assert sum(data.count(b"\n") for data in there.values()) <= sum(len(writer.sure) + len(writer.doubted) for writer in every)
