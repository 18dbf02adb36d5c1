"""Decisions of the store that need no server: signatures, schedules, documents, addresses, turns, the error table."""

from __future__ import annotations

import errno
import hashlib
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import botocore.exceptions
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.store.lossy import error
from zosfs.config import Options
from zosfs.errors import BY_STATUS, TABLE, StoreError, code_of_status, lookup
from zosfs.store import answers
from zosfs.store.api import FileSlice, ObjectHeaders, PartInfo
from zosfs.store.boto import store_error
from zosfs.store.credentials import Files, Fixed, parse_passwd, provider
from zosfs.store.digests import md5_hex, multipart_etag
from zosfs.store.exchange import Endpoint, source_of
from zosfs.store.http import Answer
from zosfs.store.listing_xml import name_of, order, parse_page
from zosfs.store.retries import FIRST, LONGEST, Schedule
from zosfs.store.sigv4 import EMPTY, Credentials, Signer, quote_key, quote_query
from zosfs.store.turns import Turns

KEYS = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")


# the error table


@pytest.mark.parametrize("code", sorted(TABLE))
def test_every_row(code: str) -> None:
    row = TABLE[code]
    assert row.code == code
    assert row.errno in errno.errorcode
    assert row.errno not in (0, errno.EFAULT)
    assert 8 < len(row.text) < 120
    assert "\n" not in row.text
    assert not row.text.endswith(".")
    document = f"<Error><Code>{code}</Code><Message>because</Message></Error>".encode()
    failure = answers.failure(Answer(400, {}, document), "put", "the key")
    assert (failure.code, failure.errno, failure.retry) == (code, row.errno, row.retry)
    line = str(failure)
    assert "the key" in line
    assert row.text in line
    assert "because" in line


@pytest.mark.parametrize("status", sorted(BY_STATUS))
def test_answers_without_a_code_speak_by_their_status(status: int) -> None:
    assert code_of_status(status) in TABLE
    failure = answers.failure(Answer(status, {}), "head", "k")
    assert failure.code == code_of_status(status)
    assert lookup("SomethingNew", status) is TABLE[code_of_status(status)]


@pytest.mark.parametrize("status", [418, 499, 507, 599])
def test_unheard_of_statuses(status: int) -> None:
    assert lookup("SomethingNew", status).errno in (errno.EIO, errno.EINVAL)
    assert StoreError("SomethingNew", status=status).retry == (status >= 500)


def test_what_the_text_alone_tells() -> None:
    document = b"<Error><Code>AccessDenied</Code><Message>forbidden by object lock</Message></Error>"
    assert answers.failure(Answer(403, {}, document), "delete", "k").errno == errno.EPERM
    assert answers.failure(Answer(404, {}), "head_bucket", "").code == "NoSuchBucket"
    assert answers.failure(Answer(400, {}), "put", "k").errno == errno.E2BIG
    assert answers.failure(Answer(502, {}, b"<html>Bad gateway"), "get", "k").retry


def test_what_can_have_been_applied() -> None:
    for code in ("ReadTimeout", "ConnectionReset", "ConnectionClosed", "TruncatedBody"):
        assert StoreError(code).ambiguous, code
    for code in ("ConnectTimeout", "NameNotResolved", "EndpointUnreachable", "TlsFailed", "NoCredentials"):
        assert not StoreError(code).ambiguous, code
    assert StoreError("InternalError", status=500).ambiguous
    assert not StoreError("AccessDenied", status=403).ambiguous


@pytest.mark.parametrize(("code", "status", "refused"), [
    ("AccessDenied", 403, True), ("NoSuchBucket", 404, True), ("PreconditionFailed", 412, True), ("EntityTooLarge", 413, True),
    ("SlowDown", 503, False), ("InternalError", 500, False), ("TooManyRequests", 429, False), ("OperationAborted", 409, False),
    ("ReadTimeout", 0, False), ("ConnectionReset", 0, False), ("EndpointUnreachable", 0, False),
    ("TlsFailed", 0, False), ("NoCredentials", 0, False), ("BadCredentials", 0, False),  # the server was not even asked
])  # fmt: skip
def test_who_said_no_for_good(code: str, status: int, refused: bool) -> None:
    assert StoreError(code, status=status).refused is refused


