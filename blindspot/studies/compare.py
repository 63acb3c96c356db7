"""What moves between two arms of a study, in words, and whether a comparison of them is controlled."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from blindspot.studies.arms import FOLLOWERS, Arm, Point, expand_arms, value_label
from blindspot.studies.axes import NAMES
from blindspot.studies.loading import load_study
from blindspot.studies.pairs import compared_pairs
from blindspot.studies.spec import AXES, Study

_SAME_IN_A_STUDY = ("resizing of pictures", "aspect ratio")
"""Of released checkpoints; in a study every family gets the same square picture."""
_PIXELS = "normalisation of pixels"


@dataclass(frozen=True)
class Comparison:
    """Arm ``a`` against arm ``b``.

    Attributes:
        a: label of the first arm.
        b: label of the second.
        tested: whether the study's tables test the difference; if not, they only show the two side by side.
        moves: what differs, one entry an axis: ``axis: a against b``.
        seed_only: the two are one configuration with other seeds.
    """

    a: str
    b: str
    tested: bool
    moves: tuple[str, ...]
    seed_only: bool = False

    @property
    def controlled(self) -> bool:
        """Whether exactly one thing moves, so that it alone can have made a difference beyond noise."""
        return len(self.moves) == 1 and not self.seed_only

    @property
    def verdict(self) -> str:
        """``controlled``, or how many axes move together."""
        if self.seed_only:
            return "replicate: only the seed moves"
        return "controlled" if self.controlled else f"not controlled: {len(self.moves)} axes move together"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for ``--json``."""
        return {**asdict(self), "moves": list(self.moves), "controlled": self.controlled, "verdict": self.verdict}


def compare_arms(name_or_path: str | Path) -> list[Comparison]:
    """Every pair that a study tests, then pairs of families that its tables show side by side.

    Raises:
        UserError: if the study cannot be read.
    """
    study = load_study(name_or_path)
    arms = {arm.id: arm for arm in expand_arms(study)}
    found: list[Comparison] = []
    for pair in compared_pairs(study):
        a, b = arms[pair["a"]], arms[pair["b"]]
        seed_only = pair["kind"] == "replicate"
        found.append(Comparison(a.label, b.label, True, () if seed_only else moves(study, a.point, b.point), seed_only))
    return found + [Comparison(a.label, b.label, False, moves(study, a.point, b.point)) for a, b in _families(arms)]


def moves(study: Study, a: Point, b: Point) -> tuple[str, ...]:
    """What differs between two points, one entry an axis.

    An axis that follows another by default (positions in pretraining and at evaluation follow the encoder's) counts
    with it, except for the objective: architecture and objective of a family are two things.
    """
    found = _architecture(study, a.family, b.family) if a.family != b.family else []
    for axis in AXES[1:]:
        first, second = getattr(a, axis), getattr(b, axis)
        read = axis != "captions" or (first is not None and second is not None)
        if first != second and read and not _follows(a, b, axis):
            found.append(f"{NAMES[axis]}: {_short(axis, first)} against {_short(axis, second)}{_with_it(a, b, axis)}")
    return tuple(found)


def as_table(comparisons: Sequence[Comparison]) -> Table:
    """The comparisons for the terminal: pairs that are tested, then those only shown side by side."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0))
    for title in ("pair", "what moves", "verdict"):
        table.add_column(title, overflow="fold")
    for number, one in enumerate(comparisons):
        if not one.tested and (number == 0 or comparisons[number - 1].tested):
            table.add_row(Text("Side by side in the tables, but not tested:", style="italic"), "", "")
        style = "green" if one.controlled else "" if one.seed_only else "yellow"
        table.add_row(Text(f"{one.a} against {one.b}"), Text("\n".join(one.moves)), Text(one.verdict, style=style))
    return table


def _families(arms: dict[str, Arm]) -> list[tuple[Arm, Arm]]:
    """The first two arms of every two families that stand alike on the axes that do not follow the family."""
    pairs: dict[tuple[str, str], tuple[Arm, Arm]] = {}
    crossed = [arm for arm in arms.values() if not arm.replicate_of]
    for a, b in combinations(crossed, 2):
        loose = {"family", "objective", "captions"}
        alike = all(getattr(a.point, axis) == getattr(b.point, axis) for axis in AXES if axis not in loose)
        if a.point.family != b.point.family and alike:
            pairs.setdefault((a.point.family, b.point.family), (a, b))
    return list(pairs.values())


def _architecture(study: Study, a: str, b: str) -> list[str]:
    from blindspot.encoders import ENCODERS, TowerShape
    from blindspot.encoders.catalogue import describe, difference

    sizes = study.model
    shape = TowerShape(sizes.width, sizes.encoder_layers, sizes.heads, sizes.mlp, sizes.image, sizes.patch)
    towers = [describe(ENCODERS[name], ENCODERS[name].vision_config(shape), sizes.image) for name in (a, b)]
    words = [text for text in difference(*towers) if not text.startswith(_SAME_IN_A_STUDY)]
    pixels = [text for text in words if text.startswith(_PIXELS)]
    parts = [text for text in words if text not in pixels]
    classes = [tower["transformers_class"] for tower in towers]
    if classes[0] != classes[1]:
        parts.insert(0, f"{classes[0]} against {classes[1]}")
    return [*([f"architecture: {'; '.join(parts)}"] if parts else []), *pixels]


def _follows(a: Point, b: Point, axis: str) -> bool:
    """Whether both stand on ``axis`` where they stand on the axis that it follows."""
    leaders = [leader for leader, followers in FOLLOWERS.items() if axis in followers and leader != "family"]
    return any(all(getattr(point, leader) == getattr(point, axis) for point in (a, b)) for leader in leaders)


def _with_it(a: Point, b: Point, axis: str) -> str:
    if axis != "positions" or a.pretrained_with == b.pretrained_with:
        return ""
    return ", in pretraining too" if _follows(a, b, "pretrained_with") else ""


def _short(axis: str, value: Any) -> str:
    return value.label if axis in ("pretrained_with", "evaluate_with") else value_label(axis, value)
