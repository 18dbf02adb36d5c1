"""Attribute changes, writes, renames and removals of the same names in any order: as on a local disk, also for the next mount."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fs.mounting import Mount

Mounting = Callable[..., Mount]
NAMES = ("a", "b", "d/a", "d/b")
DIRECTORIES = ("d", "e")
KINDS = (
    "write", "write", "append", "chmod", "utime", "xattr", "truncate", "rename", "unlink", "swap", "hold", "drop", "mkdir",
)  # fmt: skip


def step(dice: random.Random, here: Path, held: dict[str, int]) -> str:
    """One change below *here*, decided by *dice* alone; what came of it. *held* are descriptors that stay open for a while."""
    kind = dice.choice(KINDS)
    name, other, number = dice.choice(NAMES), dice.choice(NAMES), dice.randrange(1000)
    path = here / name
    try:
        if kind == "write":
            path.write_bytes(b"%d" % number)
        elif kind == "append":
            with path.open("ab") as file:
                file.write(b"+%d" % number)
        elif kind == "chmod":
            os.chmod(path, 0o400 | dice.randrange(0o400))
        elif kind == "utime":
            os.utime(path, ns=(number, number * 10**6))
        elif kind == "xattr":
            os.setxattr(path, "user.mine", b"%d" % number)
        elif kind == "truncate":
            os.truncate(path, number % 5)
        elif kind == "rename":
            os.rename(path, here / other)
        elif kind == "unlink":
            path.unlink()
        elif kind == "swap":
            os.rename(here / DIRECTORIES[number % 2], here / DIRECTORIES[1 - number % 2])
        elif kind == "mkdir":
            (here / "d").mkdir()
        elif kind == "hold" and len(held) < 3:
            held[f"{number}"] = fd = os.open(path, os.O_RDWR)
            os.pwrite(fd, b"h%d" % number, 1)
        elif kind == "drop" and held:
            fd = held.pop(sorted(held)[0])
            os.fchmod(fd, 0o600 | number % 8)
            os.pwrite(fd, b"last", 3)
            os.close(fd)
    except OSError as exc:
        return f"{kind} {name} {other}: {exc.errno}"
    return f"{kind} {name} {other}"


def seen(here: Path) -> dict[str, Any]:
    """Everything below *here*: kinds, modes, bytes, extended attributes."""
    found: dict[str, Any] = {}
    for path in sorted(here.rglob("*")):
        mode = os.stat(path).st_mode
        if path.is_dir():
            found[str(path.relative_to(here))] = "directory"
        else:
            own = {name: os.getxattr(path, name) for name in os.listxattr(path) if name == "user.mine"}
            found[str(path.relative_to(here))] = (oct(mode), path.read_bytes(), own)
    return found


@pytest.mark.parametrize("seed", [1, *(pytest.param(n, marks=pytest.mark.long) for n in range(2, 24))])
def test_any_order(mount: Mounting, tmp_path: Path, seed: int) -> None:
    living = mount()
    local = tmp_path / "local"
    local.mkdir()
    dice, again = random.Random(seed), random.Random(seed)
    ours: dict[str, int] = {}
    theirs: dict[str, int] = {}
    done: list[str] = []
    for n in range(120):
        done.append(step(again, local, theirs))
        assert step(dice, living.path, ours) == done[-1], done
        if n % 20 == 0:
            assert seen(living.path) == seen(local), done
    for fd in (*ours.values(), *theirs.values()):
        os.close(fd)
    assert seen(living.path) == seen(local), done
    living.again()
    assert seen(living.path) == seen(local), done


def test_each_attribute_has_its_last_value_whoever_else_changes_the_file(mount: Mounting) -> None:
    living = mount()
    path = living.path / "f"
    path.write_bytes(b"at first")
    failures: list[BaseException] = []

    def forever(*changes: Callable[[int], object]) -> threading.Thread:
        def run() -> None:
            try:
                for n in range(12):
                    for change in changes:
                        change(n)
            except BaseException as exc:
                failures.append(exc)

        return threading.Thread(target=run)

    threads = [
        forever(lambda n: os.chmod(path, 0o600 + n)),
        forever(lambda n: os.setxattr(path, "user.mine", b"%d" % n)),
        forever(lambda n: path.write_bytes(b"written %d" % n)),
        forever(lambda n: os.setxattr(path, "user.other", b"%d" % n)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    for _ in range(2):
        assert os.stat(path).st_mode & 0o777 == 0o613
        assert os.getxattr(path, "user.mine") == b"11"
        assert os.getxattr(path, "user.other") == b"11"
        assert path.read_bytes() == b"written 11"
        living.again()
