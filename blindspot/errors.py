"""The one exception that a user is meant to read, and what else is no bug."""

import difflib
import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

_CONDITIONS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.ENOMEM,
               errno.EMFILE}  # fmt: skip
NO_MEMORY = "out of memory"
_SAID_OF_MEMORY = (NO_MEMORY, "allocate memory", "failed to map segment", "can't start new thread")


class UserError(Exception):
    """A mistake or a condition the user can act on.

    The message is a single line that says what is wrong, where, and what to do. The command line prints it without
    a traceback and exits with status 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def did_you_mean(name: Any, names: Iterable[str]) -> str:
    """``did you mean "x"? (one of: x, y)``: the nearest of the valid ``names``, where one is near, and all of them."""
    valid = list(names)
    choices = f"one of: {', '.join(valid)}"
    near = difflib.get_close_matches(str(name).lower(), valid, n=1, cutoff=0.5)
    return f'did you mean "{near[0]}"? ({choices})' if near else choices


def one_of(value: Any, allowed: Iterable[str], where: str, what: str) -> None:
    """Refuse a name that is not among the ``allowed`` ones, as `did_you_mean` says."""
    names = list(allowed)
    if value not in names:
        shown = f'"{value}"' if isinstance(value, str) else value
        raise UserError(f"{where}: unknown {what} {shown}; {did_you_mean(value, names)}")


def objection(error: Any, whole: str) -> str:
    """What pydantic objects to first: where, or in ``whole``, and what."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or whole}: {first['msg']}"


@contextmanager
def explained(
    what: str, kinds: type[Exception] | tuple[type[Exception], ...] = OSError, advice: str = ""
) -> Iterator[None]:
    """Within it an error of these kinds becomes a `UserError` that says ``what`` failed, why, and what to do."""
    try:
        yield
    except kinds as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{what}: {why}" + (f"; {advice}" if advice else "")) from error


def shortage(error: BaseException) -> str | None:
    """What the machine lacks or forbids, where that is why something failed; None where it is not."""
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | ImportError | OSError) and any(said in str(error) for said in _SAID_OF_MEMORY)
    ):
        return NO_MEMORY
    if isinstance(error, OSError) and error.errno in _CONDITIONS:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return None
