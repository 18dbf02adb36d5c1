"""The manuals' tables of errors: each is answered once by a stand-in, and reaches the caller as one errno and one line.

Both ways to a server are tried: the wire that reads and writes objects, and boto3 with the settings.
"""

from __future__ import annotations

import errno
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import trio

from tests.content.test_reader import Room, noise, room
from tests.features import exists
from tests.servers.zos import Zos
from zosfs.admin.moment import MomentStore
from zosfs.admin.version_store import VersionStore
from zosfs.config import Options
from zosfs.counters import Counters
from zosfs.errors import BY_STATUS, TABLE, StoreError
from zosfs.store.account import S3Account
from zosfs.store.api import ObjectHeaders
from zosfs.store.credentials import Fixed, provider
from zosfs.store.sigv4 import Credentials

E = errno
CODES: tuple[tuple[str, int, int], ...] = (
    ("AccessDenied", 403, E.EACCES), ("AccountProblem", 403, E.EACCES), ("AllAccessDisabled", 403, E.EACCES),
    ("BadDigest", 400, E.EIO), ("BucketAlreadyExists", 409, E.EEXIST),
    ("BucketAlreadyOwnedByYou", 409, E.EEXIST), ("BucketNotEmpty", 409, E.ENOTEMPTY), ("CredentialsNotSupported", 400, E.EACCES),
    ("EntityTooLarge", 400, E.EFBIG), ("EntityTooSmall", 400, E.EIO), ("ExpiredToken", 400, E.EACCES),
    ("IllegalLocationConstraintException", 400, E.EINVAL), ("IllegalVersioningConfigurationException", 400, E.EINVAL),
    ("IncompleteBody", 400, E.EIO), ("InternalError", 500, E.EIO), ("InvalidAccessKeyId", 403, E.EACCES),
    ("InvalidArgument", 400, E.EINVAL), ("InvalidBucketName", 400, E.EINVAL), ("InvalidBucketState", 409, E.EINVAL),
    ("InvalidDigest", 400, E.EIO), ("InvalidEncryptionAlgorithmError", 400, E.EINVAL), ("InvalidLocationConstraint", 400, E.EINVAL),
    ("InvalidObjectName", 400, E.ENAMETOOLONG), ("InvalidObjectState", 403, E.EREMOTEIO), ("InvalidPart", 400, E.EIO),
    ("InvalidPartOrder", 400, E.EIO), ("InvalidPolicyDocument", 400, E.EINVAL), ("InvalidRange", 416, E.EINVAL),
    ("InvalidRequest", 400, E.EINVAL), ("InvalidRetentionPeriod", 400, E.EINVAL), ("InvalidSecurity", 403, E.EACCES),
    ("InvalidStorageClass", 400, E.EINVAL), ("InvalidTag", 400, E.EINVAL), ("InvalidToken", 400, E.EACCES), ("InvalidURI", 400, E.EINVAL),
    ("KeyTooLong", 400, E.ENAMETOOLONG), ("KeyTooLongError", 400, E.ENAMETOOLONG), ("MalformedACLError", 400, E.EINVAL),
    ("MalformedPolicy", 400, E.EINVAL), ("MalformedXML", 400, E.EINVAL), ("MaxMessageLengthExceeded", 400, E.E2BIG),
    ("MetadataTooLarge", 400, E.E2BIG), ("MethodNotAllowed", 405, E.EOPNOTSUPP), ("MissingContentLength", 411, E.EIO),
    ("MissingRequestBodyError", 400, E.EINVAL), ("MissingSecurityHeader", 400, E.EACCES), ("NoSuchBucket", 404, E.ENOENT),
    ("NoSuchBucketPolicy", 404, E.ENODATA), ("NoSuchCORSConfiguration", 404, E.ENODATA), ("NoSuchKey", 404, E.ENOENT),
    ("NoSuchLifecycleConfiguration", 404, E.ENODATA), ("NoSuchObjectLockConfiguration", 404, E.ENODATA), ("NoSuchTagSet", 404, E.ENODATA),
    ("NoSuchUpload", 404, E.EIO), ("NoSuchVersion", 404, E.ENOENT), ("NoSuchWebsiteConfiguration", 404, E.ENODATA),
    ("NotImplemented", 501, E.EOPNOTSUPP), ("NotSignedUp", 403, E.EACCES), ("ObjectLockConfigurationNotFoundError", 404, E.ENODATA),
    ("ObjectNotAppendable", 409, E.EOPNOTSUPP), ("OperationAborted", 409, E.EIO), ("PermanentRedirect", 301, E.EINVAL),
    ("PositionNotEqualToLength", 409, E.ESTALE), ("PreconditionFailed", 412, E.ESTALE), ("QuotaExceeded", 403, E.EDQUOT),
    ("RequestTimeTooSkewed", 403, E.EACCES), ("RequestTimeout", 400, E.ETIMEDOUT), ("RestoreAlreadyInProgress", 409, E.EALREADY),
    ("ServerSideEncryptionConfigurationNotFoundError", 404, E.ENODATA), ("ServiceUnavailable", 503, E.EIO),
    ("SignatureDoesNotMatch", 403, E.EACCES), ("SlowDown", 503, E.EIO), ("TemporaryRedirect", 307, E.EIO),
    ("TokenRefreshRequired", 400, E.EACCES), ("TooManyBuckets", 400, E.EDQUOT), ("UnresolvableGrantByEmailAddress", 400, E.EINVAL),
    ("UserSuspended", 403, E.EACCES), ("XAmzContentSHA256Mismatch", 400, E.EIO),
    # what S3, Ceph, SeaweedFS and the proxies before them say besides
    ("AuthorizationHeaderMalformed", 400, E.EACCES), ("BadGateway", 502, E.EIO), ("BandwidthLimitExceeded", 503, E.EIO),
    ("Busy", 503, E.EIO), ("ConcurrentModification", 409, E.EIO), ("ConditionalRequestConflict", 409, E.ESTALE),
    ("GatewayTimeout", 504, E.ETIMEDOUT), ("IncorrectEndpoint", 400, E.EREMOTE), ("InvalidPartNumber", 416, E.EINVAL),
    ("InvalidTokenId", 400, E.EACCES), ("MFADeleteRequired", 403, E.EPERM), ("NoSuchPublicAccessBlockConfiguration", 404, E.ENODATA),
    ("NoSuchTagSetError", 404, E.ENODATA), ("ObjectLocked", 403, E.EPERM), ("Redirect", 307, E.EREMOTE),
    ("ReplicationConfigurationNotFoundError", 404, E.ENODATA), ("RequestExpired", 403, E.EACCES),
    ("RequestHeaderSectionTooLarge", 400, E.E2BIG), ("RequestLimitExceeded", 503, E.EIO), ("Throttling", 400, E.EIO),
    ("ThrottlingException", 400, E.EIO), ("TooManyRequests", 429, E.EIO), ("UnprocessableEntity", 422, E.EINVAL),
    ("UnsupportedArgument", 400, E.EOPNOTSUPP), ("XAmzContentChecksumMismatch", 400, E.EIO),
)  # fmt: skip
"""Code, HTTP status, errno."""

