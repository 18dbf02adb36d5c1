"""What the credentials reach: the buckets of an account.

Owns: the exchange and the boto clients that all its buckets share. May use: everything in store/.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from zosfs.config import Options
from zosfs.counters import Counters
from zosfs.errors import StoreError
from zosfs.store import answers
from zosfs.store.boto import Boto
from zosfs.store.credentials import Provider
from zosfs.store.exchange import Exchange
from zosfs.store.gathering import GatheringStore
from zosfs.store.sigv4 import Credentials
from zosfs.store.traffic import Waiting, tell


class S3Account:
    """An Account over S3. Nothing is sent before it is asked something."""

    def __init__(self, options: Options, counters: Counters, credentials: Provider) -> None:
        self.exchange = Exchange(options, counters, credentials)
        self.boto = Boto(options, counters, credentials)
        self._credentials = credentials
        self._stores: dict[str, GatheringStore] = {}

    def bucket(self, name: str) -> GatheringStore:
        """See Account.bucket."""
        if not name or "/" in name:
            raise StoreError("InvalidBucketName", message=repr(name))
        store = self._stores.get(name)
        if store is None:
            store = self._stores[name] = GatheringStore(self.exchange, self.boto, name)
        return store

    async def list_buckets(self, tries: int | None = None) -> Sequence[tuple[str, int]]:
        """See Account.list_buckets; *tries* as those of Exchange.request."""
        root = answers.parse(await self.exchange.request("list_buckets", "GET", "", tries=tries))
        if root.tag != "ListAllMyBucketsResult":
            raise StoreError("BadAnswer", operation="list_buckets", message=f"a {root.tag} instead of buckets")
        return [
            (bucket.findtext("Name", ""), answers.iso_time_ns(bucket.findtext("CreationDate", "")))
            for bucket in root.iter("Bucket")
        ]

    async def create_bucket(self, name: str, **members: Any) -> None:
        """See Account.create_bucket. Servers are content with a second creation by the same owner, so it is looked first."""
        self.bucket(name)
        try:
            await self.exchange.request("head_bucket", "HEAD", name)
        except StoreError as exc:
            if exc.status != 404:
                if exc.status == 403:
                    raise StoreError("BucketAlreadyExists", status=409, operation="create_bucket", key=name) from None
                raise
        else:
            raise StoreError("BucketAlreadyOwnedByYou", status=409, operation="create_bucket", key=name)
        if members:
            await self.boto.call("create_bucket", Bucket=name, **members)
            return
        try:
            await self.exchange.request("other", "PUT", name)
        except StoreError as exc:
            raise exc.of("create_bucket", name) from None

    async def delete_bucket(self, name: str) -> None:
        """See Account.delete_bucket."""
        self.bucket(name)
        try:
            await self.exchange.request("other", "DELETE", name)
        except StoreError as exc:
            raise exc.of("delete_bucket", name) from None
        self._stores.pop(name, None)

    async def service(self, service: str, operation: str, **members: Any) -> Mapping[str, Any]:
        """An operation of ``sts`` or ``sns`` at the same endpoint, by boto3's name."""
        return await self.boto.service(service, operation, **members)

    async def call(self, operation: str, *, service: str = "s3", **members: Any) -> Mapping[str, Any]:
        """An operation on no bucket (``get_usage_stats``) or of another *service* (``sns``, ``sts``), by boto3's name."""
        return await (self.boto.call(operation, **members) if service == "s3" else self.boto.service(service, operation, **members))

    async def temporary(self) -> tuple[Credentials, str]:
        """The credentials in use and when they end (RFC 3339; "": they do not end by themselves)."""
        credentials = await self._credentials.current()
        return credentials, getattr(self._credentials, "until", "")

    def silence(self) -> float:
        """See Account.silence."""
        return time.monotonic() - self.exchange.pool.traffic.moved_at

    def waiting(self) -> Waiting | None:
        """See Account.waiting."""
        return self.exchange.pool.traffic.waiting()

    async def tell_silence(self) -> None:
        """See Account.tell_silence."""
        await tell(self.exchange.pool.traffic)

    async def aclose(self) -> None:
        """See Account.aclose."""
        self.exchange.close()
        self.boto.close()
