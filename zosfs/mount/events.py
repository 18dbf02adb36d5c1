"""Changes made by other hosts, told by the bucket's notifications: option `notify`.

Owns: the listener, the topic and the row in the bucket's notification configuration, which are made when the mount begins and taken
away when it ends. An event only makes names be looked at again; a mount that hears nothing is as fresh as metadata_ttl.

The topic is persistent: the server sends from a queue, so a listener that is gone does not hold up those who write. Its address has a
secret word, so that others can at most guess.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import pyfuse3
import trio

from zosfs.counters import Counters
from zosfs.store.api import Store
from zosfs.tree.hints import changed_elsewhere
from zosfs.tree.tree import Tree

log = logging.getLogger(__name__)

EVENTS = ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]
LARGEST_HEAD, LARGEST_BODY = 16 << 10, 1 << 20
CONNECTIONS = 64
IDLE = 120.0
PATIENCE = 30.0

Call = Callable[..., Any]
"""An operation of the account, by boto3's name: `S3Account.call`."""


@dataclass(frozen=True, slots=True)
class Event:
    """One change: *removed*, or the object now has *etag* (of an append: of its last bytes)."""

    key: str
    etag: str
    removed: bool


def events_of(body: bytes, bucket: str) -> Iterator[Event]:
    """The changes of *bucket* that a message tells of (pure). Nothing for what is no such message."""
    try:
        records = json.loads(body)["Records"]
        for record in records:
            about, name = record["s3"], str(record["eventName"]).removeprefix("s3:")
            if about["bucket"]["name"] == bucket and name.startswith(("ObjectCreated", "ObjectRemoved")):
                found = about["object"]
                yield Event(str(found["key"]), str(found.get("eTag") or "").strip('"'), name.startswith("ObjectRemoved"))
    except (ValueError, KeyError, TypeError, AttributeError):
        log.debug("no message of a bucket: %.200r", body)


def configured(before: Mapping[str, Any], name: str, arn: str) -> dict[str, Any]:
    """A notification configuration with the row *name* for topic *arn* ("": without it), the others as they are (pure)."""
    rows = [row for row in before.get("TopicConfigurations", []) if row.get("Id") != name]
    if arn:
        rows.append({"Id": name, "TopicArn": arn, "Events": EVENTS})
    rest = {member: value for member, value in before.items() if member.endswith("Configurations") and member != "TopicConfigurations"}
    return {**rest, "TopicConfigurations": rows} if rows else rest


class Watch:
    """Listens at *url* (``http://HOST:PORT``: how the server reaches this host) for changes of the bucket that *tree* shows."""

    def __init__(self, url: str, tree: Tree, store: Store, call: Call, counters: Counters, mountpoint: str) -> None:
        """Raises ValueError for an address that is none."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or not parts.port or parts.path.strip("/"):
            raise ValueError(f"notify={url}: not of the form http://HOST:PORT")
        self._host, self._port = parts.hostname, parts.port
        self._word = secrets.token_urlsafe(16)
        self._url = f"http://{parts.netloc}/{self._word}"
        self._tree = tree
        self._store = store
        self._call = call
        self._counters = counters
        digest = hashlib.sha256(f"{socket.gethostname()}\n{mountpoint}\n{store.bucket}".encode()).hexdigest()[:20]
        self._name = f"zosfs-{digest}"  # the same for every mount of this bucket here, so that what a killed one left is taken over
        self._connections = trio.CapacityLimiter(CONNECTIONS)

    async def run(self) -> None:
        """Listen until cancelled; then take away what was made at the server. Failures are logged: the mount goes on without."""
        try:
            listeners = await self._listen()
        except OSError as error:
            log.warning("notify: nothing can listen on port %d (%s): others' changes show after metadata_ttl", self._port, error.strerror)
            return
        arn = ""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.serve_listeners, self._serve, listeners)
                try:
                    arn = await self._subscribe()
                except OSError as error:
                    log.warning("notify: the server takes no subscription (%s): others' changes show after metadata_ttl", error)
                    nursery.cancel_scope.cancel()
                else:
                    log.info("others' changes of %s are told to port %d", self._store.bucket, self._port)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(PATIENCE):
                try:
                    await self._unsubscribe(arn)
                except OSError as error:
                    log.warning("notify: the subscription %s stays at the server (%s)", self._name, error)

    async def _listen(self) -> list[trio.SocketListener]:
        try:
            return list(await trio.open_tcp_listeners(self._port, host=self._host))
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, None):
                raise
            return list(await trio.open_tcp_listeners(self._port))  # the address is a gateway's

    async def _subscribe(self) -> str:
        attributes = {"push-endpoint": self._url, "persistent": "true"}
        arn = str((await self._call("create_topic", service="sns", Name=self._name, Attributes=attributes))["TopicArn"])
        before = await self._store.call("get_bucket_notification_configuration")
        await self._store.call("put_bucket_notification_configuration", NotificationConfiguration=configured(before, self._name, arn))
        return arn

    async def _unsubscribe(self, arn: str) -> None:
        if not arn:
            return
        before = await self._store.call("get_bucket_notification_configuration")
        after = configured(before, self._name, "")
        await self._store.call("delete_bucket_notification_configuration")
        if any(after.values()):
            await self._store.call("put_bucket_notification_configuration", NotificationConfiguration=after)
        await self._call("delete_topic", service="sns", TopicArn=arn)

    # -- listening --------------------------------------------------------------------------------------------------

    async def _serve(self, stream: trio.SocketStream) -> None:
        async with stream, self._connections:
            try:
                while await self._one(stream):
                    pass
            except (trio.BrokenResourceError, trio.TooSlowError):
                pass

    async def _one(self, stream: trio.SocketStream) -> bool:
        """Take one request; whether another may follow."""
        data = b""
        with trio.fail_after(IDLE):
            while b"\r\n\r\n" not in data:
                piece = await stream.receive_some(LARGEST_HEAD)
                data += piece
                if not piece or len(data) > LARGEST_HEAD + LARGEST_BODY:
                    return False
            head, _, body = data.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            length = headers.get("content-length", "0")
            words = first.split(" ")
            if len(words) < 2 or words[0] != "POST" or unquote(words[1]) != f"/{self._word}" or not length.isdigit():
                await stream.send_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                return False
            if int(length) > LARGEST_BODY:
                return False
            if headers.get("expect", "").lower() == "100-continue":
                await stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
            while len(body) < int(length):
                piece = await stream.receive_some(LARGEST_HEAD)
                if not piece:
                    return False
                body += piece
            for event in events_of(body, self._store.bucket):
                self._apply(event)
            await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        return headers.get("connection", "").lower() != "close"

    def _apply(self, event: Event) -> None:
        self._counters.add("events")
        for directory, name in changed_elsewhere(self._tree, event.key, event.etag, removed=event.removed):
            pyfuse3.invalidate_entry_async(pyfuse3.InodeT(directory.number), pyfuse3.FileNameT(name), ignore_enoent=True)
