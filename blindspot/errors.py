"""The one exception that a user is meant to read, and what else is no bug."""

import difflib
import errno
from collections.abc import Iterable
from typing import Any

_CONDITIONS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EFBIG,
    errno.ENOMEM,
    errno.EMFILE,
}
NO_MEMORY = "out of memory"
_SAID_OF_MEMORY = (NO_MEMORY, "allocate memory", "failed to map segment", "can't start new thread")


class UserError(Exception):
    """A mistake or a condition the user can act on.

    The message is a single line that says what is wrong, where, and what to do. The command line prints it without
    a traceback and exits with status 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def one_of(value: Any, allowed: Iterable[str], where: str, what: str) -> None:
    """Refuse a name that is not among the ``allowed`` ones.

    Raises:
        UserError: with the nearest allowed name and all of them.
    """
    names = list(allowed)
    if value not in names:
        meant = nearest(str(value), names)
        raise UserError(f"{where}: unknown {what} {value!r}; did you mean {meant!r}? (one of: {', '.join(names)})")


def nearest(value: str, names: Iterable[str]) -> str:
    """The name that is most like ``value``."""
    return difflib.get_close_matches(value, list(names), n=1, cutoff=0.0)[0]


def shortage(error: BaseException) -> str | None:
    """What the machine lacks or forbids, where that is why something failed; None where it is not."""
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | ImportError | OSError) and any(said in str(error) for said in _SAID_OF_MEMORY)
    ):
        return NO_MEMORY
    if isinstance(error, OSError) and error.errno in _CONDITIONS:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return None
