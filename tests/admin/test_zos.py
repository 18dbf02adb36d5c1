"""What only ZOS has, against a stand-in that knows the manuals' requests; and what servers without it are told to be lacking."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.admin.conftest import client
from tests.admin.running import Command, command, inside
from tests.servers.server import Server
from tests.servers.zos import Zos

PICTURE = b"\x89PNG the original"
HEAD = {
    "etag": f'"{hashlib.md5(PICTURE).hexdigest()}"', "last-modified": "Sat, 21 Nov 2026 08:00:00 GMT", "content-length": str(len(PICTURE)),
    "content-type": "image/png",
}  # fmt: skip


@pytest.fixture
def zos() -> Iterator[Zos]:
    """A fresh stand-in; the test fails when it was asked something that no manual knows."""
    standing = Zos()
    yield standing
    standing.stop()
    assert standing.refused == []


@pytest.fixture
def standin(zos: Zos) -> Command:
    """Runs `zosfs WORDS…` against the stand-in."""
    return inside(zos.server)


# -- images


def test_an_image_is_downloaded_processed(zos: Zos, standin: Command, tmp_path: Path) -> None:
    chain = "image/resize,w_300,h_160,m_pad,color_FF8000/rotate,90"
    zos.answer("HEAD", "/b/d/ä.png", headers=HEAD)
    zos.answer("GET", "/b/d/ä.png", {"x-zos-process": chain}, body=b"smaller")
    standin("image", "zos://b/d/ä.png", tmp_path / "small.png", "--process", chain)
    assert (tmp_path / "small.png").read_bytes() == b"smaller"
    standin("image", "zos://b/d/ä.png", tmp_path, "--process", chain)
    assert (tmp_path / "ä.png").read_bytes() == b"smaller"
    standin("image", "--process", chain, "zos://b/d/ä.png", "--sign-payload", "always", tmp_path / "third.png")  # flags anywhere
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.png", "third.png", "ä.png"]
    assert standin("image", "zos://b/d/ä.png", "-", "--process", chain).stdout == "smaller"


def test_what_an_image_is(zos: Zos, standin: Command) -> None:
    zos.answer("HEAD", "/b/k", headers=HEAD)
    zos.answer("GET", "/b/k", {"x-zos-process": "image/info"}, body='{"FileSize": {"value": "21839"}}')
    said = standin("image", "zos://b/k", "--process", "image/info").stdout
    assert json.loads(said) == {"FileSize": {"value": "21839"}}


def test_an_image_is_processed_into_another_key(zos: Zos, standin: Command) -> None:
    zos.answer("HEAD", "/b/d/k.jpg", headers=HEAD)
    zos.answer("POST", "/c/new/name.jpg", body=b"<Result/>")
    zos.answer("HEAD", "/c/new/name.jpg", headers={**HEAD, "content-length": "7"})
    standin("image", "zos://b/d/k.jpg", "zos://c/new/name.jpg", "--process", "image/crop,w_10,g_se|image/format,webp")
    (posted,) = zos.sent("POST")
    assert posted.form == {"x-zos-process": "image/crop,w_10,g_se|image/format,webp", "x-zos-copy-source": "b/d/k.jpg"}
    assert posted.headers["content-type"] == "application/x-www-form-urlencoded"


def test_watermarks_are_encoded(zos: Zos, standin: Command) -> None:
    text = base64.urlsafe_b64encode("版权 ?>".encode()).decode()
    zos.answer("HEAD", "/b/k", headers=HEAD)
    zos.answer("GET", "/b/k", {"x-zos-process": f"image/resize,p_80/watermark,text_{text},g_se,t_50"}, body=b"marked")
    zos.answer("GET", "/b/k", {"x-zos-process": "image/watermark,image_c2h1aXlpbi5wbmc=,t_50"}, body=b"stamped")
    words = ("image", "zos://b/k", "-")
    mark = ("--process", "image/resize,p_80", "--watermark-text", "版权 ?>", "--watermark", "g_se,t_50")
    assert standin(*words, *mark).stdout == "marked"
    assert standin(*words, "--watermark-image", "shuiyin.png", "--watermark", "t_50").stdout == "stamped"


def test_images_on_servers_that_process_none(commands: Command, server: Server, bucket: str) -> None:
    s3 = client(server)
    s3.put_object(Bucket=bucket, Key="k.png", Body=PICTURE)
    source = f"zos://{bucket}/k.png"
    resize = ("--process", "image/resize,w_10")
    assert "does not process images" in commands("image", source, "-", *resize, status=1).stderr
    refused = commands("image", source, f"zos://{bucket}/small.png", *resize, status=1)
    assert len(refused.stderr.splitlines()) == 1
    assert [row["Key"] for row in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["k.png"]
    assert s3.get_object(Bucket=bucket, Key="k.png")["Body"].read() == PICTURE


# -- metadata search

HIT = """<Contents><Bucket>b</Bucket><Key>{key}</Key><Instance>null</Instance><VersionedEpoch>0</VersionedEpoch>
<LastModified>2026-11-21T08:00:00.000Z</LastModified><Size>{size}</Size><ETag>"e"</ETag><ContentType>text/plain</ContentType>
<StorageClass>STANDARD</StorageClass>
<CustomMetadata><Entry><Name>team</Name><Value>blue</Value></Entry><Entry><Name>n</Name><Value>1</Value></Entry></CustomMetadata></Contents>"""
FOUND = "<SearchMetadataResponse><Marker>{marker}</Marker><IsTruncated>{more}</IsTruncated>{hits}</SearchMetadataResponse>"


def test_search_page_by_page(zos: Zos, standin: Command) -> None:
    asked = {"query": "size>1 and x-amz-meta-team==blue", "mode": "wild", "order": "desc", "order-key": "size", "max-keys": "1000"}
    hits = [HIT.format(key=key, size=size) for key, size in (("a/ä", 5), ("b", 3), ("c", 2))]
    zos.answer("GET", "/b", asked, body=FOUND.format(marker="17", more="true", hits=hits[0] + hits[1]))
    zos.answer("GET", "/b", {**asked, "marker": "17"}, body=FOUND.format(marker="", more="false", hits=hits[2]))
    words = ("search", asked["query"], "zos://b", "--mode", "wild", "--order", "desc", "--order-key", "size")
    found = json.loads(standin(*words, "--json").stdout)
    assert [row["key"] for row in found] == ["a/ä", "b", "c"]
    assert found[0] | {"key": ""} == {
        "key": "", "version": "null", "modified": "2026-11-21T08:00:00.000Z", "size": 5, "etag": "e", "content_type": "text/plain",
        "storage_class": "STANDARD", "metadata": {"team": "blue", "n": "1"},
    }  # fmt: skip


def test_search_stops_at_max_and_finding_nothing_is_status_1(zos: Zos, standin: Command) -> None:
    one = FOUND.format(marker="1", more="true", hits=HIT.format(key="x", size=1))
    zos.answer("GET", "/b", {"query": "name==x", "max-keys": "1"}, body=one)
    assert standin("search", "name==x", "zos://b", "--max", "1").stdout.startswith("x\t1\t")
    zos.answer("GET", "/b", {"query": "name==y", "max-keys": "1000"}, body=FOUND.format(marker="", more="false", hits=""))
    assert standin("search", "name==y", "zos://b", status=1).stdout == ""


def test_search_on_servers_without_an_index(commands: Command, server: Server, bucket: str) -> None:
    client(server).put_object(Bucket=bucket, Key="k", Body=b"")
    for words in (("name==k",), ("name==k", "--json")):
        refused = commands("search", *words, f"zos://{bucket}", status=1)
        assert refused.stdout == ""
        line = "does not search metadata: it answered with a plain listing" if server.kind == "rgw" else "the server does not offer this"
        assert line in refused.stderr


# -- buckets in several zones, usage, thawing


def test_a_bucket_in_several_zones(zos: Zos, standin: Command) -> None:
    zos.answer("HEAD", "/b", status=404)
    zos.answer("PUT", "/b")
    standin("bucket", "create", "b", "--az-policy", "multi-az", "--storage-class", "STANDARD_IA", "--acl", "private")
    (made,) = zos.sent("PUT")
    assert (made.headers["x-amz-az-policy"], made.headers["x-amz-storage-class"], made.headers["x-amz-acl"]) == (
        "multi-az", "STANDARD_IA", "private",
    )  # fmt: skip
    standin("bucket", "create", "c", "--az-policy", "no-az", status=1)


def test_usage_of_the_account(zos: Zos, standin: Command) -> None:
    zos.answer("GET", "/", {"usage": ""}, body=(
        "<Usage><Entries></Entries><Summary><QuotaMaxBytes>1000</QuotaMaxBytes><QuotaMaxBuckets>100</QuotaMaxBuckets>"
        "<TotalBytes>17</TotalBytes><TotalBytesRounded>4096</TotalBytesRounded><TotalEntries>2</TotalEntries></Summary></Usage>"
    ))  # fmt: skip
    rows = {row["what"]: row["value"] for row in json.loads(standin("usage", "--json").stdout)}
    assert rows == {"QuotaMaxBytes": 1000, "QuotaMaxBuckets": 100, "TotalBytes": 17, "TotalBytesRounded": 4096, "TotalEntries": 2}


def test_usage_where_it_is_not_told(weed: Server) -> None:
    refused = command(weed)("usage", status=1)
    assert refused.stdout == ""
    assert refused.stderr == "zosfs: the server does not tell what is used\n"


def test_thawing(zos: Zos, standin: Command) -> None:
    cold = {**HEAD, "x-amz-storage-class": "GLACIER"}
    zos.answer("HEAD", "/b/k", headers=cold)
    zos.answer("HEAD", "/b/k", headers={**cold, "x-amz-restore": 'ongoing-request="false", expiry-date="Fri, 21 Dec 2029 00:00:00 GMT"'})
    zos.answer("POST", "/b/k", {"restore": ""}, status=202)
    standin("restore", "zos://b/k", "--days", "3", "--tier", "Expedited")
    (asked,) = zos.sent("POST")
    assert b"<Days>3</Days>" in asked.body
    assert b"<GlacierJobParameters><Tier>Expedited</Tier></GlacierJobParameters>" in asked.body


WEBSITE = "<WebsiteConfiguration><IndexDocument><Suffix>index.html</Suffix></IndexDocument></WebsiteConfiguration>"
LOGGING = (
    "<BucketLoggingStatus><LoggingEnabled><TargetBucket>logs</TargetBucket><TargetPrefix>b/</TargetPrefix></LoggingEnabled>"
    "</BucketLoggingStatus>"
)


@pytest.mark.parametrize(
    ("name", "document", "xml", "absent"),
    [
        ("website", {"IndexDocument": {"Suffix": "index.html"}}, WEBSITE, (404, "<Error><Code>NoSuchWebsiteConfiguration</Code></Error>")),
        ("logging", {"LoggingEnabled": {"TargetBucket": "logs", "TargetPrefix": "b/"}}, LOGGING, (200, "<BucketLoggingStatus/>")),
    ],
)
def test_settings_that_ceph_lacks(
    zos: Zos, standin: Command, name: str, document: dict[str, object], xml: str, absent: tuple[int, str]
) -> None:
    status, body = absent
    for _ in range(3):  # read to show the difference, read again before it is written, asked whether the server knows it
        zos.answer("GET", "/b", {name: ""}, status=status, body=body)
    zos.answer("GET", "/b", {name: ""}, body=xml)
    zos.answer("PUT", "/b", {name: ""})
    standin("bucket", "set", "b", name, "-", "--yes", stdin=json.dumps(document))
    (sent,) = zos.sent("PUT")
    assert re.sub(r' xmlns="[^"]*"', "", sent.body.decode()) == xml
    assert json.loads(standin("bucket", "get", "b", name).stdout) == document


# -- roles

ROLE = "arn:aws:iam:::role/reader"
TAKEN = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>{key}</AccessKeyId><SecretAccessKey>temporary</SecretAccessKey><SessionToken>token+/=</SessionToken>
<Expiration>{until}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"""


