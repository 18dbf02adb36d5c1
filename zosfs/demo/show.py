"""From nothing to a mounted sample bucket and back: starts the server, fills the bucket, mounts, waits or tours, undoes all.

Owns: the order of things and their undoing. May use: demo/, store/, mount/'s view of mount points.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from zosfs import places
from zosfs.config import Options
from zosfs.counters import Counters
from zosfs.demo import tour
from zosfs.demo.sample import BUCKET, fill
from zosfs.demo.server import ServerFailed, Weed
from zosfs.mount.mountpoint import mounted_on, real_path, unmount

MOUNTED_WITHIN, GONE_WITHIN = 30.0, 120.0
WHAT_TO_TRY = """
  {directory} is a bucket now. In another terminal, try:

    ls -lR {directory}
    cat {directory}/readme.txt
    echo hello > {directory}/mine.txt
    cp -a /etc/default {directory}/
    getfattr -n user.zos.etag {directory}/readme.txt
    zosfs stats {directory}

  The server answers at {url} (bucket {bucket}; credentials in {passwd}).
  Ctrl-C undoes all of this.
"""


class DemoFailed(Exception):
    """The demonstration cannot go on; the text is one line for a person."""


class _Stop(BaseException):
    """Somebody asked to stop (Ctrl-C, SIGTERM, the terminal closed)."""


def show(directory: Path, *, with_tour: bool, say: Callable[[str], None]) -> int:
    """Run the demonstration on *directory*; the exit status: 0, or 1 when something failed or a step of the tour was wrong.

    *with_tour*: run the scripted tour and end; otherwise stay until Ctrl-C. Nothing of it is left afterwards.
    """
    try:
        with ExitStack() as undo:
            undo.enter_context(_stopping_on_signals())
            return _show(directory, with_tour, say, undo)
    except _Stop:
        say("stopped; everything is undone")
        return 1 if with_tour else 0
    except (DemoFailed, ServerFailed) as failure:
        print(f"zosfs: {failure}", file=sys.stderr)
        return 1


def _show(directory: Path, with_tour: bool, say: Callable[[str], None], undo: ExitStack) -> int:
    directory = Path(real_path(str(directory)))
    undo.enter_context(_own_directory(directory))
    cache = places.cache_dir()
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    home = Path(tempfile.mkdtemp(prefix="demo-", dir=cache))
    undo.callback(shutil.rmtree, home, ignore_errors=True)

    say("starting the embedded S3 server (SeaweedFS) …")
    server = undo.enter_context(Weed(home))
    passwd = home / "passwd"
    passwd.touch(mode=0o600)
    passwd.write_text(f"{server.access_key}:{server.secret_key}\n")
    options = Options(url=server.url, passwd_file=str(passwd))
    say(f"it answers at {server.url}; making the bucket {BUCKET} with sample files …")
    count = _filled(options)
    say(f"{count} objects are in it; mounting it on {directory} …")
    daemon = undo.enter_context(_mounted(directory, options, home))
    if with_tour:
        wrong = tour.take(directory, say)
        say(f"\n{'the tour went well' if not wrong else f'{wrong} steps went wrong'}; undoing all")
        return 1 if wrong else 0
    say(WHAT_TO_TRY.format(directory=directory, url=server.url, bucket=BUCKET, passwd=passwd))
    status = daemon.wait()
    if mounted_on(str(directory)) is None and status == 0:
        say("it was unmounted; undoing the rest")
        return 0
    raise DemoFailed(f"the mount ended with status {status}: {_last_line(home)}")


@contextmanager
def _stopping_on_signals() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(number: int, frame: object) -> None:
        # undoing takes a moment and must not be interrupted itself
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise _Stop

    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _own_directory(directory: Path) -> Iterator[None]:
    """Make the mount point if it is missing, and take it away again in that case."""
    made: list[Path] = []
    try:
        missing = directory
        while not missing.exists():
            made.append(missing)
            missing = missing.parent
        directory.mkdir(parents=True, exist_ok=True)
        if mounted_on(str(directory)) is not None or os.listdir(directory):
            raise DemoFailed(f"{directory} is in use; name an empty directory, or one that does not exist")
    except OSError as error:
        raise DemoFailed(f"{error.filename}: {error.strerror}") from None
    try:
        yield
    finally:
        for path in made:
            try:
                path.rmdir()
            except OSError:
                break


def _filled(options: Options) -> int:
    # imported here, so that a wrong directory is told before the slow imports
    import trio

    from zosfs.store.connect import connect

    async def run() -> int:
        account = await connect(options, Counters())
        try:
            return await fill(account)
        finally:
            await account.aclose()

    try:
        return trio.run(run)
    except OSError as error:
        raise DemoFailed(f"the sample files could not be stored: {error}") from None


@contextmanager
def _mounted(directory: Path, options: Options, home: Path) -> Iterator[subprocess.Popen[bytes]]:
    words = f"url={options.url},passwd_file={options.passwd_file},cache_dir={home / 'cache'},fsname=zosfs-demo"
    with (home / "mount.log").open("wb") as log:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "zosfs", "mount", BUCKET, str(directory), "-f", "-o", words],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + MOUNTED_WITHIN
        while mounted_on(str(directory)) is None:
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise DemoFailed(f"the bucket could not be mounted: {_last_line(home)}")
            time.sleep(0.02)
        yield daemon
    finally:
        if daemon.poll() is None:
            daemon.terminate()
            try:
                daemon.wait(GONE_WITHIN)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        if mounted_on(str(directory)) is not None:
            unmount(str(directory), lazy=True)


def _last_line(home: Path) -> str:
    lines = (home / "mount.log").read_text("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