OURS: Mapping[str, str] = {
    "AppendIgnored": "store/test_ten_rules.py::test_3_appends_are_tried_once_and_checked",
    "BadAnswer": "store/test_connect.py::test_strange_answers",
    "BadCredentials": "store/test_connect.py::test_connect_sends_nothing",
    "BadEndpoint": "store/test_connect.py::test_connect_sends_nothing",
    "Cancelled": "store/test_error_codes.py::test_a_read_whose_request_was_given_up",
    "Conflict": "content/test_append.py::test_without_o_append_a_changed_object_is_a_conflict",
    "ConnectTimeout": "store/test_connect.py::test_nobody_there",
    "ConnectionClosed": "store/test_error_codes.py::test_a_connection_that_ends",
    "ConnectionReset": "store/test_error_codes.py::test_a_connection_that_ends",
    "EndpointUnreachable": "store/test_connect.py::test_nobody_there",
    "Interrupted": "store/test_wire.py::test_abort_from_another_thread",
    "LocalReadFailed": "store/test_verbs.py::test_bodies_of_files_and_buffers",
    "NameNotResolved": "store/test_connect.py::test_nobody_there",
    "NoCredentials": "store/test_error_codes.py::test_without_credentials",
    "NotAllowed": "store/test_error_codes.py::test_what_zosfs_does_not_send",
    "NotModified": "store/test_error_codes.py::test_a_status_without_a_document",
    "ReadOnly": "store/test_error_codes.py::test_views_that_change_nothing",
    "ReadTimeout": "store/test_connect.py::test_nobody_there",
    "TlsFailed": "store/test_connect.py::test_tls",
    "TruncatedBody": "store/test_error_codes.py::test_a_connection_that_ends",
}
"""What no server's document says: our own codes, and the tests that produce them."""


