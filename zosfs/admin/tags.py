"""Tags: their limits, and their forms as text (pure)."""

from __future__ import annotations

import errno
from collections.abc import Mapping

from zosfs.admin.refusal import Refusal
from zosfs.admin.shape import parse

MOST, KEY, VALUE = 10, 128, 256


def check_tags(tags: Mapping[str, str], most: int = MOST) -> None:
    """Raise Refusal: E2BIG over the limits (10 tags; key 128, value 256 bytes of UTF-8, as Ceph counts), EINVAL for what no tag may be."""
    if len(tags) > most:
        raise Refusal(f"{len(tags)} tags; {most} are allowed", errno.E2BIG)
    for key, value in tags.items():
        if not key:
            raise Refusal("a tag needs a key")
        for text, what, limit in ((key, f"the tag's key {key[:20]}…", KEY), (value, f"the value of tag {key[:20]}", VALUE)):
            size = len(text.encode("utf-8", "surrogatepass"))
            if size > limit:
                raise Refusal(f"{what} has {size} bytes; {limit} are allowed", errno.E2BIG)
        for text in (key, value):
            if any(ord(letter) < 32 or 0xD800 <= ord(letter) < 0xE000 or ord(letter) in (0x7F, 0xFFFE, 0xFFFF) for letter in text):
                raise Refusal(f"tag {key!r}: control characters are not allowed")


def parse_tags(text: str) -> dict[str, str]:
    """Tags from a JSON object, boto3's ``[{"Key":…,"Value":…}]`` or ``{"TagSet":[…]}``; checked. Raises Refusal."""
    value = parse(text, "tags")
    if isinstance(value, dict) and isinstance(value.get("TagSet"), list):
        value = value["TagSet"]
    if isinstance(value, list):
        if not all(isinstance(tag, dict) and set(tag) == {"Key", "Value"} for tag in value):
            raise Refusal('tags: a list must be of {"Key": …, "Value": …}')
        keys = [tag["Key"] for tag in value]
        if len({str(key) for key in keys}) != len(keys):
            raise Refusal("tags: a key is there twice")
        value = {tag["Key"]: tag["Value"] for tag in value}
    if not isinstance(value, dict) or not all(isinstance(one, str) for pair in value.items() for one in pair):
        raise Refusal("tags: must be a JSON object of texts")
    check_tags(value)
    return value
