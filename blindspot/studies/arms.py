"""The arms of a study: points in the space of axes, each with a name. Of miniatures and of studies of real size."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from math import ceil
from typing import Any

from blindspot.connectors import ConnectorSpec, output_grid, output_tokens
from blindspot.encoders import ENCODERS
from blindspot.errors import UserError, did_you_mean
from blindspot.positions.language import SCHEMES
from blindspot.studies.axes import (
    CONNECTORS,
    ENCODER_POSITIONS,
    FAMILIES,
    LANGUAGE_POSITIONS,
)
from blindspot.studies.schema import AXES, Axes, LlavaStage, Study
from blindspot.studies.sizes import EncoderSize, LanguageSize, encoder_size, language_size
from blindspot.training.objectives import OBJECTIVES

REPLICATE = "replicate"
REPLICATE_SEED_OFFSET = 1000
STAGES = ("connector", "instruct")
STATED = "rows, with_image, text_tokens and supervised_tokens"
FEATURE_LAYER = -2
"""The encoder's layer that is read in models of real size: LLaVA-1.5's, the last block but one."""
_PAPER = {"learned": "", "axial": "-2D-RoPE"}
_BLOCKS = {"learned": "1-D: learned absolute positions", "axial": "2-D: rotary positions (2D-RoPE)"}


@dataclass(frozen=True)
class Arm:
    """One named configuration, nothing left to default.

    Attributes:
        study: whose it is.
        id: in commands and folder names.
        label: how tables write it; the paper's own where the paper has it.
        point: where it stands; an axis that means nothing for it is None.
        block: heading of its rows in tables.
        panel: of two crossed axes the first one's value, which has a panel and a colour in figures; else empty.
        marker: of two crossed axes the second one's value, which has a mark in figures; else empty.
        baseline: whether that value is one that others are compared with, drawn with open marks.
        varied: the axes that the study crosses.
        against: arms that it is compared with, whatever else moves.
        replicate_of: the arm that it repeats with other seeds.
    """

    study: Study = field(repr=False, compare=False)
    id: str
    label: str
    point: Axes
    block: str = ""
    panel: str = ""
    marker: str = ""
    baseline: bool = False
    varied: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    replicate_of: str | None = None

    def training_seed(self, seed: int) -> int:
        """The seed that this arm's training draws from in run ``seed`` of the study."""
        return seed + REPLICATE_SEED_OFFSET if self.replicate_of else seed

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those of all its runs."""
        return tuple(map(self.training_seed, range(self.study.seeds)))

    @cached_property
    def stages(self) -> dict[str, LlavaStage]:
        """How an arm of real size trains, by name in the order of `STAGES`."""
        found: dict[str, LlavaStage] = {}
        for name in STAGES:
            stage, changes = getattr(self.study, name), self.point.stages.of(name) if self.point.stages else {}
            if "encoder" not in changes.get("trains", stage.trains) and "encoder_lr" not in changes:
                changes = {**changes, "encoder_lr": None}
            found[name] = stage.model_copy(update=changes)
        return found

    @property
    def own_stages(self) -> dict[str, LlavaStage]:
        """The stages that it runs itself."""
        passed = "connector" if self.point.connector_from else None
        return {name: stage for name, stage in self.stages.items() if name != passed}

    @cached_property
    def encoder_size(self) -> EncoderSize:
        """Sizes of its encoder's checkpoint."""
        return encoder_size(self.point.encoder)

    @cached_property
    def language_size(self) -> LanguageSize:
        """Sizes of its language model's checkpoint."""
        return language_size(self.point.language_model)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        if self.study.recipe == "llava":
            return self.encoder_size.grid(self.point.image_size)
        side = self.study.model.image // self.study.model.patch
        return side, side

    @property
    def ordered_grid(self) -> tuple[int, int] | None:
        """Rows and columns of the tokens that an image takes in the language model, None where they have none."""
        if self.point.drop_first_patch:
            return None
        return output_grid(ConnectorSpec.from_dict(self.point.connector.values), self.grid)

    @property
    def image_tokens(self) -> int:
        """Tokens of the language model that an image takes."""
        if self.point.drop_first_patch:
            return self.grid[0] * self.grid[1] - 1
        row_break = self.point.language_positions.values["scheme"] == "row_break"
        breaks = self.ordered_grid[0] if row_break and self.ordered_grid else 0
        return output_tokens(ConnectorSpec.from_dict(self.point.connector.values), self.grid) + breaks


