"""Arms of studies of real size: from released checkpoints and LLaVA's data to a model, and to its answers."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blindspot.benchmarks.base import Benchmark
from blindspot.benchmarks.registry import select
from blindspot.benchmarks.scoring import profile
from blindspot.benchmarks.sources.download import data_root
from blindspot.connectors import ConnectorSpec
from blindspot.errors import UserError
from blindspot.evaluation.items import Questions
from blindspot.evaluation.run.folder import ANSWERS
from blindspot.evaluation.run.opening import Opened, default_device, open_local, opened
from blindspot.evaluation.run.opening import open_model as open_named
from blindspot.evaluation.run.runner import prepare, why_unanswered
from blindspot.files import CHECKPOINTS, read_jsonl, write_jsonl
from blindspot.model.assemble import assemble, position_table
from blindspot.model.variant import BlindspotForConditionalGeneration
from blindspot.positions import EncoderPositions, LanguagePositions
from blindspot.studies.arms import FEATURE_LAYER, REPLICATE_SEED_OFFSET, STAGES, Arm, find_arm
from blindspot.studies.loading import load_study
from blindspot.studies.needs import needs
from blindspot.studies.rehearsal import write_rehearsal
from blindspot.studies.schema import Axes
from blindspot.studies.sizes import local_folder
from blindspot.studies.step import StepContext
from blindspot.studies.tracking import track_scores, tracker_of
from blindspot.training.checkpoint import refuse_another
from blindspot.training.config import TrainConfig
from blindspot.training.fit import Report, silent
from blindspot.training.parallel import DTYPES, Ranks, joined
from blindspot.training.parts import CONNECTOR, load_parts, save_parts
from blindspot.training.variant import MODEL, Material, refuse_long, save_model, train_stage

PARTS = {"connector": "multi_modal_projector", "language_model": "language_model", "encoder": "vision_tower"}
"""Names in studies, and in `TrainConfig.frozen`."""


@dataclass(frozen=True)
class ArmRun:
    """One arm from one seed. Its folders are on a disk that all ranks see."""

    arm: Arm
    seed: int  # of the connector's start and of the order of the data
    data_root: Path | None  # None where the study names all of its data by absolute paths
    index: Path  # where the rows of data files are indexed
    folders: Mapping[str, Path]  # of its stages; that of stage 1 is another arm's where it starts from that arm's
    machine: Mapping[str, Any] = field(default_factory=dict)  # fields of `TrainConfig` that the study does not say

    def product(self, name: str) -> Path:
        """What a stage leaves, last."""
        return self.folders[name] / (CONNECTOR if name == "connector" else MODEL)

    def config(self, name: str) -> TrainConfig:
        """How a stage trains."""
        stage = self.arm.stages[name]
        frozen = tuple(PARTS[part] for part in PARTS if part not in stage.trains)
        keys = ("batch", "lr", "encoder_lr", "epochs", "warmup", "clip")
        said = {key: getattr(stage, key) for key in keys} | {"frozen": frozen, "seed": self.seed}
        return TrainConfig(**{**said, **self.machine})

    def facts(self, name: str) -> dict[str, Any]:
        """What else tells a stage's run from others: plain values."""
        point, stage = self.arm.point, self.arm.stages[name]
        encoder = {"encoder_positions": point.positions}
        if name == "instruct":
            encoder["evaluate_with"] = point.evaluate_with
        axes = ("encoder", "language_model", "image_size", "drop_first_patch", "connector_from")
        return {
            "study": self.arm.study.name,
            "arm": self.arm.id,
            "stage": name,
            **{axis: getattr(point, axis) for axis in axes},
            **{key: EncoderPositions(**one.values).to_dict() for key, one in encoder.items()},
            "language_positions": LanguagePositions(**point.language_positions.values).to_dict(),
            "connector": ConnectorSpec.from_dict(point.connector.values).to_dict(),
            "data": stage.data.file,
            **{key: getattr(stage, key) for key in ("template", "max_length", "aspect_ratio")},
        }

    def finished(self, name: str) -> bool:
        """Whether a stage is done already; an error if a run of another recipe is in its folder."""
        values = {**self.facts(name), **self.config(name).recipe()}
        return refuse_another(self.folders[name], values) and self.product(name).exists()


