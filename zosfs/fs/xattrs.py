"""Extended attributes: what the object store knows of a file beyond bytes and POSIX attributes, and users' own.

One row an attribute (ROWS and PREFIXES): how it is read, set, removed, and whether listxattr names it. Rows that copying
programs could not set again (cp -a, rsync -X, tar --xattrs) are not listed; getfattr -n reads them by name.
Attributes outside `user.zos.` are kept in s3fs-fuse's format in the object's metadata (x-amz-meta-xattr).
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyfuse3
import trio

from zosfs.admin import settings
from zosfs.admin.objects import OBJECT_PREFIXES, OBJECT_XATTRS, XattrRow, tag_names
from zosfs.admin.refusal import Refusal
from zosfs.config import Options
from zosfs.counters import Counters
from zosfs.fs import coming
from zosfs.fs.change import Changes
from zosfs.fs.contents import Contents
from zosfs.fs.deliveries import Deliveries
from zosfs.fs.describing import Describing
from zosfs.fs.headers import Described, fresh, of_object
from zosfs.fs.open_file import OpenFile
from zosfs.store.api import ObjectInfo
from zosfs.tree.attributes import decode_xattrs, encode_xattrs
from zosfs.tree.inodes import Inode
from zosfs.tree.tree import Tree

ZOS = "user.zos."
POSIX_KEYS = frozenset({"mode", "uid", "gid", "mtime", "atime", "ctime", "rdev", "xattr"})
"""Metadata names that stat(2) and the xattrs themselves show already."""

NEVER = ("security.", "system.")
"""Name spaces that a bucket does not keep. ENOTSUP says so for the whole filesystem: `ls -l`, which would ask for two of them a file
(coreutils: errno_unsupported), then does not ask again; ENODATA would be about one file."""

METADATA = 2048
"""Bytes that the metadata of an object may have in S3; Ceph takes more."""
FOREIGN = 8192
"""Bytes that the attributes outside `user.zos.` may have as one header: Ceph's own limit, half of the request head that it reads."""

SIZED = 0.1
"""Seconds after its size for which a value that is asked for next is the one that had that size."""

Status = Callable[[], Mapping[str, Any]]


def _no_data() -> OSError:
    return OSError(errno.ENODATA, os.strerror(errno.ENODATA))


@dataclass(frozen=True, slots=True)
class Row:
    """One attribute below `user.zos.`. *get* raises ENODATA where there is none; *set* and *remove* are None where not allowed."""

    get: Callable[[Xattrs, Inode, str], Awaitable[bytes]]
    set: Callable[[Xattrs, Inode, str, bytes], Awaitable[None]] | None = None
    remove: Callable[[Xattrs, Inode, str], Awaitable[None]] | None = None
    listed: bool = False


