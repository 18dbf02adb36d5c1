"""What systemd is told: READY, STATUS, STOPPING, more time, and that the trio loop still turns.

Owns: the notification socket. Without $NOTIFY_SOCKET everything here does nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

import trio


class Notifier:
    """Sends to the service manager that started this process, if one did."""

    def __init__(self, address: str = "", watchdog: float = 0.0) -> None:
        """*address* as in $NOTIFY_SOCKET ("": nobody listens); *watchdog* seconds between two signs of life (0: none asked)."""
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog = watchdog

    @classmethod
    def from_environ(cls, environ: MutableMapping[str, str] = os.environ) -> Notifier:
        """The notifier that the environment names; takes the variables away, for they are not for our children."""
        address = environ.pop("NOTIFY_SOCKET", "")
        usec, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        meant = not pid or pid == str(os.getpid())
        return cls(address, int(usec) / 2e6 if usec.isdigit() and meant else 0.0)

    def send(self, **fields: str | int) -> None:
        """Send *fields* as NAME=value lines; a manager that does not listen is no error."""
        if not self._address:
            return
        text = "\n".join(f"{name}={' '.join(str(value).split())}" for name, value in fields.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as link:
                link.sendto(text.encode(), self._address)
        except OSError:
            pass

    def ready(self, status: str) -> None:
        """The mount is live."""
        self.send(READY=1, STATUS=status, MAINPID=os.getpid())

    def status(self, text: str) -> None:
        """What `systemctl status` shows."""
        self.send(STATUS=text)

    async def ask_for_time(self) -> None:
        """Say STOPPING, and every second ask for five more, until cancelled: a delivery may take long."""
        self.send(STOPPING=1)
        while True:
            self.send(EXTEND_TIMEOUT_USEC=5_000_000)
            await trio.sleep(1)

    async def keep_watchdog(self) -> None:
        """Give signs of life from the trio loop itself, until cancelled, so that a blocked loop is noticed."""
        while self._watchdog > 0:
            self.send(WATCHDOG=1)
            await trio.sleep(self._watchdog)
