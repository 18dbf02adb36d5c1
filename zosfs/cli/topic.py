"""`zosfs topic list|create|get|delete [NAME]`: the topics that bucket notifications are sent to."""

from __future__ import annotations

import argparse
import json
import re
from typing import Any

from zosfs.cli.place import Place, add_connection, show_rows, work
from zosfs.mount.daemon import say

SYNOPSIS = """zosfs topic list [--json]
       zosfs topic create NAME [--push-endpoint URI] [--attribute NAME=VALUE]…
       zosfs topic get NAME|ARN [--json]
       zosfs topic delete NAME|ARN"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Verb, topic, where its messages go."""
    parser.add_argument("verb", choices=("list", "create", "get", "delete"), help="what to do")
    parser.add_argument("name", nargs="?", default="", metavar="NAME|ARN", help="the topic")
    parser.add_argument(
        "--push-endpoint", default="", metavar="URI", help="create: where messages go: http(s)://HOST…, amqp(s)://HOST…, kafka://HOST…"
    )
    parser.add_argument(
        "--attribute", action="append", default=[], metavar="NAME=VALUE",
        help="create: further attributes, such as persistent=true, OpaqueData=…, kafka-ack-level=broker",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="list, get: print JSON")
    add_connection(parser)


def run(args: argparse.Namespace) -> int:
    """Do it; 1 when it is refused."""
    attributes: dict[str, str] = {}
    for text in args.attribute:
        name, equals, value = text.partition("=")
        if not name or not equals:
            say(f"topic: {text!r}: write NAME=VALUE")
            return 1
        attributes[name] = value
    if args.verb != "list" and not args.name:
        say(f"topic {args.verb}: which topic?")
        return 1
    if args.verb == "create":
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,256}", args.name):
            say(f"topic create: {args.name!r} is no name: 1 to 256 letters, digits, - and _")
            return 1
        if args.push_endpoint and not re.match(r"(https?|amqps?|kafka)://[^/]", args.push_endpoint):
            say(f"topic create: {args.push_endpoint!r} is no http://, https://, amqp://, amqps:// or kafka:// address")
            return 1
        attributes |= {"push-endpoint": args.push_endpoint} if args.push_endpoint else {}

    async def job(account: Any) -> int:
        return await _job(args, attributes, account)

    return work(args, Place("", ""), job)


async def _job(args: argparse.Namespace, attributes: dict[str, str], account: Any) -> int:
    if args.verb == "create":
        answer = await account.call("create_topic", service="sns", Name=args.name, Attributes=attributes)
        print(answer["TopicArn"])
        return 0
    arns = await _arns(account)
    if args.verb == "list":
        show_rows([{"topic": arn.rpartition(":")[2], "arn": arn} for arn in arns], ("topic", "arn"), args.json)
        return 0
    arn = next((arn for arn in arns if args.name in (arn, arn.rpartition(":")[2])), "")
    if not arn:
        say(f"there is no topic {args.name}")
        return 1
    if args.verb == "delete":
        await account.call("delete_topic", service="sns", TopicArn=arn)
        return 0
    found = dict((await account.call("get_topic_attributes", service="sns", TopicArn=arn)).get("Attributes", {}))
    for name, value in found.items():
        if value.startswith("{"):
            try:
                found[name] = json.loads(value)
            except ValueError:
                pass
    if args.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        rows = [{"what": name, "value": value if isinstance(value, str) else json.dumps(value)} for name, value in found.items()]
        show_rows(rows, ("what", "value"), False)
    return 0


async def _arns(account: Any) -> list[str]:
    found: list[str] = []
    token = ""
    while True:
        page = await account.call("list_topics", service="sns", **({"NextToken": token} if token else {}))
        found += [row["TopicArn"] for row in page.get("Topics", [])]
        token = page.get("NextToken", "")
        if not token:
            return found
