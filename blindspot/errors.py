"""The one exception that a user is meant to read."""

import difflib
from collections.abc import Iterable
from typing import Any


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