def test_a_set_of_temporary_credentials(zos: Zos, standin: Command, tmp_path: Path) -> None:
    zos.answer("POST", "/", body=TAKEN.format(key="AKT", until="2099-01-01T00:00:00Z"))
    (tmp_path / "policy").write_text('{"Version": "2012-10-17",\n "Statement": []}')
    words = ("sts", "--role-arn", ROLE, "--role-session-name", "try", "--role-duration", "1h", "--role-policy", tmp_path / "policy")
    said = standin(*words).stdout
    assert "export AWS_ACCESS_KEY_ID=AKT\nexport AWS_SECRET_ACCESS_KEY=temporary\nexport AWS_SESSION_TOKEN=" in said
    assert zos.requests[-1].form == {
        "Action": "AssumeRole", "Version": "2011-06-15", "RoleArn": ROLE, "RoleSessionName": "try", "DurationSeconds": "3600",
        "Policy": '{"Version":"2012-10-17","Statement":[]}',
    }  # fmt: skip
    found = json.loads(standin(*words, "--json").stdout)
    assert found == {
        "Version": 1, "AccessKeyId": "AKT", "SecretAccessKey": "temporary", "SessionToken": "token+/=",
        "Expiration": "2099-01-01T00:00:00+00:00",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((), "which role"),
        (("--role-arn", "reader"), "arn:aws:iam:::role/NAME"),
        (("--role-arn", ROLE, "--role-duration", "5m"), "from 900 seconds"),
        (("--role-arn", ROLE, "--role-session-name", "a b"), "role_session_name"),
        (("--role-arn", ROLE, "--role-policy", "/missing"), "/missing"),
        (("--role-arn", ROLE, "--public-bucket"), "needs keys"),
    ],
)
def test_roles_that_cannot_be(zos: Zos, standin: Command, words: tuple[str, ...], line: str) -> None:
    refused = standin("sts", *words, status=1).stderr
    assert line in refused
    assert len(refused.splitlines()) == 1
    assert zos.requests == []


