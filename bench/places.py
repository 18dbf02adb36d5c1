"""Where the files that are worked on are prepared: in the bucket behind the mounts' back, or on a filesystem of a format of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import boto3
from botocore.config import Config

from bench.requests import OWN_AGENT
from bench.work import MIB, NOISE

_PART = 64
_AT_ONCE = 8


class Place(Protocol):
    """Files by their keys."""

    def put(self, key: str, body: bytes) -> None:
        """Make one file."""

    def put_all(self, keys: Iterable[str], body: bytes) -> None:
        """Make many files of the same content."""

    def put_large(self, key: str, mebibytes: int) -> None:
        """Make one file of noise."""

    def copy(self, source: str, key: str) -> None:
        """Copy one file."""

    def clear(self, prefix: str) -> None:
        """Remove all files whose keys begin with *prefix*, which ends with a slash."""

    def size(self, key: str) -> int:
        """A file's size, -1 when it is missing."""


class Bucket:
    """A bucket seen directly, through boto3; also tells what has been delivered there."""

    def __init__(self, url: str, name: str, access_key: str, secret_key: str) -> None:
        self.name = name
        config = Config(
            s3={"addressing_style": "path"}, request_checksum_calculation="when_required", user_agent=OWN_AGENT,
            response_checksum_validation="when_required", max_pool_connections=2 * _AT_ONCE,
        )  # fmt: skip
        self.s3: Any = boto3.client(
            "s3", endpoint_url=url, aws_access_key_id=access_key, aws_secret_access_key=secret_key, region_name="us-east-1", config=config
        )

    def create(self) -> None:
        """Make the bucket unless it is there."""
        if self.name not in {item["Name"] for item in self.s3.list_buckets()["Buckets"]}:
            self.s3.create_bucket(Bucket=self.name)

    def delete(self) -> None:
        """Delete the bucket and all that is in it."""
        self.clear("")
        self.s3.delete_bucket(Bucket=self.name)

    def put(self, key: str, body: bytes) -> None:
        """Make one object."""
        self.s3.put_object(Bucket=self.name, Key=key, Body=body)

    def put_all(self, keys: Iterable[str], body: bytes) -> None:
        """Make many objects, several at a time."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(lambda key: self.put(key, body), keys):
                pass

    def put_large(self, key: str, mebibytes: int) -> None:
        """Make one object by a multipart upload."""
        upload = self.s3.create_multipart_upload(Bucket=self.name, Key=key)["UploadId"]
        parts = []
        for number, start in enumerate(range(0, mebibytes, _PART), 1):
            body = NOISE * min(_PART, mebibytes - start)
            answer = self.s3.upload_part(Bucket=self.name, Key=key, UploadId=upload, PartNumber=number, Body=body)
            parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        self.s3.complete_multipart_upload(Bucket=self.name, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})

    def copy(self, source: str, key: str) -> None:
        """Copy on the server."""
        self.s3.copy_object(Bucket=self.name, Key=key, CopySource={"Bucket": self.name, "Key": source})

    def keys(self, prefix: str, together: int = 1000) -> Iterator[str]:
        """The keys that begin with *prefix*, of which *together* are asked for at once."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix, PaginationConfig={"PageSize": together})
        for page in pages:
            yield from (item["Key"] for item in page.get("Contents", []))

    def clear(self, prefix: str) -> None:
        """Delete all below *prefix*."""
        keys = list(self.keys(prefix))
        for at in range(0, len(keys), 1000):
            objects = [{"Key": key} for key in keys[at : at + 1000]]
            self.s3.delete_objects(Bucket=self.name, Delete={"Objects": objects, "Quiet": True})

    def size(self, key: str) -> int:
        """The object's size."""
        try:
            return int(self.s3.head_object(Bucket=self.name, Key=key)["ContentLength"])
        except self.s3.exceptions.ClientError:
            return -1

    def etag(self, key: str) -> str:
        """The object's ETag, "" when it is missing."""
        try:
            return str(self.s3.head_object(Bucket=self.name, Key=key)["ETag"])
        except self.s3.exceptions.ClientError:
            return ""

    def warm(self, keys: Iterable[str]) -> None:
        """Read objects once, so that the server has what it keeps in memory of them."""
        for key in keys:
            body = self.s3.get_object(Bucket=self.name, Key=key)["Body"]
            while body.read(MIB):
                pass


class Directory:
    """A mounted directory, for a filesystem that does not show what is in a bucket."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _path(self, key: str) -> Path:
        path = self._root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def put(self, key: str, body: bytes) -> None:
        """Write one file."""
        self._path(key).write_bytes(body)

    def put_all(self, keys: Iterable[str], body: bytes) -> None:
        """Write many files, several at a time."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(lambda key: self.put(key, body), keys):
                pass

    def put_large(self, key: str, mebibytes: int) -> None:
        """Write one file."""
        with self._path(key).open("wb", buffering=0) as f:
            for _ in range(mebibytes):
                f.write(NOISE)

    def copy(self, source: str, key: str) -> None:
        """Copy through the mount."""
        shutil.copyfile(self._root / source, self._path(key))

    def clear(self, prefix: str) -> None:
        """Remove the directory *prefix*."""
        shutil.rmtree(self._root / prefix, ignore_errors=True)

    def size(self, key: str) -> int:
        """The file's size."""
        path = self._root / key
        return path.stat().st_size if path.exists() else -1
