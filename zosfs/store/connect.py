"""From options to an account that is seen to work.

Owns: the order of the first questions. Everything that is wrong with a connection comes out here as a StoreError whose row says what
to do.
"""

from __future__ import annotations

import dataclasses
import logging

import trio

from zosfs.config import Options
from zosfs.counters import Counters
from zosfs.errors import StoreError
from zosfs.store.account import S3Account
from zosfs.store.credentials import provider
from zosfs.store.exchange import FIRST_TRIES

log = logging.getLogger(__name__)

PROBE_PATIENCE = 4.0
"""Seconds in which a server must have shown what it can do; one that cannot write just now can still be read from."""


async def connect(options: Options, counters: Counters, bucket: str = "") -> S3Account:
    """An account with its credentials loaded; nothing is sent yet. *bucket* chooses among the lines of an s3fs passwd file.

    Raises StoreError for credentials or a URL that cannot be used: ``BadEndpoint``, ``NoCredentials``, ``BadCredentials``,
    ``TlsFailed`` (ca_file).
    """
    credentials = provider(options, bucket=bucket)
    if "://" not in options.url and options.url:
        options = dataclasses.replace(options, url=f"https://{options.url}")
    account = S3Account(options, counters, credentials)
    try:
        await credentials.current()
    except BaseException:
        await account.aclose()
        raise
    return account


async def check(account: S3Account, bucket: str, prefix: str = "") -> None:
    """See that the endpoint answers, takes the credentials, and has the bucket ("": lists buckets instead); find out what the server
    can do, on scratch objects under *prefix* unless the mount is read only.

    Asked in `FIRST_TRIES`, as long as the options retry: connections that break, or a server that is busy, are no reason not to mount.
    A clock that is off is corrected from the server's Date, with a warning. Raises StoreError: ``InvalidAccessKeyId``,
    ``SignatureDoesNotMatch``, ``AccessDenied``, ``NoSuchBucket``, ``NameNotResolved``, ``EndpointUnreachable``,
    ``ConnectTimeout``, ``TlsFailed``, ``RequestTimeTooSkewed``, ``PermanentRedirect``, ``BadAnswer``…
    """
    if not bucket:
        await account.list_buckets(FIRST_TRIES)
        return
    store = account.bucket(bucket)
    # a listing of one key, not HEAD: its refusals have a document that says why
    try:
        await store.check_listing(prefix)
    except StoreError as exc:
        if exc.code != "AccessDenied":
            raise
        # keys may be allowed to read objects and not to list them: then there is nothing to mount, but the bucket's HEAD may tell
        await store.usage()
        raise
    with trio.move_on_after(PROBE_PATIENCE) as scope:
        await store.probe(prefix)
    if scope.cancelled_caught:
        log.warning("%s answers, but writes slowly: mounted without knowing whether it appends and heeds conditions", bucket)
