"""What a network and a busy server do to requests, at random: for a Proxy's `intercept`."""

from __future__ import annotations

import random
from collections import Counter

from tests.proxy import answer

PATIENT = {"read_timeout": 2, "retries": 12, "part_size": "5M", "multipart_threshold": "8M"}
"""Options of a mount that sits it all out, with parts small enough for many."""


class Mischief:
    """Meets each request with a fault or none; how often with which is in `met`."""

    def __init__(self, seed: str) -> None:
        self.chance = random.Random(seed)
        self.met: Counter[str] = Counter()

    def __call__(self, method: str, target: str) -> bytes | str | None:
        if method == "POST" and "uploadId=" in target and self.chance.random() < 0.5:
            self.met["an error in a 200"] += 1
            return answer(200, "InternalError", "OK")
        at = self.chance.random()
        for fault, share in (("reset", 0.05), ("503", 0.10), ("lost", 0.03), ("truncated", 0.03), ("slow", 0.02), ("stalled", 0.005)):
            if at < share:
                self.met[fault] += 1
                return answer(503, "SlowDown") if fault == "503" else fault
            at -= share
        return None
