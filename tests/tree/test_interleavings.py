"""Own changes among listings, walks, lookups and HEADs in flight: every name is what this mount last made of it, at every moment."""

from __future__ import annotations

import errno
import random

import pytest
import trio
import trio.testing

from tests.tree.bucket import Names, delivered, new_file, read, tree_over
from zosfs.tree.inodes import Inode
from zosfs.tree.tree import Tree

DIRECTORIES = ("", "a/", "a/b/", "a/b/c/", "d/", "d-e/", "d/f/")
NAMES = ("x", "y", "z-", "z", "foo")
OWN = new_file().uid


class Mount:
    """One process that changes names as fs/ does, and looks after each change whether all is as it made it."""

    def __init__(self, tree: Tree, store: Names, rng: random.Random) -> None:
        self.tree = tree
        self.store = store
        self.rng = rng
        self.files = {key for key in store.objects if not key.endswith("/")}
        self.directories = {key for key in store.objects if key.endswith("/")} | {""}
        self.uids: dict[str, int | None] = {key: int((info.metadata or {}).get("uid", OWN)) for key, info in store.objects.items()}

    async def inode(self, path: str) -> Inode:
        """The inode of a file or directory (ending in a slash), that must be there; held as the kernel would."""
        inode = self.tree.root
        for part in path.rstrip("/").split("/") if path else ():
            found = await self.tree.lookup(inode, part.encode())
            assert found is not None, f"{path}: {part} is lost"
            self.tree.remember(found)
            inode = found
        assert inode.is_dir == (path.endswith("/") or not path), path
        return inode

    async def pause(self) -> None:
        await trio.sleep(self.rng.choice((0, 0, 0.3, 2, 7)))

    async def create(self, top: str, name: str) -> None:
        parent = await self.inode(top)
        if top + name in self.files or top + name + "/" in self.directories:
            return
        assert await self.tree.lookup(parent, name.encode()) is None
        inode = self.tree.add(parent, name.encode(), new_file(), pending=True)
        self.tree.remember(inode)
        self.files.add(top + name)
        self.uids[top + name] = OWN
        await self.check(top)
        await self.pause()
        delivered(self.tree, self.store, inode)

    async def make(self, top: str, name: str) -> None:
        parent = await self.inode(top)
        if top + name in self.files or top + name + "/" in self.directories:
            return
        attributes = new_file()
        attributes.mode = 0o40755
        inode = self.tree.add(parent, name.encode(), attributes, is_dir=True, pending=True)
        self.tree.remember(inode)
        await self.pause()
        self.tree.delivered(inode, self.store.set(inode.key, b""))
        self.directories.add(top + name + "/")
        self.uids[top + name + "/"] = OWN

    async def give(self, path: str) -> None:
        """chown, of what has stored attributes."""
        inode = await self.inode(path)
        await self.tree.refresh(inode)
        inode.attributes.uid = self.uids[path] = uid = self.rng.randrange(100, 999)
        self.tree.changed(inode)
        await self.check(path[: path.rstrip("/").rfind("/") + 1])
        await self.pause()
        self.tree.delivered(inode, self.store.set(path, b"" if inode.is_dir else b"own", uid=str(uid)))

    async def remove(self, path: str) -> None:
        inode = await self.inode(path)
        if path.endswith("/"):
            below = any(other != path and other.startswith(path) for other in self.files | self.directories)
            assert await self.tree.is_empty(inode) == (not below), path
            if below:
                return
        await self.store.delete(inode.key)
        self.tree.remove(inode)
        (self.directories if inode.is_dir else self.files).discard(path)

    async def rename(self, path: str, top: str, name: str) -> None:
        inode, parent = await self.inode(path), await self.inode(top)
        slash = "/" if inode.is_dir else ""
        new = top + name + slash
        if top.startswith(path) or top + name in self.files or top + name + "/" in self.directories:
            return
        keys = [info.key async for info in self.tree.objects_below(inode)] if slash else [path]
        for key in keys:
            self.store.objects[new + key[len(path) :]] = self.store.objects[key]
        await self.pause()
        old_parent, old_name, first = inode.parent, inode.name, slash and self.rng.random() < 0.5
        assert old_parent is not None
        if first:  # as fs/ does: both places are whole then
            self.tree.move(inode, parent, name.encode())
        for key in keys:
            await self.store.delete(key)
        if first:
            self.tree.left(old_parent, old_name)
        else:
            self.tree.move(inode, parent, name.encode())
        for known in (self.files, self.directories):
            moved = {other for other in known if other == path or (slash and other.startswith(path))}
            known -= moved
            known |= {new + other[len(path) :] for other in moved}
            for other in moved:
                uid = self.uids.pop(other)
                # somebody may have found that a directory has no object, before it was renamed
                self.uids[new + other[len(path) :]] = uid if first or not other.endswith("/") else None

    async def check(self, top: str) -> None:
        """What a new opendir of *top* shows, and single lookups, and whose the names are."""
        directory = await self.inode(top)
        expected = {
            path[len(top) :].rstrip("/")
            for path in self.files | self.directories
            if path != top and path.startswith(top) and "/" not in path[len(top) :].rstrip("/")
        }
        for name in NAMES:
            found = await self.tree.lookup(directory, name.encode())
            assert (found is not None) == (name in expected), f"{top}{name}: {found}"
            if found is not None:
                await self.tree.refresh(found)
                uid = self.uids[f"{top}{name}/" if found.is_dir else f"{top}{name}"]
                if self.tree.options.posix and uid is not None:
                    assert (found.known, found.attributes.uid) == (True, uid), f"{top}{name}: not whose it is"
        kinds = self.rng.random() < 0.5
        shown = {name.decode() for name in await read(self.tree, directory, self.rng.choice((1, 3, 100)), kinds=kinds)}
        assert shown == expected, f"{top}: lost {expected - shown}, stale {shown - expected}"

    async def work(self, steps: int) -> None:
        for _ in range(steps):
            top = self.rng.choice(sorted(self.directories))
            name = self.rng.choice(NAMES)
            match self.rng.choice(("create", "create", "make", "give", "remove", "rename", "check", "rename directory")):
                case "create":
                    await self.create(top, name)
                case "make":
                    await self.make(top, name)
                case "give" if self.tree.options.posix and (found := sorted(self.files | self.directories - {""})):
                    await self.give(self.rng.choice(found))
                case "remove" if found := sorted(self.files | self.directories - {""}):
                    await self.remove(self.rng.choice(found))
                case "rename" if self.files:
                    await self.rename(self.rng.choice(sorted(self.files)), top, name)
                case "rename directory" if len(self.directories) > 1:
                    await self.rename(self.rng.choice(sorted(self.directories - {""})), top, name)
            await self.check(self.rng.choice(sorted(self.directories)))
            await self.pause()


