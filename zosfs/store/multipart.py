"""Multipart uploads over S3's HTTP interface: begun, their parts sent or copied, and made an object or forgotten.

Owns: nothing that lasts. May use: exchange, answers. Must not know: which parts a file is made of.
"""

from __future__ import annotations

from collections.abc import Sequence

from zosfs.errors import StoreError
from zosfs.store import answers, digests
from zosfs.store.api import Body, ObjectHeaders, PartInfo, Written, body_length
from zosfs.store.exchange import is_one_of, source_conditions, source_of
from zosfs.store.keyed import COPIED_PER_SECOND, KeyedRequests


class MultipartUploads(KeyedRequests):
    """The verbs of uploads in parts."""

    async def create_upload(self, key: str, headers: ObjectHeaders) -> str:
        """See Store.create_upload."""
        out = answers.request_headers(headers, tags=False)
        answer = await self._ask("create_upload", "POST", key, query={"uploads": ""}, headers=out)
        upload = answers.field(answers.parse(answer), "UploadId")
        if not upload:
            raise StoreError("BadAnswer", status=answer.status, operation="create_upload", key=key, message="no UploadId")
        return upload

    async def upload_part(self, key: str, upload_id: str, number: int, body: Body) -> PartInfo:
        """See Store.upload_part."""
        query = {"partNumber": str(number), "uploadId": upload_id}
        answer = await self._ask("upload_part", "PUT", key, query=query, body=body)
        etag = answer.headers.get("etag", "").strip('"')
        if not etag:
            raise StoreError("BadAnswer", status=answer.status, operation="upload_part", key=key, message="no ETag")
        return PartInfo(number, etag, body_length(body))

    async def upload_part_copy(
        self, key: str, upload_id: str, number: int, source_key: str, start: int, end: int, *, if_match: str = "", source_bucket: str = ""
    ) -> PartInfo:
        """See Store.upload_part_copy. Ceph 16 ignores *if_match* here: the caller compares ETags before it completes."""
        headers = {
            "x-amz-copy-source": source_of(source_bucket or self.bucket, source_key),
            "x-amz-copy-source-range": f"bytes={start}-{end - 1}",
        }  # fmt: skip
        if if_match:
            headers |= source_conditions(if_match)
        query = {"partNumber": str(number), "uploadId": upload_id}
        answer = await self._ask(
            "upload_part_copy", "PUT", key, query=query, headers=headers, patience=(end - start) / COPIED_PER_SECOND
        )
        etag = answers.field(answers.parse(answer), "ETag").strip('"')
        if not etag:
            raise StoreError("BadAnswer", status=answer.status, operation="upload_part_copy", key=key, message="no ETag")
        return PartInfo(number, etag, end - start)

    async def complete_upload(self, key: str, upload_id: str, parts: Sequence[PartInfo]) -> Written:
        """See Store.complete_upload."""
        expected = digests.multipart_etag(parts)
        size = sum(part.size for part in parts)

        async def etag() -> str:
            return expected

        async with self._turns.of(key):
            answer = await self._change(
                "complete_upload", "POST", key, query={"uploadId": upload_id}, body=(answers.complete_document(parts),),
                headers={"content-type": "application/xml"}, again=False, patience=size / COPIED_PER_SECOND / 10,
                settle=self._settling(key, size, None, etag),
            )  # fmt: skip
        told = answers.field(answers.parse(answer), "ETag").strip('"') if answer.body else ""
        return self._written(answer, told or answer.headers.get("etag", "").strip('"') or expected)

    async def abort_upload(self, key: str, upload_id: str) -> None:
        """See Store.abort_upload."""
        try:
            await self._ask("abort_upload", "DELETE", key, query={"uploadId": _given(upload_id)})
        except StoreError as exc:
            if not is_one_of(exc, ("NoSuchUpload", "NoSuchKey")):
                raise

    async def list_parts(self, key: str, upload_id: str) -> Sequence[PartInfo]:
        """See Store.list_parts. Raises ``NoSuchUpload`` for an unknown one."""
        parts: list[PartInfo] = []
        after = 0
        while True:
            query = {"uploadId": _given(upload_id), "max-parts": "1000"}
            if after:
                query["part-number-marker"] = str(after)
            try:
                answer = await self._ask("list_parts", "GET", key, query=query)
            except StoreError as exc:
                if exc.code == "NoSuchKey":  # Ceph's word for it
                    raise StoreError("NoSuchUpload", status=404, operation="list_parts", key=key) from None
                raise
            page, after = answers.parts_of(answers.parse(answer))
            parts += page
            if not after or not page:
                return parts


def _given(upload_id: str) -> str:
    # DELETE of a key with an empty uploadId would be a DELETE of the object on some servers
    if not upload_id:
        raise StoreError("NoSuchUpload", status=404, message="an empty upload id")
    return upload_id
