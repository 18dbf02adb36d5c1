"""Objects in an archive: opening one fails at once, and says how it is thawed, where reading would fail later."""

from __future__ import annotations

import shlex

from zosfs.admin.thawing import ARCHIVED, ARCHIVES, UNREADABLE, restore_state
from zosfs.errors import StoreError
from zosfs.fs.open_file import OpenFile


async def refuse_archived(file: OpenFile) -> None:
    """Old bytes are wanted of *file*: InvalidObjectState (EREMOTEIO) where they lie in an archive and are not thawed now."""
    info = file.inode.info
    if file.writer is not None or info is None or info.storage_class not in ARCHIVES:
        return
    state = restore_state(await file.inode.store.head(info.key))  # whatever was remembered: thawing changes no ETag
    if state not in UNREADABLE:
        return
    command = f"zosfs restore {shlex.quote(f'zos://{file.inode.store.bucket}/{info.key}')}"
    message = command if state == ARCHIVED else f"it is being thawed; {command} waits for it"
    raise StoreError("InvalidObjectState", status=403, operation="open", key=info.key, message=message)
