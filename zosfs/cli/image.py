"""`zosfs image SRC [DST] --process CHAIN`: let the server scale, crop, turn, mark or convert an image."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from zosfs.cli.place import add_connection, connected, find, located, look_again, settle, work
from zosfs.mount.daemon import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """SRC, DST, the chain of operations."""
    parser.add_argument("source", metavar="SRC", help="a path on a mount, or zos://BUCKET/KEY")
    parser.add_argument(
        "target", nargs="?", default="", metavar="DST",
        help="where the result goes: zos://BUCKET/KEY, a path on a mount, a local file, or - for stdout (not needed for info)",
    )  # fmt: skip
    parser.add_argument("--process", default="", metavar="CHAIN", help="image/resize,w_300/rotate,90 and so on; --operations lists them")
    parser.add_argument("--watermark-text", default="", metavar="TEXT", help="add a watermark of these words (encoded as it has to be)")
    parser.add_argument("--watermark-image", default="", metavar="KEY", help="add this image of the same bucket as a watermark")
    parser.add_argument("--watermark", default="", metavar="LIST", help="how the watermark looks: g_se,t_50,x_10,size_40 and so on")
    parser.add_argument("--operations", action=_Operations, nargs=0, help="list the operations and their parameters")
    add_connection(parser)


class _Operations(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        from zosfs.admin.images import OPERATIONS

        for name, operation in OPERATIONS.items():
            print(f"{name:<16} {operation.help}")
        parser.exit(0)


def chain_of(args: argparse.Namespace) -> str:
    """The chain that the arguments ask for, checked. Refusal otherwise."""
    from zosfs.admin.images import check_chain, encoded
    from zosfs.admin.refusal import Refusal

    chain = str(args.process)
    mark = []
    if args.watermark_image:
        mark.append("image_" + encoded(args.watermark_image))
    if args.watermark_text:
        mark.append("text_" + encoded(args.watermark_text))
    if args.watermark and not mark:
        raise Refusal("--watermark needs --watermark-text or --watermark-image")
    if mark:
        chain = (chain.rstrip("/") or "image") + "/" + ",".join(["watermark", *mark, *filter(None, [args.watermark])])
    if not chain:
        raise Refusal("image: --process CHAIN says what to do; --operations lists what there is")
    return check_chain(chain)


def run(args: argparse.Namespace) -> int:
    """Do it; 1 when it is refused."""
    source = located(args.source)
    if source is None:
        return 1
    try:
        chain = chain_of(args)
    except OSError as error:
        say(str(error))
        return 1
    if not source.key or source.key.endswith("/"):
        say(f"{source} is no file")
        return 1
    to_stdout = args.target == "-" or (not args.target and chain in ("image/info", "image/average-hue"))
    if not args.target and not to_stdout:
        say("image: where to? DST is zos://BUCKET/KEY, a path on a mount, a local file, or - for stdout")
        return 1
    target = None
    if not to_stdout:
        try:
            target = find(args.target)
        except LookupError:
            pass  # a local file
        if target is not None and (not target.key or target.key.endswith("/")):
            target = replace(target, key=target.key + source.key.rpartition("/")[2])

    async def job(account: Any) -> int:
        from zosfs.admin.images import process_into, processed

        store = account.bucket(source.bucket)
        if target is not None:
            size = (await store.head(source.key)).size
            made = await process_into(account.bucket(target.bucket), target.key, source.bucket, source.key, chain, size)
            say(f"{target}: {made} bytes")
            return 0
        body = await processed(store, source.key, chain)
        if not to_stdout:
            _write(Path(args.target), source.key, body)
        elif chain in ("image/info", "image/average-hue"):
            print(_pretty(body))
        else:
            sys.stdout.buffer.write(body)
        return 0

    settle(args.source)
    status = work(args, source if target is None else connected(source, target)[0], job)
    if target is not None:
        look_again(args.target, [target.key.rpartition("/")[2]] if os.path.isdir(args.target) else [], made=not status)
    return status


def _write(path: Path, key: str, body: bytes) -> None:
    """The old file or the new one, never half of it."""
    if path.is_dir():
        path /= key.rpartition("/")[2]
    handle, name = tempfile.mkstemp(prefix=".zosfs-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(body)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _pretty(body: bytes) -> str:
    try:
        return json.dumps(json.loads(body), indent=1, ensure_ascii=False)
    except ValueError:
        return body.decode("utf-8", "replace")
