"""Rare operations by boto3: bucket settings, locks, versions, presigned URLs. The only module that knows boto3 besides credentials.

Owns: the client and how it has to be set up for Ceph; the whitelist of operations. boto3 is imported at the first use, in a thread.

The set-up: checksums only when required (their default makes uploads fail over HTTPS); no ``Expect: 100-continue`` (after a refused
upload botocore takes the next one's answer for the old one); one try (append must never be repeated blindly, and retries are
Exchange's business); our extras document under a name of its own, so that it hides nobody's.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping, Sequence
from typing import Any

import trio

from zosfs.config import Options
from zosfs.counters import Counters
from zosfs.errors import StoreError, code_of, code_of_status
from zosfs.store.answers import legible
from zosfs.store.credentials import Provider
from zosfs.store.exchange import Endpoint
from zosfs.store.retries import Schedule
from zosfs.store.sigv4 import Credentials
from zosfs.threads import ThreadPool

OPERATIONS = frozenset(
    {
        "create_bucket", "head_bucket", "get_bucket_location", "get_bucket_acl", "put_bucket_acl", "get_bucket_cors",
        "put_bucket_cors", "delete_bucket_cors", "get_bucket_encryption", "put_bucket_encryption",
        "delete_bucket_encryption", "get_bucket_lifecycle_configuration", "put_bucket_lifecycle_configuration",
        "delete_bucket_lifecycle", "get_bucket_logging", "put_bucket_logging", "get_bucket_notification_configuration",
        "put_bucket_notification_configuration", "get_bucket_policy", "put_bucket_policy", "delete_bucket_policy",
        "get_bucket_policy_status", "get_bucket_replication", "put_bucket_replication", "delete_bucket_replication",
        "get_bucket_request_payment", "put_bucket_request_payment", "get_bucket_tagging", "put_bucket_tagging",
        "delete_bucket_tagging", "get_bucket_versioning", "put_bucket_versioning", "get_bucket_website",
        "put_bucket_website", "delete_bucket_website", "get_object_lock_configuration", "put_object_lock_configuration",
        "get_public_access_block", "put_public_access_block", "delete_public_access_block", "get_object_legal_hold",
        "put_object_legal_hold", "get_object_retention", "put_object_retention", "get_object", "get_object_acl",
        "get_object_tagging", "put_object_acl", "put_object_tagging", "delete_object_tagging", "head_object",
        "restore_object", "list_object_versions", "list_multipart_uploads", "list_parts", "list_objects", "list_objects_v2",
        "delete_bucket_notification_configuration", "delete_object", "put_object", "copy_object", "abort_multipart_upload",
        "process_object", "md_search", "get_usage_stats",
    }
)  # fmt: skip
"""All that `call` sends. A server treats a sub-resource that it does not know as the bare operation: ``DELETE /bucket?encryption``
deletes the bucket, ``PUT /key?annotation`` replaces the object; so nothing is sent that is not listed here, and what changes settings
only where the server has been seen to know the sub-resource (S3Store.call)."""

_FAILURES = (
    ("NoCredentialsError", "NoCredentials"),
    ("PartialCredentialsError", "BadCredentials"),
    ("CredentialRetrievalError", "BadCredentials"),
    ("TokenRetrievalError", "BadCredentials"),
    ("ProfileNotFound", "BadCredentials"),
    ("ConfigParseError", "BadCredentials"),
    ("ConfigNotFound", "BadCredentials"),
    ("SSLError", "TlsFailed"),
    ("ConnectTimeoutError", "ConnectTimeout"),
    ("ReadTimeoutError", "ReadTimeout"),
    ("EndpointConnectionError", "EndpointUnreachable"),
    ("ConnectionClosedError", "ConnectionClosed"),
    ("ResponseStreamingError", "TruncatedBody"),
    ("IncompleteReadError", "TruncatedBody"),
    ("HTTPClientError", "ConnectionReset"),
    ("ResponseParserError", "BadAnswer"),
    ("ParamValidationError", "InvalidArgument"),
    ("InvalidEndpointConfigurationError", "BadEndpoint"),
    ("EndpointResolutionError", "BadEndpoint"),
)
"""botocore's exceptions by class name, the special before the general, and our codes."""


