"""Training an arm of a study of real size: both of its stages, from checkpoints and data to a model."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from blindspot.connectors import ConnectorSpec
from blindspot.errors import UserError
from blindspot.model.assemble import assemble, position_table
from blindspot.positions import EncoderPositions, LanguagePositions
from blindspot.studies.arms import REPLICATE_SEED_OFFSET
from blindspot.studies.paper.arms import FEATURE_LAYER, STAGES, ResolvedArm
from blindspot.studies.paper.needs import needs
from blindspot.studies.paper.sizes import local_folder
from blindspot.studies.paper.spec import Stage
from blindspot.training.distributed.arm import MODEL, save_model
from blindspot.training.distributed.config import TrainConfig
from blindspot.training.distributed.connector_file import CONNECTOR
from blindspot.training.distributed.loop import CHECKPOINTS
from blindspot.training.distributed.parallel import DTYPES
from blindspot.training.distributed.part_files import load_parts, save_parts
from blindspot.training.distributed.ranks import Ranks, joined
from blindspot.training.distributed.run_file import refuse_another
from blindspot.training.distributed.stage import Material, refuse_long, train_stage
from blindspot.training.loop import Report

PARTS = {"connector": "multi_modal_projector", "language_model": "language_model", "encoder": "vision_tower"}
"""Names in studies, and in `TrainConfig.frozen`."""


@dataclass(frozen=True)
class Run:
    """One arm from one seed.

    Attributes:
        arm: the arm.
        seed: of the connector's start and of the order of the data.
        data_root: the data folder; None where the study names all of its data by absolute paths.
        out: folder of the study's runs, on a disk that all ranks see.
        machine: fields of `TrainConfig` that the study does not say: what memory and disk ask for.
    """

    arm: ResolvedArm
    seed: int
    data_root: Path | None
    out: Path
    machine: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Its folder; a stage has one inside."""
        return self.out / f"{self.arm.id}-seed{self.seed}"

    def product(self, name: str) -> Path:
        """What a stage leaves, last."""
        return self.folder / name / (CONNECTOR if name == "connector" else MODEL)

    def config(self, name: str) -> TrainConfig:
        """How a stage trains."""
        stage = self.arm.stages[name]
        return TrainConfig(
            **{
                "batch": stage.batch,
                "lr": stage.lr,
                "encoder_lr": stage.encoder_lr,
                "frozen": tuple(PARTS[part] for part in PARTS if part not in stage.trains),
                "epochs": stage.epochs,
                "warmup": stage.warmup,
                "clip": stage.clip,
                "seed": self.seed,
                **self.machine,
            }
        )

    def facts(self, name: str) -> dict[str, Any]:
        """What else tells a stage's run from others: plain values."""
        arm, stage = self.arm, self.arm.stages[name]
        evaluated = {"evaluate_with": EncoderPositions(**arm.evaluate_with.values).to_dict()}
        return {
            "study": arm.study,
            "arm": arm.id,
            "stage": name,
            "encoder": arm.encoder,
            "language_model": arm.language_model,
            "image_size": arm.image_size,
            "encoder_positions": EncoderPositions(**arm.positions.values).to_dict(),
            "language_positions": LanguagePositions(**arm.language_positions.values).to_dict(),
            "connector": ConnectorSpec.from_dict(arm.connector.values).to_dict(),
            "drop_first_patch": arm.drop_first_patch,
            "connector_from": arm.connector_from,
            "data": stage.data.file,
            "template": stage.template,
            "max_length": stage.max_length,
            "aspect_ratio": stage.aspect_ratio,
            **(evaluated if name == "instruct" else {}),
        }

    def finished(self, name: str) -> bool:
        """Whether a stage is done already.

        Raises:
            UserError: if a run of another recipe is in its folder.
        """
        values = {**self.facts(name), **self.config(name).recipe()}
        return refuse_another(self.folder / name, values) and self.product(name).exists()


def train_run(run: Run, stages: Sequence[str] = STAGES, report: Report | None = None) -> Path:
    """Train the stages of a run that are not done yet. Under ``torchrun`` all its processes call this.

    A stage that was stopped goes on from its last checkpoint. When it is done its checkpoints are deleted. The model
    that is left has the positions that the arm is evaluated with: its weights are the trained ones, but where it is
    evaluated with a position table that it did not train with, the table is the encoder checkpoint's own.

    Args:
        run: what to train.
        stages: names of `STAGES`, in order; those that the arm does not run itself are passed over.
        report: told of every step, on the first rank; ``phase`` is the stage.

    Returns:
        What the last of the stages left.

    Raises:
        UserError: if something that is needed is missing, another run is in the folder, or as `train_stage`.
    """
    names = [name for name in stages if name in run.arm.own_stages]
    if not names:
        raise UserError(f"{run.arm.id} takes its stage 1 from {run.arm.connector_from}; train that arm's")
    with joined() as ranks:
        open_names = [name for name in names if not _finished(run, name, ranks)]
        for name in open_names:
            refuse_long(run.config(name), run.arm.stages[name].max_length)
        _refuse_missing(run, open_names)
        for name in open_names:
            _train(run, name, ranks, report or (lambda step, steps, loss=None, phase="": None))
    return run.product(names[-1])


