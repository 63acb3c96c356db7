"""How families of models write boxes and points: as data."""

from collections.abc import Callable
from dataclasses import dataclass

from blindspot.benchmarks.boxes import reading
from blindspot.benchmarks.boxes.geometry import View
from blindspot.errors import UserError


@dataclass(frozen=True)
class Convention:
    """A way to say where something is.

    Attributes:
        name: what models and rows of answers name it by.
        about: for people.
        read: the groups of four (a box) or two (a point) numbers in an answer, in the order in which they are written.
        side: what the input's right and lower edge are called; None: as many as it has pixels.
        y_first: each pair is y, x.
    """

    name: str
    about: str
    read: Callable[[str], list[reading.Numbers]]
    side: float | None
    y_first: bool = False

    def units(self, view: View) -> tuple[float, float]:
        """How wide and high the model's input is in this convention.

        Raises:
            UserError: if it counts pixels and the view does not say how many there are.
        """
        if self.side is not None:
            return self.side, self.side
        if view.input is None:
            raise UserError(f"boxes of the convention {self.name} count the input's pixels, and its size is not known")
        return float(view.input[0]), float(view.input[1])


CONVENTIONS: dict[str, Convention] = {
    convention.name: convention
    for convention in (
        Convention("llava-normalised", "[x0, y0, x1, y1] from 0 to 1 of the square that is seen", reading.brackets, 1),
        Convention("qwen-pixels-json", "JSON, bbox_2d in pixels of the resized picture", reading.brackets, None),
        Convention("qwen-1000", "(x0,y0),(x1,y1) from 0 to 1000 of the picture (Qwen2-VL)", reading.corners, 1000),
        Convention("gemma-1000-yx", "JSON, box_2d as y0, x0, y1, x1 from 0 to 1000", reading.brackets, 1000, True),
        Convention("paligemma-loc", "<loc> tokens y0 x0 y1 x1, 1024 to a side", reading.tokens, 1024, True),
        Convention("molmo-points", 'points, <point x="" y=""> in per cent of the picture', reading.attributes, 100),
        Convention("canvas", "x0 y0 x1 y1 in pixels of the miniature's input", reading.bare, None),
    )
}
"""By name."""