BOTO = [
    (botocore.exceptions.NoCredentialsError(), "NoCredentials"),
    (botocore.exceptions.PartialCredentialsError(provider="env", cred_var="x"), "BadCredentials"),
    (botocore.exceptions.CredentialRetrievalError(provider="x", error_msg="y"), "BadCredentials"),
    (botocore.exceptions.ProfileNotFound(profile="x"), "BadCredentials"),
    (botocore.exceptions.SSLError(endpoint_url="x", error="y"), "TlsFailed"),
    (botocore.exceptions.ConnectTimeoutError(endpoint_url="x", error="y"), "ConnectTimeout"),
    (botocore.exceptions.ReadTimeoutError(endpoint_url="x", error="y"), "ReadTimeout"),
    (botocore.exceptions.EndpointConnectionError(endpoint_url="x", error="y"), "EndpointUnreachable"),
    (botocore.exceptions.ConnectionClosedError(endpoint_url="x", request="y"), "ConnectionClosed"),
    (botocore.exceptions.ResponseStreamingError(error="y"), "TruncatedBody"),
    (botocore.exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2), "TruncatedBody"),
    (botocore.exceptions.HTTPClientError(error="y"), "ConnectionReset"),
    (botocore.exceptions.ParamValidationError(report="x"), "InvalidArgument"),
    (botocore.exceptions.ClientError({"Error": {"Code": "404"}, "ResponseMetadata": {"HTTPStatusCode": 404}}, "x"), "NoSuchKey"),
    (
        botocore.exceptions.ClientError({"Error": {"Code": "QuotaExceeded"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, "x"),
        "QuotaExceeded",
    ),
    (botocore.exceptions.ClientError({"ResponseMetadata": {"HTTPStatusCode": 403}}, "x"), "AccessDenied"),
    (ValueError("Invalid endpoint: x"), "BadEndpoint"),
]  # fmt: skip


@pytest.mark.parametrize(("exception", "code"), BOTO, ids=lambda value: type(value).__name__)
def test_botocore_failures(exception: Exception, code: str) -> None:
    assert store_error(exception, "x").code == code


def test_every_exception_of_botocore_becomes_one_of_ours() -> None:
    for name, kind in vars(botocore.exceptions).items():
        if isinstance(kind, type) and issubclass(kind, botocore.exceptions.BotoCoreError):
            exception = kind.__new__(kind)
            Exception.__init__(exception, name)
            assert store_error(exception, "x").code in TABLE


# signatures


def test_signature_of_the_manual() -> None:
    # "Example: GET Object" of the S3 API reference
    keys = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    signer = Signer("us-east-1")
    headers = {"host": "examplebucket.s3.amazonaws.com"}
    signer.sign(keys, "GET", "/", {"lifecycle": ""}, headers, EMPTY, now=1369353600)
    assert headers["authorization"].endswith("fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543")


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30),
    st.dictionaries(st.text("abcXYZ-é ", min_size=1, max_size=5), st.text(max_size=8), max_size=3),
)
def test_signatures_are_botocores(key: str, query: dict[str, str]) -> None:
    path = "/bucket/" + quote_key(key)
    headers = {"host": "localhost:7480", "x-amz-meta-a": "b  c", "content-type": "text/plain", "range": "bytes=0-1"}
    ours = dict(headers)
    signer = Signer("us-east-1")
    signer.sign(KEYS, "PUT", path, query, ours, EMPTY, now=1700000000)
    url = f"http://localhost:7480{path}?{quote_query(query)}"
    request = botocore.awsrequest.AWSRequest("PUT", url, {**headers, "X-Amz-Date": ours["x-amz-date"]})
    request.headers["X-Amz-Content-SHA256"] = EMPTY
    request.context["timestamp"] = ours["x-amz-date"]
    reference = botocore.auth.S3SigV4Auth(botocore.credentials.Credentials(KEYS.access_key, KEYS.secret_key), "s3", "us-east-1")
    canonical = _without(reference.canonical_request(request), "range")
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    text = "\n".join(("AWS4-HMAC-SHA256", ours["x-amz-date"], reference.credential_scope(request), digest))
    assert ours["authorization"].endswith(reference.signature(text, request))


def _without(canonical: str, header: str) -> str:
    # botocore signs Range too, which is allowed and not needed
    lines = [line for line in canonical.split("\n") if not line.startswith(f"{header}:")]
    return "\n".join(line.replace(f";{header}", "") if line.startswith("content-type;host") else line for line in lines)