def expand_arms(study: Study) -> list[Arm]:
    """Crossed arms, named arms, then the replicate if the study has one. Crossed arms that are the same come once.

    Raises:
        UserError: if an arm cannot be, two have one name, a named one is another one's double, or one names another
            that does not exist.
    """
    arms: dict[Axes, Arm] = {}
    for arm in _crossed(study):
        arms.setdefault(arm.point, arm)
    found = list(arms.values())
    for named in study.arms.named:
        point = resolve(study, {**study.arms.base.given, **named.given}, named.id)
        if point in arms:
            raise UserError(f'"{named.id}" is the same as "{arms[point].id}"; remove one or change an axis')
        found.append(Arm(study, named.id, named.label, point, named.group, against=tuple(named.against)))
        arms[point] = found[-1]
    names = [arm.id for arm in found]
    for name in (*names, REPLICATE):
        if [*names, REPLICATE].count(name) > 1:
            raise UserError(f'two arms are called "{name}"; rename one')
    for arm in found:
        _check(arm)
        for other in (*arm.against, *filter(None, [arm.point.connector_from])):
            if other not in names or other == arm.id:
                rest = [name for name in names if name != arm.id]
                raise UserError(f'"{arm.id}": "{other}": not another arm of this study; {did_you_mean(other, rest)}')
        if arm.point.connector_from:
            _check_source(arm, found[names.index(arm.point.connector_from)])
    return [*found, *_replicate(study, found)]


def find_arm(study: Study, name: str) -> Arm:
    """One arm by its id.

    Raises:
        UserError: if there is none, naming the nearest.
    """
    arms = {arm.id: arm for arm in expand_arms(study)}
    if name not in arms:
        raise UserError(f'{study.name} has no arm "{name}"; {did_you_mean(name, arms)}')
    return arms[name]


def resolve(study: Study, given: dict[str, Any], name: str = "") -> Axes:
    """The point where the axes that are not ``given`` take their defaults.

    Raises:
        UserError: if an axis is needed and not given, or given and of another recipe.
    """
    of = f'"{name}": ' if name else ""
    for axis in given:
        if AXES[axis].only not in ("", study.recipe):
            raise UserError(f"{of}{axis}: is for the recipe {AXES[axis].only}; this study's is {study.recipe}")
    positions = given.get("positions", ENCODER_POSITIONS["learned"])
    defaults: dict[str, Any] = {
        "positions": positions,
        "language_positions": LANGUAGE_POSITIONS["rope1d"],
        "connector": CONNECTORS["mlp"],
        "drop_first_patch": False,
        "evaluate_with": positions,
    }
    if study.recipe == "llava":
        for axis in ("encoder", "language_model"):
            if axis not in given:
                raise UserError(f"{of}{axis}: missing; give it here or under base")
        defaults["image_size"] = encoder_size(given["encoder"]).image
        return Axes.model_construct(**{**defaults, **given})
    if "family" not in given:
        raise UserError(f"family: missing; give it under base (one of: {', '.join(FAMILIES)})")
    defaults |= {
        "objective": given["family"],
        "captions": study.encoder.captions,
        "pretrained_with": positions,
        "encoder_training": study.encoder_training,
    }
    return _settled(study, {**defaults, **given})


def moved(study: Study, point: Axes, axis: str, value: Any) -> Axes:
    """``point`` with one axis at another value, and with it the axes that were following it."""
    value = getattr(point, AXES[axis].follows) if value == "same" else value
    followers = [name for name, one in AXES.items() if one.follows == axis]
    alike = [name for name in followers if getattr(point, name) == getattr(point, axis)]
    return _settled(study, {**point.given, **dict.fromkeys([axis, *alike], value)})


def compose_label(point: Axes, axes: Sequence[str]) -> str:
    """A label from the values on ``axes``; those that go without saying are left out unless they are all there is."""
    parts: list[str] = []
    if "family" in axes:
        paper = _PAPER.get(point.positions.name) if "positions" in axes else ""
        parts.append(f"LLaVA-{FAMILIES[point.family]}{paper or ''}")
        axes = [axis for axis in axes if axis != "family" and not (axis == "positions" and paper is not None)]
    labels = {axis: AXES[axis].label(getattr(point, axis)) for axis in axes}
    parts += [label for axis, label in labels.items() if not _goes_without_saying(point, axis)]
    return ", ".join(parts) or ", ".join([*labels.values()][:1])


def describe_arms(arms: Iterable[Arm]) -> list[dict[str, Any]]:
    """Arms as plain values, for ``plan.json``."""
    keys = ("id", "label", "block", "panel", "marker", "baseline", "replicate_of")
    return [{**{key: getattr(arm, key) for key in keys}, "axes": arm.point.plain} for arm in arms]


def training_steps(stage: LlavaStage) -> int:
    """Optimiser steps of a stage; the last batch of an epoch may be smaller.

    Raises:
        UserError: if the study does not say how many rows its data have.
    """
    if stage.data.rows is None:
        raise UserError(f"{stage.data.file}: how many rows it has is not said; write {STATED} under data")
    return ceil(stage.data.rows / stage.batch) * stage.epochs


