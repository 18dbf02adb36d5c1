"""A running object store, as tests and benchmarks see it."""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass


@dataclass(frozen=True)
class Server:
    """Where a server answers, and who may ask. *kind* is "rgw" or "weed"."""

    url: str
    access_key: str
    secret_key: str
    kind: str
    tls_url: str = ""
    ca_file: str = ""
    conf: str = ""  # ceph.conf, for radosgw-admin


def free_ports(n: int) -> list[int]:
    """*n* ports of the loopback interface that nobody listens on now, below those that the kernel gives to outgoing connections."""
    found: list[int] = []
    while len(found) < n:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found