def test_the_days_key_is_renewed() -> None:
    signer, first, second = Signer("r"), {"host": "h"}, {"host": "h"}
    signer.sign(KEYS, "GET", "/", {}, first, EMPTY, now=1700000000)
    signer.sign(KEYS, "GET", "/", {}, second, EMPTY, now=1700000000 + 86400)
    fresh = {"host": "h"}
    Signer("r").sign(KEYS, "GET", "/", {}, fresh, EMPTY, now=1700000000 + 86400)
    assert second == fresh
    assert first != second


def test_unsigned_requests_carry_nothing() -> None:
    headers = {"host": "h"}
    Signer("r").sign(Credentials(), "GET", "/", {}, headers, EMPTY)
    assert headers == {"host": "h"}


# retries


@given(st.integers(0, 10), st.floats(0, 300), st.integers(1, 12), st.floats(0, 400), st.floats(0, 1, exclude_max=True))
def test_pauses(retries: int, timeout: float, attempt: int, elapsed: float, chance: float) -> None:
    schedule = Schedule(retries, timeout)
    pause = schedule.pause(StoreError("InternalError", status=500), attempt, elapsed, chance)
    if attempt > retries or elapsed > timeout:
        assert pause is None
    elif pause is not None:
        assert FIRST / 4 <= pause <= LONGEST
        assert elapsed + pause <= timeout
    for code in ("NoSuchKey", "AccessDenied", "PreconditionFailed", "TlsFailed"):
        assert schedule.pause(StoreError(code, status=400), 1, 0, chance) is None


def test_a_servers_wish_is_obeyed() -> None:
    slow = StoreError("SlowDown", status=503, headers={"retry-after": "7"})
    assert Schedule(3, 100).pause(slow, 1, 0, 0) == 7
    assert Schedule(3, 5).pause(slow, 1, 0, 0) is None


# addresses


@pytest.mark.parametrize(
    ("url", "path_style", "bucket", "host", "shown", "path"),
    [
        ("https://huabei-2.zos.ctyun.cn", False, "b-1", "b-1.huabei-2.zos.ctyun.cn", "b-1.huabei-2.zos.ctyun.cn", "/k%20%2B"),
        ("https://huabei-2.zos.ctyun.cn", True, "b-1", "huabei-2.zos.ctyun.cn", "huabei-2.zos.ctyun.cn", "/b-1/k%20%2B"),
        ("https://huabei-2.zos.ctyun.cn", False, "Old_Name", "huabei-2.zos.ctyun.cn", "huabei-2.zos.ctyun.cn", "/Old_Name/k%20%2B"),
        ("https://huabei-2.zos.ctyun.cn", False, "with.dots", "huabei-2.zos.ctyun.cn", "huabei-2.zos.ctyun.cn", "/with.dots/k%20%2B"),
        ("http://100.86.2.1", False, "b-1", "100.86.2.1", "100.86.2.1", "/b-1/k%20%2B"),
        ("http://[::1]:7480", False, "b-1", "::1", "[::1]:7480", "/b-1/k%20%2B"),
        ("http://localhost:7480/s3/", False, "b-1", "localhost", "localhost:7480", "/s3/b-1/k%20%2B"),
        ("zos.ctyun.cn", False, "b-1", "b-1.zos.ctyun.cn", "b-1.zos.ctyun.cn", "/k%20%2B"),
        ("http://zos.ctyun.cn:80", True, "b-1", "zos.ctyun.cn", "zos.ctyun.cn", "/b-1/k%20%2B"),
    ],
)  # fmt: skip
def test_addresses(url: str, path_style: bool, bucket: str, host: str, shown: str, path: str) -> None:
    endpoint = Endpoint.of(Options(url=url, use_path_request_style=path_style))
    assert endpoint.place(bucket, "k +")[:3] == (host, shown, path)
    assert endpoint.place(bucket, "k +")[3] in (f"/{bucket}/k%20%2B", path)


@pytest.mark.parametrize("url", ["ftp://host", "http://", "https://user:secret@host", "http://host:port", "http://[::1"])
def test_endpoints_that_are_none(url: str) -> None:
    with pytest.raises(StoreError) as failure:
        Endpoint.of(Options(url=url))
    assert failure.value.code == "BadEndpoint"
    assert "secret" not in str(failure.value)


def test_copy_sources() -> None:
    assert source_of("b", "a b/ü?", "v+1") == "/b/a%20b/%C3%BC%3F?versionId=v%2B1"


