"""A program that writes through a Content until somebody kills it, and says on its standard output what it was promised.

``python -m tests.content.workload URL BUCKET CACHE MODE SEED`` with MODE ``store`` (a change is acknowledged when the store has it)
or ``journal`` (when the journal has it). One JSON line before each change (``try``) and one after it was acknowledged (``done``):
the key, and the SHA-256 of what is in it then ("" for nothing).
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from pathlib import Path

import trio

from zosfs.config import Options
from zosfs.content.content import Content
from zosfs.content.memory import MemoryBudget
from zosfs.content.writer import Writer
from zosfs.counters import Counters
from zosfs.store.account import S3Account
from zosfs.store.api import ObjectHeaders
from zosfs.store.connect import check, connect

MIB = 1 << 20
SIZES = (0, 1, 3000, 70_000, 300_000, 6 * MIB, 21 * MIB)
PLAIN = ObjectHeaders({"mode": "33188"}, "text/plain")


def options(url: str, passwd: Path) -> Options:
    """Small parts, so that uploads have several."""
    return Options(
        url=url, passwd_file=str(passwd), use_path_request_style=True, part_size=5 * MIB, multipart_threshold=8 * MIB, free_space=0
    )  # fmt: skip


async def reach(url: str, bucket: str, passwd: Path, counters: Counters) -> S3Account:
    """A connected account that knows what the bucket can do."""
    account = await connect(options(url, passwd), counters)
    await check(account, bucket)
    return account


def digest(data: bytes | bytearray) -> str:
    """What a state is called."""
    return hashlib.sha256(data).hexdigest()


class Clerk:
    """Changes the files ``NAME-0`` … of its own, one after the other, and says so."""

    def __init__(self, content: Content, mode: str, name: str, chance: random.Random) -> None:
        self.content, self.mode, self.name, self.chance = content, mode, name, chance
        self.states: dict[str, bytearray] = {}
        self.writers: dict[str, Writer] = {}

    def say(self, word: str, **states: str) -> None:
        print(json.dumps({"word": word, "states": states}), flush=True)

    async def keep(self, key: str) -> None:
        """Have what was written to *key* acknowledged."""
        writer = self.writers[key]
        self.say("try", **{key: digest(self.states[key])})
        if self.mode == "store":
            await writer.deliver()
        else:
            await writer.promise()
            if self.chance.random() < 0.5:
                self.content.nursery.start_soon(self.upload, writer)
        self.say("done", **{key: digest(self.states[key])})

    async def upload(self, writer: Writer) -> None:
        await trio.sleep(self.chance.random() * 0.05)
        if not writer.draft.unlinked:
            await writer.deliver(only_promised=True)

    async def create(self, key: str) -> None:
        appending = self.chance.random() < 0.3
        if appending:
            self.say("try", **{key: digest(b"")})  # a log is created empty, and then grows
        writer = self.content.writer(key, None, appending=appending)
        writer.draft.headers = lambda: PLAIN
        writer.on_delivered = lambda info: None
        self.writers[key] = writer
        self.states[key] = bytearray()
        await self.write(key, 0, self.chance.choice(SIZES))

    async def write(self, key: str, at: int, length: int) -> None:
        data = self.chance.randbytes(length)
        state, writer = self.states[key], self.writers[key]
        for start in range(0, length, MIB):
            await writer.write(at + start, data[start : start + MIB])
        state.extend(bytes(max(0, at + length - len(state))))
        state[at : at + length] = data

    async def work(self) -> None:
        """Change files for ever."""
        while True:
            key = f"{self.name}-{self.chance.randrange(3)}"
            if key not in self.writers:
                await self.create(key)
                await self.keep(key)
                continue
            writer, state = self.writers[key], self.states[key]
            match self.chance.choice(("overwrite", "append", "edit", "cut", "unlink", "rename")):
                case "overwrite":
                    await writer.truncate(0)
                    state.clear()
                    await self.write(key, 0, self.chance.choice(SIZES))
                    await self.keep(key)
                case "append":
                    await self.write(key, len(state), self.chance.choice(SIZES[1:5]))
                    await self.keep(key)
                case "edit" if state:
                    await self.write(key, self.chance.randrange(len(state)), 1000)
                    await self.keep(key)
                case "cut" if state:
                    size = self.chance.randrange(len(state))
                    await writer.truncate(size)
                    del state[size:]
                    await self.keep(key)
                case "unlink":
                    self.say("try", **{key: ""})
                    await self.unlink(key)
                    self.say("done", **{key: ""})
                case "rename":
                    await self.rename(key, f"{self.name}-{self.chance.randrange(3)}")

    async def unlink(self, key: str) -> None:
        writer = self.writers.pop(key)
        await self.content.settle(key)
        await self.content.discard(key)
        await self.content.settle(key)
        await self.content.store.delete(key)
        await self.content.deletion_done(key)
        await writer.discard()
        await writer.aclose()
        del self.states[key]

    async def rename(self, key: str, target: str) -> None:
        writer = self.writers[key]
        if target in self.writers or not writer.dirty or writer.draft.base is not None:
            return
        if writer.draft.appending:
            self.say("try", **{target: digest(b"")})
        self.say("try", **{key: "", target: digest(self.states[key])})
        if await writer.rename_undelivered(target):
            self.writers[target] = self.writers.pop(key)
            self.states[target] = self.states.pop(key)
            self.say("done", **{key: "", target: digest(self.states[target])})
        else:
            self.say("done", **{key: digest(self.states[key])})


async def main(*words: str) -> None:
    """Work until killed."""
    url, bucket, passwd, cache, mode, seed = words
    counters = Counters()
    account = await reach(url, bucket, Path(passwd), counters)
    async with trio.open_nursery() as nursery:
        content = Content(
            account.bucket(bucket), account.exchange.options, counters, nursery, budget=MemoryBudget(64 * MIB, counters),
            cache_dir=Path(cache),
        )  # fmt: skip
        await content.start()
        for at in range(3):
            clerk = Clerk(content, mode, f"{seed}-{at}", random.Random(f"{seed} {at}"))
            nursery.start_soon(clerk.work)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
