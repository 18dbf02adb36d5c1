"""The manuals' tables of errors: each is answered once by a stand-in, and reaches the caller as one errno and one line.

Both ways to a server are tried: the wire that reads and writes objects, and boto3 with the settings.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import pytest
import trio

from tests.servers.zos import Zos
from zosfs.config import Options
from zosfs.counters import Counters
from zosfs.errors import TABLE, StoreError
from zosfs.store.account import S3Account
from zosfs.store.credentials import Fixed
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
)  # fmt: skip
"""Code, HTTP status, errno."""


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


def failure_of(zos: Zos, ask: Any) -> StoreError:
    """What ``ask(account)`` raises."""

    async def main() -> StoreError:
        account = S3Account(Options(url=zos.server.url, retries=0), Counters(), Fixed(Credentials("zosak", "zossk")))
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


def test_the_table_has_them_all_and_says_each_in_one_line() -> None:
    assert {code for code, _, _ in CODES} <= TABLE.keys()
    assert all(row.text and "\n" not in row.text and row.errno for row in TABLE.values())


def test_a_code_that_nobody_documented_is_judged_by_its_status(zos: Zos) -> None:
    zos.answer("GET", "/b/new", status=403, body="<Error><Code>SomethingNew</Code></Error>")
    failure = failure_of(zos, lambda account: account.bucket("b").get_range("new", 0, memoryview(bytearray(10))))
    assert (failure.errno, failure.code) == (errno.EACCES, "SomethingNew")
