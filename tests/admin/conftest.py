"""Accounts and buckets of the real servers, as the rooms below admin/ see them."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import boto3
import pytest
import trio
from botocore.config import Config

from tests.admin.running import Command, inside
from tests.servers.server import Server
from zosfs.config import Options
from zosfs.counters import Counters
from zosfs.store.account import S3Account
from zosfs.store.connect import connect

Work = Callable[[S3Account], Awaitable[Any]]


@pytest.fixture(scope="session", params=["rgw", "weed"])
def server(request: pytest.FixtureRequest) -> Any:
    """Both real servers, one after the other."""
    return request.getfixturevalue(request.param)


def client(server: Server, service: str = "s3") -> Any:
    """A boto3 client: the other hand."""
    return boto3.client(  # type: ignore[call-overload]
        service, endpoint_url=server.url, aws_access_key_id=server.access_key, aws_secret_access_key=server.secret_key,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
    )  # fmt: skip


def options_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> Options:
    """The options that reach *server*."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
    monkeypatch.setenv("ZOSFS_URL", server.url)
    return Options(url=server.url, use_path_request_style=True)


def running(options: Options) -> Callable[[Work], Any]:
    """Runs ``work(account)`` in trio and returns its result."""

    def run(work: Work) -> Any:
        async def main() -> Any:
            account = await connect(options, Counters())
            try:
                with trio.fail_after(120):
                    return await work(account)
            finally:
                await account.aclose()

        return trio.run(main)

    return run


@pytest.fixture
def account(server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[[Work], Any]:
    """Runs a coroutine function on an account of the server."""
    return running(options_for(server, monkeypatch))


@pytest.fixture
def on_rgw(rgw: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[[Work], Any]:
    """The same on the RADOS gateway alone."""
    return running(options_for(rgw, monkeypatch))


def empty_and_delete(s3: Any, bucket: str) -> None:
    """Delete *bucket* with every version of what is in it."""
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        for item in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]:
            s3.delete_object(Bucket=bucket, Key=item["Key"], VersionId=item["VersionId"], BypassGovernanceRetention=True)
    for upload in s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
        s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    s3.delete_bucket(Bucket=bucket)


@pytest.fixture
def bucket(server: Server) -> Iterator[str]:
    """A fresh bucket of the server, deleted afterwards."""
    yield from fresh(client(server))


@pytest.fixture
def rgw_bucket(rgw: Server) -> Iterator[str]:
    """A fresh bucket of the RADOS gateway, deleted afterwards."""
    yield from fresh(client(rgw))


def fresh(s3: Any, **members: Any) -> Iterator[str]:
    """Make a bucket, lend its name, delete it."""
    name = f"admin-{uuid.uuid4().hex[:16]}"
    s3.create_bucket(Bucket=name, **members)
    yield name
    empty_and_delete(s3, name)


@pytest.fixture
def commands(server: Server) -> Command:
    """Runs `zosfs WORDS…` against the server."""
    return inside(server)
