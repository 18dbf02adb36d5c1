"""The wiring: options, source and a directory become a living mount.

Owns: the order in which rooms are opened and closed. Everything is imported here, at the start: at a shutdown the interpreter's
files may be unmounted before the last delivery.
"""

from __future__ import annotations

import dataclasses
import gc
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, AsyncExitStack
from typing import Any, cast

import trio

from zosfs import __version__, places
from zosfs.admin.moment import MomentStore
from zosfs.admin.version_store import VersionStore
from zosfs.config import Options
from zosfs.content.earlier_run import REPLAY_PATIENCE
from zosfs.content.journal import InUse
from zosfs.content.memory import MemoryBudget
from zosfs.counters import Counters
from zosfs.errors import StoreError
from zosfs.fs.contents import Contents
from zosfs.fs.earlier_run import SHOWN_WITHIN
from zosfs.fs.operations import Operations
from zosfs.mount import registry
from zosfs.mount.drain import LastDelivery
from zosfs.mount.events import Watch
from zosfs.mount.life import Life
from zosfs.mount.log import Log
from zosfs.mount.mountpoint import mounted_on
from zosfs.mount.notify import Notifier
from zosfs.mount.refusal import Refusal
from zosfs.mount.scratch import scratch, sweep
from zosfs.mount.session import Session
from zosfs.mount.start import private
from zosfs.source import Source
from zosfs.store.api import Account, Store
from zosfs.store.connect import check, connect
from zosfs.tree.attribute_cache import AttributeCache
from zosfs.tree.attributes import Defaults
from zosfs.tree.hints import name_appeared_beside
from zosfs.tree.inodes import Volume
from zosfs.tree.tree import Tree

_log = logging.getLogger(__name__)

LOOKS = (10_000, 10, 20)
"""When the garbage collector looks for cycles, of which there are few. As it comes, a twelfth of the time for many new files is its."""
CHECK_PATIENCE = 11.0
"""Seconds in which the endpoint must have answered before a mount is refused; a mount is live or refused within 15."""
LIVE_WITHIN = 12.0
"""Seconds after which nothing is waited for any more that a mount can do without: one in the background is given up after 14."""
USAGE_PATIENCE = 2.0
"""Seconds that a start waits at most for the numbers of df."""


async def run(
    options: Options,
    source: Source,
    mountpoint: str,
    ready: Callable[[], None],
    *,
    log: Log | None = None,
    notifier: Notifier | None = None,
) -> int:
    """Mount *source* on *mountpoint* (real and checked), call *ready* when it is live, serve to the end; the exit status.

    Raises Refusal, StoreError or OSError while nothing is mounted; nothing stays mounted then.
    """
    if options.at:
        options = dataclasses.replace(options, ro=True)
    until = trio.current_time() + LIVE_WITHIN

    def patience(most: float) -> float:
        return max(0.0, min(most, until - trio.current_time()))

    counters = Counters()
    cache_dir = places.cache_dir(options.cache_dir)
    private(cache_dir)
    sweep(cache_dir)
    async with AsyncExitStack() as stack:
        if options.at:
            # another's journal is no business of a view of the past
            cache_dir = stack.enter_context(scratch(cache_dir))
        account = await _reach(options, source, counters, stack)
        await _past(options, source, account)
        cache = AttributeCache(cache_dir) if options.posix else None
        if cache is not None:
            stack.push_async_callback(cache.aclose)  # when no listing is under way any more
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)  # before the nursery is waited for
        nursery.start_soon(account.tell_silence)
        memory = MemoryBudget(options.memory, counters)
        contents = Contents(options, counters, nursery, memory, cache_dir)
        if cache is not None:
            contents.on_replayed = cache.put
        stack.push_async_callback(contents.aclose)
        if cache is not None:
            nursery.start_soon(cache.keep_writing)
        tree, volume = _tree(options, source, account, counters, nursery, cache)
        if volume is not None:
            # another mount on the same journal is told before anything is mounted
            try:
                await contents.of(volume, moved=False, patience=patience(REPLAY_PATIENCE))
            except InUse as error:
                raise _ended_too_late(error) or error from None
        # what lies there was checked by `prepare`, which knows that an automount point is mounted already and yet free
        session = Session(mountpoint, source.text, dataclasses.replace(options, nonempty=True))
        operations = operations_for(tree, contents, options, counters, nursery, mountpoint, account)
        if options.metrics:
            stack.enter_context(_metrics(options.metrics, counters, operations, memory, {"source": source.text, "mountpoint": mountpoint}))
        if options.notify:
            nursery.start_soon(_watch(options, tree, volume, account, counters, mountpoint).run)
        with trio.move_on_after(patience(USAGE_PATIENCE)):
            await operations.capacity.prime()
        if volume is not None:
            await operations.earlier_run.adopt(tree.root, patience(SHOWN_WITHIN))

        def reload() -> None:
            _log.info("SIGHUP: log reopened, listings and attributes forgotten")
            if log is not None:
                log.reopen()
            tree.invalidate(tree.root)
            operations.acls.forget_all()

        entry = registry.entry_for(
            source.text, mountpoint, cache_dir=str(cache_dir), version=__version__,
            log=log.where if log is not None else "", options=changed(options),
        )  # fmt: skip
        life = Life(
            session,
            operations,
            LastDelivery(operations, contents),
            entry=entry,
            notifier=notifier or Notifier(),
            live=ready,
            reload=reload,
            next_level=log.cycle if log is not None else lambda: None,
        )
        # what is there now stays: each look through all of it stopped everybody for 20 to 30 ms
        gc.collect()
        gc.freeze()
        gc.set_threshold(*LOOKS)
        return await life.run()
    raise AssertionError  # the stack swallows nothing


