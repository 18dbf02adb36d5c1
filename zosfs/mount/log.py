"""Where messages go: stderr in front, syslog or the journal behind, or a file; never a secret.

Owns: the root logger's handlers, the level, the redaction. A thread writes, so that a slow disk or a stuck syslog never stops the
trio thread; when it cannot keep up, messages are dropped and counted rather than gathered without bound.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import queue
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

SYSLOG = "/dev/log"
LEVELS = ("error", "warning", "info", "debug")
_PATTERNS = re.compile(
    r"(Signature=|X-Amz-Signature=|X-Amz-Credential=|X-Amz-Security-Token=|AWSAccessKeyId=|Authorization: ?|"
    r"x-amz-security-token: ?|Credential=)[^\s&,'\"]+(?: [^\s,]+(?=,))?",
    re.IGNORECASE,
)


class Redaction:
    """Takes known secret values, and what looks like a signature, out of a text."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets: tuple[str, ...] = ()
        self.learn(secrets)

    def learn(self, secrets: Iterable[str]) -> None:
        """Know these values from now on, too (those of 4 letters or more)."""
        known = {*self._secrets, *(secret for secret in secrets if len(secret) >= 4)}
        self._secrets = tuple(sorted(known, key=len, reverse=True))

    def __call__(self, text: str) -> str:
        """*text* without secrets."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, "***")
        return _PATTERNS.sub(r"\1***", text)


def secrets_of(passwd_file: str = "", token_file: str = "", environ: Mapping[str, str] = os.environ) -> list[str]:
    """The secret values that this process can see: last fields of the password file's lines, tokens, AWS_* and zosSk."""
    names = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "zosSk", "ZOS_SK")
    found = [environ[name] for name in names if environ.get(name)]
    for path in (passwd_file, token_file):
        try:
            text = Path(path).read_text("utf-8", "replace") if path else ""
        except OSError:
            continue
        found += [line.strip().rpartition(":")[2] for line in text.splitlines() if line.strip() and line[0] != "#"]
    return found


class _Queue(logging.handlers.QueueHandler):
    """Hands formatted and redacted records to the writing thread; drops what does not fit."""

    def __init__(self, records: queue.Queue[logging.LogRecord | None], redaction: Redaction) -> None:
        super().__init__(records)
        self._records = records
        self._redaction = redaction
        self._dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        record = super().prepare(record)
        record.msg = record.message = self._redaction(str(record.msg))
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            if self._dropped and not self._records.full():
                dropped, self._dropped = self._dropped, 0
                text = f"{dropped} messages were dropped because the log could not take them"
                self.queue.put_nowait(logging.LogRecord("zosfs", logging.WARNING, "", 0, text, (), None))
            self.queue.put_nowait(record)
        except queue.Full:
            self._dropped += 1


class _Writer(logging.handlers.QueueListener):
    """The writing thread; a stuck sink does not keep the process from ending."""

    def __init__(self, records: queue.Queue[logging.LogRecord | None], handler: logging.Handler) -> None:
        super().__init__(records, handler)
        self._records = records

    def stop(self, patience: float = 5.0) -> None:
        thread = self._thread
        if thread is None:
            return
        self._thread = None
        try:
            self._records.put(None, timeout=patience)
        except queue.Full:
            return
        thread.join(patience)


class _Priority(logging.Formatter):
    """Puts syslog's priority in front, as the journal reads it from stderr."""

    _NUMBERS: Mapping[int, int] = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}

    def format(self, record: logging.LogRecord) -> str:
        number = self._NUMBERS.get(record.levelno, 6)
        return "\n".join(f"<{number}>{line}" for line in super().format(record).splitlines())


def _to_journal(environ: Mapping[str, str]) -> bool:
    """Whether stderr is the journal's stream ($JOURNAL_STREAM is DEVICE:INODE of it)."""
    try:
        info = os.fstat(2)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{info.st_dev}:{info.st_ino}"


class Log:
    """The logging of one mount, from construction until `close`."""

    def __init__(
        self,
        *,
        level: str = "info",
        file: str = "",
        foreground: bool = False,
        fallback: Path | None = None,
        secrets: Iterable[str] = (),
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """*fallback* is the file for a background mount on a machine without syslog. OSError when *file* cannot be opened."""
        logging.raiseExceptions = False  # a log on a full disk would otherwise print each failure to the terminal of whoever mounts
        self.redaction = Redaction(secrets)
        self.where = ""
        self._file = file
        handler = self._handler(file, foreground, fallback, environ)
        records: queue.Queue[logging.LogRecord | None] = queue.Queue(10_000)
        self._front = _Queue(records, self.redaction)
        self._listener = _Writer(records, handler)
        self._handlers = handler
        self._listener.start()
        root = logging.getLogger()
        for old in list(root.handlers):
            root.removeHandler(old)
        root.addHandler(self._front)
        logging.captureWarnings(True)
        self.level = level
        self._apply()

    def _handler(self, file: str, foreground: bool, fallback: Path | None, environ: Mapping[str, str]) -> logging.Handler:
        stamped = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
        handler: logging.Handler
        if file:
            self.where = file
            handler = logging.handlers.WatchedFileHandler(file, encoding="utf-8", errors="backslashreplace")
            handler.setFormatter(stamped)
        elif foreground:
            self.where = "stderr"
            handler = logging.StreamHandler(sys.stderr)
            journal = _to_journal(environ)
            handler.setFormatter(_Priority("%(name)s: %(message)s") if journal else stamped)
        elif os.path.exists(SYSLOG) or fallback is None:
            self.where = "syslog"
            syslog = logging.handlers.SysLogHandler(SYSLOG, facility=logging.handlers.SysLogHandler.LOG_DAEMON)
            syslog.ident = f"zosfs[{os.getpid()}]: "
            syslog.append_nul = False
            handler = syslog
            handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        else:
            fallback.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.where = str(fallback)
            handler = logging.handlers.RotatingFileHandler(
                fallback, maxBytes=8 << 20, backupCount=1, encoding="utf-8", errors="backslashreplace"
            )
            handler.setFormatter(stamped)
        return handler

    def _apply(self) -> None:
        logging.getLogger().setLevel(logging.WARNING)  # of libraries only what matters: boto at debug shows requests
        logging.getLogger("zosfs").setLevel(self.level.upper())

    def cycle(self) -> str:
        """Go to the next level (error, warning, info, debug, and around) and return it."""
        self.level = LEVELS[(LEVELS.index(self.level) + 1) % len(LEVELS)]
        self._apply()
        logging.getLogger("zosfs.mount").log(logging.getLogger("zosfs").level, "log level is now %s", self.level)
        return self.level

    def reopen(self) -> None:
        """Open the log file anew (after a rotation)."""
        if isinstance(self._handlers, logging.handlers.WatchedFileHandler):
            self._handlers.acquire()
            try:
                self._handlers.close()
                self._handlers.stream = None  # so that it is opened anew
                self._handlers.reopenIfNeeded()
            finally:
                self._handlers.release()

    def close(self) -> None:
        """Write what is queued and take the handlers off."""
        logging.getLogger().removeHandler(self._front)
        self._listener.stop()
        with contextlib.suppress(OSError):  # a full disk: what could not be written before cannot be now
            self._handlers.close()
