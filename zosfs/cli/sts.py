"""`zosfs sts --role-arn ARN`: a set of temporary credentials, to hand on or to try a role."""

from __future__ import annotations

import argparse
import json
import shlex
from typing import Any

from zosfs.cli.place import Place, add_connection, work
from zosfs.config_values import OptionError
from zosfs.mount.daemon import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The form of the answer; the role itself is named by options of the connection."""
    parser.add_argument("--json", action="store_true", help="print JSON, as credential_process of AWS tools reads it")
    add_connection(parser)


def run(args: argparse.Namespace) -> int:
    """Print them as shell assignments, or JSON; 1 when the role is refused."""
    from zosfs.cli.place import options_at

    try:
        options = options_at(args, Place("", ""))
    except OptionError as error:
        say(str(error))
        return 1
    if not options.role_arn:
        say("sts: which role? --role-arn arn:aws:iam:::role/NAME")
        return 1

    async def job(account: Any) -> int:
        found, until = await account.temporary()
        if args.json:
            print(json.dumps({
                "Version": 1, "AccessKeyId": found.access_key, "SecretAccessKey": found.secret_key, "SessionToken": found.token,
                "Expiration": until,
            }))  # fmt: skip
            return 0
        for name, value in (
            ("AWS_ACCESS_KEY_ID", found.access_key), ("AWS_SECRET_ACCESS_KEY", found.secret_key), ("AWS_SESSION_TOKEN", found.token),
        ):  # fmt: skip
            print(f"export {name}={shlex.quote(value)}")
        print(f"# until {until}")
        return 0

    return work(args, Place("", ""), job)
