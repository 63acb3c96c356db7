"""The arms of a study: points in the space of axes, each with a name. Of miniatures and of studies of real size."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Any

from blindspot.connectors import ConnectorSpec, output_grid, output_tokens
from blindspot.encoders import ENCODERS
from blindspot.errors import UserError, did_you_mean
from blindspot.positions.language import SCHEMES
from blindspot.studies.axes import ENCODER_POSITIONS, FAMILIES
from blindspot.studies.schema import AXES, Axes, LlavaStage, Study
from blindspot.studies.sizes import EncoderSize, LanguageSize, encoder_size, language_size
from blindspot.training.objectives import OBJECTIVES

REPLICATE = "replicate"
REPLICATE_SEED_OFFSET = 1000
STAGES = ("connector", "instruct")
FEATURE_LAYER = -2
"""The encoder's layer that is read in models of real size: LLaVA-1.5's, the last block but one."""
_PAPER = {"learned": "", "axial": "-2D-RoPE"}
_BLOCKS = {"learned": "1-D: learned absolute positions", "axial": "2-D: rotary positions (2D-RoPE)"}


@dataclass(frozen=True)
class Arm:
    """One named configuration, nothing left to default."""

    study: Study = field(repr=False, compare=False)
    id: str  # in commands and folder names
    label: str  # how tables write it; the paper's own where the paper has it
    point: Axes  # where it stands; an axis that means nothing for it is None
    block: str = ""  # heading of its rows in tables
    panel: str = ""  # of two crossed axes the first one's value, which has a panel and a colour in figures
    marker: str = ""  # likewise the second one's, which has a mark in figures
    baseline: bool = False  # whether that is a value that others are compared with, drawn with open marks
    varied: tuple[str, ...] = ()  # the axes that the study crosses
    against: tuple[str, ...] = ()  # arms that it is compared with, whatever else moves
    replicate_of: str | None = None  # the arm that it repeats with other seeds
    paper: str | None = None  # the row of the paper's tables that it repeats

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
        """Rows and columns of patches; what of an image is left over at the right and the bottom is not seen."""
        if self.study.recipe == "llava":
            side = self.point.image_size // self.encoder_size.patch
        else:
            side = self.sizes["image"] // self.sizes["patch"]
        return side, side

    @property
    def sizes(self) -> dict[str, int]:
        """Sides in pixels of a miniature's ``image`` and ``patch``."""
        model = self.study.model
        return {"image": self.point.image_size or model.image, "patch": self.point.patch_size or model.patch}

    @property
    def evaluated_otherwise(self) -> bool:
        """Whether it is evaluated in another way than it is trained, so that its weights are another arm's too."""
        return self.point.evaluate_with != self.point.positions or self.point.evaluate_size is not None

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
        breaks = 0
        if self.ordered_grid and self.point.language_positions.values["scheme"] == "row_break":
            breaks = self.ordered_grid[0]
        return output_tokens(ConnectorSpec.from_dict(self.point.connector.values), self.grid) + breaks


def expand_arms(study: Study) -> list[Arm]:
    """Crossed arms, named arms, then the replicate if the study has one. Crossed arms that are the same come once."""
    arms: dict[Axes, Arm] = {}
    for arm in _crossed(study):
        arms.setdefault(arm.point, arm)
    for named in study.arms.named:
        point = resolve(study, {**study.arms.base.given, **named.given}, named.id)
        if point in arms:
            raise UserError(f'"{named.id}" is the same as "{arms[point].id}"; remove one or change an axis')
        arms[point] = Arm(
            study, named.id, named.label, point, named.group, against=tuple(named.against), paper=named.paper
        )
    found = list(arms.values())
    names = {arm.id: arm for arm in found}
    taken = Counter([*(arm.id for arm in found), REPLICATE, *(model.id for model in study.models)])
    for name, count in taken.items():
        if count > 1:
            raise UserError(f'two arms{" or models" * bool(study.models)} are called "{name}"; rename one')
    for arm in found:
        for why in _impossible(arm):
            raise UserError(f'"{arm.id}": {why}')
        first = arm.point.connector_from
        for other in (*arm.against, *([first] if first else [])):
            if other not in names or other == arm.id:
                rest = [name for name in names if name != arm.id]
                raise UserError(f'"{arm.id}": "{other}": not another arm of this study; {did_you_mean(other, rest)}')
        for why in _unfit(arm, names[first]) if first else ():
            raise UserError(f'"{arm.id}": connector_from: {why}')
    if wanted := study.arms.replicate:
        if wanted.of not in names:
            raise UserError(f'replicate "{wanted.of}": not an arm of this study; {did_you_mean(wanted.of, names)}')
        twin = names[wanted.of]
        label = wanted.label or f"{twin.label} (replicate)"
        found.append(replace(twin, id=REPLICATE, label=label, replicate_of=twin.id, against=(), paper=None))
    return found


