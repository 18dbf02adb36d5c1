"""What a network and a busy server do to requests, at random: for a Proxy's `intercept`."""

from __future__ import annotations

import random
from collections import Counter

from tests.proxy import answer

PATIENT = {"read_timeout": 2, "retries": 12, "part_size": "5M", "multipart_threshold": "8M"}
"""Options of a mount that sits it all out, with parts small enough for many."""

IN_A_ROW = 8
"""Faults that one request meets at most: fewer than PATIENT sends it again, or a long run fails by chance (13 completes of 13 refused)."""


class Mischief:
    """Meets each request with a fault or none; how often with which is in `met`."""

    def __init__(self, seed: str) -> None:
        self.chance = random.Random(seed)
        self.met: Counter[str] = Counter()
        self._in_a_row: Counter[tuple[str, str]] = Counter()

    def __call__(self, method: str, target: str) -> bytes | str | None:
        fault = self._fault(method, target)
        self._in_a_row[method, target] += 1
        if fault is None or self._in_a_row[method, target] > IN_A_ROW:
            del self._in_a_row[method, target]
            return None
        self.met[fault] += 1
        match fault:
            case "an error in a 200":
                return answer(200, "InternalError", "OK")
            case "503":
                return answer(503, "SlowDown")
        return fault

    def _fault(self, method: str, target: str) -> str | None:
        if method == "POST" and "uploadId=" in target and self.chance.random() < 0.5:
            return "an error in a 200"
        at = self.chance.random()
        for fault, share in (("reset", 0.05), ("503", 0.10), ("lost", 0.03), ("truncated", 0.03), ("slow", 0.02), ("stalled", 0.005)):
            if at < share:
                return fault
            at -= share
        return None
