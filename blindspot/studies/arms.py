"""The arms of a study: points in the space of axes, each with a name."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from blindspot.connectors import ConnectorSpec, output_grid
from blindspot.errors import UserError
from blindspot.studies.axes import (
    CAPTIONS,
    CONNECTORS,
    ENCODER_POSITIONS,
    FAMILIES,
    LANGUAGE_POSITIONS,
    OBJECTIVES,
    READ_CAPTIONS,
    WITH_CLS,
    WITHOUT_GRID,
    Choice,
)
from blindspot.studies.nearest import suggest
from blindspot.studies.spec import AXES, Study

REPLICATE = "replicate"
REPLICATE_SEED_OFFSET = 1000
FOLLOWERS = {"family": ("objective",), "positions": ("pretrained_with", "evaluate_with")}
"""Axes that by default are where another one is."""
_PAPER = {"learned": "", "axial": "-2D-RoPE"}
_BLOCKS = {"learned": "1-D: learned absolute positions", "axial": "2-D: rotary positions (2D-RoPE)"}


@dataclass(frozen=True)
class Point:
    """Where an arm stands on every axis; `Axes` says what they are. ``captions`` is None where nothing reads them."""

    family: str
    objective: str
    captions: str | None
    positions: Choice
    pretrained_with: Choice
    language_positions: Choice
    connector: Choice
    encoder_training: str
    drop_first_patch: bool
    evaluate_with: Choice

    def plain(self) -> dict[str, Any]:
        """Names of the values, for ``plan.json``."""
        values = {axis: getattr(self, axis) for axis in AXES}
        return {axis: value.name if isinstance(value, Choice) else value for axis, value in values.items()}


@dataclass(frozen=True)
class Arm:
    """One named configuration.

    Attributes:
        id: in commands and folder names.
        label: how tables write it; the paper's own where the paper has it.
        point: where it stands.
        block: heading of its rows in tables.
        panel: of two crossed axes the first one's value, which has a panel and a colour in figures; else empty.
        marker: of two crossed axes the second one's value, which has a mark in figures; else empty.
        baseline: whether that value is one that others are compared with, drawn with open marks.
        varied: the axes that the study crosses.
        replicate_of: the arm that it repeats with other seeds.
    """

    id: str
    label: str
    point: Point
    block: str = ""
    panel: str = ""
    marker: str = ""
    baseline: bool = False
    varied: tuple[str, ...] = ()
    replicate_of: str | None = None

    def training_seed(self, seed: int) -> int:
        """The seed that this arm's training draws from in run ``seed`` of the study."""
        return seed + REPLICATE_SEED_OFFSET if self.replicate_of else seed


def expand_arms(study: Study) -> list[Arm]:
    """Crossed arms, named arms, then the replicate if the study has one. Arms that are the same come once.

    Raises:
        UserError: if an arm cannot be, two have one name, or a named one is another one's double.
    """
    arms: dict[Point, Arm] = {}
    for arm in _crossed(study):
        arms.setdefault(arm.point, arm)
    for named in study.arms.named:
        point = resolve(study, {**study.arms.base.given, **named.given})
        if point in arms:
            raise UserError(f'"{named.id}" is the same as "{arms[point].id}"; remove one or change an axis')
        arms[point] = Arm(named.id, named.label, point, named.group)
    found = list(arms.values())
    for arm in found:
        _check(study, arm)
    names = [arm.id for arm in found]
    for name in (*names, REPLICATE):
        if [*names, REPLICATE].count(name) > 1:
            raise UserError(f'two arms are called "{name}"; rename one')
    return [*found, *_replicate(study, found)]


def resolve(study: Study, given: dict[str, Any]) -> Point:
    """The point where the axes that are not ``given`` take their defaults.

    Raises:
        UserError: if no family is given.
    """
    if "family" not in given:
        raise UserError(f"family: missing; give it under base (one of: {', '.join(FAMILIES)})")
    positions = given.get("positions", ENCODER_POSITIONS["learned"])
    defaults: dict[str, Any] = {
        "objective": given["family"],
        "captions": study.encoder.captions,
        "positions": positions,
        "pretrained_with": positions,
        "language_positions": LANGUAGE_POSITIONS["rope1d"],
        "connector": CONNECTORS["mlp"],
        "encoder_training": study.instruct.encoder,
        "drop_first_patch": False,
        "evaluate_with": positions,
    }
    return _settled(study, Point(**{**defaults, **given}))


def moved(study: Study, point: Point, axis: str, value: Any) -> Point:
    """``point`` with one axis at another value, and with it the axes that were following it."""
    value = point.positions if value == "same" else value
    followers = [name for name in FOLLOWERS.get(axis, ()) if getattr(point, name) == getattr(point, axis)]
    return _settled(study, replace(point, **dict.fromkeys([axis, *followers], value)))


