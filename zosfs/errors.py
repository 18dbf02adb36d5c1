"""The one vocabulary of failure: store error code -> errno, with the line a person reads.

Owns: the table of codes and the exception that carries one. May use: nothing of zosfs.
Must not know: HTTP libraries, FUSE.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """One store error code: what the caller gets (*errno*), what a person reads, whether trying again may help.

    *unsent*: the failure came before anything was sent, so the server cannot have acted.
    """

    code: str
    errno: int
    text: str
    retry: bool = False
    unsent: bool = False


_ROWS = (
    # -- what the server says: the manuals' tables, and what Ceph, SeaweedFS and S3 say besides
    ErrorRow("AccessDenied", errno.EACCES, "the server refuses this to these credentials: check the policy, the ACL and the keys"),
    ErrorRow("AccountProblem", errno.EACCES, "the account has a problem: ask the provider"),
    ErrorRow("AllAccessDisabled", errno.EACCES, "all access to this was disabled by the provider"),
    ErrorRow("AuthorizationHeaderMalformed", errno.EACCES, "the region of the signature is wrong: set -o region="),
    ErrorRow("BadDigest", errno.EIO, "the data was damaged on its way", retry=True),
    ErrorRow("BadGateway", errno.EIO, "a proxy got no good answer from the server", retry=True),
    ErrorRow("BandwidthLimitExceeded", errno.EIO, "the server asks for less traffic", retry=True),
    ErrorRow("BucketAlreadyExists", errno.EEXIST, "somebody has a bucket of this name"),
    ErrorRow("BucketAlreadyOwnedByYou", errno.EEXIST, "you have this bucket already"),
    ErrorRow("BucketNotEmpty", errno.ENOTEMPTY, "the bucket is not empty"),
    ErrorRow("Busy", errno.EIO, "the server is busy", retry=True),
    ErrorRow("ConcurrentModification", errno.EIO, "another request changes this object just now", retry=True),
    ErrorRow("ConditionalRequestConflict", errno.ESTALE, "someone else changed the object at the same moment"),
    ErrorRow("Conflict", errno.ESTALE, "the object was changed by someone else"),
    ErrorRow("CredentialsNotSupported", errno.EACCES, "the server does not take these credentials"),
    ErrorRow("EntityTooLarge", errno.EFBIG, "the object is larger than the server takes"),
    ErrorRow("EntityTooSmall", errno.EIO, "a part of the upload is smaller than the server takes"),
    ErrorRow("ExpiredToken", errno.EACCES, "the temporary credentials have ended: renew them"),
    ErrorRow("GatewayTimeout", errno.ETIMEDOUT, "a proxy waited too long for the server", retry=True),
    ErrorRow("IllegalLocationConstraintException", errno.EINVAL, "the bucket cannot be made in this region"),
    ErrorRow("IllegalVersioningConfigurationException", errno.EINVAL, "the versioning configuration is not valid"),
    ErrorRow("IncompleteBody", errno.EIO, "the request broke off on its way", retry=True),
    ErrorRow("IncorrectEndpoint", errno.EREMOTE, "the bucket lives at another endpoint: set url= to that one"),
    ErrorRow("InternalError", errno.EIO, "the server failed", retry=True),
    ErrorRow("InvalidAccessKeyId", errno.EACCES, "the server does not know the access key: check the credentials"),
    ErrorRow("InvalidArgument", errno.EINVAL, "the server does not take an argument of the request"),
    ErrorRow("InvalidBucketName", errno.EINVAL, "the bucket name is not legal: 3-63 lower-case letters, digits, hyphens, dots"),
    ErrorRow("InvalidBucketState", errno.EINVAL, "the bucket's state does not allow this (versioning or object lock)"),
    ErrorRow("InvalidDigest", errno.EIO, "the checksum sent is not valid", retry=True),
    ErrorRow("InvalidEncryptionAlgorithmError", errno.EINVAL, "the server does not know this encryption: check -o sse="),
    ErrorRow("InvalidLocationConstraint", errno.EINVAL, "the server has no such region"),
    ErrorRow("InvalidObjectName", errno.ENAMETOOLONG, "the key is longer than the server takes (1024 bytes)"),
    ErrorRow("InvalidObjectState", errno.EREMOTEIO, "the object is archived: zosfs restore thaws it"),
    ErrorRow("InvalidPart", errno.EIO, "the server does not have a part of the upload"),
    ErrorRow("InvalidPartNumber", errno.EINVAL, "a part's number is not between 1 and 10000"),
    ErrorRow("InvalidPartOrder", errno.EIO, "the parts of the upload are not in order"),
    ErrorRow("InvalidPolicyDocument", errno.EINVAL, "the policy is not valid"),
    ErrorRow("InvalidRange", errno.EINVAL, "the object is shorter than it was"),
    ErrorRow("InvalidRequest", errno.EINVAL, "the server does not take the request"),
    ErrorRow("InvalidRetentionPeriod", errno.EINVAL, "the retention period is not valid"),
    ErrorRow("InvalidSecurity", errno.EACCES, "the credentials are not valid"),
    ErrorRow("InvalidStorageClass", errno.EINVAL, "the server has no such storage class: check -o storage_class="),
    ErrorRow("InvalidTag", errno.EINVAL, "a tag is not valid: 10 tags, keys of 128 and values of 256 characters at most"),
    ErrorRow("InvalidToken", errno.EACCES, "the session token is not valid"),
    ErrorRow("InvalidTokenId", errno.EACCES, "the session token is not of these keys: get a new one"),
    ErrorRow("InvalidURI", errno.EINVAL, "the server cannot read the key"),
    ErrorRow("KeyTooLong", errno.ENAMETOOLONG, "the key is longer than the server takes (1024 bytes)"),
    ErrorRow("KeyTooLongError", errno.ENAMETOOLONG, "the key is longer than the server takes (1024 bytes)"),
    ErrorRow("MFADeleteRequired", errno.EPERM, "the bucket wants a second factor for deletes"),
    ErrorRow("MalformedACLError", errno.EINVAL, "the ACL is not valid"),
    ErrorRow("MalformedPolicy", errno.EINVAL, "the policy is not valid"),
    ErrorRow("MalformedXML", errno.EINVAL, "the server does not take the document"),
    ErrorRow("MaxMessageLengthExceeded", errno.E2BIG, "the request is larger than the server allows"),
    ErrorRow("MetadataTooLarge", errno.E2BIG, "the metadata is larger than the server takes"),
    ErrorRow("MethodNotAllowed", errno.EOPNOTSUPP, "the server does not offer this"),
    ErrorRow("MissingContentLength", errno.EIO, "the request lacks its length"),
    ErrorRow("MissingRequestBodyError", errno.EINVAL, "the request's body is missing"),
    ErrorRow("MissingSecurityHeader", errno.EACCES, "the server wants signed requests: give credentials"),
    ErrorRow("NoSuchBucket", errno.ENOENT, "the bucket does not exist: check its name and the endpoint"),
    ErrorRow("NoSuchBucketPolicy", errno.ENODATA, "the bucket has no policy"),
    ErrorRow("NoSuchCORSConfiguration", errno.ENODATA, "the bucket has no CORS configuration"),
    ErrorRow("NoSuchKey", errno.ENOENT, "the object does not exist"),
    ErrorRow("NoSuchLifecycleConfiguration", errno.ENODATA, "the bucket has no lifecycle configuration"),
    ErrorRow("NoSuchObjectLockConfiguration", errno.ENODATA, "the object has no lock"),
    ErrorRow("NoSuchPublicAccessBlockConfiguration", errno.ENODATA, "the bucket has no block of public access"),
    ErrorRow("NoSuchTagSet", errno.ENODATA, "there are no tags"),
    ErrorRow("NoSuchTagSetError", errno.ENODATA, "there are no tags"),
    ErrorRow("NoSuchUpload", errno.EIO, "the server has no such upload (any more)"),
    ErrorRow("NoSuchVersion", errno.ENOENT, "there is no such version"),
    ErrorRow("NoSuchWebsiteConfiguration", errno.ENODATA, "the bucket has no website configuration"),
    ErrorRow("NotImplemented", errno.EOPNOTSUPP, "the server does not offer this"),
    ErrorRow("NotModified", errno.EIO, "the object did not change"),
    ErrorRow("NotSignedUp", errno.EACCES, "the account is not signed up for this service"),
    ErrorRow("ObjectLockConfigurationNotFoundError", errno.ENODATA, "the bucket has no object lock configuration"),
    ErrorRow("ObjectLocked", errno.EPERM, "the object is locked by a legal hold or a retention period"),
    ErrorRow("ObjectNotAppendable", errno.EOPNOTSUPP, "the object does not grow by appends"),
    ErrorRow("OperationAborted", errno.EIO, "another request was in the way", retry=True),
    ErrorRow("PermanentRedirect", errno.EINVAL, "the bucket is at another endpoint: check -o url="),
    ErrorRow("PositionNotEqualToLength", errno.ESTALE, "the object grew by someone else's append"),
    ErrorRow("PreconditionFailed", errno.ESTALE, "the object was changed by someone else"),
    ErrorRow("QuotaExceeded", errno.EDQUOT, "the quota is used up"),
    ErrorRow("Redirect", errno.EREMOTE, "the bucket is being moved: try again later"),
    ErrorRow("ReplicationConfigurationNotFoundError", errno.ENODATA, "the bucket is not replicated"),
    ErrorRow("RequestExpired", errno.EACCES, "the signed request is too old: set this machine's clock (NTP)"),
    ErrorRow("RequestHeaderSectionTooLarge", errno.E2BIG, "the attributes stored with the object are larger than the server allows"),
    ErrorRow("RequestLimitExceeded", errno.EIO, "the server asks for fewer requests: lower connections=", retry=True),
    ErrorRow("RequestTimeTooSkewed", errno.EACCES, "this host's clock is more than 15 minutes off: set it (timedatectl set-ntp true)"),
    ErrorRow("RequestTimeout", errno.ETIMEDOUT, "the request took longer than the server waits", retry=True),
    ErrorRow("RestoreAlreadyInProgress", errno.EALREADY, "the object is being thawed already"),
    ErrorRow("ServerSideEncryptionConfigurationNotFoundError", errno.ENODATA, "the bucket has no encryption configuration"),
    ErrorRow("ServiceUnavailable", errno.EIO, "the server is overloaded", retry=True),
    ErrorRow("SignatureDoesNotMatch", errno.EACCES, "the secret key is wrong (or the clock, or a proxy changed the request)"),
    ErrorRow("SlowDown", errno.EIO, "the server asks for fewer requests", retry=True),
    ErrorRow("TemporaryRedirect", errno.EIO, "the bucket is being moved", retry=True),
    ErrorRow("Throttling", errno.EIO, "the server asks for fewer requests: lower connections=", retry=True),
    ErrorRow("ThrottlingException", errno.EIO, "the server asks for fewer requests: lower connections=", retry=True),
    ErrorRow("TokenRefreshRequired", errno.EACCES, "the temporary credentials must be renewed"),
    ErrorRow("TooManyBuckets", errno.EDQUOT, "the account may have no more buckets"),
    ErrorRow("TooManyRequests", errno.EIO, "the server asks for fewer requests", retry=True),
    ErrorRow("UnprocessableEntity", errno.EINVAL, "the server cannot act on the request"),
    ErrorRow("UnresolvableGrantByEmailAddress", errno.EINVAL, "the server knows nobody with the e-mail address of the grant"),
    ErrorRow("UnsupportedArgument", errno.EOPNOTSUPP, "the server does not offer this"),
    ErrorRow("UserSuspended", errno.EACCES, "the account is suspended"),
    ErrorRow("XAmzContentChecksumMismatch", errno.EIO, "what arrived is not what was sent", retry=True),
    ErrorRow("XAmzContentSHA256Mismatch", errno.EIO, "the data was damaged on its way", retry=True),
    # -- what no server says: our own words for failures without a usable answer
    ErrorRow("AppendIgnored", errno.ENOTSUP, "the server took an append upload for a plain upload: use -o append=off"),
    ErrorRow("BadAnswer", errno.EIO, "the server's answer makes no sense: is url= an object store?", retry=True),
    ErrorRow("BadCredentials", errno.EACCES, "the credentials given cannot be used", unsent=True),
    ErrorRow("BadEndpoint", errno.EINVAL, "the endpoint is not an address: give -o url=https://HOST", unsent=True),
    ErrorRow("Cancelled", errno.EINTR, "the request was given up"),
    ErrorRow("ConnectTimeout", errno.ETIMEDOUT, "the endpoint does not answer: check -o url= and the network", True, True),
    ErrorRow("ConnectionClosed", errno.EIO, "the server closed the connection without an answer", retry=True),
    ErrorRow("ConnectionReset", errno.EIO, "the connection broke", retry=True),
    ErrorRow("EndpointUnreachable", errno.EHOSTUNREACH, "the endpoint cannot be reached: check -o url= and the network", True, True),
    ErrorRow("Interrupted", errno.EINTR, "the request was given up because nobody waits for it any more"),
    ErrorRow("LocalReadFailed", errno.EIO, "the staged bytes cannot be read from the local disk"),
    ErrorRow("NameNotResolved", errno.EHOSTUNREACH, "the endpoint's name is not known: check -o url= and the DNS", True, True),
    ErrorRow("NoCredentials", errno.EACCES, "no keys are given: -o passwd_file=FILE, with ACCESS_KEY:SECRET_KEY in it", unsent=True),
    ErrorRow("NotAllowed", errno.EOPNOTSUPP, "zosfs does not send this operation: some servers would do something else"),
    ErrorRow("ReadOnly", errno.EROFS, "the mount is read only", unsent=True),
    ErrorRow("ReadTimeout", errno.ETIMEDOUT, "the server said nothing in time", retry=True),
    ErrorRow("TlsFailed", errno.EIO, "the TLS connection failed: check the certificate (-o ca_file=PEM) and the URL", unsent=True),
    ErrorRow("TruncatedBody", errno.EIO, "the answer has another length than was asked for", retry=True),
)
TABLE: Mapping[str, ErrorRow] = {row.code: row for row in _ROWS}
_UNKNOWN = ErrorRow("Unknown", errno.EIO, "the server answered with an error that zosfs does not know")
BY_STATUS: Mapping[int, str] = {
    301: "PermanentRedirect",
    302: "TemporaryRedirect",
    304: "NotModified",
    307: "TemporaryRedirect",
    308: "PermanentRedirect",
    400: "InvalidRequest",
    401: "AccessDenied",
    403: "AccessDenied",
    404: "NoSuchKey",
    405: "MethodNotAllowed",
    408: "RequestTimeout",
    409: "OperationAborted",
    411: "MissingContentLength",
    412: "PreconditionFailed",
    413: "EntityTooLarge",
    416: "InvalidRange",
    422: "UnprocessableEntity",
    429: "TooManyRequests",
    431: "RequestHeaderSectionTooLarge",
    500: "InternalError",
    501: "NotImplemented",
    502: "BadGateway",
    503: "ServiceUnavailable",
    504: "GatewayTimeout",
}


class StoreError(OSError):
    """A request that the store refused or that never got an answer.

    An OSError, so that `errno` is what the caller of the filesystem gets. *code* is the store's code (or one of ours for
    failures without an answer: ``ConnectionReset``, ``ReadTimeout``, ``TruncatedBody``…), *status* the HTTP status (0: none),
    *headers* the answer's headers with lower-case names.
    """

    def __init__(
        self,
        code: str,
        *,
        status: int = 0,
        message: str = "",
        operation: str = "",
        key: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.row = lookup(code, status)
        super().__init__(self.row.errno, os.strerror(self.row.errno))
        self.code = code
        self.status = status
        self.message = message
        self.operation = operation
        self.key = key
        self.headers: Mapping[str, str] = headers or {}

    @property
    def retry(self) -> bool:
        """Whether the same request may succeed later."""
        return self.row.retry

    @property
    def ambiguous(self) -> bool:
        """Whether the server may have applied the request although no good answer came."""
        return not self.row.unsent and (self.status == 0 or self.status == 408 or self.status >= 500)

    @property
    def refused(self) -> bool:
        """Whether the server said no for good: it did not act, and would say the same again. What never reached it (credentials that
        cannot be read, a certificate that is not trusted) is no answer of its, and may be put right here."""
        return not self.retry and not self.ambiguous and not self.row.unsent

    def of(self, operation: str, key: str) -> StoreError:
        """This failure, told of *operation* on *key* (or on the bucket of that name)."""
        self.operation, self.key = operation, key
        return self

    def __str__(self) -> str:
        where = f"{self.operation} {self.key}".strip()
        said = f": {self.message}" if self.message else ""
        return f"{where}: {self.row.text} ({self.code}{', HTTP ' + str(self.status) if self.status else ''}){said}"


UNMET = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "PositionNotEqualToLength"})
"""Codes by which a server says that a condition of the request does not hold, which who set it has reckoned with."""


def code_of(code: str, message: str) -> str:
    """*code*, or ``ObjectLocked`` where the message says that a refusal comes of a lock: Ceph has one code for all refusals."""
    words = message.lower()
    locked = "object lock" in words or "retention mode" in words or "retention period" in words or "retain-until" in words
    return "ObjectLocked" if code == "AccessDenied" and locked else code


def code_of_status(status: int) -> str:
    """The code that an answer of HTTP *status* stands for when it names none (HEAD answers never do)."""
    return BY_STATUS.get(status, "InternalError" if status >= 500 else "InvalidRequest" if status >= 400 else "BadAnswer")


def lookup(code: str, status: int = 0) -> ErrorRow:
    """The row of *code*; an unknown code is judged by its HTTP *status*."""
    row = TABLE.get(code)
    if row is not None:
        return row
    if status in BY_STATUS or status >= 400:
        return TABLE[code_of_status(status)]
    return _UNKNOWN