def store_error(exc: Exception, operation: str, key: str = "") -> StoreError:
    """The StoreError of whatever botocore raised."""
    response = getattr(exc, "response", None)
    if isinstance(response, Mapping):
        meta = response.get("ResponseMetadata", {})
        error = response.get("Error", {})
        status = int(meta.get("HTTPStatusCode", 0))
        code, message = str(error.get("Code") or ""), str(error.get("Message") or "")
        if not code or code.isdigit():
            code = code_of_status(status)
        code = code_of(code, message)
        headers = {name.lower(): value for name, value in meta.get("HTTPHeaders", {}).items()}
        return StoreError(code, status=status, message=message, operation=operation, key=key, headers=headers)
    names = {cls.__name__ for cls in type(exc).__mro__}
    code = next((code for name, code in _FAILURES if name in names), "")
    if isinstance(exc, ValueError) and not code:
        code = "BadEndpoint" if "endpoint" in str(exc).lower() else "InvalidArgument"
    return StoreError(code or "BadAnswer", operation=operation, key=key, message=str(exc))


class Boto:
    """boto3 clients of one account."""

    def __init__(self, options: Options, counters: Counters, credentials: Provider) -> None:
        self._options = options
        self._counters = counters
        self._credentials = credentials
        self._threads = ThreadPool("boto", 4)
        self._made = trio.Lock()
        self._clients: dict[tuple[str, str], tuple[Credentials, Any]] = {}

    async def client(self, service: str = "s3", signature: str = "") -> Any:
        """A boto3 client of *service* at the endpoint; *signature*: "s3" (version 2), "s3v4" or "" for what options say."""
        credentials = await self._credentials.current()
        signature = signature or ("s3" if self._options.sigv2 else "s3v4")
        async with self._made:
            made_with, client = self._clients.get((service, signature), (None, None))
            if made_with != credentials:
                client = await self._threads.run(make_client, self._options, credentials, service, signature)
                self._clients[service, signature] = credentials, client
        return client

    async def call(self, operation: str, **members: Any) -> Mapping[str, Any]:
        """An S3 operation of OPERATIONS by boto3's name; see Store.call. Tried again by the account's schedule when it only reads."""
        if operation not in OPERATIONS:
            raise StoreError("NotAllowed", operation=operation)
        client = await self.client()
        schedule = Schedule(self._options.retries, self._options.retry_timeout)
        began, attempt = trio.current_time(), 0
        while True:
            attempt += 1
            try:
                return await self._send(client, operation, members)
            except StoreError as failure:
                pause = schedule.pause(failure, attempt, trio.current_time() - began, 0.5)
                reads = operation.startswith(("get_", "head_", "list_"))
                if pause is None or not (reads or not failure.ambiguous):
                    self._counters.add("errors")
                    raise
                self._counters.add("retries")
                await trio.sleep(pause)

    async def service(self, service: str, operation: str, **members: Any) -> Mapping[str, Any]:
        """An operation of another service that the endpoint speaks: ``sts`` or ``sns`` (with version 2, as the manuals sign)."""
        if service not in ("sts", "sns"):
            raise StoreError("NotAllowed", operation=f"{service} {operation}")
        return await self._send(await self.client(service), operation, members)

    async def _send(self, client: Any, operation: str, members: Mapping[str, Any]) -> Mapping[str, Any]:
        self._counters.add("requests_other")

        def send() -> Mapping[str, Any]:
            try:
                answer = dict(getattr(client, operation)(**members))
                for name, value in answer.items():
                    if hasattr(value, "read"):
                        answer[name] = value.read()
            except Exception as exc:
                raise store_error(exc, operation, str(members.get("Key") or members.get("Bucket", ""))) from None
            answer.pop("ResponseMetadata", None)
            return answer

        return await self._threads.run(send)

    async def presign(self, operation: str, expires: int, version: int, **members: Any) -> str:
        """See S3Store.presign."""
        client = await self.client(signature="s3" if version == 2 else "s3v4")

        def sign() -> str:
            try:
                url: str = client.generate_presigned_url(operation, Params=members, ExpiresIn=expires)
            except Exception as exc:
                raise store_error(exc, "presign", str(members.get("Key", ""))) from None
            return url

        return await self._threads.run(sign)

    async def presign_post(
        self, bucket: str, key: str, expires: int, fields: Mapping[str, str] | None, conditions: Sequence[Any] | None
    ) -> Mapping[str, Any]:
        """See S3Store.presign_post."""
        client = await self.client()

        def sign() -> Mapping[str, Any]:
            try:
                form: Mapping[str, Any] = client.generate_presigned_post(
                    bucket, key, Fields=dict(fields or {}), Conditions=list(conditions or []), ExpiresIn=expires
                )
            except Exception as exc:
                raise store_error(exc, "presign", key) from None
            return form

        return await self._threads.run(sign)

    async def subresource(self, operation: str) -> tuple[str, str]:
        """HTTP method and sub-resource (``website``; "" for none) of an S3 operation."""
        client = await self.client()
        name = client.meta.method_to_api_mapping.get(operation, "")
        if not name:
            raise StoreError("NotAllowed", operation=operation)
        http = client.meta.service_model.operation_model(name).http
        return http["method"], http["requestUri"].partition("?")[2].partition("&")[0].partition("=")[0]

    def close(self) -> None:
        """Close the clients and let the threads end."""
        for _, client in self._clients.values():
            client.close()
        self._clients.clear()
        self._threads.close()


