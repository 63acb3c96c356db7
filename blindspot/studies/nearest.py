"""The name that a user probably meant."""

from collections.abc import Iterable
from difflib import get_close_matches


def suggest(name: str, valid: Iterable[str]) -> str:
    """``did you mean "x"?`` when one valid name is close, else the list of valid names."""
    names = list(valid)
    close = get_close_matches(name.lower(), names, n=1)
    return f'did you mean "{close[0]}"?' if close else f"one of: {', '.join(names)}"
