"""Mounts for the tests: a fresh one per call (`mount`), or one shared by a module with a directory per test (`place`)."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.fs.mounting import Mount, Server
from tests.proxy import Proxy


@pytest.fixture(scope="session", params=["rgw", "weed"])
def server(request: pytest.FixtureRequest) -> Any:
    """Both real servers, one after the other."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """A way to the server that can be made bad or slow, or made to lie. Tests name it before `mount`, so that it outlives the mount."""
    with Proxy(server.url) as living:
        yield living


def client(server: Server) -> Any:
    """A boto3 client: the other hand that changes objects behind the mount's back."""
    return boto3.client(
        "s3", endpoint_url=server.url, aws_access_key_id=server.access_key, aws_secret_access_key=server.secret_key,
        region_name="us-east-1", verify=server.ca_file if server.url.startswith("https") else None,
        config=Config(
            s3={"addressing_style": "path"}, request_checksum_calculation="when_required",
            response_checksum_validation="when_required", retries={"max_attempts": 5},
        ),
    )  # fmt: skip


@pytest.fixture(scope="session")
def s3(server: Server) -> Any:
    """A boto3 client of the server."""
    return client(server)


def delete_bucket(s3: Any, bucket: str) -> None:
    """Delete *bucket* with all that is in it."""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        keys = [{"Key": item["Key"]} for item in page.get("Contents", [])]
        try:
            if keys:
                s3.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
        except ClientError:  # XML cannot carry every key
            for key in keys:
                s3.delete_object(Bucket=bucket, **key)
    for upload in s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
        s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    s3.delete_bucket(Bucket=bucket)


def _bucket_name() -> str:
    return f"zosfs-fs-{uuid.uuid4().hex[:16]}"


@pytest.fixture
def bucket(s3: Any) -> Iterator[str]:
    """A fresh bucket on the server, deleted afterwards."""
    name = _bucket_name()
    s3.create_bucket(Bucket=name)
    yield name
    delete_bucket(s3, name)


@pytest.fixture
def mount(server: Server, bucket: str, tmp_path: Path) -> Iterator[Callable[..., Mount]]:
    """A function that mounts the test's bucket (or *source*) afresh with the options given, and ends the mounts afterwards."""
    mounts: list[Mount] = []

    def start(source: str = "", *, server: Server = server, **options: Any) -> Mount:
        home = tmp_path / f"mount{len(mounts)}"
        home.mkdir()
        mounts.append(Mount(home, source or bucket, server, options))
        return mounts[-1]

    yield start
    _finish_all(mounts)


def _finish_all(mounts: list[Mount]) -> None:
    failures = []
    for living in mounts:
        try:
            living.finish()
        except AssertionError as failure:
            failures.append(failure)
        finally:
            if living.process.poll() is None:
                living.kill()
    if failures:
        raise failures[0]


@pytest.fixture(scope="module")
def shared_bucket(s3: Any) -> Iterator[str]:
    """The bucket of the module's shared mount."""
    name = _bucket_name()
    s3.create_bucket(Bucket=name)
    yield name
    delete_bucket(s3, name)


@pytest.fixture(scope="module")
def shared(server: Server, shared_bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """One mount for a module's tests that need no mount of their own."""
    living = Mount(tmp_path_factory.mktemp("shared"), shared_bucket, server, {})
    yield living
    _finish_all([living])


@pytest.fixture
def place(request: pytest.FixtureRequest, shared: Mount) -> Iterator[Path]:
    """An empty directory on the shared mount; the test fails when the daemon's log complains meanwhile."""
    if shared.process.poll() is not None:
        pytest.fail("the shared mount's daemon is dead")
    name = re.sub(r"\W+", "-", request.node.originalname)
    directory = shared.path / name
    directory.mkdir()
    before = shared.log_size()
    yield directory
    complaints = shared.complaints(before)
    assert not complaints, "the log complains:\n" + "\n".join(complaints)