@pytest.fixture(scope="module")
def zos() -> Iterator[Zos]:
    """A stand-in that gives every answer of the table."""
    standing = Zos()
    for code, status, _ in CODES:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>because of {code}</Message></Error>"
        standing.answer("GET", f"/b/{code}", status=status, body=body)
        standing.answer("GET", f"/{code.lower()}", {"policy": ""}, status=status, body=body)
    yield standing
    standing.stop()
    assert standing.refused == []


def failure_of(zos: Zos | str, ask: Any) -> StoreError:
    """What ``ask(account)`` raises; *zos*: the stand-in or an address."""
    url = zos if isinstance(zos, str) else zos.server.url

    async def main() -> StoreError:
        account = S3Account(Options(url=url, retries=0), Counters(), Fixed(Credentials("zosak", "zossk")))
        try:
            with trio.fail_after(120), pytest.raises(StoreError) as caught:
                await ask(account)
        finally:
            await account.aclose()
        return caught.value

    return trio.run(main)


def judge(failure: StoreError, code: str, status: int, number: int) -> None:
    """It is that error: one errno, one line that names the cause, the code and what the server said."""
    assert (failure.code, failure.status, failure.errno) == (code, status, number)
    line = str(failure)
    assert "\n" not in line
    assert TABLE[code].text in line
    assert f"({code}, HTTP {status})" in line


@pytest.mark.parametrize(("code", "status", "number"), CODES, ids=[code for code, _, _ in CODES])
def test_a_documented_error(zos: Zos, code: str, status: int, number: int) -> None:
    failure = failure_of(zos, lambda account: account.bucket("b").get_range(code, 0, memoryview(bytearray(10))))
    judge(failure, code, status, number)
    assert f"because of {code}" in str(failure)


@pytest.mark.parametrize(("code", "status", "number"), [row for row in CODES if row[1] not in (301, 307)][::6])
def test_the_same_through_boto3(zos: Zos, code: str, status: int, number: int) -> None:
    judge(failure_of(zos, lambda account: account.bucket(code.lower()).call("get_bucket_policy")), code, status, number)


def test_every_row_of_the_table_is_produced_and_says_it_in_one_line() -> None:
    assert {code for code, _, _ in CODES} | OURS.keys() == TABLE.keys()
    assert [name for name in OURS.values() if not exists(name)] == []
    assert all(row.text and "\n" not in row.text and row.errno for row in TABLE.values())


def test_a_code_that_nobody_documented_is_judged_by_its_status(zos: Zos) -> None:
    zos.answer("GET", "/b/new", status=403, body="<Error><Code>SomethingNew</Code></Error>")
    failure = failure_of(zos, lambda account: account.bucket("b").get_range("new", 0, memoryview(bytearray(10))))
    assert (failure.errno, failure.code) == (errno.EACCES, "SomethingNew")


