"""The real servers, started once a run on free ports of the loopback interface (or given, already running, by their URLs)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.servers.rgw import running_rgw
from tests.servers.server import Server
from tests.servers.weed import running_weed

# One run decides whether work is taken: it tries the same examples every time, and no machine is too slow for them. New
# examples are looked for by `make test-long`.
settings.register_profile(
    "fixed", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("search", derandomize=False, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("fixed")


@pytest.fixture(scope="session")
def rgw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Ceph RADOS gateway; ZOSFS_TEST_RGW names a running one (keys zosak, zossk)."""
    given = os.environ.get("ZOSFS_TEST_RGW")
    if given:
        yield Server(given, "zosak", "zossk", "rgw", conf=os.environ.get("ZOSFS_TEST_RGW_CONF", ""))
        return
    # unix socket paths are short: not below pytest's own long directories
    with running_rgw(Path("/tmp") / f"zosfs-rgw-{os.getpid()}") as running:
        yield running.server


@pytest.fixture(scope="session")
def weed() -> Iterator[Server]:
    """A SeaweedFS; ZOSFS_TEST_WEED names a running one."""
    given = os.environ.get("ZOSFS_TEST_WEED")
    if given:
        yield Server(given, "zosak", "zossk", "weed")
        return
    with running_weed(Path("/tmp") / f"zosfs-weed-{os.getpid()}") as server:
        yield server
