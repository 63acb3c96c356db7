"""From a raw answer to places in a picture, and what is wrong with it. Never raises because of an answer."""

from dataclasses import dataclass

from blindspot.benchmarks.boxes.conventions import Convention
from blindspot.benchmarks.boxes.geometry import Box, Point, View, iou
from blindspot.benchmarks.boxes.reading import Numbers

ROUNDING = 0.02
"""By this share of a side a coordinate may lie beyond the edge, and is moved there: models round."""

_HALF = 0.5


@dataclass(frozen=True, slots=True)
class Place:
    """A box or a point, in pixels of the picture.

    Attributes:
        numbers: ``x0, y0, x1, y1`` or ``x, y``.
    """

    numbers: Numbers

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
            return iou(self.box, gold) >= _HALF
        x, y = self.numbers
        return gold[0] <= x < gold[2] and gold[1] <= y < gold[3]


@dataclass(frozen=True, slots=True)
class Located:
    """What an answer says.

    Attributes:
        places: those that can be read, in the order of the answer. The first one is the answer.
        problems: one line for each that cannot, or for the whole answer.
    """

    places: tuple[Place, ...]
    problems: tuple[str, ...]

    @property
    def first(self) -> Place | None:
        return self.places[0] if self.places else None


def locate(raw: str, convention: Convention, view: View) -> Located:
    """Read an answer.

    Args:
        raw: what the model said.
        convention: of its family.
        view: what it saw of the picture.

    Raises:
        UserError: if the convention counts pixels that the view does not know; never because of ``raw``.
    """
    units = convention.units(view)
    groups = convention.read(raw)
    if not groups:
        return Located((), ("no box and no point in the answer",))
    places: dict[Place, None] = {}
    problems: dict[str, None] = {}
    for numbers in groups:
        pairs = [pair[::-1] if convention.y_first else pair for pair in zip(numbers[::2], numbers[1::2], strict=True)]
        problem = _problem(pairs, units)
        if problem is None:
            places[Place(_mapped(pairs, view, units))] = None
        else:
            problems[problem] = None
    return Located(tuple(places), tuple(problems))


def _problem(pairs: list[tuple[float, ...]], units: tuple[float, float]) -> str | None:
    for axis, side in enumerate(units):
        values = [pair[axis] for pair in pairs]
        wrong = [value for value in values if not -ROUNDING * side <= value <= (1 + ROUNDING) * side]
        if wrong:
            return f"out of range: {'xy'[axis]} is {wrong[0]:g}, and goes from 0 to {side:g}"
        if values[0] > values[-1]:
            return f"inverted: {'xy'[axis]}0 is {values[0]:g} and {'xy'[axis]}1 is {values[-1]:g}"
        inside = [min(max(value, 0.0), side) for value in values]
        if len(pairs) == 2 and inside[0] == inside[1]:
            return f"no area: {'xy'[axis]}0 and {'xy'[axis]}1 are {values[0]:g}"
    return None


def _mapped(pairs: list[tuple[float, ...]], view: View, units: tuple[float, float]) -> Numbers:
    inside = ([min(max(value, 0.0), side) for value, side in zip(pair, units, strict=True)] for pair in pairs)
    return tuple(number for x, y in inside for number in view.to_picture(x, y, units))
