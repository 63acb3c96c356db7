"""The plan of a study of real size: what every run costs, what it needs and what of that is missing."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blindspot.errors import UserError
from blindspot.studies.arms import Arm, expand_arms
from blindspot.studies.axes import Choice
from blindspot.studies.cost import (
    GPUS,
    PACK,
    Counts,
    Flops,
    Gpu,
    Memory,
    counts,
    flops,
    memory,
    parameters,
    plain,
    trained_parameters,
)
from blindspot.studies.needs import Need, needs
from blindspot.studies.schema import Study

CHECKPOINTS_KEPT = 2
"""Resumable checkpoints that a running stage keeps (the newest may be half written)."""


@dataclass(frozen=True)
class StagePlan:
    """One stage of one arm, of a single seed.

    Attributes:
        arm: its arm.
        name: ``connector`` or ``instruct``.
        counts: samples, tokens, steps.
        flops: operations.
        batch: samples of a step.
        trained: parameters that train.
        memory: by number of GPUs.
    """

    arm: Arm
    name: str
    counts: Counts
    flops: Flops
    batch: int
    trained: int
    memory: dict[int, Memory]


@dataclass(frozen=True)
class Disk:
    """Bytes on disk.

    Attributes:
        downloads: data and checkpoints, unpacked; archives need as much again until they are deleted.
        missing: those still to be had.
        models: bf16 weights that all runs leave.
        running: resumable checkpoints while a stage runs.
    """

    downloads: float
    missing: float
    models: float
    running: float


@dataclass(frozen=True)
class Plan:
    """What a study will do.

    Attributes:
        study: the study.
        reference: how the user named it, for commands.
        arms: its arms.
        stages: of every arm, in order.
        needs: what must be there.
        disk: space.
        gpus: numbers of GPUs that memory and days are told for.
        mfu: share of the peak that is reached.
        data_root: the data folder, if it was given.
    """

    study: Study
    reference: str
    arms: tuple[Arm, ...]
    stages: tuple[StagePlan, ...]
    needs: tuple[Need, ...]
    disk: Disk
    gpus: tuple[int, ...]
    mfu: float
    data_root: Path | None

    @property
    def runs(self) -> int:
        """Trained models: every arm from every seed."""
        return sum(len(arm.seeds) for arm in self.arms)

    @property
    def total(self) -> float:
        """Operations of all runs."""
        return sum(stage.flops.total * len(stage.arm.seeds) for stage in self.stages)

    @property
    def missing(self) -> list[Need]:
        """What is not there."""
        return [need for need in self.needs if not need.here]

    def gpu_hours(self, operations: float, gpu: Gpu) -> float:
        """Hours of one GPU for some operations, at the plan's MFU."""
        return operations / (gpu.peak * self.mfu * 3600)

    @property
    def next_commands(self) -> tuple[str, ...]:
        """What to type next."""
        study = shlex.quote(self.reference)
        if self.data_root is None and any(need.kind == "data" for need in self.needs):
            return (f"blindspot study {study} --plan --data FOLDER",)
        if self.missing:
            first = next((need for need in self.missing if need.commands), None)
            return first.commands if first else ()
        started = f"torchrun --nproc-per-node {max(self.gpus)} -m blindspot" if max(self.gpus) > 1 else "blindspot"
        where = f" --data {shlex.quote(str(self.data_root))}" if self.data_root else ""
        return (f"{started} train {study} --arm {self.arms[0].id}{where}",)


