"""Changes in front of the journal: together to the disk, in order, each caller told of its own."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable

import pytest
import trio
import trio.testing

from zosfs.content.commits import Commits


class Disk:
    """What was applied; *slow* makes each batch wait until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.failures: list[OSError | None] = []
        self.gate = threading.Semaphore(0)
        self.entered = threading.Event()
        self.slow = False

    def apply(self, statements: Iterable[bytes]) -> None:
        self.entered.set()
        if self.slow:
            assert self.gate.acquire(timeout=60)
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        self.batches.append(list(statements))


class PromptDisk(Disk):
    """Takes the batches that it *accepts* by itself, and ends those of them that it *ends*; `prompt` are the ones that it made so."""

    def __init__(self, accepts: list[bool], ends: list[bool]) -> None:
        super().__init__()
        self.accepts, self.ends = accepts, ends
        self.prompt: list[list[bytes]] = []
        self.ended = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._begun: list[bytes] = []

    def begin(self, statements: Iterable[bytes]) -> int:
        if not self.accepts.pop(0):
            return -1
        assert not self._begun, "one at a time"
        self._begun = list(statements)
        threading.Thread(target=self._end).start()
        return self.ended

    def _end(self) -> None:
        self.entered.set()
        if self.slow:
            assert self.gate.acquire(timeout=60)
        os.eventfd_write(self.ended, 1)

    def finish(self) -> bool:
        os.eventfd_read(self.ended)
        begun, self._begun = self._begun, []
        if self.ends.pop(0):
            self.batches.append(begun)
            self.prompt.append(begun)
            return True
        return False


async def entered(disk: Disk) -> None:
    with trio.fail_after(60):
        while not disk.entered.is_set():  # noqa: ASYNC110 - set by a thread
            await trio.sleep(0.001)


def test_what_arrives_while_the_disk_is_busy_goes_together() -> None:
    async def main() -> None:
        disk = Disk()
        disk.slow = True
        commits = Commits(disk.apply)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(commits.commit, b"first")
            await entered(disk)
            for number in range(50):
                nursery.start_soon(commits.commit, b"%d" % number)
            await trio.testing.wait_all_tasks_blocked()
            disk.gate.release(2)
        assert disk.batches == [[b"first"], disk.batches[1]]
        assert sorted(disk.batches[1]) == sorted(b"%d" % number for number in range(50))
        commits.close()

    trio.run(main)


def test_a_failure_is_everybodys_in_the_batch_and_nobody_elses() -> None:
    async def main() -> None:
        disk = Disk()
        disk.slow = True
        disk.failures = [None, OSError(errno.ENOSPC, "full"), None]
        commits = Commits(disk.apply)
        told: list[int] = []

        async def failing(statement: bytes) -> None:
            with pytest.raises(OSError, match="full") as caught:
                await commits.commit(statement)
            told.append(caught.value.errno or 0)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(commits.commit, b"a")
            await entered(disk)
            nursery.start_soon(failing, b"b")
            nursery.start_soon(failing, b"c")
            await trio.testing.wait_all_tasks_blocked()
            disk.gate.release(3)
        await commits.commit(b"d")
        assert told == [errno.ENOSPC] * 2
        assert disk.batches == [[b"a"], [b"d"]]
        commits.close()

    trio.run(main)


