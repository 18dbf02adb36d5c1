"""`zosfs presign`: every URL and form is really used, by somebody without keys."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
import uuid
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.admin.conftest import client
from tests.admin.running import Command, command, inside
from tests.fs.mounting import Mount
from tests.servers.server import Server
from zosfs.cli.presign import page


class Form(HTMLParser):
    """What a browser sees of an upload form."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}
        self.file = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.action = given["action"]
            assert (given["method"], given["enctype"]) == ("post", "multipart/form-data")
        elif tag == "input" and given["type"] == "hidden":
            self.fields[given["name"]] = given["value"]
        elif tag == "input" and given["type"] == "file":
            self.file = given["name"]


def upload(url: str, fields: dict[str, str], body: bytes, name: str = "mine.txt") -> int:
    """Send the form as a browser does; the status."""
    mark = uuid.uuid4().hex
    parts = [f'--{mark}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode() for key, value in fields.items()]
    head = f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: text/plain\r\n\r\n'
    data = b"".join(parts) + head.encode() + body + f"\r\n--{mark}--\r\n".encode()
    request = urllib.request.Request(url, data, {"Content-Type": f"multipart/form-data; boundary={mark}"})
    with urllib.request.urlopen(request) as answer:
        return int(answer.status)


def fetch(url: str) -> bytes:
    """What a browser gets."""
    with urllib.request.urlopen(url) as answer:
        body: bytes = answer.read()
        return body


def store(url: str, body: bytes) -> None:
    """PUT, without a Content-Type: a URL of version 2 covers it."""
    urllib.request.urlopen(urllib.request.Request(url, body, {"Content-Type": ""}, method="PUT")).close()


@pytest.mark.parametrize("more", [(), ("--v2",)], ids=["v4", "v2"])
def test_urls_that_write_and_read(commands: Command, server: Server, bucket: str, more: tuple[str, ...]) -> None:
    where = f"zos://{bucket}/d/ä b+c"
    store(commands("presign", where, "--put", *more).stdout.strip(), b"seen")
    url = commands("presign", where, *more).stdout.strip()
    assert ("X-Amz-Signature" in url) is not bool(more)
    assert fetch(url) == b"seen"
    with pytest.raises(urllib.error.HTTPError):
        store(url, b"a URL that reads does not write")
    with pytest.raises(urllib.error.HTTPError):
        fetch(url.replace("d/", "e/"))
    with pytest.raises(urllib.error.HTTPError):
        fetch(f"{server.url}/{bucket}/d/%C3%A4%20b%2Bc")  # the bucket itself is closed


@pytest.mark.parametrize("more", [(), ("--v2",)], ids=["v4", "v2"])
def test_upload_forms(rgw: Server, rgw_bucket: str, more: tuple[str, ...]) -> None:
    run, s3 = inside(rgw), client(rgw)

    def body(key: str) -> bytes:
        found: bytes = s3.get_object(Bucket=rgw_bucket, Key=key)["Body"].read()
        return found

    form: dict[str, Any] = json.loads(run("presign", f"zos://{rgw_bucket}/ä b+c", "--post", *more).stdout)
    assert upload(form["url"], form["fields"], b"posted") in (200, 201, 204)
    assert body("ä b+c") == b"posted"
    shown = Form(run("presign", f"zos://{rgw_bucket}/in/", "--html", *more).stdout)
    assert shown.file == "file"
    assert upload(shown.action, shown.fields, b"by a browser", "holiday.txt") in (200, 201, 204)
    assert body("in/holiday.txt") == b"by a browser"
    with pytest.raises(urllib.error.HTTPError):
        upload(form["url"], {**form["fields"], "key": "elsewhere"}, b"x")


def test_forms_on_seaweedfs(weed: Server) -> None:
    from tests.admin.conftest import fresh

    s3 = client(weed)
    for bucket in fresh(s3):
        form = json.loads(command(weed)("presign", f"zos://{bucket}/k", "--post").stdout)
        assert upload(form["url"], form["fields"], b"posted") in (200, 201, 204)
        assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"posted"


def test_a_version_and_a_path_on_a_mount(rgw: Server, rgw_bucket: str, tmp_path: Path) -> None:
    run, s3 = inside(rgw), client(rgw)
    s3.put_bucket_versioning(Bucket=rgw_bucket, VersioningConfiguration={"Status": "Enabled"})
    old = s3.put_object(Bucket=rgw_bucket, Key="k", Body=b"old")["VersionId"]
    s3.put_object(Bucket=rgw_bucket, Key="k", Body=b"new")
    assert fetch(run("presign", f"zos://{rgw_bucket}/k", "--version-id", old).stdout.strip()) == b"old"
    mount = Mount(tmp_path, rgw_bucket, rgw, {})
    try:
        assert fetch(run("presign", mount.path / "k", plain=True).stdout.strip()) == b"new"
        assert fetch(os.getxattr(mount.path / "k", "user.zos.url").decode()) == b"new"
        store(run("presign", mount.path / "not there yet", "--put", plain=True).stdout.strip(), b"now it is")
        assert s3.get_object(Bucket=rgw_bucket, Key="not there yet")["Body"].read() == b"now it is"
    finally:
        mount.finish()


def test_what_is_refused(rgw: Server) -> None:
    run = inside(rgw)
    for seconds in ("8d", "604801", "0", "-1"):
        assert "7 days" in run("presign", "zos://b/k", "--expires", seconds, status=1).stderr
    run("presign", "zos://b/k", "--expires", "604800")
    run("presign", "zos://b/k", "--expires", "8d", "--v2")
    assert "is no file" in run("presign", "zos://b/", status=1).stderr
    assert "is no file" in run("presign", "zos://b/d/", "--put", status=1).stderr
    assert "is no file" in run("presign", "zos://", "--post", status=1).stderr
    run("presign", "zos://b/k", "--put", "--post", status=1)


def test_a_form_escapes_what_is_in_it() -> None:
    assert Form(page({"url": "http://x", "fields": {"key": '"><script>'}})).fields == {"key": '"><script>'}
