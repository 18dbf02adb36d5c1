"""Image processing on the server: what may be asked of it, checked before it is sent, and the two ways of asking.

Owns: the table of operations with their parameters and ranges, the URL-safe Base64 of watermarks. May use: store/. Must not know:
FUSE, terminals.

A chain reads ``image/resize,w_300/rotate,90``: operations parted by ``/`` (or by ``|`` with ``image/`` before each), parameters by
``,``, a parameter's name and value by ``_``. Names and ranges are those of ZOS's manual, chapter Image Processing
(https://www.esurfingcloud.com/document/20694676/20703427 and the pages below it: resize …587, watermark …588, crop …589, indexcrop …619,
chains …620). Where a page gives no range (quality, blur, sharpen, bright, contrast, circle, rounded-corners, text watermarks), it is
that of the services whose operations have the same names.
"""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

from zosfs.admin.refusal import Refusal
from zosfs.errors import StoreError
from zosfs.store.api import Store

Check = Callable[[str], str]
"""Says what is wrong with a value, "" when nothing is."""

SOURCE_LIMIT = 20 << 20
"""Bytes of the largest image that is processed."""
TEXT_LIMIT = 64
"""Characters of a text watermark."""
POSITIONS = ("nw", "north", "ne", "west", "center", "east", "sw", "south", "se")
FORMATS = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tiff")


def _number(least: int, most: int) -> Check:
    def check(value: str) -> str:
        if re.fullmatch(r"-?\d{1,9}", value) and least <= int(value) <= most:
            return ""
        return f"{value!r} is not a whole number from {least} to {most}"

    return check


def _word(*words: str) -> Check:
    return lambda value: "" if value in words else f"{value!r} is none of {', '.join(words)}"


def _color(value: str) -> str:
    return "" if re.fullmatch(r"[0-9A-Fa-f]{6}", value) else f"{value!r} is no color such as FF8000"


def _text(value: str) -> str:
    text, wrong = _decoded(value)
    return wrong or ("" if 0 < len(text) <= TEXT_LIMIT else f"the text has {len(text)} characters; 1 to {TEXT_LIMIT} are allowed")


def _font(value: str) -> str:
    return _decoded(value)[1]


def _picture(value: str) -> str:
    text, wrong = _decoded(value)
    if wrong:
        return wrong
    key, mark, chain = text.partition("?x-zos-process=")
    if not key:
        return "the key of the watermark's image is empty"
    if mark and "|" in chain:
        return "a watermark's own processing parts its operations by / only"
    if mark:
        try:
            check_chain(chain)
        except Refusal as refusal:
            return f"the watermark's own processing: {refusal}"
    return ""


@dataclass(frozen=True, slots=True)
class Operation:
    """What may follow an operation's name: named parameters, or one bare *value*. Of *one_of* at least one must be there, of *either*
    exactly one group; *needed* all. *alone*: nothing else may be in the chain, because the answer is no image."""

    named: Mapping[str, Check] = field(default_factory=dict)
    value: Check | None = None
    needed: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()
    either: tuple[tuple[str, ...], ...] = ()
    alone: bool = False
    help: str = ""