def _crossed(study: Study) -> Iterator[Arm]:
    crosses = study.arms.crosses
    axes = tuple(axis for axis in AXES if any(axis in cross.given for cross in crosses))
    paired = len(axes) == 2 and not study.arms.named and not any(cross.group for cross in crosses)
    for cross in crosses:
        for values in product(*cross.given.values()):
            point = resolve(study, {**study.arms.base.given, **dict(zip(cross.given, values, strict=True))})
            names = [str(getattr(point, axis)).lower().split("/")[-1] for axis in axes if axis in point.given]
            arm = Arm(study, "-".join(names), compose_label(point, axes), point, cross.group, varied=axes)
            yield _paired(arm) if paired else arm


def _paired(arm: Arm) -> Arm:
    first, second = arm.varied
    value = getattr(arm.point, second)
    marker = AXES[second].label(value)
    return replace(
        arm,
        block=_BLOCKS.get(value.name, marker) if second == "positions" else marker[:1].upper() + marker[1:],
        panel=AXES[first].label(getattr(arm.point, first)),
        marker=marker,
        baseline=value in arm.study.arms.baselines.get(second, []),
    )


def _replicate(study: Study, arms: list[Arm]) -> list[Arm]:
    wanted = study.arms.replicate
    if wanted is None:
        return []
    for arm in arms:
        if arm.id == wanted.of:
            label = wanted.label or f"{arm.label} (replicate)"
            return [replace(arm, id=REPLICATE, label=label, replicate_of=arm.id, against=())]
    hint = did_you_mean(wanted.of, [arm.id for arm in arms])
    raise UserError(f'replicate "{wanted.of}": not an arm of this study; {hint}')


def _settled(study: Study, values: dict[str, Any]) -> Axes:
    if study.recipe == "toy":
        objective = OBJECTIVES.get(values["objective"])
        reads = objective is not None and objective.reads_captions
        values = {**values, "captions": (values.get("captions") or study.encoder.captions) if reads else None}
    return Axes.model_construct(**values)


def _goes_without_saying(point: Axes, axis: str) -> bool:
    value, said = getattr(point, axis), AXES[axis]
    follows = said.same and value == getattr(point, said.follows)
    return value is None or value is False or bool(follows) or str(value) == said.unstated


def _check(arm: Arm) -> None:
    def refuse(text: str) -> UserError:
        return UserError(f'"{arm.id}": {text}')

    point, stages = arm.point, {}
    if arm.study.recipe == "llava":
        stages = arm.own_stages
        _check_real(arm, refuse)
        cls, encoder = arm.encoder_size.prefix > 0, point.encoder
    else:
        cls, encoder = ENCODERS[point.family].cls_token, point.family
        if encoder == "dinov2" and arm.study.model.mlp % arm.study.model.width:
            raise refuse(f"a dinov2 tower needs model.mlp {arm.study.model.mlp} to be a multiple of its width")
    if point.drop_first_patch and cls:
        raise refuse(f"{encoder} has a CLS token to drop; drop_first_patch is for encoders without")
    trained = point.encoder_training == "trained" or any("encoder" in stage.trains for stage in stages.values())
    if trained and point.positions.values.get("table") == "released":
        raise refuse('the table "released" belongs to a frozen encoder, and this one trains')
    scheme = point.language_positions.values["scheme"]
    if arm.ordered_grid is None and SCHEMES[scheme].needs_grid:
        raise refuse(
            f"language positions {scheme} need image tokens in rows and columns, and its connector leaves none; "
            f"one of: {', '.join(sorted(name for name, one in SCHEMES.items() if not one.needs_grid))}"
        )


def _check_real(arm: Arm, refuse: Any) -> None:
    point = arm.point
    if point.image_size < arm.encoder_size.patch:
        patch = arm.encoder_size.patch
        raise refuse(f"image_size {point.image_size} is smaller than a patch of {point.encoder} ({patch})")
    if point.evaluate_with.values["scheme"] == "mixed" != point.positions.values["scheme"]:
        raise refuse("evaluate_with mixed has frequencies that are learned, and no stage trains them")
    if not point.connector_from and "connector" not in arm.stages["connector"].trains:
        raise refuse("stage connector does not train the connector, which would stay random")
    for name, stage in arm.own_stages.items():
        if stage.encoder_lr is not None and "encoder" not in stage.trains:
            raise refuse(f"stage {name}: encoder_lr is given, but the encoder is not among what it trains")


def _check_source(arm: Arm, source: Arm) -> None:
    if source.point.connector_from:
        own = source.point.connector_from
        raise UserError(f'"{arm.id}": connector_from: {source.id} has no stage 1 of its own; name {own}')
    if source.stages["connector"].trains != ["connector"]:
        raise UserError(f'"{arm.id}": connector_from: stage 1 of {source.id} trains more than the connector')
    for key in ("encoder", "language_model", "connector", "drop_first_patch"):
        if getattr(arm.point, key) != getattr(source.point, key):
            raise UserError(f'"{arm.id}": connector_from: {source.id} has another {key}; its connector does not fit')