def seed_of(arm: ResolvedArm, seed: int | None) -> int:
    """A seed of the arm's, its first by default.

    Raises:
        UserError: if the arm does not have it.
    """
    if seed is None:
        return arm.seeds[0]
    if seed not in arm.seeds:
        raise UserError(f"--seed {seed}: {arm.id} has the seeds {', '.join(map(str, arm.seeds))}")
    return seed


def _finished(run: Run, name: str, ranks: Ranks) -> bool:
    """As the first rank sees it, whose disk may be ahead of the others'."""
    found: bool | str = False
    if ranks.first:
        try:
            found = run.finished(name)
        except UserError as error:
            found = str(error)
    found = ranks.from_first(found)
    if isinstance(found, str):
        raise UserError(found)
    return found


def _refuse_missing(run: Run, names: Sequence[str]) -> None:
    arm = replace(run.arm, stages={name: run.arm.stages[name] for name in names})
    for need in needs([arm] if names else [], run.data_root):
        if not need.here:
            how = f"; get it with: {need.commands[0]}" if need.commands else ""
            where = " (name the data folder with --data)" if need.kind == "data" and run.data_root is None else ""
            raise UserError(f"{need.what} is not all there, {need.missing} is missing{where}{how}")


def _train(run: Run, name: str, ranks: Ranks, report: Report) -> None:
    arm, stage, folder = run.arm, run.arm.stages[name], run.folder / name
    connector = None if name == "connector" else _connector(run)
    variant, processor = _assembled(arm, run.seed)
    if connector is not None:
        load_parts(variant, connector)
    state = train_stage(
        config := run.config(name),
        variant,
        processor,
        _material(run, stage),
        folder,
        ranks,
        partial(report, phase=name),
        run.facts(name),
    )
    if ranks.first:
        if name == "connector":
            save_parts(state, variant.config, set(PARTS.values()) - set(config.frozen), folder)
        else:
            evaluated, weights = _as_evaluated(arm, variant.config, state)
            save_model(evaluated, weights, processor, folder / MODEL, DTYPES[config.precision])
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    ranks.from_first(None)


def _assembled(arm: ResolvedArm, seed: int) -> tuple[Any, Any]:
    return assemble(
        _local(arm.encoder),
        _local(arm.language_model),
        seed,
        EncoderPositions(**arm.positions.values),
        LanguagePositions(**arm.language_positions.values),
        ConnectorSpec.from_dict(arm.connector.values),
        arm.image_size,
        arm.drop_first_patch,
        FEATURE_LAYER,
    )


def _local(name: str) -> Path:
    folder = local_folder(name)
    assert folder is not None  # _refuse_missing has seen it
    return folder


def _connector(run: Run) -> Path:
    """The connector that stage 2 starts from.

    Raises:
        UserError: if it is not trained yet.
    """
    arm, path = run.arm, run.product("connector")
    seed = run.seed
    if arm.connector_from:
        seed -= REPLICATE_SEED_OFFSET if arm.replicate_of else 0  # that arm is not trained from the replicate's seeds
        path = run.out / f"{arm.connector_from}-seed{seed}" / "connector" / CONNECTOR
    if not path.exists():
        first = f"--arm {arm.connector_from or arm.id} --seed {seed} --stage connector"
        raise UserError(f"no {path}, which stage 2 of {arm.id} starts from; train it first: {first}")
    return path


def _material(run: Run, stage: Stage) -> Material:
    root, data = run.data_root or Path(), stage.data
    index = run.out / "rows" / "-".join(Path(data.file).with_suffix("").parts).strip("/-")
    return Material(
        root / data.file, root / data.images, index, stage.template, stage.max_length, stage.aspect_ratio == "pad"
    )


def _as_evaluated(arm: ResolvedArm, config: Any, state: dict[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
    """Config and weights with the positions that the arm is evaluated with."""
    trained, evaluated = (EncoderPositions(**one.values) for one in (arm.positions, arm.evaluate_with))
    if evaluated == trained:
        return config, state
    config.encoder_positions = evaluated.to_dict()
    if evaluated.scheme != "mixed":
        state = {name: tensor for name, tensor in state.items() if not name.endswith("rotation.frequencies")}
    if evaluated.table == "keep" != trained.table:
        state = {**state, **position_table(_local(arm.encoder), arm.image_size)}
    return config, state
