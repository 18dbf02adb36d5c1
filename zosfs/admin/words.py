"""Values that people type as words: `a=1,b=2`, and whole numbers within limits (pure)."""

from __future__ import annotations

import re

from zosfs.admin.refusal import Refusal


def parse_words(text: str, what: str, known: tuple[str, ...]) -> dict[str, str]:
    """``a=1,b=2`` as a mapping; Refusal for names that are not *known*."""
    found = {}
    for pair in filter(None, (word.strip() for word in text.split(","))):
        name, equals, value = pair.partition("=")
        if name not in known or not equals:
            raise Refusal(f"{what}: {pair[:40]!r}: write {', '.join(f'{one}=…' for one in known)}")
        found[name] = value.strip()
    return found


def number(text: str, what: str, least: int, most: int) -> int:
    """A whole number in ``[least, most]``; Refusal otherwise."""
    if not re.fullmatch(r"\d{1,9}", text) or not least <= int(text) <= most:
        raise Refusal(f"{what}: {text[:20]!r} is not between {least} and {most}")
    return int(text)
