"""A mount that cannot be: the line that a person reads, and the exit status.

Owns: the exception, and the choice of one line from whatever went wrong. May use: zosfs.errors.
"""

from __future__ import annotations

from zosfs.errors import StoreError

USAGE, FAILED = 1, 32
"""Exit statuses as mount(8) knows them: wrong usage or permission, and a mount that failed."""


class Refusal(Exception):
    """Why there will be no mount. *line* is one readable line without `zosfs:` in front, *exit_code* as mount(8) means it.

    The session's MountError is of the same shape: its text is the line, and it has an exit_code.
    """

    def __init__(self, line: str, exit_code: int = FAILED) -> None:
        super().__init__(line)
        self.line = line
        self.exit_code = exit_code


def root_cause(error: BaseException) -> BaseException:
    """The exception that says most among those that nurseries grouped: a refusal, else a store's answer, else the first."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [root_cause(inner) for inner in error.exceptions]
    told = [leaf for leaf in leaves if hasattr(leaf, "exit_code")]
    answers = [leaf for leaf in leaves if isinstance(leaf, StoreError)]
    return [*told, *answers, *leaves][0]


def line_of(error: BaseException) -> tuple[str, int]:
    """One readable line and the exit status for *error*, groups of exceptions included."""
    error = root_cause(error)
    if hasattr(error, "exit_code"):
        return " ".join(str(error).split()), error.exit_code
    if isinstance(error, OSError) and type(error).__str__ is not OSError.__str__:  # a StoreError or the like, which says it itself
        return " ".join(str(error).split()), FAILED
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}", FAILED
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", FAILED
    said = f": {error}" if str(error) else ""
    return " ".join(f"internal error: {type(error).__name__}{said}".split()), FAILED
