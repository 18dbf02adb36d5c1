"""Questions to a living mount through its own files: the attributes user.zos.stats and user.zos.status.

Owns: finding the mount's root for a path, and the limit on how long an answer may take. Raises LookupError with the line
to print.
"""

from __future__ import annotations

import json
import os
import threading
from typing import Any

from zosfs.mount.mountpoint import mounts

PATIENCE = 5.0


def root_of(path: str) -> str:
    """The mount point of the zosfs mount that *path* lies in."""
    return whereabouts(path)[0]


def whereabouts(path: str) -> tuple[str, str]:
    """The mount point of the zosfs mount that *path* lies in, and *path* below it: links that lead into the mount are followed, what
    *path* itself is there is not."""
    path = os.path.abspath(path)
    in_its_directory = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
    ours = {mount.mountpoint for mount in mounts() if mount.type == "fuse.zosfs"}
    for found in (path, in_its_directory):
        if root := _above(found, ours):
            return root, found
    found = os.path.realpath(path)  # not before: it may lead into a mount that does not answer
    if root := _above(found, ours):
        return root, found
    raise LookupError(f"{path} does not lie in a mount of zosfs")


def _above(path: str, roots: set[str]) -> str:
    """The nearest of *roots* at or above *path*, "" where there is none (pure)."""
    while path not in roots:
        if path == "/":
            return ""
        path = os.path.dirname(path)
    return path


def ask(root: str, name: str) -> dict[str, Any]:
    """The JSON object in attribute user.zos.*name* of the mount's *root*."""
    answer: list[bytes | OSError] = []

    def read() -> None:
        try:
            answer.append(os.getxattr(root, f"user.zos.{name}"))
        except OSError as error:
            answer.append(error)

    thread = threading.Thread(target=read, daemon=True)  # a mount that hangs must not hang us
    thread.start()
    thread.join(PATIENCE)
    if not answer:
        raise LookupError(f"{root} does not answer within {PATIENCE:.0f} s")
    if isinstance(answer[0], OSError):
        raise LookupError(f"{root}: {answer[0].strerror}")
    found = json.loads(answer[0])
    if not isinstance(found, dict):
        raise LookupError(f"{root}: user.zos.{name} is no JSON object")
    return found
