"""`python -m bench.inodes`: what the daemon's memory is for a million names that the kernel knows.

A store that makes up its answers, the tree as a mount has it, and every name listed, remembered and shown as readdirplus does; with
``--posix`` its stored attributes are asked for, too.
Nothing is mounted: the kernel's own memory is not what is measured.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pyfuse3
import trio

from bench.results import Run, dump
from zosfs.config import Options
from zosfs.counters import Counters
from zosfs.fs.entries import entry
from zosfs.store.answers import info_of
from zosfs.store.api import Abilities, ListPage, ObjectInfo, Store
from zosfs.store.listing_xml import parse_page
from zosfs.tree.attributes import Defaults
from zosfs.tree.inodes import Inode, Volume
from zosfs.tree.tree import Tree

PAGE = 1000


class MadeUp:
    """The listing half of a Store: *directories* with *files* each."""

    def __init__(self, directories: int, files: int) -> None:
        self.bucket = "made-up"
        self.abilities = Abilities()
        self._directories, self._files = directories, files

    def _key(self, n: int) -> str:
        return f"directory-{n // self._files:06}/file-{n % self._files:06}.dat"

    def _index(self, key: str) -> int:
        directory, _, name = key.partition("/")
        return int(directory[10:] or 0) * self._files + int(name[5:11] or 0)

    async def list_page(self, prefix: str, *, delimiter: str = "", marker: str = "", max_keys: int = PAGE) -> ListPage:
        """A page of the top (its directories), of one directory, or of all keys; parsed from XML as a server's would be."""
        await trio.lowlevel.checkpoint()
        if delimiter and not prefix:
            rest = [name for name in (f"directory-{n:06}/" for n in range(self._directories)) if name > marker][: max_keys + 1]
            more = "".join(f"<CommonPrefixes><Prefix>{name}</Prefix></CommonPrefixes>" for name in rest[:max_keys])
        else:
            first = self._index(marker) + 1 if marker.endswith(".dat") else self._index(marker) if marker else self._index(prefix)
            last = self._index(prefix) + self._files if prefix else self._directories * self._files
            rest = [self._key(n) for n in range(first, min(last, first + max_keys + 1))]
            more = "".join(
                f"<Contents><Key>{name}</Key><Size>{10_000 + len(name) * n}</Size>"
                f"<ETag>&quot;{hash(name) & (1 << 128) - 1:032x}&quot;</ETag>"
                f"<LastModified>2026-11-21T10:{n % 60:02}:00.{n:03}Z</LastModified><StorageClass>STANDARD</StorageClass>"
                "<Type>Normal</Type></Contents>"
                for n, name in enumerate(rest[:max_keys])
            )
        truncated = len(rest) > max_keys
        following = f"<NextMarker>{rest[max_keys - 1]}</NextMarker>" if truncated else ""
        page, _ = parse_page(
            f"<ListBucketResult><IsTruncated>{str(truncated).lower()}</IsTruncated>{following}{more}</ListBucketResult>".encode()
        )
        return page

    async def head_many(self, keys: Sequence[str]) -> Sequence[ObjectInfo]:
        """All answers, as a server gives them that takes many questions at once."""
        return [await self.head(key) for key in keys]

    async def head(self, key: str, *, version_id: str = "") -> ObjectInfo:
        """What an object that zosfs or s3fs wrote says of itself."""
        await trio.lowlevel.checkpoint()
        n = self._index(key)
        when = f"{1_700_000_000 + n}.{n:09}"
        stored = {"mode": "33188", "uid": "1000", "gid": "1000", "mtime": when, "atime": when, "ctime": when}
        return info_of(key, {
            "content-length": str(10_000 + len(key) * (n % PAGE)), "etag": f'"{hash(key) & (1 << 128) - 1:032x}"',
            "last-modified": f"Sat, 21 Nov 2026 10:{n % 60:02}:00 GMT", "content-type": "application/octet-stream",
            "x-rgw-object-type": "Normal", **{f"x-amz-meta-{name}": value for name, value in stored.items()},
        })  # fmt: skip


def resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def walk(tree: Tree, top: Inode) -> int:
    """List everything below *top* as a walk through a mount does; how many names there are."""
    count = 0
    listing = tree.listing(top)
    after = 0
    while batch := await listing.batch(after, PAGE):
        if tree.options.posix:
            await tree.head_all([inode for _, _, inode in batch if not inode.is_dir])
        for cookie, _, inode in batch:
            tree.remember(inode)
            entry(inode, 60.0)
            count += 1
            after = cookie
            if inode.is_dir:
                count += await walk(tree, inode)
    return count


async def measure(directories: int, files: int, posix: bool) -> dict[str, int]:
    """Names, and the bytes by which the memory grew for them; prints both."""
    async with trio.open_nursery() as nursery:
        store = cast(Store, MadeUp(directories, files))
        options = Options(posix=posix)
        defaults = Defaults(0, 0, 0o644, 0o755)
        tree = Tree(options, Counters(), nursery, defaults, None, volume=Volume(store, "", "made-up", defaults))
        gc.collect()
        before, began = resident(), time.perf_counter()
        count = await walk(tree, tree.root)
        gc.collect()
        grown = resident() - before
        seconds = time.perf_counter() - began
        print(f"{count:,} names: {grown / (1 << 20):,.0f} MiB, {grown / count:,.0f} bytes each, {seconds / count * 1e6:.0f} us each")
        nursery.cancel_scope.cancel()
    return {"names": count, "bytes": grown}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.inodes", description=__doc__)
    parser.add_argument("--directories", type=int, default=1000)
    parser.add_argument("--files", type=int, default=1000, help="in each directory")
    parser.add_argument("--posix", action="store_true", help="with stored attributes, known by a HEAD of each")
    parser.add_argument("--output", type=Path, help="directory to keep the numbers in, for the page")
    given = parser.parse_args()
    assert pyfuse3 is not None  # its memory counts as the daemon's, before
    got = trio.run(measure, given.directories, given.files, given.posix)
    if given.output:
        run = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        facts = {"run": run, "inodes": {"stored attributes" if given.posix else "`noposix`": got}}
        given.output.mkdir(parents=True, exist_ok=True)
        (given.output / f"inodes-{run.replace(':', '')}.json").write_text(dump(Run(facts, [])))


if __name__ == "__main__":
    main()
