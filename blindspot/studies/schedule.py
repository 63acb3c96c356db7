"""How long steps take, which goes first, and when all will be done."""

import heapq
from collections.abc import Collection, Mapping, Sequence

from blindspot.errors import UserError
from blindspot.studies.arms import Arm
from blindspot.studies.cost import GPUS, flops
from blindspot.studies.schema import Study
from blindspot.studies.step import Step
from blindspot.training.objectives import OBJECTIVES

SECONDS_PER_SAMPLE = {"text": 2.5e-3, "connector": 2.7e-3, "instruct": 3.8e-3}
SECONDS_PER_TRAINING_IMAGE = 8e-4
SECONDS_PER_TEST_QUESTION = 8e-3  # for all columns together
SECONDS_PER_DIAGNOSTIC = 5.0
SECONDS_PER_EVALUATION = 3600.0  # of a model of real size
REFERENCE_WIDTH = 64  # the width at which the figures above were measured, one thread of a 2-core machine
SECONDS_TO_START = 6.0  # workers import torch and transformers


def estimate(study: Study, kind: str, arm: Arm | None = None) -> float:
    """Expected seconds of a step: of a miniature on one core, of models of real size on one A100."""
    if study.recipe == "llava":
        return _real(kind, arm) if arm else 1.0
    if kind == "data":
        return 1.0 + SECONDS_PER_TRAINING_IMAGE * study.data.train
    scale = study.model.width / REFERENCE_WIDTH
    if kind == "diagnose":
        return SECONDS_PER_DIAGNOSTIC * len(study.diagnose)
    if kind == "evaluate":
        return 0.5 + SECONDS_PER_TEST_QUESTION * study.data.test * scale
    recipes = {"text": study.text, "encoder": study.encoder, "connector": study.connector, "instruct": study.instruct}
    recipe = recipes[kind]
    objective = OBJECTIVES.get(arm.point.objective) if arm else None
    per_sample = SECONDS_PER_SAMPLE.get(kind, objective.seconds if objective else 0.0)
    return 0.5 + recipe.steps * recipe.batch * per_sample * scale


def _real(kind: str, arm: Arm) -> float:
    if kind not in arm.stages:
        return SECONDS_PER_EVALUATION
    try:
        return SECONDS_TO_START + flops(arm, arm.stages[kind]).total / (0.4 * GPUS[1].peak)
    except UserError:  # the study does not say how large its data are
        return SECONDS_PER_EVALUATION


def critical_paths(steps: Sequence[Step], seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds from the start of each step to the end of the longest chain that waits for it."""
    longest_after: dict[str, float] = {}
    paths: dict[str, float] = {}
    for step in reversed(steps):
        paths[step.id] = seconds.get(step.id, 0.0) + longest_after.get(step.id, 0.0)
        for source in step.inputs.values():
            longest_after[source] = max(longest_after.get(source, 0.0), paths[step.id])
    return paths


def makespan(steps: Sequence[Step], seconds: Mapping[str, float], workers: int, running: Collection[str] = ()) -> float:
    """Seconds until all of ``seconds`` is done when the longest path goes first.

    Args:
        steps: all steps, inputs before what needs them.
        seconds: what is left of each unfinished step; steps not in it are done.
        workers: processes side by side.
        running: unfinished steps that already have a worker.
    """
    paths = critical_paths(steps, seconds)
    waiting = {step.id: {source for source in step.inputs.values() if source in seconds} for step in steps}
    pending = [step.id for step in steps if step.id in seconds]
    busy: list[tuple[float, str]] = []
    now = 0.0
    while pending or busy:
        ready = sorted(
            (name for name in pending if not waiting[name]), key=lambda name: (name not in running, -paths[name])
        )
        for name in ready[: workers - len(busy)]:
            pending.remove(name)
            heapq.heappush(busy, (now + seconds[name], name))
        now, finished = heapq.heappop(busy)
        for sources in waiting.values():
            sources.discard(finished)
    return now
