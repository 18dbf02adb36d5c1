"""`zosfs topic` on the RADOS gateway."""

from __future__ import annotations

import json
import uuid

import pytest

from tests.admin.running import command, inside
from tests.servers.server import Server


def test_topics(rgw: Server) -> None:
    run = inside(rgw)
    name = f"commands-{uuid.uuid4().hex[:12]}"
    arn = run("topic", "create", name, "--push-endpoint", "http://127.0.0.1:9/x", "--attribute", "OpaqueData=mine").stdout.strip()
    try:
        assert arn.startswith("arn:aws:sns:")
        assert {"topic": name, "arn": arn} in json.loads(run("topic", "list", "--json").stdout)
        found = json.loads(run("topic", "get", name, "--json").stdout)
        assert found["EndPoint"]["EndpointAddress"] == "http://127.0.0.1:9/x"
        assert found["OpaqueData"] == "mine"
        assert "EndPoint" in run("topic", "get", arn).stdout
    finally:
        run("topic", "delete", name)
    assert name not in command(rgw)("topic", "list").stdout
    assert run("topic", "get", name, status=1).stderr == f"zosfs: there is no topic {name}\n"


def test_topics_where_there_are_none(weed: Server) -> None:
    refused = command(weed)("topic", "list", status=1)
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [(("create", "a b"), "is no name"), (("create", "a", "--push-endpoint", "ftp://x"), "address"), (("get",), "which topic"),
     (("create", "a", "--attribute", "x"), "NAME=VALUE")],
)  # fmt: skip
def test_topics_refused(rgw: Server, words: tuple[str, ...], line: str) -> None:
    assert line in inside(rgw)("topic", *words, status=1).stderr