class Xattrs:
    """The extended attributes of a mount's inodes."""

    def __init__(
        self, tree: Tree, contents: Contents, changes: Changes, describing: Describing, deliveries: Deliveries, options: Options,
        counters: Counters, status: Status,
    ) -> None:  # fmt: skip
        self.tree = tree
        self.contents = contents
        self.describing = describing
        self.changes = changes
        self.deliveries = deliveries
        self.options = options
        self.counters = counters
        self.status = status
        self.sized: tuple[XattrRow, Inode, bytes, float] | None = None
        """The value that was told last of an attribute that programs copy, told once: whose it is, and when (trio time)."""

    async def get(self, inode: Inode, name: str) -> bytes:
        """The value of *name*; ENODATA where there is none, ENOTSUP for name spaces that a bucket does not keep."""
        if name.startswith(NEVER):
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        if name.startswith(ZOS):
            row, rest = find(name.removeprefix(ZOS))
            return await row.get(self, inode, rest)
        values = decode_xattrs((await self.described(inode)).metadata.get("xattr", ""))
        try:
            return values[name]
        except KeyError:
            raise _no_data() from None

    async def names(self, inode: Inode) -> list[str]:
        """What listxattr shows: the users' own, and those rows that may be set again and are there."""
        described = await self.described(inode)
        found = list(decode_xattrs(described.metadata.get("xattr", "")))
        found += [f"{ZOS}meta.{key}" for key in sorted(described.metadata) if key not in POSIX_KEYS]
        info: ObjectInfo | None = inode.info
        if inode.pending:
            found += [f"{ZOS}tag.{key}" for key in described.tags or {}]
        elif info is not None:
            found += [f"{ZOS}tag.{key}" for key in await tag_names(inode.store, info.key, info)]
            if not inode.is_dir:
                found.append(f"{ZOS}acl")  # there always is one: it is asked for by whoever reads it
        return found

    async def set(self, inode: Inode, name: str, value: bytes) -> None:
        """Set *name*; EPERM for what is read-only, ENOTSUP for name spaces that a bucket does not keep."""
        if name.startswith(NEVER):
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        if name.startswith(ZOS):
            try:
                row, rest = find(name.removeprefix(ZOS))
            except OSError:
                raise Refusal(f"there is no attribute {name}", errno.ENOTSUP) from None
            if row.set is None:
                raise Refusal(f"{name} is read only", errno.EPERM)
            await row.set(self, inode, rest, value)
            return
        described = await self.described(inode)
        values = decode_xattrs(described.metadata.get("xattr", ""))
        if values.get(name) == value:
            return
        values[name] = value
        text = encode_xattrs(values)
        if len(text) > FOREIGN:
            raise Refusal(f"{name}: all attributes of a file have {len(text)} bytes as stored; {FOREIGN} are allowed", errno.E2BIG)
        await self.set_metadata(inode, "xattr", text)

    async def remove(self, inode: Inode, name: str) -> None:
        """Remove *name*; ENODATA where there is none."""
        if name.startswith(NEVER):
            raise _no_data()
        if name.startswith(ZOS):
            row, rest = find(name.removeprefix(ZOS))
            if row.remove is None:
                raise Refusal(f"{name} cannot be removed", errno.EPERM)
            await row.remove(self, inode, rest)
            return
        described = await self.described(inode)
        values = decode_xattrs(described.metadata.get("xattr", ""))
        if values.pop(name, None) is None:
            raise _no_data()
        await self.set_metadata(inode, "xattr", encode_xattrs(values) if values else None)

    # -- what rows need ---------------------------------------------------------------------------------------------

    async def info(self, inode: Inode) -> ObjectInfo:
        """The object's HEAD facts; ENODATA for what has no object (yet)."""
        if inode.pending or inode.top or (inode.is_dir and inode.marker is False):
            raise _no_data()
        info: ObjectInfo | None = inode.info
        if info is None or info.metadata is None:
            info = await inode.store.head(inode.key)
            if inode.file is None or not inode.file.dirty:
                self.tree.delivered(inode, info)
        return info

    async def delivered(self, inode: Inode) -> ObjectInfo:
        """The object's facts; a file with undelivered changes is delivered first, but not what a program is in the middle of writing."""
        if inode.file is not None and inode.file.dirty:
            await self.deliveries.deliver(inode.file, only_promised=True)
            await self.tree.refresh(inode)  # what was promised of it may have been given up
        return await self.info(inode)

    async def described(self, inode: Inode) -> Described:
        """Metadata and headers of *inode* as they will be in the store."""
        if inode.file is not None and inode.file.described is not None:
            described: Described = inode.file.described
            return described
        try:
            return of_object(await self.info(inode), self.options)
        except OSError as exc:
            if exc.errno in (errno.ENODATA, errno.ENOENT):
                return fresh(inode.name, inode.is_dir, self.options)
            raise

    async def set_metadata(self, inode: Inode, key: str, value: str | None) -> None:
        """Change one x-amz-meta-* value (None: remove it) and deliver as `Changes.apply` does."""

        def change(described: Described) -> None:
            if value is None:
                described.metadata.pop(key, None)
            else:
                described.metadata[key] = value

        await self.change(inode, change)

    async def change(self, inode: Inode, change: Callable[[Described], None]) -> None:
        """Apply *change* to what the object has and deliver it."""
        described = await self.described(inode)
        change(described)
        await self.changes.apply(inode, described)


