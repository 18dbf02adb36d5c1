"""Stores for the tests: `run` gives a test's coroutine a fresh bucket on a real server and deletes it afterwards."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from tests.servers.server import Server
from zosfs.config import Options
from zosfs.counters import Counters
from zosfs.store.account import S3Account
from zosfs.store.credentials import Fixed
from zosfs.store.s3 import S3Store
from zosfs.store.sigv4 import Credentials

Test = Callable[[S3Store], Awaitable[None]]


def account(server: Server, url: str = "", **options: Any) -> S3Account:
    """An account on *server*, perhaps by another way to it (*url*)."""
    given = {"read_timeout": 20.0, **options}
    keys = Credentials(server.access_key, server.secret_key)
    return S3Account(Options(url=url or server.url, **given), Counters(), Fixed(keys))


@asynccontextmanager
async def fresh_bucket(server: Server, **members: Any) -> AsyncIterator[str]:
    """The name of a new bucket, deleted afterwards with all that is in it, versions and uploads too."""
    straight = account(server)
    name = f"store-{uuid.uuid4().hex[:16]}"
    await straight.create_bucket(name, **members)
    try:
        yield name
    finally:
        with trio.CancelScope(shield=True):
            store = straight.bucket(name)
            for upload in (await store.call("list_multipart_uploads")).get("Uploads", []):
                await store.abort_upload(upload["Key"], upload["UploadId"])
            while keys := [entry.key for entry in (await store.list_page("")).objects]:
                for key in keys:
                    await store.delete(key)
            versions = await store.call("list_object_versions")
            for entry in [*versions.get("Versions", []), *versions.get("DeleteMarkers", [])]:
                await store.delete(entry["Key"], version_id=entry["VersionId"], bypass_governance=True)
            await straight.delete_bucket(name)
            await straight.aclose()


def with_store(server: Server, test: Test, url: str = "", *, probed: bool = False, **options: Any) -> None:
    """Run *test* with the Store of a fresh bucket, reached by *url*."""

    async def main() -> None:
        async with fresh_bucket(server) as name:
            reached = account(server, url, **options)
            try:
                store = reached.bucket(name)
                if probed:
                    await store.probe()
                await test(store)
            finally:
                await reached.aclose()

    trio.run(main)


@pytest.fixture(params=["rgw", "weed"])
def server(request: pytest.FixtureRequest) -> Any:
    """Both real servers, one after the other."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["rgw", "weed", "tls"])
def run(request: pytest.FixtureRequest) -> Callable[[Test], None]:
    """Runs a test on a fresh bucket of both servers, and of Ceph once more over TLS; abilities are known."""
    if request.param != "tls":
        server = request.getfixturevalue(request.param)
        return lambda test: with_store(server, test, probed=True)
    server = request.getfixturevalue("rgw")
    if not server.tls_url:
        pytest.skip("the server given has no TLS port")
    return lambda test: with_store(server, test, server.tls_url, probed=True, ca_file=server.ca_file)
