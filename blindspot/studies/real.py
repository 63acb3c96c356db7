"""Arms of studies of real size: from released checkpoints and LLaVA's data to a model, and to its answers."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blindspot.benchmarks.registry import select
from blindspot.benchmarks.scoring import profile
from blindspot.benchmarks.sources.download import data_root
from blindspot.connectors import ConnectorSpec
from blindspot.errors import UserError
from blindspot.evaluation.run.folder import ANSWERS
from blindspot.evaluation.run.opening import open_local
from blindspot.evaluation.run.runner import prepare, why_unanswered
from blindspot.files import CHECKPOINTS, read_jsonl, write_jsonl
from blindspot.model.assemble import assemble, position_table
from blindspot.positions import EncoderPositions, LanguagePositions
from blindspot.studies.arms import FEATURE_LAYER, REPLICATE_SEED_OFFSET, STAGES, Arm, find_arm
from blindspot.studies.loading import load_study
from blindspot.studies.needs import needs
from blindspot.studies.schema import LlavaStage
from blindspot.studies.sizes import local_folder
from blindspot.studies.step import StepContext
from blindspot.training.checkpoint import refuse_another
from blindspot.training.config import TrainConfig
from blindspot.training.fit import Report, silent
from blindspot.training.parallel import DTYPES, Ranks, joined
from blindspot.training.parts import CONNECTOR, load_parts, save_parts
from blindspot.training.variant import MODEL, Material, refuse_long, save_model, train_stage

PARTS = {"connector": "multi_modal_projector", "language_model": "language_model", "encoder": "vision_tower"}
"""Names in studies, and in `TrainConfig.frozen`."""


@dataclass(frozen=True)
class Run:
    """One arm from one seed.

    Attributes:
        arm: the arm.
        seed: of the connector's start and of the order of the data.
        data_root: the data folder; None where the study names all of its data by absolute paths.
        index: where the rows of data files are indexed, on a disk that all ranks see.
        folders: of its stages, likewise; that of stage 1 is another arm's where it starts from that arm's.
        machine: fields of `TrainConfig` that the study does not say: what memory and disk ask for.
    """

    arm: Arm
    seed: int
    data_root: Path | None
    index: Path
    folders: Mapping[str, Path]
    machine: Mapping[str, Any] = field(default_factory=dict)

    def product(self, name: str) -> Path:
        """What a stage leaves, last."""
        return self.folders[name] / (CONNECTOR if name == "connector" else MODEL)

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
        evaluated = {"evaluate_with": EncoderPositions(**arm.point.evaluate_with.values).to_dict()}
        return {
            "study": arm.study.name,
            "arm": arm.id,
            "stage": name,
            "encoder": arm.point.encoder,
            "language_model": arm.point.language_model,
            "image_size": arm.point.image_size,
            "encoder_positions": EncoderPositions(**arm.point.positions.values).to_dict(),
            "language_positions": LanguagePositions(**arm.point.language_positions.values).to_dict(),
            "connector": ConnectorSpec.from_dict(arm.point.connector.values).to_dict(),
            "drop_first_patch": arm.point.drop_first_patch,
            "connector_from": arm.point.connector_from,
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
        return refuse_another(self.folders[name], values) and self.product(name).exists()


def run_in(arm: Arm, seed: int, data_root: Path | None, out: Path, machine: Mapping[str, Any]) -> Run:
    """A run whose stages lie in ``out/ARM-seedN``."""
    first, first_seed = arm.id, seed
    if arm.point.connector_from:  # that arm is not trained from the replicate's seeds
        first, first_seed = arm.point.connector_from, seed - (REPLICATE_SEED_OFFSET if arm.replicate_of else 0)
    folders = {
        "connector": out / f"{first}-seed{first_seed}/connector",
        "instruct": out / f"{arm.id}-seed{seed}/instruct",
    }
    return Run(arm, seed, data_root, out / "rows", folders, machine)


def train_step(context: StepContext) -> None:
    """A stage as a step of a study. Its rows are indexed once for the whole study, beside the steps."""
    name = context.step.kind
    run = _of_step(context, {name: context.folder, **context.inputs})
    train_run(run, [name], context.report)


def evaluate_step(context: StepContext) -> None:
    """Put the study's benchmarks to the model of the instruct stage; what is answered is not asked again."""
    rules, benchmarks = profile(context.step.config["profile"]), select(",".join(context.step.config["benchmarks"]))
    model = str(context.inputs["instruct"] / MODEL)
    evaluation = prepare(benchmarks, data_root(context.data_path), partial(open_local, model))
    total = sum(len(collection.questions) for collection in evaluation.collections)
    answered: dict[str, int] = {}

    def report(benchmark: str, done: int, of: int) -> None:
        answered[benchmark] = done
        context.report(sum(answered.values()), total, phase=benchmark)

    if unanswered := evaluation.run(context.folder, report):
        raise UserError(why_unanswered(context.folder, unanswered))
    rows = (row for one in benchmarks for row in read_jsonl(context.folder / one.name / ANSWERS))
    write_jsonl(context.folder / ANSWERS, ({**row, **rules.score(row).numbers()} for row in rows))