async def passers_by(tree: Tree, rng: random.Random) -> None:
    """Somebody else who walks, lists, looks up, and asks for attributes, and does not mind what is gone."""
    while True:
        waiting = [tree.root]
        try:
            while waiting:
                directory = waiting.pop(rng.randrange(len(waiting)))
                listing, after = tree.listing(directory), 0
                while batch := await listing.batch(after, rng.choice((1, 5, 100)), kinds=rng.random() < 0.5):
                    after = batch[-1][0]
                    waiting += [child for _, _, child in batch if child.is_dir]
                    child = rng.choice(batch)[2]
                    if rng.random() < 0.3:
                        await tree.lookup(directory, rng.choice(NAMES).encode())
                    if rng.random() < 0.5 and not child.unlinked:
                        await tree.refresh(child, force=rng.random() < 0.5)
                    if rng.random() < 0.2:
                        await trio.sleep(rng.choice((0.1, 3)))
        except OSError as exc:
            if exc.errno not in (errno.ENOENT, errno.ESTALE):  # it was removed, or taken for removed, before it was reached
                raise
        await trio.sleep(rng.choice((0, 0.5, 4)))


@pytest.mark.parametrize("posix", [False, True])
@pytest.mark.parametrize("page", [2, 5, 1000])
def test_own_changes_are_never_lost_nor_shown_stale(page: int, posix: bool) -> None:
    async def one(seed: int) -> None:
        rng = random.Random(seed)
        store = Names(page=page)
        store.leaves = lambda key: rng.random() < 0.1
        for directory in DIRECTORIES[1:]:
            store.set(directory, b"", uid=str(rng.randrange(100, 999)))
        for _ in range(15):
            key = rng.choice(DIRECTORIES) + rng.choice(NAMES)
            if key + "/" not in store.objects:
                store.set(key, uid=str(rng.randrange(100, 999)))
        store.before = store.after = lambda: rng.choice((0, 0, 0.1, 1, 4))
        ttl = rng.choice((0.0, 1.0, 5.0, 60.0))
        async with tree_over(store, posix=posix, metadata_ttl=ttl, negative_ttl=ttl) as tree, trio.open_nursery() as nursery:
            for _ in range(rng.choice((1, 3))):
                nursery.start_soon(passers_by, tree, rng)
            with trio.fail_after(100_000):
                await Mount(tree, store, rng).work(40)
            nursery.cancel_scope.cancel()

    for seed in range(8):
        try:
            trio.run(one, seed, clock=trio.testing.MockClock(autojump_threshold=0))
        except BaseException as exc:
            exc.add_note(f"seed {seed}")
            raise