# documents


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=12), unique=True, max_size=8))
def test_keys_survive_a_delete_document(keys: list[str]) -> None:
    fit = [key for key in keys if answers.fits_xml(key)]
    root = answers.parse(Answer(200, {}, answers.delete_document(fit)))
    assert [element.text for element in root.iter("Key")] == fit


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_encoded_names(key: str) -> None:
    assert name_of(quote_key(key)) == key
    assert name_of(quote_key(key).replace("%20", "+")) == key


def test_keys_that_are_no_utf8() -> None:
    key = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert quote_key(key) == "caf%E9"
    assert name_of("caf%E9") == key
    assert order(key) == b"caf\xe9"
    assert not answers.fits_xml(key)


def _page(inner: str) -> bytes:
    return f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{inner}</ListBucketResult>'.encode()


def test_a_page() -> None:
    page, token = parse_page(_page(
        "<EncodingType>url</EncodingType><IsTruncated>true</IsTruncated><NextMarker>z%2F</NextMarker>"
        "<Contents><Key>b%2B</Key><LastModified>2026-01-02T03:04:05.678Z</LastModified><ETag>&quot;e&quot;</ETag><Size>5</Size>"
        "<StorageClass>STANDARD</StorageClass><Type>Appendable</Type></Contents>"
        "<Contents><Key>a+c</Key><LastModified>2026-01-02T03:04:05Z</LastModified><ETag>f</ETag><Size>0</Size></Contents>"
        "<CommonPrefixes><Prefix>z%2F</Prefix></CommonPrefixes>"
    ))  # fmt: skip
    assert [entry.key for entry in page.objects] == ["a c", "b+"]
    assert page.objects[1].modified_ns == 1767323045678000000
    assert (page.objects[1].etag, page.objects[1].size, page.objects[1].appendable) == ("e", 5, True)
    assert (page.prefixes, page.next_marker, token) == (["z/"], "z/", "")
    # Ceph leaves the marker as it is
    page, _ = parse_page(_page(
        "<EncodingType>url</EncodingType><IsTruncated>true</IsTruncated><NextMarker>%41</NextMarker>"
        "<Contents><Key>%2541</Key></Contents>"
    ))  # fmt: skip
    assert page.next_marker == "%41"


texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=6)
owners = st.sampled_from(["", "<Owner><ID>me</ID><DisplayName>It's me</DisplayName></Owner>", "<Owner><ID>me</ID></Owner>"])


@st.composite
def entries(draw: st.DrawFn) -> str:
    """An object of a page, as one of the servers writes it or in another order."""
    quote = draw(st.sampled_from(["&quot;", '"', "&#34;", ""]))
    fields = [
        f"<Key>{draw(st.one_of(texts.map(quote_key), texts.map(escape)))}x</Key>",
        f"<LastModified>{draw(st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1))).isoformat()}Z</LastModified>",
        f"<ETag>{quote}{draw(st.one_of(st.just('e' * 32), texts.map(escape)))}{quote}</ETag>",
        f"<Size>{draw(st.integers(0, 1 << 50))}</Size>",
        draw(owners),
        draw(st.sampled_from(["", "<StorageClass>STANDARD</StorageClass>", "<StorageClass>A&amp;B</StorageClass>"])),
        draw(st.sampled_from(["", "<Type>Normal</Type>", "<Type>Appendable</Type>", "<Other/>"])),
    ]
    if draw(st.integers(0, 9)) == 0:
        fields = draw(st.permutations(fields))
    return f"<Contents>{''.join(fields)}</Contents>"


@given(st.lists(entries(), max_size=5), st.booleans(), st.booleans())
def test_plain_entries_are_read_as_the_parser_reads_them(objects: list[str], encoded: bool, truncated: bool) -> None:
    before = "<EncodingType>url</EncodingType>" if encoded else ""
    after = f"<IsTruncated>{'true' if truncated and objects else 'false'}</IsTruncated><CommonPrefixes><Prefix>p/</Prefix></CommonPrefixes>"
    document = _page(before + "".join(objects) + after)
    with_comment = _page(f"<!-- read by the parser -->{before}{''.join(objects)}{after}")
    assert parse_page(document) == parse_page(with_comment)


