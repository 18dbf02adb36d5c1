"""Signals as calls on the trio thread.

Owns: the handlers of the signals given, for as long as `watch` runs: also during the last delivery, which the default action
of a second SIGTERM would kill.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Mapping

import trio

_log = logging.getLogger(__name__)


async def watch(
    actions: Mapping[signal.Signals, Callable[[], object]],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Call the action of each signal that arrives, until cancelled; started once the signals are caught.

    An action that fails is logged and forgotten.
    """
    with trio.open_signal_receiver(*actions) as arriving:
        task_status.started()
        async for number in arriving:
            try:
                actions[signal.Signals(number)]()
            except Exception:
                _log.exception("signal %s", signal.Signals(number).name)