def find(rest: str) -> tuple[Row, str]:
    """The row of an attribute name after `user.zos.`, and what follows a prefix row's name; ENODATA for unknown ones."""
    row = ROWS.get(rest)
    if row is not None:
        return row, ""
    for prefix, prefix_row in PREFIXES.items():
        if rest.startswith(prefix) and len(rest) > len(prefix):
            return prefix_row, rest[len(prefix) :]
    raise _no_data()


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Refusal("the value is not UTF-8") from None


def _grows(file: OpenFile) -> bool:
    """Whether what is written to *file* may go behind what is there, which stays as it is then."""
    return file.writer is not None and file.writer.dirty and file.writer.draft.base is not None and file.writer.draft.base.appendable


def _of_store(row: XattrRow, to_come: coming.Row | None) -> Row:
    """A row of the object store's own attributes (admin/) as a row here. While a program writes the file they are those of the object that
    is there. Where there is none, or one does not stay when that is replaced, it is set on what the program makes, as *to_come* says."""

    def will_be(xattrs: Xattrs, inode: Inode, rest: str) -> str | None:
        file: OpenFile | None = inode.file
        if to_come is None or file is None or file.writer is None or not file.writer.dirty or not (inode.pending or not row.stays):
            return None
        return to_come.get(file.described or fresh(inode.name, inode.is_dir, xattrs.options), rest)

    async def get(xattrs: Xattrs, inode: Inode, rest: str) -> bytes:
        value = will_be(xattrs, inode, rest)
        if value is not None:
            return value.encode()
        before, xattrs.sized = xattrs.sized, None
        if before is not None and before[0] is row and before[1] is inode and trio.current_time() - before[3] < SIZED:
            return before[2]
        found = (await row.get(inode.store, inode.key, await xattrs.delivered(inode), rest)).encode()
        if row.copied:
            xattrs.sized = (row, inode, found, trio.current_time())
        return found

    async def change(xattrs: Xattrs, inode: Inode, rest: str, value: bytes) -> None:
        assert row.set is not None
        if inode.unlinked:
            raise _no_data()  # what lies at its key is another object, or is about to go
        xattrs.sized = None
        text = _text(value)
        file: OpenFile | None = inode.file

        async def on_what_comes(described: Described) -> None:
            assert to_come is not None
            await to_come.set(inode.store, inode.key, described, rest, text)

        async def on_what_is_there() -> None:
            assert row.set is not None
            await row.set(inode.store, inode.key, await xattrs.info(inode), rest, text)

        if file is not None and row.rewrites and _grows(file):
            await xattrs.changes.beneath(file, on_what_is_there)
        elif to_come is not None and file is not None and await xattrs.deliveries.take_along(file, on_what_comes, replaced=not row.stays):
            return
        else:
            await xattrs.delivered(inode)
            await on_what_is_there()
        await xattrs.tree.refresh(inode, force=True)
        await xattrs.describing.relearn(inode)

    async def remove(xattrs: Xattrs, inode: Inode, rest: str) -> None:
        assert row.remove is not None
        if inode.unlinked:
            raise _no_data()
        xattrs.sized = None
        if to_come is not None and to_come.remove is not None and inode.file is not None and will_be(xattrs, inode, rest) is not None:
            removing = to_come.remove

            async def without(described: Described) -> None:
                removing(described, rest)

            if await xattrs.deliveries.take_along(inode.file, without, replaced=not row.stays):
                return
        await row.remove(inode.store, inode.key, await xattrs.delivered(inode), rest)
        await xattrs.tree.refresh(inode, force=True)
        await xattrs.describing.relearn(inode)

    return Row(get, change if row.set else None, remove if row.remove else None, row.listed)


