"""Which part of a picture a model sees, and the way from its coordinates back to the picture's pixels."""

import re
from dataclasses import dataclass
from typing import Self

from blindspot.errors import UserError

Box = tuple[float, float, float, float]
"""``x0, y0, x1, y1`` in pixels of a picture, from its top left corner; ``x1`` and ``y1`` are exclusive."""

Point = tuple[float, float]
Size = tuple[int, int]
"""Width and height in pixels."""

_TEXT = re.compile(r"(\d+)x(\d+) at ((?:\S+ ){3}\S+?)(?: in (\d+)x(\d+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class View:
    """What a model sees of a picture: padding, cropping and resizing are one rectangle, however they follow each other.

    Attributes:
        picture: size of the picture.
        window: the rectangle that fills the model's input, in the picture's pixels; larger than the picture where it
            is padded, smaller where it is cropped.
        input: size of the model's input, for models that count its pixels; None: it is of no account.
    """

    picture: Size
    window: Box
    input: Size | None = None

    @classmethod
    def whole(cls, picture: Size, input: Size | None = None) -> Self:
        """The picture, resized to whatever shape."""
        return cls(picture, (0.0, 0.0, float(picture[0]), float(picture[1])), input)

    @classmethod
    def prepared(
        cls, picture: Size, *, pad: bool = False, shortest: int | None = None, crop: Size | None = None
    ) -> Self:
        """The picture, padded to a square around its middle, resized, and cropped to its middle, as far as given.

        Rounds as transformers' image processors do.

        Args:
            picture: its size.
            pad: as LLaVA's ``expand2square``.
            shortest: length to which the shorter side is brought; None: no crop can follow.
            crop: size of the crop.
        """
        width, height = (max(picture),) * 2 if pad else picture
        left, top = (width - picture[0]) // 2, (height - picture[1]) // 2
        if shortest is None or crop is None:
            return cls(picture, (-left, -top, width - left, height - top))
        longest = int(shortest * max(width, height) / min(width, height))
        resized = (shortest, longest) if width <= height else (longest, shortest)
        x0, x1 = (edge * width / resized[0] - left for edge in _middle(resized[0], crop[0]))
        y0, y1 = (edge * height / resized[1] - top for edge in _middle(resized[1], crop[1]))
        return cls(picture, (x0, y0, x1, y1), crop)

    def to_picture(self, x: float, y: float, units: tuple[float, float]) -> Point:
        """The pixel of the picture at a place in the input, which is ``units`` wide and high."""
        x0, y0, x1, y1 = self.window
        return x0 + x * (x1 - x0) / units[0], y0 + y * (y1 - y0) / units[1]

    def to_input(self, x: float, y: float, units: tuple[float, float]) -> Point:
        """The inverse of `to_picture`."""
        x0, y0, x1, y1 = self.window
        return (x - x0) * units[0] / (x1 - x0), (y - y0) * units[1] / (y1 - y0)

    def __str__(self) -> str:
        """As kept with answers; `parse` reads it back exactly."""
        edges = " ".join(repr(float(edge)) for edge in self.window)
        behind = "" if self.input is None else f" in {self.input[0]}x{self.input[1]}"
        return f"{self.picture[0]}x{self.picture[1]} at {edges}{behind}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str`` wrote.

        Raises:
            UserError: if it is something else.
        """
        match = _TEXT.fullmatch(text)
        try:
            if match is None:
                raise ValueError
            x0, y0, x1, y1 = map(float, match[3].split())
            if not (x0 < x1 and y0 < y1 and int(match[1]) and int(match[2])):
                raise ValueError
        except ValueError:
            raise UserError(f"the view {text[:60]!r} is not one that Blindspot wrote (640x480 at 0.0 ...)") from None
        size = None if match[4] is None else (int(match[4]), int(match[5]))
        return cls((int(match[1]), int(match[2])), (x0, y0, x1, y1), size)


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes of positive area, in any one unit."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    overlap = width * height
    return overlap / (_area(a) + _area(b) - overlap)


def spelt(text: str) -> Box:
    """The box in ``x0 y0 x1 y1`` or ``x0,y0,x1,y1``.

    Raises:
        UserError: if it is none, or has no area.
    """
    try:
        x0, y0, x1, y1 = map(float, text.replace(",", " ").split())
    except ValueError:
        raise UserError(f"{text[:60]!r} is not a box; write it as x0,y0,x1,y1 in pixels") from None
    if not (x0 < x1 < float("inf") and y0 < y1 < float("inf")):
        raise UserError(f"the box {text[:60]} has no area; x1 must be right of x0 and y1 below y0")
    return x0, y0, x1, y1


def shown(numbers: tuple[float, ...]) -> str:
    """Pixels for people, to a tenth."""
    return " ".join(f"{number:.1f}".removesuffix(".0") for number in numbers)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _middle(length: int, cropped: int) -> tuple[int, int]:
    start = (length - cropped) // 2
    return start, start + cropped
