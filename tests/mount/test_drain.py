"""The last delivery ends although the server never answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from zosfs.content.patience import Patience
from zosfs.mount.drain import MARGIN, ONCE_MORE, LastDelivery


class Silent:
    """A mount of which every delivery hangs; *answering* until that second the server is heard."""

    def __init__(self, answering: float = 0) -> None:
        self.answering = answering
        self.kept: list[OSError] = []
        self.options = SimpleNamespace(read_timeout=60.0, retry_timeout=120.0)
        self.account = self
        self.open_files = self.deliveries = self
        self.inode = SimpleNamespace(key="f", attributes=SimpleNamespace(size=1))
        self.promised = False

    def silence(self) -> float:
        return max(0.0, trio.current_time() - self.answering)

    def undelivered(self) -> list[Any]:
        return [self]

    async def deliver(self, file: Any) -> None:
        await trio.sleep_forever()

    async def keep(self, failure: OSError) -> None:
        self.kept.append(failure)


@pytest.mark.parametrize("answering", [0, 1000])
def test_silence_ends_it_and_the_journal_keeps_the_rest(answering: float) -> None:
    mount: Any = Silent()

    async def main() -> list[float]:
        mount.answering = trio.current_time() + answering
        took = []
        last = LastDelivery(mount, mount)
        for _ in range(2):
            began = trio.current_time()
            with pytest.raises(OSError, match="the server is away"):
                await last(lambda files, size: None)
            took.append(trio.current_time() - began)
        return took

    first, second = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert answering + 120 + MARGIN <= first < answering + 125 + MARGIN, "as long as it is heard it is waited for"
    assert second <= ONCE_MORE + 1, "once more, but not for long"
    assert len(mount.kept) == 2


class Many:
    """Files that are delivered at once; *asked* counts how often their sizes were looked at."""

    def __init__(self, number: int) -> None:
        self.asked = 0
        self.number = number
        self.inode = self
        self.attributes = self
        self.key = "f"
        self.promised = False

    @property
    def size(self) -> int:
        self.asked += 1
        return 3

    def undelivered(self) -> list[Any]:
        return [self] * self.number

    async def deliver(self, file: Any) -> None:
        await trio.lowlevel.checkpoint()


def test_what_is_left_is_told_now_and_then_at_a_cost_that_grows_with_the_files_only() -> None:
    files: Any = Many(2000)
    told: list[tuple[int, int]] = []

    async def main() -> None:
        last = LastDelivery(SimpleNamespace(open_files=files, deliveries=files), files)  # type: ignore[arg-type]
        await last._files(lambda left, size: told.append((left, size)), Patience())

    trio.run(main, clock=trio.testing.MockClock())
    assert told == [(2000, 6000), (0, 0)], "no time passed in between"
    assert files.asked == 2000