async def _setting(xattrs: Xattrs, inode: Inode, name: str) -> bytes:
    _only_top(inode)
    value = await settings.get(inode.store, _known_setting(name))
    if value is None:
        raise _no_data()
    return value.encode()


async def _set_setting(xattrs: Xattrs, inode: Inode, name: str, value: bytes) -> None:
    _only_top(inode)
    await settings.set(inode.store, _known_setting(name), _text(value))


async def _remove_setting(xattrs: Xattrs, inode: Inode, name: str) -> None:
    _only_top(inode)
    await settings.unset(inode.store, _known_setting(name))


def _known_setting(name: str) -> str:
    if name not in settings.SETTINGS:
        raise _no_data()
    return name


def _only_top(inode: Inode) -> None:
    """Settings are a bucket's: they show on the directory that is its top."""
    if not inode.top or inode.volume is None or inode.volume.prefix:
        raise _no_data()


def _fact(pick: Callable[[ObjectInfo], str]) -> Callable[[Xattrs, Inode, str], Awaitable[bytes]]:
    async def get(xattrs: Xattrs, inode: Inode, _: str) -> bytes:
        if inode.file is not None and inode.file.promised:
            await xattrs.deliveries.deliver(inode.file)  # which may make another version
            await xattrs.tree.refresh(inode)
        value = pick(await xattrs.info(inode))
        if not value:
            raise _no_data()
        return value.encode()

    return get


async def _content_type(xattrs: Xattrs, inode: Inode, _: str) -> bytes:
    value = (await xattrs.described(inode)).content_type
    if not value:
        raise _no_data()
    return value.encode()


async def _set_content_type(xattrs: Xattrs, inode: Inode, _: str, value: bytes) -> None:
    text = value.decode("ascii", "replace")
    if "/" not in text or not value.isascii() or not text.isprintable():
        raise Refusal(f"content-type: {text[:60]!r} is not of the form text/plain")

    def change(described: Described) -> None:
        described.content_type = text

    await xattrs.change(inode, change)


async def _meta(xattrs: Xattrs, inode: Inode, key: str) -> bytes:
    try:
        return (await xattrs.described(inode)).metadata[key].encode()
    except KeyError:
        raise _no_data() from None


async def _set_meta(xattrs: Xattrs, inode: Inode, key: str, value: bytes) -> None:
    _no_posix(key)
    if not set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789-."):
        # the server folds case and turns _ into -: another name would come back
        raise Refusal(f"meta.{key}: names have lower-case letters, digits, - and . only")
    text = value.decode("ascii", "replace")
    if not value.isascii() or not text.isprintable() or text != text.strip():
        raise Refusal(f"meta.{key}: a header carries printable ASCII only, without blanks around it")
    if len(text) + len(key) > METADATA:
        raise Refusal(f"meta.{key}: name and value have {len(text) + len(key)} bytes; {METADATA} are allowed", errno.E2BIG)
    await xattrs.set_metadata(inode, key, text)


def _no_posix(key: str) -> None:
    if key in POSIX_KEYS:
        raise Refusal(f"meta.{key} is changed by chmod, chown, touch or setfattr of other names", errno.EPERM)


async def _remove_meta(xattrs: Xattrs, inode: Inode, key: str) -> None:
    _no_posix(key)
    if key not in (await xattrs.described(inode)).metadata:
        raise _no_data()
    await xattrs.set_metadata(inode, key, None)


async def _uri(xattrs: Xattrs, inode: Inode, _: str) -> bytes:
    if inode.volume is None:
        return b"zos://"
    return f"zos://{inode.store.bucket}/{inode.key}".encode("utf-8", "surrogateescape")