@pytest.mark.parametrize("document", [
    b"", b"<html>", b"<Error/>", _page("<IsTruncated>true</IsTruncated>"), _page("<Contents><Size>1</Size></Contents>"),
    _page("<Contents><Key>a</Key><LastModified></LastModified><ETag>&quot;e&quot;</ETag><Size>1</Size></Contents>")[:-9],
])  # fmt: skip
def test_pages_that_are_none(document: bytes) -> None:
    with pytest.raises(StoreError) as failure:
        parse_page(document)
    assert failure.value.code == "BadAnswer"


def test_request_headers() -> None:
    headers = ObjectHeaders({"mode": "1"}, "t/p", "private", "STANDARD", {"a": "b c&d"}, {"Cache-Control": "x"})
    assert answers.request_headers(headers) == {
        "x-amz-meta-mode": "1", "content-type": "t/p", "x-amz-acl": "private", "x-amz-storage-class": "STANDARD",
        "x-amz-tagging": "a=b%20c%26d", "cache-control": "x",
    }  # fmt: skip
    assert "x-amz-tagging" not in answers.request_headers(headers, tags=False)


def test_times() -> None:
    assert answers.http_time_ns("Fri, 02 Jan 2026 03:04:05 GMT") == 1767323045 * 10**9
    assert answers.http_time_ns("nonsense") == answers.iso_time_ns("nonsense") == 0
    assert answers.iso_time_ns("2026-01-02T03:04:05.123456789Z") % 10**9 == 123456789


def test_etags_of_parts() -> None:
    one, two = hashlib.md5(b"1").hexdigest(), hashlib.md5(b"2").hexdigest()
    expected = hashlib.md5(bytes.fromhex(one + two)).hexdigest() + "-2"
    assert multipart_etag([PartInfo(2, two, 1), PartInfo(1, one, 1)]) == expected
    for other in ("not-an-md5", "0123abcd", one + two):
        assert multipart_etag([PartInfo(1, one, 1), PartInfo(2, other, 1)]) == ""
    assert multipart_etag([PartInfo(1, one + one[:16], 1), PartInfo(2, two[:16], 1)]) == ""


def test_digests_of_a_file_that_is_too_short(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"bytes")
    with (tmp_path / "f").open("rb") as file:
        assert md5_hex([FileSlice(file.fileno(), 1, 4), b"!"]) == hashlib.md5(b"ytes!").hexdigest()
        with pytest.raises(StoreError) as failure:
            md5_hex([FileSlice(file.fileno(), 1, 5)])
    assert (failure.value.code, failure.value.errno) == ("LocalReadFailed", errno.EIO)


# credentials


