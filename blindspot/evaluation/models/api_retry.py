"""When to ask a server again, and when to stop asking it."""

import asyncio
import random
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from blindspot.errors import UserError

LONGEST_BACKOFF = 60.0
LONGEST_HOLD = 600.0
"""Seconds. A server that asks for a longer rest is not waited for."""
STOP_AFTER = 20
"""Questions in a row without an answer after which a run stops."""

_random = random.Random()  # its own, so that waiting moves no seed


class Trouble(Exception):
    """The server's failure, which may pass.

    Args:
        why: for people.
        wait: seconds that the server asks for, if it says so.
    """

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


class Refused(Exception):
    """This server will not answer this question, however often it is asked."""


class Pace:
    """Keeps time between requests, for all that share it.

    Args:
        per_minute: most requests a minute, evenly spaced; None: no limit.
    """

    def __init__(self, per_minute: float | None) -> None:
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0

    async def turn(self) -> None:
        """Return when the next request may be sent."""
        while (rest := self._next - time.monotonic()) > 0:
            await asyncio.sleep(rest)
        self._next = time.monotonic() + self._gap

    def hold(self, seconds: float) -> None:
        """Let nobody send for this long."""
        self._next = max(self._next, time.monotonic() + seconds)


class Luck:
    """Ends a run in which nothing is answered any more, instead of failing on forty thousand questions in turn.

    Refusals count only before the first answer: later ones may well be the questions' own fault, and those come in
    rows, as questions about one picture do.
    """

    def __init__(self) -> None:
        self._answered = False
        self._in_row = 0

    def good(self) -> None:
        """A question was answered."""
        self._answered = True
        self._in_row = 0

    def bad(self, error: Exception, where: str) -> None:
        """A question was given up.

        Raises:
            UserError: if it is the last straw.
        """
        if isinstance(error, Refused) and self._answered:
            return
        self._in_row += 1
        if self._in_row >= STOP_AFTER:
            raise UserError(
                f"{where}: {self._in_row} questions in a row got no answer, the last because: {error}; what was "
                "answered is kept, so mend the server and run the same command again"
            )


def backoff(attempt: int, first: float) -> float:
    """Seconds to wait before asking again: doubled each time, and half of it random so that clients part.

    Args:
        attempt: how often it has failed already, from 1.
        first: the longest wait after the first failure.
    """
    return min(first * 2 ** (attempt - 1), LONGEST_BACKOFF) * _random.uniform(0.5, 1.0)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a ``Retry-After`` header asks for, as a number or a date (RFC 9110, 10.2.3); None without one."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.replace(".", "", 1).isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
