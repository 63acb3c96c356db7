"""The arms of a study of real size: each with everything that one training run needs."""

from dataclasses import dataclass, fields, replace
from math import ceil
from typing import Any

from blindspot.connectors import ConnectorSpec, output_grid, output_tokens
from blindspot.errors import UserError
from blindspot.studies.arms import REPLICATE, REPLICATE_SEED_OFFSET
from blindspot.studies.axes import CONNECTORS, ENCODER_POSITIONS, LANGUAGE_POSITIONS, WITHOUT_GRID, Choice
from blindspot.studies.nearest import suggest
from blindspot.studies.paper.sizes import EncoderSize, LanguageSize, encoder_size, language_size
from blindspot.studies.paper.spec import Named, PaperStudy, Stage

STAGES = ("connector", "instruct")
STATED = "rows, with_image, text_tokens and supervised_tokens"
FEATURE_LAYER = -2
"""The encoder's layer that is read: LLaVA-1.5's, the last block but one."""


@dataclass(frozen=True)
class ResolvedArm:
    """One arm with nothing left to default.

    Attributes:
        study: name of its study.
        id: in commands and folder names.
        label: how tables write it.
        group: heads its rows in tables.
        encoder: checkpoint of the image encoder.
        image_size: side of the square image in pixels.
        positions: of the encoder; ``values`` are those of `EncoderPositions`.
        evaluate_with: those at evaluation.
        drop_first_patch: whether the first patch is dropped though there is no CLS token.
        connector: ``values`` are those of `ConnectorSpec`.
        connector_from: the arm whose stage 1 it starts stage 2 from; None for its own.
        language_model: checkpoint of the language model.
        language_positions: ``values`` are those of `LanguagePositions`.
        stages: `Stage` by name, in the order of `STAGES`.
        seeds: of its runs.
        against: arms that it is compared with.
        replicate_of: the arm that it repeats from other seeds.
        encoder_size: sizes of ``encoder``.
        language_size: sizes of ``language_model``.
    """

    study: str
    id: str
    label: str
    group: str
    encoder: str
    image_size: int
    positions: Choice
    evaluate_with: Choice
    drop_first_patch: bool
    connector: Choice
    connector_from: str | None
    language_model: str
    language_positions: Choice
    stages: dict[str, Stage]
    seeds: tuple[int, ...]
    against: tuple[str, ...]
    replicate_of: str | None
    encoder_size: EncoderSize
    language_size: LanguageSize

    @property
    def own_stages(self) -> dict[str, Stage]:
        """The stages that it runs itself."""
        passed = "connector" if self.connector_from else None
        return {name: self.stages[name] for name in STAGES if name in self.stages and name != passed}

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.encoder_size.grid(self.image_size)

    @property
    def image_tokens(self) -> int:
        """Tokens of the language model that an image takes."""
        if self.drop_first_patch:
            return self.grid[0] * self.grid[1] - 1
        spec = ConnectorSpec.from_dict(self.connector.values)
        ordered = output_grid(spec, self.grid)
        breaks = ordered[0] if ordered and self.language_positions.values["scheme"] == "row_break" else 0
        return output_tokens(spec, self.grid) + breaks

    def plain(self) -> dict[str, Any]:
        """Plain values, for ``--json`` and a run's record."""
        skipped = ("stages", "seeds", "against", "encoder_size", "language_size")
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in skipped}
        return {
            **{key: dict(value.values) if isinstance(value, Choice) else value for key, value in values.items()},
            "grid": list(self.grid),
            "image_tokens": self.image_tokens,
            "seeds": list(self.seeds),
            "against": list(self.against),
            "stages": {name: stage.model_dump(exclude_none=True) for name, stage in self.stages.items()},
        }


def expand(study: PaperStudy) -> list[ResolvedArm]:
    """Every arm of a study, its replicate last.

    Raises:
        UserError: if an arm is not possible, or names another that does not exist.
    """
    arms = [_resolved(study, named) for named in study.arms.named]
    ids = [arm.id for arm in arms]
    for number, arm in enumerate(arms):
        if arm.id in ids[:number] or arm.id == REPLICATE:
            raise UserError(f'two arms are called "{arm.id}"; rename one')
        for other in (*arm.against, *([arm.connector_from] if arm.connector_from else [])):
            if other not in ids or other == arm.id:
                rest = [one for one in ids if one != arm.id]
                raise UserError(f'"{arm.id}": "{other}": not another arm of this study; {suggest(other, rest)}')
        if arm.connector_from:
            _check_source(arm, arms[ids.index(arm.connector_from)])
    wanted = study.arms.replicate
    if wanted is None:
        return arms
    if wanted.of not in ids:
        raise UserError(f'replicate "{wanted.of}": not an arm of this study; {suggest(wanted.of, ids)}')
    arm = arms[ids.index(wanted.of)]
    label = wanted.label or f"{arm.label} (replicate)"
    seeds = tuple(seed + REPLICATE_SEED_OFFSET for seed in arm.seeds)
    return [*arms, replace(arm, id=REPLICATE, label=label, seeds=seeds, replicate_of=arm.id, against=(arm.id,))]


