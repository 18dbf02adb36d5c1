"""Changes on their way to the journal: what is handed over happens, whoever is cancelled."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import trio
import trio.testing

from zosfs.content.commits import Commits


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
