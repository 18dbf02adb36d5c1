r"""Names of files and components of keys: the reversible escape for keys that are no POSIX names (pure).

A *part* is what stands between two slashes of a key. Nearly every part is its own name, byte for byte in UTF-8. The others are
shown under a name that begins with ``.zos~``:

======================================  =====================================================
part of the key                          name
======================================  =====================================================
empty (``a//b``, a leading ``/``)        ``.zos~empty``
``.``                                    ``.zos~dot``
``..``                                   ``.zos~dotdot``
is not UTF-8                             ``.zos~byte~`` and the part percent-encoded
has a NUL                                ``.zos~nul~`` and the part percent-encoded
over 255 bytes                           ``.zos~long~``, 16 hex digits of its SHA-256, ``~``, and how it begins
a file ``foo`` beside a directory        ``.zos~file~foo`` (the directory keeps the plain name)
would read as one of these names         ``.zos~raw~`` and the part
======================================  =====================================================

Bytes of a key that are no UTF-8 are surrogates here, as ``surrogateescape`` has them. The other way round a name that is not UTF-8, which
few servers take as a key, is stored as ``.zos~bytes~`` and the name percent-encoded.
A long part is found again by listing its directory; everything else is computed.
"""

from __future__ import annotations

import hashlib
from urllib.parse import quote, unquote_to_bytes

NAME_MAX = 255
KEY_MAX = 1024

ESCAPE = ".zos~"
ESCAPED = ESCAPE.encode()
"""How every name begins that `part_to_name` does not give to its part (`file_beside_directory`)."""
FILE = ESCAPE + "file~"
LONG = ESCAPE + "long~"
_RAW = ESCAPE + "raw~"
_NUL = ESCAPE + "nul~"
_BYTE = ESCAPE + "byte~"
_BYTES = ESCAPE + "bytes~"
_WORDS = {"": ESCAPE + "empty", ".": ESCAPE + "dot", "..": ESCAPE + "dotdot"}
_PARTS = {name: part for part, name in _WORDS.items()}
_SAFE = "!#$&'()*+,;=@[]{}^ ~-_."


def plain_name(part: str) -> bytes | None:
    """The name of a *part* that is its own name without a look at its escapes; None where `part_to_name` has to say."""
    if not part or (part[0] == "." and (part in _WORDS or part.startswith(ESCAPE))):
        return None
    try:
        name = part.encode()
    except UnicodeEncodeError:
        return None
    return name if len(name) <= NAME_MAX and b"\0" not in name else None


def part_to_name(part: str) -> bytes:
    """The name under which *part* is shown; at most 255 bytes, never empty, without slash and NUL."""
    plain = plain_name(part)
    if plain is not None:
        return plain
    if part in _WORDS:
        return _WORDS[part].encode()
    if part.startswith(_BYTES):
        name = unquote_to_bytes(part[len(_BYTES) :])
        if not _is_text(name) and b"\0" not in name and b"/" not in name and _stored_as_bytes(name) == part:
            return name
    if _has_odd_bytes(part):
        name = (_BYTE + quote(part.encode("utf-8", "surrogateescape"), safe=_SAFE)).encode()
    elif "\0" in part:
        name = (_NUL + quote(part, safe=_SAFE)).encode()
    elif part.startswith(ESCAPE) and _unescape(part) is not None:
        name = (_RAW + part).encode()
    else:
        name = part.encode()
    if len(name) <= NAME_MAX:
        return name
    digest = hashlib.sha256(part.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    head = f"{LONG}{digest}~".encode()
    begin = part.encode("utf-8", "ignore").replace(b"\0", b"")[: NAME_MAX - len(head)]
    return head + begin.decode("utf-8", "ignore").encode()


def name_to_part(name: bytes) -> str:
    """The part that *name* stands for. A ``.zos~long~`` name cannot be computed back: it is returned as it is."""
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        return _stored_as_bytes(name)
    if text.startswith(ESCAPE):
        part = _unescape(text)
        if part is not None:
            return part
    return text


def file_beside_directory(part: str) -> bytes:
    """The name of a file whose plain name a directory has."""
    name = FILE.encode() + part_to_name(part) if _has_odd_bytes(part) else (FILE + part).encode()
    return name if len(name) <= NAME_MAX else part_to_name("\0" + part)[:NAME_MAX]


def _stored_as_bytes(name: bytes) -> str:
    return _BYTES + quote(name, safe=_SAFE)


def _unescape(text: str) -> str | None:
    """The part behind an escaped name, None where the name is no escape and means itself."""
    if text in _PARTS:
        return _PARTS[text]
    if text.startswith(FILE):
        inner = text[len(FILE) :]
        return (_unescape(inner) if inner.startswith(_BYTE) else None) or inner or None
    if text.startswith(LONG):
        return text if len(text) > len(LONG) + 16 and text[len(LONG) + 16] == "~" else None
    if text.startswith(_RAW):
        inner = text[len(_RAW) :]
        return inner if inner.startswith(ESCAPE) and _unescape(inner) is not None else None
    if text.startswith(_NUL):
        part = unquote_to_bytes(text[len(_NUL) :]).decode("utf-8", "replace")
        return part if "\0" in part and _NUL + quote(part, safe=_SAFE) == text else None
    if text.startswith(_BYTE):
        raw = unquote_to_bytes(text[len(_BYTE) :])
        return raw.decode("utf-8", "surrogateescape") if not _is_text(raw) and _BYTE + quote(raw, safe=_SAFE) == text else None
    return None


def _has_odd_bytes(part: str) -> bool:
    try:
        part.encode()
    except UnicodeEncodeError:
        return True
    return False


def _is_text(name: bytes) -> bool:
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
