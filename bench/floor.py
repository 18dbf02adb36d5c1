"""What the requests of a workload cost without a filesystem: curl sends them over the same way, with signed URLs.

No program that asks the same server for the same can be faster: where a bar is out of reach, this shows it. Writes are left out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from bench.requests import OWN_AGENT
from bench.results import Result
from bench.tools import Target
from bench.work import MIB, Scale, many_keys, random_places, some_keys, tree_keys

TOOL = "curl"
"""Under which its numbers are kept."""

_RANGE = 8


@dataclass(frozen=True)
class Request:
    """*operation* is boto3's, *more* its parameters, *span* the bytes wanted, half-open."""

    operation: str
    more: Mapping[str, Any]
    span: tuple[int, int] | None = None


@dataclass(frozen=True)
class Floor:
    """*requests*, *at_once* of which are under way together; *what* says so in words."""

    what: str
    requests: Callable[[Scale], Sequence[Request]]
    at_once: int = 1


def _get(key: str, start: int, end: int) -> Request:
    return Request("get_object", {"Key": key}, (start, end))


def _pieces(key: str, mebibytes: int) -> list[Request]:
    return [_get(key, at * MIB, min(at + _RANGE, mebibytes) * MIB) for at in range(0, mebibytes, _RANGE)]


def _quarters(scale: Scale) -> list[Request]:
    by_file = [_pieces(f"quarter{n}.bin", scale.quarter) for n in range(4)]
    return [piece for row in zip(*by_file, strict=True) for piece in row]


def _random(scale: Scale) -> list[Request]:
    return [_get("large.bin", at, at + 4096) for at in random_places(scale)]


def _pages(prefix: str, keys: Sequence[str]) -> list[Request]:
    ordered = sorted(keys)
    return [
        Request("list_objects", {"Prefix": prefix, "MaxKeys": 1000, "Marker": ordered[at - 1] if at else ""})
        for at in range(0, len(ordered), 1000)
    ]


def _some(scale: Scale) -> list[Request]:
    return [_get(key, 0, 4096) for key in some_keys(scale)]


FLOORS: Mapping[str, Sequence[Floor]] = {
    "first-byte": (Floor("1 GET of 4 KiB", lambda scale: [_get("large.bin", 0, 4096)]),),
    "seq-read": (Floor("GETs of 8 MiB, 16 at once", lambda scale: _pieces("large.bin", scale.large), 16),),
    "par-read": (Floor("GETs of 8 MiB, 16 at once", _quarters, 16),),
    "rand-read": (Floor("the same GETs, one after the other", _random),),
    "ls": (
        Floor("a HEAD of each, 64 at once", lambda scale: [Request("head_object", {"Key": key}) for key in many_keys(scale)], 64),
        Floor("its LISTs, 4 at once", lambda scale: _pages("many/", many_keys(scale)), 4),
    ),
    "find": (Floor("LISTs of all names, 4 at once", lambda scale: _pages("tree/", tree_keys(scale)), 4),),
    "read-small": (
        Floor("a GET of each, one after the other", _some),
        Floor("a GET of each, 64 at once", _some, 64),
    ),
}  # fmt: skip
"""By the workload's name."""


def floors(workload: str, target: Target, scale: Scale, where: str, run: str, home: Path) -> list[Result]:
    """The floors of *workload*, each the better of two passes; [] where there is none. RuntimeError when curl fails."""
    found = []
    for floor in FLOORS.get(workload, ()):
        requests = floor.requests(scale)
        config = home / "curl"
        config.touch(mode=0o600)
        config.write_text("\nnext\n".join(_lines(target, requests)) + "\n")
        wall, cpu = min(_timed(config, floor.at_once) for _ in range(2))
        moved = sum(each.span[1] - each.span[0] for each in requests if each.span)
        tool = f"{TOOL}: {floor.what}"
        found.append(Result(workload, tool, where, run, wall=wall, delivered=wall, cpu=cpu, moved=moved, passes=2))
    return found


def _lines(target: Target, requests: Sequence[Request]) -> list[str]:
    s3 = boto3.client(
        "s3", endpoint_url=target.url, aws_access_key_id=target.access_key, aws_secret_access_key=target.secret_key,
        region_name="us-east-1", config=Config(s3={"addressing_style": "path"}, signature_version="s3v4"),
    )  # fmt: skip
    lines = []
    for each in requests:
        url = s3.generate_presigned_url(each.operation, Params={"Bucket": target.bucket, **each.more}, ExpiresIn=3600)
        words = [f'url = "{url}"', 'output = "/dev/null"', "fail", f'user-agent = "{OWN_AGENT}"']
        if each.operation == "head_object":
            words.append("head")
        if each.span:
            words.append(f"range = {each.span[0]}-{each.span[1] - 1}")
        lines.append("\n".join(words))
    return lines


def _timed(config: Path, at_once: int) -> tuple[float, float]:
    """Seconds that curl took, and its CPU seconds."""
    together = ["--parallel", "--parallel-immediate", "--parallel-max", str(at_once)] if at_once > 1 else []
    began = time.monotonic()
    command = ["curl", "--no-progress-meter", *together, "--config", str(config)]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=sys.stderr)
    _, status, used = os.wait4(child.pid, 0)
    took = time.monotonic() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"curl ended with {child.returncode}")
    return took, used.ru_utime + used.ru_stime
