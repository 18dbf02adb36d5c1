"""The verbs of an object store as the rest of zosfs sees them.

Owns: the types that cross the seam between store/ and everything above. May use: zosfs.errors.
Must not know: HTTP, boto3, trio's threads, POSIX.

Keys are str (the UTF-8 of the key decoded); ETags are without quotes; times are nanoseconds since the epoch; byte ranges are
half-open ``[start, end)``. Every verb raises `zosfs.errors.StoreError`, and retries what is safe to retry by itself;
what reaches the caller is final or ambiguous (see StoreError.ambiguous).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from zosfs.errors import StoreError
    from zosfs.store.arrival import Arrival
    from zosfs.store.traffic import Waiting

if TYPE_CHECKING:
    from dataclasses import dataclass as unchanging
else:

    def unchanging(*, frozen, slots):
        """A frozen dataclass that the type checker alone holds to it: to make one that looks at each assignment costs three times as much,
        and a listing makes a million."""
        return dataclass(slots=slots, unsafe_hash=frozen)


HEADS_TOGETHER = 16
"""HEADs in a batch: Ceph answers one in 0.3 ms, so that nobody waits long for those in front."""

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class FileSlice:
    """Bytes ``[offset, offset + length)`` of a local file, to be sent without passing through Python; holes read as zeros."""

    fd: int
    offset: int
    length: int


Piece = Buffer | FileSlice
Body = Sequence[Piece]
"""What is uploaded: pieces in order. The file and the buffers must not change until the verb returns."""


def body_length(body: Body) -> int:
    """The number of bytes of *body*."""
    return sum(piece.length if isinstance(piece, FileSlice) else len(piece) for piece in body)


@dataclass(frozen=True, slots=True)
class ObjectHeaders:
    """Everything but the bytes that a write gives an object. What is empty or None is not sent.

    *metadata* are the x-amz-meta-* values, names in lower case without the prefix. *extra* are further request headers such as
    ``content-encoding``, ``cache-control``, ``x-amz-object-lock-mode``, by lower-case name. *tags* is the
    x-amz-tagging header's set.
    """

    metadata: Mapping[str, str] = field(default_factory=dict)
    content_type: str = ""
    acl: str = ""
    storage_class: str = ""
    tags: Mapping[str, str] | None = None
    extra: Mapping[str, str] = field(default_factory=dict)


_NO_HEADERS: Mapping[str, str] = {}
"""One for all: a million listed objects have none."""


@unchanging(frozen=True, slots=True)
class ObjectInfo:
    """What a HEAD, a GET or a listing said of one object.

    From a listing *metadata* is None, and *content_type* and *headers* are empty: only a HEAD knows them.
    *headers* are the other answer headers of a HEAD, by lower-case name (content-encoding, x-amz-restore,
    x-amz-tagging-count, x-amz-object-lock-mode …).
    """

    key: str
    size: int
    etag: str
    modified_ns: int
    storage_class: str = ""
    object_type: str = ""  # "Normal", "Appendable", or "" where the server does not say
    version_id: str = ""
    content_type: str = ""
    metadata: Mapping[str, str] | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: _NO_HEADERS)

    @property
    def appendable(self) -> bool:
        """Whether the object grows by append uploads."""
        return self.object_type == "Appendable"

    def grew_from(self, before: ObjectInfo) -> bool:
        """Whether it is the object *before* with more behind it, as far as that can be told: it grows by append uploads, it is not shorter,
        and more of them have made it, which its ETag counts."""
        return (
            self.appendable and before.appendable and self.size >= before.size and appends_of(self.etag) > appends_of(before.etag)
        )


def appends_of(etag: str) -> int:
    """How many appends made the appendable object of this *etag*; 0 for ""."""
    _, dash, count = etag.partition("-")
    if dash:
        return int(count) if count.isdigit() else 1
    return 1 if etag else 0


@dataclass(frozen=True, slots=True)
class ListPage:
    """One page of a listing: objects and common prefixes (each with its trailing delimiter), both in key order.

    *next_marker* is what to pass as *marker* for the following page, "" at the end.
    """

    objects: Sequence[ObjectInfo]
    prefixes: Sequence[str]
    next_marker: str


@dataclass(frozen=True, slots=True)
class Written:
    """What a completed write left: the new ETag ("" where the server does not tell), version, and next append position."""

    etag: str
    version_id: str = ""
    next_position: int | None = None
    modified_ns: int = 0  # Last-Modified where the answer says it, else the answer's Date; 0 when neither


@dataclass(frozen=True, slots=True)
class PartInfo:
    """A part that the server has: number (from 1), ETag, size in bytes."""

    number: int
    etag: str
    size: int


@dataclass(slots=True)
class Abilities:
    """What the server can do, found out once per mount (None: not found out yet).

    The probes are requests on a scratch key; `zosfs doctor` prints what they found.
    """

    append: bool | None = None
    put_if_none_match: bool | None = None
    put_if_match: bool | None = None
    versioned: bool | None = None  # Enabled or Suspended: no append, no conditional PUT on RGW 16
    folders: bool | None = None
    """Keys make folders of the server's own (SeaweedFS): it shows them, empty, when the last of these keys is gone, takes no file in their
    place, and keeps one that has something in it when it is deleted, and tells nobody."""

    @property
    def keeps_folders(self) -> bool:
        """Whether a removed directory may have to be deleted although it has no object of its own. Not where that would leave a version,
        or may."""
        return self.versioned is False and self.folders is not False


@dataclass(frozen=True, slots=True)
class BucketUsage:
    """What HEAD bucket told: objects, bytes, and quotas (None: not told or no quota)."""

    objects: int | None = None
    bytes: int | None = None
    quota_bytes: int | None = None
    quota_objects: int | None = None


class Store(Protocol):
    """One bucket."""

    bucket: str
    abilities: Abilities
    probed: bool
    """Whether `probe` has run to its end."""

    async def probe(self, prefix: str = "") -> Abilities:
        """Find out once what the server can do with the bucket; on scratch objects under *prefix* unless the mount is read only.

        Raises no StoreError: what cannot be found out stays None. After trouble the next call asks again. Cancelled, it leaves no scratch
        objects and may be called again.
        """
        ...

    async def head(self, key: str, *, version_id: str = "") -> ObjectInfo:
        """The object's facts, metadata included. StoreError with ENOENT when it is missing."""
        ...

    async def head_many(self, keys: Sequence[str]) -> Sequence[ObjectInfo | StoreError | None]:
        """What `head` returns or raises for each of *keys*, asked for at once; None: ask for that one by `head`.

        So is all of it where there are more *keys* than the server is sent at once (`HEADS_TOGETHER`), or where it takes one at a time.
        """
        ...

    async def list_page(self, prefix: str, *, delimiter: str = "", marker: str = "", max_keys: int = 1000) -> ListPage:
        """One page of at most *max_keys* (≤ 1000) names under *prefix*, strictly after *marker*, bytewise ordered by UTF-8."""
        ...

    async def get_range(
        self, key: str, start: int, into: memoryview, *, if_match: str = "", version_id: str = "", arrival: Arrival | None = None
    ) -> ObjectInfo:
        """Fill *into* with the object's bytes ``[start, start + len(into))`` and return what the answer's headers said.

        Raises ESTALE when the ETag is no longer *if_match*, and ``InvalidRange`` (errno EINVAL) when the object is shorter.
        A body that breaks off is continued from where it broke, under the same If-Match. *arrival* is told of the bytes as they come.
        """
        ...

    async def put(
        self, key: str, body: Body, headers: ObjectHeaders, *, if_match: str = "", if_none_match: bool = False
    ) -> Written:
        """Replace or create the whole object (≤ 5 GiB). *if_match*/*if_none_match* are sent only where abilities allow.

        After a lost answer it finds out by HEAD whether its own bytes arrived before it tries again, so that a conditional
        PUT never fails because of itself. Raises ESTALE on a lost condition.
        """
        ...

    async def append(self, key: str, position: int, body: Body, headers: ObjectHeaders) -> Written:
        """Append at *position*, which must be the object's length (0 creates it). One try: the caller recovers.

        ``PositionNotEqualToLength`` carries ``x-rgw-next-append-position`` in StoreError.headers.
        """
        ...

    async def create_upload(self, key: str, headers: ObjectHeaders) -> str:
        """Begin a multipart upload and return its id. Tags in *headers* are set by the caller after completion."""
        ...

    async def upload_part(self, key: str, upload_id: str, number: int, body: Body) -> PartInfo:
        """Upload part *number* (1…10000; 5 MiB…5 GiB, the last may be smaller)."""
        ...

    async def upload_part_copy(
        self, key: str, upload_id: str, number: int, source_key: str, start: int, end: int, *, if_match: str = "", source_bucket: str = ""
    ) -> PartInfo:
        """Part *number* from bytes ``[start, end)`` of *source_key* of this bucket (or *source_bucket*), copied by the server."""
        ...

    async def complete_upload(self, key: str, upload_id: str, parts: Sequence[PartInfo]) -> Written:
        """Make the object of *parts* (all that were uploaded). Recognises its own success after a lost answer."""
        ...

    async def abort_upload(self, key: str, upload_id: str) -> None:
        """Forget an upload and its parts; an unknown upload is no error."""
        ...

    async def list_parts(self, key: str, upload_id: str) -> Sequence[PartInfo]:
        """All parts that the server has of an upload."""
        ...

    async def copy(
        self,
        source_key: str,
        key: str,
        *,
        source_bucket: str = "",
        source_version_id: str = "",
        headers: ObjectHeaders | None = None,
        acl: str | Mapping[str, str] = "",
        if_match: str = "",
        size: int = 0,
    ) -> Written:
        """Copy on the server. *headers* None keeps metadata (COPY directive), else they replace all of it (REPLACE).

        *if_match* is the source's ETag. Raises ESTALE when it changed. Tags are kept with COPY and lost with REPLACE on RGW;
        the ACL is reset to *acl* (a canned one, or x-amz-grant-* headers) or private. *size* chooses a time-out that fits.
        """
        ...

    async def delete(self, key: str, *, version_id: str = "", bypass_governance: bool = False) -> None:
        """Delete one object; a missing one is no error."""
        ...

    async def delete_folder(self, key: str) -> bool:
        """Delete what a server with folders of its own may have kept of the directory *key* (ending in a slash), which was removed before
        the last object in it. False, and nothing was deleted, where something lies there: who makes the directory anew meanwhile waits.
        """
        ...

    async def delete_many(self, keys: Sequence[str]) -> Mapping[str, StoreFailure]:
        """Delete up to 1000 objects; returns the ones that failed. Falls back to single deletes where the bucket has
        notifications (RGW 16 aborts there)."""
        ...

    @property
    def promised_deletions(self) -> int:
        """How many deletions were promised by `delete_soon` and are not made."""
        ...

    def delete_soon(self, info: ObjectInfo, done: Callable[[StoreFailure | None], object]) -> None:
        """Promise to delete the object *info* together with others; *done* is told once it is deleted (None) or refused.

        Until then nothing that is asked of this Store shows the object. When the server was away for a while, another object
        that lies at the key by then is left alone, and *done* is told of success.
        """
        ...

    def tell_before_making(self, told: Callable[[str], Awaitable[None]]) -> None:
        """Have *told* called with the key of every object of this Store before it is made; what that raises comes instead of the object."""
        ...

    async def settle_deletions(self, *, full: bool = False) -> None:
        """Make the promised deletions; *full*: only as many as fill whole requests.

        Raises StoreError when it cannot be told whether they were made: they stay promised.
        """
        ...

    async def get_tags(self, key: str, *, version_id: str = "") -> Mapping[str, str]:
        """The object's tags."""
        ...

    async def put_tags(self, key: str, tags: Mapping[str, str], *, version_id: str = "") -> None:
        """Replace the object's tags (empty: delete them)."""
        ...

    async def get_acl(self, key: str, *, version_id: str = "") -> Mapping[str, Any]:
        """The object's ACL as boto3 returns it (Owner, Grants)."""
        ...

    async def put_acl(self, key: str, acl: str | Mapping[str, Any], *, version_id: str = "") -> None:
        """Set a canned ACL (str), grant headers or an AccessControlPolicy (mapping with boto3's member names)."""
        ...

    async def usage(self) -> BucketUsage:
        """HEAD bucket: also the check that it exists and may be reached."""
        ...

    async def call(self, operation: str, **members: Any) -> Mapping[str, Any]:
        """Any other S3 operation of the whitelist by its boto3 name (``get_bucket_policy``…), Bucket filled in; rare things only.

        Runs boto3 in a thread. Returns the answer without ResponseMetadata.
        """
        ...


@dataclass(frozen=True, slots=True)
class StoreFailure:
    """Why one key of a delete_many failed."""

    code: str
    message: str = ""


class Account(Protocol):
    """What the credentials reach: buckets."""

    async def list_buckets(self) -> Sequence[tuple[str, int]]:
        """Names and creation times (ns) of the account's buckets."""
        ...

    def silence(self) -> float:
        """Seconds since the server was last heard, or took bytes of a large body."""
        ...

    def waiting(self) -> Waiting | None:
        """Who waits for the server now; None when nobody does."""
        ...

    async def tell_silence(self) -> None:
        """Say in the log when the server falls silent while requests wait, and when it speaks again. Until cancelled."""
        ...

    def bucket(self, name: str) -> Store:
        """The Store of one bucket, sharing connections and counters."""
        ...

    async def create_bucket(self, name: str, **members: Any) -> None:
        """Create; members as boto3's create_bucket takes them. EEXIST when somebody has it."""
        ...

    async def delete_bucket(self, name: str) -> None:
        """Delete an empty bucket; ENOTEMPTY otherwise."""
        ...

    async def aclose(self) -> None:
        """Close connections and threads."""
        ...