def operations_for(
    tree: Tree,
    contents: Contents,
    options: Options,
    counters: Counters,
    nursery: trio.Nursery,
    mountpoint: str,
    account: Account,
) -> Operations:
    """The kernel-facing room on top of the others."""
    return Operations(tree, contents, options, counters, nursery, mountpoint=mountpoint, account=account)


async def _reach(options: Options, source: Source, counters: Counters, stack: AsyncExitStack) -> Account:
    """A connected account, seen to work for *source*."""
    if not options.url:
        raise Refusal("no endpoint is given: -o url=https://HOST, ZOSFS_URL, or url in a configuration file")
    where = f"{source.text} at {options.url}"
    try:
        account = await connect(options, counters, source.bucket)
        stack.push_async_callback(account.aclose)
        with trio.fail_after(CHECK_PATIENCE):
            await check(account, source.bucket, source.prefix)
    except StoreError as error:
        if error.code == "NoSuchKey":  # a listing never says so
            raise Refusal(f"{where}: what answers there is no S3 server; check -o url=") from error
        raise Refusal(f"{where}: {error.row.text} ({error.message or error.code})") from error
    except trio.TooSlowError:
        raise Refusal(f"{where}: the endpoint gave no usable answer within {CHECK_PATIENCE:.0f} s") from None
    return account


def _ended_too_late(error: InUse) -> Refusal | None:
    """Why the journal is still in use, when that is by a mount which the kernel has let go of."""
    for entry in registry.entries():
        there = mounted_on(entry.mountpoint)
        if entry.pid != error.pid or (there is not None and there.device == entry.connection):
            continue
        ways = f"`zosfs umount {entry.mountpoint}` waits for it, or -o cache_dir=DIR gives a mount beside it a journal of its own"
        was = f"and its process {entry.pid} still"
        if entry.delivering is None:
            return Refusal(f"{entry.source} was detached from {entry.mountpoint}, {was} serves programs that have files open there: {ways}")
        files, size = entry.delivering
        to_go = f"{files} files, {size / (1 << 20):.1f} MiB"
        return Refusal(f"{entry.source} was unmounted from {entry.mountpoint}, {was} delivers {to_go}: {ways}")
    return None


def _tree(
    options: Options,
    source: Source,
    account: Account,
    counters: Counters,
    nursery: trio.Nursery,
    cache: AttributeCache | None,
) -> tuple[Tree, Volume | None]:
    umask = max(options.umask, 0)
    defaults = Defaults(
        uid=options.uid if options.uid >= 0 else os.getuid(),
        gid=options.gid if options.gid >= 0 else os.getgid(),
        file_mode=options.file_mode & ~umask,
        dir_mode=options.dir_mode & ~umask,
        special=options.special,
    )
    volume = None
    if not source.account:
        store = account.bucket(source.bucket)
        shown: Store = store
        if options.at:
            shown = cast(Store, MomentStore(store, options.at))
        elif options.versions:
            shown = cast(Store, VersionStore(store))
        volume = Volume(shown, source.prefix, source.bucket, defaults)
    everything = account if source.account else None
    tree = Tree(options, counters, nursery, defaults, cache, volume=volume, account=everything)
    if volume is not None and isinstance(volume.store, VersionStore):
        volume.store.on_older = lambda key: name_appeared_beside(tree, key)
    return tree, volume


async def _past(options: Options, source: Source, account: Account) -> None:
    """Refusal unless *source* can be shown as it was."""
    if not options.at and not options.versions:
        return
    if source.account:
        raise Refusal("at= and versions show the past of one bucket: zosfs BUCKET DIR -o at=TIME")
    try:
        status = (await account.bucket(source.bucket).call("get_bucket_versioning")).get("Status", "")
    except StoreError as error:
        raise Refusal(f"{source.text}: whether it keeps versions cannot be found out ({error.row.text})") from error
    if not status:
        raise Refusal(
            f"{source.text} keeps no versions, so its past is not known; "
            f"`zosfs bucket set {source.bucket} versioning Enabled` keeps them from now on"
        )


def _metrics(
    option: str, counters: Counters, operations: Operations, memory: MemoryBudget, about: Mapping[str, str]
) -> AbstractContextManager[None]:
    """Who tells Prometheus. Refusal where that cannot be."""
    from zosfs.mount import metrics  # seldom wanted, and an HTTP server to read

    def look() -> Mapping[str, float]:
        return metrics.gauges(operations.status(), len(operations.tree), memory.used)

    return metrics.served(option, counters, look, {**about, "version": __version__})


def _watch(options: Options, tree: Tree, volume: Volume | None, account: Any, counters: Counters, mountpoint: str) -> Watch:
    """Who hears of others' changes. Refusal where that cannot be."""
    if volume is None:
        raise Refusal("notify is for the mount of one bucket")
    try:
        return Watch(options.notify, tree, volume.store, account.call, counters, mountpoint)
    except ValueError as error:
        raise Refusal(str(error)) from None


def changed(options: Options) -> dict[str, Any]:
    """The options that differ from their defaults, by name; none of them is a secret."""
    return {
        row.name: getattr(options, row.name) for row in dataclasses.fields(options) if getattr(options, row.name) != row.default
    }
