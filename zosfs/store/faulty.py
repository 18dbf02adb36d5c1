"""A Store that misbehaves by script, around any other: requests that do not arrive, answers that get lost, latency.

Owns: the script and the log of calls. Serves the tests of the rooms above, and whoever wants to see what a mount does in bad weather.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

import trio

from zosfs.errors import StoreError
from zosfs.store.api import Abilities, Store

VERBS = (
    "head", "list_page", "get_range", "put", "append", "create_upload", "upload_part", "upload_part_copy", "complete_upload",
    "abort_upload", "list_parts", "copy", "delete", "delete_many", "get_tags", "put_tags", "get_acl", "put_acl", "usage", "call",
)  # fmt: skip
Fault = StoreError | Callable[[], None] | None


class FaultyStore:
    """Passes every verb of Store on to *store*, after what the script says.

    `fail` makes the next call of a verb fail without reaching the store, `lose` lets it happen and loses the answer, `between` runs a
    function right before it, `latency` are seconds that each call waits. *calls* are the verbs called, in order.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.latency = 0.0
        self.calls: list[str] = []
        self._before: dict[str, deque[Fault]] = defaultdict(deque)
        self._after: dict[str, deque[Fault]] = defaultdict(deque)

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self.store.bucket

    @property
    def abilities(self) -> Abilities:
        """What the store can do."""
        return self.store.abilities

    def fail(self, verb: str, failure: StoreError | str = "ConnectionReset", *, skip: int = 0, times: int = 1) -> None:
        """The next *times* calls of *verb*, after *skip* that pass, fail with *failure* (a StoreError, or its code)."""
        self._script(self._before, verb, failure, skip, times)

    def lose(self, verb: str, failure: StoreError | str = "ConnectionReset", *, skip: int = 0, times: int = 1) -> None:
        """As `fail`, but the store does what it was asked."""
        self._script(self._after, verb, failure, skip, times)

    def between(self, verb: str, action: Callable[[], None]) -> None:
        """Run *action* right before the next call of *verb* reaches the store."""
        self._before[verb].append(action)

    def _script(self, script: dict[str, deque[Fault]], verb: str, failure: StoreError | str, skip: int, times: int) -> None:
        if verb not in VERBS:
            raise ValueError(f"no verb {verb}")
        error = StoreError(failure, operation=verb) if isinstance(failure, str) else failure
        script[verb].extend([None] * skip + [error] * times)

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.store, name)
        if name not in VERBS:
            return real

        async def verb(*args: Any, **more: Any) -> Any:
            self.calls.append(name)
            await trio.sleep(self.latency)
            self._meet(self._before[name])
            result = await real(*args, **more)
            self._meet(self._after[name])
            return result

        return verb

    @staticmethod
    def _meet(script: deque[Fault]) -> None:
        fault = script.popleft() if script else None
        if isinstance(fault, StoreError):
            raise fault
        if fault is not None:
            fault()
