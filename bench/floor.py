"""What the requests of a workload cost without a filesystem: curl sends them over the same way, with signed URLs.

No program that asks the same server for the same can be faster: where a bar is out of reach, this shows it. Writes of content are left out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import md5
from pathlib import Path
from urllib.parse import quote, urlencode

from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from bench.requests import OWN_AGENT
from bench.results import Result
from bench.tools import Target
from bench.work import MIB, Scale, many_keys, random_places, scratch_keys, some_keys, tree_keys
from zosfs.store.answers import delete_document

TOOL = "curl"
"""Under which its numbers are kept."""

_RANGE = 8
_TOGETHER = 1000
_VALID = 3600


@dataclass(frozen=True)
class Request:
    """*key* is "" for one on the bucket, *span* the bytes wanted, half-open; a PUT copies *copied*, a POST sends *body*."""

    method: str
    key: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    span: tuple[int, int] | None = None
    copied: str = ""
    body: bytes = b""


@dataclass(frozen=True)
class Floor:
    """*requests*, *at_once* of which are under way together; *what* says so in words."""

    what: str
    requests: Callable[[Scale], Sequence[Request]]
    at_once: int = 1


def _get(key: str, start: int, end: int) -> Request:
    return Request("GET", key, span=(start, end))


def _pieces(key: str, mebibytes: int) -> list[Request]:
    return [_get(key, at * MIB, min(at + _RANGE, mebibytes) * MIB) for at in range(0, mebibytes, _RANGE)]


def _quarters(scale: Scale) -> list[Request]:
    by_file = [_pieces(f"quarter{n}.bin", scale.quarter) for n in range(4)]
    return [piece for row in zip(*by_file, strict=True) for piece in row]


def _random(scale: Scale) -> list[Request]:
    return [_get("large.bin", at, at + 4096) for at in random_places(scale)]


def _heads(keys: Sequence[str]) -> list[Request]:
    return [Request("HEAD", key) for key in keys]


def _pages(prefix: str, keys: Sequence[str]) -> list[Request]:
    ordered = sorted(keys)
    query = {"prefix": prefix, "max-keys": str(_TOGETHER), "encoding-type": "url"}
    markers = ["", *ordered[_TOGETHER - 1 : -1 : _TOGETHER]]
    return [Request("GET", query={**query, "marker": marker}) for marker in markers]


def _some(scale: Scale) -> list[Request]:
    return [_get(key, 0, 4096) for key in some_keys(scale)]


def _copies(scale: Scale) -> list[Request]:
    return [Request("PUT", key.replace("tree", "renamed", 1), copied=key) for key in scratch_keys(scale)]


def _removals(scale: Scale) -> list[Request]:
    keys = scratch_keys(scale)
    bodies = [delete_document(keys[at : at + _TOGETHER]) for at in range(0, len(keys), _TOGETHER)]
    return [Request("POST", query={"delete": ""}, body=body) for body in bodies]


FLOORS: Mapping[str, Sequence[Floor]] = {
    "first-byte": (Floor("1 GET of 4 KiB", lambda scale: [_get("large.bin", 0, 4096)]),),
    "seq-read": (Floor("GETs of 8 MiB, 16 at once", lambda scale: _pieces("large.bin", scale.large), 16),),
    "par-read": (Floor("GETs of 8 MiB, 16 at once", _quarters, 16),),
    "rand-read": (Floor("the same GETs, one after the other", _random),),
    "ls": (
        Floor("a HEAD of each, 64 at once", lambda scale: _heads(many_keys(scale)), 64),
        Floor("its LISTs, 4 at once", lambda scale: _pages("many/", many_keys(scale)), 4),
    ),
    "find": (Floor("LISTs of all names, 4 at once", lambda scale: _pages("tree/", tree_keys(scale)), 4),),
    "read-small": (
        Floor("a GET of each, one after the other", _some),
        Floor("a GET of each, 64 at once", _some, 64),
    ),
    "rm": (
        Floor("a HEAD of each, 64 at once", lambda scale: _heads(scratch_keys(scale)), 64),
        Floor("one DELETE of all", _removals),
    ),
    "rename": (Floor("a copy of each, 32 at once", _copies, 32),),
}  # fmt: skip
"""By the workload's name."""


def floors(workload: str, target: Target, scale: Scale, where: str, run: str, home: Path, make_ready: Callable[[], None]) -> list[Result]:
    """The floors of *workload*, each the better of two passes, before which *make_ready* makes what is there; [] where there is none.

    RuntimeError when curl fails.
    """
    found = []
    for floor in FLOORS.get(workload, ()):
        requests = floor.requests(scale)
        config = home / "curl"
        config.touch(mode=0o600)
        config.write_text("\nnext\n".join(_lines(target, requests)) + "\n")
        passes = []
        for _ in range(2):
            make_ready()
            passes.append(_timed(config, floor.at_once))
        wall, cpu = min(passes)
        moved = sum(each.span[1] - each.span[0] for each in requests if each.span)
        tool = f"{TOOL}: {floor.what}"
        found.append(Result(workload, tool, where, run, wall=wall, delivered=wall, cpu=cpu, moved=moved, passes=2))
    return found


def _lines(target: Target, requests: Sequence[Request]) -> list[str]:
    signer = S3SigV4QueryAuth(Credentials(target.access_key, target.secret_key), "s3", "us-east-1", expires=_VALID)
    lines = []
    for each in requests:
        headers = {}
        if each.copied:
            headers["x-amz-copy-source"] = quote(f"{target.bucket}/{each.copied}")
        if each.body:
            headers["content-md5"] = b64encode(md5(each.body).digest()).decode()
        url = f"{target.url}/{target.bucket}/{quote(each.key)}"
        signed = AWSRequest(each.method, f"{url}?{urlencode(each.query)}" if each.query else url, headers)
        signer.add_auth(signed)
        words = [f'url = "{signed.url}"', 'output = "/dev/null"', "fail", f'user-agent = "{OWN_AGENT}"']
        words += [f'header = "{name}: {value}"' for name, value in headers.items()]
        if each.method == "HEAD":
            words.append("head")
        elif each.method == "PUT":
            words += ['request = "PUT"', 'header = "content-length: 0"']
        elif each.method == "POST":
            words += [f'data-binary = "{each.body.decode()}"', 'header = "content-type: application/xml"']
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
