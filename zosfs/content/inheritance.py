"""What becomes of a draft that an earlier run left: compared with the object that is there now.

Owns: nothing that lasts. May use: the decision in `replay`. Must not know: how what is left to do gets done.
"""

from __future__ import annotations

import logging

from zosfs.content.append import look
from zosfs.content.draft import Draft
from zosfs.content.finishing import correct_headers, put_tags
from zosfs.content.journal_entry import JournalEntry
from zosfs.content.replay import Step, decide, needs_sum
from zosfs.content.unfinished_upload import UnfinishedUpload
from zosfs.errors import StoreError
from zosfs.store.api import ObjectInfo, Store

log = logging.getLogger(__name__)


async def compare(store: Store, draft: Draft, unfinished: UnfinishedUpload, entry: JournalEntry) -> ObjectInfo | None:
    """Find out whether the store has the draft that an earlier run promised. No delivery may be under way.

    Returns the object when it has (its headers and tags are seen to); else the draft is to be delivered.
    StoreError ``Conflict`` when somebody else changed it.
    """
    record = entry.record
    if record is None or not entry.recorded:
        return None  # changed since: the next delivery finds out what it stands on
    found = await look(store, draft.key)
    step = decide(record, found, await draft.md5(0, record.size) if needs_sum(record, found) else "")
    log.info("%s, left by an earlier run: %s", record.key, step.value)
    if step is Step.CONFLICT:
        await unfinished.drop(draft.key)
        raise StoreError("Conflict", status=412, operation="write", key=draft.key, message="changed since it was written here")
    if found is None or step not in (Step.DELIVERED, Step.REBASE, Step.REPLACED):
        return None
    draft.stand_on(found, draft.kept)
    if step is Step.REPLACED:
        return await _end(found, draft, unfinished, entry)
    return await _see_to(found, store, draft, unfinished, entry) if step is Step.DELIVERED else None


async def _see_to(found: ObjectInfo, store: Store, draft: Draft, unfinished: UnfinishedUpload, entry: JournalEntry) -> ObjectInfo | None:
    """The object *found* has what was inherited: give it its headers and tags, and be clean; None when there are changes by then."""
    headers = draft.headers()
    info = found
    if dict(found.metadata or {}) != dict(headers.metadata):
        info = await correct_headers(store, found, headers)
    else:
        await put_tags(store, draft.key, headers)
    return await _end(info, draft, unfinished, entry)


async def _end(info: ObjectInfo, draft: Draft, unfinished: UnfinishedUpload, entry: JournalEntry) -> ObjectInfo | None:
    """The object *info* is all that is wanted: be clean; None when there are changes by then."""
    draft.base = info
    await unfinished.drop(draft.key)
    if not entry.recorded:
        return None
    draft.changed = False
    draft.staged.dirty.clear()
    draft.kept_after = draft.size
    draft.rebase(info, draft.size)
    await entry.delivered()
    return info
