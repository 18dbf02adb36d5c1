"""The numbers of a mount for Prometheus: option `metrics`.

Owns: the listener. prometheus_client speaks HTTP and the format, in threads of its own; what they tell is looked up on the trio thread,
once for each time that somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import trio
from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from zosfs.counters import METRICS, Counters
from zosfs.mount.refusal import Refusal

REQUESTS = "requests_"
"""What the names of counters of requests begin with; what follows is the verb."""

GAUGES: Mapping[str, str] = {
    "inodes": "files and directories that are known",
    "open_files": "files that are open",
    "undelivered_files": "files of which the store does not have everything yet",
    "dirty_bytes": "bytes written and not in the store yet",
    "staged_bytes": "bytes of the disk that written files take",
    "journal_records": "what the journal has: promises, conflicts, what could not be delivered",
    "cache_bytes": "bytes of objects in the local chunk cache",
    "memory_bytes": "bytes in flight and read ahead",
}
"""What goes up and down, by name."""

Look = Callable[[], Mapping[str, float]]
"""Tells the GAUGES of now; called on the trio thread."""


def address(text: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``, ``[HOST]:PORT``, ``:PORT`` or ``PORT`` (of the loopback interface). ValueError for others."""
    host, _, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]") or "127.0.0.1", int(port)


def gauges(status: Mapping[str, Any], inodes: int, memory: int) -> dict[str, float]:
    """The GAUGES, of what `zosfs status` shows and the rest (pure)."""
    buckets = status["buckets"].values()
    return {
        "inodes": inodes,
        "open_files": status["open_files"],
        "undelivered_files": len(status["undelivered"]),
        "dirty_bytes": sum(bucket["dirty_bytes"] for bucket in buckets),
        "staged_bytes": sum(bucket["staged_bytes"] for bucket in buckets),
        "journal_records": sum(len(bucket["journal"]) for bucket in buckets),
        "cache_bytes": sum(bucket["cache"]["bytes"] for bucket in buckets),
        "memory_bytes": memory,
    }


class _Numbers(Collector):
    def __init__(self, counters: Counters, look: Look, about: Mapping[str, str]) -> None:
        self._counters = counters
        self._look = look
        self._about = dict(about)
        self._token = trio.lowlevel.current_trio_token()

    def collect(self) -> Iterator[Metric]:
        counted, now = trio.from_thread.run_sync(lambda: (dict(self._counters), self._look()), trio_token=self._token)
        yield InfoMetricFamily("zosfs_mount", "what is mounted where", value=self._about)
        requests = CounterMetricFamily("zosfs_requests", "requests sent to the store, tries included", labels=["verb"])
        for name, help in METRICS.items():
            if name.startswith(REQUESTS):
                requests.add_metric([name.removeprefix(REQUESTS)], counted[name])
            else:
                yield CounterMetricFamily(f"zosfs_{name}", help, value=counted[name])
        yield requests
        for name, help in GAUGES.items():
            yield GaugeMetricFamily(f"zosfs_{name}", help, value=now[name])


@contextmanager
def served(option: str, counters: Counters, look: Look, about: Mapping[str, str]) -> Iterator[None]:
    """Within, the *counters* and what *look* tells are served at the address that *option* says, with *about* the mount and what the
    system knows of the process. Refusal for what is no address, and where nothing can listen.
    """
    try:
        host, port = address(option)
    except ValueError:
        raise Refusal(f"metrics={option}: not of the form HOST:PORT") from None
    registry = CollectorRegistry()
    registry.register(_Numbers(counters, look, about))
    ProcessCollector(registry=registry)
    try:
        server, _ = start_http_server(port, host, registry)
    except OSError as error:
        raise Refusal(f"metrics={option}: nothing can listen there ({error.strerror})") from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
