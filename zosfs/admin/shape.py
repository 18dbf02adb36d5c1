"""A small schema for JSON documents, whose errors name the place: `$.Rules[2].Status: one of Enabled, Disabled` (pure).

Owns: the kinds of a schema. Unknown members are errors (with the nearest known name), because boto3 refuses them too.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zosfs.admin.refusal import Refusal


@dataclass(frozen=True, slots=True)
class Text:
    """A string: one of *among* (if any), matching *pattern* (if any), at most *longest* characters."""

    among: tuple[str, ...] = ()
    pattern: str = ""
    longest: int = 0


@dataclass(frozen=True, slots=True)
class Number:
    """A whole number in ``[least, most]``."""

    least: int = 0
    most: int = 2**53


@dataclass(frozen=True, slots=True)
class Flag:
    """true or false."""


@dataclass(frozen=True, slots=True)
class Anything:
    """Any JSON value: left to the server."""


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of *least* to *most* members of one shape."""

    of: Shape
    least: int = 0
    most: int = 10**9


@dataclass(frozen=True, slots=True)
class Record:
    """An object with *members*; those of *needed* must be there, of *one_of* at least one; *open* allows others."""

    members: Mapping[str, Shape]
    needed: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()
    open: bool = False


Shape = Text | Number | Flag | Anything | ListOf | Record


@dataclass(slots=True)
class Fault:
    """One place of a document that is wrong: a JSON path, and what is wrong there."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


def faults(value: Any, shape: Shape, path: str = "$") -> list[Fault]:
    """Everything that is wrong with *value*, in document order; empty when it fits *shape*."""
    match shape:
        case Text():
            if not isinstance(value, str):
                return [Fault(path, f"must be text, not {_kind(value)}")]
            if shape.among and value not in shape.among:
                near = difflib.get_close_matches(value, shape.among, 1, 0.5)
                return [Fault(path, f"{value!r} is not one of {', '.join(shape.among)}" + (f"; did you mean {near[0]}?" if near else ""))]
            if shape.pattern and not re.fullmatch(shape.pattern, value):
                return [Fault(path, f"{value!r} is not of the form {shape.pattern}")]
            if shape.longest and len(value) > shape.longest:
                return [Fault(path, f"longer than {shape.longest} characters")]
        case Number():
            if not isinstance(value, int) or isinstance(value, bool):
                return [Fault(path, f"must be a whole number, not {_kind(value)}")]
            if not shape.least <= value <= shape.most:
                return [Fault(path, f"{value} is not between {shape.least} and {shape.most}")]
        case Flag():
            if not isinstance(value, bool):
                return [Fault(path, f"must be true or false, not {_kind(value)}")]
        case ListOf():
            if not isinstance(value, list):
                return [Fault(path, f"must be a list, not {_kind(value)}")]
            if not shape.least <= len(value) <= shape.most:
                return [Fault(path, f"has {len(value)} members; {shape.least} to {shape.most} are allowed")]
            return [fault for at, member in enumerate(value) for fault in faults(member, shape.of, f"{path}[{at}]")]
        case Record():
            return _record(value, shape, path)
        case Anything():
            pass
    return []


def _record(value: Any, shape: Record, path: str) -> list[Fault]:
    if not isinstance(value, dict):
        return [Fault(path, f"must be an object, not {_kind(value)}")]
    found = [Fault(path, f"lacks {name}") for name in shape.needed if name not in value]
    if shape.one_of and not any(name in value for name in shape.one_of):
        found.append(Fault(path, f"needs one of {', '.join(shape.one_of)}"))
    for name, member in value.items():
        if name in shape.members:
            found += faults(member, shape.members[name], f"{path}.{name}")
        elif not shape.open:
            near = difflib.get_close_matches(name, shape.members, 1, 0.6)
            found.append(Fault(f"{path}.{name}", "is no member here" + (f"; did you mean {near[0]}?" if near else "")))
    return found


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return kinds.get(type(value), "null")


def parse(text: str, what: str) -> Any:
    """The JSON value of *text*. Refusal (EINVAL) with line and column otherwise."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise Refusal(f"{what}: not JSON: {error}") from None


def check(value: Any, shape: Shape, what: str) -> None:
    """Raise Refusal (EINVAL) naming the first faults of *value*."""
    found = faults(value, shape)
    if found:
        raise Refusal(f"{what}: " + "; ".join(map(str, found[:3])))
