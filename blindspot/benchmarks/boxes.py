"""Where a model says that something is: answers of every convention as boxes in the picture's own pixels.

Which part of a picture a model sees, the notations of families of models as data, and from a raw answer to places.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Self

from blindspot.benchmarks.rules import Scored
from blindspot.errors import UserError, one_of

Box = tuple[float, float, float, float]
"""``x0, y0, x1, y1`` in pixels of a picture, from its top left corner; ``x1`` and ``y1`` are exclusive."""

Point = tuple[float, float]
Size = tuple[int, int]
"""Width and height in pixels."""

_VIEW = re.compile(r"(\d+)x(\d+) at ((?:\S+ ){3}\S+?)(?: in (\d+)x(\d+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class View:
    """What a model sees of a picture: padding, cropping and resizing are one rectangle, in whatever order they come."""

    picture: Size  # size of the picture
    window: Box
    """The rectangle that fills the model's input, in the picture's pixels; larger than the picture where it is padded,
    smaller where it is cropped."""
    input: Size | None = None  # size of the model's input, for models that count its pixels; None: it is of no account

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
        starts = [(length - cropped) // 2 for length, cropped in zip(resized, crop, strict=True)]
        x0, x1 = (edge * width / resized[0] - left for edge in (starts[0], starts[0] + crop[0]))
        y0, y1 = (edge * height / resized[1] - top for edge in (starts[1], starts[1] + crop[1]))
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
        """Read what ``str`` wrote."""
        match = _VIEW.fullmatch(text)
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
    areas = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return overlap / (sum(areas) - overlap)


def spelt(text: str) -> Box:
    """The box in ``x0 y0 x1 y1`` or ``x0,y0,x1,y1``, which must have an area."""
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


# No pattern takes more time than in proportion to an answer's length.
_NUMBER = r"([+-]?(?:\d{1,12}+(?:\.\d{0,24}+)?|\.\d{1,24}+))"
_COMMA, _BLANK = r"\s*+,\s*+", r"\s*+"
_PAIR = rf"{_NUMBER}{_COMMA}{_NUMBER}"

_FOUR = re.compile(rf"[\[(]{_BLANK}{_PAIR}{_COMMA}{_PAIR}{_BLANK}[\])]")
_ANY_FOUR = re.compile(rf"[\[(<{{]{_BLANK}{_PAIR}{_COMMA}{_PAIR}{_BLANK}[\])>}}]")
_TWO = re.compile(rf"[\[(]{_BLANK}{_PAIR}{_BLANK}[\])]")
_CORNERS = re.compile(rf"\({_BLANK}{_PAIR}{_BLANK}\){_BLANK},?{_BLANK}\({_BLANK}{_PAIR}{_BLANK}\)")
_BARE = re.compile(rf"\A{_BLANK}" + r"[\s,]++".join([_NUMBER] * 4) + rf"{_BLANK}\.?{_BLANK}\Z")
_TOKENS = re.compile(r"<loc(\d{4})><loc(\d{4})><loc(\d{4})><loc(\d{4})>")
_ATTRIBUTES = re.compile(
    rf"""\bx(\d{{0,4}}){_BLANK}={_BLANK}["']{_NUMBER}["']{_BLANK}y\1{_BLANK}={_BLANK}["']{_NUMBER}["']"""
)
_NUMBERED = re.compile(r"(?<![\d.])(\d{1,4}) (\d{3,4}) (\d{3,4})(?![\d.])", re.ASCII)

_BRACKETS = (_FOUR, _BARE, _TWO)
"""Four numbers in brackets, wherever they stand: in a sentence, in JSON, in a code fence, in JSON that was cut off.
Without any: an answer that is nothing but four numbers; without that, pairs in brackets, which are points."""
_PAIRS = (_CORNERS, *_BRACKETS)


@dataclass(frozen=True)
class Convention:
    """A way to say where something is."""

    name: str  # what models and rows of answers name it by
    patterns: tuple[re.Pattern[str], ...]
    """Of four (a box) or two (a point) numbers in an answer; the first counts that occurs."""
    side: float | None  # what the input's right and lower edge are called; None: as many as it has pixels
    y_first: bool = False  # each pair is y, x

    def units(self, view: View) -> tuple[float, float]:
        """How wide and high the model's input is in this convention."""
        if self.side is not None:
            return self.side, self.side
        if view.input is None:
            raise UserError(f"boxes of the convention {self.name} count the input's pixels, and its size is not known")
        return float(view.input[0]), float(view.input[1])


