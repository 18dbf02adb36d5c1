"""Access keys: where they come from, and that they stay secret.

Sources, the first that has them: ``passwd_file``, the environment (AWS_*, the manuals' zosAk and zosSk, zosfs's own file variables),
/etc/passwd-zosfs and ~/.passwd-zosfs, then botocore's chain (profiles of the AWS shared files, container and instance roles).
A credentials file must not be readable by group or others.
"""

from __future__ import annotations

import logging
import os
import pwd
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from zosfs.config import Options
from zosfs.errors import StoreError

log = logging.getLogger(__name__)

ENVIRONMENT = (("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ("zosAk", "zosSk"), ("AWSACCESSKEYID", "AWSSECRETACCESSKEY"))


@dataclass(frozen=True, slots=True)
class Credentials:
    """One set of keys; nothing of it but the access key shows in its repr."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str = field(default="", repr=False)


def refuse(message: str) -> StoreError:
    """A refusal that names what to do about the credentials."""
    return StoreError("NoCredentials", message=message, operation="credentials")


def read_private(path: str) -> str:
    """The text of a file that only its owner may read; StoreError otherwise."""
    try:
        with open(path, encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise refuse(f"{path} is readable by group or others: chmod 600 {path}")
            return file.read()
    except OSError as exc:
        if isinstance(exc, StoreError):
            raise
        raise refuse(f"{path}: {exc.strerror}") from None
    except UnicodeDecodeError:
        raise refuse(f"{path} is not a text file of ACCESS_KEY:SECRET_KEY") from None


def parse_passwd(text: str, bucket: str, path: str) -> Credentials:
    """The line ``bucket:AK:SK`` of this bucket, else the line ``AK:SK`` (s3fs-fuse's format; # begins a comment)."""
    general: Credentials | None = None
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        fields = line.split(":")
        if len(fields) == 2 and all(fields):
            general = general or Credentials(fields[0].strip(), fields[1].strip())
        elif len(fields) == 3 and fields[0] == bucket:
            return Credentials(fields[1].strip(), fields[2].strip())
        elif len(fields) not in (2, 3):
            raise refuse(f"{path} has a line that is not ACCESS_KEY:SECRET_KEY")
    if general is None:
        raise refuse(f"{path} has no line ACCESS_KEY:SECRET_KEY" + (f" and none for bucket {bucket}" if bucket else ""))
    return general


def _homes() -> list[str]:
    home = pwd.getpwuid(os.geteuid()).pw_dir  # mount(8) takes HOME away
    return [os.path.join(home, ".passwd-zosfs"), "/etc/passwd-zosfs"]


def load(options: Options, bucket: str, environment: Mapping[str, str] | None = None) -> Credentials:
    """The keys of this mount. Raises StoreError ``NoCredentials`` with the way out."""
    environment = os.environ if environment is None else environment
    token = read_private(options.session_token_file).strip() if options.session_token_file else environment.get("AWS_SESSION_TOKEN", "")
    if options.passwd_file:
        found = parse_passwd(read_private(options.passwd_file), bucket, options.passwd_file)
        return Credentials(found.access_key, found.secret_key, token if options.session_token_file else "")
    if not options.profile:
        for access, secret in ENVIRONMENT:
            if environment.get(access) and environment.get(secret):
                return Credentials(environment[access], environment[secret], token)
        for path in _homes():
            if os.path.exists(path):
                return parse_passwd(read_private(path), bucket, path)
    chain = from_chain(options)
    if chain is None:
        raise refuse("no credentials: give -o passwd_file=FILE (ACCESS_KEY:SECRET_KEY, mode 0600), -o profile=NAME or AWS_* variables")
    return chain()


def from_chain(options: Options) -> Callable[[], Credentials] | None:
    """botocore's credentials of a profile or role, renewed by botocore when they end; None where it finds none."""
    import botocore.exceptions
    import botocore.session

    home = pwd.getpwuid(os.geteuid()).pw_dir
    os.environ.setdefault("HOME", home)
    try:
        session = botocore.session.Session(profile=options.profile or None)
        session.set_config_variable("metadata_service_num_attempts", 1)
        if not os.environ.get("AWS_EC2_METADATA_DISABLED"):
            os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
        found = session.get_credentials()
    except botocore.exceptions.BotoCoreError as exc:
        raise refuse(f"profile {options.profile}: {exc}") from None
    if found is None:
        return None

    def now() -> Credentials:
        frozen = found.get_frozen_credentials()
        return Credentials(frozen.access_key or "", frozen.secret_key or "", frozen.token or "")

    return now
