"""The wrapper around every FUSE handler: deadlines, and errors that reach the caller instead of ending the mount.

An exception other than FUSEError that escapes a pyfuse3 handler ends the whole mount, and a client of an unanswered request
cannot even be killed; hence one wrapper for all of them.
"""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyfuse3
import trio

from zosfs.errors import StoreError

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

QUIET = frozenset({errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.ENODATA, errno.ENOTDIR, errno.EISDIR})
"""What programs run into in passing: not worth a line in the log."""


Handler = Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]


def handler(*, bounded: bool = True, known: Callable[..., Any] | None = None) -> Callable[[Handler[P, R]], Handler[P, R]]:
    """Make a method of an object with `counters`, `deadline` and `place` a FUSE handler: OSError becomes its errno, anything unexpected
    EIO with a logged traceback. `place` tells the path that a method of this name was asked about with these arguments, "" where it is
    not known: log lines have it.

    *bounded* handlers end with ETIMEDOUT after the object's `deadline` seconds; deliveries (flush, fsync) are bounded
    by the store's own retry time-outs instead, because a large file takes as long as it takes.
    *known* is a plain function of the same arguments that answers what is in memory, None when it has to be asked for: what
    waits for nothing needs no deadline, which costs as much as the answer itself. It may raise FUSEError.
    """

    def wrap(fn: Handler[P, R]) -> Handler[P, R]:
        def asked(self: Any, args: tuple[Any, ...]) -> str:
            try:
                place = self.place(fn.__name__, args)
            except Exception:  # what went wrong is told in any case, and nothing escapes
                place = ""
            return f"{fn.__name__} {place}" if place else fn.__name__

        @functools.wraps(fn)
        async def run(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
            self.counters["fuse_requests"] += 1
            try:
                if known is not None:
                    answer: R | None = known(self, *args, **kwargs)
                    if answer is not None:
                        return answer
                if not bounded:
                    return await fn(self, *args, **kwargs)
                with trio.fail_after(self.deadline):
                    return await fn(self, *args, **kwargs)
            except pyfuse3.FUSEError:
                raise
            except StoreError as exc:
                if exc.errno not in QUIET:
                    log.warning("%s: %s", fn.__name__, exc)  # which names the key
                raise pyfuse3.FUSEError(exc.errno or errno.EIO) from None
            except OSError as exc:
                text = getattr(exc, "text", "")
                if text and exc.errno not in QUIET:
                    log.warning("%s: %s", asked(self, args), text)  # a value that the server would refuse, and what is wrong with it
                elif exc.errno not in QUIET:
                    log.info("%s: %s", asked(self, args), exc)
                raise pyfuse3.FUSEError(exc.errno or errno.EIO) from None
            except trio.TooSlowError:
                log.warning("%s gave up after %.0f s", asked(self, args), self.deadline)
                raise pyfuse3.FUSEError(errno.ETIMEDOUT) from None
            except Exception:
                self.counters["fuse_errors"] += 1
                log.exception("%s failed unexpectedly", asked(self, args))
                raise pyfuse3.FUSEError(errno.EIO) from None

        return run

    return wrap
