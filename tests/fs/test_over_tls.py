"""What moves bytes once more over TLS, on Ceph, with a certificate authority of our own.

The other calls and programs are in `test_posix_over_tls`, for the long suite: they say nothing of the connection.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.fs.conftest import client
from tests.fs.mounting import passwd_file, zosfs
from tests.fs.test_posix import (  # noqa: F401  # the same tests, collected here with this module's server
    test_append_after_truncate,
    test_attributes_survive_a_remount,
    test_open_flags,
    test_read_and_write_at_any_offset,
    test_rename,
    test_sparse_files,
    test_truncate,
)
from tests.fs.test_programs import (  # noqa: F401
    test_cp_mv_rm,
    test_sha256sum_of_a_large_file,
    test_two_processes_append_to_one_file,
)
from tests.servers.server import Server


@pytest.fixture(scope="session")
def server(rgw: Server) -> Server:
    """Ceph through its TLS port."""
    if not rgw.tls_url:
        pytest.skip("the running gateway named by ZOSFS_TEST_RGW has no TLS port")
    return dataclasses.replace(rgw, url=rgw.tls_url)


@pytest.fixture(scope="session")
def s3(server: Server) -> Any:
    """A client of this module's server: the suite's own is kept from the server before."""
    return client(server)


def test_an_unknown_certificate_is_refused(server: Server, bucket: str, tmp_path: Path) -> None:
    """Without -o ca_file the mount is refused with one line that names the way out."""
    there = tmp_path / "m"
    there.mkdir()
    done = zosfs(bucket, there, "-o", f"url={server.url},passwd_file={passwd_file(tmp_path, server)},cache_dir={tmp_path}/cache")
    assert done.returncode == 32
    assert "certificate" in done.stderr
    assert "ca_file" in done.stderr
    assert done.stderr.count("\n") == 1
