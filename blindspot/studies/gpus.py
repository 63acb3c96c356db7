"""The GPUs of this machine, found without torch, and how many of them each step of a study of real size asks for."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from blindspot.errors import UserError
from blindspot.studies.arms import STAGES, Arm, expand_arms
from blindspot.studies.budget import memory
from blindspot.studies.schema import Study
from blindspot.studies.step import Step
from blindspot.training.flops import Gpu

COUNTS = (1, 2, 4, 8)
"""How many GPUs a training step asks for, unless it is told."""
QUERY = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]


class Gpus(NamedTuple):
    """Some GPUs: as ``CUDA_VISIBLE_DEVICES`` names them, and the bytes of the smallest; None if these are not known."""

    names: tuple[str, ...]
    memory: float | None = None


def find_gpus() -> Gpus:
    """Those of this machine that this process may use."""
    try:
        said = subprocess.run(QUERY, capture_output=True, text=True, timeout=30, check=True).stdout
        memories = [float(line) * 2**20 for line in said.splitlines()]
    except (OSError, ValueError, subprocess.SubprocessError):
        memories = []
    names = [str(number) for number in range(len(memories))]
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        names = [name.strip() for name in visible.split(",")]
        wrong = (place for place, name in enumerate(names) if name in ("", "-1") or name in names[:place])
        names = names[: next(wrong, None)]  # as CUDA reads it
    return Gpus(tuple(names), min(memories, default=None))


def with_gpus(study: Study, steps: Sequence[Step], gpus: Gpus, per_step: int | None = None) -> list[Step]:
    """The steps, each with the GPUs that it asks for: one, and to train ``per_step``.

    Args:
        study: of any size; steps of a miniature ask for none, like all on a machine without.
        per_step: by default the fewest of `COUNTS` that hold the stage, as `budget.memory` counts.
    """
    if not gpus.names:
        if per_step:
            raise UserError(
                "--gpus-per-step: this machine has no GPU; leave it out, or carry the study out on one that has"
            )
        return list(steps)
    arms = {arm.id: arm for arm in expand_arms(study)}

    @cache
    def fewest(arm: Arm, kind: str) -> int:
        if study.rehearsed or gpus.memory is None:
            return 1
        try:
            of = (memory(arm, arm.stages[kind], number).fits(Gpu("", 0.0, gpus.memory)) for number in COUNTS)
            return next((number for number, fit in zip(COUNTS, of, strict=True) if fit == "none"), COUNTS[-1])
        except UserError:  # the study does not say how large its data are
            return 1

    asking = []
    for step in steps:
        number = 0 if step.kind == "data" or step.config.get("served") else 1
        if step.kind in STAGES:
            number = per_step or fewest(arms[str(step.arm)], step.kind)
        if number > len(gpus.names):
            raise UserError(
                f"{step.id} asks for {number} GPUs and there are {len(gpus.names)}; use fewer with --gpus-per-step, or "
                "carry the study out where there are more"
            )
        asking.append(replace(step, gpus=number, estimate=step.estimate / max(number, 1)))
    return asking