def test_a_refused_role_is_one_line(zos: Zos, standin: Command) -> None:
    body = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>not you</Message></Error></ErrorResponse>"
    zos.answer("POST", "/", status=403, body=body)
    refused = standin("sts", "--role-arn", ROLE, status=1).stderr
    assert len(refused.splitlines()) == 1
    assert ROLE in refused


def test_requests_are_signed_with_the_roles_keys_and_those_are_renewed(zos: Zos, monkeypatch: pytest.MonkeyPatch) -> None:
    import datetime

    import trio

    from zosfs.config import Options
    from zosfs.counters import Counters
    from zosfs.store import roles
    from zosfs.store.connect import connect

    def until(seconds: float) -> str:
        return (datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")

    zos.secrets |= {"AK1": "temporary", "AK2": "temporary"}
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "zosak")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "zossk")
    zos.answer("POST", "/", body=TAKEN.format(key="AK1", until=until(1000)))
    zos.answer("POST", "/", body=TAKEN.format(key="AK2", until=until(5000)))
    zos.answer("HEAD", "/b/k", headers=HEAD)

    async def main() -> None:
        account = await connect(Options(url=zos.server.url, role_arn=ROLE), Counters())
        await account.bucket("b").head("k")
        await account.bucket("b").head("k")
        monkeypatch.setattr(roles.time, "time", lambda: datetime.datetime.now().timestamp() + 900)
        await account.bucket("b").head("k")
        await account.aclose()

    trio.run(main)
    keys = [request.headers["authorization"].partition("Credential=")[2].partition("/")[0] for request in zos.sent("HEAD")]
    assert keys == ["AK1", "AK1", "AK2"]
    assert {request.headers["x-amz-security-token"] for request in zos.sent("HEAD")} == {"token+/="}
    assert len(zos.sent("POST")) == 2
