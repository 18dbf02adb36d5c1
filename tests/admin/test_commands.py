"""The commands as a person runs them, on `zos://` addresses, against the RADOS gateway."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys

import pytest
from botocore.exceptions import ClientError

from tests.admin.conftest import client
from tests.admin.running import Command, inside
from tests.servers.server import Server
from zosfs.admin.settings import SETTINGS
from zosfs.cli.bucket import difference


@pytest.fixture
def zosfs(rgw: Server) -> Command:
    """Runs `zosfs WORDS…`; checks the status."""
    return inside(rgw)


def test_bucket(zosfs: Command, rgw: Server, rgw_bucket: str) -> None:
    name = f"{rgw_bucket}-more"
    zosfs("bucket", "create", name, "--object-lock")
    assert name in [row["name"] for row in json.loads(zosfs("bucket", "list", "--json").stdout)]
    assert json.loads(zosfs("bucket", "get", name, "object-lock").stdout) == {"ObjectLockEnabled": "Enabled"}
    refused = zosfs("bucket", "set", name, "tags", "-", stdin='{"a": "b"}', status=1)
    assert '+      "Key": "a",' in refused.stderr
    zosfs("bucket", "set", name, "tags", "-", "--yes", stdin='{"a": "b"}')
    assert client(rgw).get_bucket_tagging(Bucket=name)["TagSet"] == [{"Key": "a", "Value": "b"}]
    same = zosfs("bucket", "set", name, "tags", "-", stdin='{"a": "b"}')
    assert same.stderr == "zosfs: tags stays as it is\n"
    zosfs("bucket", "unset", name, "tags", "--yes")
    zosfs("bucket", "get", name, "tags", status=1)
    zosfs("bucket", "unset", name, "encryption", "--yes", status=1)  # Ceph 16 would delete the bucket
    client(rgw).head_bucket(Bucket=name)
    assert "$.Rules[0]" in zosfs("bucket", "set", name, "lifecycle", '{"Rules": [{"Status": "Enabled"}]}', "--yes", status=1).stderr
    for missing in ("/no/such.json", "such.json"):
        said = zosfs("bucket", "set", name, "policy", missing, "--yes", status=1).stderr
        assert said == f"zosfs: {missing}: there is no such file\n"
    zosfs("bucket", "delete", name)
    assert len(zosfs("bucket", "get", name, "acl", status=1).stderr.splitlines()) == 1


def test_versions_and_bringing_back(zosfs: Command, rgw: Server, rgw_bucket: str) -> None:
    s3 = client(rgw)
    where = f"zos://{rgw_bucket}/d/f"
    zosfs("bucket", "set", rgw_bucket, "versioning", "Enabled", "--yes")
    for body in (b"one", b"two", b"three"):
        s3.put_object(Bucket=rgw_bucket, Key="d/f", Body=body, Metadata={"mode": "33188"}, Tagging=f"n={body.decode()}")
    s3.put_object(Bucket=rgw_bucket, Key="d/f2", Body=b"")
    rows = json.loads(zosfs("versions", where, "--json").stdout)
    assert [row["size"] for row in rows] == [5, 3, 3]
    assert [row["latest"] for row in rows] == [True, False, False]
    zosfs("versions", "restore", where, rows[2]["id"])
    answer = s3.get_object(Bucket=rgw_bucket, Key="d/f")
    assert (answer["Body"].read(), answer["Metadata"]) == (b"one", {"mode": "33188"})
    assert s3.get_object_tagging(Bucket=rgw_bucket, Key="d/f")["TagSet"] == [{"Key": "n", "Value": "one"}]
    s3.delete_object(Bucket=rgw_bucket, Key="d/f")
    assert json.loads(zosfs("versions", where, "--json").stdout)[0]["deleted"]
    zosfs("versions", "restore", where)
    assert s3.get_object(Bucket=rgw_bucket, Key="d/f")["Body"].read() == b"one"
    assert len(json.loads(zosfs("versions", f"zos://{rgw_bucket}/d/", "--json").stdout)) == 7
    zosfs("versions", "restore", f"zos://{rgw_bucket}/none", status=1)


def test_a_deleted_file_of_before_versioning_comes_back_as_one_that_can_be_copied_on(zosfs: Command, rgw: Server, rgw_bucket: str) -> None:
    """A plain copy of such a version takes along what Ceph notes of the deletion: copies of the copy were listed, and not found."""
    s3 = client(rgw)
    where = f"zos://{rgw_bucket}/f"
    s3.put_object(
        Bucket=rgw_bucket, Key="f", Body=b"old", Metadata={"mode": "33188"}, Tagging="a=b", ContentType="text/x", CacheControl="no-cache",
        ACL="public-read",
    )  # fmt: skip
    zosfs("bucket", "set", rgw_bucket, "versioning", "Enabled", "--yes")
    s3.delete_object(Bucket=rgw_bucket, Key="f")
    assert "in version null" in zosfs("versions", "restore", where).stdout
    found = s3.get_object(Bucket=rgw_bucket, Key="f")
    assert (found["Body"].read(), found["Metadata"], found["ContentType"], found["CacheControl"]) == (
        b"old", {"mode": "33188"}, "text/x", "no-cache",
    )  # fmt: skip
    assert s3.get_object_tagging(Bucket=rgw_bucket, Key="f")["TagSet"] == [{"Key": "a", "Value": "b"}]
    assert len(s3.get_object_acl(Bucket=rgw_bucket, Key="f")["Grants"]) == 2
    zosfs("bucket", "set", rgw_bucket, "versioning", "Suspended", "--yes")
    zosfs("cp", where, f"zos://{rgw_bucket}/copy")
    assert s3.get_object(Bucket=rgw_bucket, Key="copy")["Body"].read() == b"old"


def test_tables_for_people_are_not_cut(rgw: Server, rgw_bucket: str) -> None:
    import pty

    s3 = client(rgw)
    s3.put_bucket_versioning(Bucket=rgw_bucket, VersioningConfiguration={"Status": "Enabled"})
    version = s3.put_object(Bucket=rgw_bucket, Key="d/" + "long" * 30, Body=b"x")["VersionId"]
    keys = {"AWS_ACCESS_KEY_ID": rgw.access_key, "AWS_SECRET_ACCESS_KEY": rgw.secret_key, "ZOSFS_URL": rgw.url, "COLUMNS": "80"}
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "zosfs", "versions", f"zos://{rgw_bucket}/d/"], env={**os.environ, **keys, "TERM": "dumb"},
        stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, timeout=180, check=True,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while piece := os.read(ours, 65536):
            shown += piece
    os.close(ours)
    said = shown.decode()
    assert done.stderr == b""
    heading, row = said.splitlines()
    assert heading.split() == ["key", "id", "modified", "size", "state"]
    assert [word for word in row.split() if word in (version, "current", "1", "d/" + "long" * 30)] == row.split()[:2] + row.split()[3:]


def test_uploads_of_keys_that_no_document_can_carry(zosfs: Command, rgw: Server, rgw_bucket: str) -> None:
    with pytest.raises(ClientError):  # boto3 by itself cannot read the answer, but the upload is begun
        client(rgw).create_multipart_upload(Bucket=rgw_bucket, Key="p/a+\x01 %41")
    listed = json.loads(zosfs("uploads", "list", f"zos://{rgw_bucket}", "--json").stdout)
    assert {row["key"] for row in listed} == {"p/a+\x01 %41"}
    zosfs("uploads", "abort", f"zos://{rgw_bucket}", "--older-than", "0")
    assert json.loads(zosfs("uploads", "list", f"zos://{rgw_bucket}", "--json").stdout) == []


def test_uploads(zosfs: Command, rgw: Server, rgw_bucket: str) -> None:
    s3 = client(rgw)
    for key in ("p/a", "p/b", "q"):
        s3.create_multipart_upload(Bucket=rgw_bucket, Key=key)
    assert len(json.loads(zosfs("uploads", "list", f"zos://{rgw_bucket}", "--json").stdout)) == 3
    assert json.loads(zosfs("uploads", "list", f"zos://{rgw_bucket}", "--older-than", "1h", "--json").stdout) == []
    zosfs("uploads", "abort", f"zos://{rgw_bucket}", status=1)
    zosfs("uploads", "abort", f"zos://{rgw_bucket}/p/", "--older-than", "0")
    assert [row["Key"] for row in s3.list_multipart_uploads(Bucket=rgw_bucket)["Uploads"]] == ["q"]


def test_usage_and_restore(zosfs: Command, rgw: Server, rgw_bucket: str) -> None:
    client(rgw).put_object(Bucket=rgw_bucket, Key="k", Body=b"12345")
    rows = {row["what"]: row["value"] for row in json.loads(zosfs("usage", f"zos://{rgw_bucket}", "--json").stdout)}
    assert (rows["objects"], rows["bytes"]) == (1, 5)
    assert "TotalBytes" in zosfs("usage").stdout
    assert "not archived" in zosfs("restore", f"zos://{rgw_bucket}/k").stdout
    zosfs("restore", f"zos://{rgw_bucket}/k", "--days", "32", status=1)
    assert zosfs("restore", f"zos://{rgw_bucket}/none/").stderr == f"zosfs: nothing below zos://{rgw_bucket}/none/ is archived\n"


def test_what_is_wrong_is_one_line(zosfs: Command, rgw_bucket: str) -> None:
    nobody = ("usage", "--url", "http://127.0.0.1:9", "--retries", "0")
    for words in (("versions", "/nowhere/at/all"), nobody, ("bucket", "get", rgw_bucket)):
        assert len(zosfs(*words, status=1).stderr.splitlines()) == 1


def test_a_reader_that_has_read_enough_is_no_error(rgw: Server, rgw_bucket: str) -> None:
    keys = {"AWS_ACCESS_KEY_ID": rgw.access_key, "AWS_SECRET_ACCESS_KEY": rgw.secret_key, "ZOSFS_URL": rgw.url}
    words = [sys.executable, "-m", "zosfs", "bucket", "list", rgw_bucket]
    process = subprocess.Popen(words, env={**os.environ, **keys}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(180) == 141
    assert said == b""


def test_differences_and_forms_are_pure() -> None:
    assert difference(None, None, "acl") == ""
    assert '-  "Status": "Enabled"' in difference({"Status": "Enabled"}, {"Status": "Suspended"}, "versioning")


def test_the_settings_of_a_bucket_are_listed(zosfs: Command, rgw_bucket: str) -> None:
    zosfs("bucket", "set", rgw_bucket, "versioning", "enabled", "--yes")
    rows = {row["setting"]: row for row in json.loads(zosfs("bucket", "list", rgw_bucket, "--json").stdout)}
    assert list(rows) == list(SETTINGS)
    assert (rows["versioning"]["state"], rows["versioning"]["document"]["Status"]) == ("set", "Enabled")
    assert (rows["policy"]["state"], rows["encryption"]["state"]) == ("unset", "not offered")
    assert "versioning\tset\t" in zosfs("bucket", "list", f"zos://{rgw_bucket}").stdout


def test_of_a_bucket_that_is_not_there_no_settings_are_listed(zosfs: Command, rgw_bucket: str) -> None:
    done = zosfs("bucket", "list", f"no-{rgw_bucket}", status=1)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert f"no-{rgw_bucket}: the bucket does not exist" in done.stderr
    for words in (("bucket", "delete"), ("bucket", "get"), ("usage",)):
        name = f"zos://no-{rgw_bucket}"
        said = zosfs(*words, name, *(["policy"] if "get" in words else []), status=1).stderr
        assert f"no-{rgw_bucket}: the bucket does not exist" in said, said
    assert "create_bucket AB: the bucket name is not legal" in zosfs("bucket", "create", "AB", status=1).stderr


def test_an_answer_is_asked_for_on_a_terminal(rgw: Server, rgw_bucket: str) -> None:
    import pty

    keys = {"AWS_ACCESS_KEY_ID": rgw.access_key, "AWS_SECRET_ACCESS_KEY": rgw.secret_key, "ZOSFS_URL": rgw.url}
    for answer, status, state in (("n\n", 1, None), ("y\n", 0, "Enabled")):
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "zosfs", "bucket", "set", rgw_bucket, "versioning", "Enabled"], env={**os.environ, **keys},
            stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        os.write(ours, answer.encode())
        _, said = process.communicate(timeout=180)
        os.close(ours)
        os.close(theirs)
        assert process.returncode == status, said
        assert '+  "Status": "Enabled"' in said
        assert "change it? [y/N]" in said
        assert client(rgw).get_bucket_versioning(Bucket=rgw_bucket).get("Status") == state