@pytest.mark.parametrize("status", sorted(status for status in BY_STATUS if status not in (401, 403, 404, 408)))
def test_a_status_without_a_document(zos: Zos, status: int) -> None:
    zos.answer("HEAD", f"/b/{status}", status=status)
    failure = failure_of(zos, lambda account: account.bucket("b").head(str(status)))
    judge(failure, BY_STATUS[status], status, TABLE[BY_STATUS[status]].errno)


def test_a_status_without_a_document_may_hide_more_than_one_cause(zos: Zos) -> None:
    for status, number in ((401, errno.EACCES), (403, errno.EACCES), (404, errno.ENOENT), (408, errno.ETIMEDOUT)):
        zos.answer("HEAD", f"/b/{status}", status=status)
        assert failure_of(zos, lambda account, status=status: account.bucket("b").head(str(status))).errno == number


ENDINGS = [
    (b"", False, "ConnectionClosed"), (b"", True, "ConnectionReset"),
    (b"HTTP/1.1 206 Partial\r\ncontent-length: 10\r\ncontent-range: bytes 0-9/10\r\netag: \"e\"\r\n\r\nhalf", False, "TruncatedBody"),
]  # fmt: skip


@pytest.mark.parametrize(("says", "reset", "code"), ENDINGS, ids=[row[2] for row in ENDINGS])
def test_a_connection_that_ends(says: bytes, reset: bool, code: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer:
                    while b"\r\n\r\n" not in peer.recv(65536, socket.MSG_PEEK):
                        pass
                    peer.recv(65536)
                    peer.sendall(says)
                    if reset:
                        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        failure = failure_of(url, lambda account: account.bucket("b").get_range("k", 0, memoryview(bytearray(10))))
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(30)
    assert (failure.code, failure.errno, failure.retry, failure.ambiguous) == (code, errno.EIO, True, True)
    assert TABLE[code].text in str(failure)


def test_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    with pytest.raises(StoreError) as caught:
        trio.run(provider(Options(url="http://zos.invalid"), {}).current)
    assert (caught.value.code, caught.value.errno) == ("NoCredentials", errno.EACCES)


def test_what_zosfs_does_not_send(zos: Zos) -> None:
    asked = len(zos.requests)
    failure = failure_of(zos, lambda account: account.bucket("b").call("delete_bucket_ownership_controls"))
    assert (failure.code, failure.errno) == ("NotAllowed", errno.EOPNOTSUPP)
    assert len(zos.requests) == asked


@pytest.mark.parametrize("view", [lambda store: MomentStore(store, 1), VersionStore], ids=["moment", "versions"])
def test_views_that_change_nothing(zos: Zos, view: Any) -> None:
    async def change(account: S3Account) -> None:
        store = view(account.bucket("b"))
        if isinstance(store, VersionStore):
            store._shown["f@V1"] = ("f", "V1")
        await store.put("f@V1", (), ObjectHeaders())

    asked = len(zos.requests)
    failure = failure_of(zos, change)
    assert (failure.code, failure.errno) == ("ReadOnly", errno.EROFS)
    assert len(zos.requests) == asked


def test_a_read_whose_request_was_given_up() -> None:
    async def body(place: Room) -> None:
        place.objects.put("k", noise(1000))
        place.objects.gate = trio.Event()  # no answer comes before it is given up
        reader = place.open()
        failures: list[StoreError] = []

        async def read() -> None:
            try:
                await reader.read(0, 1000)
            except StoreError as exc:
                failures.append(exc)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            while not (blocks := list(reader._version.within(0, 1000))):
                await trio.lowlevel.checkpoint()
            blocks[0].scope.cancel()
        assert [(failure.code, failure.errno) for failure in failures] == [("Cancelled", errno.EINTR)]

    async def main() -> None:
        with trio.fail_after(60):
            async with room() as place:
                await body(place)

    trio.run(main)
