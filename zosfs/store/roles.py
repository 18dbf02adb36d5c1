"""Temporary credentials of a role (STS AssumeRole), renewed before they end.

Owns: the set in use and when it ends. May use: boto (the request), the credentials of whoever takes the role. Never shows a secret.
"""

from __future__ import annotations

import datetime
import json
import logging
import re
import time
from pathlib import Path
from typing import Any

import trio

from zosfs.config import Options
from zosfs.errors import StoreError
from zosfs.store.credentials import Provider
from zosfs.store.sigv4 import Credentials
from zosfs.threads import ThreadPool

log = logging.getLogger(__name__)

EARLY = 0.2
"""The part of their life that credentials still have when new ones are asked for."""
AGAIN = 30.0
"""Seconds until a failed renewal is tried again, while the old set still holds."""
SHORTEST, LONGEST = 900, 43200
LARGEST_POLICY = 2048


class Assumed:
    """The credentials of the role that *options* name, taken with those of *source*. Nothing is sent before the first use."""

    def __init__(self, source: Provider, options: Options) -> None:
        """Raises StoreError ``BadCredentials`` for a role, session name, duration or policy that no server takes."""
        if not re.fullmatch(r"arn:[\w-]*:iam:[^:]*:[^:]*:role/.+", options.role_arn):
            raise _wrong(f"role_arn={options.role_arn}: not of the form arn:aws:iam:::role/NAME")
        if not re.fullmatch(r"[\w+=,.@-]{2,64}", options.role_session_name, re.ASCII):
            raise _wrong(f"role_session_name={options.role_session_name}: 2 to 64 letters, digits or _+=,.@-")
        if not SHORTEST <= options.role_duration <= LONGEST:
            raise _wrong(f"role_duration={options.role_duration:g}: from 900 seconds to 12 hours")
        self._members: dict[str, Any] = {
            "RoleArn": options.role_arn, "RoleSessionName": options.role_session_name, "DurationSeconds": int(options.role_duration),
        }  # fmt: skip
        if options.role_policy:
            self._members["Policy"] = _policy(Path(options.role_policy))
        self._source = source
        self._options = options
        self._threads = ThreadPool("sts", 1)
        self._asking = trio.Lock()
        self._credentials = Credentials()
        self._ends = 0.0
        self._renew_at = 0.0

    async def current(self) -> Credentials:
        """The role's credentials; new ones when a fifth of their life is left. A renewal that fails is no matter while the old set holds.

        Raises StoreError when the role cannot be taken.
        """
        if time.time() < self._renew_at:
            return self._credentials
        async with self._asking:
            if time.time() < self._renew_at:
                return self._credentials
            try:
                await self._assume()
            except StoreError as exc:
                if time.time() >= self._ends:
                    raise
                log.warning("the role's credentials end in %.0f s and could not be renewed: %s", self._ends - time.time(), exc)
                self._renew_at = min(self._ends, time.time() + AGAIN)
        return self._credentials

    @property
    def until(self) -> str:
        """When the credentials end, RFC 3339."""
        return datetime.datetime.fromtimestamp(self._ends, datetime.UTC).isoformat(timespec="seconds")

    async def _assume(self) -> None:
        with_keys = await self._source.current()
        answer = await self._threads.run(lambda: _ask(self._options, with_keys, self._members))
        found = answer.get("Credentials", {})
        if not found.get("AccessKeyId") or not found.get("SecretAccessKey"):
            raise StoreError("BadAnswer", operation="assume_role", key=self._options.role_arn, message="no credentials in the answer")
        now = time.time()
        ends = found.get("Expiration")
        self._credentials = Credentials(found["AccessKeyId"], found["SecretAccessKey"], found.get("SessionToken", ""))
        self._ends = ends.timestamp() if isinstance(ends, datetime.datetime) else now + self._options.role_duration
        self._renew_at = self._ends - EARLY * max(0.0, self._ends - now)
        log.info("took the role %s until %s", self._options.role_arn, self.until)


def _ask(options: Options, credentials: Credentials, members: dict[str, Any]) -> dict[str, Any]:
    from zosfs.store.boto import make_client, store_error

    client = make_client(options, credentials, "sts", "s3" if options.sigv2 else "s3v4")
    try:
        return dict(client.assume_role(**members))
    except Exception as exc:
        failure = store_error(exc, "assume_role", options.role_arn)
        if failure.status == 404:  # Ceph speaks of a key
            failure.message = "there is no such role"
        raise failure from None
    finally:
        client.close()


def _policy(path: Path) -> str:
    try:
        text = json.dumps(json.loads(path.read_text("utf-8")), separators=(",", ":"))
    except OSError as exc:
        raise _wrong(f"role_policy={path}: {exc.strerror}") from None
    except ValueError as exc:
        raise _wrong(f"role_policy={path}: not JSON: {exc}") from None
    if len(text) > LARGEST_POLICY:
        raise _wrong(f"role_policy={path}: {len(text)} characters; {LARGEST_POLICY} are allowed")
    return text


def _wrong(message: str) -> StoreError:
    return StoreError("BadCredentials", operation="connect", message=message)
