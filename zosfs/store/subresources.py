"""Whether a server knows a sub-resource, before a request changes something through it.

A server that does not know ``?website`` sees the bare request: ``DELETE /bucket?website`` deletes the bucket (seen on SeaweedFS, which
answers the GET of it properly, and on Ceph with ``?encryption``), ``PUT /key?legal-hold`` replaces the object. So GET is asked
first, and for a DELETE on a bucket a scratch bucket has to survive the same.
"""

from __future__ import annotations

import errno
import uuid

import trio

from zosfs.errors import StoreError
from zosfs.store.exchange import Exchange

CEPH_DELETES = frozenset({"cors", "lifecycle", "policy", "tagging", "publicAccessBlock", "replication"})
"""What Ceph is known to delete alone: for those who may not make a bucket to find out."""


async def see_known(exchange: Exchange, bucket: str, key: str, method: str, name: str) -> None:
    """Raise StoreError ``NotImplemented`` unless *method* on ``?name`` of the bucket (or *key* in it) is what the server takes it for.

    Raises ``AccessDenied`` and the like when the question is refused. Sends one GET, and for a DELETE on a bucket makes and deletes
    a scratch bucket.
    """
    ceph = await _see_get(exchange, bucket, key, name)
    if method == "DELETE" and not key:
        await _see_delete(exchange, name, ceph)


def _unknown(name: str, key: str = "") -> StoreError:
    return StoreError("NotImplemented", status=501, operation=f"?{name}", key=key, message=f"the server does not know ?{name}")


async def _see_get(exchange: Exchange, bucket: str, key: str, name: str) -> bool:
    """Whether the server is Ceph, if GET is understood."""
    headers = {"range": "bytes=0-4095"} if key else {}
    try:
        answer = await exchange.request("other", "GET", bucket, key, query={name: ""}, headers=headers)
    except StoreError as exc:
        # who knows it says that there is none
        if exc.row.errno == errno.ENODATA or exc.code == "InvalidRequest":
            return _is_ceph(exc.headers)
        if exc.errno in (errno.EACCES, errno.ENOENT, errno.EPERM) or (exc.ambiguous and exc.status != 501):
            raise
        raise _unknown(name, key) from None
    if "etag" in answer.headers if key else b"<ListBucketResult" in answer.body:
        raise _unknown(name, key)
    return _is_ceph(answer.headers)


def _is_ceph(headers: object) -> bool:
    request = headers.get("x-amz-request-id", "") if isinstance(headers, dict) else ""
    return isinstance(request, str) and request.startswith("tx0")


async def _see_delete(exchange: Exchange, name: str, ceph: bool) -> None:
    scratch = f"zosfs-probe-{uuid.uuid4().hex}"
    try:
        await exchange.request("other", "PUT", scratch)
    except StoreError:
        if ceph and name in CEPH_DELETES:
            return
        message = f"it cannot be found out whether DELETE ?{name} would delete the bucket: no bucket may be made to try"
        raise StoreError("NotAllowed", operation=f"?{name}", message=message) from None
    try:
        try:
            await exchange.request("other", "DELETE", scratch, query={name: ""})
        except StoreError as exc:
            if exc.code in ("MethodNotAllowed", "NotImplemented"):
                raise _unknown(name) from None
        try:
            await exchange.request("head_bucket", "HEAD", scratch)
        except StoreError as exc:
            if exc.status == 404:
                raise _unknown(name) from None
            raise
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(10):
            try:
                await exchange.request("other", "DELETE", scratch)
            except StoreError:
                pass  # deleted by what was tried