def _file(path: Path, text: str, mode: int = 0o600) -> str:
    path.touch()
    path.chmod(0o600)
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def test_passwd_files() -> None:
    text = "# comment\n\nother:AK1:SK1\n AK2 : SK2 \nmine:AK3:SK3\n"
    assert parse_passwd(text, "f", "mine") == ("AK3", "SK3")
    assert parse_passwd(text, "f", "none") == ("AK2", "SK2")
    for bad in ("", "just-one", "a:b:c:d", "AK:", "other:AK:SK"):
        with pytest.raises(StoreError) as failure:
            parse_passwd(bad, "the-file", "mine")
        assert failure.value.code == "BadCredentials"
        assert "the-file" in str(failure.value)
        assert "SK" not in str(failure.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_files_that_others_read_are_refused(tmp_path: Path, mode: int) -> None:
    async def main() -> None:
        good = _file(tmp_path / "q", "AK:SK")
        for files in (Files(_file(tmp_path / "p", "AK:SK", mode), ""), Files(good, _file(tmp_path / "t", "T", mode))):
            with pytest.raises(StoreError) as failure:
                await files.current()
            assert "chmod 600" in str(failure.value)

    trio.run(main)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    async def main() -> None:
        files = Files(_file(tmp_path / "p", "AK:SK"), _file(tmp_path / "t", "token1\n"))
        assert await files.current() == Credentials("AK", "SK", "token1")
        _file(tmp_path / "t", "token-two\n")
        await trio.sleep(6)
        assert await files.current() == Credentials("AK", "SK", "token-two")
        (tmp_path / "t").unlink()
        await trio.sleep(6)
        assert await files.current() == Credentials("AK", "SK", "token-two")
        _file(tmp_path / "p", "AK9:SK9")
        _file(tmp_path / "t", "three")
        await trio.sleep(6)
        assert await files.current() == Credentials("AK9", "SK9", "three")

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_where_credentials_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passwd = _file(tmp_path / "p", "AKF:SKF")
    profiles = _file(tmp_path / "credentials", "[work]\naws_access_key_id=AKP\naws_secret_access_key=SKP\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", profiles)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    zos = {"zosAk": "AKZ", "zosSk": "SKZ"}
    aws = {"AWS_ACCESS_KEY_ID": "AKA", "AWS_SECRET_ACCESS_KEY": "SKA", "AWS_SESSION_TOKEN": "T"}

    async def main() -> None:
        async def found(environ: dict[str, str], **options: Any) -> Credentials:
            return await provider(Options(**options), environ).current()

        assert await found({**aws, **zos}, passwd_file=passwd) == Credentials("AKF", "SKF")
        assert await found({**aws, **zos}, profile="work") == Credentials("AKP", "SKP")
        assert await found({**aws, **zos}) == Credentials("AKA", "SKA", "T")
        assert await found(zos) == Credentials("AKZ", "SKZ")
        assert await found(zos, session_token_file=_file(tmp_path / "t", "token")) == Credentials("AKZ", "SKZ", "token")
        assert await found(aws, public_bucket=True) == Credentials()
        with pytest.raises(StoreError) as failure:
            await found({}, profile="no-such-profile")
        assert failure.value.code == "BadCredentials"
        with pytest.raises(StoreError):
            await found(aws, passwd_file=str(tmp_path / "missing"))

    trio.run(main)


def test_secrets_do_not_show(tmp_path: Path) -> None:
    keys = Credentials("AK", "the-secret", "the-token")
    for thing in (keys, Fixed(keys), Signer("r"), Files(_file(tmp_path / "p", "AK:the-secret"), "", ("AK", "the-secret"))):
        assert "the-secret" not in repr(thing)
        assert "the-token" not in repr(thing)


# turns and faults


def test_turns_are_taken_in_order_and_forgotten() -> None:
    async def main() -> None:
        turns, log = Turns(), []

        async def one(name: str, keys: list[str]) -> None:
            async with turns.of_all(keys) if len(keys) > 1 else turns.of(keys[0]):
                log.append(f"+{name}")
                await trio.sleep(1)
                log.append(f"-{name}")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, "a", ["k"])
            await trio.sleep(0.1)
            nursery.start_soon(one, "b", ["k", "l"])
            await trio.sleep(0.1)
            nursery.start_soon(one, "c", ["l", "k"])
            nursery.start_soon(one, "other", ["m"])
        assert [word for word in log if "other" not in word] == ["+a", "-a", "+b", "-b", "+c", "-c"]
        assert log.index("+other") < log.index("-a")
        async with turns.of("k"):
            with trio.move_on_after(1) as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(one, "late", ["j", "k"])
            assert scope.cancelled_caught
            assert list(turns._locks) == ["k"]
        assert not turns._locks

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_an_error_of_the_tests_own() -> None:
    assert b"SlowDown" in error(503, "SlowDown")


@pytest.mark.parametrize(
    ("body", "inside"),
    [
        (b"<Error><Code>InternalError</Code></Error>", True),
        (b'  \n<?xml version="1.0" encoding="UTF-8"?>\n<Error xmlns="x"><Code>SlowDown</Code></Error>', True),
        (b"<DeleteResult><Error><Key>k</Key><Code>AccessDenied</Code></Error></DeleteResult>", False),
        (b"<CopyObjectResult/>", False),
        (b"", False),
    ],
)
def test_errors_inside_a_good_answer(body: bytes, inside: bool) -> None:
    assert answers.error_inside(Answer(200, {}, body)) == inside


def test_documents_with_letters_that_xml_does_not_have() -> None:
    for code in range(0x20):
        for written in (f"&#x{code:X};", f"&#{code};", f"&#x000{code:x};", *([chr(code)] if code != 13 else [])):
            root = answers.parse(Answer(200, {}, f"<A><Key>a{written}b</Key><Id>i</Id></A>".encode()))
            assert (answers.as_meant(answers.field(root, "Key")), answers.field(root, "Id")) == (f"a{chr(code)}b", "i"), written
    for written in ("&#xFFFE;", "&#xd800;", "\uffff"):
        assert answers.field(answers.parse(Answer(200, {}, f"<A><Key>a{written}b</Key></A>".encode())), "Key") == "a\ufffdb"
    with pytest.raises(StoreError, match="no XML document"):
        answers.parse(Answer(200, {}, b"<A>&#x1;"))