def find_arm(study: Study, name: str) -> Arm:
    """One arm by its id."""
    arms = {arm.id: arm for arm in expand_arms(study)}
    if name not in arms:
        raise UserError(f'{study.name} has no arm "{name}"; {did_you_mean(name, arms)}')
    return arms[name]


def resolve(study: Study, given: dict[str, Any], name: str = "") -> Axes:
    """The point where the axes that are not ``given`` take their defaults; ``name`` is the arm's, for errors."""
    of = f'"{name}": ' if name else ""
    for axis in given:
        if AXES[axis].only not in ("", study.recipe):
            raise UserError(f"{of}{axis}: is for the recipe {AXES[axis].only}; this study's is {study.recipe}")
    for axis in ("family",) if study.recipe == "toy" else ("encoder", "language_model"):
        if axis not in given:
            choices = f" (one of: {', '.join(FAMILIES)})" if axis == "family" else ""
            raise UserError(f"{of}{axis}: missing; give it here or under base{choices}")
    positions = given.get("positions", ENCODER_POSITIONS["learned"])
    defaults: dict[str, Any] = {name: one.default for name, one in AXES.items() if one.default is not None}
    defaults |= {"positions": positions, "evaluate_with": positions}
    if study.recipe == "llava":
        defaults["image_size"] = encoder_size(given["encoder"]).image
    else:
        if given["family"] not in OBJECTIVES and "objective" not in given:
            raise UserError(f"{of}objective: missing; {given['family']} has none of its own")
        training = {"objective": given["family"], "encoder_training": study.encoder_training}
        defaults |= {"captions": study.encoder.captions, "pretrained_with": positions, **training}
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
    labels: list[str] = []
    for axis in axes:
        value, said = getattr(point, axis), AXES[axis]
        labels.append(said.label(value))
        follows = said.same and value == getattr(point, said.follows)
        if not (value is None or value == said.default or follows):
            parts.append(labels[-1])
    return ", ".join(parts) or ", ".join(labels[:1])


def _crossed(study: Study) -> Iterator[Arm]:
    crosses = study.arms.crosses
    axes = tuple(axis for axis in AXES if any(axis in cross.given for cross in crosses))
    paired = len(axes) == 2 and not study.arms.named and not any(cross.group for cross in crosses)
    for cross in crosses:
        for values in product(*cross.given.values()):
            point = resolve(study, {**study.arms.base.given, **dict(zip(cross.given, values, strict=True))})
            names = [str(getattr(point, axis)).lower().split("/")[-1] for axis in axes if axis in point.given]
            arm = Arm(study, "-".join(names), compose_label(point, axes), point, cross.group, varied=axes)
            if not paired:
                yield arm
                continue
            first, second = axes
            value = getattr(point, second)
            marker = AXES[second].label(value)
            yield replace(
                arm,
                block=_BLOCKS.get(value.name, marker) if second == "positions" else marker[:1].upper() + marker[1:],
                panel=AXES[first].label(getattr(point, first)),
                marker=marker,
                baseline=value in study.arms.baselines.get(second, []),
            )


def _settled(study: Study, values: dict[str, Any]) -> Axes:
    if study.recipe == "toy":
        objective = OBJECTIVES.get(values["objective"])
        reads = objective is not None and objective.reads_captions
        values = {**values, "captions": (values.get("captions") or study.encoder.captions) if reads else None}
    return Axes.model_construct(**values)


