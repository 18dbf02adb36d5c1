"""The one table of options, projected to -o, --flags, ZOSFS_* variables, TOML, docs/options.md and the man page.

Owns: names, types, defaults, help, aliases. A field of `Options` is a row. May use: nothing of zosfs.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def option(
    default: Any,
    help: str,
    *,
    group: str,
    kind: str = "",
    aliases: tuple[str, ...] = (),
    choices: tuple[str, ...] = (),
    env: tuple[str, ...] = (),
    secret: bool = False,
) -> Any:
    """One row of the table. *kind*: "" (from the type), "size" (bytes, suffixes K M G T), "duration" (seconds, suffixes
    ms s m h d), "moment" (ns since the epoch, 0: none), "retention" (MODE:DURATION), "octal", "path", "user", "group". *aliases* are other tools' names for it, *env* further variables."""
    return dataclasses.field(
        default=default,
        metadata={
            "help": help, "group": group, "kind": kind, "aliases": aliases, "choices": choices, "env": env, "secret": secret,
        },
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """A mount's options, checked and typed. Sizes are bytes, durations seconds."""

    # connection
    url: str = option("", "endpoint, e.g. https://huabei-2.zos.ctyun.cn", group="connection", aliases=("endpoint", "endpoint_url", "host", "s3_endpoint"), env=("zosEp", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
    region: str = option("us-east-1", "region name used in signatures", group="connection", aliases=("s3_region",), env=("AWS_REGION", "AWS_DEFAULT_REGION"))
    passwd_file: str = option("", "file with ACCESS_KEY:SECRET_KEY (mode 0600)", group="connection", kind="path")
    profile: str = option("", "profile of the AWS shared credentials file", group="connection", env=("AWS_PROFILE",))
    session_token_file: str = option("", "file with a session token for temporary credentials (mode 0600)", group="connection", kind="path")
    role_arn: str = option("", "take this role (STS AssumeRole): temporary credentials, renewed before they end", group="connection", aliases=("s3_role_arn",))
    role_session_name: str = option("zosfs", "name of the role's session, as the server's log shows it", group="connection", aliases=("s3_role_session_name",))
    role_policy: str = option("", "file with a policy document that narrows what the role may do", group="connection", kind="path")
    role_duration: float = option(3600.0, "how long the temporary credentials hold, 15 minutes to 12 hours", group="connection", kind="duration", aliases=("s3_role_session_duration",))
    public_bucket: bool = option(False, "send unsigned requests", group="connection", aliases=("no_sign_request",))
    use_path_request_style: bool = option(False, "bucket name in the path instead of the host name (always so for IP addresses)", group="connection", aliases=("path_style", "force_path_style", "s3_force_path_style"))
    sigv2: bool = option(False, "sign with the old version 2", group="connection", aliases=("s3_v2_auth",))
    sign_payload: str = option("auto", "sign the hash of what is uploaded: auto does so on plain http", group="connection", choices=("auto", "always", "never"))
    tls_verify: bool = option(True, "verify the server's certificate", group="connection")
    ca_file: str = option("", "PEM file of the certificate authority to trust", group="connection", kind="path", aliases=("ca_cert", "cacert"), env=("AWS_CA_BUNDLE",))
    connect_timeout: float = option(10.0, "for a connection to be made", group="connection", kind="duration", aliases=("contimeout",))
    read_timeout: float = option(60.0, "for the server to say anything", group="connection", kind="duration", aliases=("readwrite_timeout", "timeout"))
    retries: int = option(5, "times a failed request is sent again", group="connection", aliases=("low_level_retries",))
    retry_timeout: float = option(120.0, "after which a request is given up however often it was tried", group="connection", kind="duration")
    listobjectsv2: bool = option(False, "list with ListObjectsV2 instead of V1", group="connection", aliases=("list_objects_v2",))
    connections: int = option(64, "connections at most, for everything", group="connection", aliases=("max_thread_count", "parallel_count", "transfers", "checkers", "multireq_max"))
    pipeline: bool = option(True, "send attribute requests that wait behind one another on a connection, without waiting for each answer", group="connection")
    requester_pays: bool = option(False, "accept the charges of a requester-pays bucket", group="connection", aliases=("s3_requester_pays",))

    # objects written
    acl: str = option("", "canned ACL of objects written", group="objects", aliases=("default_acl", "s3_acl"))
    keep_acl: str = option("edits", "ask for an object's ACL to give it back after: edits and attribute changes, renames too, never", group="objects", choices=("never", "edits", "always"))
    storage_class: str = option("", "storage class of objects written", group="objects", aliases=("s3_storage_class",))
    sse: str = option("", "server-side encryption of objects written: AES256 or aws:kms[:KEY]", group="objects", aliases=("use_sse", "s3_server_side_encryption"))
    tags: str = option("", "tags of objects written, as key=value&key=value", group="objects")
    legal_hold: bool = option(False, "put files written under a legal hold (bucket with object lock)", group="objects")
    retention: str = option("", "lock files written for so long: governance:30d or compliance:1h (bucket with object lock)", group="objects", kind="retention")
    append: str = option("auto", "append uploads for files grown at the end", group="objects", choices=("auto", "off"))
    gather_deletes: bool = option(True, "removals that follow each other closely go to the server together, a moment later", group="objects")
    gather_attributes: bool = option(True, "changes of mode, owner and times of a file written a moment before go to the server together, a moment later, or with its renaming", group="objects")
    append_interval: float = option(1.0, "how long small appends are gathered", group="objects", kind="duration")
    compact_appends: int = option(0, "appends that make an object worth being made whole on the server once nobody uses it; 0: never. Only where no other host appends to it (docs/semantics.md says why)", group="objects")

    # attributes and permissions
    posix: bool = option(True, "keep mode, owner and times with each object, as s3fs does (noposix: from listings alone)", group="attributes")
    special: bool = option(True, "objects may be symbolic links, FIFOs, sockets or devices (nospecial: none is and none can be made, so that listings tell what names are)", group="attributes")
    uid: int = option(-1, "owner of files that have none stored (default: who mounts)", group="attributes", kind="user")
    gid: int = option(-1, "group of files that have none stored", group="attributes", kind="group")
    umask: int = option(-1, "permission bits taken from files and directories that have no mode stored", group="attributes", kind="octal")
    file_mode: int = option(0o644, "mode of files that have none stored", group="attributes", kind="octal", aliases=("file_perms",))
    dir_mode: int = option(0o755, "mode of directories that have none stored", group="attributes", kind="octal", aliases=("dir_perms",))
    allow_other: bool = option(False, "let other users in", group="attributes")
    allow_root: bool = option(False, "let root in", group="attributes")
    ro: bool = option(False, "read only", group="attributes", aliases=("read_only",))
    versions: bool = option(False, "show older versions of each file beside it, as name@VERSION-ID (needs versioning)", group="attributes")
    at: int = option(0, "the bucket as it was at this time, read only (needs versioning): 2026-11-21T08:00:00Z, yesterday, 3 hours ago, 2d", group="attributes", kind="moment")

    # freshness
    metadata_ttl: float = option(60.0, "how long names and attributes are trusted without asking", group="freshness", kind="duration", aliases=("stat_cache_expire", "dir_cache_time", "attr_cache", "attr_timeout"))
    open_ttl: float = option(0.0, "how old what is known of a file may be when it is opened from a local cache", group="freshness", kind="duration")
    prefetch: float = option(0.0, "fetch small files ahead of a program that reads one after the other; an open may miss what was written elsewhere in so long", group="freshness", kind="duration")
    negative_ttl: float = option(10.0, "how long a missing name is trusted to be missing where its directory was not listed (there metadata_ttl holds)", group="freshness", kind="duration")
    notify: str = option("", "hear of other hosts' changes at once: http://HOST:PORT, as the server reaches this host (docs/semantics.md says what to mind)", group="freshness")

    # memory and disk
    memory: int = option(512 * MIB, "bytes in flight and read ahead, over all open files", group="memory and disk", kind="size", aliases=("memory_limit", "max_buffer_memory"))
    cache_dir: str = option("", "directory of the chunk cache and the journal (default: the user's cache directory)", group="memory and disk", kind="path", aliases=("use_cache", "cache"))
    cache_size: int = option(10 * GIB, "bytes the chunk cache may take, staged writes included", group="memory and disk", kind="size", aliases=("vfs_cache_max_size", "max_cache_size"))
    free_space: int = option(1 * GIB, "bytes of the disk always left free", group="memory and disk", kind="size", aliases=("ensure_diskfree", "vfs_cache_min_free_space"))
    part_size: int = option(16 * MIB, "size of the first parts of a multipart upload", group="memory and disk", kind="size", aliases=("multipart_size", "s3_chunk_size"))
    multipart_threshold: int = option(32 * MIB, "files below this go up in one request", group="memory and disk", kind="size", aliases=("s3_upload_cutoff",))
    upload_concurrency: int = option(4, "parts of one file sent at once", group="memory and disk", aliases=("s3_upload_concurrency", "max_uploads"))
    read_ahead: int = option(128 * MIB, "largest read-ahead window of one stream; beyond 64M, which all files read at once share, only while that makes the reader faster", group="memory and disk", kind="size", aliases=("vfs_read_ahead",))
    random_ahead: int = option(0, "bytes fetched around a random read while it is answered: fewer round trips to a server far away, many more bytes (such as 16M)", group="memory and disk", kind="size")

    # promises
    writeback: float = option(-1.0, "close returns when the local journal has the data; upload after this delay (5s where none is given)", group="promises", kind="duration", aliases=("vfs_write_back",))
    fsync: str = option("store", "what fsync waits for under writeback", group="promises", choices=("store", "journal"))

    # mount and log
    fsname: str = option("", "source shown in /proc/mounts (default: SOURCE)", group="mount")
    nonempty: bool = option(False, "mount over a directory that has entries", group="mount", aliases=("allow_non_empty",))
    log_file: str = option("", "write the log there", group="mount", kind="path", aliases=("logfile",))
    log_level: str = option("info", "least important messages to log", group="mount", choices=("debug", "info", "warning", "error"), aliases=("dbglevel",))
    metrics: str = option("", "serve the mount's numbers to Prometheus: HOST:PORT, or PORT for this machine only", group="mount", aliases=("metrics_addr", "prometheus_port"))
    bucket_size: int = option(0, "size that df shows where the server tells no quota", group="mount", kind="size")
    max_background: int = option(64, "requests the kernel may have in flight for read-ahead", group="mount")
    max_readahead: int = option(4 * MIB, "how far the kernel itself reads ahead (needs root)", group="mount", kind="size", aliases=("max_read_ahead",))
    kernel_flags: str = option("", "flags handed to the kernel's mount, collected from noexec, nosuid, nodev, noatime, nodiratime, sync, dirsync", group="mount")