def _make_legible(response_dict: dict[str, Any], **_: Any) -> None:
    body = response_dict.get("body")
    if isinstance(body, bytes) and body.lstrip().startswith(b"<"):
        response_dict["body"] = legible(body)


def make_client(options: Options, credentials: Credentials, service: str, signature: str) -> Any:
    """A client set up as the module says. Blocking, about 0.3 s for the first."""
    import boto3
    import botocore.handlers
    import botocore.session
    from botocore import UNSIGNED
    from botocore.config import Config

    session = botocore.session.Session()
    loader = session.get_component("data_loader")
    loader.search_paths.append(str(importlib.resources.files("zosfs") / "data"))
    loader.extras_types.append("zosfs")
    session.set_credentials(credentials.access_key, credentials.secret_key, credentials.token or None)
    path_style = Endpoint.of(options).path_style
    kind: Any = UNSIGNED if options.public_bucket else signature
    if service != "s3" and kind is not UNSIGNED:
        kind = "v4" if signature == "s3v4" else "s3"
    config = Config(
        signature_version=kind,
        s3={
            "addressing_style": "path" if path_style else "virtual",
            "payload_signing_enabled": options.sign_payload == "always" or (
                options.sign_payload == "auto" and options.url.startswith("http://")
            ),
        },
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"mode": "standard", "total_max_attempts": 1},
        connect_timeout=options.connect_timeout,
        read_timeout=options.read_timeout,
        max_pool_connections=4,
        tcp_keepalive=True,
        proxies={},
    )  # fmt: skip
    try:
        factory: Any = boto3.session.Session(botocore_session=session, region_name=options.region)
        client = factory.client(
            service, endpoint_url=options.url, config=config, verify=(options.ca_file or None) if options.tls_verify else False
        )
    except Exception as exc:
        raise store_error(exc, "connect") from None
    if service == "s3":
        client.meta.events.unregister("before-call.s3", botocore.handlers.add_expect_header)
        handlers: Any = botocore.handlers
        looks = handlers._handle_200_error  # takes what is no XML for a failure of the server: it has to come after ours
        client.meta.events.unregister("before-parse.s3.*", looks)
        client.meta.events.register_first("before-parse.s3.*", _make_legible)
        client.meta.events.register_first("before-parse.s3.*", looks)
        if path_style:
            client.meta.events.register_last("before-sign.s3", _sign_what_is_sent)
    return client


def _sign_what_is_sent(request: Any, **_: Any) -> None:
    # version 2 would sign /bucket/ where /bucket is sent, which Ceph refuses
    request.auth_path = None