def _impossible(arm: Arm) -> Iterator[str]:
    """Why an arm cannot be."""
    point = arm.point
    if arm.study.recipe == "llava":
        patch, cls, encoder = arm.encoder_size.patch, arm.encoder_size.prefix > 0, point.encoder
        trained = any("encoder" in stage.trains for stage in arm.own_stages.values())
        if point.image_size < patch:
            yield f"image_size {point.image_size} is smaller than a patch of {encoder} ({patch})"
        if point.evaluate_with.values["scheme"] == "mixed" != point.positions.values["scheme"]:
            yield "evaluate_with mixed has frequencies that are learned, and no stage trains them"
        if not point.connector_from and "connector" not in arm.stages["connector"].trains:
            yield "stage connector does not train the connector, which would stay random"
        for name, stage in arm.own_stages.items():
            if stage.encoder_lr is not None and "encoder" not in stage.trains:
                yield f"stage {name}: encoder_lr is given, but the encoder is not among what it trains"
    else:
        cls, encoder, trained = ENCODERS[point.family].cls_token, point.family, point.encoder_training == "trained"
        yield from _unseen(arm)
        if point.connector_objective and point.connector.values["name"] != "qformer":
            yield f"connector_objective: {point.connector_objective} is for the connector qformer"
        if encoder == "dinov2" and arm.study.model.mlp % arm.study.model.width:
            yield f"a dinov2 tower needs model.mlp {arm.study.model.mlp} to be a multiple of its width"
    if point.drop_first_patch and cls:
        yield f"{encoder} has a CLS token to drop; drop_first_patch is for encoders without"
    if trained and point.positions.values.get("table") == "released":
        yield 'the table "released" belongs to a frozen encoder, and this one trains'
    scheme = point.language_positions.values["scheme"]
    if arm.ordered_grid is None and SCHEMES[scheme].needs_grid:
        others = ", ".join(sorted(name for name, one in SCHEMES.items() if not one.needs_grid))
        yield (
            f"language positions {scheme} need image tokens in rows and columns, and its connector leaves none; "
            f"one of: {others}"
        )


def _unseen(arm: Arm) -> Iterator[str]:
    """Why a miniature's encoder cannot see the pictures."""
    point, model, (side, patch) = arm.point, arm.study.model, arm.sizes.values()
    family, data = ENCODERS[point.family], arm.study.data
    for size in (side, point.evaluate_size or side):
        if size % patch:
            yield f"image_size {size} is not a multiple of its patch ({patch} px)"
    if (point.aspect == "native") != family.variable_resolution:
        takers = ", ".join(name for name, one in ENCODERS.items() if one.variable_resolution)
        yield f"aspect: native is for {takers}, and for these alone"
    if point.aspect == "native":
        if point.objective not in ("clip", "siglip", "none"):
            yield f"objective: {point.objective} reads square pictures; of native ones clip or siglip"
        if point.reduced_to or point.evaluate_size:
            yield "reduced_to and evaluate_size are for square input, and native pictures are not resized"
        for sides in data.pictures or [[model.image // data.scale] * 2]:
            rows, columns = (data.scale * one / patch for one in sides)
            if rows % 1 or columns % 1 or rows * columns != (side // patch) ** 2:
                yield f"data.pictures: {sides[0]} x {sides[1]} gives no {(side // patch) ** 2} whole patches"
    blocks = model.encoder_layers
    if point.layer is not None and not -blocks - 1 <= point.layer <= blocks:
        yield f"layer {point.layer}: the encoder has {blocks} blocks; one of {-blocks - 1} to {blocks}"


def _unfit(arm: Arm, source: Arm) -> Iterator[str]:
    """Why an arm cannot start from another one's connector."""
    if source.point.connector_from:
        yield f"{source.id} has no stage 1 of its own; name {source.point.connector_from}"
    if source.stages["connector"].trains != ["connector"]:
        yield f"stage 1 of {source.id} trains more than the connector"
    for key in ("encoder", "language_model", "connector", "drop_first_patch"):
        if getattr(arm.point, key) != getattr(source.point, key):
            yield f"{source.id} has another {key}; its connector does not fit"