def plan(
    study: Study,
    gpus: Sequence[int] = (1, 8),
    data_root: Path | None = None,
    mfu: float = 0.4,
    reference: str | None = None,
) -> Plan:
    """Plan a study. Reads configs and looks for files; needs no weights, no GPU and no network, and torch only to
    read the sizes of encoders and language models that are not released ones.

    Args:
        study: the study.
        gpus: numbers of GPUs to tell memory and days for.
        data_root: the data folder, laid out as LLaVA's ``playground/data``.
        mfu: share of the peak in (0, 1].
        reference: how the user named the study; by default its name.

    Raises:
        UserError: if ``mfu`` or ``gpus`` is out of range, the folder is none, or data of the user's own have no sizes.
    """
    if not 0 < mfu <= 1:
        raise UserError(f"--mfu: {mfu:g}: should be above 0 and at most 1")
    if not gpus or min(gpus) < 1:
        raise UserError("--gpus: should be at least 1")
    if data_root is not None and not data_root.is_dir():
        raise UserError(f"--data: {data_root} is not a folder; make it, or name the one that holds coco, gqa, ...")
    arms, numbers = expand_arms(study), tuple(sorted(set(gpus)))
    stages = [_stage(arm, name, numbers) for arm in arms for name in arm.own_stages]
    wanted = tuple(needs(arms, data_root))
    return Plan(
        study,
        reference or study.name,
        tuple(arms),
        tuple(stages),
        wanted,
        _disk(arms, stages, wanted),
        numbers,
        mfu,
        data_root,
    )


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan as plain values. Operations, bytes and hours; ``per_run`` numbers are of one seed."""
    return {
        "study": plan.study.name,
        "title": plan.study.title,
        "runs": plan.runs,
        "mfu": plan.mfu,
        "gpus": list(plan.gpus),
        "peaks_tflops": {gpu.name: gpu.peak / 1e12 for gpu in GPUS},
        "flops": plan.total,
        "gpu_hours": _hours(plan, plan.total),
        "arms": [{**_arm_json(arm), "parameters": parameters(arm)} for arm in plan.arms],
        "stages": [_stage_json(plan, stage) for stage in plan.stages],
        "packed_tokens": PACK,
        "disk": vars(plan.disk),
        "needs": [{**vars(need), "commands": list(need.commands), "here": need.here} for need in plan.needs],
        "next": list(plan.next_commands),
    }


def _arm_json(arm: Arm) -> dict[str, Any]:
    return {
        **{key: getattr(arm, key) for key in ("id", "label", "block", "image_tokens", "replicate_of")},
        **{axis: dict(one.values) if isinstance(one, Choice) else one for axis, one in arm.point.given.items()},
        "grid": list(arm.grid),
        "seeds": list(arm.seeds),
        "against": list(arm.against),
        "stages": {name: stage.model_dump(exclude_none=True) for name, stage in arm.stages.items()},
    }


def _stage(arm: Arm, name: str, gpus: Sequence[int]) -> StagePlan:
    stage = arm.stages[name]
    return StagePlan(
        arm,
        name,
        counts(arm, stage),
        flops(arm, stage),
        stage.batch,
        trained_parameters(arm, stage),
        {number: memory(arm, stage, number) for number in gpus},
    )


def _disk(arms: Sequence[Arm], stages: Sequence[StagePlan], wanted: Sequence[Need]) -> Disk:
    return Disk(
        sum(need.size for need in wanted),
        sum(need.size for need in wanted if not need.here),
        sum(2 * sum(parameters(arm).values()) * len(arm.seeds) for arm in arms),
        CHECKPOINTS_KEPT * max(12 * stage.trained for stage in stages),  # fp32 weights and two moments
    )


def _hours(plan: Plan, operations: float) -> dict[str, float]:
    return {gpu.name: round(plan.gpu_hours(operations, gpu), 2) for gpu in GPUS}


def _stage_json(plan: Plan, stage: StagePlan) -> dict[str, Any]:
    return {
        "arm": stage.arm.id,
        "stage": stage.name,
        "batch": stage.batch,
        "trained_parameters": stage.trained,
        **plain(stage.counts),
        "tokens": stage.counts.tokens,
        "flops_per_run": {**plain(stage.flops), "total": round(stage.flops.total)},
        "gpu_hours_per_run": _hours(plan, stage.flops.total),
        "memory_per_gpu": {
            str(number): {
                **plain(bytes_),
                "states": round(bytes_.states),
                "recompute": {gpu.name: bytes_.fits(gpu) for gpu in GPUS},
            }
            for number, bytes_ in stage.memory.items()
        },
    }
