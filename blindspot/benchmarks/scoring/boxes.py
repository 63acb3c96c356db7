"""The score of an answer that is a box: right if it overlaps the gold one by half."""

from blindspot.benchmarks.boxes.conventions import CONVENTIONS
from blindspot.benchmarks.boxes.geometry import View, shown, spelt
from blindspot.benchmarks.boxes.located import locate
from blindspot.benchmarks.scoring.base import Scored
from blindspot.benchmarks.scoring.rows import Item
from blindspot.errors import one_of

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

    Raises:
        UserError: if the gold box, the convention or the view is malformed.
    """
    one_of(convention, CONVENTIONS, where, "convention of boxes")
    box = spelt(gold)
    place = locate(raw, CONVENTIONS[convention], View.parse(view)).first
    if place is None:
        return Scored(None, 0.0, False, partial=0.0)
    return Scored(shown(place.numbers), float(place.hits(box)), True, partial=place.overlap(box))


def boxes(item: Item) -> Scored:
    """The same in every profile but ``likelihood``."""
    return judge(item.raw, item.gold, *item.seen, item.where)
