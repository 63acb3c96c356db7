"""Places of pictures in what a model is asked."""

import re

from blindspot.evaluation.base import PICTURE, Prompt

_REFERENCE = re.compile(r"<image (\d)>")


def marks(prompt: Prompt) -> int:
    """How many pictures a prompt shows: the first ones of its question."""
    return prompt.content.count(PICTURE) if prompt.text is None else prompt.text.count(PICTURE)


def harmless(text: str, mark: str = PICTURE) -> str:
    """``text`` with a space in each ``mark`` that it happens to say, which would be read as a picture."""
    return text.replace(mark, f"{mark[0]} {mark[1:]}")


def pictures_first(pictures: int, text: str) -> tuple[str, ...]:
    """A user's turn of pictures and the text behind them."""
    return (*(PICTURE,) * pictures, harmless(text))


def pictures_inside(pictures: int, text: str) -> tuple[str, ...]:
    """A user's turn with each picture in place of the ``<image 1>``, ``<image 2>``, ... that names it.

    A text that does not name each picture once and in order keeps its words, and the pictures come first.
    """
    if _REFERENCE.findall(text) != [str(number + 1) for number in range(pictures)]:
        return pictures_first(pictures, text)
    pieces = [PICTURE if place % 2 else harmless(piece) for place, piece in enumerate(_REFERENCE.split(text))]
    return tuple(piece for piece in pieces if piece)


def without_pictures(text: str) -> str:
    """The pieces of a text around its ``<image 1>``, ``<image 2>``, ..., one a line."""
    return "\n".join(_REFERENCE.split(text)[::2])
