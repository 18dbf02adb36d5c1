"""The rare operations: settings, versions, locks, topics, roles, signed URLs, by boto3 in worker threads.

Owns: the boto3 clients, the extras document of ZOS's own members (data/s3/…/service-2.zosfs-extras.json), the list of operations
that may be sent. A server that does not know a sub-resource takes the request for the bare operation (Ceph 16 deletes the
bucket for DELETE ?encryption), so nothing outside OPERATIONS is ever sent, and a GET that is answered with a
listing of the bucket is reported as `NotImplemented`.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from typing import Any

from zosfs.config import Options
from zosfs.counters import Counters
from zosfs.errors import BY_STATUS, StoreError
from zosfs.store.credentials import load
from zosfs.threads import ThreadPool

_SETTINGS = ("policy", "lifecycle_configuration", "website", "request_payment", "tagging", "encryption", "logging", "cors", "versioning")
OPERATIONS: Mapping[str, frozenset[str]] = {
    "s3": frozenset({
        *(f"{verb}_bucket_{name}" for verb in ("get", "put") for name in _SETTINGS),
        "get_bucket_acl", "put_bucket_acl", "get_bucket_notification_configuration", "put_bucket_notification_configuration",
        "delete_bucket_notification_configuration", "delete_bucket_policy", "delete_bucket_lifecycle", "delete_bucket_website",
        "delete_bucket_tagging", "delete_bucket_encryption", "delete_bucket_cors",
        "get_object_lock_configuration", "put_object_lock_configuration",
        "list_buckets", "create_bucket", "delete_bucket", "head_bucket", "get_bucket_location",
        "get_object_tagging", "put_object_tagging", "delete_object_tagging", "get_object_acl", "put_object_acl",
        "get_object_legal_hold", "put_object_legal_hold", "get_object_retention", "put_object_retention", "restore_object",
        "list_object_versions", "delete_object", "head_object", "get_object", "put_object", "copy_object",
        "list_multipart_uploads", "abort_multipart_upload", "list_parts", "create_multipart_upload", "upload_part_copy",
        "complete_multipart_upload",
        "process_object", "md_search", "get_usage_stats",
    }),
    "sns": frozenset({"create_topic", "get_topic_attributes", "list_topics", "delete_topic"}),
    "sts": frozenset({"assume_role"}),
}  # fmt: skip
"""The boto3 names that may be sent, by service."""

_COUNTED = {"object_tagging": "requests_tagging", "object_acl": "requests_acl"}
_ROOTS = (b"<ListBucketResult", b"<ListAllMyBucketsResult")


class Rare:
    """boto3 clients of one account, made when first asked for."""

    def __init__(self, options: Options, counters: Counters) -> None:
        self._options = options
        self._counters = counters
        self._clients: dict[tuple[str, ...], Any] = {}
        self._threads = ThreadPool("boto", 4)

    async def call(self, operation: str, *, service: str = "s3", bucket: str = "", **members: Any) -> Mapping[str, Any]:
        """Send *operation* (a name of OPERATIONS[service]) with boto3's *members*, *bucket* filled in where given.

        Returns boto3's answer without ResponseMetadata; a streaming ``Body`` is read and given as bytes. Raises StoreError.
        """
        if operation not in OPERATIONS[service]:
            raise StoreError("NotImplemented", operation=operation, message=f"{operation} is not among the operations that zosfs sends")
        if bucket:
            members["Bucket"] = bucket
        self._counters.add(next((row for end, row in _COUNTED.items() if operation.endswith(end)), "requests_other"))
        return await self._threads.run(self._send, service, bucket, operation, members)

    async def presign(self, operation: str, seconds: int, *, v2: bool = False, bucket: str = "", **members: Any) -> str:
        """A URL that does *operation* ("get_object", "put_object") for whoever has it, for *seconds*; nothing is sent."""
        members["Bucket"] = bucket

        def sign() -> str:
            client = self._client("s3", bucket, "s3" if v2 else "s3v4")
            return str(client.generate_presigned_url(operation, Params=members, ExpiresIn=seconds))

        return str(await self._threads.run(_translated, sign, operation, str(members.get("Key", ""))))

    async def presign_post(self, bucket: str, key: str, seconds: int, *, v2: bool = False) -> Mapping[str, Any]:
        """``{"url": …, "fields": {…}}`` of a form that uploads *key* within *seconds*; nothing is sent."""

        def sign() -> Mapping[str, Any]:
            client = self._client("s3", bucket, "s3" if v2 else "s3v4")
            found: Mapping[str, Any] = client.generate_presigned_post(bucket, key, ExpiresIn=seconds)
            return found

        form: Mapping[str, Any] = await self._threads.run(_translated, sign, "presign_post", key)
        return form

    def close(self) -> None:
        """End the threads and connections."""
        self._threads.close()
        for client in self._clients.values():
            client.close()

    def _send(self, service: str, bucket: str, operation: str, members: dict[str, Any]) -> Mapping[str, Any]:
        def send() -> Mapping[str, Any]:
            answer = getattr(self._client(service, bucket), operation)(**members)
            if answer.pop("ZosfsListing", False):
                raise StoreError(
                    "NotImplemented", operation=operation, key=bucket,
                    message="the server took the request for a listing: it does not know this",
                )  # fmt: skip
            answer.pop("ResponseMetadata", None)
            if hasattr(answer.get("Body"), "read"):
                answer["Body"] = answer["Body"].read()
            return dict(answer)

        answer: Mapping[str, Any] = _translated(send, operation, str(members.get("Key", bucket)))
        return answer

    def _client(self, service: str, bucket: str, signature: str = "") -> Any:
        import boto3
        import botocore
        import botocore.handlers
        import botocore.session
        from botocore.config import Config

        options = self._options
        found = None if options.public_bucket else load(options, bucket)
        identity = (found.access_key, found.token) if found else ("", "")
        signature = signature or ("s3" if options.sigv2 else "s3v4")
        slot = (service, signature, *identity)
        if slot in self._clients:
            return self._clients[slot]
        session = botocore.session.Session()
        loader = session.get_component("data_loader")
        loader.search_paths.append(str(importlib.resources.files("zosfs") / "data"))
        loader.extras_types.append("zosfs")
        style = "path" if options.use_path_request_style or _is_address(options.url) else "virtual"
        s3: Any = {"addressing_style": style, "payload_signing_enabled": options.url.startswith("http:")}
        config = Config(
            signature_version=botocore.UNSIGNED if found is None else signature if service == "s3" else None,
            s3=s3,
            request_checksum_calculation="when_required", response_checksum_validation="when_required",
            connect_timeout=options.connect_timeout, read_timeout=options.read_timeout, parameter_validation=True,
            retries={"mode": "standard", "total_max_attempts": options.retries + 1},
        )  # fmt: skip
        make: Any = boto3.Session(botocore_session=session).client
        client = make(
            service, endpoint_url=options.url, region_name=options.region, config=config,
            verify=(options.ca_file or True) if options.tls_verify else False,
            aws_access_key_id=found.access_key if found else None, aws_secret_access_key=found.secret_key if found else None,
            aws_session_token=found.token or None if found else None,
        )  # fmt: skip
        # an early refusal of a PUT with Expect poisons the connection: the next request gets the old answer
        client.meta.events.unregister("before-call.s3", botocore.handlers.add_expect_header)
        if service == "s3":
            client.meta.events.register("before-parse.s3", _notice_listing)
        self._clients[slot] = client
        return client


def _is_address(url: str) -> bool:
    host = url.partition("://")[2].partition("/")[0]
    return host.startswith("[") or host.partition(":")[0].replace(".", "").isdigit() or host.partition(":")[0] == "localhost"


def _notice_listing(operation_model: Any, response_dict: Any, customized_response_dict: Any, **_: Any) -> None:
    name = operation_model.name
    if name.startswith("List") or ("?" not in operation_model.http["requestUri"] and name != "MdSearch"):
        return
    body = response_dict.get("body")
    if isinstance(body, bytes) and any(root in body[:300] for root in _ROOTS):
        customized_response_dict["ZosfsListing"] = True


def _translated(send: Any, operation: str, key: str) -> Any:
    """The result of ``send()``, botocore's failures as StoreError."""
    import botocore.exceptions as boto

    try:
        return send()
    except boto.ClientError as exc:
        error = exc.response.get("Error", {})
        meta = exc.response.get("ResponseMetadata", {})
        status = int(meta.get("HTTPStatusCode", 0))
        code, message = str(error.get("Code", "")), str(error.get("Message") or "")
        if status == 403 and "object lock" in message:
            code = "ObjectLocked"
        if not code or code.isdigit():
            code = BY_STATUS.get(status, "InternalError")
        headers = {name.lower(): value for name, value in meta.get("HTTPHeaders", {}).items()}
        raise StoreError(code, status=status, message=message, operation=operation, key=key, headers=headers) from None
    except boto.ParamValidationError as exc:
        raise StoreError("InvalidArgument", operation=operation, key=key, message=" ".join(str(exc).split())) from None
    except boto.ConnectTimeoutError as exc:
        raise StoreError("ConnectTimeout", operation=operation, key=key, message=str(exc)) from None
    except boto.ReadTimeoutError as exc:
        raise StoreError("ReadTimeout", operation=operation, key=key, message=str(exc)) from None
    except boto.SSLError as exc:
        raise StoreError("TlsFailed", operation=operation, key=key, message=str(exc)) from None
    except boto.EndpointConnectionError as exc:
        raise StoreError("EndpointUnreachable", operation=operation, key=key, message=str(exc)) from None
    except boto.NoCredentialsError as exc:
        raise StoreError("NoCredentials", operation=operation, key=key, message=str(exc)) from None
    except boto.HTTPClientError as exc:
        raise StoreError("ConnectionReset", operation=operation, key=key, message=str(exc)) from None
    except (boto.BotoCoreError, ValueError) as exc:
        raise StoreError("BadAnswer", operation=operation, key=key, message=str(exc)) from None
