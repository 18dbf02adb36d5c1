"""From options to an account that is seen to work."""

from __future__ import annotations

import email.utils
import logging
import time
import urllib.parse

from zosfs.config import Options
from zosfs.counters import Counters
from zosfs.errors import StoreError
from zosfs.store.credentials import load
from zosfs.store.s3 import S3Account
from zosfs.store.sigv4 import Signer

log = logging.getLogger(__name__)


async def connect(options: Options, counters: Counters, bucket: str = "") -> S3Account:
    """An account with its credentials loaded; nothing is sent yet. StoreError for credentials or a URL that cannot be used."""
    parts = urllib.parse.urlsplit(options.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise StoreError("BadEndpoint", operation="connect", message=f"url={options.url} is no http:// or https:// address")
    if options.public_bucket:
        return S3Account(options, counters, None)
    found = load(options, bucket)
    return S3Account(options, counters, Signer(found.access_key, found.secret_key, options.region, found.token))


async def check(account: S3Account, bucket: str) -> None:
    """See that the endpoint answers, takes the credentials, and has the bucket ("": lists buckets instead).

    A clock that is off is corrected once from the server's Date, with a warning. Raises StoreError.
    """
    try:
        await _look(account, bucket)
    except StoreError as exc:
        if exc.code != "RequestTimeTooSkewed" or not _correct_clock(account, exc):
            raise
        await _look(account, bucket)


async def _look(account: S3Account, bucket: str) -> None:
    if not bucket:
        await account.list_buckets()
        return
    # a listing of one key, not HEAD: its refusals have a body that says why
    await account.bucket(bucket).list_page("", max_keys=1)


def _correct_clock(account: S3Account, refusal: StoreError) -> bool:
    date = email.utils.parsedate_to_datetime(refusal.headers["date"]) if refusal.headers.get("date") else None
    if date is None or account.signer is None:
        return False
    account.signer.clock_offset = date.timestamp() - time.time()
    log.warning("this host's clock is %.0f s off the server's; requests are signed with the server's time", account.signer.clock_offset)
    return True