async def _refresh(xattrs: Xattrs, inode: Inode, _: str, value: bytes) -> None:
    """What is known of a file, or of a directory's names and all below, is asked for afresh; *value* may be a name that was just
    changed by others, of which the kernel forgets whether it exists."""
    if not inode.is_dir:
        await xattrs.tree.refresh(inode, force=True)
        return
    if len(value) > 255 or b"/" in value or b"\0" in value:
        raise Refusal("refresh: the value is a name in the directory, or empty")
    xattrs.tree.invalidate(inode)
    if value:
        pyfuse3.invalidate_entry_async(pyfuse3.InodeT(inode.number), pyfuse3.FileNameT(value), ignore_enoent=True)


async def _stats(xattrs: Xattrs, inode: Inode, _: str) -> bytes:
    if inode is not xattrs.tree.root:
        raise _no_data()
    return json.dumps(dict(xattrs.counters)).encode()


async def _status(xattrs: Xattrs, inode: Inode, _: str) -> bytes:
    if inode is not xattrs.tree.root:
        raise _no_data()
    return json.dumps(xattrs.status()).encode()


async def _cached(xattrs: Xattrs, inode: Inode, _: str) -> bytes:
    info = await xattrs.info(inode)
    content = await xattrs.contents.of(inode.volume)
    return f"{content.chunks.held(info)}/{info.size}".encode()


async def _warm(xattrs: Xattrs, inode: Inode, span: str) -> bytes:
    """Fetch *span* (``START-END``, bytes, half-open) into the chunk cache, and tell as `_cached` does what is there then; "" of a file that
    is not delivered, which is on the disk as it is. It is read, not set: whoever may read a file may have it at hand, on a mount that is
    read only, too."""
    found = re.fullmatch(r"(\d{1,19})-(\d{1,19})", span, re.ASCII)
    if found is None or inode.is_dir:
        raise Refusal("warm: START-END in bytes follows, and the file is no directory")
    if inode.file is not None and inode.file.dirty and not inode.file.promised:
        return b""
    await (await xattrs.contents.of(inode.volume)).warm(await xattrs.info(inode), int(found[1]), int(found[2]))
    return await _cached(xattrs, inode, "")


async def _evict(xattrs: Xattrs, inode: Inode, _: str, value: bytes) -> None:
    """Drop clean cached bytes of a file, or of all below a directory. What is not delivered is no part of the chunk cache."""
    if inode.volume is None:
        raise Refusal("evict: a bucket, a directory or a file of one")
    chunks = (await xattrs.contents.of(inode.volume)).chunks
    if inode.is_dir:
        chunks.drop_below(inode.key)
    else:
        chunks.drop(inode.key)
    await chunks.give_back()


async def _evict_read_only(xattrs: Xattrs, inode: Inode, _: str) -> bytes:
    """The kernel lets nothing be set on a mount that is read only; there, reading evicts."""
    if not xattrs.options.ro:
        raise _no_data()
    await _evict(xattrs, inode, "", b"")
    return b""


async def _unreadable(xattrs: Xattrs, inode: Inode, _: str) -> bytes:
    raise _no_data()


ROWS: Mapping[str, Row] = {
    "cached": Row(_cached),
    "evict": Row(_evict_read_only, _evict),
    "etag": Row(_fact(lambda info: info.etag)),
    "version-id": Row(_fact(lambda info: info.version_id)),
    "object-type": Row(_fact(lambda info: info.object_type)),
    "content-type": Row(_content_type, _set_content_type),
    "uri": Row(_uri),
    "refresh": Row(_unreadable, _refresh),
    "stats": Row(_stats),
    "status": Row(_status),
    **{name: _of_store(row, coming.ROWS.get(name)) for name, row in OBJECT_XATTRS.items()},
}
PREFIXES: Mapping[str, Row] = {
    "warm.": Row(_warm),
    "meta.": Row(_meta, _set_meta, _remove_meta, listed=True),
    "bucket.": Row(_setting, _set_setting, _remove_setting),
    **{name: _of_store(row, coming.PREFIXES.get(name)) for name, row in OBJECT_PREFIXES.items()},
}
