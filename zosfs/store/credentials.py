"""Where the keys come from: file, environment, profile; read again when they change, renewed when they are temporary.

Owns: the credentials in use. May use: botocore's chain (shared files, instance roles, renewal). Never shows a secret.
"""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from zosfs.config import Options
from zosfs.errors import StoreError
from zosfs.store.sigv4 import Credentials
from zosfs.threads import ThreadPool

ENVIRONMENT = (
    ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    ("zosAk", "zosSk", ""),
    ("AWSACCESSKEYID", "AWSSECRETACCESSKEY", "AWSSESSIONTOKEN"),
)
"""Variables of access key, secret key and token: botocore's, the manuals' and s3fs's."""
CHECK_EVERY = 5.0
"""Seconds for which a file is not looked at again."""


class Provider(Protocol):
    """Gives the credentials for the next request."""

    async def current(self) -> Credentials:
        """The credentials to sign with now. Raises StoreError ``NoCredentials`` or ``BadCredentials``."""
        ...


def _private(path: Path) -> str:
    """The text of *path*, refused when others than the owner may read it."""
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_IMODE(mode) & 0o077:
                raise StoreError(
                    "BadCredentials", operation="connect",
                    message=f"{path} may be read by others than its owner (mode {stat.S_IMODE(mode):04o}): chmod 600 {path}",
                )  # fmt: skip
            return file.read(1 << 20)
    except UnicodeDecodeError:
        raise StoreError("BadCredentials", operation="connect", message=f"{path} is no text") from None
    except StoreError:
        raise
    except OSError as exc:
        raise StoreError("BadCredentials", operation="connect", message=f"{path}: {exc.strerror}") from None


def parse_passwd(text: str, where: str, bucket: str = "") -> tuple[str, str]:
    """Access and secret key of a passwd file: ``AK:SK``, or s3fs's ``bucket:AK:SK``; a line of *bucket* goes first.

    Empty lines and those that begin with # do not count. Raises StoreError ``BadCredentials``.
    """
    default: tuple[str, str] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip().lstrip("\ufeff")
        if not line or line.startswith("#"):
            continue
        fields = [field.strip() for field in line.split(":")]
        if len(fields) not in (2, 3) or not all(fields):
            message = f"{where}, line {number}: not ACCESS_KEY:SECRET_KEY"
            raise StoreError("BadCredentials", operation="connect", message=message)
        if len(fields) == 3 and fields[0] == bucket:
            return fields[1], fields[2]
        if len(fields) == 2 and default is None:
            default = fields[0], fields[1]
    if default is None:
        raise StoreError("BadCredentials", operation="connect", message=f"{where} has no line for this bucket")
    return default


class Fixed:
    """The same credentials always (or none: unsigned requests)."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    async def current(self) -> Credentials:
        """They."""
        return self._credentials


class Files:
    """Credentials of passwd_file and session_token_file, read again when a file has changed."""

    def __init__(self, passwd: str, token: str, keys: tuple[str, str] | None = None, bucket: str = "") -> None:
        self._passwd = Path(passwd) if passwd else None
        self._token = Path(token) if token else None
        self._keys = keys
        self._bucket = bucket
        self._seen: tuple[Any, ...] = ()
        self._credentials = Credentials()
        self._next = 0.0

    async def current(self) -> Credentials:
        """The credentials of the files as they are now; those of before while a file is being replaced."""
        import trio

        now = trio.current_time()
        if now >= self._next:
            self._next = now + CHECK_EVERY
            seen = tuple(_signature(path) for path in (self._passwd, self._token))
            if seen != self._seen:
                try:
                    self._credentials = self.read()
                except StoreError:
                    if not self._seen:
                        raise
                else:
                    self._seen = seen
        return self._credentials

    def read(self) -> Credentials:
        """Read the files. Raises StoreError ``BadCredentials``."""
        keys = self._keys
        if self._passwd is not None:
            keys = parse_passwd(_private(self._passwd), str(self._passwd), self._bucket)
        if keys is None:
            raise StoreError("NoCredentials", operation="connect")
        token = _private(self._token).strip() if self._token is not None else ""
        return Credentials(*keys, token)


def _signature(path: Path | None) -> tuple[int, ...]:
    if path is None:
        return ()
    try:
        found = path.stat()
    except OSError:
        return (-1,)
    return (found.st_ino, found.st_mtime_ns, found.st_size)


class Chain:
    """Whatever botocore's chain gives: AWS_* variables, shared files, container and instance roles; it renews temporary ones."""

    def __init__(self, profile: str) -> None:
        self._profile = profile
        self._found: Any = None
        self._threads = ThreadPool("credentials", 1)

    async def current(self) -> Credentials:
        """The chain's credentials now. Files, networks and renewal are waited for in a thread."""
        if self._found is not None and not getattr(self._found, "_expiry_time", None):
            return self._frozen()
        return await self._threads.run(self._load)

    def _load(self) -> Credentials:
        from botocore.exceptions import BotoCoreError
        from botocore.session import Session

        try:
            if self._found is None:
                os.environ.setdefault("HOME", _home())
                self._found = Session(profile=self._profile or None).get_credentials()
            if self._found is None:
                raise StoreError("NoCredentials", operation="connect")
            return self._frozen()
        except BotoCoreError as exc:
            raise StoreError("BadCredentials", operation="connect", message=str(exc)) from None

    def _frozen(self) -> Credentials:
        frozen = self._found.get_frozen_credentials()
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token or "")


def provider(options: Options, environ: Mapping[str, str] = os.environ, bucket: str = "") -> Provider:
    """The credentials to sign with: those of `source_of_keys`, or of role_arn's role taken with them. Raises StoreError
    ``BadCredentials`` for a role that cannot be."""
    keys = source_of_keys(options, environ, bucket)
    if not options.role_arn:
        return keys
    if options.public_bucket:
        raise StoreError("BadCredentials", operation="connect", message="role_arn needs keys, public_bucket has none")
    from zosfs.store.roles import Assumed

    return Assumed(keys, options)


def source_of_keys(options: Options, environ: Mapping[str, str] = os.environ, bucket: str = "") -> Provider:
    """The first source that is given: public_bucket, passwd_file, profile, variables (ENVIRONMENT), ~/.passwd-zosfs,
    /etc/passwd-zosfs, botocore's chain."""
    if options.public_bucket:
        return Fixed(Credentials())
    if options.passwd_file:
        return Files(options.passwd_file, options.session_token_file, bucket=bucket)
    if options.profile:
        return Chain(options.profile)
    for key, secret, token in ENVIRONMENT:
        if environ.get(key) and environ.get(secret):
            keys = environ[key], environ[secret]
            if options.session_token_file:
                return Files("", options.session_token_file, keys)
            return Fixed(Credentials(*keys, environ.get(token, "") if token else ""))
    for path in (os.path.join(_home(), ".passwd-zosfs"), "/etc/passwd-zosfs"):
        if os.path.exists(path):
            return Files(path, options.session_token_file, bucket=bucket)
    return Chain("")


def _home() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir  # mount(8) takes HOME away
    except KeyError:
        return "/"
