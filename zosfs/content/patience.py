"""When the last delivery stops trying a server that is away (pure).

Owns: what became of the tries of one last delivery. Must not know: time, tasks, files.
"""

from __future__ import annotations

from zosfs.errors import StoreError

IN_A_ROW = 8
"""Tries that fail one after the other, without any that went well between them, before the rest is not tried."""


class Patience:
    """Counts the failures of one last delivery; a refusal is an answer, and says nothing of the next file."""

    def __init__(self) -> None:
        self.failures: list[OSError] = []
        self._in_a_row = 0

    def delivered(self) -> None:
        """Something arrived: the server is there."""
        self._in_a_row = 0

    def failed(self, failure: OSError) -> None:
        """A try ended with *failure*."""
        self.failures.append(failure)
        if isinstance(failure, StoreError) and failure.retry:
            self._in_a_row += 1
        else:
            self._in_a_row = 0

    @property
    def exhausted(self) -> bool:
        """Whether to begin no more of the same."""
        return self._in_a_row >= IN_A_ROW

    @property
    def away(self) -> bool:
        """Whether the server was not there when it was tried last."""
        return self._in_a_row > 0
