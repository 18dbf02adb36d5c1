"""What is known of an object right after it was written, without asking (pure)."""

from __future__ import annotations

import time

from zosfs.store.api import ObjectHeaders, ObjectInfo, Written


def delivered_info(key: str, size: int, written: Written, headers: ObjectHeaders, object_type: str = "Normal") -> ObjectInfo:
    """What a HEAD would say after a write that left *written*, so that none is needed.

    *modified_ns* is the answer's Date (whole seconds), else this host's clock: near the server's Last-Modified, not equal to it.
    """
    extra = dict(headers.extra)
    if headers.tags:
        extra["x-amz-tagging-count"] = str(len(headers.tags))
    if written.next_position is not None:
        extra["x-rgw-next-append-position"] = str(written.next_position)
    return ObjectInfo(
        key=key, size=size, etag=written.etag, modified_ns=written.modified_ns or time.time_ns() // 10**9 * 10**9,
        storage_class=headers.storage_class, object_type=object_type, version_id=written.version_id,
        content_type=headers.content_type, metadata=dict(headers.metadata), headers=extra,
    )  # fmt: skip
