"""A running object store, as tests and benchmarks see it."""

from __future__ import annotations

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
    """*n* ports of the loopback interface that nobody listens on now."""
    sockets = [socket.socket() for _ in range(n)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