CONVENTIONS: dict[str, Convention] = {
    convention.name: convention
    for convention in (
        Convention("llava-normalised", _BRACKETS, 1),  # [x0, y0, x1, y1] from 0 to 1 of the square that is seen
        Convention("qwen-pixels-json", _BRACKETS, None),  # JSON, bbox_2d in pixels of the resized picture
        # (x0,y0),(x1,y1) from 0 to 1000 of the picture (Qwen2-VL), or JSON, bbox_2d and point_2d (Qwen3-VL)
        Convention("qwen-1000", _PAIRS, 1000),
        Convention("internvl-1000", _BRACKETS, 1000),  # <box>[[x0, y0, x1, y1]]</box> from 0 to 1000
        Convention(
            "glm-1000", (_ANY_FOUR, _BARE, _TWO), 1000
        ),  # <|begin_of_box|>[[x0,y0,x1,y1]]<|end_of_box|>, or other brackets
        Convention("gemma-1000-yx", _BRACKETS, 1000, True),  # JSON, box_2d as y0, x0, y1, x1 from 0 to 1000
        Convention("paligemma-loc", (_TOKENS,), 1024, True),  # <loc> tokens y0 x0 y1 x1, 1024 to a side
        Convention("molmo-points", (_ATTRIBUTES,), 100),  # points, <point x="" y=""> in per cent of the picture
        Convention(
            "molmo2-points", (_NUMBERED,), 1000
        ),  # coords="1 1 412 087": picture, then number, x, y of each point
        Convention("plm-1000", _BRACKETS, 1000),  # [040, 482, 112, 576], the digits behind "0."
        Convention("canvas", (_BARE,), None),  # x0 y0 x1 y1 in pixels of the miniature's input
    )
}


ROUNDING = 0.02
"""By this share of a side a coordinate may lie beyond the edge, and is moved there: models round."""

_MOST = 200
"""Groups of numbers that are read; a model that says more repeats itself."""


@dataclass(frozen=True, slots=True)
class Place:
    """A box or a point, in pixels of the picture: ``x0, y0, x1, y1`` or ``x, y``."""

    numbers: tuple[float, ...]

    @property
    def box(self) -> Box | None:
        return self.numbers if len(self.numbers) == 4 else None

    @property
    def point(self) -> Point | None:
        return self.numbers if len(self.numbers) == 2 else None

    def overlap(self, gold: Box) -> float | None:
        """Intersection over union with the gold box; None for a point."""
        return None if self.box is None else iou(self.box, gold)

    def hits(self, gold: Box) -> bool:
        """Whether a box overlaps the gold one by at least a half, or a point lies inside it."""
        if self.box is not None:
            return iou(self.box, gold) >= 0.5
        x, y = self.numbers
        return gold[0] <= x < gold[2] and gold[1] <= y < gold[3]


@dataclass(frozen=True, slots=True)
class Located:
    """What an answer says: places in its order, of which the first counts, and a line for each that can't be read."""

    places: tuple[Place, ...]
    problems: tuple[str, ...]

    @property
    def first(self) -> Place | None:
        return self.places[0] if self.places else None


def locate(raw: str, convention: Convention, view: View) -> Located:
    """Read an answer. It never raises because of ``raw``; a convention that counts pixels needs a view that knows them.

    Args:
        raw: what the model said.
        convention: of its family.
        view: what it saw of the picture.
    """
    units = convention.units(view)
    matches = (list(islice(pattern.finditer(raw), _MOST)) for pattern in convention.patterns)
    # Of an odd number of groups the first is the number that a point's attributes bear.
    groups = [match.groups()[match.re.groups % 2 :] for match in next(filter(None, matches), [])]
    if not groups:
        return Located((), ("no box and no point in the answer",))
    places: dict[Place, None] = {}
    problems: dict[str, None] = {}
    for numbers in (tuple(map(float, group)) for group in groups):
        pairs = [pair[::-1] if convention.y_first else pair for pair in zip(numbers[::2], numbers[1::2], strict=True)]
        inside = [[min(max(value, 0.0), side) for value, side in zip(pair, units, strict=True)] for pair in pairs]
        problem = _problem(pairs, inside, units)
        if problem is None:
            places[Place(tuple(edge for x, y in inside for edge in view.to_picture(x, y, units)))] = None
        else:
            problems[problem] = None
    return Located(tuple(places), tuple(problems))


def _problem(pairs: Sequence[Sequence[float]], inside: Sequence[Sequence[float]], units: Point) -> str | None:
    """What is wrong with the corners of a box, or with a point, as they are said and as they are moved inside."""
    for axis, side in enumerate(units):
        name, values = "xy"[axis], [pair[axis] for pair in pairs]
        wrong = [value for value in values if not -ROUNDING * side <= value <= (1 + ROUNDING) * side]
        if wrong:
            return f"out of range: {name} is {wrong[0]:g}, and goes from 0 to {side:g}"
        if values[0] > values[-1]:
            return f"inverted: {name}0 is {values[0]:g} and {name}1 is {values[-1]:g}"
        if len(pairs) == 2 and inside[0][axis] == inside[1][axis]:
            return f"no area: {name}0 and {name}1 are {values[0]:g}"
    return None


CONVENTION, VIEW = "convention", "view"
"""Labels in the groups of a row, which say how its answer is to be read."""


def judge(raw: str, gold: str, convention: str, view: str, where: str = "row") -> Scored:
    """Score an answer: right at an IoU of .5, or for a point inside the gold box; partial: the IoU, 0 if unreadable.

    Args:
        raw: what the model said.
        gold: ``x0 y0 x1 y1`` in pixels of the picture.
        convention: name of the model's convention.
        view: what the model saw of the picture, as `View` writes it.
        where: of the row, for messages.
    """
    one_of(convention, CONVENTIONS, where, "convention of boxes")
    box = spelt(gold)
    place = locate(raw, CONVENTIONS[convention], View.parse(view)).first
    if place is None:
        return Scored(None, 0.0, False, partial=0.0)
    return Scored(shown(place.numbers), float(place.hits(box)), True, partial=place.overlap(box))