_SIDE = _number(1, 4096)
_PLACE = _number(0, 4096)
_EDGE = _number(0, 30_000)
OPERATIONS: Mapping[str, Operation] = {
    "resize": Operation(
        {"w": _SIDE, "h": _SIDE, "m": _word("lfit", "mfit", "fill", "pad", "fixed"), "color": _color, "limit": _word("0", "1"),
         "p": _number(1, 1000)}, one_of=("w", "h", "p"), either=(("w", "h", "m", "color", "limit"), ("p",)),
        help="to a width and height (w, h: 1–4096; m: lfit mfit fill pad fixed; color; limit) or by percent (p)",
    ),
    "crop": Operation(
        {"w": _EDGE, "h": _EDGE, "x": _EDGE, "y": _EDGE, "g": _word(*POSITIONS)}, one_of=("w", "h", "x", "y", "g"),
        help="a rectangle (w, h, x, y, g: nw north ne west center east sw south se)",
    ),
    "rotate": Operation(value=_number(0, 360), help="clockwise, 0–360 degrees"),
    "watermark": Operation(
        {"t": _number(0, 100), "x": _PLACE, "y": _PLACE, "voffset": _number(-1000, 1000), "g": _word(*POSITIONS), "image": _picture,
         "text": _text, "type": _font, "color": _color, "size": _number(1, 1000), "shadow": _number(0, 100),
         "rotate": _number(0, 360), "fill": _word("0", "1")}, one_of=("image", "text"),
        help="a picture of the bucket (image) or words (text), both in URL-safe Base64; t, x, y, g; of words color, size, rotate, fill",
    ),
    "format": Operation(value=_word(*FORMATS), help=" ".join(FORMATS)),
    "info": Operation(alone=True, help="what the image is, as JSON"),
    "strip": Operation(help="take away EXIF"),
    "quality": Operation(
        {"q": _number(1, 100), "Q": _number(1, 100)}, one_of=("q", "Q"), help="of JPG and WebP: q relative, Q absolute, 1–100",
    ),
    "bright": Operation(value=_number(-100, 100), help="-100–100"),
    "contrast": Operation(value=_number(-100, 100), help="-100–100"),
    "sharpen": Operation(value=_number(50, 399), help="50–399"),
    "blur": Operation({"r": _number(1, 50), "s": _number(1, 50)}, needed=("r", "s"), help="radius r and deviation s, 1–50"),
    "interlace": Operation(value=_word("0", "1"), help="0 or 1: JPG that appears gradually"),
    "auto-orient": Operation(value=_word("0", "1"), help="0 or 1: turn as EXIF says"),
    "circle": Operation({"r": _SIDE}, needed=("r",), help="radius r, 1–4096"),
    "rounded-corners": Operation({"r": _SIDE}, needed=("r",), help="radius r, 1–4096"),
    "indexcrop": Operation(
        {"x": _number(1, 30_000), "y": _number(1, 30_000), "i": _number(0, 30_000)}, needed=("i",), one_of=("x", "y"),
        either=(("x", "i"), ("y", "i")), help="slices of x (or y) pixels, of which number i",
    ),
    "average-hue": Operation(alone=True, help="the average color"),
}  # fmt: skip
"""Operations by name."""


def check_chain(chain: str) -> str:
    """*chain* as it is sent, without blanks around parameters. Refusal (EINVAL) that names the operation and parameter which is wrong."""
    found: list[str] = []
    pieces = []
    for piece in chain.strip().split("|"):
        kind, slash, rest = piece.strip().partition("/")
        if kind != "image" or not slash or not rest:
            raise Refusal(f"process: {piece[:40]!r} does not begin with image/OPERATION")
        operations = []
        for text in rest.split("/"):
            after = found[-1] if found else ""
            operations.append(_check_operation(text, after))
            found.append(text.partition(",")[0].strip())
        pieces.append("image/" + "/".join(operations))
    for name in found:
        if OPERATIONS[name].alone and len(found) > 1:
            raise Refusal(f"process: {name} gives no image, so it stands alone: image/{name}")
    return "|".join(pieces)


def _check_operation(text: str, before: str) -> str:
    name, *words = (word.strip() for word in text.split(","))
    operation = OPERATIONS.get(name)
    if operation is None:
        hint = "; Base64 has _ for / and - for + here" if before == "watermark" else ""
        raise Refusal(f"process: {name[:40]!r} is no operation; there are {', '.join(OPERATIONS)}{hint}")
    if operation.value is not None:
        if len(words) != 1:
            raise Refusal(f"process: write {name},VALUE ({operation.help})")
        _refuse(name, operation.value(words[0]))
    else:
        _check_named(name, operation, words)
    return ",".join((name, *words))