def run_in(arm: Arm, seed: int | None, data_root: Path | None, out: Path, machine: Mapping[str, Any]) -> ArmRun:
    """A run whose stages lie in ``out/ARM-seedN``, from a seed of the arm's, its first by default."""
    seed = arm.seeds[0] if seed is None else seed
    if seed not in arm.seeds:
        raise UserError(f"--seed {seed}: {arm.id} has the seeds {', '.join(map(str, arm.seeds))}")
    first, first_seed = arm.id, seed
    if arm.point.connector_from:  # that arm is not trained from the replicate's seeds
        first, first_seed = arm.point.connector_from, seed - (REPLICATE_SEED_OFFSET if arm.replicate_of else 0)
    folders = {
        "connector": out / f"{first}-seed{first_seed}/connector",
        "instruct": out / f"{arm.id}-seed{seed}/instruct",
    }
    return ArmRun(arm, seed, data_root, out / "rows", folders, machine)


def data_step(context: StepContext) -> None:
    """Make what a rehearsal reads."""
    write_rehearsal(context.folder, context.step.config, context.report)


def train_step(context: StepContext) -> None:
    """A stage as a step of a study. Its rows are indexed once for the whole study, beside the steps."""
    train_run(_of_step(context), [context.step.kind], context.report)


def _of_step(context: StepContext) -> ArmRun:
    config, study_folder = context.step.config, context.folder.parent.parent
    arm = find_arm(load_study(study_folder / "study.yaml"), config["arm"])
    machine: dict[str, Any] = {} if torch.cuda.is_available() else {"precision": "fp32", "workers": 0}
    machine["tracker"] = tracker_of(context)
    folders = {context.step.kind: context.folder, **context.inputs}
    return ArmRun(arm, config["seed"], _data_path(context), study_folder / "rows", folders, machine)


def _data_path(context: StepContext) -> Path | None:
    """The folder of data and checkpoints: the user's, or what a rehearsal has made."""
    return context.inputs.get("data", context.data_path)


def evaluate_step(context: StepContext) -> None:
    """Put the study's benchmarks to the model that a stage left, or to one that it names; what is answered is not asked
    again."""
    config, study = context.step.config, load_study(context.folder.parent.parent / "study.yaml")
    chosen = {one.name: one for one in select(study.asked)}
    rules, benchmarks = profile(config["profile"]), [chosen[name] for name in config["benchmarks"]]

    def open_model() -> Opened:
        if "model" in config:
            key = next(one.key_env for one in study.models if one.id == config["arm"])  # no part of the step's key
            name = str(local_folder(config["model"], _data_path(context)) or config["model"])
            return open_named(name, benchmarks, served=config["served"], server={"key_env": key} if key else {})
        if context.step.stage == "instruct":
            return open_local(str(context.inputs["instruct"] / MODEL))
        run = _of_step(context)
        variant, processor = _assembled(run)
        load_parts(variant, run.product("connector"))
        return opened(variant, processor, default_device())

    evaluation = prepare(benchmarks, data_root(_data_path(context)), open_model)
    for collection in evaluation.collections:
        name = collection.benchmark.name
        if config.get("own", {}).get(name, collection.digest) != collection.digest:
            raise UserError(f"{collection.benchmark.place} has changed since the study began; repeat the command")
    total = sum(len(collection.questions) for collection in evaluation.collections)
    answered: dict[str, int] = {}

    def report(benchmark: str, done: int, of: int, tokens: int) -> None:
        answered[benchmark] = done
        context.report(sum(answered.values()), total, phase=benchmark)

    if unanswered := evaluation.run(context.folder, report):
        raise UserError(why_unanswered(context.folder, unanswered))
    rows = (row for one in benchmarks for row in read_jsonl(context.folder / one.name / ANSWERS))
    write_jsonl(context.folder / ANSWERS, ({**row, **rules.score(row).numbers()} for row in rows))
    track_scores(context, lambda: _metrics(benchmarks, list(read_jsonl(context.folder / ANSWERS))))


