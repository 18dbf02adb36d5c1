"""The one registry of counters: what every room did, shown by `zosfs stats` and read by the tests.

Owns: the numbers. A counter is a row of METRICS; adding to a name that has no row is a programming error.
All adding happens on the trio thread, or under the GIL by a single `+=` from a worker on a name that only it writes.
"""

from __future__ import annotations

from collections.abc import Mapping

METRICS: Mapping[str, str] = {
    # store/: one per request sent, tries included
    "requests_head": "HEAD requests of objects",
    "requests_head_bucket": "HEAD requests of the bucket",
    "requests_list": "LIST pages asked for",
    "requests_list_buckets": "listings of the account's buckets",
    "requests_get": "GET requests of object ranges",
    "requests_put": "PUT requests of whole objects",
    "requests_append": "append requests",
    "requests_create_upload": "multipart uploads begun",
    "requests_upload_part": "parts uploaded",
    "requests_upload_part_copy": "parts copied on the server",
    "requests_complete_upload": "multipart uploads completed",
    "requests_abort_upload": "multipart uploads aborted",
    "requests_list_parts": "listings of parts",
    "requests_copy": "server-side copies",
    "requests_delete": "single deletes",
    "requests_delete_many": "multi-object deletes",
    "requests_tagging": "reads and writes of tags",
    "requests_acl": "reads and writes of ACLs",
    "requests_other": "all other requests (settings, versions, locks)",
    "bytes_received": "body bytes received",
    "bytes_sent": "body bytes sent",
    "retries": "requests sent again after a failure",
    "slowdowns": "times that fewer HEADs went at once because the server asked for fewer requests",
    "errors": "requests that failed for good",
    "connections": "connections opened",
    "events": "changes by others that the bucket's notifications told",
    # content/
    "read_bytes": "bytes answered to readers",
    "read_waits": "reads that had to wait for the network",
    "readahead_bytes": "bytes fetched before they were asked for",
    "readahead_wasted_bytes": "bytes fetched ahead and never read",
    "cache_hit_bytes": "bytes served from the local chunk cache",
    "cache_miss_bytes": "bytes that the local chunk cache did not have",
    "cache_evicted_bytes": "bytes evicted from the local chunk cache",
    "written_bytes": "bytes taken from writers",
    "memory_waits": "reservations that had to wait for the memory budget",
    "disk_waits": "writers slowed because too many dirty bytes are staged",
    "flushes": "files delivered",
    "compactions": "objects of very many appends made whole",
    "conflicts": "deliveries refused because someone else changed the object",
    "journal_replayed": "files delivered from the journal of an earlier run",
    # tree/
    "listing_hits": "lookups answered from a listing",
    "listing_misses": "lookups that needed a request",
    "negative_hits": "missing names answered without a request",
    "attribute_hits": "attributes answered from the attribute cache",
    # fs/
    "fuse_requests": "requests from the kernel",
    "gathered_deletes": "removals gathered into requests for many",
    "gathered_attributes": "attribute changes of files written a moment before that were gathered into one request a file",
    "fuse_errors": "requests answered with EIO because of an unexpected exception",
}


class Counters(dict[str, int]):
    """The numbers of one mount, by name; every row of METRICS starts at 0."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(METRICS, 0))

    def add(self, name: str, n: int = 1) -> None:
        """Add *n* to counter *name*; KeyError when METRICS has no such row."""
        self[name] += n

    def requests(self) -> int:
        """All requests sent to the store so far."""
        return sum(n for name, n in self.items() if name.startswith("requests_"))
