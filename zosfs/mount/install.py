"""What lies outside of the package: mount(8)'s helpers, the systemd unit and the man page.

Owns: those files, and their removal. One small wrapper names the interpreter absolutely, because mount(8) calls helpers
without PATH; everything else is a link to it, told apart by its name.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

WRAPPER = "usr/lib/zosfs/zosfs"
HELPERS = ("mount.fuse.zosfs", "mount.zosfs", "umount.fuse.zosfs", "umount.zosfs")
UNIT = "etc/systemd/system/zosfs@.service"
MAN_PAGE = "usr/local/share/man/man8/zosfs.8"
MAN_PAGE_OF_TYPE = "usr/local/share/man/man8/mount.fuse.zosfs.8"
"""Where readers of mount(8) and fstab(5) look for a type of filesystem."""
_MARK = "written by `zosfs install`"


def wrapper_text(interpreter: str, package_parent: str = "") -> str:
    """The wrapper: runs zosfs, or a helper when called by a helper's name. *package_parent* is put on the module path where the
    interpreter would not find the package by itself."""
    path = f"PYTHONPATH={shlex.quote(package_parent)} " if package_parent else ""
    python = shlex.quote(interpreter)
    return (
        f"#!/bin/sh\n# {_MARK}\n"
        'case "${0##*/}" in\n'
        f'mount.*|umount.*) {path}exec {python} -P -m zosfs.mount.mount8 "$0" "$@" ;;\n'
        f'*) {path}exec {python} -P -m zosfs "$@" ;;\n'
        "esac\n"
    )


def unit_text() -> str:
    """The template unit zosfs@.service."""
    return (resources.files("zosfs") / "data" / "systemd" / "zosfs@.service").read_text("utf-8")


def _package_parent() -> str:
    """The directory that holds the package, "" when the interpreter looks there anyway."""
    parent = str(Path(__file__).resolve().parents[2])
    usual = {os.path.realpath(path) for path in sys.path if path.endswith(("site-packages", "dist-packages"))}
    return "" if os.path.realpath(parent) in usual else parent


def _sbin(root: Path) -> Path:
    return root / "sbin" if (root / "sbin").exists() else root / "usr/sbin"


def install(root: Path = Path("/"), *, interpreter: str = "", service: bool = True, man_page: str = "") -> Iterator[str]:
    """Write wrapper, links, unit and *man_page* (roff; "": none) below *root*; yields each path as it is done. Raises OSError.

    A file of someone else in the way is refused with FileExistsError, ours are replaced.
    """
    wrapper = root / WRAPPER
    _place(wrapper, wrapper_text(interpreter or sys.executable, _package_parent()), 0o755)
    yield str(wrapper)
    sbin = _sbin(root)
    sbin.mkdir(parents=True, exist_ok=True)
    for name in HELPERS:
        link = sbin / name
        if link.is_symlink() and os.readlink(link) == f"/{WRAPPER}":
            link.unlink()
        elif link.is_symlink() or link.exists():
            raise FileExistsError(17, "is there already and not of zosfs", str(link))
        link.symlink_to(f"/{WRAPPER}")
        yield f"{link} -> /{WRAPPER}"
    if service:
        unit = root / UNIT
        _place(unit, unit_text(), 0o644)
        yield str(unit)
    if man_page:
        for name, text in ((MAN_PAGE, man_page), (MAN_PAGE_OF_TYPE, ".so man8/zosfs.8\n")):
            _place(root / name, f'.\\" {_MARK}\n{text}', 0o644)
            yield str(root / name)


def _place(path: Path, text: str, mode: int) -> None:
    if path.exists() and _MARK not in path.read_text("utf-8", "replace"):
        raise FileExistsError(17, "is there already and not of zosfs", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, "utf-8")
    new.chmod(mode)
    new.replace(path)


def uninstall(root: Path = Path("/")) -> Iterator[str]:
    """Take away what `install` wrote, and only that; yields each path."""
    for name in HELPERS:
        link = _sbin(root) / name
        if link.is_symlink() and os.readlink(link) == f"/{WRAPPER}":
            link.unlink()
            yield str(link)
    for path in (root / name for name in (WRAPPER, UNIT, MAN_PAGE, MAN_PAGE_OF_TYPE)):
        if path.exists() and _MARK in path.read_text("utf-8", "replace"):
            path.unlink()
            yield str(path)
    try:
        (root / WRAPPER).parent.rmdir()
    except OSError:
        pass