def test_calls_of_their_own_keep_the_order_and_return_what_they_return() -> None:
    async def main() -> None:
        disk = Disk()
        disk.slow = True
        commits = Commits(disk.apply)
        seen: list[list[list[bytes]]] = []

        async def look() -> None:
            seen.append(await commits.alone(lambda: [list(batch) for batch in disk.batches]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(commits.commit, b"a")
            await entered(disk)
            nursery.start_soon(commits.commit, b"b")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(look)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(commits.commit, b"c")
            await trio.testing.wait_all_tasks_blocked()
            disk.gate.release(3)
        assert seen == [[[b"a"], [b"b"]]]
        assert disk.batches == [[b"a"], [b"b"], [b"c"]]
        with pytest.raises(KeyError):
            await commits.alone({}.__getitem__, "missing")
        commits.close()

    trio.run(main)


def test_a_cancelled_caller_waits_for_what_is_at_the_disk() -> None:
    async def main() -> None:
        disk = Disk()
        disk.slow = True
        commits = Commits(disk.apply)
        ended: list[list[list[bytes]]] = []

        async def cancelled() -> None:
            try:
                await commits.commit(b"a")
                await trio.lowlevel.checkpoint()
            finally:
                ended.append([list(batch) for batch in disk.batches])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancelled)
            await entered(disk)
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.sleep(0.05)
                assert ended == []
                disk.gate.release()
        assert ended == [[[b"a"]]]
        with trio.CancelScope() as scope:
            scope.cancel()
            await commits.commit(b"not begun")
        disk.gate.release()
        await commits.commit(b"b")
        assert disk.batches == [[b"a"], [b"b"]]
        commits.close()

    trio.run(main)


def test_what_is_handed_over_happens_and_who_is_cancelled_hands_nothing_over() -> None:
    applied: list[bytes] = []
    disk = threading.Event()

    def apply(statements: Iterable[bytes]) -> None:
        disk.wait(60)
        applied.extend(statements)

    async def main() -> None:
        commits = Commits(apply)
        ended: list[str] = []

        async def two(name: str) -> None:
            await commits.commit(f"{name} first".encode())
            ended.append(name)
            await commits.commit(f"{name} second".encode())
            ended.append("never")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(two, "a")
            nursery.start_soon(two, "b")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            disk.set()
        assert sorted(ended) == ["a", "b"]
        await commits.alone(lambda: applied.append(b"the end"))
        commits.close()

    trio.run(main)
    assert sorted(applied[:2]) == [b"a first", b"b first"]
    assert applied[2:] == [b"the end"]


def test_what_the_disk_does_not_take_or_end_by_itself_the_thread_does() -> None:
    async def main() -> None:
        disk = PromptDisk([True, False, True, True], [True, False, True])
        commits = Commits(disk.apply, disk.begin, disk.finish)
        for statement in (b"a", b"b", b"c", b"d"):
            await commits.commit(statement)
        assert disk.batches == [[b"a"], [b"b"], [b"c"], [b"d"]]
        assert disk.prompt == [[b"a"], [b"d"]]
        assert await commits.alone(lambda: len(disk.batches)) == 4
        commits.close()
        os.close(disk.ended)

    trio.run(main)


def test_what_arrives_while_the_disk_writes_by_itself_waits_for_its_end() -> None:
    async def main() -> None:
        disk = PromptDisk([True] * 3, [True, False, True])
        disk.slow = True
        commits = Commits(disk.apply, disk.begin, disk.finish)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(commits.commit, b"first")
            await entered(disk)
            for number in range(20):
                nursery.start_soon(commits.commit, b"%d" % number)
            await trio.testing.wait_all_tasks_blocked()
            disk.gate.release(3)
        assert disk.batches == [[b"first"], disk.batches[1]]
        assert sorted(disk.batches[1]) == sorted(b"%d" % number for number in range(20))
        with trio.CancelScope() as scope:
            scope.cancel()
            await commits.commit(b"not begun")
        assert len(disk.batches) == 2
        commits.close()
        os.close(disk.ended)

    trio.run(main)


def test_a_cancelled_caller_waits_for_what_the_disk_writes_by_itself() -> None:
    async def main() -> None:
        disk = PromptDisk([True], [True])
        disk.slow = True
        commits = Commits(disk.apply, disk.begin, disk.finish)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(commits.commit, b"a")
            await entered(disk)
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.sleep(0.05)
                assert disk.batches == []
                disk.gate.release()
        assert disk.batches == [[b"a"]]
        commits.close()
        os.close(disk.ended)

    trio.run(main)
