"""The last delivery ends although the server never answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from zosfs.mount.drain import MARGIN, ONCE_MORE, LastDelivery


class Silent:
    """A mount of which every delivery hangs; *answering* until that second the server is heard."""

    def __init__(self, answering: float = 0) -> None:
        self.answering = answering
        self.kept: list[OSError] = []
        self.options = SimpleNamespace(read_timeout=60.0, retry_timeout=120.0)
        self.account = self
        self.files = self
        self.inode = SimpleNamespace(key="f", attributes=SimpleNamespace(size=1))

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
