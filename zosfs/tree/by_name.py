"""Names of a huge directory that are asked for one by one: every so often one of them is answered by a page that begins with it (pure).

Who goes through a thousand names in their order has them all after the first few then, and who asks for names at random pays hardly
more than without: a page is one request, and the answer alone would be two.

Owns: nothing. Must not know: requests, inodes.
"""

from __future__ import annotations

from dataclasses import dataclass

from zosfs.store.api import ListPage
from zosfs.tree.spread import bytewise

EACH = 16
"""Names that are told for one page more, each by requests of its own or by a page before."""

_LAST = "\U0010ffff"
_BEFORE_SURROGATES, _BEHIND_SURROGATES = "\ud7ff", "\ue000"


def just_before(key: str) -> str:
    """A key before *key* with little in between, behind which a page is asked for that is to begin with *key*; *key* is not empty.

    Only the order of bytes of UTF-8 matters, which is that of code points.
    """
    last = key[-1]
    if last <= "\x01":
        return key[:-1]
    if "\ud800" <= last <= _BEHIND_SURROGATES:
        return key[:-1] + _BEFORE_SURROGATES + _LAST
    return key[:-1] + chr(ord(last) - 1) + _LAST


@dataclass(frozen=True, slots=True)
class Reach:
    """The keys between *begin* and *end* (both left out; None: to the end of the directory): a page has every one that is there."""

    begin: bytes
    end: bytes | None

    def tells(self, key: str) -> bool:
        """Whether the page has *key* and the directory of that name, if they are there. (`a-b` lies between `a` and what is below `a/`.)"""
        name = bytewise(key)
        return self.begin < name and (self.end is None or name + b"/" < self.end)


def reach(page: ListPage, behind: str) -> Reach:
    """How far *page* reaches, which was asked for behind *behind*: nowhere where it is not in the order of bytes."""
    begin = bytewise(behind)
    for keys in ([bytewise(info.key) for info in page.objects], [bytewise(below) for below in page.prefixes]):
        if keys != sorted(keys) or (keys and keys[0] <= begin):
            return Reach(begin, begin)
    return Reach(begin, bytewise(page.next_marker) if page.next_marker else None)
