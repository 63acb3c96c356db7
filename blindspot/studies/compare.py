"""Which arms a study compares, what moves between two arms, in words, and whether a comparison is controlled."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from rich.table import Table
from rich.text import Text

from blindspot.studies.arms import STAGES, Arm, compose_label, expand_arms, moved
from blindspot.studies.schema import AXES, LlavaStage, Study
from blindspot.terminal import listing

_KINDS = {
    "size of the encoder": ("width", "layers"),
    "resolution": ("image side", "patch side"),
    "preparation of pictures": ("resizing", "normalisation"),
}
"""What words about two encoders' differences begin with; the other words are about their architecture."""
_SAME_IN_A_MINIATURE = ("resizing of pictures", "aspect ratio")
"""Of released checkpoints; in a miniature every family gets the same square picture."""
_SAID_BY_GRIDS = ("patch tokens", "grid of the position table")
_OF_THE_ENCODER = ("family", "encoder", "image_size", "patch_size")
"""Axes that `_encoders_apart` puts into words."""


@dataclass(frozen=True)
class Comparison:
    """Arm ``a`` against arm ``b``, by their labels.

    ``tested`` says whether the study's tables test the difference or only show the two side by side, ``moves`` what
    differs, one entry an axis, and ``seed_only`` that the two are one configuration with other seeds.
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


def compared_pairs(study: Study) -> list[dict[str, Any]]:
    """Pairs of arms ``a`` against ``b``: on one axis ``b`` is at a baseline of the study and elsewhere they are alike,
    or ``a`` says that it is compared with ``b``.

    ``kind`` is the axis (with the baseline, where an axis has several): one family of tests. ``first`` and ``second``
    say in words what the sides are. Last comes the replicate against its twin, which differ in their seeds alone.
    """
    arms = {arm.id: arm for arm in expand_arms(study)}
    at = {arm.point: arm for arm in arms.values() if not arm.replicate_of}
    pairs: list[dict[str, Any]] = []
    seen: set[frozenset[str]] = set()

    def add(a: Arm, b: Arm, label: str, kind: str, first: str, second: str) -> None:
        pairs.append({"a": a.id, "b": b.id, "label": label, "kind": kind, "first": first, "second": second})

    for axis, baselines in study.arms.baselines.items():
        for value in baselines:
            found = [(arm, at.get(moved(study, arm.point, axis, value))) for arm in at.values()]
            sides = [(a, b) for a, b in found if b and a != b and frozenset((a.id, b.id)) not in seen]
            seen |= {frozenset((a.id, b.id)) for a, b in sides}
            said = AXES[axis]
            values = {said.label(getattr(a.point, axis)) for a, _ in sides}
            kind = axis if len(baselines) == 1 else f"{axis} against {value}"
            first = next(iter(values)) if len(values) == 1 else "pretraining" if value == "none" else said.others
            second = said.same if value == "same" else said.label(value)
            for a, b in sides:
                add(a, b, _label(a, b, axis, len(values) == 1), kind, first, second)
    named = [(arm, arms[other]) for arm in arms.values() for other in arm.against]
    apart = [_axes_apart(arm, other) for arm, other in named]
    kinds = [axes[0] if len(axes) == 1 else "several axes" for axes in apart]
    words: dict[str, list[str]] = {}
    for kind in dict.fromkeys(kinds):
        sides = zip(*(pair for pair, own in zip(named, kinds, strict=True) if own == kind), strict=True)
        both = zip(sides, ("the first arm", "the second"), strict=True)
        words[kind] = [_shared(kind, side) or word for side, word in both]
    for (arm, other), kind in zip(named, kinds, strict=True):
        add(arm, other, f"{arm.label} against {other.label}", kind, *words[kind])
    for arm in arms.values():
        if arm.replicate_of:
            twin = arms[arm.replicate_of]
            label = f"{twin.label.removeprefix('LLaVA-')}, other seed"
            add(arm, twin, label, "replicate", "the replicate", "the original")
    return pairs


def _shared(axis: str, arms: Sequence[Arm]) -> str:
    """Where all of some arms stand on an axis, in words; empty if it is none."""
    labels = {AXES[axis].label(getattr(arm.point, axis)) for arm in arms} if axis in AXES else {""}
    return labels.pop() if len(labels) == 1 else AXES[axis].others


def _label(a: Arm, b: Arm, axis: str, alike: bool) -> str:
    if not a.varied or not b.varied:
        return f"{a.label} against {b.label}"
    axes = [name for name in a.varied if name != axis or not alike]
    return compose_label(a.point, axes).removeprefix("LLaVA-") if axes else a.label


def compare_arms(study: Study) -> list[Comparison]:
    """Every pair that a study tests, then pairs of encoders that its tables only show side by side: the first two arms
    of every two encoders that stand alike on all axes that do not follow the encoder.

    Imports torch where arms have different encoders.
    """
    arms = {arm.id: arm for arm in expand_arms(study)}
    found: list[Comparison] = []
    for pair in compared_pairs(study):
        a, b = arms[pair["a"]], arms[pair["b"]]
        seed_only = pair["kind"] == "replicate"
        found.append(Comparison(a.label, b.label, True, () if seed_only else moves(a, b), seed_only))
    tested, seen = {frozenset((one.a, one.b)) for one in found}, set[frozenset[str]]()
    loose = {*_OF_THE_ENCODER, "objective", "captions"}
    for a, b in combinations([arm for arm in arms.values() if not arm.replicate_of], 2):
        encoders = frozenset((a.point.family or a.point.encoder, b.point.family or b.point.encoder))
        if len(encoders) == 2 and encoders not in seen and loose.issuperset(_axes_apart(a, b)):
            seen.add(encoders)
            if frozenset((a.label, b.label)) not in tested:
                found.append(Comparison(a.label, b.label, False, moves(a, b)))
    return found


def moves(a: Arm, b: Arm) -> tuple[str, ...]:
    """What differs between two arms, one entry an axis.

    An axis that follows another by default (positions in pretraining follow the encoder's) counts with it, except for
    the objective: architecture and objective of a family are two things. Positions at evaluation count where they are
    not those of training in one arm alone, or others in both.
    """
    found = list(_encoders_apart(a, b))
    for axis in _axes_apart(a, b):
        if axis == "stages":
            for number, name in enumerate(STAGES, start=1):
                for key in LlavaStage.model_fields if name in a.own_stages and name in b.own_stages else ():
                    values = [getattr(arm.stages[name], key) for arm in (a, b)]
                    if values[0] != values[1]:
                        found.append(f"{key} of stage {number}: {_plain(values[0])} against {_plain(values[1])}")
        elif axis not in _OF_THE_ENCODER:
            said = [_say(axis, arm) for arm in (a, b)]
            with_it = axis == "positions" and _follow(a, b, "pretrained_with") and a.point.pretrained_with is not None
            found.append(f"{AXES[axis].moves}: {said[0]} against {said[1]}{', in pretraining too' * with_it}")
    return tuple(found)


def _say(axis: str, arm: Arm) -> str:
    value = getattr(arm.point, axis)
    if axis == "evaluate_with":
        return "as trained" if value == arm.point.positions else f"{value.label} instead"
    if value is None:
        return "its own"
    return value.label if AXES[axis].same else AXES[axis].label(value)


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return " + ".join(value)
    return str(getattr(value, "name", value) or getattr(value, "file", "its own"))


def as_table(comparisons: Sequence[Comparison]) -> Table:
    """The comparisons for the terminal: pairs that are tested, then those only shown side by side."""
    table = listing("pair", "what moves", "verdict", padding=(0, 2, 1, 0))
    for number, one in enumerate(comparisons):
        if not one.tested and (number == 0 or comparisons[number - 1].tested):
            table.add_row(Text("Side by side in the tables, but not tested:", style="italic"), "", "")
        style = "green" if one.controlled else "" if one.seed_only else "yellow"
        table.add_row(Text(f"{one.a} against {one.b}"), Text("\n".join(one.moves)), Text(one.verdict, style=style))
    return table


def _axes_apart(a: Arm, b: Arm) -> list[str]:
    """The axes on which two arms differ, those left out that only follow another one."""
    apart = []
    for axis, said in AXES.items():
        first, second = getattr(a.point, axis), getattr(b.point, axis)
        if axis == "evaluate_with":
            trained = [arm.point.evaluate_with == arm.point.positions for arm in (a, b)]
            differ = trained[0] != trained[1] or (not trained[0] and first != second)
        elif axis == "connector_from":
            differ = (first or second) is not None and (first or a.id) != (second or b.id)
        elif axis == "captions":
            differ = first != second and None not in (first, second)
        else:
            differ = first != second and not (said.same and _follow(a, b, axis))
        apart += [axis] if differ else []
    return apart


def _follow(a: Arm, b: Arm, axis: str) -> bool:
    """Whether both stand on ``axis`` where they stand on the axis that it follows, and not in the same place."""
    points = (a.point, b.point)
    alike = all(getattr(point, axis) == getattr(point, AXES[axis].follows) for point in points)
    return alike and getattr(a.point, axis) != getattr(b.point, axis)


def _encoders_apart(a: Arm, b: Arm) -> Iterator[str]:
    """Apart: weights, architecture, size, resolution, tokens and preparation, since each may move the result."""
    if a.point.encoder != b.point.encoder:
        yield f"{AXES['encoder'].moves}: {a.point.encoder} against {b.point.encoder}"
    named: dict[str, list[str]] = {"architecture": [], **{name: [] for name in _KINDS}}
    for text in _tower_words(a, b):
        kind = next((name for name, starts in _KINDS.items() if text.startswith(starts)), "architecture")
        if not text.startswith(_SAID_BY_GRIDS):
            named[kind].append(text)
    yield from (f"{name}: {'; '.join(texts)}" for name, texts in named.items() if texts)
    if a.grid != b.grid:
        yield f"patch tokens: {a.grid[0]} x {a.grid[1]} against {b.grid[0]} x {b.grid[1]}"


def _tower_words(a: Arm, b: Arm) -> list[str]:
    """What differs between two arms' encoders, architecture first."""
    if all(getattr(a.point, axis) == getattr(b.point, axis) for axis in _OF_THE_ENCODER):
        return []
    from blindspot.encoders import ENCODERS, TowerShape
    from blindspot.encoders.catalogue import describe, difference

    towers: list[dict[str, Any]] = []
    for arm in (a, b):
        if arm.point.family:
            size, sides = arm.study.model, arm.sizes
            shape = TowerShape(size.width, size.encoder_layers, size.heads, size.mlp, sides["image"], sides["patch"])
            family = ENCODERS[arm.point.family]
            towers.append(describe(family, family.vision_config(shape), sides["image"]))
            continue
        family = ENCODERS[arm.encoder_size.family]
        released = next((one for one in family.checkpoints if one.id == arm.point.encoder), None)
        if released is None:  # a folder of the user's own: its sizes say enough
            sides = (a.point.image_size, b.point.image_size)
            return [f"image side in pixels: {sides[0]} against {sides[1]}"] if sides[0] != sides[1] else []
        towers.append(describe(family, released.config(), arm.point.image_size))
    classes = [tower["transformers_class"] for tower in towers]
    words = [f"{classes[0]} against {classes[1]}"] if classes[0] != classes[1] else []
    left_out = _SAME_IN_A_MINIATURE if a.point.family else ()
    return words + [text for text in difference(*towers) if not text.startswith(left_out)]
