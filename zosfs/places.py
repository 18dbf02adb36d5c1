"""Where things live on this machine: home, configuration, cache, runtime files.

Owns: the choice of directories. May use: nothing of zosfs. mount(8) takes HOME and PATH away from its helpers, so nothing here
relies on them: the same user gets the same places from a shell, from fstab and from systemd, and a journal
written by one is found by the other.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import stat
from collections.abc import Mapping
from pathlib import Path


def home(environ: Mapping[str, str] = os.environ) -> Path:
    """The user's home directory: $HOME, or the password database's, or `/` for a uid that it does not know."""
    if environ.get("HOME"):
        return Path(environ["HOME"])
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        return Path("/")


def expand(path: str, environ: Mapping[str, str] = os.environ) -> str:
    """*path* absolute, with a leading ``~`` replaced by the home directory; "" stays ""."""
    if not path:
        return path
    if path == "~" or path.startswith("~/"):
        path = str(home(environ)) + path[1:]
    return os.path.abspath(path)


def config_files(environ: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """The configuration files that are read unless one is named, weakest first. They need not exist."""
    user = Path(environ.get("XDG_CONFIG_HOME") or home(environ) / ".config")
    return (Path("/etc/zosfs/config.toml"), user / "zosfs" / "config.toml")


def cache_dir(chosen: str = "", environ: Mapping[str, str] = os.environ) -> Path:
    """The directory of chunk cache and journal: *chosen*, else /var/cache/zosfs for root and ~/.cache/zosfs for users."""
    if chosen:
        return Path(expand(chosen, environ))
    if os.geteuid() == 0:
        return Path("/var/cache/zosfs")
    return Path(environ.get("XDG_CACHE_HOME") or home(environ) / ".cache") / "zosfs"


def _owned(path: Path) -> bool:
    try:
        info = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid()


def runtime_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """The directory of the files that tell which mounts are alive; not created here.

    /run/zosfs for root; for users $XDG_RUNTIME_DIR/zosfs, /run/user/UID/zosfs, or /tmp/zosfs-UID, the first that can be.
    """
    if environ.get("ZOSFS_RUNTIME_DIR"):
        return Path(environ["ZOSFS_RUNTIME_DIR"])
    uid = os.geteuid()
    if uid == 0:
        return Path("/run/zosfs")
    for base in (environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{uid}"):
        if base and _owned(Path(base)):
            return Path(base) / "zosfs"
    return Path(f"/tmp/zosfs-{uid}")


def runtime_dirs(environ: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """All directories that may hold runtime files which this user may read: root looks at everybody's."""
    found = [runtime_dir(environ), Path("/run/zosfs")]
    if os.geteuid() == 0:
        found += sorted(Path("/run/user").glob("*/zosfs")) + sorted(Path("/tmp").glob("zosfs-[0-9]*"))
    return tuple(dict.fromkeys(found))


def bucket_folder(url: str, bucket: str) -> str:
    """The name of a bucket's own folder in the cache directory: the same for the same endpoint and bucket."""
    digest = hashlib.sha256(f"{url}\n{bucket}".encode()).hexdigest()[:16]
    return f"{bucket}-{digest}"
