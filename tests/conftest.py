"""The real servers, started once a run on free ports of the loopback interface (or given, already running, by their URLs).

They start beside the tests that need none, which therefore come first.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.servers.beside import Beside
from tests.servers.server import Server

# Some environments keep Python from caching what it compiles. The tests start it hundreds of times: half a second each.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# One run decides whether work is taken: it tries the same examples every time, and no machine is too slow for them. New
# examples are looked for by `make test-long`.
settings.register_profile(
    "fixed", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("search", derandomize=False, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("fixed")


SERVERS = ("rgw", "weed")
_beside = pytest.StashKey[dict[str, Beside]]()


def _parameters(item: pytest.Item) -> set[str]:
    callspec = getattr(item, "callspec", None)
    return {value for value in callspec.params.values() if isinstance(value, str)} if callspec else set()


def _needs(item: pytest.Item) -> set[str]:
    """The servers that a test asks for, by fixtures or by their parameters."""
    words = _parameters(item).union(getattr(item, "fixturenames", ()))
    if "tls" in words:
        words.add("rgw")
    return words.intersection(SERVERS)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """What ``long_on`` leaves to the long suite, before others choose; then what needs no server first."""
    for item in items:
        marker = item.get_closest_marker("long_on")
        if marker and not _parameters(item).isdisjoint(marker.args):
            item.add_marker(pytest.mark.long)
    yield
    items.sort(key=lambda item: bool(_needs(item)))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the servers that will be needed."""
    beside = session.config.stash[_beside] = {}
    if not session.config.option.collectonly:
        for kind in sorted({kind for item in session.items for kind in _needs(item)}):
            _start(beside, kind)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End them."""
    for server in config.stash.get(_beside, {}).values():
        server.stop()


def _start(beside: dict[str, Beside], kind: str) -> None:
    if f"ZOSFS_TEST_{kind.upper()}" not in os.environ:
        # unix socket paths are short: not below pytest's own long directories
        beside[kind] = Beside(kind, Path("/tmp") / f"zosfs-{kind}-{os.getpid()}")


def _server(request: pytest.FixtureRequest, kind: str) -> Server:
    given = os.environ.get(f"ZOSFS_TEST_{kind.upper()}")
    if given:
        return Server(given, "zosak", "zossk", kind, conf=os.environ.get("ZOSFS_TEST_RGW_CONF", "") if kind == "rgw" else "")
    beside = request.config.stash[_beside]
    if kind not in beside:
        _start(beside, kind)
    return beside[kind].server


@pytest.fixture(scope="session")
def rgw(request: pytest.FixtureRequest) -> Server:
    """A Ceph RADOS gateway; ZOSFS_TEST_RGW names a running one (keys zosak, zossk)."""
    return _server(request, "rgw")


@pytest.fixture(scope="session")
def weed(request: pytest.FixtureRequest) -> Server:
    """A SeaweedFS; ZOSFS_TEST_WEED names a running one."""
    return _server(request, "weed")
