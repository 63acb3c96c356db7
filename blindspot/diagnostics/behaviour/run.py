"""Behaviour: where, how far apart, how small and in what company may objects be, and how much does the picture matter?

Every question is asked as it is, and the first of them again with the picture taken away (``blind``: the drawn world
without objects, the same for all), drawn anew as noise, or exchanged for another question's.
"""

from collections.abc import Callable, Sequence
from random import Random

import numpy as np
import torch

from blindspot.diagnostics.base import Budget, Findings, Report
from blindspot.diagnostics.behaviour.tables import (
    Asked,
    answer_table,
    axis_table,
    cell_tables,
    condition_table,
    count_table,
    factor_table,
    heatmaps,
)  # fmt: skip
from blindspot.diagnostics.core.hooked_vlm import HookedVLM
from blindspot.diagnostics.core.rearrangements import SYMMETRIES, rearranged
from blindspot.diagnostics.core.stimuli import TASKS, Speech, Stimulus, direction
from blindspot.scenes.render import render
from blindspot.scenes.world import CANVAS, Scene

PER_CELL = 4
"""Questions about objects are asked this many times as often as the budget says: every cell is looked at by itself."""
BACKGROUND = 36
Show = Callable[[Sequence[Stimulus], int, int], list[np.ndarray]]


def run(vlm: HookedVLM, budget: Budget, report: Report) -> Findings:
    """Accuracy by place, distance, margin, size and number, by axis and by condition; counts and answers given."""
    asked: dict[str, Asked] = {}
    under: dict[str, dict[str, Asked]] = {}
    for number, (task, draw) in enumerate(TASKS.items(), start=1):
        times = 1 if task == "count" else PER_CELL
        asked[task] = _asked(vlm, draw(times * budget.stimuli, budget.seed, vlm.speech), budget)
        plain = asked[task].first(budget.stimuli)
        shown = {name: _asked(vlm, plain.stimuli, budget, show) for name, show in CONDITIONS.items()}
        under[task] = {"as it is": plain, **shown}
        report(number, len(TASKS) + 1)
    across = asked["direction"].first(budget.stimuli)
    down = _asked(vlm, [_transposed(stimulus, vlm.speech) for stimulus in across.stimuli], budget)
    report(len(TASKS) + 1, len(TASKS) + 1)
    tables = [
        condition_table(under),
        *cell_tables(asked),
        factor_table(asked),
        axis_table(across, down),
        count_table(asked["count"]),
        answer_table(asked),
    ]
    return Findings(tables, heatmaps(asked))


def _asked(vlm: HookedVLM, stimuli: list[Stimulus], budget: Budget, show: Show | None = None) -> Asked:
    """The stimuli and their answers, with other pictures if ``show`` says so."""
    pictures = None if show is None else show(stimuli, vlm.side, budget.seed)
    runs = [vlm.run(prepared) for prepared in vlm.batches(stimuli, budget.batch, pictures)]
    return Asked(stimuli, torch.cat([trace.logits_bk for trace in runs]).cpu().numpy())


def _blind(stimuli: Sequence[Stimulus], side: int, seed: int) -> list[np.ndarray]:
    return [render(Scene((), BACKGROUND), side // CANVAS)] * len(stimuli)


def _noise(stimuli: Sequence[Stimulus], side: int, seed: int) -> list[np.ndarray]:
    """Pictures whose pixels are drawn one by one, at the resolution of the drawn world."""
    rng = np.random.default_rng([seed, 1])
    drawn = rng.integers(0, 256, (len(stimuli), CANVAS, CANVAS, 3), dtype=np.uint8)
    return [picture.repeat(side // CANVAS, axis=0).repeat(side // CANVAS, axis=1) for picture in drawn]


def _mismatched(stimuli: Sequence[Stimulus], side: int, seed: int) -> list[np.ndarray]:
    """Every picture once, at another question than its own, whatever its answer."""
    order = list(range(len(stimuli)))
    Random(f"diagnostics/mismatched/{seed}").shuffle(order)
    other = dict(zip(order, [*order[1:], *order[:1]], strict=True))
    return [stimuli[other[number]].image(side) for number in range(len(stimuli))]


def _transposed(stimulus: Stimulus, speech: Speech) -> Stimulus:
    """The same objects with rows and columns exchanged: what was left or right is above or below."""
    return direction(rearranged(stimulus.scene, SYMMETRIES["transposed"]), speech)


CONDITIONS: dict[str, Show] = {"blind": _blind, "noise": _noise, "mismatched": _mismatched}