def _check_named(name: str, operation: Operation, words: list[str]) -> None:
    given: dict[str, str] = {}
    for word in words:
        parameter, mark, value = word.partition("_")
        check = operation.named.get(parameter)
        if check is None or not mark:
            known = ", ".join(f"{one}_…" for one in operation.named) or "none"
            raise Refusal(f"process: {name}: {word[:40]!r} is no parameter; there are {known}")
        if parameter in given:
            raise Refusal(f"process: {name}: {parameter} is there twice")
        _refuse(f"{name}: {parameter}", check(value))
        given[parameter] = value
    lacking = [one for one in operation.needed if one not in given]
    if lacking:
        raise Refusal(f"process: {name} lacks {', '.join(lacking)}")
    if operation.one_of and not any(one in given for one in operation.one_of):
        raise Refusal(f"process: {name} needs one of {', '.join(operation.one_of)}")
    if operation.either and not any(given.keys() <= set(group) for group in operation.either):
        raise Refusal(f"process: {name}: {', '.join(given)} do not go together")
    if name == "resize" and "color" in given and given.get("m") != "pad":
        raise Refusal("process: resize: color goes with m_pad only")


def _refuse(where: str, wrong: str) -> None:
    if wrong:
        raise Refusal(f"process: {where}: {wrong}")


def encoded(text: str) -> str:
    """*text* in the Base64 of watermarks: URL-safe, ``-`` for ``+`` and ``_`` for ``/`` (pure)."""
    return base64.urlsafe_b64encode(text.encode()).decode()


def _decoded(value: str) -> tuple[str, str]:
    """The text of a watermark's Base64, and what is wrong with it."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+={0,2}", value):
        return "", f"{value[:40]!r} is not URL-safe Base64 (with - for + and _ for /)"
    try:
        raw = base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True)
        return raw.decode(), ""
    except (binascii.Error, ValueError):
        return "", f"{value[:40]!r} is not Base64 of a text"


async def processed(store: Store, key: str, chain: str) -> bytes:
    """What the server makes of the image *key* by *chain*. Refusal for a chain that is wrong, for an image that is too large (EFBIG), and
    where the server gives the object back as it is (ENOTSUP)."""
    chain = check_chain(chain)
    info = await store.head(key)
    _small_enough(info.size, key)
    body: bytes = (await store.call("get_object", Key=key, ZosProcess=chain))["Body"]
    if len(body) == info.size and ("-" in info.etag or hashlib.md5(body, usedforsecurity=False).hexdigest() == info.etag):
        raise _lacking(store, "it gave the image as it is")
    return body


async def process_into(store: Store, key: str, source_bucket: str, source_key: str, chain: str, size: int) -> int:
    """Let the server write what it makes of *source_key* (of *size* bytes) by *chain* to *key* of *store*. Returns the new object's size.

    Refusal as `processed`.
    """
    chain = check_chain(chain)
    _small_enough(size, source_key)
    form = urlencode({"x-zos-process": chain, "x-zos-copy-source": f"{source_bucket}/{source_key}"})
    try:
        await store.call("process_object", Key=key, Form=form.encode(), ContentType="application/x-www-form-urlencoded")
    except StoreError as exc:
        if exc.status in (405, 411, 412, 501) or exc.code in ("MalformedPOSTRequest", "MethodNotAllowed", "NotImplemented"):
            raise _lacking(store, str(exc)) from None
        raise
    try:
        return (await store.head(key)).size
    except StoreError as exc:
        if exc.status == 404:
            raise _lacking(store, "it made no object") from None
        raise


def _small_enough(size: int, key: str) -> None:
    if size > SOURCE_LIMIT:
        raise Refusal(f"{key} has {size} bytes; images of up to 20 MB are processed", errno.EFBIG)


def _lacking(store: Store, why: str) -> Refusal:
    return Refusal(f"the server of {store.bucket} does not process images: {why}", errno.ENOTSUP)