def value_label(axis: str, value: Any) -> str:
    """How tables and sentences write where an arm stands on an axis."""
    match axis:
        case "family":
            return FAMILIES[value]
        case "objective":
            return OBJECTIVES[value]
        case "captions":
            return CAPTIONS[value] if value else "no captions"
        case "pretrained_with":
            return f"pretrained with {value.label}"
        case "evaluate_with":
            return f"evaluated with {value.label}"
        case "encoder_training":
            return f"encoder {value}"
        case "drop_first_patch":
            return "first patch dropped" if value else "all patches"
        case _:
            return value.label


def compose_label(point: Point, axes: Sequence[str]) -> str:
    """A label from the values on ``axes``; those that go without saying are left out unless they are all there is."""
    parts: list[str] = []
    if "family" in axes:
        paper = _PAPER.get(point.positions.name) if "positions" in axes else ""
        parts.append(f"LLaVA-{FAMILIES[point.family]}{paper or ''}")
        axes = [axis for axis in axes if axis != "family" and not (axis == "positions" and paper is not None)]
    parts += [value_label(axis, getattr(point, axis)) for axis in axes if not _goes_without_saying(point, axis)]
    return ", ".join(parts) or ", ".join(value_label(axis, getattr(point, axis)) for axis in axes[:1])


def describe_arms(study: Study) -> list[dict[str, Any]]:
    """The arms as plain values, for ``plan.json``."""
    keys = ("id", "label", "block", "panel", "marker", "baseline", "replicate_of")
    return [{**{key: getattr(arm, key) for key in keys}, "axes": arm.point.plain()} for arm in expand_arms(study)]


def _crossed(study: Study) -> Iterator[Arm]:
    crosses = study.arms.crosses
    axes = tuple(axis for axis in AXES if any(axis in cross.given for cross in crosses))
    paired = len(axes) == 2 and not study.arms.named and not any(cross.group for cross in crosses)
    for cross in crosses:
        for values in product(*cross.given.values()):
            given = {**study.arms.base.given, **dict(zip(cross.given, values, strict=True))}
            point = resolve(study, given)
            names = [getattr(point, axis) for axis in axes]
            arm = Arm(
                "-".join(str(name).lower() for name in names if name is not None),
                compose_label(point, axes),
                point,
                cross.group,
                varied=axes,
            )
            yield _paired(study, arm) if paired else arm


def _paired(study: Study, arm: Arm) -> Arm:
    first, second = arm.varied
    value = getattr(arm.point, second)
    marker = value_label(second, value)
    return replace(
        arm,
        block=_BLOCKS.get(value.name, marker) if second == "positions" else marker[:1].upper() + marker[1:],
        panel=value_label(first, getattr(arm.point, first)),
        marker=marker,
        baseline=value in study.arms.baselines.get(second, []),
    )


def _replicate(study: Study, arms: list[Arm]) -> list[Arm]:
    wanted = study.arms.replicate
    if wanted is None:
        return []
    for arm in arms:
        if arm.id == wanted.of:
            label = wanted.label or f"{arm.label} (replicate)"
            return [replace(arm, id=REPLICATE, label=label, replicate_of=arm.id)]
    hint = suggest(wanted.of, [arm.id for arm in arms])
    raise UserError(f'replicate "{wanted.of}": not an arm of this study; {hint}')


def _settled(study: Study, point: Point) -> Point:
    reads = point.objective in READ_CAPTIONS
    return replace(point, captions=(point.captions or study.encoder.captions) if reads else None)


def _goes_without_saying(point: Point, axis: str) -> bool:
    value = getattr(point, axis)
    defaults = {"language_positions": LANGUAGE_POSITIONS["rope1d"], "connector": CONNECTORS["mlp"]}
    followed = {"pretrained_with": point.positions, "evaluate_with": point.positions, "drop_first_patch": False}
    return value is None or value == {**defaults, **followed}.get(axis)


def _check(study: Study, arm: Arm) -> None:
    point, model = arm.point, study.model
    if point.family == "dinov2" and model.mlp % model.width:
        raise UserError(f'"{arm.id}": a dinov2 tower needs model.mlp {model.mlp} to be a multiple of its width')
    if point.drop_first_patch and point.family in WITH_CLS:
        raise UserError(f'"{arm.id}": {point.family} has a CLS token to drop; drop_first_patch is for the others')
    if point.encoder_training == "trained" and point.positions.values.get("table") == "released":
        raise UserError(f'"{arm.id}": the table "released" belongs to a frozen encoder; set encoder_training to frozen')
    side = model.image // model.patch
    ordered = output_grid(ConnectorSpec.from_dict(point.connector.values), (side, side))
    scheme = point.language_positions.values["scheme"]
    if (ordered is None or point.drop_first_patch) and scheme not in WITHOUT_GRID:
        raise UserError(
            f'"{arm.id}": language positions {scheme} need image tokens in rows and columns, and its connector leaves '
            f"none; one of: {', '.join(sorted(WITHOUT_GRID))}"
        )