def resolve(study: PaperStudy, arm_name: str) -> ResolvedArm:
    """One arm by its id.

    Raises:
        UserError: if there is none, naming the nearest.
    """
    arms = {arm.id: arm for arm in expand(study)}
    if arm_name not in arms:
        raise UserError(f'{study.name} has no arm "{arm_name}"; {suggest(arm_name, arms)}')
    return arms[arm_name]


def steps(stage: Stage) -> int:
    """Optimiser steps of a stage; the last batch of an epoch may be smaller.

    Raises:
        UserError: if the study does not say how many rows its data have.
    """
    if stage.data.rows is None:
        raise UserError(f"{stage.data.file}: how many rows it has is not said; write {STATED} under data")
    return ceil(stage.data.rows / stage.batch) * stage.epochs


def _resolved(study: PaperStudy, named: Named) -> ResolvedArm:
    given = {**study.arms.base.given, **named.given}
    for key in ("encoder", "language_model"):
        if key not in given:
            raise UserError(f'"{named.id}": {key}: missing; give it here or under base')
    encoder, language = encoder_size(given["encoder"]), language_size(given["language_model"])
    learned = ENCODER_POSITIONS["learned"]
    defaults = {
        "image_size": encoder.image,
        "positions": learned,
        "evaluate_with": given.get("positions", learned),
        "drop_first_patch": False,
        "connector": CONNECTORS["mlp"],
        "connector_from": None,
        "language_positions": LANGUAGE_POSITIONS["rope1d"],
    }
    arm = ResolvedArm(
        study=study.name,
        id=named.id,
        label=named.label,
        group=named.group,
        stages={name: _stage(study, named, name) for name in STAGES},
        seeds=tuple(range(study.seeds)),
        against=tuple(named.against),
        replicate_of=None,
        encoder_size=encoder,
        language_size=language,
        **{**defaults, **given},
    )
    _check(arm)
    return arm


def _stage(study: PaperStudy, named: Named, name: str) -> Stage:
    changes = getattr(named.stages, name).given
    stage: Stage = getattr(study.stages, name).model_copy(update=changes)
    inherited = "encoder" not in stage.trains and "encoder_lr" not in changes
    return stage.model_copy(update={"encoder_lr": None}) if inherited else stage


def _check(arm: ResolvedArm) -> None:
    def refuse(text: str) -> UserError:
        return UserError(f'"{arm.id}": {text}')

    if arm.image_size < arm.encoder_size.patch:
        raise refuse(f"image_size {arm.image_size} is smaller than a patch of {arm.encoder} ({arm.encoder_size.patch})")
    if arm.drop_first_patch and arm.encoder_size.prefix:
        raise refuse(f"{arm.encoder} has a CLS token to drop; drop_first_patch is for encoders without")
    if arm.evaluate_with.values["scheme"] == "mixed" != arm.positions.values["scheme"]:
        raise refuse("evaluate_with mixed has frequencies that are learned, and no stage trains them")
    if arm.connector_from is None and "connector" not in arm.stages["connector"].trains:
        raise refuse("stage connector does not train the connector, which would stay random")
    for name, stage in arm.own_stages.items():
        if "encoder" in stage.trains and arm.positions.values.get("table") == "released":
            raise refuse(f'the table "released" belongs to a frozen encoder, and stage {name} trains it')
        if stage.encoder_lr is not None and "encoder" not in stage.trains:
            raise refuse(f"stage {name}: encoder_lr is given, but the encoder is not among what it trains")
    ordered = output_grid(ConnectorSpec.from_dict(arm.connector.values), arm.grid)
    scheme = arm.language_positions.values["scheme"]
    if (ordered is None or arm.drop_first_patch) and scheme not in WITHOUT_GRID:
        raise refuse(
            f"language positions {scheme} need image tokens in rows and columns, and its connector leaves none; "
            f"one of: {', '.join(sorted(WITHOUT_GRID))}"
        )


def _check_source(arm: ResolvedArm, source: ResolvedArm) -> None:
    if source.connector_from:
        raise UserError(
            f'"{arm.id}": connector_from: {source.id} has no stage 1 of its own; name {source.connector_from}'
        )
    if source.stages["connector"].trains != ["connector"]:
        raise UserError(f'"{arm.id}": connector_from: stage 1 of {source.id} trains more than the connector')
    for key in ("encoder", "language_model", "connector", "drop_first_patch"):
        if getattr(arm, key) != getattr(source, key):
            raise UserError(f'"{arm.id}": connector_from: {source.id} has another {key}; its connector does not fit')
