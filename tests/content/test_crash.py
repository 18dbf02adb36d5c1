"""`kill -9` while a program writes: what was acknowledged is there afterwards, byte for byte, and nothing half-written ever was."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.content.workload import MIB, digest, reach
from zosfs.content.content import Content
from zosfs.content.memory import MemoryBudget
from zosfs.counters import Counters
from zosfs.errors import StoreError
from zosfs.store.api import Store

ROOT = Path(__file__).resolve().parents[2]


class History:
    """What a killed program was promised, and what it was doing."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, str] = {}
        self.under_way: dict[str, set[str]] = {}
        self.ever: dict[str, set[str]] = {}
        self.changes = 0
        self.lines: list[str] = []

    def read(self, text: str) -> None:
        """Take over what the program said."""
        for line in text.splitlines(keepends=True):
            if not line.endswith("\n"):
                break  # killed in the middle of a line
            said = json.loads(line)
            self.lines.append(line)
            for key, state in said["states"].items():
                self.ever.setdefault(key, {""}).add(state)
                if said["word"] == "done":
                    self.acknowledged[key] = state
                    self.under_way.pop(key, None)
                    self.changes += 1
                else:
                    self.under_way.setdefault(key, set()).add(state)

    def told(self, key: str) -> str:
        """All that was said of *key*, for a person to find out what went wrong."""
        return "".join(line for line in self.lines if f'"{key}"' in line)

    def allowed(self, key: str) -> set[str]:
        """The states that *key* may have once everything is delivered."""
        return {self.acknowledged.get(key, "")} | self.under_way.get(key, set())


async def state_of(store: Store, key: str) -> str:
    """What another client sees at *key*."""
    try:
        info = await store.head(key)
    except StoreError as exc:
        if exc.status == 404:
            return ""
        raise
    data = bytearray(info.size)
    if data:
        await store.get_range(key, 0, memoryview(data), if_match=info.etag)
    return digest(data)


async def check(url: str, bucket: str, passwd: Path, cache: Path, history: History) -> None:
    """See the bucket as another client does, then deliver what the journal has, and see it again."""
    counters = Counters()
    account = await reach(url, bucket, passwd, counters)
    try:
        store = account.bucket(bucket)
        for key in history.ever:
            assert await state_of(store, key) in history.ever[key], f"{key} is half-written: {history.told(key)}"
        async with trio.open_nursery() as nursery:
            content = Content(
                store, account.exchange.options, counters, nursery, budget=MemoryBudget(64 * MIB, counters), cache_dir=cache
            )
            with trio.fail_after(240):
                await content.start()
                while content.earlier.pending():  # noqa: ASYNC110
                    await trio.sleep(0.02)
            left = content.records()
            await content.aclose()
            nursery.cancel_scope.cancel()
        assert left == [], "something acknowledged is not delivered"
        for key in history.ever:
            assert await state_of(store, key) in history.allowed(key), f"{key} is not what was acknowledged: {history.told(key)}"
        uploads = (await store.call("list_multipart_uploads")).get("Uploads", [])
        for upload in uploads:
            # one that the server began and whose answer was not heard any more; nothing can be in it
            assert await store.list_parts(upload["Key"], upload["UploadId"]) == [], "an upload with parts is left behind"
            await store.abort_upload(upload["Key"], upload["UploadId"])
        for key in history.ever:
            await store.delete(key)
    finally:
        await account.aclose()


@pytest.mark.parametrize("mode", ["store", "journal"])
@pytest.mark.parametrize("rounds", [2, pytest.param(100, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
def test_killed_at_any_moment(rgw: Any, tmp_path: Path, mode: str, rounds: int) -> None:
    passwd = tmp_path / "passwd"
    passwd.touch(mode=0o600)
    passwd.write_text(f"{rgw.access_key}:{rgw.secret_key}\n")
    bucket = f"writer-{uuid.uuid4().hex[:12]}"
    seed = os.environ.get("ZOSFS_TEST_SEED") or ("same" if rounds < 100 else uuid.uuid4().hex[:8])
    chance = random.Random(seed)
    trio.run(_create, rgw.url, bucket, passwd)
    changes = 0
    for at in range(rounds):
        said = tmp_path / "said"
        with said.open("wb") as out:
            child = subprocess.Popen(
                [sys.executable, "-m", "tests.content.workload", rgw.url, bucket, passwd, tmp_path / "cache", mode, f"{seed}{at}"],
                cwd=ROOT, stdout=out, stderr=subprocess.PIPE,
            )  # fmt: skip
        try:
            # it dies some moment after so many words: a busy machine gives it no less to do
            words = chance.randint(1 if at else 20, 60)
            deadline = time.monotonic() + 240
            while said.read_bytes().count(b"\n") < words and child.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.1))
        finally:
            child.send_signal(signal.SIGKILL)
            _, complaint = child.communicate()
        assert child.returncode == -signal.SIGKILL, complaint.decode()
        history = History()
        history.read(said.read_text())
        changes += history.changes
        try:
            trio.run(check, rgw.url, bucket, passwd, tmp_path / "cache", history)
        except BaseException as exc:
            exc.add_note(f"ZOSFS_TEST_SEED={seed}, round {at}, {mode}")
            raise
    assert changes >= 3 * rounds
    trio.run(_delete, rgw.url, bucket, passwd)


async def _create(url: str, bucket: str, passwd: Path) -> None:
    account = await _account(url, passwd)
    await account.create_bucket(bucket)
    await account.aclose()


async def _delete(url: str, bucket: str, passwd: Path) -> None:
    account = await _account(url, passwd)
    for thing in (await account.bucket(bucket).list_page("")).objects:
        await account.bucket(bucket).delete(thing.key)
    await account.delete_bucket(bucket)
    await account.aclose()


async def _account(url: str, passwd: Path) -> Any:
    return await reach(url, "", passwd, Counters())
