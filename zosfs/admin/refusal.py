"""What is refused here, before anything is sent: an errno, and the line that says what is wrong and where."""

from __future__ import annotations

import errno
import os


class Refusal(OSError):
    """A value that the server would refuse. *text* is the line to print or log; `errno` is EINVAL unless given."""

    def __init__(self, text: str, number: int = errno.EINVAL) -> None:
        super().__init__(number, os.strerror(number))
        self.text = text

    def __str__(self) -> str:
        return self.text


def nothing(what: str) -> Refusal:
    """There is no *what*: ENODATA."""
    return Refusal(f"there is no {what}", errno.ENODATA)