def _metrics(benchmarks: Sequence[Benchmark], rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What scored rows give of every metric, as a share of the most that it can be."""
    found: dict[str, float] = {}
    for benchmark in benchmarks:
        own = [row for row in rows if row["benchmark"] == benchmark.name]
        score_q = np.array([row["score"] for row in own])
        partial_q = np.array([row.get("partial", row["score"]) for row in own])
        for metric in benchmark.metrics:
            value = Questions.of([row["groups"] for row in own]).sample(metric.terms, score_q, partial_q).value
            if value is not None:
                found[f"{benchmark.name}/{metric.name}"] = value / sum(term.weight for term in metric.terms)
    return found


def train_run(run: ArmRun, stages: Sequence[str] = STAGES, report: Report = silent) -> Path:
    """Train the stages of a run that are not done yet. Under ``torchrun`` all its processes call this.

    A stage that was stopped goes on from its last checkpoint. When it is done its checkpoints are deleted. The model
    that is left has the positions that the arm is evaluated with: its weights are the trained ones, but where it is
    evaluated with a position table that it did not train with, the table is the encoder checkpoint's own.

    Args:
        stages: names of `STAGES`, in order; those that the arm does not run itself are passed over.
        report: told of every step, on the first rank; ``phase`` is the stage.

    Returns:
        What the last of the stages left.
    """
    names = [name for name in stages if name in run.arm.own_stages]
    if not names:
        raise UserError(f"{run.arm.id} takes its stage 1 from {run.arm.point.connector_from}; train that arm's")
    with joined() as ranks:
        open_names = [name for name in names if not ranks.first_does(partial(run.finished, name))]  # its disk is ahead
        for name in open_names:
            refuse_long(run.config(name), run.arm.stages[name].max_length)
        for need in needs([run.arm] if open_names else [], run.data_root, open_names):
            if not need.here:
                how = f"; get it with: {need.commands[0]}" if need.commands else ""
                unsaid = need.kind == "data" and run.data_root is None
                where = " (name the data folder with --data)" if unsaid else ""
                raise UserError(f"{need.what} is not all there, {need.missing} is missing{where}{how}")
        for name in open_names:
            _train(run, name, ranks, report)
    return run.product(names[-1])


def _checkpoint(run: ArmRun, name: str) -> Path:
    folder = local_folder(name, run.data_root)
    assert folder is not None  # `train_run` has seen it
    return folder


def _assembled(run: ArmRun) -> tuple[BlindspotForConditionalGeneration, Any]:
    """The arm's model before stage 1, and its processor."""
    point = run.arm.point
    return assemble(
        _checkpoint(run, point.encoder),
        _checkpoint(run, point.language_model),
        run.seed,
        EncoderPositions(**point.positions.values),
        LanguagePositions(**point.language_positions.values),
        ConnectorSpec.from_dict(point.connector.values),
        point.image_size,
        point.drop_first_patch,
        FEATURE_LAYER,
    )


def _train(run: ArmRun, name: str, ranks: Ranks, report: Report) -> None:
    arm, point, stage, folder = run.arm, run.arm.point, run.arm.stages[name], run.folders[name]
    connector = run.product("connector")
    if name == "instruct" and not connector.exists():
        first, seed = point.connector_from or arm.id, connector.parent.parent.name.rpartition("-seed")[2]
        raise UserError(
            f"no {connector}, which stage 2 of {arm.id} starts from; train it first: "
            f"--arm {first} --seed {seed} --stage connector"
        )
    variant, processor = _assembled(run)
    if name == "instruct":
        load_parts(variant, connector)
    root, file, config = run.data_root or Path(), stage.data.file, run.config(name)
    index = run.index / "-".join(Path(file).with_suffix("").parts).strip("/-")
    padded = stage.aspect_ratio == "pad"
    material = Material(root / file, root / stage.data.images, index, stage.template, stage.max_length, padded)
    told = partial(report, phase=name)
    state = train_stage(config, variant, processor, material, folder, ranks, told, run.facts(name))
    if ranks.first:
        if name == "connector":
            save_parts(state, variant.config, set(PARTS.values()) - set(config.frozen), folder)
        else:
            evaluated, weights = _as_evaluated(point, _checkpoint(run, point.encoder), variant.config, state)
            save_model(evaluated, weights, processor, folder / MODEL, DTYPES[config.precision])
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    ranks.from_first(None)


def _as_evaluated(point: Axes, encoder: Path, config: Any, state: dict[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
    """Config and weights with the positions that the arm is evaluated with."""
    trained, evaluated = (EncoderPositions(**one.values) for one in (point.positions, point.evaluate_with))
    if evaluated == trained:
        return config, state
    config.encoder_positions = evaluated.to_dict()
    if evaluated.scheme != "mixed":
        state = {name: tensor for name, tensor in state.items() if not name.endswith("rotation.frequencies")}
    if evaluated.table == "keep" != trained.table:
        state = {**state, **position_table(encoder, point.image_size)}
    return config, state