def _of_step(context: StepContext, folders: Mapping[str, Path]) -> Run:
    study_folder = context.folder.parent.parent
    arm = find_arm(load_study(study_folder / "study.yaml"), context.step.config["arm"])
    machine = {} if torch.cuda.is_available() else {"precision": "fp32", "workers": 0}
    return Run(arm, context.step.config["seed"], context.data_path, study_folder / "rows", folders, machine)


def train_run(run: Run, stages: Sequence[str] = STAGES, report: Report = silent) -> Path:
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
        raise UserError(f"{run.arm.id} takes its stage 1 from {run.arm.point.connector_from}; train that arm's")
    with joined() as ranks:
        open_names = [name for name in names if not ranks.first_does(partial(run.finished, name))]  # its disk is ahead
        for name in open_names:
            refuse_long(run.config(name), run.arm.stages[name].max_length)
        _refuse_missing(run, open_names)
        for name in open_names:
            _train(run, name, ranks, report)
    return run.product(names[-1])


def seed_of(arm: Arm, seed: int | None) -> int:
    """A seed of the arm's, its first by default.

    Raises:
        UserError: if the arm does not have it.
    """
    if seed is None:
        return arm.seeds[0]
    if seed not in arm.seeds:
        raise UserError(f"--seed {seed}: {arm.id} has the seeds {', '.join(map(str, arm.seeds))}")
    return seed


def _refuse_missing(run: Run, names: Sequence[str]) -> None:
    for need in needs([run.arm] if names else [], run.data_root, names):
        if not need.here:
            how = f"; get it with: {need.commands[0]}" if need.commands else ""
            where = " (name the data folder with --data)" if need.kind == "data" and run.data_root is None else ""
            raise UserError(f"{need.what} is not all there, {need.missing} is missing{where}{how}")


def _train(run: Run, name: str, ranks: Ranks, report: Report) -> None:
    arm, stage, folder = run.arm, run.arm.stages[name], run.folders[name]
    connector = None if name == "connector" else _connector(run)
    variant, processor = assemble(
        _local(arm.point.encoder),
        _local(arm.point.language_model),
        run.seed,
        EncoderPositions(**arm.point.positions.values),
        LanguagePositions(**arm.point.language_positions.values),
        ConnectorSpec.from_dict(arm.point.connector.values),
        arm.point.image_size,
        arm.point.drop_first_patch,
        FEATURE_LAYER,
    )
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


def _local(name: str) -> Path:
    folder = local_folder(name)
    assert folder is not None  # _refuse_missing has seen it
    return folder


def _connector(run: Run) -> Path:
    """The connector that stage 2 starts from.

    Raises:
        UserError: if it is not trained yet.
    """
    path = run.product("connector")
    if not path.exists():
        arm, seed = run.arm.point.connector_from or run.arm.id, path.parent.parent.name.rpartition("-seed")[2]
        raise UserError(
            f"no {path}, which stage 2 of {run.arm.id} starts from; train it first: "
            f"--arm {arm} --seed {seed} --stage connector"
        )
    return path


def _material(run: Run, stage: LlavaStage) -> Material:
    root, data = run.data_root or Path(), stage.data
    index = run.index / "-".join(Path(data.file).with_suffix("").parts).strip("/-")
    return Material(
        root / data.file, root / data.images, index, stage.template, stage.max_length, stage.aspect_ratio == "pad"
    )


def _as_evaluated(arm: Arm, config: Any, state: dict[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
    """Config and weights with the positions that the arm is evaluated with."""
    trained, evaluated = (EncoderPositions(**one.values) for one in (arm.point.positions, arm.point.evaluate_with))
    if evaluated == trained:
        return config, state
    config.encoder_positions = evaluated.to_dict()
    if evaluated.scheme != "mixed":
        state = {name: tensor for name, tensor in state.items() if not name.endswith("rotation.frequencies")}
    if evaluated.table == "keep" != trained.table:
        state = {**state, **position_table(_local(arm.point.encoder), arm.point.image_size)}
    return config, state
